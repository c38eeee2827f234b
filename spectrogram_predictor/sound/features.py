"""A row of named numbers: as a client's CSV gives it, or computed from the sound as in the public GTZAN table."""

import csv
import functools
import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from spectrogram_predictor.errors import Unprocessable
from spectrogram_predictor.sound import chroma, spectra, tempo
from spectrogram_predictor.sound.audio import SR, Waveform
from spectrogram_predictor.sound.columns import GTZAN_COLUMNS, MFCC
from spectrogram_predictor.sound.hpss import hpss
from spectrogram_predictor.sound.spectra import HOP_LENGTH, N_FFT, PadMode, Spectrogram

MAX_COLUMNS = 100_000

_LARGEST = float(np.finfo(np.float32).max)

Convention = Literal["table", "librosa"]
"""Whose numbers: those of the public table, made with librosa before 0.9, or those of librosa's defaults since."""

_PAD_MODES: dict[Convention, PadMode] = {"table": "reflect", "librosa": "constant"}


def compute(
    y: Waveform, columns: Sequence[str] = GTZAN_COLUMNS, convention: Convention = "table"
) -> NDArray[np.float32]:
    """Compute features of the public GTZAN table from the sound.

    Only what the columns need is computed.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform at `SR`.
    columns : sequence of str
        Names out of `GTZAN_COLUMNS`: ``length`` in samples; mean and variance of chroma, RMS, spectral centroid,
        bandwidth and rolloff [Hz], zero crossing rate, harmonic and percussive part; ``tempo`` in beats per
        minute; mean and variance of 20 MFCC.
    convention : "table" or "librosa"
        See Notes.

    Returns
    -------
    row : np.ndarray [shape=(len(columns),), dtype=float32]

    Raises
    ------
    Unprocessable
        There is no such feature; the waveform is shorter than one window, or so loud that a feature is not finite.

    Notes
    -----
    "table" reproduces the public table; a model that was trained on it needs these. It was made with librosa
    before 0.9, which reflected the sound at its ends (https://github.com/librosa/librosa/pull/1382) and left the
    harmonic and the percussive part silent after the last whole hop. "librosa" is the defaults of librosa since.
    """
    unknown = [name for name in columns if name not in GTZAN_COLUMNS]
    if unknown:
        raise Unprocessable(f"there is no feature {unknown[0][:40]!r}")
    if len(y) < N_FFT:
        raise Unprocessable(f"the song is too short: {len(y) / SR:.3f} s, at least {N_FFT / SR:.3f} s are needed")
    song = _Song(y, convention)
    with np.errstate(over="ignore", invalid="ignore"):
        row = np.array([song.number(name) for name in columns], np.float32)
    if not np.isfinite(row).all():
        raise Unprocessable("the song is too loud: a feature is not finite")
    return row


