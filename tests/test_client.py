"""The Python client's `publish`, against a real server: from a notebook's objects to a model that is served."""

import contextlib
import dataclasses
import functools
import math
import os
import pickle
import pty
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrogram_predictor import Recipe
from spectrogram_predictor.client import Client, Golden, Refused
from spectrogram_predictor.errors import BadRequest
from spectrogram_predictor.recipe.kinds import Mel, Picture, Standard
from tests.conftest import b64, build_model, csv_row, padded, sha256
from tests.live import Live, wait_until

LABELS = ["a", "b", "c"]
PICTURE = Recipe(model_inputs=[Picture(height=24, width=32, scaling=Standard(scale=255.0))], labels=LABELS)


@pytest.fixture
def client(live: Live) -> Any:
    with live.client() as client:
        yield client


@pytest.fixture
def song_file(tmp_path: Path, song: bytes) -> Path:
    path = tmp_path / "song.wav"
    path.write_bytes(song)
    return path


def notebook_model(shape: tuple[int, ...] = (24, 32, 1)) -> Any:
    """A model as a notebook has it: a live object."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential([layers.Input(shape), layers.Flatten(), layers.Dense(3, "softmax")])


def test_a_live_model_is_published_in_one_call(client: Client, song: bytes, song_file: Path) -> None:
    """With what the notebook has of it: the recipe, a song, and the answer to that; the server gives the same."""
    model = notebook_model()
    expected = model.predict(PICTURE.inputs(song)[0], verbose=0)
    seen: list[tuple[int, int]] = []
    state = client.publish(
        model,
        recipe=PICTURE,
        golden=[(song_file, expected), (song, expected[0])],
        progress=lambda sent, total: seen.append((sent, total)),
    )
    assert state["state"] == "promoted"
    assert state["labels"] == LABELS
    assert state["recipe"] == PICTURE.to_mapping()
    assert state["golden"] == 2
    assert state["inputs"][0]["shape"] == [24, 32, 1]
    assert seen[-1] == (state["size"], state["size"])
    np.testing.assert_allclose(client.predict(song, state["hash"]), expected, atol=1e-5)


def test_an_answer_tells_the_recipe_when_asked(client: Client, live: Live, song: bytes, tmp_path: Path) -> None:
    """In the headers always."""
    notebook_model().save(tmp_path / "model.keras")
    digest = client.publish(tmp_path / "model.keras", recipe=PICTURE)["hash"]
    question = {"model_hash": digest, "ext": "wav", "data": b64(song)}
    plain = live.post_signed("/prediction", question)
    assert list(plain.json()) == ["array"]
    detailed = live.post_signed("/prediction", {**question, "detail": True})
    assert detailed.json() == {
        "array": plain.json()["array"],
        "labels": LABELS,
        "model": digest,
        "recipe": PICTURE.sha256,
    }
    for answer in (plain, detailed):
        assert answer.headers["X-Model-Digest"] == digest
        assert answer.headers["X-Recipe-Digest"] == PICTURE.sha256


def test_a_client_asks_for_more_than_the_numbers(client: Client, song: bytes, tmp_path: Path) -> None:
    """Labels, and under which model and recipe it was answered."""
    notebook_model().save(tmp_path / "model.keras")
    digest = client.publish(tmp_path / "model.keras", recipe=PICTURE)["hash"]
    answer = client.predict(song, digest, detail=True)
    assert answer.pop("array") == client.predict(song, digest)
    assert answer == {"labels": LABELS, "model": digest, "recipe": PICTURE.sha256}


def test_what_is_empty_is_taken_away(client: Client, song: bytes, tmp_path: Path) -> None:
    """Each by itself; what is not mentioned stays."""
    notebook_model().save(tmp_path / "model.keras")
    recipe = dataclasses.replace(PICTURE, labels=())
    digest = client.publish(tmp_path / "model.keras", recipe, labels=LABELS)["hash"]
    client.register(digest, golden=[(song, client.predict(song, digest))])
    client.register(digest, golden=[])
    assert [key in client.model(digest) for key in ("recipe", "golden")] == [True, False]
    client.register(digest, recipe={})
    state = client.model(digest)
    assert ("recipe" in state, state["labels"]) == (False, LABELS)
    client.register(digest, labels=[])
    assert client.model(digest)["labels"] == []


SHOWN = """
import sys
from spectrogram_predictor.client import Client
url, uploads, token, cacert, model, progress = sys.argv[1:]
with Client(url, uploads, token, verify=cacert) as client:
    client.publish(model, **({} if progress == "default" else {"progress": False}))
