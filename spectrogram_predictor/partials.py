"""Uploads that can be gone on with: begin, append, ask how far they are, end.

Any server on the same storage may go on with any of them; of two that do, the newer one wins. What an offset
promises is durable. The last byte is acknowledged only once the digest of all of them is right: until then, an
upload that is whole says that it lacks one.
"""

import asyncio
import contextlib
import json
import logging
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from spectrogram_predictor import storage
from spectrogram_predictor.errors import DigestMismatch, OffsetMismatch, Superseded, TooLarge, UploadGone
from spectrogram_predictor.prefix import PrefixDigest
from spectrogram_predictor.progress import Info, Status
from spectrogram_predictor.storage import Backend, Entry, Partial

logger = logging.getLogger(__name__)

GRACE_S = 60.0
"""An upload that is whole and in nobody's hands is finished by a sweep after so long."""

HANDOVER_S = 2.0
"""How long asking for an offset waits for the disk of a client that was sending, and may be dead."""

_MAX_DIGESTS = 256
_SUPERSEDED = "somebody else goes on with this upload"
_ID = re.compile(r"[0-9a-f]{32}")


class Partials:
    """The uploads of one storage that can be gone on with.

    Parameters
    ----------
    backend : Backend
        Where they are.
    lanes : Lanes
        Threads for hashing.
    digests : dict of str to str
        Gets the SHA-256 of each that is whole, by the key it is received under.
    """

    def __init__(self, backend: Backend, lanes: Any, digests: dict[str, str]) -> None:
        self.lanes = lanes
        self.grace_s = GRACE_S
        self._backend = backend
        self._received = digests
        self._active: dict[str, Append] = {}
        self._prefixes: dict[str, PrefixDigest] = {}

    async def create(self, length: int, sha256: str, metadata: str = "", upload_id: str = "") -> Info:
        """Begin an upload; return the one with this id, if it is there."""
        if upload_id:
            with contextlib.suppress(UploadGone):
                return await self.get(upload_id)
        info = Info(upload_id or uuid.uuid4().hex, length, sha256, metadata)
        await self._backend.begin(info.upload_id)
        if not await self._backend.put(storage.info_key(info.upload_id), info.to_json(), exclusive=True):
            # Begun beside this call, and perhaps whole by now.
            return await self.get(info.upload_id)
        logger.info("began upload %s of %s (%d bytes)", info.upload_id, sha256, length)
        return info

    async def get(self, upload_id: str) -> Info:
        """Return what an upload was begun for.

        Raises
        ------
        UploadGone
            There is none.
        """
        data = await self._backend.read(storage.info_key(upload_id)) if _ID.fullmatch(upload_id) else None
        if data is None:
            raise UploadGone("there is no such upload: begin a new one")
        return Info(**json.loads(data))

    async def status(self, upload_id: str, ttl_s: float) -> Status:
        """Return how far an upload is.

        Who asks has lost its connection: what comes over the old one from now on is not waited for, and not taken.

        Raises
        ------
        UploadGone
            There is none.
        """
        if active := self._active.get(upload_id):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(active.supersede()), HANDOVER_S)
        entries = await self._backend.list(f"{storage.INCOMING}{upload_id}/") if _ID.fullmatch(upload_id) else []
        stored = await self._backend.stored(upload_id) if entries else None
        # In this order: another server that finishes it says so before it removes what is stored here.
        info = await self.get(upload_id)
        expires = max((entry.modified for entry in entries), default=await self._backend.now()) + ttl_s
        if info.done:
            kept = stored == info.length or await self._backend.stat(storage.received_key(upload_id)) is not None
            return Status(info, info.length, expires, kept)
        if stored is None:
            raise UploadGone("the upload is lost: begin a new one")
        return Status(info, min(stored, info.length - 1), expires)

    async def append(
        self,
        upload_id: str,
        offset: int,
        on_superseded: Callable[[], None] | None = None,
        *,
        again: bool = False,
        arrived: float = 0.0,
    ) -> "Append":
        """Go on with an upload, in place of whoever does so now, unless that one came later.

        Parameters
        ----------
        upload_id : str
            The upload.
        offset : int
            Where the client goes on.
        on_superseded : callable, optional
            Called when somebody else goes on with it.
        again : bool
            What comes may begin before the upload's end: what is there already is skipped.
        arrived : float
            When the client came, by any clock of this process; before all others by default.

        Raises
        ------
        Superseded
            Somebody who came later goes on with it.
        UploadGone
            There is no such upload.
        OffsetMismatch
            It is at another offset.
        """
        append = Append(self, upload_id, on_superseded, arrived)
        earlier = self._active.get(upload_id)
        if earlier and earlier.arrived > arrived:
            raise Superseded(_SUPERSEDED)
        self._active[upload_id] = append
        try:
            if earlier:
                await earlier.supersede()
            await append.open(self._backend, offset, again=again)
        except BaseException:
            await append.close()
            raise
        return append

    async def terminate(self, upload_id: str) -> None:
        """End an upload, and keep nothing of it.

        Raises
        ------
        UploadGone
            There is none.
        """
        if active := self._active.get(upload_id):
            await active.supersede()
        info = await self.get(upload_id)
        await self.discard(info.upload_id)
        logger.info("ended upload %s", upload_id)

    async def discard(self, upload_id: str) -> None:
        """Remove all of an upload."""
        self._prefixes.pop(upload_id, None)
        # What it was begun for goes first: without that it is gone, and does not begin again at a smaller offset.
        await self._backend.delete(storage.info_key(upload_id))
        for entry in await self._backend.list(f"{storage.INCOMING}{upload_id}/"):
            await self._backend.delete(entry.key)

    async def expire(self, age_s: float) -> list[str]:
        """Remove uploads in which nothing has moved for so long; return their ids.

        What is acknowledged whole stays until it is received.
        """
        oldest = await self._backend.now() - age_s
        idle = await self._idle(oldest)
        expired = [upload_id for upload_id, entries in idle.items() if not await self._is_owed(upload_id, entries)]
        for upload_id in expired:
            await self.discard(upload_id)
        return expired

    async def recover(self) -> None:
        """Finish what is whole, and in the hands of nobody: the server that had it has died."""
        oldest = await self._backend.now() - self.grace_s
        # Of most there is nothing but what they were begun for, which is not worth a read at each sweep.
        idle = {each for each, entries in (await self._idle(oldest)).items() if _bytes_of(each, entries)}
        for upload_id in idle:
            with contextlib.suppress(UploadGone):
                info = await self.get(upload_id)
                whole = await self._backend.stored(upload_id) == info.length
                if whole and upload_id not in self._active:
                    logger.info("finishing upload %s, which was whole and left alone", upload_id)
                    await self._finish(info)

    async def _is_owed(self, upload_id: str, entries: Sequence[Entry]) -> bool:
        """Tell whether it is acknowledged whole, and not received yet; of one that is, there may be remains."""
        if not _bytes_of(upload_id, entries):
            return False
        try:
            info = await self.get(upload_id)
        except UploadGone:
            return False
        return info.done and await self._backend.stored(upload_id) == info.length

    async def _finish(self, info: Info) -> None:
        append = await self.append(info.upload_id, info.length - 1)
        try:
            await append.end()
        except DigestMismatch as error:
            logger.info("upload %s: %s", info.upload_id, error)
        finally:
            await append.close()

    async def _idle(self, oldest: float) -> dict[str, list[Entry]]:
        found = storage.partials(await self._backend.list(storage.INCOMING))
        return {
            upload_id: entries
            for upload_id, entries in found.items()
            if upload_id not in self._active and max(entry.modified for entry in entries) < oldest
        }

    def prefix(self, upload_id: str) -> PrefixDigest:
        """Return what is known here of the digest of an upload's beginning."""
        found = self._prefixes.pop(upload_id, None)
        return found or PrefixDigest(lambda start, end: self._backend.stored_chunks(upload_id, start, end))

    def release(self, append: "Append", prefix: PrefixDigest | None) -> None:
        """Take back from a client what it does not need any more."""
        if self._active.get(append.upload_id) is append:
            del self._active[append.upload_id]
        if prefix:
            self._prefixes[append.upload_id] = prefix
            if len(self._prefixes) > _MAX_DIGESTS:
                del self._prefixes[next(iter(self._prefixes))]

    async def complete(self, info: Info, partial: Partial, sha256: str) -> None:
        """Hand over all bytes to the sweep.

        Raises
        ------
        DigestMismatch
            They are not those that were registered; they are removed.
        """
        if sha256 != info.sha256:
            await partial.close()
            await self.discard(info.upload_id)
            raise DigestMismatch(f"the bytes hash to {sha256}, not to {info.sha256}: none of them is kept")
        key = storage.received_key(info.upload_id)
        # From here on it is received, whatever happens: a sweep would finish it.
        await self._backend.put(storage.info_key(info.upload_id), replace(info, done=True).to_json())
        self._received[key] = sha256
        try:
            await partial.finish(key)
        except BaseException:
            self._received.pop(key, None)
            raise
        logger.info("received %s (%d bytes) as upload %s", sha256, info.length, info.upload_id)


