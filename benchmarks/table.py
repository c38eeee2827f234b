"""What is printed."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One comparison.

    Parameters
    ----------
    name, ours, theirs : str
        What was measured beside what.
    ratio : float or None
        Ours to theirs, or their difference; None if it was not measured.
    target : str
        What it should be, for people: "at least 2.2" or "at most 2"; empty if it is there for comparison only.
    unit : str
        Of `ratio`; empty for a ratio.
    failed : bool
        It could not be measured; `theirs` says why.
    """

    name: str
    ours: str
    theirs: str
    ratio: float | None
    target: str
    unit: str = "×"
    failed: bool = False

    @property
    def verdict(self) -> str:
        """Whether the target was met."""
        if self.ratio is None:
            return "failed" if self.failed else ""
        if not self.target:
            return ""
        number = float(self.target.split()[2])
        met = self.ratio >= number if self.target.startswith("at least") else self.ratio <= number
        return "ok" if met else "missed"


def show(rows: list[Row]) -> None:
    """Print the rows as a table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    for column in ("measured", "ours", "beside", "ratio", "target", ""):
        table.add_column(column)
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}{row.unit}"
        cells = (row.name, row.ours, row.theirs, ratio, row.target, row.verdict)
        table.add_row(*map(Text, cells))
    Console(width=180).print(table)
