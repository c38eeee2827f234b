"""The digest of an upload's beginning, which may have come to another server, or before a crash.

What comes now is hashed on the way, if all before it has been; if not, what is stored is read again beside it
until there is nothing left between the two.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable

from spectrogram_predictor.lanes import Lane
from spectrogram_predictor.storage import Partial

Chunks = Callable[[int, int], AsyncIterator[bytes]]
"""Read what is stored, from one offset to another."""


class PrefixDigest:
    """SHA-256 of an upload's first bytes, kept from one client to the next.

    Parameters
    ----------
    chunks : callable
        Reads the upload.

    Attributes
    ----------
    position : int
        How many bytes have been hashed.
    """

    def __init__(self, chunks: Chunks) -> None:
        self.position = 0
        self._digest = hashlib.sha256()
        self._chunks = chunks

    def begin(self, lane: Lane, partial: Partial) -> None:
        """Hash for somebody who goes on with the upload."""
        self._lane = lane
        self._partial = partial
        self._reading = asyncio.create_task(self._catch_up()) if self.position < partial.stored else None

    async def take(self, offset: int, data: bytes) -> None:
        """Hash what is about to be stored at an offset, if it is the next."""
        if self._reading and self._reading.done() and self.position < offset:
            # Only what came since the last look is missing.
            await self._partial.sync()
            await self._catch_up()
        if self.position == offset:
            await self._update(data)

    async def hexdigest(self, size: int) -> str:
        """Return the digest of the first `size` bytes, all of which are stored."""
        if self._reading:
            await self._reading
        await self._catch_up()
        await self._lane.join()
        assert self.position == size
        return self._digest.hexdigest()

    async def end(self) -> None:
        """Stop; what has been hashed stays so."""
        if self._reading:
            self._reading.cancel()
            await asyncio.wait([self._reading])
            if not self._reading.cancelled():
                # It may have failed: what is not hashed is read again.
                self._reading.exception()
        await self._lane.drop()

    async def _catch_up(self) -> None:
        while self.position < self._partial.stored:
            before = self.position
            async for chunk in self._chunks(self.position, self._partial.stored):
                await self._update(chunk)
            assert self.position > before

    async def _update(self, data: bytes) -> None:
        # Before it is handed over: who is cancelled while it waits has handed it over.
        self.position += len(data)
        await self._lane.put(self._digest.update, data)
