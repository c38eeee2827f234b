"""Bytes to waveform: pure functions, without files, network or TensorFlow.

What a file is, its content decides (libsndfile: wav, flac, ogg, mp3, au, aiff and more), never its name. Names are
librosa's: ``y`` a waveform, ``sr`` its rate.
"""

import io
import math
import re
from collections.abc import Iterator
from typing import Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spectrogram_predictor import budget
from spectrogram_predictor.errors import TooLarge, Unprocessable, UnsupportedMedia

Waveform = NDArray[np.float32]
Channels = Literal["mean", "first"]

SR = 22050
"""Rate that every song is brought to [Hz]; librosa's default, and the original's."""

MIN_SR, MAX_SR = 1_000, 768_000
"""Rates that a song may be stored at [Hz]: a file of a few bytes at 1 Hz would be hours of sound."""

MAX_CHANNELS = 64
"""Channels that a song may have: ambisonics of the seventh order."""

MAX_DURATION_S = 3600.0
"""Longest song; 300 MB as a waveform, which a file of a hundredth of that can hold."""

MAX_AMPLITUDE = 2.0**32
"""Largest sample, nominally 1: integers that were stored as floats pass, what would overflow as power does not."""

_BLOCK = 2**16
"""Samples of each channel that are decoded at a time."""

_LEAD = 1024
"""Samples before a wanted one, at the rate it is wanted at, that the resampler must have seen: several filters."""

_UNKNOWN_FRAMES = 2**63 - 1

_COUNTED = re.compile(rb"(?:Xing|Info)\0\0\0[\x01\x03\x05\x07\x09\x0b\x0d\x0f]")
"""What the first frame of an MP3 has if it says how many there are."""

_FIRST_BYTES = 2**12
"""Among the first so many, after its tags, that frame begins and says it."""