class _Song:
    """What the columns are made of, each computed when it is first asked for. Tracks have the table's names."""

    def __init__(self, y: Waveform, convention: Convention) -> None:
        self.length = len(y)
        self._y = y
        self._pad_mode = _PAD_MODES[convention]
        self._whole_hops = len(y) // HOP_LENGTH * HOP_LENGTH if convention == "table" else len(y)
        self._moments: dict[str, dict[str, float]] = {}

    def number(self, column: str) -> float:
        """Return what belongs into a column."""
        if column in ("length", "tempo"):
            return float(getattr(self, column))
        track, moment = column.rsplit("_", 1)
        if track not in self._moments:
            numbers = self.mfcc[MFCC.index(track)] if track in MFCC else getattr(self, track)
            self._moments[track] = {"mean": numbers.mean(), "var": numbers.var()}
        return self._moments[track][moment]

    @functools.cached_property
    def magnitude(self) -> Spectrogram:
        return spectra.magnitude(self._y, self._pad_mode)

    @functools.cached_property
    def mel_db(self) -> Spectrogram:
        return spectra.mel_db(self.magnitude)

    @functools.cached_property
    def mfcc(self) -> NDArray[np.float32]:
        return spectra.mfcc(self.mel_db)

    @property
    def tempo(self) -> float:
        return tempo.tempo(tempo.onset_strength(self.mel_db))

    @property
    def chroma_stft(self) -> NDArray[np.float32]:
        return chroma.chroma(self.magnitude)

    @functools.cached_property
    def _centroid_and_bandwidth(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return spectra.centroid_and_bandwidth(self.magnitude)

    @property
    def spectral_centroid(self) -> NDArray[np.float64]:
        return self._centroid_and_bandwidth[0]

    @property
    def spectral_bandwidth(self) -> NDArray[np.float64]:
        return self._centroid_and_bandwidth[1]

    @property
    def rolloff(self) -> NDArray[np.float64]:
        return spectra.rolloff(self.magnitude)

    @property
    def rms(self) -> NDArray[np.float64]:
        padded = spectra.pad(self._y, self._pad_mode)
        return np.sqrt(_sum_frames(np.square(padded)) / N_FFT)

    @property
    def zero_crossing_rate(self) -> NDArray[np.float64]:
        """Crossings inside a frame: that into its first sample does not count."""
        negative = np.pad(self._y, N_FFT // 2, mode="edge") < -1e-10
        crossings = np.diff(negative, prepend=negative[:1])
        return (_sum_frames(crossings) - crossings[: 1 - N_FFT : HOP_LENGTH]) / N_FFT

    @functools.cached_property
    def _parts(self) -> tuple[Waveform, Waveform]:
        parts = hpss(self._y, self._pad_mode)
        for part in parts:
            part[self._whole_hops :] = 0
        return parts

    @property
    def harmony(self) -> Waveform:
        return self._parts[0]

    @property
    def perceptr(self) -> Waveform:
        return self._parts[1]


def _sum_frames(padded: NDArray[np.float32] | NDArray[np.bool_]) -> NDArray[np.float64]:
    """Add up each frame: the sums of its hops."""
    whole = padded[: len(padded) // HOP_LENGTH * HOP_LENGTH]
    hops = whole.reshape(-1, HOP_LENGTH).sum(axis=1, dtype=np.float64)
    return np.convolve(hops, np.ones(N_FFT // HOP_LENGTH), mode="valid")


def parse_csv(data: bytes) -> NDArray[np.float32]:
    """Read one row of numbers under a line of names.

    A first column without a name is pandas' index and does not count.

    Parameters
    ----------
    data : bytes
        UTF-8 text, as ``DataFrame.to_csv`` writes it.

    Returns
    -------
    row : np.ndarray [shape=(n,), dtype=float32]
        The numbers in the file's order.

    Raises
    ------
    Unprocessable
        It is empty, has no row or several, or a cell is not a finite number.
    """
    return _numbers(*_read_row(data))


def select(data: bytes, columns: Sequence[str]) -> NDArray[np.float32]:
    """Read columns by their names from what `parse_csv` takes; what others have does not matter.

    Raises
    ------
    Unprocessable
        A column is missing, or there twice, or not a finite number.
    """
    names, cells = _read_row(data)
    missing = [name for name in columns if name not in names]
    if missing:
        raise Unprocessable(f"the csv has no column {missing[0]!r}")
    twice = [name for name in columns if names.count(name) > 1]
    if twice:
        raise Unprocessable(f"the csv has the column {twice[0]!r} more than once")
    return _numbers(columns, [cells[names.index(name)] for name in columns])


def _read_row(data: bytes) -> tuple[list[str], list[str]]:
    try:
        lines = [line for line in csv.reader(io.StringIO(data.decode("utf-8-sig")), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise Unprocessable("the csv cannot be read as UTF-8 text with commas") from error
    if len(lines) != 2:
        raise Unprocessable(f"the csv must have a line of names and one row, not {len(lines)} lines")
    names, cells = lines
    if len(names) != len(cells) or len(names) > MAX_COLUMNS:
        raise Unprocessable(f"the csv has {len(names)} names, but {len(cells)} cells in its row")
    if not names[0].strip():
        names, cells = names[1:], cells[1:]
    if not cells:
        raise Unprocessable("the csv has no columns")
    return names, cells


def _numbers(names: Sequence[str], cells: Sequence[str]) -> NDArray[np.float32]:
    return np.array([_number(name, cell) for name, cell in zip(names, cells, strict=True)], np.float32)


def as_input(row: NDArray[np.float32], shape: Sequence[int | None]) -> NDArray[np.float32]:
    """Shape a row for a model's input of features.

    Parameters
    ----------
    row : np.ndarray [shape=(n,)]
        The features.
    shape : sequence of int or None
        The input's shape without the batch, ``(n,)`` or ``(n, 1)``.

    Raises
    ------
    Unprocessable
        The model takes another number of features.
    """
    if shape[0] not in (None, len(row)):
        raise Unprocessable(f"the csv has {len(row)} features, the model takes {shape[0]}")
    return row.reshape(len(row), *(1 for _ in shape[1:]))


def _number(name: str, cell: str) -> float:
    try:
        number = float(cell)
    except ValueError as error:
        raise Unprocessable(f"the csv's column {name[:40]!r} is not a number: {cell[:40]!r}") from error
    # Neither infinite, nor NaN, nor more than the row can hold.
    if not abs(number) <= _LARGEST:
        raise Unprocessable(f"the csv's column {name[:40]!r} is not a finite number: {cell[:40]!r}")
    return number
