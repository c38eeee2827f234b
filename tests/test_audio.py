"""Bytes to waveform to picture: the same numbers as librosa's."""

import io
from pathlib import Path

import librosa
import numpy as np
import pytest

from spectrogram_predictor import audio
from spectrogram_predictor.errors import Unprocessable
from tests.conftest import wav


@pytest.mark.parametrize("sr", [8000, 22050, 44100, 192_000])
@pytest.mark.parametrize("channels", [1, 2, 8])
def test_a_song_is_decoded_as_librosa_does(sr: int, channels: int) -> None:
    """Mono, at 22,050 Hz, whatever it was."""
    song = wav(1.0, sr, channels)
    y = audio.decode(song)
    expected, _ = librosa.load(io.BytesIO(song))
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.material
def test_every_container_is_decoded_as_librosa_does(material: Path) -> None:
    """Real MP3, AU, FLAC and Ogg files."""
    for path in sorted((material / "other").iterdir()):
        expected, _ = librosa.load(path)
        np.testing.assert_allclose(audio.decode(path.read_bytes()), expected, atol=1e-6, err_msg=path.name)


@pytest.mark.parametrize("samples", [2048, 2049, 22050, 661_500])
def test_the_mel_spectrogram_is_librosa_s(samples: int) -> None:
    """Within a thousandth of a decibel."""
    y = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    power = librosa.feature.melspectrogram(y=y, sr=22050, n_fft=2048, hop_length=1024)
    S = audio.mel_db(y)
    assert S.shape == (128, 1 + samples // 1024)
    np.testing.assert_allclose(S, librosa.power_to_db(power), atol=1e-3)


def test_the_picture_is_grey_loud_is_dark_and_low_is_at_the_bottom() -> None:
    """A low tone darkens the lower rows; the whole range of grey is used."""
    t = np.arange(22050) / 22050
    drawn = audio.picture(np.sin(2 * np.pi * 200 * t).astype(np.float32))
    assert drawn.dtype == np.uint8
    assert drawn.shape == (128, 22)
    assert (drawn.min(), drawn.max()) == (0, 255)
    assert drawn[100:].mean() < drawn[:64].mean()
    assert audio.picture(np.sin(t).astype(np.float32), 24, 32).shape == (24, 32)


@pytest.mark.parametrize("y", [np.zeros(0), np.ones(2047)])
def test_too_short(y: np.ndarray) -> None:
    """Less than one window is said so."""
    with pytest.raises(Unprocessable, match="short"):
        audio.picture(y.astype(np.float32))


def test_silence_has_no_picture() -> None:
    """There is nothing to scale."""
    with pytest.raises(Unprocessable, match="silent"):
        audio.picture(np.zeros(22050, np.float32))
