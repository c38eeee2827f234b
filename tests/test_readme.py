"""The README says what the code does."""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from backends.s3 import backend as s3
from spectrogram_predictor import cli, config, errors, recipe
from spectrogram_predictor.handlers import routes
from tests.conftest import ask, inspect
from tests.live import Live

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def settings_table() -> str:
    """Return the rows that the README must have."""
    rows = []
    for option in config.options():
        default = f'"{option.default}"' if isinstance(option.default, str) else option.default
        rows.append(f"| `{option.key}` | `{default}` | {option.help} |")
    return "\n".join(rows)


def test_the_table_of_settings_is_complete() -> None:
    """Every key, its default and its explanation, in order."""
    found = re.search(r"<!-- settings.*?\|---\|---\|---\|\n(.*?)\n\n<!-- end of settings -->", README, re.DOTALL)
    assert found
    assert found[1] == settings_table()


def test_every_route_is_in_the_table() -> None:
    """A new route is documented, or this fails."""
    for route in (*routes.API, *routes.UPLOAD):
        assert route.path.replace("{", "&lt;").replace("}", "&gt;") in README, route.path


def test_every_error_is_in_the_table() -> None:
    """Status and code of each error that a client may see."""
    pending = [errors.SpectrogramPredictorError]
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if cls.status != 500:
            row = next((line for line in README.splitlines() if f"`{cls.code}`" in line), "")
            assert str(cls.status) in row, cls


def test_every_make_target_exists() -> None:
    """What it says to type can be typed."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^\$ |`)make (\w+)", README, re.MULTILINE))
    assert targets >= {"demo", "test", "serve", "bench"}
    assert all(f"\n{target}:" in makefile for target in targets)


def test_every_command_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the walkthrough are commands of ours, with options that exist."""
    monkeypatch.setattr("sys.stderr", None)
    commands = re.findall(r"^\$ \.venv/bin/spectrogram-predictor (.*)$", README, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        words = re.sub(r"<[^>]*>", "0" * 64, command).split()
        assert cli._parser().parse_args(words).run


def test_the_python_blocks_are_python() -> None:
    """They compile."""
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 6
    assert all(ast.parse(block) for block in blocks)


def sound(kind: str, number: int) -> np.ndarray:
    """Seven seconds of a low or a high chord."""
    t = np.arange(7 * 22_050) / 22_050
    base = {"blues": 110, "classical": 1760}[kind] * 2 ** (number / 12)
    chord = sum(np.sin(2 * np.pi * base * step * t) for step in (1, 1.25, 1.5)) / 4
    return chord + 0.01 * np.random.default_rng(number).standard_normal(t.size)


def test_the_training_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: Live) -> None:
    """It learns what it is shown, and the server gives the notebook's own answer."""
    found = re.search(r"<!-- training.*?```python\n(.*?)```", README, re.DOTALL)
    assert found
    monkeypatch.chdir(tmp_path)
    Path("songs").mkdir()
    for kind in ("blues", "classical"):
        for number in range(4):
            soundfile.write(f"songs/{kind}.{number:05}.wav", sound(kind, number), 22_050)
    import keras

    keras.utils.set_random_seed(1)
    namespace: dict[str, Any] = {}
    exec(compile(found[1], "README.md", "exec"), namespace)
    given, model = recipe.Recipe.from_json(Path("genre.recipe.json").read_bytes()), Path("genre.keras")
    assert given == namespace["recipe"]
    inspect(model, given)
    for kind in given.labels:
        soundfile.write("new.wav", sound(kind, 5), 22_050)
        answer = ask(model, given, Path("new.wav").read_bytes())
        notebook = namespace["model"].predict(given.inputs("new.wav")[0], verbose=0).mean(axis=0)
        np.testing.assert_allclose(answer, [notebook], atol=1e-6)
        assert given.labels[notebook.argmax()] == kind
    publishing = re.search(r"<!-- publishing.*?```python\n(.*?)```", README, re.DOTALL)
    assert publishing
    code = publishing[1].replace('Client(verify="certs/server.crt")', "connect()")
    exec(compile(code, "README.md", "exec"), namespace | {"connect": live.client})
    with live.client() as client:
        (state,) = [state for state in client.models() if state.get("recipe") == given.to_mapping()]
    assert (state["state"], state["golden"], tuple(state["labels"])) == ("promoted", 1, given.labels)


def test_the_named_recipes_are_in_the_table() -> None:
    """Each of them."""
    for name in recipe.names():
        assert f"| `{name}` |" in README


def test_the_document_s_docker_line_is_kept() -> None:
    """Ports, mount and token are as users have them in their scripts."""
    dockerfile = (ROOT / "Dockerfile").read_text()
    line = "-v /certs:/certs -p 443:443 -p 4443:4443 -e SIGNING_TOKEN=$SIGNING_TOKEN -dit"
    assert line in README
    names = {option.environment for option in config.options()}
    assert set(re.findall(r"SPECTROGRAM_PREDICTOR_\w+", dockerfile)) <= names
    assert "EXPOSE 443 4443" in dockerfile
    assert "docker build -t spectrogrampredictor ." in (ROOT / "build.sh").read_text()


def test_the_options_of_the_s3_backend_are_documented() -> None:
    """All of them, and no other."""
    section = README.partition("## A bucket in place of a folder")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(s3.OPTIONS)
