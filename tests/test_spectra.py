"""Spectra: the same numbers as librosa's. That the features are, tests/test_features.py shows."""

from typing import Any

import librosa
import numpy as np
import pytest

from spectrogram_predictor.sound import spectra
from spectrogram_predictor.sound.audio import SR, Waveform
from tests.conftest import peak_bytes


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


@pytest.mark.parametrize("samples", [2048, 2049, 22050, 661_500])
def test_the_mel_spectrogram_in_single_precision_is_librosa_s(samples: int) -> None:
    """Within a thousandth of a decibel."""
    y = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    power = librosa.feature.melspectrogram(y=y, sr=SR, hop_length=1024)
    S = spectra.decibels(spectra.mel(y, hop_length=1024, dtype=np.float32))
    assert S.shape == (128, 1 + samples // 1024)
    np.testing.assert_allclose(S, librosa.power_to_db(power), atol=1e-3)


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hop_length": 1024},
        {"n_fft": 1024, "hop_length": 256, "n_mels": 64},
        {"n_fft": 300, "hop_length": 700, "n_mels": 20},
        {"n_fft": 2047, "hop_length": 511},
        {"sr": 16_000, "fmin": 50.0, "fmax": 7000.0, "power": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize("samples", [2048, 2049, 33_000, 64 * 512 - 1, 64 * 512, 64 * 512 + 1])
def test_the_mel_spectrogram_is_librosa_s(
    samples: int, options: dict[str, Any], pad_mode: spectra.PadMode
) -> None:
    """With any parameters, block by block, and at the edges of blocks: but for last bits."""
    y = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    expected = librosa.feature.melspectrogram(y=y, pad_mode=pad_mode, **options)
    np.testing.assert_allclose(spectra.mel(y, pad_mode=pad_mode, **options), expected, rtol=1e-5)


def test_bands_without_a_bin_are_empty() -> None:
    """As with librosa, but without its warning."""
    S = spectra.mel(np.ones(1000, np.float32), n_fft=256, n_mels=200)
    assert (S.max(axis=1) == 0).any()


def test_a_mel_spectrogram_costs_less_than_its_waveform() -> None:
    """However long the song is."""
    y = np.random.default_rng(1).standard_normal(120 * SR).astype(np.float32)
    assert peak_bytes(lambda: spectra.mel(y, hop_length=1024, dtype=np.float32)) < y.nbytes
    assert peak_bytes(lambda: spectra.mel(y, hop_length=1024, pad_mode="reflect")) < y.nbytes


@pytest.mark.parametrize(("ref", "top_db"), [(1.0, 80.0), (1.0, None), (0.3, 25.0), (1e-20, 80.0)])
def test_decibels_are_librosa_s(ref: float, top_db: float | None) -> None:
    """To the last bit."""
    S = np.random.default_rng(5).uniform(0, 1, (20, 30)).astype(np.float32) ** 20
    expected = librosa.power_to_db(S, ref=np.float32(ref), top_db=top_db)
    np.testing.assert_array_equal(spectra.decibels(S, ref, top_db), expected)
