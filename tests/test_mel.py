"""Mel filters: librosa's, in groups of bands."""

import warnings

import librosa
import numpy as np
import pytest

from spectrogram_predictor.sound import mel


@pytest.mark.filterwarnings("ignore:Empty filters:UserWarning")
@pytest.mark.parametrize("sr", [8000, 22_050, 192_000])
@pytest.mark.parametrize(("n_fft", "n_mels"), [(2048, 128), (2048, 1), (512, 40), (64, 130), (2047, 300)])
@pytest.mark.parametrize(("fmin", "fmax"), [(0.0, None), (20.5, 3800.0)])
def test_bands_are_librosa_s(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> None:
    """Whatever the groups; also of bands that are narrower than a bin, without a warning."""
    S = np.random.default_rng(2).random((10, 1 + n_fft // 2)).astype(np.float32)
    out = np.full((n_mels, 10), np.nan, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mel.filters(sr, n_fft, n_mels, fmin, fmax).apply(S, out)
    weights = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    np.testing.assert_allclose(out, weights @ S.T, rtol=1e-5)


def test_a_group_without_a_bin_is_silent() -> None:
    """Not what was in the memory before."""
    weights = mel.weights(22_050, 2048, 128, 20.0, 9000.0)
    weights[16:32] = 0
    S = np.random.default_rng(2).random((10, 1025)).astype(np.float32)
    out = np.full((128, 10), np.nan, np.float32)
    mel.Filters(weights).apply(S, out)
    np.testing.assert_allclose(out, weights @ S.T, rtol=1e-6)
