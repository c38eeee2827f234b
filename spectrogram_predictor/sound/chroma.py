"""Pitch classes: how much of each there is in a song, whatever it is tuned to.

Names and shapes are those of `spectra`.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from spectrogram_predictor.sound.audio import SR
from spectrogram_predictor.sound.spectra import BIN_HZ, N_FFT, TINY, Spectrogram, blocks, filter_power

N_CHROMA = 12


def chroma(S: Spectrogram) -> NDArray[np.float32]:
    """Compute the energy [shape=(N_CHROMA, t)] of each pitch class from C, the strongest of a frame being 1.

    The classes follow the song's `tuning`.
    """
    raw = filter_power(filters(tuning(S)), S)
    strongest = raw.max(axis=0)
    strongest[strongest < TINY] = 1
    raw /= strongest
    return raw


def tuning(S: Spectrogram) -> float:
    """Estimate how far the song is tuned from A = 440 Hz.

    Parameters
    ----------
    S : np.ndarray [shape=(1 + N_FFT // 2, t), dtype=float32]
        Magnitude.

    Returns
    -------
    tuning : float in -0.5..0.5 [semitones]
        The commonest deviation, in hundredths, of the peaks between 150 and 4,000 Hz, of those stronger than their
        median; 0 if there are none.

    Notes
    -----
    ``librosa.estimate_tuning`` of the power spectrogram, in its precision throughout: the result is the place of a
    maximum.
    """
    peaks = [_peaks(np.square(S[:, block])) for block in blocks(S.shape[1])]
    pitch, strength = (np.concatenate(values) for values in zip(*peaks, strict=True))
    if not len(pitch):
        return 0.0
    pitch = pitch[strength >= np.median(strength)]
    deviation = np.mod(N_CHROMA * np.log2(pitch / (440 / 16)), 1)
    deviation[deviation >= 0.5] -= 1
    counts, edges = np.histogram(deviation, np.linspace(-0.5, 0.5, 101))
    return float(edges[np.argmax(counts)])


def _peaks(power: Spectrogram) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Find pitch [Hz] and strength of a frame's peaks, between bins by a parabola.

    A peak is above its neighbours and a tenth of its frame's maximum.
    """
    low, high = np.searchsorted(np.arange(len(power)) * BIN_HZ, (150, 4000))
    left, here, right = (power[low + shift : high + shift] for shift in (-1, 0, 1))
    loud = here > np.float32(0.1) * power.max(axis=0)
    bins, frames = np.nonzero(loud & (here > left) & (here >= right))
    left, here, right = (values[bins, frames] for values in (left, here, right))
    curvature = (right + left).astype(np.float64) - 2 * here.astype(np.float64)
    slope = (right - left) / np.float32(2)
    inside = np.abs(slope) < np.abs(curvature)
    shift = np.where(inside, -slope / np.where(inside, curvature, 1), 0).astype(np.float32)
    pitch = (bins + low + shift) * float(SR) / N_FFT
    return pitch.astype(np.float32), here + np.float32(0.5) * slope * shift


@functools.lru_cache(maxsize=8)
def filters(tuning: float) -> NDArray[np.float32]:
    """Make the filters from power to pitch classes.

    Parameters
    ----------
    tuning : float [semitones]
        See `tuning`.

    Returns
    -------
    filters : np.ndarray [shape=(N_CHROMA, 1 + N_FFT // 2), dtype=float32]
        Gaussian bumps, a semitone wide or one bin, around each pitch class; of norm 1 in every bin, times a wide
        Gaussian around the fifth octave.

    Notes
    -----
    ``librosa.filters.chroma``, after Ellis, "Chroma feature analysis and synthesis", 2007.
    """
    a440 = 440 * 2 ** (tuning / N_CHROMA)
    place = N_CHROMA * np.log2(np.arange(1, 2 + N_FFT // 2) * BIN_HZ / (a440 / 16))
    # The lowest bin has no pitch: it is put one and a half octaves below the next.
    place = np.concatenate(([place[0] - 1.5 * N_CHROMA], place))
    width = np.maximum(np.diff(place), 1)
    place = place[:-1]
    half = N_CHROMA // 2
    distance = np.remainder(place - np.arange(N_CHROMA)[:, np.newaxis] + half, N_CHROMA) - half
    bumps = np.exp(-0.5 * (2 * distance / width) ** 2)
    bumps /= np.sqrt(np.sum(np.square(bumps), axis=0))
    bumps *= np.exp(-0.5 * ((place / N_CHROMA - 5) / 2) ** 2)
    # Octaves are counted from A, pitch classes from C.
    return np.roll(bumps, -3, axis=0).astype(np.float32)
