"""The Python client's `publish`, against a real server: from a notebook's objects to a model that is served."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrogram_predictor import Recipe
from spectrogram_predictor.client import Client, Golden, Refused
from spectrogram_predictor.recipe.kinds import Mel, Picture, Standard
from tests.conftest import b64, build_model, csv_row, sha256
from tests.live import Live

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


@pytest.mark.parametrize("form", ["object", "mapping", "file", "name"])
def test_a_recipe_comes_in_any_form(client: Client, tmp_path: Path, form: str) -> None:
    """As the object, its JSON, a file of that, or the name of one that is shipped."""
    build_model(["features"]).save(tmp_path / "model.keras")
    recipe = Recipe.from_json({"inputs": [{"kind": "features", "convention": "table"}]})
    (tmp_path / "recipe.json").write_bytes(recipe.to_json())
    given = {
        "object": recipe,
        "mapping": {"inputs": [{"kind": "features"}]},
        "file": tmp_path / "recipe.json",
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
    for expected in ("rock", [["rock"]], [None]):
        with pytest.raises(ValueError, match="numbers"):
            client.register("0" * 64, golden=[(song, expected)])


def test_a_bare_registration_takes_nothing_away(client: Client, tmp_path: Path) -> None:
    """Scripts that register each time they run leave the recipe alone."""
    notebook_model().save(tmp_path / "model.keras")
    state = client.publish(tmp_path / "model.keras", PICTURE)
    assert client.register(tmp_path / "model.keras") == sha256(tmp_path / "model.keras")
    assert client.model(state["hash"]) == state