def decode(
    song: bytes,
    sr: int = SR,
    channels: Channels = "mean",
    res_type: str = "soxr_hq",
    samples: int | None = None,
    middle: bool = False,
) -> Waveform:
    """Decode a song, make it mono and bring it to a rate.

    Parameters
    ----------
    song : bytes
        The file.
    sr : int > 0 [Hz]
        The rate.
    channels : "mean" or "first"
        What of several channels is taken.
    res_type : str
        The resampler, as ``librosa.load`` names those of soxr.
    samples : int > 0 or None
        How many samples of the waveform are wanted at most; None for all. What comes after them is not decoded.
    middle : bool
        Whether those are wanted that are in its middle, not its first.

    Returns
    -------
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform, nominally in -1..1.

    Raises
    ------
    UnsupportedMedia
        It is not audio that libsndfile knows, or ends before its header says (where it is decoded). Many an MP3's
        says nothing: it ends where it ends.
    TooLarge
        It is longer than `MAX_DURATION_S`.
    Unprocessable
        Its rate is not in `MIN_SR`..`MAX_SR`, it has more than `MAX_CHANNELS`, or a sample is not a
        number or beyond `MAX_AMPLITUDE`.

    Notes
    -----
    It is read, mixed and resampled in blocks: what is held is the file, one block, and ``y``.
    """
    if not song:
        raise UnsupportedMedia("the song is empty")
    try:
        with _Forward(_Bytes(song)) as file:
            _check_header(file)
            file.guessed = file.subtype.startswith("MPEG") and not _is_counted(song)
            if file.guessed and middle and samples:
                y = decode(song, sr, channels, res_type)
                return y[max(len(y) - samples, 0) // 2 :][:samples]
            start, stop = _wanted(file, sr, samples, middle)
            began = _seek(file, start, sr)
            blocks = _resampled(_mono_blocks(file, channels), file.samplerate, sr, res_type)
            y = _joined(blocks, start - began, stop - start)
            return y[: _length(file.done, file.samplerate, sr) - start]
    except soundfile.LibsndfileError as error:
        raise UnsupportedMedia(f"not audio that can be decoded: {error.error_string}") from error


class _Bytes(io.BytesIO):
    """Bytes in which nobody gets lost: of an error, soundfile would print a traceback for each broken song."""

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return super().seek(0)


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # it ships no types
    """A file that is read onwards, and the frame where it is.

    soundfile seeks to where it is after every read, if it can; an MP3 decoder then lacks what it had kept of the
    frames before. Some files cannot even say where they are.

    Attributes
    ----------
    done : int
        How many frames have been read, or gone past.
    guessed : bool
        Whether the number of its frames is a guess by the size of the file.
    """

    done = 0
    guessed = False

    def seekable(self) -> bool:
        return False


def _check_header(file: soundfile.SoundFile) -> None:
    sr, channels, frames = file.samplerate, file.channels, file.frames
    if not MIN_SR <= sr <= MAX_SR:
        raise Unprocessable(f"the song has a sample rate of {sr} Hz; from {MIN_SR} to {MAX_SR} Hz can be used")
    if channels > MAX_CHANNELS:
        raise Unprocessable(f"the song has {channels} channels; the most is {MAX_CHANNELS}")
    if frames == _UNKNOWN_FRAMES:
        raise UnsupportedMedia("the song does not say how long it is")
    if frames > MAX_DURATION_S * sr:
        raise TooLarge(f"the song lasts {frames / sr:.1f} s; the most is {MAX_DURATION_S:g} s")


def _is_counted(song: bytes) -> bool:
    """Tell whether an MP3 says how many frames it has."""
    first = 0
    while song[first : first + 3] == b"ID3" and len(song) > first + 10:
        # Of four bytes, seven bits each.
        size = sum(
            (byte & 127) << shift for byte, shift in zip(song[first + 6 : first + 10], (21, 14, 7, 0), strict=True)
        )
        first += 10 + size
    return bool(_COUNTED.search(song, first, first + _FIRST_BYTES))


def _wanted(file: _Forward, sr: int, samples: int | None, middle: bool) -> tuple[int, int]:
    """Return the first sample that is wanted of the waveform at a rate, and the one after the last."""
    length = _length(file.frames, file.samplerate, sr)
    if samples is None or samples >= length:
        return 0, length
    start = (length - samples) // 2 if middle else 0
    return start, start + samples


def _length(frames: int, sr: int, target_sr: int) -> int:
    """Return how many samples frames are at another rate: as librosa has it, one more than soxr makes of many."""
    return math.ceil(frames * (target_sr / sr))


def _seek(file: _Forward, start: int, sr: int) -> int:
    """Go to where decoding must begin for a sample at a rate, and return which sample at that rate is there."""
    # From a frame that is a whole sample at the other rate, the resampler computes the same samples.
    common = math.gcd(file.samplerate, sr)
    units = max(start - _LEAD, 0) // (sr // common)
    # An MP3 decoder wants the frames before, and complains on stderr when it has none.
    if not units or file.subtype.startswith("MPEG") or not soundfile.SoundFile.seekable(file):
        return 0
    file.done = file.seek(units * (file.samplerate // common))
    return units * (sr // common)


def _joined(blocks: Iterator[Waveform], skipped: int, samples: int) -> Waveform:
    """Join blocks to so many samples, after some that are skipped, and ask for no more blocks than that.

    What the blocks lack is silent.
    """
    y = np.zeros(samples, np.float32)
    done = 0
    for block in blocks:
        part = block[skipped : skipped + samples - done]
        y[done : done + len(part)] = part
        done += len(part)
        skipped = max(skipped - len(block), 0)
        if done == samples:
            break
    return y


def _mono_blocks(file: _Forward, channels: Channels) -> Iterator[Waveform]:
    """Yield the song made mono from where the file is, each block in the place of the one before."""
    # As integers they are read in one piece; libsndfile makes floats of them 8 KiB at a time.
    dtype = np.int16 if file.subtype == "PCM_16" else np.float32
    buffer = np.empty((min(_BLOCK, file.frames - file.done), file.channels), dtype)
    while file.done < file.frames:
        budget.check()
        block = file.read(out=buffer)
        if not len(block) and file.guessed and file.done:
            return
        if not len(block):
            raise UnsupportedMedia(f"the song is truncated: {file.done} of {file.frames} samples could be decoded")
        file.done += len(block)
        mono = _mono(block, channels)
        # A NaN is not within anything.
        if not (mono.min() >= -MAX_AMPLITUDE and mono.max() <= MAX_AMPLITUDE):
            raise Unprocessable(f"the song has samples that are no numbers, or too loud: over ±{MAX_AMPLITUDE:g}")
        yield mono


def _mono(block: NDArray[np.int16] | Waveform, channels: Channels) -> Waveform:
    """Make a block [shape=(n, channels)] mono."""
    mono = np.ascontiguousarray(block[:, 0], np.float32)
    if block.shape[1] > 1 and channels == "mean":
        for channel in block.T[1:]:
            mono += channel
        mono /= block.shape[1]
    if block.dtype == np.int16:
        mono *= np.float32(2.0**-15)
    return mono


def _resampled(blocks: Iterator[Waveform], sr: int, target_sr: int, res_type: str) -> Iterator[Waveform]:
    if sr == target_sr:
        yield from blocks
        return
    quality = res_type.removeprefix("soxr_").upper()
    resampler = soxr.ResampleStream(sr, target_sr, num_channels=1, dtype="float32", quality=quality)
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
