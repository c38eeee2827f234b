"""What a worker does with a model's file, and what it keeps of it."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrogram_predictor import Features, Mel, Picture, Recipe, Standard, Windows, predictor
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import (
    ModelNotFound,
    OutOfService,
    StorageUnavailable,
    Unavailable,
    Unprocessable,
)
from spectrogram_predictor.golden import Golden
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.registration import Registration, Terms
from spectrogram_predictor.sound import spectra
from spectrogram_predictor.sound.columns import GTZAN_COLUMNS
from spectrogram_predictor.worker import engine, models, warmth
from tests.conftest import ask, build_model, csv_row, inspect, sha256, terms
from tests.live import is_first, wait_until


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that has loaded nothing yet."""
    monkeypatch.setattr(engine, "_models", {})
    monkeypatch.setattr(engine, "_withdrawn", {})


WINDOWS = Recipe(
    model_inputs=[Mel(n_mels=8, frames=4, channels=1)], windows=Windows(length=0.1, hop=0.02, combine="vote")
)


@pytest.fixture
def window_model(tmp_path: Path) -> Path:
    """A model of the windows of that recipe."""
    import keras

    keras.utils.set_random_seed(9)
    layers = keras.layers
    path = tmp_path / "windows.keras"
    keras.Sequential([layers.Input((8, 4, 1)), layers.Flatten(), layers.Dense(3, "softmax")]).save(path)
    return path


