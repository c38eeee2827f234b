"""The applications in this process, without TLS: what a handler does with what it is given."""

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import itsdangerous
import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.ioloop import IOLoop
from tornado.web import Application

from backends.local import LocalBackend
from spectrogram_predictor.app import make_api_app
from spectrogram_predictor.config import PredictionSettings, Settings
from spectrogram_predictor.handlers.base import Services
from spectrogram_predictor.limits import Rates
from spectrogram_predictor.predictor import Predictor
from spectrogram_predictor.promotion import Promoter
from spectrogram_predictor.registry import Registry
from spectrogram_predictor.signing import Keys
from spectrogram_predictor.tokens import Tokens
from spectrogram_predictor.uploads import Uploads
from tests.live import wait_until

KEYS = Keys("a token for the tests")
DIGEST = "a" * 64


class Stuck(Executor):
    """An executor that never answers."""

    asked = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.asked += 1
        return Future()


@pytest.fixture
def stuck() -> Stuck:
    return Stuck()


@pytest.fixture
def services(io_loop: IOLoop, tmp_path: Path, stuck: Stuck) -> Iterator[Services]:
    settings = Settings(prediction=PredictionSettings(queue=1, timeout_s=0.5))
    backend = LocalBackend(str(tmp_path), {})
    io_loop.run_sync(backend.open)
    registry = Registry(backend)
    uploads = Uploads(backend, settings.uploads)
    predictor = Predictor(backend, registry, stuck, settings.prediction)
    promoter = Promoter(backend, registry, uploads, predictor.inspect, settings.promotion)
    with ThreadPoolExecutor(1) as threads:
        tokens, rates = Tokens(KEYS, backend), Rates(0, 0)
        yield Services(settings, KEYS, tokens, rates, backend, registry, uploads, promoter, predictor, threads)
    uploads.close()
    io_loop.run_sync(backend.close)


@pytest.fixture
def app(services: Services) -> Application:
    return make_api_app(services)


def question() -> str:
    return itsdangerous.Serializer(KEYS.current).dumps({"model_hash": DIGEST, "ext": "wav", "data": ""})


@pytest.mark.gen_test
async def test_a_full_queue_sheds_and_a_deadline_is_kept(
    http_client: AsyncHTTPClient, base_url: str, services: Services
) -> None:
    """One waits until its deadline: 503. The next finds the queue full: 429 with Retry-After."""
    await services.backend.put(f"models/{DIGEST}.h5", b"")
    first = http_client.fetch(f"{base_url}/prediction", method="POST", body=question(), raise_error=False)
    second = http_client.fetch(f"{base_url}/prediction", method="POST", body=question(), raise_error=False)
    answers = sorted([await first, await second], key=lambda answer: answer.code)
    assert [answer.code for answer in answers] == [429, 503]
    assert answers[0].headers["Retry-After"] == "1"
    assert b'"queue_full"' in answers[0].body
    assert b'"deadline_exceeded"' in answers[1].body


@pytest.mark.gen_test
async def test_who_leaves_while_a_body_is_verified_is_not_asked_for(
    http_server: Any, http_port: int, services: Services, stuck: Stuck
) -> None:
    """It takes no place in the queue, nor a worker's time."""
    await services.backend.put(f"models/{DIGEST}.h5", b"")
    song = base64.b64encode(bytes(2**21)).decode()
    body = itsdangerous.Serializer(KEYS.current).dumps({"model_hash": DIGEST, "ext": "wav", "data": song})
    verified = threading.Event()
    services.threads.submit(verified.wait, 30)
    _, writer = await asyncio.open_connection("localhost", http_port)
    writer.write(f"POST /prediction HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    await asyncio.to_thread(wait_until, services.threads._work_queue.qsize)
    writer.close()
    await asyncio.to_thread(wait_until, lambda: not services.in_flight)
    verified.set()
    await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=10)
    assert stuck.asked == 0


@pytest.mark.gen_test
async def test_a_draining_server_takes_no_more(
    http_client: AsyncHTTPClient, base_url: str, services: Services
) -> None:
    """503 for work, 200 for /livez, and nothing is counted as under way afterwards."""
    services.draining = True
    for path, status in (("/test", 503), ("/readyz", 503), ("/livez", 200)):
        answer = await http_client.fetch(base_url + path, raise_error=False)
        assert answer.code == status
    assert services.in_flight == set()


@pytest.mark.gen_test
async def test_a_bug_is_an_opaque_500(
    http_client: AsyncHTTPClient, base_url: str, services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    """The traceback goes to the log, not to the client."""
    services.promoter = None  # type: ignore[assignment]
    answer = await http_client.fetch(f"{base_url}/hashmodels", raise_error=False)
    assert (answer.code, answer.body) == (500, b'{"msg":"internal error","code":"internal"}')
    assert "AttributeError" in caplog.text
    caplog.clear()


@pytest.mark.gen_test
async def test_a_registration_is_kept_once(
    http_client: AsyncHTTPClient, base_url: str, services: Services, tmp_path: Path
) -> None:
    """Twice the same request, one object, the same answer."""
    body = itsdangerous.Serializer(KEYS.current).dumps({"hash": DIGEST.upper()})
    for _ in range(2):
        answer = await http_client.fetch(f"{base_url}/registermodelhash", method="POST", body=body)
        assert answer.body == b'{"msg":"model hash stored"}'
    assert [path.name for path in (tmp_path / "registered").iterdir()] == [f"{DIGEST}.json"]
