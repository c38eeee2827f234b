"""The harmonic and the percussive part of a waveform.

Notes
-----
Fitzgerald, "Harmonic/percussive separation using median filtering", DAFx 2010: in a spectrogram tones are lines
along time and beats are lines along frequency; a median across a line removes it.
"""

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from spectrogram_predictor.sound import median, spectra
from spectrogram_predictor.sound.audio import Waveform
from spectrogram_predictor.sound.spectra import HOP_LENGTH, N_FFT, PadMode, Spectrogram

_OVERLAP = N_FFT // HOP_LENGTH
_TINY = np.finfo(np.float32).tiny


def hpss(y: Waveform, pad_mode: PadMode) -> tuple[Waveform, Waveform]:
    """Separate a waveform into its parts.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform of more than half a window.
    pad_mode : "reflect" or "constant"
        See `spectra.PadMode`.

    Returns
    -------
    y_harmonic, y_percussive : np.ndarray [shape=(n,), dtype=float32]

    Notes
    -----
    ``librosa.effects.hpss``, and rounded where it rounds: the means of both waveforms are so close to zero that a
    last bit shows in them.
    """
    padded, frames = spectra.pad(y, pad_mode), spectra.count_frames(y)
    harmonic, percussive, weights = (np.zeros((frames + _OVERLAP - 1, HOP_LENGTH), np.float32) for _ in range(3))
    for block in spectra.blocks(frames):
        for hops, D in zip((harmonic, percussive), _separate(padded, block, frames), strict=True):
            sounds = scipy.fft.irfft(D.T, axis=1, overwrite_x=True)
            _overlap_add(hops[block.start :], sounds * spectra.hann())
    _overlap_add(weights, np.broadcast_to(np.square(spectra.hann()), (frames, N_FFT)))
    weights[weights <= _TINY] = 1
    harmonic /= weights
    percussive /= weights
    return _waveform(harmonic, len(y)), _waveform(percussive, len(y))


def _separate(padded: Waveform, block: slice, frames: int) -> list[NDArray[np.complex64]]:
    """Transform a block of frames, with those that a median sees before and after it, and separate it."""
    around = median.SIZE // 2
    start, stop = max(0, block.start - around), min(frames, block.stop + around)
    inner = slice(block.start - start, block.stop - start)
    D = spectra.stft(padded, start, stop)
    S = np.abs(D)
    tones = median.running_median(S, axis=1)[:, inner]
    D, S = D[:, inner], S[:, inner]
    beats = median.running_median(S, axis=0)
    return [_times_phase(S * mask, D, S) for mask in _softmasks(tones, beats)]


def _softmasks(tones: Spectrogram, beats: Spectrogram) -> list[Spectrogram]:
    """Return each one's share of the power, one half where there is none."""
    louder = np.maximum(tones, beats)
    silent = louder < _TINY
    louder[silent] = 1
    powers = [np.square(part / louder) for part in (tones, beats)]
    for power in powers:
        power[silent] = 0.5
    total = np.add(*powers)
    return [np.divide(power, total) for power in powers]


def _times_phase(part: Spectrogram, D: NDArray[np.complex64], S: Spectrogram) -> NDArray[np.complex64]:
    """Give a magnitude the phase of D, whose magnitude is S."""
    result = np.zeros_like(D)
    for to, given in ((result.real, D.real), (result.imag, D.imag)):
        np.divide(given, S, out=to, where=S > 0)
        to *= part
    return result


def _overlap_add(hops: NDArray[np.float32], frames: NDArray[np.float64]) -> None:
    """Add frames to the hops that each covers, the earlier frame first."""
    for part in reversed(range(_OVERLAP)):
        hops[part : part + len(frames)] += frames[:, part * HOP_LENGTH : (part + 1) * HOP_LENGTH]


def _waveform(hops: NDArray[np.float32], length: int) -> Waveform:
    return hops.reshape(-1)[N_FFT // 2 :][:length]
