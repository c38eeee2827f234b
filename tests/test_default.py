"""What is asked of a song is decided by the shapes of a model's inputs."""

import numpy as np
import pytest

from spectrogram_predictor.errors import BadRequest, Unprocessable
from spectrogram_predictor.recipe import default
from tests.conftest import wav


@pytest.mark.parametrize(
    "shapes",
    [
        [(60_000, 60_000, 1)],
        [(60_000, 60_000)],
        [(8192, 8192, 3)],
        [(1024, None, 1)],
        [(None, 2**20, 1)],
        [(1, 2**20)],
        [(2**20, 1, 1)],
        [(None, None, 4), (None, None, 4)],
    ],
    ids=str,
)
def test_pictures_of_gigabytes_are_refused(shapes: list[default.Shape]) -> None:
    """What counts is their values, all together, for a song of an hour."""
    with pytest.raises(Unprocessable, match=f"the most is {2**26}"):
        default.check_shapes(shapes)


@pytest.mark.parametrize(
    "shapes",
    [[(8192, 8192, 1)], [(None, None, 4)], [(512, None, 1)], [(1, 2**19)], [(2**40,), (24, 32, 1)]],
    ids=str,
)
def test_pictures_that_can_be_held_are_accepted(shapes: list[default.Shape]) -> None:
    """A row of features costs what the client sends, whatever the model would take."""
    default.check_shapes(shapes)


@pytest.mark.parametrize("shape", [(24, 32, 2), (24, 32, None), (0, 32), (24,) * 4, ()], ids=str)
def test_what_is_no_picture_is_refused_by_its_shape(shape: default.Shape) -> None:
    """Nothing that could be put there comes of a song."""
    with pytest.raises(Unprocessable, match="neither a picture nor a row"):
        default.check_shapes([shape])


@pytest.mark.parametrize(("shape", "said"), [((7,), "takes 7 features"), ((None,), "any number of features")])
def test_features_that_must_be_sent_are_asked_for(shape: default.Shape, said: str) -> None:
    """With their number, if it is known."""
    with pytest.raises(BadRequest, match=said):
        default.inputs([shape], wav(), None)


def test_the_picture_is_grey_loud_is_dark_and_low_is_at_the_bottom() -> None:
    """A low tone darkens the lower rows; the whole range of grey is used."""
    t = np.arange(22050) / 22050
    drawn = default.picture(np.sin(2 * np.pi * 200 * t).astype(np.float32))
    assert drawn.dtype == np.uint8
    assert drawn.shape == (128, 22)
    assert (drawn.min(), drawn.max()) == (0, 255)
    assert drawn[100:].mean() < drawn[:64].mean()
    assert default.picture(np.sin(t).astype(np.float32), 24, 32).shape == (24, 32)


@pytest.mark.parametrize("y", [np.zeros(0), np.ones(2047)])
def test_too_short(y: np.ndarray) -> None:
    """Less than one window is said so."""
    with pytest.raises(Unprocessable, match="short"):
        default.picture(y.astype(np.float32))


def test_silence_has_no_picture() -> None:
    """There is nothing to scale."""
    with pytest.raises(Unprocessable, match="silent"):
        default.picture(np.zeros(22050, np.float32))
