"""Mel filters: librosa's."""

import librosa
import numpy as np
import pytest

from spectrogram_predictor.sound import mel


@pytest.mark.filterwarnings("ignore:Empty filters:UserWarning")
@pytest.mark.parametrize("sr", [8000, 16_000, 22_050, 44_100, 192_000])
@pytest.mark.parametrize("n_fft", [16, 300, 2047, 2048, 8192])
@pytest.mark.parametrize(("fmin", "fmax"), [(0.0, None), (50.0, None), (20.5, 3800.0), (1200.0, 4000.0)])
def test_weights_are_librosa_s(sr: int, n_fft: int, fmin: float, fmax: float | None) -> None:
    """To the last bit."""
    for n_mels in (1, 20, 128, 300):
        expected = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
        np.testing.assert_array_equal(mel.weights(sr, n_fft, n_mels, fmin, fmax), expected)


@pytest.mark.parametrize(("n_fft", "n_mels"), [(2048, 128), (2048, 1), (512, 40), (64, 130)])
def test_filters_in_groups_are_the_whole(n_fft: int, n_mels: int) -> None:
    """Also where a group has no bin at all."""
    weights = mel.weights(22_050, n_fft, n_mels, 20.0, 9000.0)
    weights[16:32] = 0
    S = np.random.default_rng(2).random((10, 1 + n_fft // 2)).astype(np.float32)
    out = np.full((n_mels, 10), np.nan, np.float32)
    mel.Filters(weights).apply(S, out)
    np.testing.assert_allclose(out, weights @ S.T, rtol=1e-6)
