"""What is asked of a song is decided by the shapes of a model's inputs."""

import pytest

from spectrogram_predictor import recipe
from spectrogram_predictor.errors import BadRequest, Unprocessable
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
def test_pictures_of_gigabytes_are_refused(shapes: list[recipe.Shape]) -> None:
    """What counts is their values, all together, for a song of an hour."""
    with pytest.raises(Unprocessable, match=f"the most is {2**26}"):
        recipe.check_shapes(shapes)


@pytest.mark.parametrize(
    "shapes",
    [[(8192, 8192, 1)], [(None, None, 4)], [(512, None, 1)], [(1, 2**19)], [(2**40,), (24, 32, 1)]],
    ids=str,
)
def test_pictures_that_can_be_held_are_accepted(shapes: list[recipe.Shape]) -> None:
    """A row of features costs what the client sends, whatever the model would take."""
    recipe.check_shapes(shapes)


@pytest.mark.parametrize("shape", [(24, 32, 2), (24, 32, None), (0, 32), (24,) * 4, ()], ids=str)
def test_what_is_no_picture_is_refused_by_its_shape(shape: recipe.Shape) -> None:
    """Nothing that could be put there comes of a song."""
    with pytest.raises(Unprocessable, match="neither a picture nor a row"):
        recipe.check_shapes([shape])


@pytest.mark.parametrize(("shape", "said"), [((7,), "takes 7 features"), ((None,), "any number of features")])
def test_features_that_must_be_sent_are_asked_for(shape: recipe.Shape, said: str) -> None:
    """With their number, if it is known."""
    with pytest.raises(BadRequest, match=said):
        recipe.inputs([shape], wav(), None)
