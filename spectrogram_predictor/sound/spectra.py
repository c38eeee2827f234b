"""Spectra of a waveform as librosa makes them by default: pure functions of NumPy and SciPy.

Names and shapes are librosa's: ``S`` [shape=(1 + N_FFT // 2, t)] is a magnitude spectrogram, stored frame by frame
(Fortran order). What librosa computes in double precision is computed in double precision, the rest is float32.
Long songs are worked on in blocks of frames, so that of all that is large only ``S`` grows with the song.

librosa itself is not called: numba compiles for ten seconds and more in every process that finds no cache.
"""

import functools
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import DTypeLike, NDArray

from spectrogram_predictor import budget
from spectrogram_predictor.errors import Unprocessable
from spectrogram_predictor.sound import mel as mel_scale
from spectrogram_predictor.sound.audio import SR, Waveform
from spectrogram_predictor.sound.columns import MIN_SAMPLES, N_MFCC

Spectrogram = NDArray[np.float32]

PadMode = Literal["reflect", "constant"]
"""How a song is continued by half a window at both ends: librosa's default before 0.9, and since."""

N_FFT = MIN_SAMPLES
HOP_LENGTH = 512
N_MELS = 128
TOP_DB = 80.0
AMIN = 1e-10
ROLL_PERCENT = 0.85

BLOCK = 512
"""Frames that are worked on at a time."""

_MEL_BLOCK_BYTES = 2**19
"""Of frames for a mel spectrogram alone: what stays in a processor's cache is done a third faster."""

BIN_HZ = SR / N_FFT
TINY = np.finfo(np.float32).tiny
"""Less is as good as nothing, for librosa."""


def count_frames(y: Waveform) -> int:
    """Count the frames of a waveform: one a hop, each centred on its sample."""
    return 1 + len(y) // HOP_LENGTH


def blocks(frames: int) -> Iterator[slice]:
    """Cut a number of frames into blocks."""
    for start in range(0, frames, BLOCK):
        budget.check()
        yield slice(start, min(start + BLOCK, frames))


def pad(y: Waveform, pad_mode: PadMode) -> Waveform:
    """Continue a waveform by half a window at both ends, so that frames are centred."""
    return np.pad(y, N_FFT // 2, mode=pad_mode)


@functools.cache
def hann(size: int = N_FFT) -> NDArray[np.float64]:
    """Return the Hann window."""
    window: NDArray[np.float64] = scipy.signal.get_window("hann", size)
    return window


def stft(padded: Waveform, start: int, stop: int) -> NDArray[np.complex64]:
    """Transform some of the frames.

    Parameters
    ----------
    padded : np.ndarray [shape=(n + N_FFT,), dtype=float32]
        See `pad`.
    start, stop : int >= 0
        First frame, and the one after the last.

    Returns
    -------
    D : np.ndarray [shape=(1 + N_FFT // 2, stop - start), dtype=complex64]
        Transformed in double precision, then rounded, as librosa does: the tuning and the tempo of a song are the
        places of maxima, and less would now and then find another one.
    """
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_LENGTH][start:stop]
    D: NDArray[np.complex128] = scipy.fft.rfft(frames * hann(), axis=1, overwrite_x=True)
    return D.astype(np.complex64).T


