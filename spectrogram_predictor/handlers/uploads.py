"""Models arriving as multipart/form-data, streamed: at no time is a file in memory."""

import asyncio
import contextlib
import logging
from typing import Any, ClassVar

import multipart
from tornado.web import RequestHandler

from spectrogram_predictor.errors import (
    BadRequest,
    DigestMismatch,
    SpectrogramPredictorError,
    UnsupportedMedia,
)
from spectrogram_predictor.handlers.base import BaseHandler, Services
from spectrogram_predictor.handlers.policy import Route
from spectrogram_predictor.registration import Registration, parse_sha256
from spectrogram_predictor.signing import SignedStream
from spectrogram_predictor.uploads import Upload

logger = logging.getLogger(__name__)

FIELD = "model"
MAX_PREAMBLE_BYTES = 64 * 2**10
MAX_BOUNDARY_LENGTH = 200
MAX_SEGMENTS = 64

PROMOTION_PATIENCE_S = 20.0
"""How long a signed upload waits to be promoted; the document's clients give up after 30 s."""

_OVERHEAD_BYTES = 2**20


class UploadHandler(BaseHandler):
    """POST /nodemodeluploads on the upload port: up to 12 files, none of them if the request is refused.

    If the storage fails while they are committed, one after the other, those before stay; all may be sent again.
    """

    max_files: ClassVar[int] = 12

    def initialize(self, services: Services, route: Route) -> None:
        """Take what the handler works with."""
        super().initialize(services, route)
        self._uploads: list[Upload] = []
        self._current: Upload | None = None
        self._segments = 0
        self._parsed = 0
        self._slot = contextlib.ExitStack()
        self._announced: str | None = None
        self._registered = False
        self._turn: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def max_bytes(self) -> int:
        """What all files together may take."""
        return self.max_files * self.services.uploads.settings.max_bytes + _OVERHEAD_BYTES

    async def begin(self) -> None:
        """Look for room, take a slot and make the parser.

        Raises
        ------
        BadRequest
            It is not multipart, or X-Model-Digest is no SHA-256.
        QueueFull
            Too many uploads at the same time.
        InsufficientStorage
            There is no room, or none for what nobody registered.
        """
        kind, options = multipart.parse_options_header(self.request.headers.get("Content-Type", ""))
        boundary = options.get("boundary", "")
        if kind != "multipart/form-data" or not 0 < len(boundary) <= MAX_BOUNDARY_LENGTH:
            raise BadRequest(f"send multipart/form-data with a boundary and the field {FIELD}")
        self._parser = multipart.PushMultipartParser(boundary, max_segment_count=MAX_SEGMENTS)
        if header := self.request.headers.get("X-Model-Digest"):
            self._announced = parse_sha256(header, "X-Model-Digest")
            self._registered = await self.services.registry.get(self._announced) is not None
        await self.services.uploads.check_room(self.length, registered=self._registered)
        self._slot.enter_context(self.services.uploads.slot(self.request.remote_ip or ""))

    async def receive(self, chunk: bytes) -> None:
        """Hand these bytes on; hashing and writing them goes on while the next ones arrive."""
        if self._ending is None:
            self._turn = asyncio.create_task(self._consume(chunk))
            await self._turn

    async def post(self) -> None:
        """Commit what arrived."""
        try:
            await self._commit()
        finally:
            await self._clean_up()
        self.answer({"message": "file uploaded!", "uploaded": True})

    def on_finish(self) -> None:
        """Leave nothing behind."""
        self._ending = asyncio.create_task(self._clean_up())
        self._ending.add_done_callback(lambda _: super(UploadHandler, self).on_finish())

    def on_connection_close(self) -> None:
        """Leave nothing behind of an upload that was cut."""
        if self.failure is None:
            logger.info("an upload was cut after %d bytes", self.size)
        self.on_finish()
        RequestHandler.on_connection_close(self)

    async def open_file(self) -> None:
        """Begin a file."""
        self._current = await self.services.uploads.begin(registered=self._registered)
        self._uploads.append(self._current)

    async def write_file(self, data: bytes) -> None:
        """Take bytes of the file."""
        assert self._current
        await self._current.write(data)

    async def close_file(self) -> None:
        """End the file.

        Raises
        ------
        BadRequest
            It is empty.
        """
        assert self._current
        if not self._current.size:
            raise BadRequest("the model is empty")
        self._current = None

    async def _commit(self) -> list[Upload]:
        """Commit the files; return them."""
        self.take_body()
        try:
            self._parser.close()
        except multipart.MultipartError as error:
            raise BadRequest("the multipart body is truncated") from error
        if not self._uploads:
            raise BadRequest(f"there is no field {FIELD}")
        uploads = self._uploads
        for upload in uploads:
            await self._identify(upload)
        if self._uploads is not uploads:
            raise BadRequest("the client has left")
        for upload in uploads:
            await upload.commit()
        return uploads

    async def _identify(self, upload: Upload) -> None:
        """See whether it is what it was announced as, and registered."""
        sha256 = await upload.sha256()
        if self._announced and sha256 != self._announced:
            raise DigestMismatch(f"the file's SHA-256 is {sha256}, and not as X-Model-Digest said")
        upload.registered = self._registered or await self.services.registry.get(sha256) is not None

    async def _consume(self, chunk: bytes) -> None:
        try:
            for event in self._parser.parse(chunk):
                await self._take(event)
            self._parsed += len(chunk)
            if not self._segments and self._parsed > MAX_PREAMBLE_BYTES:
                raise BadRequest("the multipart body does not begin with its boundary")
        except multipart.MultipartError as error:
            await self._give_up(BadRequest(f"malformed multipart: {error}"))
        except SpectrogramPredictorError as error:
            await self._give_up(error)
        except Exception:
            logger.exception("an upload failed")
            await self._give_up(SpectrogramPredictorError("internal error"))

    async def _take(self, event: Any) -> None:
        if isinstance(event, multipart.MultipartSegment):
            self._segments += 1
            if event.name == FIELD:
                most = 1 if self._announced else self.max_files
                if len(self._uploads) == most:
                    raise BadRequest(f"too many files: at most {most} in such a request")
                await self.open_file()
        elif self._current is None:
            pass  # another field, or its end
        elif event is None:
            await self.close_file()
        else:
            await self.write_file(bytes(event))

    async def _give_up(self, error: SpectrogramPredictorError) -> None:
        await self._cancel()
        self.refuse(error)

    async def _raise_failure(self, *_: Any) -> None:
        await self._clean_up()
        await super()._raise_failure()

    async def _clean_up(self) -> None:
        if self._turn:
            await asyncio.wait([self._turn])
        await self._cancel()

    async def _cancel(self) -> None:
        uploads, self._uploads, self._current = self._uploads, [], None
        try:
            for upload in uploads:
                await upload.cancel()
        finally:
            self._slot.close()


