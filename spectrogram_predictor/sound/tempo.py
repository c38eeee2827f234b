"""The tempo of a song: what ``librosa.beat.beat_track`` returns, without looking for the beats."""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from spectrogram_predictor.sound.audio import SR
from spectrogram_predictor.sound.spectra import HOP_LENGTH, N_FFT, Spectrogram, blocks, hann

START_BPM = 120.0
MAX_BPM = 320.0

_LAGS = int(8 * SR / HOP_LENGTH)
"""Longest period between two beats: 8 s, in frames."""


def onset_strength(mel: Spectrogram) -> NDArray[np.float32]:
    """Tell how much louder each frame is than the one before, in the median over the mel bands.

    Parameters
    ----------
    mel : np.ndarray [shape=(n_mels, t), dtype=float32]
        Mel spectrogram in decibels.

    Returns
    -------
    onset_envelope : np.ndarray [shape=(t,), dtype=float32]
        Later by half a window, as its frames are centred.
    """
    louder = np.maximum(0, np.diff(mel, axis=1))
    delay = 1 + N_FFT // (2 * HOP_LENGTH)
    return np.pad(np.median(louder, axis=0), (delay, 0))[: mel.shape[1]]


def tempo(onset_envelope: NDArray[np.float32]) -> float:
    """Estimate the tempo.

    Parameters
    ----------
    onset_envelope : np.ndarray [shape=(t,), dtype=float32]
        See `onset_strength`.

    Returns
    -------
    tempo : float >= 0 [beats per minute]
        The period at which the envelope resembles itself most, where around `START_BPM` is likelier; 0 if there
        are no onsets.
    """
    if not onset_envelope.any():
        return 0.0
    bpm = 60 * SR / (HOP_LENGTH * np.arange(1.0, _LAGS))
    prior = -0.5 * np.log2(bpm / START_BPM) ** 2
    prior[bpm >= MAX_BPM] = -np.inf
    likelihood = np.log1p(1e6 * _autocorrelation(onset_envelope)[1:]) + prior
    return float(bpm[np.argmax(likelihood)])


def _autocorrelation(envelope: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the mean over time of the normalised local autocorrelation [shape=(_LAGS,)].

    It is linear in the power spectrum: one inverse transform, of the mean, is enough.
    """
    padded = np.pad(envelope, _LAGS // 2, mode="linear_ramp")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _LAGS)[: len(envelope)]
    size = scipy.fft.next_fast_len(2 * _LAGS - 1, real=True)
    power = np.zeros(1 + size // 2)
    for block in blocks(len(frames)):
        windowed = frames[block] * hann(_LAGS)
        energy = np.sum(np.square(windowed), axis=1)
        energy[energy == 0] = 1
        spectrum = np.abs(scipy.fft.rfft(windowed, size, axis=1))
        power += (1 / energy) @ np.square(spectrum)
    mean: NDArray[np.float64] = scipy.fft.irfft(power / len(frames), size)
    return mean[:_LAGS]
