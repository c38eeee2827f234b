"""The gate in front of Keras, and beside it the load that follows."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.table import Row

MAX_MS = 300


def compare(folder: Path, rounds: int) -> list[Row]:
    """Measure what the gate takes for a model of 10 MB in both formats, in a process that loads it too."""
    rows = []
    for ending in ("h5", "keras"):
        command = [sys.executable, "-m", "benchmarks.gate", str(folder / f"large.{ending}"), str(10 * rounds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
        gate_ms, load_ms = (1000 * float(word) for word in done.stdout.split())
        rows.append(
            Row(
                f"the gate for a model of 10 MB, .{ending} [ms]",
                f"{gate_ms:.1f}",
                f"loading it: {load_ms:.0f}",
                gate_ms,
                f"at most {MAX_MS}",
                " ms",
            )
        )
    return rows


def measure(path: Path, count: int) -> None:
    """Print the seconds that the gate takes, and those of a load with it."""
    import keras

    from spectrogram_predictor.worker import gate, models

    layers = keras.layers
    model = keras.Sequential([layers.Input((128, 130, 1))])
    for filters in (32, 64, 128, 128):
        model.add(layers.Conv2D(filters, 3, activation="relu"))
        model.add(layers.BatchNormalization())
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(480, activation="relu"))
    model.add(layers.Dense(10, activation="softmax"))
    model.save(path)
    ending = path.suffix.removeprefix(".")
    print(_median(lambda: gate.check(path, ending), count), _median(lambda: models.load(path, ending), 3))


def _median(call: Callable[[], object], count: int) -> float:
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


if __name__ == "__main__":
    measure(Path(sys.argv[1]), int(sys.argv[2]))
