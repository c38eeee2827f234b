"""The command line and the Python client, against a real server."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spectrogram_predictor import cli
from spectrogram_predictor.client import Client, NoAnswer, Refused
from spectrogram_predictor.recipe import Recipe
from tests.conftest import csv_row, sha256
from tests.live import Live
from tests.test_client import notebook_model

Run = Callable[..., int]


@pytest.fixture
def run(live: Live, certs: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process, connected to the server."""
    monkeypatch.setenv("SIGNING_TOKEN", live.token)
    monkeypatch.setenv("SPECTROGRAM_PREDICTOR_URL", live.url)
    monkeypatch.setenv("SPECTROGRAM_PREDICTOR_UPLOAD_URL", live.upload_url)
    monkeypatch.setenv("SPECTROGRAM_PREDICTOR_CACERT", str(certs / "server.crt"))
    return lambda *words: cli.main([str(word) for word in words])


@pytest.fixture
def song_file(tmp_path: Path, song: bytes) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(song)
    return path


def test_publish_predict_models(
    run: Run, picture_model: Path, song_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model goes in with its labels, a song is asked about, and the list shows both."""
    assert run("publish", picture_model, "--labels", "a,b,c") == 0
    digest = capsys.readouterr().out.strip()
    assert digest == sha256(picture_model)
    assert run("predict", song_file, "--model", digest, "--json", "--picture", tmp_path / "p.png") == 0
    array = json.loads(capsys.readouterr().out)["array"]
    assert np.shape(array) == (1, 3)
    with Image.open(tmp_path / "p.png") as drawn:
        assert drawn.size == (32, 24)
    assert run("predict", song_file, "--model", digest, "--top", 1) == 0
    shown = capsys.readouterr().out
    assert "abc"[int(np.argmax(array[0]))] in shown
    assert f"{max(array[0]):.4f}" in shown
    assert shown.count("0.") == 1
    assert run("models") == 0
    assert digest in capsys.readouterr().out
    assert run("models", "--json") == 0
    (listed,) = [m for m in json.loads(capsys.readouterr().out)["models"] if m["hash"] == digest]
    assert listed["state"] == "promoted"
    assert listed["labels"] == ["a", "b", "c"]
    assert listed["inputs"][0]["shape"] == [24, 32, 1]


def test_a_hash_in_the_list_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """However long the reason beside it is."""
    table = cli._table("hash", "state", "size", "inputs", "labels or reason")
    table.add_row("0" * 64, "rejected", "", "24×32×1", "because " * 100)
    cli._print(table)
    assert "0" * 64 in capsys.readouterr().out


def test_register_and_upload_are_commands_too(
    run: Run, two_input_model: Path, song_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the row for a song is found in a table of many by its file name."""
    digest = sha256(two_input_model)
    assert run("register", digest.upper()) == 0
    assert capsys.readouterr().err == ""
    assert run("upload", two_input_model) == 0
    assert capsys.readouterr().err == "uploaded two_inputs.h5\n"
    assert run("publish", two_input_model) == 0
    capsys.readouterr()
    assert run("publish", two_input_model) == 0
    assert run("upload", two_input_model) == 0
    assert capsys.readouterr().err == ""
    header, row = csv_row(index=False).decode().splitlines()
    table = tmp_path / "table.csv"
    table.write_text(f"filename,{header},label\nother.wav,{row},x\nsong.wav,{row},y\n")
    assert run("predict", song_file, "--model", digest, "--csv", table, "--json") == 0
    answered = capsys.readouterr().out
    assert np.shape(json.loads(answered)["array"]) == (1, 10)
    answer = tmp_path / "answer.json"
    answer.write_text(answered)
    golden = ["--golden", f"{song_file}={answer}"]
    assert run("register", digest, *golden, "--csv", table) == 0
    assert run("register", digest, *golden) == 1
    assert "golden 1: largest difference" in capsys.readouterr().err
    table.write_text(f"filename,{header}\nother.wav,{row}\n")
    assert run("predict", song_file, "--model", digest, "--csv", table) == 1
    assert "0 rows" in capsys.readouterr().err


def test_publish_with_a_recipe_and_a_golden(
    run: Run, song_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe is a file or a name; the golden's answer is what predict prints."""
    recipe, answer = tmp_path / "recipe.json", tmp_path / "answer.json"
    recipe.write_text('{"inputs":[{"kind":"picture","height":24,"width":32}],"labels":["a","b","c"]}')
    model = tmp_path / "model.keras"
    notebook_model().save(model)
    assert run("publish", model, "--recipe", recipe) == 0
    digest = capsys.readouterr().out.strip()
    assert run("predict", song_file, "--model", digest, "--json", "--picture", tmp_path / "p.png") == 0
    answer.write_text(capsys.readouterr().out)
    with Image.open(tmp_path / "p.png") as drawn:
        assert drawn.size == (32, 24)
        (seen,) = Recipe.from_json(recipe.read_bytes()).inputs(song_file)
        np.testing.assert_array_equal(np.asarray(drawn), seen[0, :, :, 0])
    array = json.loads(answer.read_text())["array"]
    (tmp_path / "row.json").write_text(json.dumps(array[0]))
    golden = ["--golden", f"{song_file}={answer}", "--golden", f"{song_file}={tmp_path / 'row.json'}"]
    assert run("register", model, *golden) == 0
    assert run("publish", model, "--recipe", recipe, *golden, "--labels", "a,b,c") == 0
    (tmp_path / "row.json").write_text(json.dumps([2.0, *array[0][1:]]))
    capsys.readouterr()
    assert run("publish", model, *golden) == 1
    assert "golden 2: largest difference" in capsys.readouterr().err
    assert run("register", model, "--recipe", "gtzan-features") == 1
    assert "recipe.inputs" in capsys.readouterr().err
    assert run("register", model, "--no-recipe", "--no-golden", "--no-labels") == 0
    for twice in (("--recipe", recipe, "--no-recipe"), ("--no-labels", "--labels", "a"), (*golden, "--no-golden")):
        with pytest.raises(SystemExit):
            run("register", model, *twice)
    capsys.readouterr()
    assert run("models", "--json") == 0
    (state,) = [one for one in json.loads(capsys.readouterr().out)["models"] if one["hash"] == digest]
    assert (state["labels"], "recipe" in state, "golden" in state) == ([], False, False)


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"kind": "mel", "n_mels": 24, "frames": 32, "layout": "time-major"}, (24, 32)),
        ({"kind": "picture", "height": 24, "width": 32, "scaling": {"kind": "standard", "scale": 255}}, (32, 24)),
    ],
    ids=["mel", "scaled"],
)
def test_what_a_recipe_makes_of_a_song_is_drawn(
    song_file: Path, tmp_path: Path, fields: dict[str, Any], size: tuple[int, int]
) -> None:
    """Whatever its numbers are, from black to white."""
    recipe = {"inputs": [{"kind": "features"}, fields]}
    cli._draw(song_file, {"recipe": recipe}, tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as drawn:
        assert drawn.size == size
        assert drawn.getextrema() == (0, 255)
    with pytest.raises(ValueError, match="no picture"):
        cli._draw(song_file, {"recipe": {"inputs": [{"kind": "features"}]}}, tmp_path / "p.png")


def test_a_golden_without_its_answer_is_refused(
    run: Run, song_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line cannot run the model: what it must answer comes with the song, in a file of JSON."""
    with pytest.raises(SystemExit) as left:
        run("register", "0" * 64, "--golden", song_file)
    assert left.value.code == 2
    assert run("register", "0" * 64, "--golden", f"{song_file}=/nonexistent") == 1
    assert run("register", "0" * 64, "--golden", f"{song_file}={song_file}") == 1
    assert "no answer in JSON" in capsys.readouterr().err
    (tmp_path / "answer.json").write_text('{"labels":[]}')
    assert run("register", "0" * 64, "--golden", f"{song_file}={tmp_path / 'answer.json'}") == 1
    assert run("register", "0" * 64, "--recipe", song_file) == 1
    assert "not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), ()], ids=str)
def test_an_answer_that_is_no_row_is_shown_as_it_is(
    run: Run, song_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: tuple[int, ...]
) -> None:
    """A model may answer with any array: as JSON, since no table would fit."""
    import keras

    features = keras.layers.Input((24, 32, 1))
    flat = keras.layers.Dense(6)(keras.layers.Flatten()(features))
    output = keras.layers.Reshape(shape)(flat) if shape else keras.ops.sum(flat, axis=1)
    keras.Model(features, output).save(tmp_path / "model.keras")
    assert run("publish", tmp_path / "model.keras") == 0
    digest = capsys.readouterr().out.strip()
    assert run("predict", song_file, "--model", digest) == 0
    assert np.shape(json.loads(capsys.readouterr().out)) == (1, *shape)


def test_the_server_s_no_is_exit_code_1(run: Run, song_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its message on stderr."""
    assert run("predict", song_file, "--model", "0" * 64) == 1
    assert "model_not_found" in capsys.readouterr().err
    assert run("publish", song_file) == 1
    assert "not a Keras model" in capsys.readouterr().err
    assert run("upload", "/nonexistent") == 1
    assert run("models", "--url", "https://127.0.0.1:9") == 1
    assert "no answer" in capsys.readouterr().err


def test_wrong_usage_is_exit_code_2(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown commands, unknown keys, no token, no certificate: the message names the way out."""
    with pytest.raises(SystemExit) as left:
        run("nonsense")
    assert left.value.code == 2
    assert run("certs", tmp_path) == 0
    assert run("certs", tmp_path) == 2
    monkeypatch.delenv("SIGNING_TOKEN")
    assert run("models") == 2
    assert "SIGNING_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("token", "words", "named"),
    [
        ("", [], "SIGNING_TOKEN"),
        ("x" * 20, ["--set", "server.certs=/nonexistent"], "spectrogram-predictor certs"),
        ("x" * 20, ["--set", "server.nonsense=1"], "server.nonsense"),
        ("x" * 20, ["--set", "storage.backend=nonsense"], "nonsense"),
        ("x" * 20, ["--config", "/nonexistent"], "/nonexistent"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    token: str, words: list[str], named: str, certs: Path, tmp_path: Path
) -> None:
    """One line on stderr, exit code 2, nothing left running."""
    command = [sys.executable, "-m", "spectrogram_predictor", "serve", "--set", f"server.certs={certs}", *words]
    environ = {"PATH": "/usr/bin:/bin", "SIGNING_TOKEN": token}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_short_token_is_warned_of(make_live: Callable[..., Live], tmp_path: Path, certs: Path) -> None:
    """It starts, and says that it can be guessed."""
    live = Live(tmp_path, certs, "short")
    live.start()
    live.stop()
    assert "can be guessed" in live.log


def test_a_port_in_use_is_named(live: Live, certs: Path, tmp_path: Path) -> None:
    """The second server on a port does not start."""
    port = live.url.rpartition(":")[2]
    command = [sys.executable, "-m", "spectrogram_predictor", "serve", "--set", f"server.certs={certs}"]
    command += ["--set", f"server.api_port={port}"]
    environ = {"PATH": "/usr/bin:/bin", "SIGNING_TOKEN": "x" * 20}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert f"port {port}" in done.stderr


def test_the_client_tells_no_answer_from_a_bad_one(live: Live, certs: Path) -> None:
    """Nobody there, an untrusted certificate, and a refusal are different errors."""
    with Client("https://127.0.0.1:9", token="x") as client, pytest.raises(NoAnswer):
        client.models()
    with Client(live.url, token=live.token) as client, pytest.raises(NoAnswer, match="certificate"):
        client.models()
    with Client(live.url, token="wrong", verify=certs / "server.crt") as client:
        with pytest.raises(Refused) as refused:
            client.models()
        assert (refused.value.status, refused.value.code) == (403, "bad_signature")


def test_an_upload_reports_its_progress(live: Live, two_input_model: Path) -> None:
    """From the first bytes to the last."""
    seen: list[tuple[int, int]] = []
    with live.client() as client:
        client.upload(two_input_model, lambda sent, total: seen.append((sent, total)))
    size = two_input_model.stat().st_size
    assert seen[-1] == (size, size)
    assert [sent for sent, _ in seen] == sorted(sent for sent, _ in seen)
