"""An upload in flight: begin, write, commit or cancel, with the SHA-256 on the way.

Bytes go to the storage as they arrive; `Upload.commit` makes them durable and lets them appear in ``temp/`` in one
step, where the sweep finds them. Who may send, and in what wrapping, is the handlers' business.
"""

import hashlib
import logging
import uuid
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from spectrogram_predictor import storage
from spectrogram_predictor.config import UploadSettings
from spectrogram_predictor.errors import QueueFull, TooLarge
from spectrogram_predictor.lanes import Lanes
from spectrogram_predictor.partials import Partials
from spectrogram_predictor.storage import Backend, Writer

logger = logging.getLogger(__name__)

_HASH_THREADS = 2


class Slot:
    """One sender's place among those who may upload at the same time; a context manager."""

    def __init__(self, uploads: "Uploads") -> None:
        self._uploads = uploads

    def __enter__(self) -> Self:
        self._uploads.taken.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._uploads.taken.discard(self)


class Uploads:
    """Begin uploads into a storage, within limits.

    Parameters
    ----------
    backend : Backend
        Where the bytes go.
    settings : UploadSettings
        The limits.

    Attributes
    ----------
    digests : dict of str to str
        SHA-256 by key of what this process received and has not been promoted yet, so that the sweep need not read
        it again. Only a shortcut: the sweep hashes what is not in here.
    partials : Partials
        Those that can be gone on with.
    """

    def __init__(self, backend: Backend, settings: UploadSettings) -> None:
        self.settings = settings
        self.digests: dict[str, str] = {}
        self.taken: set[Slot] = set()
        self._backend = backend
        self.lanes = Lanes(_HASH_THREADS, "digest")
        self.partials = Partials(backend, self.lanes, self.digests)

    def slot(self) -> Slot:
        """Return a place for one sender.

        Raises
        ------
        QueueFull
            ``uploads.max_concurrent`` are taken.
        """
        if len(self.taken) >= self.settings.max_concurrent:
            raise QueueFull("too many uploads at the same time, try again later")
        return Slot(self)

    async def begin(self) -> "Upload":
        """Begin one upload."""
        upload_id = uuid.uuid4().hex
        writer = await self._backend.writer(storage.received_key(upload_id), storage.incoming_key(upload_id))
        return Upload(self, writer, upload_id)

    async def digest(self, chunks: AsyncIterator[bytes]) -> str:
        """Return the SHA-256 of bytes that are in the storage already."""
        digest, lane = hashlib.sha256(), self.lanes.lane()
        try:
            async for chunk in chunks:
                await lane.put(digest.update, chunk)
            await lane.join()
        finally:
            await lane.drop()
        return digest.hexdigest()

    def close(self) -> None:
        """Let go of the threads."""
        self.lanes.close()


class Upload:
    """One file being received; made by `Uploads.begin`.

    Attributes
    ----------
    size : int
        Bytes so far.
    """

    def __init__(self, uploads: Uploads, writer: Writer, upload_id: str) -> None:
        self.size = 0
        self._uploads = uploads
        self._writer = writer
        self._id = upload_id
        self._digest = hashlib.sha256()
        self._lane = uploads.lanes.lane()
        self._committed = False

    async def sha256(self) -> str:
        """Return the digest of the bytes so far."""
        await self._lane.join()
        return self._digest.hexdigest()

    async def write(self, data: bytes) -> None:
        """Append; what is wrong with it may be found only by a later call.

        Raises
        ------
        TooLarge
            The file exceeds ``uploads.max_bytes``.
        InsufficientStorage
            There is no room.
        """
        self.size += len(data)
        limit = self._uploads.settings.max_bytes
        if self.size > limit:
            raise TooLarge(f"the model is larger than {limit} bytes")
        await self._lane.put(self._digest.update, data)
        await self._writer.write(data)

    async def commit(self) -> str:
        """Make it durable and leave it to the sweep; return its key."""
        key, sha256 = storage.received_key(self._id), await self.sha256()
        # Before it appears: a sweep may see it at once.
        self._uploads.digests[key] = sha256
        try:
            await self._writer.commit()
        except BaseException:
            # A sweep of what was there before may have forgotten it already.
            self._uploads.digests.pop(key, None)
            raise
        self._committed = True
        logger.info("received %s (%d bytes) as upload %s", sha256, self.size, self._id)
        return key

    async def cancel(self) -> None:
        """Leave nothing behind; harmless after `commit`."""
        if not self._committed:
            await self._lane.drop()
            await self._writer.cancel()
