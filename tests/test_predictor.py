"""What the server waits for when it asks a worker."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from backends.local import LocalBackend
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import DeadlineExceeded, TooSlow
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.predictor import Predictor
from spectrogram_predictor.registration import Registration
from spectrogram_predictor.registry import Registry
from tests.conftest import sha256

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
