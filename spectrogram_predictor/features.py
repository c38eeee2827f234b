"""A row of features, as a client's CSV gives it."""

import csv
import io
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spectrogram_predictor.errors import Unprocessable

MAX_COLUMNS = 100_000


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
    if not math.isfinite(np.float32(number)):
        raise Unprocessable(f"the csv's column {name[:40]!r} is not a finite number: {cell[:40]!r}")
    return number
