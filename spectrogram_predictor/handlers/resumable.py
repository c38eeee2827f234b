"""Uploads that can be gone on with: tus 1.0.0 (https://tus.io/protocols/resumable-upload).

To begin one takes the bearer token. Its URL has a random id of 128 bits, is told to nobody but who began it, and
lets do no more than send what was registered: that is all that going on takes. So any client can, for hours after
the token has expired.
"""

import asyncio
import contextlib
import logging
from email.utils import formatdate
from typing import Any

from tornado.web import RequestHandler

from spectrogram_predictor.errors import (
    BadRequest,
    NotRegistered,
    SpectrogramPredictorError,
    Superseded,
    TooLarge,
    UnsupportedMedia,
    UnsupportedVersion,
    UploadGone,
)
from spectrogram_predictor.handlers.base import BaseHandler, Services
from spectrogram_predictor.handlers.checksum import CHECKSUMS, Checksum, decoded
from spectrogram_predictor.handlers.models import parse
from spectrogram_predictor.handlers.policy import Route
from spectrogram_predictor.partials import Append
from spectrogram_predictor.progress import Info
from spectrogram_predictor.registration import parse_sha256

logger = logging.getLogger(__name__)

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,expiration,checksum,termination"
MEDIA_TYPE = "application/offset+octet-stream"
MAX_METADATA_BYTES = 48 * 2**10

PROMOTION_PATIENCE_S = 60.0
"""How long the request with the last byte waits for the model to be promoted."""

_CAN_BE_SENT = ("GET", "POST")
_NOT_TAKEN = ("Upload-Defer-Length", "Upload-Concat")


