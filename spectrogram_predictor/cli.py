"""The command line. Exit codes: 0 done, 1 the server or the input said no, 2 wrong usage."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectrogram_predictor.version import __version__

FAILED = 1
WRONG_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    from spectrogram_predictor.client import ClientError
    from spectrogram_predictor.errors import ConfigError, SpectrogramPredictorError

    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ConfigError as error:
        return _fail(error, WRONG_USAGE)
    except (ClientError, SpectrogramPredictorError, OSError, ValueError) as error:
        return _fail(error, FAILED)
    except KeyboardInterrupt:
        return 130
    return 0


def _fail(error: Exception, code: int) -> int:
    print(f"spectrogram-predictor: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spectrogram-predictor", description="Serve Keras audio models: register, upload, predict."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Any, help: str, *, client: bool = True) -> argparse.ArgumentParser:  # noqa: A002
        command = commands.add_parser(name, help=help, description=help)
        command.set_defaults(run=run)
        if client:
            _add_connection(command)
        return command

    serve = add("serve", _serve, "run the server", client=False)
    _add_settings(serve)
    verify = add("verify", _verify, "hash everything promoted, and set aside what is damaged", client=False)
    _add_settings(verify)
    certs = add("certs", _certs, "write a self-signed certificate for this machine", client=False)
    certs.add_argument("folder", nargs="?", default="certs", type=Path)
    publish = add("publish", _publish, "register a model, upload it, and wait until it is served")
    publish.add_argument("model", type=Path)
    _add_terms(publish)
    register = add("register", _register, "register a model file, or the SHA-256 of one")
    register.add_argument("model", metavar="MODEL|HASH")
    _add_terms(register)
    upload = add("upload", _upload, "upload a registered model")
    upload.add_argument("model", type=Path)
    predict = add("predict", _predict, "ask a model about a song")
    predict.add_argument("song", type=Path)
    predict.add_argument("--model", required=True, metavar="HASH", help="the model's SHA-256")
    _add_csv(predict)
    predict.add_argument("--top", type=int, default=10, metavar="N", help="show the N largest (default 10)")
    predict.add_argument("--json", action="store_true", help="print the server's answer as it is")
    predict.add_argument("--picture", type=Path, metavar="PNG", help="also draw the picture that the model sees")
    models = add("models", _models, "list the models and their states")
    models.add_argument("--json", action="store_true", help="print the server's answer as it is")
    demo = add("demo", _demo, "show the whole story on this machine, in a minute", client=False)
    _add_settings(demo)
    return parser


def _add_csv(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--csv",
        type=Path,
        metavar="FILE",
        help="the song's features; in a file of many songs, the row whose filename is the song's",
    )


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--config", metavar="FILE", help="a TOML file; without it, the built-in defaults")
    command.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override one setting; repeatable",
    )


def _add_connection(command: argparse.ArgumentParser) -> None:
    from spectrogram_predictor import client

    def default(name: str, otherwise: str | None) -> str | None:
        return os.environ.get(f"SPECTROGRAM_PREDICTOR_{name}", otherwise)

    group = command.add_argument_group("connection", "SIGNING_TOKEN is taken from the environment.")
    group.add_argument("--url", default=default("URL", client.URL), help="the API port (%(default)s)")
    group.add_argument(
        "--upload-url", default=default("UPLOAD_URL", client.UPLOAD_URL), help="the upload port (%(default)s)"
    )
    group.add_argument("--cacert", default=default("CACERT", None), metavar="FILE", help="trust this certificate")
    group.add_argument("--insecure", action="store_true", help="do not check the server's certificate")


def _add_terms(command: argparse.ArgumentParser) -> None:
    _or_nothing(command, "recipe", {}).add_argument(
        "--recipe", metavar="FILE|NAME", help="how a song becomes the model's inputs: its JSON, or a shipped one"
    )
    _or_nothing(command, "golden", []).add_argument(
        "--golden",
        type=_golden,
        action="append",
        metavar="SONG=FILE",
        help="a song whose answer is known, and a JSON file with it, as predict --json prints; repeatable",
    )
    _add_csv(command)
    _or_nothing(command, "labels", []).add_argument(
        "--labels", type=lambda text: text.split(","), metavar="A,B,...", help="names of the outputs"
    )
    command.add_argument(
        "--allow-custom",
        action="store_true",
        default=None,
        help="run the Python code in the model's layers of class Lambda on the server: for your own files only",
    )


def _or_nothing(command: argparse.ArgumentParser, name: str, nothing: Any) -> argparse._MutuallyExclusiveGroup:
    group = command.add_mutually_exclusive_group()
    group.add_argument(
        f"--no-{name}", dest=name, action="store_const", const=nothing, help="take away what was registered before"
    )
    return group


def _golden(text: str) -> tuple[Path, Path]:
    song, equals, answer = text.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"takes a song and its answer, SONG=FILE, not {text!r}")
    return Path(song), Path(answer)


def _terms(options: argparse.Namespace) -> dict[str, Any]:
    """Return what is registered of a model as the client takes it; None for what is not mentioned."""
    golden = options.golden and [
        (song, _expected(answer), _row(options.csv, song)) for song, answer in options.golden
    ]
    return {
        "recipe": options.recipe,
        "golden": golden,
        "labels": options.labels,
        "allow_custom": options.allow_custom,
    }


def _row(csv: Path | None, song: Path) -> str | None:
    return features_row(csv, song.name) if csv else None


def _expected(path: Path) -> Any:
    try:
        answer = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no answer in JSON: {error}") from error
    return answer.get("array") if isinstance(answer, dict) else answer


def _client(options: argparse.Namespace) -> Any:
    from spectrogram_predictor.client import Client
    from spectrogram_predictor.errors import ConfigError

    verify = False if options.insecure else options.cacert or True
    try:
        return Client(options.url, options.upload_url, verify=verify)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _serve(options: argparse.Namespace) -> None:
    import asyncio

    from spectrogram_predictor import app, config, logs, signing

    logs.configure()
    settings = config.load(options.config, options.set)
    keys = signing.Keys.from_environment()

    def announce(server: app.Server) -> None:
        host = settings.server.host
        print(f"API port     https://{host}:{server.api_port}")
        print(f"upload port  https://{host}:{server.upload_port}", flush=True)

    asyncio.run(app.serve(settings, keys, announce))


def _verify(options: argparse.Namespace) -> None:
    import asyncio

    from spectrogram_predictor import config
    from spectrogram_predictor.errors import Damaged

    sound, others = asyncio.run(_scrub(config.load(options.config, options.set)))
    print(f"{sound} sound, {others} not")
    if others:
        raise Damaged("not everything promoted is what its name says")


async def _scrub(settings: Any) -> tuple[int, int]:
    """Print what is not sound; return how many are and how many are not."""
    from spectrogram_predictor import scrub
    from spectrogram_predictor.storage import get_backend

    backend = get_backend(settings.storage.backend, settings.storage.url, settings.storage.options)
    await backend.open()
    counts = {True: 0, False: 0}
    try:
        async for verdict in scrub.verify(backend):
            counts[verdict.sound] += 1
            if verdict.sha256 is None:
                print(f"{verdict.key} cannot be read", flush=True)
            elif not verdict.sound:
                print(
                    f"{verdict.key} has the SHA-256 {verdict.sha256}: moved to {verdict.quarantined}", flush=True
                )
    finally:
        await backend.close()
    return counts[True], counts[False]


def _certs(options: argparse.Namespace) -> None:
    from spectrogram_predictor.certificates import make_self_signed

    print(make_self_signed(options.folder))


def _publish(options: argparse.Namespace) -> None:
    with _client(options) as client:
        state = client.publish(options.model, **_terms(options))
    print(state["hash"])


def _register(options: argparse.Namespace) -> None:
    with _client(options) as client:
        print(client.register(options.model, **_terms(options)))


def _upload(options: argparse.Namespace) -> None:
    with _client(options) as client:
        client.upload(options.model)


def _predict(options: argparse.Namespace) -> None:
    csv = _row(options.csv, options.song)
    with _client(options) as client:
        array = client.predict(options.song, options.model, csv)
        state = client.model(options.model) if options.picture or not options.json else {}
    if options.picture:
        _draw(options.song, state, options.picture)
    if options.json:
        print(json.dumps({"array": array}, separators=(",", ":")))
    elif _is_row(array):
        show_probabilities(array[0], state.get("labels", []), options.top)
    else:
        print(json.dumps(array, separators=(",", ":")))


def _models(options: argparse.Namespace) -> None:
    with _client(options) as client:
        models = client.models()
    if options.json:
        print(json.dumps({"models": models}, separators=(",", ":")))
        return
    table = _table("hash", "state", "size", "inputs", "labels or reason")
    for model in models:
        shapes = ", ".join("×".join(str(n or "?") for n in item["shape"]) for item in model["inputs"])
        size = f"{model['size'] / 1e6:.1f} MB" if "size" in model else ""
        remark = model.get("reason") or " ".join(model["labels"])
        table.add_row(model["hash"], model["state"], size, shapes, remark)
    _print(table)


def _demo(options: argparse.Namespace) -> None:
    from spectrogram_predictor import demo

    demo.run(options.config, options.set)


def features_row(path: Path, song: str) -> str:
    """Return the CSV to send: one line of names, one row.

    Parameters
    ----------
    path : Path
        A CSV with one row, or with a column ``filename`` and a row for the song.
    song : str
        The song's file name.

    Raises
    ------
    ValueError
        There is no such row.
    """
    import pandas as pd

    table = pd.read_csv(path)
    if "filename" in table:
        table = table[table["filename"] == song]
    if len(table) != 1:
        raise ValueError(f"{path} has {len(table)} rows for {song}; one is needed")
    text: str = table.drop(columns=["filename", "label"], errors="ignore").to_csv()
    return text


def show_probabilities(row: Sequence[float], labels: Sequence[str], top: int = 10) -> None:
    """Print a model's answer as a table, the largest first."""
    names = labels or [str(number) for number in range(len(row))]
    table = _table("label", "probability")
    ranked = sorted(zip(row, names, strict=False), reverse=True)
    for value, name in ranked[:top]:
        table.add_row(name, f"{value:.4f}")
    _print(table)


