"""What every handler shares: JSON as bytes, errors as JSON, bodies within bounds."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tornado.http1connection import HTTP1Connection
from tornado.web import HTTPError, MissingArgumentError, RequestHandler, stream_request_body

from spectrogram_predictor import errors
from spectrogram_predictor.config import Settings
from spectrogram_predictor.errors import (
    MethodNotAllowed,
    NotFound,
    NotSigned,
    QueueFull,
    SpectrogramPredictorError,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from spectrogram_predictor.handlers.policy import Access, Operation, Route
from spectrogram_predictor.predictor import Predictor
from spectrogram_predictor.promotion import Promoter
from spectrogram_predictor.rates import Rates
from spectrogram_predictor.registry import Registry
from spectrogram_predictor.signing import Keys
from spectrogram_predictor.storage import Backend
from spectrogram_predictor.tokens import Tokens
from spectrogram_predictor.uploads import Uploads

logger = logging.getLogger(__name__)

DRAIN_BYTES = 512 * 2**20
"""How much of a refused body is read and thrown away, so that the client gets to read the answer."""

NO_BODY_BYTES = 64 * 2**10
"""The largest body that a route which needs none puts up with."""

MAX_HELD_BODIES = 8
"""How many bodies of the largest size all requests together may hold in memory."""

_SMALL_BYTES = 64 * 2**10
_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass
class Services:
    """What handlers call; made once by the app.

    Attributes
    ----------
    draining : bool
        The server is going down: it finishes what it has and takes no more.
    held_bytes : int
        Of bodies that are kept in memory, over all requests.
    in_flight : set
        The handlers at work.
    threads : ThreadPoolExecutor
        For checking signatures and decoding bodies beside the event loop.
    """

    settings: Settings
    keys: Keys
    tokens: Tokens
    rates: Rates
    backend: Backend
    registry: Registry
    uploads: Uploads
    promoter: Promoter
    predictor: Predictor
    threads: ThreadPoolExecutor
    draining: bool = False
    held_bytes: int = 0
    in_flight: set["BaseHandler"] = field(default_factory=set)


@stream_request_body
class BaseHandler(RequestHandler):
    """JSON out, every error from the one tree, bodies read within bounds.

    A refused body is drained, up to `DRAIN_BYTES`, because a client that is still sending does not read. A body
    that stalls, or comes more slowly than it may, is cut.

    Attributes
    ----------
    size : int
        Bytes of the body so far.
    failure : SpectrogramPredictorError or None
        Why the request is refused.
    """

    def initialize(self, services: Services, route: Route) -> None:
        """Take what the handler works with."""
        self.services = services
        self.operation: Operation | None = route.operations.get(self.request.method or "")
        self.size = 0
        self.failure: SpectrogramPredictorError | None = None
        self._received: list[bytes | bytearray] = []
        self._held = 0
        self._refused_at = 0
        self._closing = False
        self._watchdog: asyncio.TimerHandle | None = None
        self._waited_s = 0.0
        self.services.in_flight.add(self)

    def set_default_headers(self) -> None:
        """Leave the server's make and version to itself, and browsers nothing to make of an answer."""
        self.set_header("Server", "spectrogram-predictor")
        for name, value in _SECURITY_HEADERS.items():
            self.set_header(name, value)

    @property
    def max_bytes(self) -> int:
        """The largest body that is accepted."""
        return NO_BODY_BYTES

    def prepare(self) -> Awaitable[None] | None:
        """Decide from the headers, before the body."""
        claim: Awaitable[None] | None = None
        length = self.request.headers.get("Content-Length", "0")
        self._length = int(length) if length.isdecimal() and len(length) < 19 else 0
        try:
            self.check_route()
            if self._length > self.max_bytes:
                raise self._too_large()
            claim = self.check_access()
            self.begin()
        except SpectrogramPredictorError as error:
            self.refuse(error)
        if claim:
            return self._claim(claim)
        self._expect_body()
        return None

    def check_route(self) -> None:
        """Refuse work while draining, more than the rates allow, and methods that are none of the route's."""
        if self.services.draining:
            self._closing = True
            raise Unavailable("the server is going down, try again")
        wait_s = self.services.rates.take(self.request.remote_ip or "")
        if wait_s:
            raise TooManyRequests("too many requests, slow down", retry_after_s=math.ceil(wait_s))
        if self.operation is None:
            raise MethodNotAllowed("the route does not take this method")

    def check_access(self) -> Awaitable[None] | None:
        """Accept a bearer token for this request, if the operation asks for one; return what is still to be asked.

        Raises
        ------
        NotSigned, BadSignature
            There is none, or it is no good.
        """
        if self.operation is None or self.operation.access is not Access.TOKEN:
            return None
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise NotSigned("this needs Authorization: Bearer <token>, made from SIGNING_TOKEN")
        nonce = self.services.tokens.check(token.strip(), self.request.method or "", self.request.path)
        return self.services.tokens.claim(nonce) if self.operation.once else None

    def begin(self) -> None:
        """Decide more from the headers; for handlers to override."""

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Take the next bytes; never raises: the client would get a dropped connection."""
        self._stop_waiting()
        self.size += len(chunk)
        if not self.failure and self.size > self.max_bytes:
            self.refuse(self._too_large())
        if not self.failure:
            working = self.receive(chunk)
            if working:
                return self._wait_after(working)
        elif self.size - self._refused_at > DRAIN_BYTES:
            self._answer_failure()
        self._wait()
        return None

    def receive(self, chunk: bytes) -> Awaitable[None] | None:
        """Keep the next bytes; for handlers that stream to override."""
        if self.services.held_bytes > MAX_HELD_BODIES * self.services.settings.server.max_body_bytes:
            self.refuse(QueueFull("too much is being received at the same time, try again later"))
            return None
        self._hold(len(chunk))
        if len(chunk) >= _SMALL_BYTES:
            self._received.append(chunk)
        elif self._received and isinstance(last := self._received[-1], bytearray):
            last += chunk
        else:
            # A list of single bytes takes eighty times their size.
            self._received.append(bytearray(chunk))
        return None

    def take_body(self) -> bytes:
        """Return the whole body, once; raise what it was refused for, if it was."""
        self._stop_waiting()
        if self.failure:
            raise self.failure
        body = b"".join(self._received)
        self._received.clear()
        return body

    def refuse(self, error: SpectrogramPredictorError) -> None:
        """Answer with an error: at once if that keeps nobody from reading it, or else after draining."""
        self.failure = error
        self._let_go()
        self._refused_at = self.size
        # Once the body is through, Tornado calls the method: that is the answer then.
        setattr(self, (self.request.method or "").lower(), self._raise_failure)
        waits = self.request.headers.get("Expect", "").lower() == "100-continue" and not self.size
        if waits or self._length - self.size > DRAIN_BYTES:
            self._answer_failure()

    def answer(self, value: object) -> None:
        """Finish with compact JSON: scripts compare the bytes."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(dumps(value))

    async def in_thread(self, function: Any, *args: Any) -> Any:
        """Run CPU work beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.services.threads, function, *args)

    def on_finish(self) -> None:
        """Count down."""
        self._stop_waiting()
        self._let_go()
        self.services.in_flight.discard(self)

    def on_connection_close(self) -> None:
        """Count down: the client has gone."""
        BaseHandler.on_finish(self)
        # Without it Tornado waits for the rest of the body for ever, and keeps what came.
        super().on_connection_close()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer ``{"msg", "code"}``; what is not in our tree is an opaque 500."""
        error = _known(kwargs.get("exc_info", (None, None, None))[1], status_code)
        self.set_status(error.status)
        if error.retry_after_s is not None:
            self.set_header("Retry-After", str(error.retry_after_s))
        if self._closing:
            self.set_header("Connection", "close")
        if error.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        self.answer({"msg": error.message, "code": error.code})

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log a traceback for bugs only."""
        if isinstance(value, SpectrogramPredictorError | HTTPError):
            logger.debug("%s %s: %s", self.request.method, self.request.path, value)
        else:
            logger.error("a request failed", exc_info=(typ, value, tb))

    def compute_etag(self) -> None:
        """Send none: answers are small and not to be cached."""

    async def _claim(self, claim: Awaitable[None]) -> None:
        try:
            await claim
        except SpectrogramPredictorError as error:
            self.refuse(error)
        self._expect_body()

    def _expect_body(self) -> None:
        if self._length or "Transfer-Encoding" in self.request.headers:
            self._wait()

    def _hold(self, count: int) -> None:
        self._held += count
        self.services.held_bytes += count

    def _let_go(self) -> None:
        self._received.clear()
        self._hold(-self._held)

    def _wait(self) -> None:
        """Cut the connection if nothing comes for long, or too little."""
        if self._finished:
            return
        loop = asyncio.get_running_loop()
        self._waiting_since = loop.time()
        stall_s = self.services.settings.uploads.stall_timeout_s
        self._watchdog = loop.call_later(stall_s, self._cut, f"nothing came for {stall_s:g} s")

    async def _wait_after(self, working: Awaitable[None]) -> None:
        await working
        self._wait()

    def _stop_waiting(self) -> None:
        if self._watchdog is None:
            return
        self._watchdog.cancel()
        self._watchdog = None
        # Only time spent waiting for the client counts, not our own disk's.
        self._waited_s += asyncio.get_running_loop().time() - self._waiting_since
        limits = self.services.settings.uploads
        if self._waited_s > limits.stall_timeout_s and self.size < limits.min_bytes_per_s * self._waited_s:
            self._cut("it came too slowly")

    def _cut(self, why: str) -> None:
        logger.info("cutting %s after %d bytes: %s", self.request.path, self.size, why)
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        connection.close()

    async def _raise_failure(self, *_: Any) -> None:
        self._stop_waiting()
        assert self.failure
        raise self.failure

    def _answer_failure(self) -> None:
        """Answer in the middle of the body; Tornado then closes the connection."""
        if self.failure and not self._finished:
            self._closing = True
            self.send_error(self.failure.status, exc_info=(type(self.failure), self.failure, None))

    def _too_large(self) -> TooLarge:
        return TooLarge(f"the body is larger than {self.max_bytes} bytes")


class SignedBodyHandler(BaseHandler):
    """A handler of signed JSON."""

    @property
    def max_bytes(self) -> int:
        """The largest body that is accepted."""
        return self.services.settings.server.max_body_bytes


class NotFoundHandler(BaseHandler):
    """Every path that is no route."""

    def check_route(self) -> None:
        """Answer 404 to every method."""
        raise NotFound("there is no such route")


def dumps(value: object) -> bytes:
    """Encode as compact JSON."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _known(error: BaseException | None, status: int) -> SpectrogramPredictorError:
    if isinstance(error, SpectrogramPredictorError):
        return error
    if isinstance(error, MissingArgumentError) or status == 400:
        return errors.BadRequest("the request cannot be read")
    if status == 404:
        return NotFound("there is no such route")
    if status == 405:
        return MethodNotAllowed("the route does not take this method")
    return SpectrogramPredictorError("internal error")