def test_a_song_s_windows_are_predicted_some_at_a_time(
    fresh: None, window_model: Path, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the song, the model's memory is that of so many; the answer is that of all."""
    (arrays,) = WINDOWS.inputs(song)
    assert len(arrays) > 60
    expected = WINDOWS.combine(models.load(window_model, "keras")([arrays]))
    sizes: list[int] = []
    call = models.Model.__call__
    monkeypatch.setattr(
        models.Model, "__call__", lambda self, inputs: sizes.append(len(inputs[0])) or call(self, inputs)
    )
    monkeypatch.setattr(engine, "MAX_BATCH", 20)
    answer = ask(window_model, WINDOWS, song)
    np.testing.assert_allclose(answer, expected, atol=1e-6)
    assert max(sizes) == 20
    assert sum(sizes) == 1 + len(arrays), "and once when it was loaded"


def test_windows_may_not_take_for_ever_either(
    fresh: None, window_model: Path, tmp_path: Path, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A golden of very many is given up in the middle."""
    monkeypatch.setattr(engine, "MAX_GOLDEN_S", 1.5)
    monkeypatch.setattr(engine, "MAX_BATCH", 1)
    calls: list[Any] = []
    call = models.Model.__call__

    def costly(*args: Any) -> Any:
        calls.append(args)
        ends_s = time.process_time() + 1.6
        while time.process_time() < ends_s:
            pass
        return call(*args)

    monkeypatch.setattr(models.Model, "__call__", costly)
    (tmp_path / "song").write_bytes(song)
    digest = sha256(window_model)
    registration = Registration(digest, recipe=WINDOWS, golden=(Golden(sha256(song), [0.0, 0.0, 1.0]),))
    with pytest.raises(Unprocessable, match=r"longer than 1\.5 s"):
        engine.inspect(
            window_model, digest, "keras", Terms(registration.to_json(), {sha256(song): tmp_path / "song"})
        )
    assert len(calls) == 2, "the first was on zeros, when it was loaded"


def test_a_file_that_cannot_be_read_says_nothing_of_a_model(tmp_path: Path) -> None:
    """It is tried again; one that is gone is not found."""
    with pytest.raises(StorageUnavailable, match="directory"):
        engine.inspect(tmp_path, "0" * 64, "h5", terms("0" * 64))
    with pytest.raises(ModelNotFound):
        engine.inspect(tmp_path / "none", "0" * 64, "h5", terms("0" * 64))


def ask_seven(path: Path, digest: str, song: bytes) -> list[Any]:
    return engine.predict(path, digest, "keras", terms(digest), song, csv_row([0.5] * 7))


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
        digest = sha256(tmp_path / name)
        one = (tmp_path / name, digest, name.partition(".")[2], terms(digest))
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


class Shelf:
    """A model with a song, its row of features, and what it answers."""

    def __init__(self, folder: Path, song: bytes) -> None:
        self.path = folder / "model.keras"
        build_model(["features"], features=7).save(self.path)
        self.digest = sha256(self.path)
        self.csv = csv_row([0.5] * 7)
        self.song = song
        self.files = {sha256(content): folder / sha256(content) for content in (song, self.csv)}
        for content in (song, self.csv):
            self.files[sha256(content)].write_bytes(content)
        self.answer = self.ask(self.terms())

    def golden(self, difference: float = 0.0, **fields: Any) -> Golden:
        expected = (np.array(self.answer[0]) + difference).tolist()
        return Golden(**{"song": sha256(self.song), "csv": sha256(self.csv), "expected": expected, **fields})

    def terms(self, *golden: Golden) -> Terms:
        return Terms(Registration(self.digest, golden=golden).to_json(), self.files)

    def ask(self, terms: Terms) -> list[Any]:
        return engine.predict(self.path, self.digest, "keras", terms, self.song, self.csv)

    def inspect(self, terms: Terms) -> dict[str, Any]:
        return engine.inspect(self.path, self.digest, "keras", terms)


@pytest.fixture
def shelf(fresh: None, tmp_path: Path, song: bytes) -> Shelf:
    return Shelf(tmp_path, song)


def test_a_model_is_tried_with_its_goldens(shelf: Shelf) -> None:
    """Each of them, and the first that does not match is named with the difference."""
    assert shelf.inspect(shelf.terms(shelf.golden(), shelf.golden(0.0005)))["outputs"][0]["shape"] == [10]
    with pytest.raises(Unprocessable, match=r"^golden 2: largest difference 0.12, tolerance 0.001 "):
        shelf.inspect(shelf.terms(shelf.golden(), shelf.golden(0.12)))
    shelf.inspect(shelf.terms(shelf.golden(0.12, tolerance=0.13)))


def test_a_golden_that_cannot_be_predicted_is_none(shelf: Shelf) -> None:
    """No features, or a song that is no sound."""
    with pytest.raises(Unprocessable, match=r"^golden 1: this model takes 7 features"):
        shelf.inspect(shelf.terms(shelf.golden(csv=None)))
    with pytest.raises(Unprocessable, match=r"^golden 1: "):
        shelf.inspect(shelf.terms(shelf.golden(song=sha256(shelf.csv))))


def test_goldens_may_not_take_for_ever(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """They delay every load: who registers hours of sound is told so."""
    monkeypatch.setattr(engine, "MAX_GOLDEN_S", 0.0)
    with pytest.raises(Unprocessable, match="longer than 0 s"):
        shelf.inspect(shelf.terms(shelf.golden()))
    assert shelf.ask(shelf.terms(shelf.golden())) == shelf.answer


def test_goldens_are_predicted_when_a_model_is_loaded_and_registered_anew(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once each time, and not with every question."""
    proved = []
    prove = engine._prove
    monkeypatch.setattr(engine, "_prove", lambda *args: proved.append(1) or prove(*args))
    for _ in range(2):
        shelf.ask(shelf.terms(shelf.golden()))
    assert len(proved) == 1
    shelf.ask(shelf.terms(shelf.golden(0.0005)))
    assert len(proved) == 2
    engine._models.clear()
    shelf.ask(shelf.terms(shelf.golden(0.0005)))
    assert len(proved) == 3


def test_a_mismatch_at_a_later_load_takes_the_model_out_of_service(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers nothing, and holds no memory, until it is registered anew and passes; the log says so once."""
    wrong = shelf.terms(shelf.golden(0.12))
    for _ in range(2):
        with pytest.raises(
            OutOfService, match=r"out of service in this worker: golden 1: largest difference 0.12"
        ):
            shelf.ask(wrong)
        assert shelf.digest not in engine._models
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert shelf.digest in record.getMessage()
    assert "golden 1" in record.getMessage()
    assert shelf.ask(shelf.terms(shelf.golden())) == shelf.answer
    with pytest.raises(OutOfService):
        shelf.ask(wrong)
    caplog.clear()


def test_a_golden_that_is_away_costs_no_model(shelf: Shelf) -> None:
    """Nothing is known of the answer: it is tried again, without loading the model again."""
    golden = shelf.terms(shelf.golden())
    path = shelf.files[sha256(shelf.song)]
    path.rename(path.with_suffix(".away"))
    for call in (shelf.ask, shelf.inspect):
        with pytest.raises(StorageUnavailable, match="No such file"):
            call(golden)
    path.write_bytes(b"damaged")
    with pytest.raises(StorageUnavailable, match="damaged"):
        shelf.ask(golden)
    path.with_suffix(".away").rename(path)
    shelf.path.unlink()
    assert shelf.ask(golden) == shelf.answer


@pytest.fixture
def window_terms(fresh: None, window_model: Path, tmp_path: Path, song: bytes) -> Terms:
    """Terms of the model of windows, with a golden that it answers."""
    (tmp_path / "song").write_bytes(song)
    expected = ask(window_model, WINDOWS, song)[0].tolist()
    engine._models.clear()
    registration = Registration(sha256(window_model), recipe=WINDOWS, golden=(Golden(sha256(song), expected),))
    return Terms(registration.to_json(), {sha256(song): tmp_path / "song"})


def test_goldens_may_not_take_for_ever_before_the_model_is_called(
    window_model: Path, window_terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time counts while their inputs are made."""
    monkeypatch.setattr(engine, "MAX_GOLDEN_S", 0.0)
    monkeypatch.setattr(warmth, "warm_model", lambda model: None)
    monkeypatch.setattr(models.Model, "__call__", None)
    with pytest.raises(Unprocessable, match=r"^golden 1: the goldens take longer than 0 s"):
        engine.inspect(window_model, sha256(window_model), "keras", window_terms)


def break_a_library(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let a function raise what it never raised before, as after an update of a library."""

    def mel(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(spectra, "mel", mel)


def test_a_golden_that_raises_takes_the_model_out_of_service(
    fresh: None,
    window_model: Path,
    window_terms: Terms,
    song: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As one that is answered otherwise; a trial fails in a way that may pass, with the reason."""
    wanted = (window_model, sha256(window_model), "keras", window_terms)
    with monkeypatch.context() as patch:
        break_a_library(patch, AttributeError("module 'numpy' has no attribute 'msort'"))
        with pytest.raises(Unavailable, match="golden 1 cannot be predicted: module 'numpy' has no attribute"):
            engine.inspect(*wanted)
        for _ in range(2):
            with pytest.raises(OutOfService, match="golden 1 cannot be predicted"):
                engine.predict(*wanted, song, None)
    assert [record.exc_info is not None for record in caplog.records] == [True, True, False]
    caplog.clear()
    with pytest.raises(OutOfService):
        engine.predict(*wanted, song, None)
    engine.inspect(*wanted)


def test_a_golden_for_which_there_is_no_memory_now_says_nothing_of_the_model(
    fresh: None, window_model: Path, window_terms: Terms, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is in service as soon as there is some."""
    wanted = (window_model, sha256(window_model), "keras", window_terms, song, None)
    with monkeypatch.context() as patch:
        break_a_library(patch, MemoryError())
        with pytest.raises(Unavailable, match="no memory") as refused:
            engine.predict(*wanted)
    assert not isinstance(refused.value, OutOfService)
    assert np.shape(engine.predict(*wanted)) == (1, 3)


def start_one_that_raises(threads: int, cached_models: int, memory_bytes: int) -> Callable[[], list[str]]:
    """Start a worker; in the first one to come, calling a model raises from then on."""
    held = engine.start(threads, cached_models, memory_bytes)
    if is_first():

        def raises(*args: Any) -> Any:
            raise AttributeError("it was there before")

        models.Model.__call__ = raises  # type: ignore[method-assign]
    return held


def start_one_off(threads: int, cached_models: int, memory_bytes: int) -> Callable[[], list[str]]:
    """Start a worker; the first one to come computes something else from then on."""
    held = engine.start(threads, cached_models, memory_bytes)
    if is_first():
        call = models.Model.__call__
        models.Model.__call__ = lambda *args: call(*args) + 0.1  # type: ignore[method-assign]
    return held


@pytest.mark.parametrize("start", [start_one_off, start_one_that_raises])
def test_one_worker_out_of_service_is_no_other_s_business(
    shelf: Shelf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    start: Callable[..., None],
) -> None:
    """The one whose model answers otherwise, or raises, never does, and the other one answers everything."""
    monkeypatch.setenv("PYTHONPATH", f"{Path(__file__).resolve().parents[1]}{os.pathsep}{tmp_path}")
    (tmp_path / "first").touch()
    readable = [shelf.path.parent, tmp_path]
    pool = WorkerPool(PredictionSettings(workers=2), f"tests.test_engine:{start.__name__}", readable)
    try:
        wait_until(lambda: len(pool.pids) == 2)
        question = (shelf.path, shelf.digest, "keras", shelf.terms(shelf.golden()), shelf.song, shelf.csv)
        futures = [pool.submit(predictor._predict, *question) for _ in range(40)]
        answers = [future.result(60) for future in futures]
    finally:
        pool.shutdown(cancel_futures=True)
    np.testing.assert_allclose(answers, [shelf.answer] * len(answers), atol=1e-6)
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert any("out of service" in message for message in errors)
    caplog.clear()


def upsampling(folder: Path, factor: int, dtype: str = "float32") -> Path:
    """Write a model of a few bytes that makes much of a small picture."""
    import keras

    layers = keras.layers
    path = folder / f"upsampling_{factor}.keras"
    keras.Sequential(
        [
            layers.Input((8, 4, 1)),
            layers.UpSampling2D(factor, dtype=dtype),
            layers.GlobalMaxPooling2D(dtype=dtype),
        ]
    ).save(path)
    return path


@pytest.fixture
def small_pool(tmp_path: Path) -> Iterator[WorkerPool]:
    """One real worker that has little memory."""
    settings = PredictionSettings(workers=1, timeout_s=60, memory_limit_bytes=700 * 2**20)
    pool = WorkerPool(settings, readable=[tmp_path])
    wait_until(lambda: pool.pids)
    yield pool
    pool.shutdown(cancel_futures=True)


def test_what_there_is_no_memory_for_is_told_so(small_pool: WorkerPool, tmp_path: Path, song: bytes) -> None:
    """Many windows of a model that can answer for one; the worker goes on, and it is no fault of the server."""
    path = upsampling(tmp_path, 500)
    digest, (pid,) = sha256(path), small_pool.pids
    of_windows = Terms(Registration(digest, recipe=WINDOWS).to_json())
    given = (path, digest, "keras", of_windows)
    assert small_pool.submit(predictor._inspect, *given).result(60)["format"] == "keras"
    with pytest.raises(Unavailable, match="no memory"):
        small_pool.submit(predictor._predict, *given, song, None).result(60)
    assert small_pool.pids == [pid]


def test_a_model_that_can_never_answer_is_found_out_when_it_is_tried(
    small_pool: WorkerPool, tmp_path: Path
) -> None:
    """Which counts against it, and so it is rejected before long; one that fails on zeros alone is not."""
    path = upsampling(tmp_path, 1400, "float64")
    given = (path, sha256(path), "keras", Terms(Registration(sha256(path), recipe=WINDOWS).to_json()))
    with pytest.raises(Unavailable, match="no memory") as refused:
        small_pool.submit(predictor._inspect, *given).result(60)
    assert not isinstance(refused.value, StorageUnavailable)
