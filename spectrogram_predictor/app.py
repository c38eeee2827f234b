"""The server: settings to services to two TLS ports, and an orderly end."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tornado.ioloop import PeriodicCallback
from tornado.web import Application

from spectrogram_predictor import memory, predictor
from spectrogram_predictor.certificates import ServerCertificate
from spectrogram_predictor.config import Settings
from spectrogram_predictor.errors import SpectrogramPredictorError
from spectrogram_predictor.handlers import routes
from spectrogram_predictor.handlers.base import Services
from spectrogram_predictor.limits import Rates
from spectrogram_predictor.listener import Listener
from spectrogram_predictor.predictor import Predictor
from spectrogram_predictor.promotion import Promoter
from spectrogram_predictor.registry import Registry
from spectrogram_predictor.signing import SHORT_TOKEN, Keys
from spectrogram_predictor.storage import get_backend
from spectrogram_predictor.tokens import Tokens
from spectrogram_predictor.uploads import Uploads
from spectrogram_predictor.worker import kernel

logger = logging.getLogger(__name__)

CERTIFICATE_CHECK_S = 5.0

GIVE_BACK_S = 2.0
"""How often memory that is not needed any more is given back; it takes some milliseconds."""

_THREADS = 4
_POLL_S = 0.05
_CLEAN_UP_S = 5.0


def make_api_app(services: Services) -> Application:
    """Return what the API port serves."""
    return routes.make_app(routes.API, services)


def make_upload_app(services: Services) -> Application:
    """Return what the upload port serves."""
    return routes.make_app(routes.UPLOAD, services)


class Server:
    """One server, from `start` to `stop`.

    Parameters
    ----------
    settings : Settings
        All of them.
    keys : Keys
        The secrets.

    Attributes
    ----------
    api_port, upload_port : int
        Where it listens, once started.
    """

    def __init__(self, settings: Settings, keys: Keys) -> None:
        self._settings = settings
        self._keys = keys
        self._stack: list[Callable[[], Awaitable[None] | None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open the storage, begin the workers, listen.

        Raises
        ------
        ConfigError
            Something keeps it from starting; nothing is left running.
        """
        try:
            await self._start()
        except BaseException:
            await self._undo()
            raise

    async def _start(self) -> None:
        settings = self._settings
        if len(self._keys.current) < SHORT_TOKEN:
            logger.warning("SIGNING_TOKEN has fewer than %d characters: it can be guessed", SHORT_TOKEN)
        certificate = ServerCertificate(Path(settings.server.certs))
        self._backend = get_backend(settings.storage.backend, settings.storage.url, settings.storage.options)
        await self._backend.open()
        registry = Registry(self._backend)
        uploads = Uploads(self._backend, settings.uploads)
        self._stack.append(uploads.close)
        threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="request")
        self._stack.append(threads.shutdown)
        executor = predictor.get_executor(settings.prediction, self._backend.local_folders)
        self._stack.append(lambda: predictor.close_executor(executor))
        asker = Predictor(self._backend, registry, executor, settings.prediction)

        def promoted(digest: str) -> None:
            self._beside(asker.expect(digest))

        promoter = Promoter(self._backend, registry, uploads, asker.inspect, settings.promotion, promoted)
        self.services = Services(
            settings,
            self._keys,
            Tokens(self._keys, self._backend),
            Rates(settings.server.requests_per_s, settings.server.client_requests_per_s),
            self._backend,
            registry,
            uploads,
            promoter,
            asker,
            threads,
        )
        self._listeners = [
            self._listen(make_api_app(self.services), certificate, settings.server.api_port),
            self._listen(make_upload_app(self.services), certificate, settings.server.upload_port),
        ]
        self.api_port, self.upload_port = (listener.port for listener in self._listeners)
        self._every(settings.promotion.interval_s, self._sweep)
        self._every(CERTIFICATE_CHECK_S, certificate.refresh)
        memory.settle()
        self._every(GIVE_BACK_S, memory.give_back)
        self._beside(asker.expect_latest())
        for listener in self._listeners:
            listener.start()

    async def stop(self) -> None:
        """Take no more requests, finish those under way, end the workers."""
        self.services.draining = True
        for listener in self._listeners:
            listener.stop()
        if not await self._drained(self._settings.server.drain_timeout_s):
            logger.warning("ending with %d requests under way", len(self.services.in_flight))
        for listener in self._listeners:
            await listener.close()
        # What they had begun to store is removed.
        await self._drained(_CLEAN_UP_S)
        await self.services.promoter.close()
        for task in self._tasks:
            task.cancel()
        await self._undo()
        await self._backend.close()

    async def _drained(self, timeout_s: float) -> bool:
        """Wait until no request is under way."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self.services.in_flight and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)
        return not self.services.in_flight

    def _listen(self, app: Application, certificate: ServerCertificate, port: int) -> Listener:
        listener = Listener(app, certificate, self._settings.server, port)
        self._stack.append(listener.stop)
        return listener

    def _every(self, interval_s: float, function: Callable[[], Awaitable[None] | None]) -> None:
        callback = PeriodicCallback(function, 1000 * interval_s)
        callback.start()
        self._stack.append(callback.stop)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        try:
            await self.services.promoter.sweep()
        except SpectrogramPredictorError as error:
            logger.warning("the sweep failed and will be tried again: %s", error)

    async def _undo(self) -> None:
        while self._stack:
            if ending := self._stack.pop()():
                await ending


async def serve(settings: Settings, keys: Keys, announce: Callable[[Server], None]) -> None:
    """Run a server until SIGTERM or SIGINT.

    Parameters
    ----------
    settings, keys
        As for `Server`.
    announce : callable
        Called with the server once it listens.
    """
    # It has the secrets; where a worker's box is not whole, this is what keeps them.
    kernel.forbid_tracing()
    memory.share_arena()
    server = Server(settings, keys)
    await server.start()
    announce(server)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    await ended.wait()
    logger.info("draining")
    await server.stop()
    logger.info("stopped")
