"""An upload's bytes as objects, each named for the offset where it begins: for backends that have no better way.

A piece is put exclusively and never changed, so that of two writers at one offset only one can win, whatever the
network does, and what has been acknowledged is there for good. A claim says which writer is the newest: the others
look at it after each piece, before anything is acknowledged.
"""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Self

from spectrogram_predictor import storage
from spectrogram_predictor.errors import OffsetMismatch, SpectrogramPredictorError, StorageUnavailable, Superseded
from spectrogram_predictor.storage import Backend, Entry, Partial


async def find(backend: Backend, upload_id: str) -> list[Entry]:
    """Return an upload's pieces, from its first byte to where one is missing."""
    found: list[Entry] = []
    for entry in await backend.list(f"{storage.INCOMING}{upload_id}/"):
        if storage.piece_offset(entry.key) == end_of(found):
            found.append(entry)
    return found


def end_of(pieces: Sequence[Entry]) -> int:
    """Return how many bytes they are."""
    return (storage.piece_offset(pieces[-1].key) or 0) + pieces[-1].size if pieces else 0


async def chunks(backend: Backend, upload_id: str, start: int, end: int) -> AsyncIterator[bytes]:
    """Yield the bytes from `start` to `end`."""
    for piece in await find(backend, upload_id):
        at = storage.piece_offset(piece.key) or 0
        if at + piece.size <= start or at >= end:
            continue
        async for chunk in backend.chunks(piece.key):
            wanted = chunk[max(start - at, 0) : max(end - at, 0)]
            at += len(chunk)
            if wanted:
                yield wanted


class Pieces(Partial):
    """Put one piece while the next one fills; made by `resume`."""

    def __init__(self, backend: Backend, upload_id: str, claim: bytes) -> None:
        self.stored = 0
        self._backend = backend
        self._id = upload_id
        self._claim = claim
        self._filling: list[bytes] = []
        self._filled = 0
        self._putting: asyncio.Task[None] | None = None

    @classmethod
    async def resume(cls, backend: Backend, upload_id: str) -> Self:
        """Claim an upload, and find its end."""
        claim = uuid.uuid4().hex.encode()
        partial = cls(backend, upload_id, claim)
        # In this order: whatever another writer acknowledged before it sees the claim, is found.
        await backend.put(storage.claim_key(upload_id), claim)
        partial.stored = end_of(await find(backend, upload_id))
        return partial

    async def write(self, data: bytes) -> None:
        """Append."""
        self._filling.append(data)
        self._filled += len(data)
        if self._filled >= self._backend.piece_size(self.stored):
            await self._send()

    async def sync(self) -> int:
        """Put the last piece, however small."""
        await self._send()
        await self._settle()
        await self._check()
        return self.stored

    async def finish(self, key: str) -> None:
        """Join the pieces."""
        await self.sync()
        pieces = await find(self._backend, self._id)
        if end_of(pieces) != self.stored:
            # What is left would be torn: whoever removed the rest has joined all of it.
            raise Superseded("somebody else has finished this upload")
        if pieces:
            await self._backend.join(pieces, key, storage.incoming_key(self._id))
        # The last one first: what is left after a crash is still the beginning.
        for key_ in [*(piece.key for piece in reversed(pieces)), storage.claim_key(self._id)]:
            await self._backend.delete(key_)

    async def close(self) -> None:
        """Put what is left, if that is possible."""
        with contextlib.suppress(SpectrogramPredictorError):
            await self._send()
            await self._settle()
        self._filling.clear()
        self._filled = 0

    async def _send(self) -> None:
        await self._settle()
        if self._filled:
            data, self._filling, self._filled = b"".join(self._filling), [], 0
            self._putting = asyncio.create_task(self._put(data))

    async def _settle(self) -> None:
        # Kept if it failed: what comes after a piece that is missing must not be put.
        if self._putting:
            await asyncio.shield(self._putting)

    async def _put(self, data: bytes) -> None:
        await self._check()
        key = storage.piece_key(self._id, self.stored)
        # There may be one that is ours: put, although the answer got lost.
        if not await self._backend.put(key, data, exclusive=True) and await self._backend.read(key) != data:
            # The last piece of whoever was the writer before, on its way when this one began.
            await self._check()
            raise OffsetMismatch("the upload is at another offset by now, ask for it")
        self.stored += len(data)

    async def _check(self) -> None:
        claim = await self._backend.read(storage.claim_key(self._id))
        if claim is None:
            raise StorageUnavailable("the upload is no longer there")
        if claim != self._claim:
            raise Superseded("somebody else goes on with this upload")
