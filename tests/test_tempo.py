"""The tempo: the same number as librosa's, without looking for the beats."""

import librosa
import numpy as np
import pytest

from spectrogram_predictor.sound import spectra, tempo
from spectrogram_predictor.sound.audio import SR


@pytest.mark.parametrize("bpm", [50, 84, 120, 135, 200])
def test_the_tempo_is_librosa_s(bpm: int) -> None:
    """The very same, and near that of the song or half of it."""
    t = np.arange(6 * SR) / SR
    y = np.random.default_rng(bpm).standard_normal(t.size) * np.exp(-30 * (t % (60 / bpm)))
    y = y.astype(np.float32)
    envelope = tempo.onset_strength(spectra.mel_db(spectra.magnitude(y, "constant")))
    found = tempo.tempo(envelope)
    assert found == pytest.approx(librosa.beat.beat_track(y=y, sr=SR)[0].item())
    assert min(abs(found * times / bpm - 1) for times in (0.5, 1, 2)) < 0.03


def test_silence_has_no_tempo() -> None:
    """There is no onset."""
    assert tempo.tempo(np.zeros(100, np.float32)) == 0
