"""Bytes to waveform: the same numbers as librosa's."""

import io
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from spectrogram_predictor.errors import SpectrogramPredictorError, TooLarge, Unprocessable, UnsupportedMedia
from spectrogram_predictor.sound import audio
from tests.conftest import peak_bytes, wav


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


def test_a_song_costs_its_waveform_and_a_block() -> None:
    """Whatever its rate and channels are."""
    song = wav(10.0, 192_000, 8)
    block = 2 * 2**16 * 8 * 4
    assert peak_bytes(lambda: audio.decode(song)) < 10 * audio.SR * 4 + block


def test_the_first_of_several_channels_can_be_taken() -> None:
    """In place of their mean."""
    left, right = np.sin(np.arange(5000) / 9), np.cos(np.arange(5000) / 5)
    file = io.BytesIO()
    soundfile.write(file, np.column_stack([left, right]) / 2, audio.SR, format="WAV", subtype="FLOAT")
    np.testing.assert_allclose(audio.decode(file.getvalue(), channels="first"), left / 2, atol=1e-6)
    np.testing.assert_allclose(audio.decode(file.getvalue()), (left + right) / 4, atol=1e-6)


@pytest.mark.parametrize("res_type", ["soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq"])
def test_rate_and_resampler_are_as_librosa_names_them(res_type: str) -> None:
    """Each gives the numbers of librosa's."""
    song = wav(1.0, 44_100)
    expected, _ = librosa.load(io.BytesIO(song), sr=16_000, res_type=res_type)
    np.testing.assert_allclose(audio.decode(song, 16_000, res_type=res_type), expected, atol=1e-6)


ENCODINGS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "FLOAT"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "GSM610"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("AIFF", "PCM_16"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("container", "subtype"), ENCODINGS)
@pytest.mark.parametrize("sr", [audio.SR, 48_000])
@pytest.mark.parametrize("middle", [False, True])
def test_a_part_is_the_same_as_it_is_in_the_whole(
    container: str, subtype: str, sr: int, middle: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wherever decoding began for it; and no decoder complains."""
    t = np.arange(6 * 48_000) / 48_000
    sweep = 0.3 * np.sin(2 * np.pi * 300 * t * (1 + t)) + 0.1 * np.random.default_rng(6).standard_normal(t.size)
    file = io.BytesIO()
    soundfile.write(file, sweep, 48_000, format=container, subtype=subtype)
    whole = audio.decode(file.getvalue(), sr)
    capfd.readouterr()
    for samples in (sr // 7, 2 * sr, len(whole), 10 * sr):
        part = audio.decode(file.getvalue(), sr, samples=samples, middle=middle)
        start = max(len(whole) - samples, 0) // 2 if middle else 0
        np.testing.assert_allclose(part, whole[start : start + samples], atol=1e-6)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("sr", [audio.SR, 44_100])
@pytest.mark.parametrize("middle", [False, True])
def test_what_is_not_wanted_is_not_decoded(sr: int, middle: bool) -> None:
    """A song of which the rest is not even sound will do."""
    y = np.full(20 * sr, np.nan, np.float32)
    sound = slice(8 * sr, 14 * sr) if middle else slice(0, 6 * sr)
    y[sound] = np.sin(np.arange(6 * sr) / 9)
    file = io.BytesIO()
    soundfile.write(file, y, sr, format="WAV", subtype="FLOAT")
    with pytest.raises(Unprocessable, match="no numbers"):
        audio.decode(file.getvalue())
    assert len(audio.decode(file.getvalue(), samples=audio.SR, middle=middle)) == audio.SR


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT", "ULAW"])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_samples_are_libsndfile_s_floats(subtype: str, channels: int) -> None:
    """To the last bit, as whatever they are read."""
    y = np.random.default_rng(channels).uniform(-1, 1, (30_000, channels)).astype(np.float32)
    y[0] = -1
    file = io.BytesIO()
    soundfile.write(file, y, audio.SR, format="WAV", subtype=subtype)
    floats, _ = soundfile.read(io.BytesIO(file.getvalue()), dtype="float32", always_2d=True)
    np.testing.assert_array_equal(audio.decode(file.getvalue(), channels="first"), floats[:, 0])
    mean = np.add.reduce(floats.T.copy()) / np.float32(channels)
    np.testing.assert_array_equal(audio.decode(file.getvalue()), mean)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize(
    ("frames", "sr"), [(48_000 * 3 - 2, 48_000), (16_001, 16_000), (44_101, 44_100), (8_002, 8_000)]
)
def test_a_song_is_as_long_as_librosa_has_it(container: str, frames: int, sr: int) -> None:
    """To the sample, where the rates do not divide: a window more or less may depend on it."""
    file = io.BytesIO()
    soundfile.write(file, np.sin(np.arange(frames) / 9) / 2, sr, format=container)
    expected, _ = librosa.load(io.BytesIO(file.getvalue()))
    y = audio.decode(file.getvalue())
    np.testing.assert_allclose(y, expected, atol=1e-6)
    samples = len(y) // 3
    start = (len(y) - samples) // 2
    middle = audio.decode(file.getvalue(), samples=samples, middle=True)
    np.testing.assert_allclose(middle, expected[start : start + samples], atol=1e-6)


def of_no_known_length(tag: int = 0) -> bytes:
    """An MP3 of so few bits that its first frame cannot say how many follow, after a tag of so many bytes."""
    file = io.BytesIO()
    mode = {"compression_level": 0.9, "bitrate_mode": "CONSTANT"}
    noise = np.random.default_rng(8).standard_normal((5 * 44_100, 2)) / 9
    soundfile.write(file, noise, 44_100, format="MP3", **mode)
    size = bytes(tag >> shift & 127 for shift in (21, 14, 7, 0))
    return (b"ID3\4\0\0" + size + bytes(tag) if tag else b"") + file.getvalue()


@pytest.mark.parametrize("tag", [0, 300_000])
def test_an_mp3_that_does_not_say_how_long_it_is_ends_where_it_ends(tag: int) -> None:
    """Its size, with a tag or without, makes one expect more; its middle is that of what there is."""
    song = of_no_known_length(tag)
    assert soundfile.info(io.BytesIO(song)).frames > 5.05 * 44_100
    expected, _ = librosa.load(io.BytesIO(song))
    y = audio.decode(song)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    np.testing.assert_array_equal(audio.decode(song, samples=1000), y[:1000])
    middle = audio.decode(song, samples=1001, middle=True)
    np.testing.assert_array_equal(middle, y[(len(y) - 1001) // 2 :][:1001])
    np.testing.assert_array_equal(audio.decode(song, samples=10 * audio.SR, middle=True), y)


@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\x27\x10" + bytes(5008)])
def test_an_mp3_that_says_how_long_it_is_must_be_as_long(tag: bytes) -> None:
    """A part of it is refused."""
    song = tag + wav(3.0, 44_100, 2, "MP3")
    assert len(audio.decode(song)) == 3 * audio.SR
    with pytest.raises(UnsupportedMedia, match="truncated"):
        audio.decode(song[: -len(song) // 4])


def test_a_file_that_leads_nowhere_is_quietly_refused(capfd: pytest.CaptureFixture[str]) -> None:
    """A chunk of a length that would go back to before the file's beginning: no traceback in the log."""
    song = bytearray(wav(0.2, 16000, container="AIFF", subtype="PCM_24"))
    song[35:43] = b"\xff" * 8
    with pytest.raises(SpectrogramPredictorError):
        audio.decode(bytes(song))
    assert "Traceback" not in capfd.readouterr().err