"""


def published(live: Live, certs: Path, model: Path, progress: str, terminal: bool) -> str:
    """Publish in a process of its own, with a terminal or a pipe, and return what it showed."""
    command = [sys.executable, "-c", SHOWN, live.url, live.upload_url, live.token, str(certs / "server.crt")]
    command += [str(model), progress]
    if not terminal:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout == ""
        return done.stderr
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(command, stderr=theirs, stdout=theirs, env=environ) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # as Linux says that the other end is closed
            while data := os.read(ours, 65536):
                shown += data
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def test_a_server_that_restarts_at_the_beginning_is_waited_for(
    make_live: Callable[..., Live], two_input_model: Path, tmp_path: Path
) -> None:
    """By what sends a model; one that was never there is not waited for as long as that."""
    ports = [free_port(), free_port()]
    live = make_live(server__api_port=ports[0], server__upload_port=ports[1])
    for work in ("publish", "upload"):
        model = padded(two_input_model, tmp_path / f"{work}.h5", len(work))
        live.post_signed("/registermodelhash", {"hash": sha256(model)})
        live.kill()
        starting = threading.Timer(1.0, live.start)
        starting.start()
        with live.client() as client:
            getattr(client, work)(model, progress=False)
        starting.join()
        with live.client() as client:
            # It says how far it is, after a while, also where its trial is not over.
            state = functools.partial(client.model, sha256(model))
            wait_until(lambda state=state: state()["state"] == "promoted")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def test_an_upload_is_shown_where_a_person_looks(live: Live, certs: Path, tmp_path: Path) -> None:
    """A bar on a terminal, a line on a pipe, nothing if nobody wants it, and nothing if nothing is sent."""
    paths = [tmp_path / f"{name}.keras" for name in ("bar", "line", "none")]
    for path in paths:
        notebook_model().save(path)
    bar, line, none = paths
    shown = published(live, certs, bar, "default", terminal=True)
    assert "bar.keras" in shown
    assert "━" in shown
    assert published(live, certs, bar, "default", terminal=False) == ""
    assert published(live, certs, line, "default", terminal=False) == "uploaded line.keras\n"
    assert published(live, certs, none, "none", terminal=True) == ""


@pytest.mark.parametrize("form", ["object", "mapping", "file", "path", "name"])
def test_a_recipe_comes_in_any_form(client: Client, tmp_path: Path, form: str) -> None:
    """As the object, its JSON, a file of that, or the name of one that is shipped."""
    build_model(["features"]).save(tmp_path / "model.keras")
    recipe = Recipe.from_json({"inputs": [{"kind": "features", "convention": "table"}]})
    (tmp_path / "recipe.json").write_bytes(recipe.to_json())
    given = {
        "object": recipe,
        "mapping": {"inputs": [{"kind": "features"}]},
        "file": tmp_path / "recipe.json",
        "path": str(tmp_path / "recipe.json"),
        "name": "gtzan-features",
    }
    state = client.publish(tmp_path / "model.keras", given[form])
    assert state["recipe"] == recipe.to_mapping()


def test_a_golden_may_have_a_row_of_features_and_a_tolerance(client: Client, song: bytes, tmp_path: Path) -> None:
    """The row goes to the model with the song; the tolerance decides what is a mismatch."""
    path = tmp_path / "model.keras"
    build_model(["features"], features=7).save(path)
    row = csv_row([0.5] * 7)
    digest = client.publish(path)["hash"]
    expected = np.array(client.predict(song, digest, row))
    off = expected + np.eye(10)[:1] * 0.01
    for csv in (row, row.decode()):
        assert client.publish(path, golden=[Golden(song, expected, csv)])["golden"] == 1
    with pytest.raises(Refused, match=r"golden 1: largest difference 0\.01, tolerance 0\.001"):
        client.publish(path, golden=[Golden(song, off, row)])
    assert client.publish(path, golden=[Golden(song, off, row, 0.02)])["state"] == "promoted"
    with pytest.raises(Refused, match="golden 1: this model takes 7 features"):
        client.publish(path, golden=[(song, expected)])


def test_a_golden_that_is_not_met_is_refused(client: Client, song: bytes, tmp_path: Path) -> None:
    """With the code `rejected` and the difference."""
    notebook_model().save(tmp_path / "model.keras")
    with pytest.raises(Refused, match=r"golden 1: largest difference 1") as refused:
        client.publish(tmp_path / "model.keras", PICTURE, [(song, [2.0, 0.0, 0.0])])
    assert refused.value.code == "rejected"
    assert client.publish(tmp_path / "model.keras", PICTURE, golden=[])["state"] == "promoted"


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        ({"inputs": [{"kind": "mel", "hop_length": 0}]}, r"recipe\.inputs\[0\]\.hop_length"),
        ({"inputs": [{"kind": "mel", "hops": 1}]}, r"recipe\.inputs\[0\]\.hops"),
        ("nonsense", "gtzan-features"),
        (Recipe(model_inputs=[Mel(n_mels=24, frames=31)]), r"recipe\.inputs\[0\].*\[24, 31\].*\[24, 32, 1\]"),
        (Recipe(model_inputs=[Picture(height=24, width=32)], labels=["a", "b"]), r"recipe\.labels"),
    ],
    ids=["value", "key", "name", "shape", "labels"],
)
def test_a_recipe_that_cannot_be_is_refused(client: Client, tmp_path: Path, recipe: Any, key: str) -> None:
    """When it is registered, or when it does not fit the model; by the key."""
    notebook_model().save(tmp_path / "model.keras")
    with pytest.raises(Refused, match=key):
        client.publish(tmp_path / "model.keras", recipe)


def test_a_layer_that_cannot_be_served_is_named(client: Client) -> None:
    """In the sentence that comes back."""
    import keras

    layers = keras.layers
    model = keras.Sequential([layers.Input((24, 32, 1)), layers.Flatten(), layers.Lambda(lambda x: x, name="odd")])
    with pytest.raises(Refused, match="the layer 'odd' of class Lambda holds Python code"):
        client.publish(model)


def test_what_is_no_model_is_a_mistake_here(client: Client, song: bytes) -> None:
    """Found before anything is sent."""
    with pytest.raises(TypeError, match="ndarray"):
        client.publish(np.zeros(3))
    for expected in ("rock", [["rock"]], [None], [math.nan], np.array([[1, np.inf]])):
        with pytest.raises(ValueError, match="numbers"):
            client.register("0" * 64, golden=[(song, expected)])
    with pytest.raises(ValueError, match="a list of names, not one: 'ab'"):
        client.register("0" * 64, labels="ab")
    for one in (song, "rock.wav"):
        with pytest.raises(ValueError, match="goldens are a list of pairs"):
            client.register("0" * 64, golden=(one, [0.5]))
    with pytest.raises(FileNotFoundError):
        client.register("0" * 64, recipe="there/is/none.json")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"inputs":[{"kind":"mel","n_fft":512,"n_fft":2048}]}', "the key 'n_fft' 2 times"),
        ('{"inputs":[{"kind":"mel","fmin":NaN}]}', "NaN is no number"),
        ("{", "Expecting"),
    ],
)
def test_a_recipe_s_file_says_everything_once(client: Client, tmp_path: Path, text: str, said: str) -> None:
    """As for `Recipe.from_json`; which of two values was meant, nobody knows."""
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"recipe\.json is not JSON: .*{said}"):
        client.register("0" * 64, recipe=path)
    with pytest.raises(BadRequest):
        Recipe.from_json(text)


def test_a_bare_registration_takes_nothing_away(client: Client, tmp_path: Path) -> None:
    """Scripts that register each time they run leave the recipe alone."""
    notebook_model().save(tmp_path / "model.keras")
    state = client.publish(tmp_path / "model.keras", PICTURE)
    assert client.register(tmp_path / "model.keras") == sha256(tmp_path / "model.keras")
    assert client.model(state["hash"]) == state


def test_a_refusal_goes_from_process_to_process() -> None:
    """A pool of processes waits for ever for an error that cannot be brought back."""
    refused = pickle.loads(pickle.dumps(Refused(429, "queue_full", "later", 2.0)))
    assert vars(refused) == {"status": 429, "code": "queue_full", "message": "later", "retry_after_s": 2.0}
    assert str(refused) == "later (429 queue_full)"