class SignedUploadHandler(UploadHandler):
    """POST /nodemodeluploads and /uploadmodel on the API port: one model, signed; no registration is needed."""

    max_files = 1

    async def post(self) -> None:
        """Commit, register and promote.

        Raises
        ------
        UnsupportedMedia
            It is not a model that can be served.
        """
        try:
            [upload] = await self._commit()
            sha256 = await upload.sha256()
        finally:
            await self._clean_up()
        await self.services.promoter.sweep(PROMOTION_PATIENCE_S)
        state = await self.services.registry.state(sha256)
        if state and state.state == "rejected":
            raise UnsupportedMedia(state.reason or "the model was rejected")
        self.answer({"msg": "model saved", "hash": sha256})

    async def open_file(self) -> None:
        """Begin to verify."""
        self._signed = SignedStream(self.services.keys)
        await super().open_file()

    async def write_file(self, data: bytes) -> None:
        """Verify on the way."""
        payload = await self.in_thread(self._signed.update, data)
        if payload:
            await super().write_file(payload)

    async def close_file(self) -> None:
        """Believe it, or not.

        Raises
        ------
        NotSigned, BadSignature
            The signature is missing or wrong.
        """
        assert self._current
        self._signed.finish()
        await super().close_file()

    async def _identify(self, upload: Upload) -> None:
        """Register it, now that the request is whole: its signature says who wants it."""
        await super()._identify(upload)
        sha256 = await upload.sha256()
        if await self.services.registry.get(sha256) is None:
            await self.services.registry.register(Registration(sha256))
        upload.registered = True
