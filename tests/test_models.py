"""Real model files load and answer, whatever version of Keras wrote them."""

import errno
import io
import json
import os
import resource
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from spectrogram_predictor.errors import (
    ModelNotFound,
    StorageUnavailable,
    Unavailable,
    Unprocessable,
    UnsupportedMedia,
)
from spectrogram_predictor.recipe import default
from spectrogram_predictor.worker import models
from tests.conftest import build_model, csv_row, wav

# Keras warns of what old files say.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.material
def test_the_public_models_answer_as_they_should(material: Path) -> None:
    """Sixteen files of ten authors, Keras 2.1 to 3.14: their known answers to zeros."""
    described = json.loads((material / "models.json").read_text())
    assert len(described) == 16
    for one in described:
        path = material / "models" / one["file"]
        model = models.load(path, path.suffix.removeprefix("."))
        assert [list(shape) for shape in model.shapes] == one["input_shapes"]
        answer = model([np.zeros((1, *(size or 1 for size in shape)), np.float32) for shape in model.shapes])
        assert answer.shape == (1, one["output"][0])
        if one["zeros_pred_keras3"] is not None:
            np.testing.assert_allclose(answer[0], one["zeros_pred_keras3"], atol=1e-5, err_msg=one["file"])


@pytest.mark.material
def test_what_is_no_model_is_refused(material: Path) -> None:
    """Pointers and a file without a model."""
    for path in sorted((material / "bad").iterdir()):
        with pytest.raises(UnsupportedMedia):
            models.load(path, path.suffix.removeprefix("."))