def _is_row(array: Sequence[Any]) -> bool:
    """Tell whether an answer is one row of numbers, as a classifier gives it."""
    return (
        len(array) == 1
        and isinstance(array[0], list)
        and all(isinstance(value, int | float) for value in array[0])
    )


def _draw(song: Path, state: dict[str, Any], target: Path) -> None:
    from PIL import Image

    from spectrogram_predictor.recipe import default
    from spectrogram_predictor.sound import audio

    if "recipe" in state:
        Image.fromarray(_seen(song, state["recipe"])).save(target)
        return
    shapes = [tuple(item["shape"]) for item in state["inputs"]]
    height, width = next((shape[:2] for shape in shapes if default.takes_picture(shape)), (None, None))
    Image.fromarray(default.picture(audio.decode(song.read_bytes()), height, width)).save(target)


def _seen(song: Path, fields: dict[str, Any]) -> Any:
    """Return the first picture or spectrogram that a recipe makes of a song, with levels from 0 to 255."""
    import numpy as np

    from spectrogram_predictor.recipe import Recipe

    recipe = Recipe.from_json(fields)
    made = zip(recipe.model_inputs, recipe.inputs(song), strict=True)
    found = next((one for one in made if one[0].kind != "features" and one[1].ndim > 2), None)
    if found is None:
        raise ValueError("the model takes no picture")
    given, (array, *_) = found
    if given.kind != "picture" or given.scaling:
        array = np.interp(array, (array.min(), array.max()), (0, 255)).round()
    return np.squeeze(array, -1).astype(np.uint8) if array.shape[-1] == 1 else array.astype(np.uint8)


def _table(*columns: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE)
    for column in columns:
        # A hash that is folded cannot be copied.
        table.add_column(column, overflow="fold", no_wrap=column == "hash")
    return table


def _print(table: Any) -> None:
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 160).print(table)