def magnitude(y: Waveform, pad_mode: PadMode) -> Spectrogram:
    """Compute the magnitude spectrogram.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform of more than half a window.
    pad_mode : "reflect" or "constant"
        See `PadMode`.

    Returns
    -------
    S : np.ndarray [shape=(1 + N_FFT // 2, 1 + n // HOP_LENGTH), dtype=float32]
    """
    padded, frames = pad(y, pad_mode), count_frames(y)
    S = np.empty((1 + N_FFT // 2, frames), np.float32, order="F")
    for block in blocks(frames):
        np.abs(stft(padded, block.start, block.stop), out=S[:, block])
    return S


def mel(
    y: Waveform,
    sr: int = SR,
    n_fft: int = N_FFT,
    hop_length: int = HOP_LENGTH,
    n_mels: int = N_MELS,
    fmin: float = 0.0,
    fmax: float | None = None,
    power: int = 2,
    pad_mode: PadMode = "constant",
    dtype: DTypeLike = np.float64,
) -> Spectrogram:
    """Compute the mel spectrogram.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform at `sr`.
    sr, n_fft, hop_length, n_mels, fmin, fmax
        As in ``librosa.feature.melspectrogram``.
    power : 1 or 2
        Of magnitude, or of power.
    pad_mode : "reflect" or "constant"
        See `PadMode`.
    dtype : np.float64 or np.float32
        Of the transform. In double precision the numbers are librosa's but for their last bits, in single within
        a thousandth of a decibel, in half the time (two thousandths, 80 dB below a pure tone).

    Returns
    -------
    S : np.ndarray [shape=(n_mels, 1 + n // hop_length), dtype=float32]

    Raises
    ------
    Unprocessable
        The waveform is shorter than one window.
    """
    if len(y) < n_fft:
        raise Unprocessable(f"the song is too short: {len(y) / sr:.3f} s, at least {n_fft / sr:.3f} s are needed")
    filters = mel_scale.filters(sr, n_fft, n_mels, fmin, fmax)
    S: Spectrogram = np.empty((n_mels, 1 + (len(y) - n_fft % 2) // hop_length), np.float32)
    window = hann(n_fft).astype(dtype)
    buffer = np.empty((max(_MEL_BLOCK_BYTES // window.nbytes, 1), n_fft), dtype)
    for first in range(0, S.shape[1], len(buffer)):
        budget.check()
        part = S[:, first : first + len(buffer)]
        samples = _samples(y, first * hop_length, part.shape[1], n_fft, hop_length, pad_mode)
        frames = np.lib.stride_tricks.sliding_window_view(samples, n_fft)[::hop_length]
        windowed = np.multiply(frames, window, out=buffer[: len(frames)])
        filters.apply(_power(windowed, power), part)
    return S


def _samples(y: Waveform, first: int, frames: int, n_fft: int, hop_length: int, pad_mode: PadMode) -> Waveform:
    """Cut out what so many frames cover, the first of which is centred on a sample."""
    begin = first - n_fft // 2
    end = begin + (frames - 1) * hop_length + n_fft
    # What is reflected is not repeated: one sample more is needed.
    near, far = max(begin - 1, 0), min(end + 1, len(y))
    if near <= begin and end <= far:
        return y[begin:end]
    padded = np.pad(y[near:far], (max(-begin, 0), max(end - len(y), 0)), mode=pad_mode)
    skipped = begin - near if begin > 0 else 0
    return padded[skipped : skipped + end - begin]


def _power(windowed: NDArray[Any], power: int) -> NDArray[np.float32]:
    """Transform frames, which are lost, and return the power (2) or the magnitude (1) of each."""
    spectrum = scipy.fft.rfft(windowed, axis=1, overwrite_x=True)
    if spectrum.dtype == np.complex64:
        squared: NDArray[np.float32] = np.square(spectrum.real)
        squared += np.square(spectrum.imag)
        return np.sqrt(squared) if power == 1 else squared
    # Rounded where librosa rounds: a level of a picture may depend on it.
    magnitude: NDArray[np.float32] = np.abs(spectrum.astype(np.complex64))
    return magnitude if power == 1 else np.square(magnitude, out=magnitude)


def decibels(S: Spectrogram, ref: float = 1.0, top_db: float | None = TOP_DB) -> Spectrogram:
    """Turn power into decibels, in place.

    Parameters
    ----------
    S : np.ndarray [dtype=float32]
        Power.
    ref : float > 0
        What is 0 dB.
    top_db : float > 0 [dB] or None
        Nothing is further below the maximum.
    """
    np.maximum(S, np.float32(AMIN), out=S)
    np.log10(S, out=S)
    S *= 10
    if ref != 1:
        S -= 10 * np.log10(np.maximum(np.float32(ref), np.float32(AMIN)))
    if top_db is not None:
        np.maximum(S, S.max() - np.float32(top_db), out=S)
    return S


def filter_power(filters: NDArray[np.float32], S: Spectrogram) -> Spectrogram:
    """Put a magnitude spectrogram's power through filters [shape=(n, 1 + N_FFT // 2)]."""
    return np.concatenate([filters @ np.square(S[:, block]) for block in blocks(S.shape[1])], axis=1)


def mel_db(S: Spectrogram) -> Spectrogram:
    """Compute the mel spectrogram in decibels of a magnitude spectrogram.

    Returns
    -------
    S : np.ndarray [shape=(N_MELS, t), dtype=float32]
    """
    return decibels(filter_power(_mel_weights(), S))


def mfcc(mel: Spectrogram, n_mfcc: int = N_MFCC) -> NDArray[np.float32]:
    """Compute the mel-frequency cepstral coefficients [shape=(n_mfcc, t)] of a mel spectrogram in decibels."""
    coefficients: NDArray[np.float32] = scipy.fft.dct(mel, axis=0, type=2, norm="ortho")
    return coefficients[:n_mfcc]


def centroid_and_bandwidth(S: Spectrogram) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute mean and standard deviation of the frequency in each frame [Hz], weighted with the magnitude.

    Returns
    -------
    centroid, bandwidth : np.ndarray [shape=(t,), dtype=float64]
        Zero where there is silence.
    """
    frequency = np.arange(len(S)) * BIN_HZ
    powers = np.vander(frequency, 3, increasing=True).T
    moments = np.concatenate([powers @ S[:, block].astype(np.float64) for block in blocks(S.shape[1])], axis=1)
    # A frame that is all but silent is not normalised, as in librosa.
    zeroth, first, second = moments / np.where(moments[0] < TINY, 1, moments[0])
    variance = second - 2 * first * first + first * first * zeroth
    return first, np.sqrt(np.maximum(variance, 0))


def rolloff(S: Spectrogram) -> NDArray[np.float64]:
    """Compute the frequency below which `ROLL_PERCENT` of each frame's magnitude is [shape=(t,), Hz]."""
    bins = []
    for block in blocks(S.shape[1]):
        total = np.cumsum(S[:, block], axis=0)
        bins.append(np.count_nonzero(total < np.float32(ROLL_PERCENT) * total[-1], axis=0))
    return np.concatenate(bins) * BIN_HZ


@functools.cache
def _mel_weights() -> NDArray[np.float32]:
    # Whole: in groups they add up in another order, to another last bit.
    return mel_scale.weights(SR, N_FFT, N_MELS)
