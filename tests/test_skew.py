"""The numbers that come out are the ones that the notebook gave, or the model is not served."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from spectrogram_predictor import Mel, Recipe, Segment, Standard, Windows
from spectrogram_predictor.client import Refused
from tests.conftest import b64, changed, wav
from tests.live import Live, wait_until
from tests.test_goldens import RECIPES, model_file
from tests.test_goldens import song as song_of

Known = tuple[Path, NDArray[Any]]

RECIPE = Recipe(
    segment=Segment(part="first", seconds=2.5),
    windows=Windows(length=1.0, hop=0.5),
    model_inputs=[Mel(n_mels=44, frames=44, ref="max", channels=1, scaling=Standard(mean=-40, scale=20))],
)
"""As square as a spectrogram can be: a transposed one fits, and only the numbers tell."""

OFF_BY_ONE = {
    "sr": ("sound.sr", 16000),
    "channels": ("sound.channels", "first"),
    "part": ("segment.part", "middle"),
    "seconds": ("segment.seconds", 1.6),
    "window length": ("windows.length", 0.9),
    "window hop": ("windows.hop", 0.3),
    "most": ("windows.most", 1),
    "combine": ("windows.combine", "max"),
    "hop_length": ("inputs.0.hop_length", 256),
    "n_fft": ("inputs.0.n_fft", 1024),
    "fmin": ("inputs.0.fmin", 50.0),
    "fmax": ("inputs.0.fmax", 8000.0),
    "power": ("inputs.0.power", 1),
    "db": ("inputs.0.db", "amplitude"),
    "no db": ("inputs.0.db", None),
    "ref": ("inputs.0.ref", 1.0),
    "top_db": ("inputs.0.top_db", 40.0),
    "layout": ("inputs.0.layout", "time-major"),
    "missing scaler": ("inputs.0.scaling", None),
    "another scaler": ("inputs.0.scaling.mean", -41.0),
    "kind of scaler": ("inputs.0.scaling", {"kind": "zscore"}),
}


@pytest.fixture(scope="module")
def song() -> bytes:
    """Three seconds in stereo, of which no part and no channel is like another."""
    t = np.arange(3 * 22050) / 22050
    noise = np.random.default_rng(11).standard_normal(t.size)
    left = np.sin(2 * np.pi * (200 + 900 * t) * t) + 0.02 * noise
    right = np.sin(2 * np.pi * 3000 * t) * (np.sin(2 * np.pi * 2 * t) > 0) * t / 3 + 0.3 * np.exp(-3 * t) * noise
    file = io.BytesIO()
    soundfile.write(file, np.column_stack([left, right]) / 3, 22050, format="WAV", subtype="PCM_16")
    return file.getvalue()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, song: bytes) -> Known:
    """A model in a file, and what the notebook had for the song: by Keras, from the recipe's own inputs."""
    import keras

    keras.utils.set_random_seed(5)
    layers = keras.layers
    inner = [layers.Conv2D(4, 5, strides=3, activation="relu"), layers.Flatten(), layers.Dense(3, "softmax")]
    model = keras.Sequential([layers.Input((44, 44, 1)), *inner])
    path = tmp_path_factory.mktemp("skew") / "model.keras"
    model.save(path)
    windows = model.predict(RECIPE.inputs(song)[0], verbose=0)
    return path, windows.mean(axis=0)


@pytest.mark.parametrize("parameter", OFF_BY_ONE)
def test_a_recipe_off_by_one_parameter_is_refused(live: Live, model: Known, song: bytes, parameter: str) -> None:
    """The golden tells, whichever it is: the model is not promoted."""
    path, expected = model
    with live.client() as client, pytest.raises(Refused, match=r"golden 1: largest difference 0\.\d") as refused:
        client.publish(path, changed(RECIPE, *OFF_BY_ONE[parameter]), golden=[(song, expected)])
    assert refused.value.code == "rejected"


