"""The running median: exact, by vector operations on whole rows."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

SIZE = 31
"""Width of the window: one less than a power of two."""

_GROUP = (SIZE + 1) // 2
_BLOCK = 2**14


def running_median(x: Array, axis: int) -> Array:
    """Replace each number by the median of the `SIZE` numbers around it.

    Parameters
    ----------
    x : np.ndarray [shape=(m, n), dtype=float32]
        Without NaN.
    axis : 0 or 1
        Which way the window runs. At the ends it sees the numbers reflected (d c b a | a b c d | d c b a).

    Returns
    -------
    medians : np.ndarray [shape=(m, n), dtype=float32]
        The same as ``scipy.ndimage.median_filter`` with ``mode="reflect"``.

    Notes
    -----
    Windows side by side share their sorting, as in Adams, "Fast median filters using separable sorting networks",
    ACM Trans. Graph. 40 (2021). 16 windows have 16 numbers in common, which are sorted once. The first 8 of them
    have 8 more in common, as have the last 8; those are merged in, and so on by halves. Each time, numbers that
    have too many above or below them to be a median are dropped. Minima and maxima of whole arrays do it: 28 a
    number.
    """
    along = x if axis == 0 else x.T
    medians = np.empty_like(along)
    columns = max(1, _BLOCK * _GROUP // len(along))
    for start in range(0, along.shape[1], columns):
        medians[:, start : start + columns] = _of_columns(along[:, start : start + columns])
    return medians if axis == 0 else medians.T


def _of_columns(x: Array) -> Array:
    """Filter along the first axis: the first rows of all groups at once, and their second rows, and so on."""
    groups = -(-len(x) // _GROUP)
    after = (groups + 1) * _GROUP - len(x)
    padded = np.pad(x, ((_GROUP, after), (0, 0)), mode="symmetric")
    rows = np.ascontiguousarray(padded.reshape(groups + 2, _GROUP, -1).swapaxes(0, 1))
    runs = _Runs(rows)
    medians = _medians(runs, runs.get(_GROUP, _GROUP), _GROUP, 2 * _GROUP)
    return np.stack(medians, axis=1).reshape(groups * _GROUP, -1)[: len(x)]


class _Runs:
    """Rows that follow each other, sorted: of every group in one go.

    Parameters
    ----------
    rows : np.ndarray [shape=(_GROUP, groups + 2, columns)]
    """

    def __init__(self, rows: Array) -> None:
        self._groups = rows.shape[1] - 2
        self._runs = {1: [[row] for row in rows]}
        for size in (2**power for power in range(_GROUP.bit_length() - 1)):
            halves = self._runs[size]
            self._runs[2 * size] = [_merge(*pair) for pair in zip(halves[::2], halves[1::2], strict=True)]

    def get(self, start: int, size: int) -> list[Array]:
        """Return rows start, start + 1, ..., start + size - 1 of every group, sorted, the smallest first."""
        group, row = divmod(start, _GROUP)
        return [numbers[group : group + self._groups] for numbers in self._runs[size][row // size]]


def _medians(runs: _Runs, kept: list[Array], start: int, stop: int) -> list[Array]:
    """Return the medians of neighbouring windows, as many as there are numbers kept of their common rows."""
    half = len(kept) // 2
    if not half:
        return kept
    left = _middle(kept, runs.get(start - half, half))
    right = _middle(kept, runs.get(stop, half))
    return [*_medians(runs, left, start - half, stop), *_medians(runs, right, start, stop + half)]


def _middle(kept: list[Array], more: list[Array]) -> list[Array]:
    """Return the middle third of 2n and n sorted numbers, sorted."""
    n = len(more)
    above = _sort_bitonic([np.maximum(a, b) for a, b in zip(kept[:n], reversed(more), strict=True)])
    return _sort_bitonic([np.minimum(a, b) for a, b in zip(above, reversed(kept[n:]), strict=True)])


def _sort_bitonic(numbers: list[Array]) -> list[Array]:
    """Sort numbers that fall and then rise, or the other way round (Batcher 1968)."""
    half = len(numbers) // 2
    if not half:
        return numbers
    pairs = list(zip(numbers[:half], numbers[half:], strict=True))
    low, high = ([choose(a, b) for a, b in pairs] for choose in (np.minimum, np.maximum))
    return [*_sort_bitonic(low), *_sort_bitonic(high)]


def _merge(first: list[Array], second: list[Array]) -> list[Array]:
    """Merge sorted numbers with as many others (Batcher 1968, odd-even)."""
    if len(first) == 1:
        return [np.minimum(first[0], second[0]), np.maximum(first[0], second[0])]
    even, odd = _merge(first[::2], second[::2]), _merge(first[1::2], second[1::2])
    pairs = zip(even[1:], odd[:-1], strict=True)
    return [even[0], *(choose(a, b) for a, b in pairs for choose in (np.minimum, np.maximum)), odd[-1]]
