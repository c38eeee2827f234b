"""Bytes to waveform to picture: pure functions, without files, network or TensorFlow.

What a file is, its content decides (libsndfile: wav, flac, ogg, mp3, au, aiff and more), never its name. Names are
librosa's: ``y`` a waveform, ``sr`` its rate, ``S`` a spectrogram.
"""

import functools
import io
import math
from collections.abc import Iterator
from typing import Any

import librosa
import numpy as np
import scipy.fft
import scipy.sparse
import soundfile
import soxr
from numpy.typing import NDArray
from PIL import Image

from spectrogram_predictor.errors import TooLarge, Unprocessable, UnsupportedMedia

Waveform = NDArray[np.float32]
Spectrogram = NDArray[np.float32]
Picture = NDArray[np.uint8]

SR = 22050
"""Rate that every song is brought to [Hz]; librosa's default, and the original's."""

N_FFT = 2048
HOP_LENGTH = 1024
N_MELS = 128
TOP_DB = 80.0
AMIN = 1e-10

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

_FRAME_BLOCK = 64
"""Frames that are transformed at a time: what stays in a processor's cache is done a third faster."""

_UNKNOWN_FRAMES = 2**63 - 1


def decode(song: bytes) -> Waveform:
    """Decode a song, mix it to mono and bring it to `SR`.

    Parameters
    ----------
    song : bytes
        The file.

    Returns
    -------
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform, nominally in -1..1.

    Raises
    ------
    UnsupportedMedia
        It is not audio that libsndfile knows, or ends before its header says.
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
        with _Forward(io.BytesIO(song)) as file:
            _check_header(file)
            return _read(file)
    except soundfile.LibsndfileError as error:
        raise UnsupportedMedia(f"not audio that can be decoded: {error.error_string}") from error


class _Forward(soundfile.SoundFile):  # type: ignore[misc]  # it ships no types
    """A file read from its beginning to its end.

    soundfile seeks to where it is after every read, if it can; an MP3 decoder then lacks what it had kept of the
    frames before.
    """

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


def _read(file: soundfile.SoundFile) -> Waveform:
    # Memory that is not written to is not taken; the resampler may round the length up.
    y = np.empty(math.ceil(file.frames * SR / file.samplerate) + 1, np.float32)
    done = 0
    for block in _resampled(_mono_blocks(file), file.samplerate):
        y[done : done + len(block)] = block
        done += len(block)
    return y[:done]


def _mono_blocks(file: soundfile.SoundFile) -> Iterator[Waveform]:
    """Yield the song mixed to mono, each block in the place of the one before."""
    buffer = np.empty((min(_BLOCK, file.frames), file.channels), np.float32)
    done = 0
    while done < file.frames:
        block = file.read(out=buffer)
        if not len(block):
            raise UnsupportedMedia(f"the song is truncated: {done} of {file.frames} samples could be decoded")
        done += len(block)
        mono = block[:, 0]
        if file.channels > 1:
            for channel in block.T[1:]:
                mono += channel
            mono /= file.channels
        # A NaN is not within anything.
        if not (mono.min() >= -MAX_AMPLITUDE and mono.max() <= MAX_AMPLITUDE):
            raise Unprocessable(f"the song has samples that are not numbers, or not within ±{MAX_AMPLITUDE:g}")
        yield mono


def _resampled(blocks: Iterator[Waveform], sr: int) -> Iterator[Waveform]:
    if sr == SR:
        yield from blocks
        return
    resampler = soxr.ResampleStream(sr, SR, num_channels=1, dtype="float32", quality="HQ")
    for block in blocks:
        yield resampler.resample_chunk(block)
    yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def mel_db(y: Waveform) -> Spectrogram:
    """Compute the mel spectrogram in decibels.

    The same numbers as ``power_to_db(melspectrogram(y=y, sr=SR, n_fft=N_FFT, hop_length=HOP_LENGTH))`` of librosa
    0.11 within 1e-3 dB, with a float32 FFT and the filter bank as a sparse matrix.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform at `SR`.

    Returns
    -------
    S : np.ndarray [shape=(N_MELS, 1 + n // HOP_LENGTH), dtype=float32]
        Power in dB, no more than `TOP_DB` below its maximum.

    Raises
    ------
    Unprocessable
        The waveform is shorter than one window.
    """
    _check_length(y)
    S: Spectrogram = np.empty((N_MELS, 1 + len(y) // HOP_LENGTH), np.float32)
    for first in range(0, S.shape[1], _FRAME_BLOCK):
        part = S[:, first : first + _FRAME_BLOCK]
        part[:] = _mel(_frames(y, first, first + part.shape[1]))
    np.maximum(S, AMIN, out=S)
    np.log10(S, out=S)
    S *= 10
    np.maximum(S, S.max() - np.float32(TOP_DB), out=S)
    return S


def _frames(y: Waveform, first: int, last: int) -> Waveform:
    """Cut out frames ``first`` to ``last``, centred on multiples of the hop, with silence around the song."""
    begin, end = first * HOP_LENGTH - N_FFT // 2, (last - 1) * HOP_LENGTH + N_FFT // 2
    padded = np.pad(y[max(begin, 0) : end], (max(-begin, 0), max(end - len(y), 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_LENGTH]


def _mel(frames: Waveform) -> Spectrogram:
    window, filters = _filters()
    spectrum = scipy.fft.rfft(frames * window, axis=1, overwrite_x=True)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    mel: Spectrogram = filters @ power.T
    return mel


@functools.cache
def _filters() -> tuple[NDArray[np.float32], Any]:
    window = librosa.filters.get_window("hann", N_FFT, fftbins=True).astype(np.float32)
    filters = librosa.filters.mel(sr=SR, n_fft=N_FFT, n_mels=N_MELS, dtype=np.float32)
    return window, scipy.sparse.csr_array(filters)


def _check_length(y: Waveform) -> None:
    if len(y) < N_FFT:
        raise Unprocessable(f"the song is too short: {len(y) / SR:.3f} s, at least {N_FFT / SR:.3f} s are needed")


def picture(y: Waveform, height: int | None = None, width: int | None = None) -> Picture:
    """Draw the original's picture: grey, loud is dark, low frequencies at the bottom.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform at `SR`.
    height, width : int > 0 [pixels], optional
        Size to draw at; without it, one pixel a mel band and one a frame.

    Returns
    -------
    picture : np.ndarray [shape=(height, width), dtype=uint8]
        Grey levels.

    Raises
    ------
    Unprocessable
        The waveform is shorter than one window, or silent: there is no range to scale to grey levels.
    """
    S = mel_db(y)
    low, high = S.min(), S.max()
    if low == high:
        raise Unprocessable("the song is silent: its spectrogram has no range")
    levels = ((S - low) * (255 / (high - low))).astype(np.uint8)
    drawn: Picture = 255 - levels[::-1]
    bands, frames = drawn.shape
    size = (width or frames, height or bands)
    if size == (frames, bands):
        return drawn
    return np.asarray(Image.fromarray(drawn).resize(size, Image.Resampling.BICUBIC))
