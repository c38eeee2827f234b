"""Harmonic and percussive part: the same waveforms as librosa's."""

import librosa
import numpy as np
import pytest

from spectrogram_predictor.sound import spectra
from spectrogram_predictor.sound.audio import SR, Waveform
from spectrogram_predictor.sound.hpss import hpss


def drums_and_tone() -> Waveform:
    """Return two seconds of a tone with a beat."""
    t = np.arange(2 * SR) / SR
    drums = np.random.default_rng(0).standard_normal(t.size) * np.exp(-40 * (t % 0.25))
    return (0.3 * np.sin(2 * np.pi * 440 * t) + 0.3 * drums).astype(np.float32)


@pytest.mark.parametrize("block", [20, 512])
@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_the_parts_are_librosa_s(monkeypatch: pytest.MonkeyPatch, pad_mode: spectra.PadMode, block: int) -> None:
    """In one block or several; their means are near zero and agree to a thousandth."""
    monkeypatch.setattr(spectra, "BLOCK", block)
    y = drums_and_tone()
    for part, expected in zip(hpss(y, pad_mode), librosa.effects.hpss(y, pad_mode=pad_mode), strict=True):
        np.testing.assert_allclose(part, expected, atol=1e-6)
        assert part.mean() == pytest.approx(expected.mean(), rel=1e-3)


def test_the_parts_are_the_whole() -> None:
    """Nothing is lost, and tone and beat go where they belong."""
    y = drums_and_tone()
    harmonic, percussive = hpss(y, "constant")
    np.testing.assert_allclose(harmonic + percussive, y, atol=1e-6)
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(y.size) / SR)
    assert np.corrcoef(harmonic, tone)[0, 1] > 0.98
    assert np.corrcoef(percussive, y - tone)[0, 1] > 0.95


def test_a_click_is_percussive() -> None:
    """The median over time does not see it at all."""
    y = np.zeros(SR, np.float32)
    y[SR // 2] = 1
    harmonic, percussive = hpss(y, "constant")
    assert not harmonic.any()
    assert percussive[SR // 2] == pytest.approx(1)


def test_silence_stays_silent() -> None:
    """Without dividing by zero."""
    assert not np.any(hpss(np.zeros(SR, np.float32), "constant"))
