"""What a worker does with a model's file, and what it keeps of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrogram_predictor import engine, predictor
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import ModelNotFound, StorageUnavailable
from spectrogram_predictor.workers import WorkerPool
from tests.conftest import build_model, csv_row, sha256


def test_a_file_that_cannot_be_read_says_nothing_of_a_model(tmp_path: Path) -> None:
    """It is tried again; one that is gone is not found."""
    with pytest.raises(StorageUnavailable, match="directory"):
        engine.inspect(tmp_path, "0" * 64, "h5")
    with pytest.raises(ModelNotFound):
        engine.inspect(tmp_path / "none", "0" * 64, "h5")


def ask(path: Path, digest: str, song: bytes) -> list[Any]:
    return engine.predict(path, digest, "keras", song, csv_row([0.5] * 7))


def test_the_least_recently_used_model_leaves(
    tmp_path: Path, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is kept needs its file no more; one that has left does."""
    monkeypatch.setattr(engine, "_cached_models", 2)
    monkeypatch.setattr(engine, "_models", {})
    paths = [tmp_path / f"{name}.keras" for name in "abc"]
    for number, path in enumerate(paths):
        model = build_model(["features"], features=7)
        model.set_weights([weights + number for weights in model.get_weights()])
        model.save(path)
    a, b, c = [(path, sha256(path)) for path in paths]
    first = ask(*a, song)
    for one in (b, a, c):
        ask(*one, song)
    for path in paths:
        path.unlink()
    assert ask(*a, song) == first
    assert np.shape(ask(*c, song)) == (1, 10)
    with pytest.raises(ModelNotFound):
        ask(*b, song)


def resident_bytes(pid: int) -> int:
    """Return the memory that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.parametrize("keeps", [True, False], ids=["predict", "inspect"])
def test_a_model_that_left_leaves_no_memory_behind(tmp_path: Path, song: bytes, keeps: bool) -> None:
    """In a real worker that keeps one of two models, or tries them only: 32 MB each, loaded 20 times."""
    import keras

    layers = keras.layers
    calls: list[tuple[Callable[..., Any], Any]] = []
    for name in ("a.keras", "b.h5"):
        keras.Sequential([layers.Input((7,)), layers.Dense(10_000), layers.Dense(800)]).save(tmp_path / name)
        one = (tmp_path / name, sha256(tmp_path / name), name.partition(".")[2])
        question = (*one, song, csv_row([0.5] * 7))
        calls.append((predictor._predict, question) if keeps else (predictor._inspect, one))
    pool = WorkerPool(PredictionSettings(workers=1, cached_models=1))
    try:
        held = []
        for _ in range(10):
            for function, arguments in calls:
                pool.submit(function, *arguments).result(60)
            held.append(resident_bytes(pool.pids[0]))
    finally:
        pool.shutdown(cancel_futures=True)
    assert held[-1] - held[2] < 64 * 2**20
