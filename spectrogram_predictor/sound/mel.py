"""The mel scale: filters from the bins of a spectrum to bands that are as wide as they sound.

The weights are librosa's, by the only function of it that is called: it loads without compiling. Others need
numba, which takes ten seconds and more in every process that finds no cache, and a container may have no folder
for one.
"""

import functools
import warnings

import librosa.filters
import numpy as np
from numpy.typing import NDArray

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
    """Make the filters' weights.

    Parameters
    ----------
    sr, n_fft, n_mels, fmin, fmax
        As `librosa.filters.mel` takes them.

    Returns
    -------
    weights : np.ndarray [shape=(n_mels, 1 + n_fft // 2), dtype=float32]
        Of a band that is narrower than a bin, all may be zero.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of such bands: they are what was asked for
        made: NDArray[np.float32] = librosa.filters.mel(sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax)
    return made