class TusHandler(BaseHandler):
    """What both routes share: versions, and a body that is appended to an upload."""

    # A client that is cut asks how far it is; what it goes on to send of a refused body, it has to send again.
    drain_bytes = 2**20

    def initialize(self, services: Services, route: Route) -> None:
        """Take what the handler works with."""
        # For clients that can send nothing else.
        if self.request.method in _CAN_BE_SENT:
            self.request.method = self.request.headers.get("X-HTTP-Method-Override", self.request.method)
        super().initialize(services, route)
        self._partials = services.uploads.partials
        self._append: Append | None = None
        # Not when it gets to the upload: what it takes to begin one may take the older of two longer.
        self._arrived = asyncio.get_running_loop().time()
        self._slot = contextlib.ExitStack()
        self._checksum: Checksum | None = None
        self._cleaning: asyncio.Task[None] | None = None

    def set_default_headers(self) -> None:
        """Say the version in every answer."""
        super().set_default_headers()
        self.set_header("Tus-Resumable", VERSION)
        self.set_header("Tus-Version", VERSION)

    @property
    def max_bytes(self) -> int:
        """The largest body that is accepted."""
        sends = self.request.method in ("POST", "PATCH")
        return self.services.uploads.settings.max_bytes if sends else super().max_bytes

    async def begin(self) -> None:
        """Check the version.

        Raises
        ------
        UnsupportedVersion
            It is another one.
        """
        version = self.request.headers.get("Tus-Resumable")
        if self.request.method != "OPTIONS" and version != VERSION:
            raise UnsupportedVersion(f"send Tus-Resumable: {VERSION}")

    def admit(self) -> None:
        """Take a place for the bytes that are coming.

        Raises
        ------
        QueueFull
            Too many uploads at the same time.
        BadRequest
            The checksum is of an algorithm that is not supported, or not base64.
        """
        self._slot.enter_context(self.services.uploads.slot(self.request.remote_ip or ""))
        self._checksum = Checksum.parse(self.request.headers.get("Upload-Checksum"))

    async def open_body(self, upload_id: str, offset: int, *, again: bool = False) -> None:
        """Be ready for the bytes of an upload from an offset on.

        Raises
        ------
        UploadGone, OffsetMismatch, UploadLocked
            See `spectrogram_predictor.partials.Partials.append`.
        TooLarge
            More is coming than was said.
        """
        self._append = await self._partials.append(
            upload_id, offset, self._superseded, again=again, arrived=self._arrived
        )
        self.check_end(offset, self._append.info.length)

    def check_end(self, offset: int, length: int) -> None:
        """Refuse more than was said."""
        if offset + self.length > length:
            raise TooLarge(f"the upload has {length} bytes, and more are coming")

    async def receive(self, chunk: bytes) -> None:
        """Hand these bytes on; hashing and writing them goes on while the next ones arrive."""
        try:
            if self._checksum:
                await self.in_thread(self._checksum.take, chunk)
            elif self._append:
                await self._append.write(chunk)
        except SpectrogramPredictorError as error:
            self.refuse(error)
        except Exception:
            logger.exception("an upload failed")
            self.refuse(SpectrogramPredictorError("internal error"))

    def refuse(self, error: SpectrogramPredictorError) -> None:
        """Answer with an error, and leave the place to others."""
        self._slot.close()
        super().refuse(error)

    async def finish_body(self) -> None:
        """Make durable what came, and say how far the upload is; promote the model if that was all of it."""
        assert self._append
        try:
            self.take_body()
            if self._checksum:
                self._checksum.verify()
                while chunk := await self.in_thread(self._checksum.read):
                    await self._append.write(chunk)
            offset = await self._append.end()
        finally:
            await self._clean_up()
        self.set_header("Upload-Offset", offset)
        if self._append.done:
            await self.services.promoter.sweep(PROMOTION_PATIENCE_S)
        await self.say_state(self._append.info, done=self._append.done)

    async def say_state(self, info: Info, *, done: bool) -> None:
        """Say when the upload expires, and what has become of the model if it is whole."""
        now = await self.services.backend.now()
        self.set_header(
            "Upload-Expires", formatdate(now + self.services.settings.promotion.incoming_ttl_s, usegmt=True)
        )
        if done:
            state = await self.services.registry.state(info.sha256)
            self.set_header("X-Model-Digest", info.sha256)
            self.set_header("X-Model-State", state.state if state else "unknown")

    def on_finish(self) -> None:
        """Keep what came, and let go."""
        self._cleaning = asyncio.create_task(self._clean_up())
        self._cleaning.add_done_callback(lambda _: super(TusHandler, self).on_finish())

    def on_connection_close(self) -> None:
        """Keep what came over a connection that broke."""
        if self._append and not self._append.done:
            logger.info("upload %s was cut after %d bytes of it", self._append.upload_id, self.size)
        self.on_finish()
        RequestHandler.on_connection_close(self)

    def _superseded(self) -> None:
        if not self._finished:
            self.refuse(Superseded("somebody else goes on with this upload"))

    async def _raise_failure(self, *_: Any) -> None:
        await self._clean_up()
        await super()._raise_failure()

    async def _clean_up(self) -> None:
        self._slot.close()
        if self._append:
            await self._append.close()
        if self._checksum:
            self._checksum.close()


class CreationHandler(TusHandler):
    """POST /uploads, with a token: begin an upload, perhaps with its first bytes.

    The same request again, with the same token, is answered with the same upload as long as there is one; of the
    bytes that come with it, those that are there already are skipped.
    """

    @property
    def essence(self) -> str:
        """With what is said of the upload."""
        headers = self.request.headers
        return f"{super().essence} {headers.get('Upload-Length')} {headers.get('Upload-Metadata')}"

    async def begin(self) -> None:
        """Decide whether it may come."""
        await super().begin()
        if self.request.method != "POST":
            return
        length = self._length()
        sends = self.request.headers.get("Content-Type") == MEDIA_TYPE
        if sends:
            # Before there is an upload that nobody would be told of.
            self.admit()
            self.check_end(0, length)
        name = self.services.tokens.name(self.nonce)
        # Of what was begun already, the registration is not made again either: it would undo a rejection.
        self._info = await (self._partials.get(name) if self.spent else self._create(name, length))
        if sends:
            await self.open_body(self._info.upload_id, 0, again=True)

    async def post(self) -> None:
        """Say where it is."""
        self.take_body()
        self.set_status(201)
        # Relative: whatever name and port the client knows this server by.
        self.set_header("Location", f"/uploads/{self._info.upload_id}")
        if self._append:
            await self.finish_body()
        else:
            await self.say_state(self._info, done=False)
        self.finish()

    async def options(self) -> None:
        """Say what can be done."""
        _say_options(self)

    def _length(self) -> int:
        for name in _NOT_TAKEN:
            if name in self.request.headers:
                raise BadRequest(f"{name}: this extension of tus is not one of those here")
        length = _number(self.request.headers, "Upload-Length")
        if not length:
            raise BadRequest("the model is empty")
        if length > self.max_bytes:
            raise TooLarge(f"the model is larger than {self.max_bytes} bytes")
        return length

    async def _create(self, upload_id: str, length: int) -> Info:
        metadata = self.request.headers.get("Upload-Metadata", "")
        sha256 = await self._registered(_parse_metadata(metadata))
        await self.services.uploads.check_room(length, registered=True)
        info = await self._partials.create(length, sha256, metadata, upload_id=upload_id)
        await self.services.tokens.spend(self.nonce, self.essence)
        return info

    async def _registered(self, metadata: dict[str, bytes]) -> str:
        """Return the digest that is coming, once it is registered.

        Raises
        ------
        NotRegistered
            It is not, nor does this request do so.
        """
        if registration := metadata.get("registration"):
            request = await self.in_thread(parse, self.services.keys, registration)
            await self.services.promoter.register(request)
            metadata.setdefault("sha256", request.sha256.encode())
        sha256 = parse_sha256(metadata.get("sha256", b"").decode(errors="replace"), "sha256 in Upload-Metadata")
        if await self.services.registry.get(sha256) is None:
            raise NotRegistered("nobody registered this digest: register it first, or in Upload-Metadata")
        return sha256


