"""Run the comparisons and print one table: ``make bench``."""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import box, bucket, comparison, fairness, features, gate, kernel, prediction, pressure, upload
from benchmarks.table import Row, show
from spectrogram_predictor.certificates import make_self_signed


@dataclass(frozen=True)
class Plan:
    """Where to measure, and how thoroughly.

    Parameters
    ----------
    folder : Path
        For whatever is made.
    quick : bool
        Smaller sizes, and once.
    """

    folder: Path
    quick: bool

    @property
    def certs(self) -> Path:
        """Where the certificate is."""
        return self.folder / "certs"

    @property
    def rounds(self) -> int:
        """How often each side is measured."""
        return 1 if self.quick else 3

    def size(self, quick: int, usual: int) -> int:
        """Return one of two sizes."""
        return quick if self.quick else usual

    def mib(self, quick: int, usual: int) -> int:
        """Return one of two sizes, in bytes."""
        return self.size(quick, usual) * upload.MIB


def _upload(plan: Plan) -> list[Row]:
    return upload.throughput(plan.folder, plan.certs, plan.mib(128, 1024), plan.rounds)


def _memory(plan: Plan) -> list[Row]:
    return [upload.memory(plan.folder, plan.certs, 64 * upload.MIB, plan.mib(512, 4096))]


def _crowd(plan: Plan) -> list[Row]:
    return [fairness.crowd(plan.folder, plan.certs, plan.mib(128, 512), plan.rounds)]


def _fairness(plan: Plan) -> list[Row]:
    return fairness.predictions(plan.folder, plan.certs, plan.size(100, 400), plan.rounds)


def _bucket(plan: Plan) -> list[Row]:
    return bucket.compare(plan.folder, plan.certs, plan.mib(128, 2048), plan.rounds)


def _prediction(plan: Plan) -> list[Row]:
    return prediction.compare(plan.folder, plan.certs, plan.size(40, 200), plan.rounds)


def _overload(plan: Plan) -> list[Row]:
    return pressure.overload(plan.folder, plan.certs, plan.size(5, 60))


def _loading(plan: Plan) -> list[Row]:
    return [pressure.loading(plan.folder, plan.certs, plan.mib(50, 500), plan.size(100, 400), plan.rounds)]


def _cycles(plan: Plan) -> list[Row]:
    return [pressure.cycles(plan.folder, plan.certs, plan.size(3, 10), plan.size(6, 100))]


def _peers(plan: Plan) -> list[Row]:
    return comparison.compare(plan.folder, plan.certs, plan.size(40, 200), plan.rounds)


MEASUREMENTS: Mapping[str, Callable[[Plan], list[Row]]] = {
    "upload": _upload,
    "memory": _memory,
    "crowd": _crowd,
    "fairness": _fairness,
    "bucket": _bucket,
    "prediction": _prediction,
    "overload": _overload,
    "loading": _loading,
    "cycles": _cycles,
    "features": lambda plan: features.compare(plan.folder, plan.rounds),
    "kernel": lambda plan: kernel.compare(plan.folder, plan.rounds),
    "gate": lambda plan: gate.compare(plan.folder, plan.rounds),
    "box": lambda plan: box.compare(plan.folder, plan.size(20, 100)),
    "peers": _peers,
}
"""What there is; the last only where it is asked for."""

BESIDE_PEERS = ("prediction", "peers", "loading", "cycles", "overload")
"""What is measured where `peers` is asked for, each by itself."""


def main() -> int:
    """Measure what was asked for; return 1 if something could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=MEASUREMENTS)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for trying it out")
    options = parser.parse_args()
    names = [options.only] if options.only else [name for name in MEASUREMENTS if name != "peers"]
    if options.only == "peers":
        names = list(BESIDE_PEERS)
    rows: list[Row] = []
    for name in names:
        rows += _measure(name, options.quick)
    show(rows)
    return int(any(row.failed for row in rows))


def _measure(name: str, quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="spectrogram-predictor-bench-") as folder:
        plan = Plan(Path(folder), quick)
        make_self_signed(plan.certs)
        try:
            return MEASUREMENTS[name](plan)
        except Exception as error:
            # What was measured before it took an hour.
            traceback.print_exc()
            return [Row(name, "", f"{type(error).__name__}: {error}", None, "to be measured", failed=True)]


if __name__ == "__main__":
    sys.exit(main())
