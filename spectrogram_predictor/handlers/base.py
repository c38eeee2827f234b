"""What every handler shares: JSON as bytes, errors as JSON, bodies within bounds."""

import asyncio
import json
import logging
import math
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

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
from spectrogram_predictor.handlers.watchdog import Watchdog
from spectrogram_predictor.limits import Rates
from spectrogram_predictor.predictor import Predictor
from spectrogram_predictor.promotion import Promoter
from spectrogram_predictor.registry import Registry
from spectrogram_predictor.signing import Keys
from spectrogram_predictor.storage import Backend
from spectrogram_predictor.tokens import Tokens
from spectrogram_predictor.uploads import Uploads

logger = logging.getLogger(__name__)

DRAIN_BYTES = 512 * 2**20
"""How much of a refused body is read and thrown away, so that the client gets to read the answer."""

DRAIN_S = 30.0
"""For how long."""

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

    A body is refused as soon as that is known: at once if the client waits with it (``Expect: 100-continue``).
    Otherwise the answer goes out while the rest of the body is drained, for `DRAIN_BYTES` and `DRAIN_S` at most:
    some clients do not read while they send. A body that stalls, or comes more slowly than it may, is cut.

    Attributes
    ----------
    size : int
        Bytes of the body so far.
    failure : SpectrogramPredictorError or None
        Why the request is refused.
    """

    drain_bytes: ClassVar[int] = DRAIN_BYTES

    def initialize(self, services: Services, route: Route) -> None:
        """Take what the handler works with."""
        self.services = services
        self.operation: Operation | None = route.operations.get(self.request.method or "")
        self._allowed = ", ".join(route.operations)
        self.size = 0
        self.failure: SpectrogramPredictorError | None = None
        self._received: list[bytes | bytearray] = []
        self._held = 0
        self._refused_at = 0
        self._refused_s = 0.0
        self._closing = False
        self._watchdog = Watchdog(services.settings.uploads, self._cut)
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

    @property
    def essence(self) -> str:
        """What two requests must have in common to be the same one, sent again."""
        return f"{self.request.method} {self.request.path}"

    async def prepare(self) -> None:
        """Decide from the headers, before the body."""
        length = self.request.headers.get("Content-Length", "0")
        self.length = int(length) if length.isdecimal() and len(length) < 19 else 0
        self._waits = self.request.headers.get("Expect", "").lower() == "100-continue"
        if self._waits:
            # Tornado knows it in lower case only; it asks for the body once this is done.
            self.request.headers["Expect"] = "100-continue"
        try:
            self.check_route()
            if self.length > self.max_bytes:
                raise self._too_large()
            await self.check_access()
            await self.begin()
        except SpectrogramPredictorError as error:
            self.refuse(error)
        if not self._finished and (self.length or "Transfer-Encoding" in self.request.headers):
            self._watchdog.wait()

    def check_route(self) -> None:
        """Refuse work while draining, and methods that are none of the route's."""
        self.check_rate()
        if self.operation is None:
            raise MethodNotAllowed("the route does not take this method")

    def check_rate(self) -> None:
        """Refuse work while draining, and more than the rates allow."""
        if self.services.draining:
            self._closing = True
            raise Unavailable("the server is going down, try again")
        wait_s = self.services.rates.take(self.request.remote_ip or "")
        if wait_s:
            raise TooManyRequests("too many requests, slow down", retry_after_s=math.ceil(wait_s))

    async def check_access(self) -> None:
        """Accept a bearer token for this request, if the operation asks for one.

        Raises
        ------
        NotSigned, BadSignature
            There is none, or it is no good.
        """
        if self.operation is None or self.operation.access is not Access.TOKEN:
            return
        scheme, _, token = self.request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise NotSigned("this needs Authorization: Bearer <token>, made from SIGNING_TOKEN")
        once = self.operation.once
        method = self.request.method or ""
        self.nonce = self.services.tokens.check(token.strip(), method, self.request.path, again=once)
        if once:
            self.spent = await self.services.tokens.claim(self.nonce, self.essence)

    async def begin(self) -> None:
        """Decide more from the headers; for handlers to override."""

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Take the next bytes; never raises: the client would get a dropped connection."""
        self._watchdog.arrived(len(chunk))
        self.size += len(chunk)
        if not self.failure and self.size > self.max_bytes:
            self.refuse(self._too_large())
        if not self.failure:
            working = self.receive(chunk)
            if working:
                return self._wait_after(working)
        elif self._drained:
            self._end_refusal()
            return None
        self._watchdog.wait()
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
        self._watchdog.stop()
        if self.failure:
            raise self.failure
        body = b"".join(self._received)
        self._received.clear()
        return body

    def refuse(self, error: SpectrogramPredictorError) -> None:
        """Answer with an error: at once, or after the little that is still to come; only the first counts."""
        if self.failure:
            return
        self.failure = error
        self._let_go()
        self._refused_at, self._refused_s = self.size, asyncio.get_running_loop().time()
        # Once the body is through, Tornado calls the method: that is the end then.
        setattr(self, (self.request.method or "").lower(), self._raise_failure)
        if self._waits and not self.size:
            self._end_refusal()
        elif self.length - self.size > NO_BODY_BYTES or "Transfer-Encoding" in self.request.headers:
            self._answer_early()

    def answer(self, value: object) -> None:
        """Finish with compact JSON: scripts compare the bytes."""
        self.answer_json(dumps(value))

    def answer_json(self, encoded: bytes) -> None:
        """Finish with what is JSON already."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(encoded)

    async def in_thread(self, function: Any, *args: Any) -> Any:
        """Run CPU work beside the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.services.threads, function, *args)

    def on_finish(self) -> None:
        """Count down."""
        self._watchdog.stop()
        self._let_go()
        self.services.in_flight.discard(self)

    def on_connection_close(self) -> None:
        """Count down: the client has gone."""
        BaseHandler.on_finish(self)
        # Without it Tornado waits for the rest of the body for ever, and keeps what came.
        super().on_connection_close()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer ``{"msg", "code"}``; what is not in our tree is an opaque 500."""
        if self.request.method not in self.SUPPORTED_METHODS:
            # Tornado does not wait for the end of such a request, and closes the connection.
            self._closing = True
        self.finish(self._said(_known(kwargs.get("exc_info", (None, None, None))[1], status_code)))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log a traceback for bugs only."""
        if isinstance(value, SpectrogramPredictorError | HTTPError):
            logger.debug("%s %s: %s", self.request.method, self.request.path, value)
        else:
            logger.error("a request failed", exc_info=(typ, value, tb))

    def compute_etag(self) -> None:
        """Send none: answers are small and not to be cached."""

    def _hold(self, count: int) -> None:
        self._held += count
        self.services.held_bytes += count

    def _let_go(self) -> None:
        self._received.clear()
        self._hold(-self._held)

    async def _wait_after(self, working: Awaitable[None]) -> None:
        await working
        if not self._finished:
            self._watchdog.wait()

    def _cut(self, why: str) -> None:
        logger.info("cutting %s after %d bytes: %s", self.request.path, self.size, why)
        self._close()

    def _close(self) -> None:
        connection = self.request.connection
        assert isinstance(connection, HTTP1Connection)
        connection.close()

    async def _raise_failure(self, *_: Any) -> None:
        self._watchdog.stop()
        assert self.failure
        if not self._headers_written:
            raise self.failure
        self.finish()
        self._close()

    @property
    def _drained(self) -> bool:
        seconds = asyncio.get_running_loop().time() - self._refused_s
        return self.size - self._refused_at > self.drain_bytes or seconds > DRAIN_S

    def _answer_early(self) -> None:
        """Let the client read the answer while it sends; the connection is of no use afterwards."""
        assert self.failure
        self._closing = True
        self.clear()
        body = self._said(self.failure)
        self.set_header("Content-Length", len(body))
        self.write(body)
        self.flush()

    def _end_refusal(self) -> None:
        """Answer, if that is not done yet, and let Tornado close the connection."""
        assert self.failure
        self._closing = True
        if self._headers_written:
            self.finish()
        else:
            self.send_error(self.failure.status, exc_info=(type(self.failure), self.failure, None))

    def _said(self, error: SpectrogramPredictorError) -> bytes:
        """Set what the headers say of an error; return the body."""
        self.set_status(error.status)
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        if error.retry_after_s is not None:
            self.set_header("Retry-After", str(error.retry_after_s))
        if self._closing:
            self.set_header("Connection", "close")
        if error.status == 405:
            self.set_header("Allow", self._allowed)
        if error.status == 401:
            self.set_header("WWW-Authenticate", "Bearer")
        # To a POST that stands for a HEAD, as tus has them, a body would be no body either.
        return dumps({"msg": error.message, "code": error.code}) if self.request.method != "HEAD" else b""

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
        """Answer 404 to every method, as often as the rates allow."""
        self.check_rate()
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
