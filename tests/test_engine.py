"""What a worker does with a model's file, and what it keeps of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrogram_predictor import Features, Picture, Recipe, Standard, Windows, engine, models, predictor
from spectrogram_predictor.columns import GTZAN_COLUMNS
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import ModelNotFound, StorageUnavailable, Unprocessable
from spectrogram_predictor.workers import WorkerPool
from tests.conftest import ask, build_model, csv_row, inspect, sha256


def test_a_file_that_cannot_be_read_says_nothing_of_a_model(tmp_path: Path) -> None:
    """It is tried again; one that is gone is not found."""
    with pytest.raises(StorageUnavailable, match="directory"):
        engine.inspect(tmp_path, "0" * 64, "h5")
    with pytest.raises(ModelNotFound):
        engine.inspect(tmp_path / "none", "0" * 64, "h5")


def ask_seven(path: Path, digest: str, song: bytes) -> list[Any]:
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
    first = ask_seven(*a, song)
    for one in (b, a, c):
        ask_seven(*one, song)
    for path in paths:
        path.unlink()
    assert ask_seven(*a, song) == first
    assert np.shape(ask_seven(*c, song)) == (1, 10)
    with pytest.raises(ModelNotFound):
        ask_seven(*b, song)


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


TWO = Recipe(
    model_inputs=[
        Picture(height=24, width=32),
        Features(columns=GTZAN_COLUMNS, scaling=Standard(mean=[1] * 58, scale=[2] * 58)),
    ],
    windows=Windows(length=1, hop=0.5),
)


def test_a_recipe_says_what_a_model_gets(two_input_model: Path, song: bytes) -> None:
    """Whatever the order of either; the answers to the windows become one."""
    pictures, features = TWO.inputs(song)
    assert len(pictures) == 3
    expected = models.load(two_input_model, "h5")([features, pictures]).mean(axis=0)
    for given in (TWO, dataclasses.replace(TWO, model_inputs=TWO.model_inputs[::-1])):
        assert [item["name"] for item in inspect(two_input_model, given)["inputs"]] == ["feat", "img"]
        np.testing.assert_allclose(ask(two_input_model, given, song), [expected], rtol=1e-6)


def test_a_client_s_csv_is_scaled_as_the_recipe_says(two_input_model: Path, song: bytes) -> None:
    """It is what the client measured; by name, whatever else is in it."""
    row = {"other": 9.0, **dict.fromkeys(reversed(GTZAN_COLUMNS), 1.0)}
    csv = f"{','.join(row)}\n{','.join(map(str, row.values()))}\n".encode()
    pictures, _ = TWO.inputs(song)
    expected = models.load(two_input_model, "h5")([np.zeros((3, 58)), pictures]).mean(axis=0)
    np.testing.assert_allclose(ask(two_input_model, TWO, song, csv), [expected], rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Picture(height=24, width=33), r"^recipe.inputs\[0\]: it makes \[24, 33, 1\], .* \[24, 32, 1\]"),
        (Picture(height=24, width=32), "^recipe.labels: there are 1, .* 3 numbers"),
    ],
)
def test_a_recipe_that_does_not_fit_is_refused_before_there_is_a_song(
    picture_model: Path, given: Picture, said: str
) -> None:
    """By its key, with what the model takes."""
    inspect(picture_model, Recipe(model_inputs=[Picture(height=24, width=32)], labels=list("abc")))
    with pytest.raises(Unprocessable, match=said):
        inspect(picture_model, Recipe(model_inputs=[given], labels=["a"]))