def test_the_right_recipe_gives_the_notebook_s_numbers_and_stays(
    make_live: Callable[..., Live], model: Known, song: bytes
) -> None:
    """One that is off is refused then too; put in its place past the server, it takes the model out of service."""
    path, expected = model
    live = make_live()
    with live.client() as client:
        digest = client.publish(path, RECIPE, golden=[(song, expected)])["hash"]
        np.testing.assert_allclose(client.predict(song, digest), expected[np.newaxis], atol=1e-5)
        with pytest.raises(Refused, match="served as it was registered before: golden 1") as refused:
            client.register(path, changed(RECIPE, *OFF_BY_ONE["hop_length"]))
        assert refused.value.status == 422
        np.testing.assert_allclose(client.predict(song, digest), expected[np.newaxis], atol=1e-5)
    damage(live, digest, changed(RECIPE, *OFF_BY_ONE["hop_length"]))
    question = {"model_hash": digest, "ext": "wav", "data": b64(song)}
    # What it looked up a moment ago, a server believes for a second.
    wait_until(lambda: live.post_signed("/prediction", question).json().get("code") == "out_of_service")
    with live.client() as client:
        assert "golden 1: largest difference" in client.model(digest)["out_of_service"]
    live.stop()
    live = make_live()
    assert live.post_signed("/prediction", question).json()["code"] == "out_of_service"
    # What a worker logs comes by another way than its answer.
    said = rf"worker process \d+: {digest}: the model is out of service.*golden 1: largest difference"
    wait_until(lambda: re.search(said, live.log))
    damage(live, digest, RECIPE)
    array = wait_until(lambda: live.post_signed("/prediction", question).json().get("array"))
    np.testing.assert_allclose(array, [expected], atol=1e-5)
    with live.client() as client:
        assert "out_of_service" not in client.model(digest)


def damage(live: Live, digest: str, recipe: Recipe) -> None:
    """Put another recipe into the storage, past the server."""
    path = live.storage / "registered" / f"{digest}.json"
    fields = {**json.loads(path.read_bytes()), "recipe": recipe.to_mapping()}
    path.write_bytes(json.dumps(fields).encode())


def of_one_number(hop_length: int) -> Recipe:
    """Return a recipe that costs as much as one likes: long transforms, of which one number remains."""
    return Recipe(model_inputs=[Mel(n_fft=2**16, hop_length=hop_length, n_mels=1, statistics=["mean"])])


def number_model(path: Path) -> Path:
    """A model of one number."""
    import keras

    layers = keras.layers
    keras.Sequential([layers.Input((1,)), layers.Dense(2, "softmax")]).save(path)
    return path


def test_goldens_without_an_end_are_refused_at_once(live: Live, tmp_path: Path) -> None:
    """What a song would cost is known before anything is made of it."""
    model = number_model(tmp_path / "model.keras")
    with live.client() as client, pytest.raises(Refused, match=r"golden 1: .* × n_fft; the most is") as refused:
        client.publish(model, of_one_number(1), golden=[(wav(30), [0.5, 0.5])])
    assert refused.value.code == "rejected"


@pytest.mark.long
def test_a_slow_trial_is_refused_for_what_it_takes(make_live: Callable[..., Live], tmp_path: Path) -> None:
    """Another model is promoted before that, whose goldens take no time."""
    live = make_live(prediction__workers=2, prediction__timeout_s=5.0)
    slow, other = (number_model(tmp_path / name) for name in ("slow.keras", "other.keras"))
    with live.client() as client:
        digest = client.register(slow, of_one_number(64), golden=[(wav(60), [0.5, 0.5])])
        client.upload(slow)
        client.sweep()
        assert client.publish(other, of_one_number(2**16), golden=[(wav(4), [0.5, 0.5], None, 1)])["golden"] == 1
        assert client.model(digest)["state"] == "registered"
        wait_until(lambda: client.sweep() or client.model(digest)["state"] == "rejected", 120)
        assert client.model(digest)["reason"] == "trying it failed 3 times: it took its worker longer than 5 s"


@pytest.mark.material
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", RECIPES)
def test_public_models_are_held_to_their_notebooks(live: Live, name: str, material: Path) -> None:
    """With goldens from those; the same recipe with another hop is refused."""
    answers = json.loads((material / "goldens.json").read_text())["models"][name]["pred"]
    songs = ("rock.00000.wav", "blues.00099.mp3", "gtzan_sample_audio.au")
    golden = [(song_of(song), answers[song]["probs"]) for song in songs]
    with live.client() as client:
        with pytest.raises(Refused, match="golden 1: largest difference"):
            client.publish(model_file(name), changed(RECIPES[name], "inputs.0.hop_length", 500), golden)
        state = client.publish(model_file(name), RECIPES[name], golden)
        assert (state["state"], state["golden"]) == ("promoted", 3)
        np.testing.assert_allclose(
            client.predict(song_of("jazz.00000.wav"), state["hash"]),
            [answers["jazz.00000.wav"]["probs"]],
            atol=1e-3,
        )
