"""Bytes to waveform to picture: pure functions, without files, network or TensorFlow.

What a file is, its content decides (libsndfile: wav, flac, ogg, mp3, au, aiff and more), never its name. Names are
librosa's: ``y`` a waveform, ``sr`` its rate, ``S`` a spectrogram.
"""

import functools
import io
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

MAX_SAMPLES = 2**28
"""Largest song, in samples over all channels as stored: 50 minutes of stereo at 44,100 Hz."""

_BLOCK = 2**18


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
        It has more than `MAX_SAMPLES`.
    Unprocessable
        A sample is not a number.
    """
    if not song:
        raise UnsupportedMedia("the song is empty")
    try:
        with soundfile.SoundFile(io.BytesIO(song)) as file:
            sr = file.samplerate
            y = _read_mono(file)
    except soundfile.LibsndfileError as error:
        raise UnsupportedMedia(f"not audio that can be decoded: {error.error_string}") from error
    if not np.isfinite(y).all():
        raise Unprocessable("the song has samples that are not numbers")
    if sr == SR or not y.size:
        return y
    return np.asarray(soxr.resample(y, sr, SR, quality="HQ"), dtype=np.float32)


def _read_mono(file: soundfile.SoundFile) -> Waveform:
    frames, channels = file.frames, file.channels
    if frames * channels > MAX_SAMPLES:
        raise TooLarge(f"the song has {frames} × {channels} samples; the most is {MAX_SAMPLES}")
    y = np.empty(frames, np.float32)
    done = 0
    if channels == 1:
        done = len(file.read(out=y))
    else:
        for block in file.blocks(_BLOCK, dtype="float32", always_2d=True):
            y[done : done + len(block)] = block.mean(axis=1)
            done += len(block)
    if done < frames:
        raise UnsupportedMedia(f"the song is truncated: {done} of {frames} samples could be decoded")
    return y


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
    window, filters = _filters()
    padded = np.pad(y, N_FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_LENGTH]
    spectrum = scipy.fft.rfft(frames * window, axis=1, overwrite_x=True)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    S: Spectrogram = filters @ power.T
    np.maximum(S, AMIN, out=S)
    np.log10(S, out=S)
    S *= 10
    np.maximum(S, S.max() - np.float32(TOP_DB), out=S)
    return S


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
