"""Bytes to waveform to picture: the same numbers as librosa's."""

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from spectrogram_predictor import audio
from spectrogram_predictor.errors import TooLarge, Unprocessable, UnsupportedMedia
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


@pytest.mark.parametrize("container", ["WAV", "MP3", "FLAC", "OGG"])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_song_of_many_blocks_is_decoded_as_in_one(
    container: str, channels: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without a complaint of decoders that keep something of what went before."""
    song = wav(10.0, 22050, channels, container)
    whole, _ = soundfile.read(io.BytesIO(song), dtype="float32", always_2d=True)
    capfd.readouterr()
    np.testing.assert_allclose(audio.decode(song), whole.mean(axis=1), atol=2e-7)
    assert capfd.readouterr().err == ""


def encoded(frames: int, sr: int, channels: int = 1, container: str = "WAV") -> bytes:
    """Silence, encoded."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros((frames, channels), np.int16), sr, format=container, subtype="PCM_16")
    return file.getvalue()


@pytest.mark.parametrize("sr", [1, 999, 768_001, 2**31 - 1])
def test_a_rate_that_no_song_has_is_refused(sr: int) -> None:
    """By its number: 3,000 samples at 1 Hz are not made 66 million."""
    with pytest.raises(Unprocessable, match=f" {sr} Hz"):
        audio.decode(encoded(3000, sr))


@pytest.mark.parametrize("sr", [1_000, 768_000])
def test_a_rate_at_the_bounds_is_accepted(sr: int) -> None:
    """A second is a second."""
    assert len(audio.decode(encoded(sr, sr))) == audio.SR


def test_more_channels_than_any_song_has_are_refused() -> None:
    """By their number."""
    with pytest.raises(Unprocessable, match=" 65 channels"):
        audio.decode(encoded(10, audio.SR, 65))
    assert len(audio.decode(encoded(10, audio.SR, 64))) == 10


def test_a_song_longer_than_an_hour_is_too_large() -> None:
    """However small its file is."""
    song = encoded(3601 * 1000, 1000, container="FLAC")
    assert len(song) < 100_000
    with pytest.raises(TooLarge, match=r"3601\.0 s"):
        audio.decode(song)


def test_a_song_that_does_not_say_how_long_it_is_is_refused() -> None:
    """It could end anywhere, and nobody would know."""
    song = bytearray(encoded(30_000, audio.SR, container="FLAC"))
    length = slice(22, 26)
    assert int.from_bytes(song[length]) == 30_000
    song[length] = bytes(4)
    with pytest.raises(UnsupportedMedia, match="how long"):
        audio.decode(bytes(song))


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most memory that a call held at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_song_costs_its_waveform_and_a_block() -> None:
    """Whatever its rate and channels are."""
    song = wav(10.0, 192_000, 8)
    block = 2 * 2**16 * 8 * 4
    assert peak_bytes(lambda: audio.decode(song)) < 10 * audio.SR * 4 + block


def test_a_mel_spectrogram_costs_less_than_its_waveform() -> None:
    """However long the song is."""
    y = np.random.default_rng(1).standard_normal(120 * audio.SR).astype(np.float32)
    assert peak_bytes(lambda: audio.mel_db(y)) < y.nbytes


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
