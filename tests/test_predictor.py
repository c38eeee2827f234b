"""What the server waits for when it asks a worker."""

import asyncio
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from backends.local import LocalBackend
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import DeadlineExceeded, TooSlow, WorkerLost
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.predictor import Predictor
from spectrogram_predictor.registration import Registration
from spectrogram_predictor.registry import Registry
from tests.conftest import sha256
from tests.live import wait_until

SETTINGS = PredictionSettings(workers=1, timeout_s=4.0)


@pytest.fixture
def backend(io_loop: IOLoop, tmp_path: Path) -> Iterator[LocalBackend]:
    backend = LocalBackend(str(tmp_path), {})
    io_loop.run_sync(backend.open)
    yield backend
    io_loop.run_sync(backend.close)


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(SETTINGS)
    pool.submit(time.sleep, 0).result(120)
    yield pool
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def content(picture_model: Path) -> bytes:
    """A model's file."""
    return picture_model.read_bytes()


@pytest.mark.gen_test(timeout=120)
async def test_a_trial_is_as_long_as_it_takes_itself(
    backend: LocalBackend, pool: WorkerPool, content: bytes, song: bytes
) -> None:
    """Time in the queue behind others says nothing of a model; a prediction that waits so long is answered 503."""
    digest = sha256(content)
    for key in ("temp/model", f"models/{digest}.keras"):
        await backend.put(key, content)
    asker = Predictor(backend, Registry(backend), pool, SETTINGS)
    before = [pool.submit(time.sleep, 3.0) for _ in range(2)]
    asked = asyncio.create_task(asker.predict(digest, song, None))
    described = await asker.inspect("temp/model", Registration(digest), "keras")
    assert described["outputs"][0]["shape"] == [3]
    assert all(future.done() for future in before)
    with pytest.raises(DeadlineExceeded) as late:
        await asked
    assert not isinstance(late.value, TooSlow)


@pytest.mark.gen_test(timeout=120)
async def test_a_trial_takes_no_place_of_predictions(
    backend: LocalBackend, pool: WorkerPool, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do its minutes say when there will be room."""
    await backend.put("temp/model", content)
    asker = Predictor(backend, Registry(backend), pool, PredictionSettings(queue=1))
    submit, submitted = pool.submit_about, asyncio.Event()

    def seen(*args: Any, **fields: Any) -> Future[Any]:
        submitted.set()
        return submit(*args, **fields)

    monkeypatch.setattr(pool, "submit_about", seen)
    trial = asyncio.create_task(asker.inspect("temp/model", Registration(sha256(content)), "keras"))
    await submitted.wait()
    asker.check_room()
    assert not trial.done()
    await trial
    assert asker._interval_s == 0


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerPool]:
    """A pool whose worker has been taken over."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    pool = WorkerPool(SETTINGS, "tests.unruly:start")
    yield pool
    pool.shutdown(cancel_futures=True)


@pytest.mark.gen_test(timeout=120)
async def test_a_worker_that_answers_for_no_such_model_is_ended(
    backend: LocalBackend, taken: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    """Nulls, texts and objects, and numbers that are not as many as the model gives: 503, and another worker."""
    digest = sha256(b"a model")
    output = {"name": "y", "shape": [3], "dtype": "float32"}
    described = {"format": "keras", "inputs": [output], "outputs": [output]}
    await backend.put(f"inspected/{digest}.json", json.dumps(described).encode())
    await backend.put(f"models/{digest}.keras", b"a model")
    asker = Predictor(backend, Registry(backend), taken, SETTINGS)
    # It may still be starting.
    taken.submit(os.getpid).result(60)
    for song in (b"null", b'"x"', b"{}", b'[["x"]]', b"[]", b"[true]", b"[[1.0, 2.0]]", b"[[1.0], [2.0]]"):
        (pid,) = taken.pids
        with pytest.raises(WorkerLost) as lost:
            await asker.predict(digest, song, None)
        assert lost.value.status == 503
        await asyncio.to_thread(wait_until, lambda former=pid: taken.pids not in ([], [former]))
        assert (await asker.predict(digest, b"[[1.0, 2.0, 3.0]]", None)).array == [[1.0, 2.0, 3.0]]
    assert caplog.text.count("a worker has answered nonsense, and is ended") == 8
    caplog.clear()
