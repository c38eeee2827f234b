"""Pitch classes: the same numbers as librosa's."""

import librosa
import numpy as np
import pytest

from spectrogram_predictor.sound import chroma, spectra
from spectrogram_predictor.sound.audio import SR
from tests.test_spectra import sing


@pytest.mark.parametrize("semitones", [-0.4, -0.03, 0.0, 0.25, 0.5])
def test_the_tuning_is_librosa_s(semitones: float) -> None:
    """The very same hundredth of a semitone."""
    S = spectra.magnitude(sing(semitones), "constant")
    found = chroma.tuning(S)
    assert found == librosa.estimate_tuning(S=S**2, sr=SR)
    assert (found - semitones + 0.5) % 1 - 0.5 == pytest.approx(0, abs=0.03)


def test_silence_is_in_tune() -> None:
    """There is no peak."""
    assert chroma.tuning(spectra.magnitude(np.zeros(SR, np.float32), "constant")) == 0


@pytest.mark.parametrize("tuning", [-0.5, 0.0, 0.17])
def test_the_chroma_filters_are_librosa_s(tuning: float) -> None:
    """For any tuning."""
    expected = librosa.filters.chroma(sr=SR, n_fft=spectra.N_FFT, tuning=tuning)
    np.testing.assert_allclose(chroma.filters(tuning), expected, atol=1e-6)
