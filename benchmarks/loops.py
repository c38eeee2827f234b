"""Predictions in a loop in one process, without a server: ``python -m benchmarks.loops kernel|original ...``.

Prints wall and CPU seconds per prediction as JSON.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main(which: str, model: str, song: str, csv: str, count: str) -> None:
    """Run the loop and print what one prediction takes."""
    data = Path(song).read_bytes(), Path(csv).read_bytes() if csv else None
    predict = (_kernel if which == "kernel" else _original)(Path(model), *data)
    predict()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(int(count)):
        predict()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"wall_s": wall / int(count), "cpu_s": cpu / int(count)}))


def _kernel(model: Path, song: bytes, csv: bytes | None) -> Callable[[], Any]:
    """Decode, picture, model call: what no server can do without."""
    from spectrogram_predictor.recipe import default
    from spectrogram_predictor.worker import models

    models.configure(1)
    loaded = models.load(model, model.suffix.removeprefix("."))
    return lambda: loaded(default.inputs(loaded.shapes, song, csv))


def _original(model: Path, song: bytes, csv: bytes | None) -> Callable[[], Any]:
    from benchmarks import original

    assert csv
    return lambda: original.predict(model, song, csv)


if __name__ == "__main__":
    main(*sys.argv[1:])
