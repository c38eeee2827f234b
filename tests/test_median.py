"""The running median."""

import numpy as np
import pytest
import scipy.ndimage

from spectrogram_predictor.sound.median import SIZE, running_median


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (16, 40), (33, 17), (300, 70)])
def test_the_median_is_scipy_s(shape: tuple[int, int], axis: int) -> None:
    """To the bit, also where the window is longer than what it runs along, and with equal numbers."""
    x = np.random.default_rng(sum(shape)).integers(0, 50, shape).astype(np.float32)
    size = [1, 1]
    size[axis] = SIZE
    np.testing.assert_array_equal(running_median(x, axis), scipy.ndimage.median_filter(x, size, mode="reflect"))


def test_more_than_a_block_of_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks are put together in order."""
    x = np.random.default_rng(0).random((40, 100)).astype(np.float32)
    whole = running_median(x, 0)
    monkeypatch.setattr("spectrogram_predictor.sound.median._BLOCK", 20)
    np.testing.assert_array_equal(running_median(x, 0), whole)
