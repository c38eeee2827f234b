"""One table: what was measured, beside what, and whether the ratio is what it should be."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HEADER = ("measured", "ours", "theirs", "ratio", "target", "")


@dataclass(frozen=True)
class Row:
    """One measurement beside another.

    Attributes
    ----------
    name : str
        What was measured.
    ours, theirs : str
        The two medians, with unit; what `theirs` is in brackets.
    ratio, target : str
        How they compare, and how they should.
    verdict : str
        ``ok``, ``missed`` or ``skipped: <why>``.
    """

    name: str
    ours: str
    theirs: str
    ratio: str
    target: str
    verdict: str


def verdict(met: bool) -> str:
    """Return the word for it."""
    return "ok" if met else "missed"


def alternate(
    rounds: int, ours: Callable[[], float], theirs: Callable[[], float], say: Callable[[str], None]
) -> tuple[float, float]:
    """Measure ours, theirs, ours, theirs and so on; return the two medians.

    Parameters
    ----------
    rounds : int > 0
        How often each is measured.
    ours, theirs : callable
        Measure once.
    say : callable
        Told of each pair.
    """
    pairs = []
    for number in range(1, rounds + 1):
        pairs.append((ours(), theirs()))
        say(f"round {number} of {rounds}: {pairs[-1][0]:.4g} beside {pairs[-1][1]:.4g}")
    first, second = zip(*pairs, strict=True)
    return statistics.median(first), statistics.median(second)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a table in Markdown, in columns."""
    lines = [HEADER, *((row.name, row.ours, row.theirs, row.ratio, row.target, row.verdict) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, tuple("-" * width for width in widths))
    cells = (" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "\n".join(f"| {line} |" for line in cells)
