"""Run the comparisons and print one table: ``make bench``."""

import argparse
import tempfile
from pathlib import Path

from benchmarks import box, bucket, comparison, fairness, features, gate, kernel, prediction, upload
from benchmarks.table import Row, show
from spectrogram_predictor.certificates import make_self_signed

_CHOICES = (
    "upload",
    "memory",
    "crowd",
    "fairness",
    "bucket",
    "prediction",
    "features",
    "kernel",
    "gate",
    "peers",
    "box",
)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=_CHOICES)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for trying it out")
    options = parser.parse_args()
    rounds = 1 if options.quick else 3
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="spectrogram-predictor-bench-") as name:
        folder = Path(name)
        certs = folder / "certs"
        make_self_signed(certs)
        if options.only in (None, "upload"):
            size = 128 if options.quick else 1024
            rows += upload.throughput(folder, certs, size * upload.MIB, rounds)
        if options.only in (None, "memory"):
            large = 512 if options.quick else 4096
            rows.append(upload.memory(folder, certs, 64 * upload.MIB, large * upload.MIB))
        if options.only in (None, "crowd"):
            rows.append(fairness.crowd(folder, certs, (128 if options.quick else 512) * upload.MIB, rounds))
        if options.only in (None, "fairness"):
            rows += fairness.predictions(folder, certs, 100 if options.quick else 400, rounds)
        if options.only in (None, "bucket"):
            rows += bucket.compare(folder, certs, (128 if options.quick else 2048) * upload.MIB, rounds)
        if options.only in (None, "prediction"):
            rows += prediction.compare(folder, certs, 40 if options.quick else 200, rounds)
        if options.only == "peers":
            rows += prediction.compare(folder, certs, 40 if options.quick else 200, rounds)
            rows += comparison.compare(folder, certs, 40 if options.quick else 200, rounds)
        if options.only in (None, "features"):
            rows += features.compare(folder, rounds)
        if options.only in (None, "kernel"):
            rows += kernel.compare(folder, rounds)
        if options.only in (None, "gate"):
            rows += gate.compare(folder, rounds)
        if options.only in (None, "box"):
            rows += box.compare(folder, 20 if options.quick else 100)
    show(rows)


if __name__ == "__main__":
    main()