@pytest.fixture(params=["h5", "keras"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A model that loads, in either format."""
    path = tmp_path / f"model.{request.param}"
    build_model(["features"]).save(path)
    return path


def load(path: Path) -> models.Model:
    return models.load(path, path.suffix.removeprefix("."))


@pytest.mark.parametrize("part", [0, 0.001, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(saved: Path, part: float) -> None:
    """Wherever it ends: that is no fault which passes."""
    data = saved.read_bytes()
    saved.write_bytes(data[: int(part * len(data))])
    with pytest.raises(UnsupportedMedia):
        load(saved)


@pytest.mark.parametrize("position", [0.0, 0.1])
def test_a_damaged_model_is_refused(saved: Path, position: float) -> None:
    """What HDF5 and zip say of it is an OSError like any other, but for its number."""
    data = bytearray(saved.read_bytes())
    begin = int(position * len(data))
    data[begin : begin + 4096] = b"\xa5" * 4096
    saved.write_bytes(data)
    with pytest.raises(UnsupportedMedia):
        load(saved)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Let this process open no other file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    held: list[int] = []
    try:
        with suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_model_is_not_refused_because_too_many_files_are_open(saved: Path) -> None:
    """It is tried again, and loads."""
    load(saved)
    with no_more_files(), pytest.raises(StorageUnavailable):
        load(saved)
    load(saved)


def wrapped(error: Exception) -> Exception:
    """An error as Keras wraps it, with the first one underneath."""
    wrapper = ValueError("a layer could not be loaded")
    wrapper.__cause__ = error
    return wrapper


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        wrapped(OSError(errno.EIO, "Input/output error")),
        MemoryError(),
        wrapped(MemoryError()),
        models.tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor"),
    ],
    ids=repr,
)
def test_a_fault_that_passes_says_nothing_of_a_model(
    saved: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room, no memory, a disk that does not answer: it can be tried again."""

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("keras.models.load_model", fail)
    with pytest.raises(Unavailable):
        load(saved)


def test_a_model_that_is_gone_is_not_found(saved: Path) -> None:
    """Another server may have taken it since."""
    saved.unlink()
    with pytest.raises(ModelNotFound):
        load(saved)


def words() -> Any:
    """A model that counts the words of a text."""
    import keras

    text = keras.layers.Input((1,), dtype="string", name="lyrics")
    return keras.Model(text, keras.layers.TextVectorization(vocabulary=["la", "oh"], output_mode="count")(text))


def test_a_model_of_words_is_refused_by_the_name_of_its_layer(tmp_path: Path) -> None:
    """When it is promoted, not at every prediction; should one be called, then that says no."""
    words().save(tmp_path / "words.keras")
    with pytest.raises(UnsupportedMedia, match=r"the layer 'text_vectorization' .* reads a vocabulary"):
        load(tmp_path / "words.keras")
    with pytest.raises(Unprocessable, match="cannot be called"):
        models.Model(words())([np.zeros((1, 1), np.float32)])


def test_a_model_that_takes_no_numbers_is_refused_by_the_name_of_its_input(tmp_path: Path) -> None:
    """Whatever it does with them."""
    import keras

    text = keras.layers.Input((1,), dtype="string", name="lyrics")
    keras.Model(text, keras.layers.Hashing(9)(text)).save(tmp_path / "words.keras")
    with pytest.raises(Unprocessable, match="'lyrics' is of type string"):
        load(tmp_path / "words.keras")


def test_a_model_of_more_numbers_than_an_answer_has_is_refused(tmp_path: Path) -> None:
    """Where its output says so, when it is loaded; where that depends on a song, when it is asked."""
    import keras

    layers = keras.layers
    fixed, open_ = tmp_path / "fixed.keras", tmp_path / "open.keras"
    keras.Sequential([layers.Input((2,)), layers.RepeatVector(2**17)]).save(fixed)
    with pytest.raises(Unprocessable, match="393217 numbers and lists; the most is 262144"):
        load(fixed)
    keras.Sequential([layers.Input((None, 1)), layers.UpSampling1D(64)]).save(open_)
    model = load(open_)
    assert model([np.zeros((2, 2**10, 1), np.float32)]).shape == (2, 2**16, 1)
    with pytest.raises(Unprocessable, match="the most is 262144"):
        model([np.zeros((1, 2**12, 1), np.float32)])


def test_an_answer_has_the_shape_that_the_model_says(tmp_path: Path) -> None:
    """The server ends a worker that answers otherwise: a model that is wrong about itself is refused before."""
    import keras

    layers, path = keras.layers, tmp_path / "model.keras"
    half = layers.Lambda(lambda x: x[:, :1], output_shape=(2,))
    keras.Sequential([layers.Input((2,)), half]).save(path)
    model = models.load(path, "keras", allow_custom=True)
    with pytest.raises(Unprocessable, match=r"has the shape \(1,\), its output \(2,\)"):
        model([np.zeros((1, 2), np.float32)])


def test_a_model_that_answers_no_numbers_is_refused(tmp_path: Path) -> None:
    """There is no JSON for them."""
    import keras

    features = keras.layers.Input((3,), dtype="complex64")
    keras.Model(features, keras.layers.Identity(dtype="complex64", name="phase")(features)).save(
        tmp_path / "c.keras"
    )
    with pytest.raises(Unprocessable, match="complex64"):
        load(tmp_path / "c.keras")


def lstm(path: Path) -> Path:
    import keras

    keras.utils.set_random_seed(5)
    keras.Sequential([keras.layers.Input((4, 3)), keras.layers.LSTM(2)]).save(path)
    return path


def with_time_major(text: str | bytes, value: bool) -> bytes:
    config = json.loads(text)
    (layer,) = [layer for layer in config["config"]["layers"] if layer["class_name"] == "LSTM"]
    layer["config"]["time_major"] = value
    return json.dumps(config).encode()


def make_legacy(path: Path, value: bool) -> None:
    """Write the argument that Keras 2 wrote into a file of either format."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = with_time_major(file.attrs["model_config"], value)
        return
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, with_time_major(data, value) if name == "config.json" else data)


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_a_legacy_argument_is_accepted_where_it_changes_nothing(tmp_path: Path, ending: str) -> None:
    """``time_major=False`` is Keras 3's only way; ``True`` would be another model and is refused by name."""
    path = lstm(tmp_path / f"model.{ending}")
    inputs = [np.random.default_rng(1).standard_normal((1, 4, 3)).astype(np.float32)]
    before = models.load(path, ending)(inputs)
    make_legacy(path, False)
    np.testing.assert_array_equal(models.load(path, ending)(inputs), before)
    make_legacy(path, True)
    with pytest.raises(UnsupportedMedia, match="time_major"):
        models.load(path, ending)


@pytest.mark.parametrize(
    "kinds", [["features", "picture"], ["picture", "features"], ["picture"], ["features"]], ids="-".join
)
def test_inputs_are_matched_by_rank_and_shape(tmp_path: Path, kinds: list[str]) -> None:
    """Both orders give the same answer; one kind alone works too."""
    build_model(kinds).save(tmp_path / "model.keras")
    build_model(sorted(kinds)).save(tmp_path / "sorted.keras")
    answers = []
    for name in ("model", "sorted"):
        model = models.load(tmp_path / f"{name}.keras", "keras")
        answers.append(model(default.inputs(model.shapes, wav(), csv_row())))
    assert answers[0].shape == (1, 10)
    np.testing.assert_array_equal(*answers)


def test_the_picture_has_the_model_s_size_and_channels() -> None:
    """Height, width and channels are the model's; None takes the spectrogram's own."""
    shapes: list[default.Shape] = [(24, 32, 1), (24, 32, 3), (24, 32), (None, None, 1), (7,), (7, 1)]
    made = default.inputs(shapes, wav(), csv_row([1.0] * 7))
    expected = [(1, 24, 32, 1), (1, 24, 32, 3), (1, 24, 32), (1, 128, 44, 1), (1, 7), (1, 7, 1)]
    assert [array.shape for array in made] == expected
    assert all(array.dtype == np.float32 for array in made)
