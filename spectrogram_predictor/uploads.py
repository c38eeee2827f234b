"""An upload in flight: begin, write, commit or cancel, with the SHA-256 on the way.

Bytes go to the storage as they arrive; `Upload.commit` makes them durable and lets them appear in ``temp/`` in one
step, where the sweep finds them. Who may send, and in what wrapping, is the handlers' business.
"""

import hashlib
import logging
import uuid
from collections.abc import AsyncIterator

from spectrogram_predictor import storage
from spectrogram_predictor.config import UploadSettings
from spectrogram_predictor.errors import InsufficientStorage, TooLarge
from spectrogram_predictor.lanes import Lanes
from spectrogram_predictor.limits import Place, Places
from spectrogram_predictor.partials import Partials
from spectrogram_predictor.storage import Backend, Writer

logger = logging.getLogger(__name__)

_HASH_THREADS = 2


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
        self.lanes = Lanes(_HASH_THREADS, "digest")
        self._backend = backend
        self._places = Places(settings.max_concurrent, settings.max_concurrent_per_client)
        self._under_way: set[Upload] = set()
        self._waiting: dict[str, int] = {}
        self.partials = Partials(backend, self.lanes, self.digests)

    def slot(self, address: str) -> Place:
        """Return a place for a sender at this address.

        Raises
        ------
        QueueFull
            ``uploads.max_concurrent`` are taken, or ``uploads.max_concurrent_per_client``.
        """
        return self._places.take(address)

    async def check_room(self, size: int, *, registered: bool) -> None:
        """Refuse what cannot be stored before it comes.

        Parameters
        ----------
        size : int
            Bytes that are to come; 0 if that is not known.
        registered : bool
            Somebody has registered what they are.

        Raises
        ------
        InsufficientStorage
            There is no room, or none for what nobody registered.
        """
        if not registered:
            self.check_unregistered(size)
        free = await self._backend.free_bytes()
        if free is not None and size > free:
            raise InsufficientStorage("there is no room to store it")

    def check_unregistered(self, size: int) -> None:
        """Refuse more bytes that nobody has registered than ``uploads.max_unregistered_bytes``.

        Raises
        ------
        InsufficientStorage
            They would be more.
        """
        # What the sweep has settled no longer waits.
        self._waiting = {key: count for key, count in self._waiting.items() if key in self.digests}
        under_way = sum(upload.size for upload in self._under_way if not upload.registered)
        if size + under_way + sum(self._waiting.values()) > self.settings.max_unregistered_bytes:
            raise InsufficientStorage(
                "there is no more room for what nobody has registered: register the model, "
                "and say its SHA-256 in X-Model-Digest, or try again later"
            )

    async def begin(self, *, registered: bool = False) -> "Upload":
        """Begin one upload, of what somebody has registered or of anything."""
        upload_id = uuid.uuid4().hex
        writer = await self._backend.writer(storage.received_key(upload_id), storage.incoming_key(upload_id))
        return Upload(self, writer, upload_id, registered=registered)

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
    registered : bool
        Somebody has registered what it is; if not, its bytes count as nobody's until the sweep has settled them.
    """

    def __init__(self, uploads: Uploads, writer: Writer, upload_id: str, *, registered: bool) -> None:
        self.size = 0
        self.registered = registered
        self._uploads = uploads
        self._writer = writer
        self._id = upload_id
        self._digest = hashlib.sha256()
        self._lane = uploads.lanes.lane()
        self._committed = False
        uploads._under_way.add(self)

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
            There is no room, or none for what nobody registered.
        """
        if not self.registered:
            self._uploads.check_unregistered(len(data))
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
        self._uploads._under_way.discard(self)
        if not self.registered:
            self._uploads._waiting[key] = self.size
        logger.info("received %s (%d bytes) as upload %s", sha256, self.size, self._id)
        return key

    async def cancel(self) -> None:
        """Leave nothing behind; harmless after `commit`."""
        if not self._committed:
            self._uploads._under_way.discard(self)
            await self._lane.drop()
            await self._writer.cancel()