class Append:
    """One client going on with an upload; made by `Partials.append`.

    Attributes
    ----------
    info : Info
        What the upload was begun for.
    arrived : float
        When the client came.
    offset : int
        What comes next.
    done : bool
        All bytes are here, and they are the right ones.
    """

    def __init__(
        self, partials: Partials, upload_id: str, on_superseded: Callable[[], None] | None, arrived: float
    ) -> None:
        self.upload_id = upload_id
        self.arrived = arrived
        self.offset = 0
        self.done = False
        self._partials = partials
        self._on_superseded = on_superseded
        self._partial: Partial | None = None
        self._prefix: PrefixDigest | None = None
        self._superseded = False
        self._ending = False
        self._closed = False
        # For one thing at a time: somebody newer comes while a write is under way.
        self._turn = asyncio.Lock()

    async def open(self, backend: Backend, offset: int, *, again: bool) -> None:
        """Become the upload's only writer."""
        async with self._turn:
            self._check()
            # Of one that never was, nothing is claimed.
            await self._partials.get(self.upload_id)
            partial = await backend.resume(self.upload_id)
            self.info = await self._partials.get(self.upload_id)
            self._partial = partial
            self.done = self.info.done and (partial is None or partial.stored < self.info.length)
            if partial is None and not self.done:
                raise UploadGone("the upload is lost: begin a new one")
            self.offset = self.info.length if self.done or partial is None else partial.stored
            expected = min(self.offset, self.info.length - 1)
            skips = again and offset < expected
            if offset != expected and not skips and not (self.info.done and offset == self.info.length):
                raise OffsetMismatch(f"the upload is at {expected}, not at {offset}")
            self._skipped = self.offset - offset
            if partial and not self.done:
                logger.info("upload %s goes on at %d of %d bytes", self.upload_id, self.offset, self.info.length)
                self._prefix = self._partials.prefix(self.upload_id)
                self._prefix.begin(self._partials.lanes.lane(), partial)

    async def write(self, data: bytes) -> None:
        """Append; what is wrong with it may be found only by a later call.

        Raises
        ------
        Superseded
            Somebody else goes on with the upload.
        TooLarge
            There is more of it than was said.
        InsufficientStorage
            There is no room.
        """
        async with self._turn:
            self._check()
            if self.offset - self._skipped + len(data) > self.info.length:
                raise TooLarge(f"the upload has {self.info.length} bytes, and more are coming")
            data, self._skipped = data[self._skipped :], max(self._skipped - len(data), 0)
            if data and self._partial and self._prefix:
                await self._prefix.take(self.offset, data)
                self.offset += len(data)
                await self._partial.write(data)

    async def end(self) -> int:
        """Make it durable; return the offset that may be acknowledged.

        Raises
        ------
        DigestMismatch
            It was the last of it, and all together are not what was registered.
        """
        async with self._turn:
            if self.done:
                return self.info.length
            self._check()
            assert self._partial
            assert self._prefix
            self.offset = await self._partial.sync()
            self._ending = self.offset == self.info.length
            if self._ending:
                sha256 = await self._prefix.hexdigest(self.offset)
                self._prefix = None
                await self._partials.complete(self.info, self._partial, sha256)
                self.done = True
            return self.offset

    async def close(self) -> None:
        """Let go; what came is kept as far as that is possible; harmless twice."""
        async with self._turn:
            if self._closed:
                return
            self._closed = True
            if self._partial:
                await self._partial.close()
            if self._prefix:
                await self._prefix.end()
                if self._partial and self._prefix.position > self._partial.stored:
                    # Hashed, and never stored.
                    self._prefix = None
            self._partials.release(self, self._prefix)

    async def supersede(self) -> None:
        """Give way to somebody newer, but for what is whole, which is brought to its end."""
        if self._ending:
            async with self._turn:
                return
        self._superseded = True
        if self._on_superseded and not self._closed:
            self._on_superseded()
        await self.close()

    def _check(self) -> None:
        if self._superseded or self._closed:
            raise Superseded(_SUPERSEDED)


def _bytes_of(upload_id: str, entries: Sequence[Entry]) -> set[str]:
    """Return the keys of an upload's bytes, of all that there is of it."""
    return {entry.key for entry in entries} - {storage.info_key(upload_id), storage.claim_key(upload_id)}
