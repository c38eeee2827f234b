"""The mel scale: filters from the bins of a spectrum to bands that are as wide as they sound.

Notes
-----
The scale and the norm are those of Slaney, "Auditory Toolbox", 1998, which are librosa's defaults: linear up to
1,000 Hz, logarithmic above; each filter a triangle of area 1 [Hz].
"""

import functools

import numpy as np
from numpy.typing import NDArray

_HZ_PER_MEL = 200 / 3
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27

_GROUP = 16
"""Bands that are filtered together: of a filter 99 % are zeros, of such a group a tenth of that is worked on."""


class Filters:
    """Mel filters for a spectrum.

    Parameters
    ----------
    weights : np.ndarray [shape=(n_mels, 1 + n_fft // 2), dtype=float32]
        See `weights`.
    """

    def __init__(self, weights: NDArray[np.float32]) -> None:
        self._groups = []
        for first in range(0, len(weights), _GROUP):
            group = weights[first : first + _GROUP]
            bins = np.flatnonzero(group.any(axis=0))
            covered = slice(bins[0], bins[-1] + 1) if len(bins) else slice(0, 0)
            self._groups.append((slice(first, first + _GROUP), covered, group[:, covered].copy()))

    def apply(self, S: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Filter frames.

        Parameters
        ----------
        S : np.ndarray [shape=(t, 1 + n_fft // 2), dtype=float32]
            Frames of power or magnitude.
        out : np.ndarray [shape=(n_mels, t), dtype=float32]
            Where the bands go.
        """
        for bands, bins, weights in self._groups:
            out[bands] = weights @ S[:, bins].T


@functools.lru_cache(maxsize=16)
def filters(sr: int, n_fft: int, n_mels: int, fmin: float, fmax: float | None) -> Filters:
    """Make the filters; see `weights`."""
    return Filters(weights(sr, n_fft, n_mels, fmin, fmax))


def weights(sr: int, n_fft: int, n_mels: int, fmin: float = 0.0, fmax: float | None = None) -> NDArray[np.float32]:
    """Make the filters' weights, ``librosa.filters.mel``'s to the last bit.

    Parameters
    ----------
    sr, n_fft, n_mels, fmin, fmax
        As there.

    Returns
    -------
    weights : np.ndarray [shape=(n_mels, 1 + n_fft // 2), dtype=float32]
        Of a band that is narrower than a bin, all may be zero.
    """
    corners = _hz(np.linspace(_mel(fmin), _mel(sr / 2 if fmax is None else fmax), n_mels + 2))
    distance = np.subtract.outer(corners, np.fft.rfftfreq(n_fft, 1 / sr))
    width = np.diff(corners)[:, np.newaxis]
    rising, falling = -distance[:-2] / width[:-1], distance[2:] / width[1:]
    triangles: NDArray[np.float32] = np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
    triangles *= 2 / (corners[2:] - corners[:-2])[:, np.newaxis]
    return triangles


def _mel(hz: float) -> float:
    return hz / _HZ_PER_MEL if hz < _KNEE_HZ else _KNEE_MEL + np.log(hz / _KNEE_HZ) / _LOG_STEP


def _hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    above = mel >= _KNEE_MEL
    hz = _HZ_PER_MEL * mel
    hz[above] = _KNEE_HZ * np.exp(_LOG_STEP * (mel[above] - _KNEE_MEL))
    return hz