class PartialHandler(TusHandler):
    """HEAD, PATCH and DELETE /uploads/<id>."""

    async def begin(self) -> None:
        """Go on where the client says."""
        await super().begin()
        if self.request.method != "PATCH":
            return
        if self.request.headers.get("Content-Type") != MEDIA_TYPE:
            raise UnsupportedMedia(f"send Content-Type: {MEDIA_TYPE}")
        offset = _number(self.request.headers, "Upload-Offset")
        self.admit()
        await self.open_body(self.path_args[0], offset)

    async def head(self, upload_id: str) -> None:
        """Say how far it is.

        Raises
        ------
        UploadGone
            There is none; or it was whole and rejected, and its model is registered anew: it has to be sent again.
        """
        status = await self._partials.status(upload_id, self.services.settings.promotion.incoming_ttl_s)
        state = await self.services.registry.state(status.info.sha256)
        if not status.kept and state and state.state == "registered":
            raise UploadGone("what was sent was rejected, and the model is registered anew: begin a new upload")
        self.set_header("Upload-Offset", status.offset)
        self.set_header("Upload-Length", status.info.length)
        if status.info.metadata:
            self.set_header("Upload-Metadata", status.info.metadata)
        await self.say_state(status.info, done=status.info.done)
        self.set_header("Upload-Expires", formatdate(status.expires, usegmt=True))
        self.finish()

    async def patch(self, upload_id: str) -> None:  # noqa: ARG002  # it is open already
        """Say how far it is now."""
        self.set_status(204)
        await self.finish_body()
        self.finish()

    async def delete(self, upload_id: str) -> None:
        """End it."""
        await self._partials.terminate(upload_id)
        self.set_status(204)
        self.finish()

    async def options(self, upload_id: str) -> None:  # noqa: ARG002  # the same for all
        """Say what can be done."""
        _say_options(self)


def _say_options(handler: TusHandler) -> None:
    handler.set_header("Tus-Extension", EXTENSIONS)
    handler.set_header("Tus-Max-Size", handler.services.uploads.settings.max_bytes)
    handler.set_header("Tus-Checksum-Algorithm", ",".join(CHECKSUMS))
    handler.set_status(204)
    handler.finish()


def _number(headers: Any, name: str) -> int:
    text = headers.get(name, "")
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        raise BadRequest(f"{name} must be a whole number of bytes")
    return int(text)


def _parse_metadata(header: str) -> dict[str, bytes]:
    if len(header) > MAX_METADATA_BYTES:
        raise BadRequest(f"Upload-Metadata: at most {MAX_METADATA_BYTES} bytes")
    pairs = (pair.strip().partition(" ") for pair in header.split(","))
    return {key: decoded(value) for key, _, value in pairs if key}
