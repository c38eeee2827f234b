"""Spectra: the same numbers as librosa's. That the features are, tests/test_features.py shows."""

import librosa
import numpy as np
import pytest

from spectrogram_predictor import spectra
from spectrogram_predictor.audio import SR, Waveform


def sing(semitones: float, seconds: float = 1.0) -> Waveform:
    """Return a scale with overtones, so much above its notes."""
    t = np.arange(int(seconds * SR)) / SR
    note = 440 * 2 ** ((np.floor(8 * t) + semitones) / 12)
    phase = 2 * np.pi * np.cumsum(note) / SR
    return np.sum([np.sin(overtone * phase) / overtone for overtone in (1, 2, 3)], axis=0).astype(np.float32)


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_the_spectrogram_is_librosa_s(monkeypatch: pytest.MonkeyPatch, pad_mode: spectra.PadMode) -> None:
    """Block by block, and continued at its ends either way."""
    monkeypatch.setattr(spectra, "BLOCK", 16)
    y = sing(0.0)
    S = spectra.magnitude(y, pad_mode)
    expected = np.abs(librosa.stft(y, pad_mode=pad_mode))
    assert S.dtype == expected.dtype
    np.testing.assert_allclose(S, expected, rtol=1e-6, atol=1e-7 * expected.max())


@pytest.mark.parametrize("semitones", [-0.4, -0.03, 0.0, 0.25, 0.5])
def test_the_tuning_is_librosa_s(semitones: float) -> None:
    """The very same hundredth of a semitone."""
    S = spectra.magnitude(sing(semitones), "constant")
    found = spectra.tuning(S)
    assert found == librosa.estimate_tuning(S=S**2, sr=SR)
    assert (found - semitones + 0.5) % 1 - 0.5 == pytest.approx(0, abs=0.03)


def test_silence_is_in_tune() -> None:
    """There is no peak."""
    assert spectra.tuning(spectra.magnitude(np.zeros(SR, np.float32), "constant")) == 0


@pytest.mark.parametrize("tuning", [-0.5, 0.0, 0.17])
def test_the_chroma_filters_are_librosa_s(tuning: float) -> None:
    """For any tuning."""
    expected = librosa.filters.chroma(sr=SR, n_fft=spectra.N_FFT, tuning=tuning)
    np.testing.assert_allclose(spectra.chroma_filters(tuning), expected, atol=1e-6)
