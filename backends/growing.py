"""A file that grows while the disk follows a little behind, and one that only one process may add to.

A lock of the operating system makes sure of the latter: it ends with the process, however that ends. Who holds it
looks out for a claim of somebody newer, and lets go.
"""

import asyncio
import contextlib
import fcntl
import os
import uuid
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from backends.direct import DirectFile
from spectrogram_predictor.errors import SpectrogramPredictorError, Superseded, UploadLocked
from spectrogram_predictor.lanes import Lane
from spectrogram_predictor.storage import Partial

if TYPE_CHECKING:
    from backends.local import LocalBackend

SYNC_BYTES = 2**26
CLAIM_POLL_S = 0.2
"""How often whoever holds a file looks out for a claim."""

LOCK_TIMEOUT_S = 5.0
"""How long a claim waits until whoever holds the file lets go."""

_LOCK_POLL_S = 0.02
_LOCKED = "another server holds this upload and does not let go of it, try again later"


class GrowingFile:
    """Write beside the event loop, and sync beside that, so that there is little to wait for in the end.

    Parameters
    ----------
    backend : LocalBackend
        Whose threads do it.
    file : BinaryIO
        Unbuffered, open for appending.
    """

    def __init__(self, backend: "LocalBackend", file: BinaryIO) -> None:
        self._file = file
        self._appended = DirectFile(file)
        self._backend = backend
        self._unsynced = 0
        self._lane = backend.lanes.lane()
        self._syncs = Lane(backend.threads)

    @property
    def size(self) -> int:
        """Bytes in the file: after `settle` or `drop`, all that were written."""
        return self._appended.size

    async def write(self, data: bytes) -> None:
        """Append, after what was written before."""
        await self._translated(self._lane.put(self._appended.write, data))
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self._unsynced = 0
            await self._translated(self._syncs.put(self._sync_data))

    async def settle(self) -> None:
        """Wait until all is written."""
        await self._translated(self._lane.put(self._appended.flush))
        await self._translated(self._lane.join())
        await self._translated(self._syncs.join())

    async def drop(self) -> None:
        """Wait until nothing is being written any more, whatever became of it."""
        with contextlib.suppress(Exception):
            await self._lane.put(self._appended.flush)
        await self._lane.drop()
        await self._syncs.drop()

    def sync(self) -> None:
        """Wait for the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close; harmless twice."""
        self._file.close()

    def _sync_data(self) -> None:
        # Closed by now, if somebody else has claimed it.
        with contextlib.suppress(ValueError):
            os.fdatasync(self._file.fileno())

    async def _translated(self, work: Awaitable[None]) -> None:
        await self._backend.translated(work)


class LocalPartial(Partial):
    """A growing file behind a lock; made by `resume`."""

    def __init__(self, backend: "LocalBackend", file: GrowingFile, path: Path, claim: "_Claim") -> None:
        self._backend = backend
        self._file = file
        self._path = path
        self._claim = claim
        self._superseded = False
        self._closed = False
        self._watch = asyncio.create_task(self._let_go_when_claimed())

    @classmethod
    async def resume(cls, backend: "LocalBackend", path: Path, claim_path: Path) -> Self | None:
        """Claim a file, and wait for its lock."""
        claim = _Claim(claim_path)
        if not await backend.run(lambda: path.exists() and claim.make()):
            return None
        deadline = asyncio.get_running_loop().time() + LOCK_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            try:
                file = await backend.run(lambda: _locked(path))
            except UploadLocked:
                await asyncio.sleep(_LOCK_POLL_S)
                if not await backend.run(claim.stands):
                    raise Superseded("somebody else goes on with this upload") from None
            else:
                return cls(backend, GrowingFile(backend, file), path, claim) if file else None
        raise UploadLocked(_LOCKED)

    @property
    def stored(self) -> int:  # type: ignore[override]  # the file knows
        """Bytes in the file."""
        return self._file.size

    async def write(self, data: bytes) -> None:
        """Append."""
        self._check()
        await self._file.write(data)

    async def sync(self) -> int:
        """Wait for the disk."""
        self._check()
        await self._file.settle()
        await self._backend.run(self._sync)
        return self._file.size

    async def finish(self, key: str) -> None:
        """Move the file."""
        await self.sync()

        def finish() -> None:
            self._backend.move_file(self._path, self._backend.path(key))
            self._claim.remove()

        await self._stop_watching()
        await self._backend.run(finish)
        await self.close()

    async def close(self) -> None:
        """Close the file, which gives up the lock."""
        if self._closed:
            return
        self._closed = True
        await self._stop_watching()
        await self._release()

    def _check(self) -> None:
        if self._superseded or self._closed:
            raise Superseded("somebody else goes on with this upload")

    def _sync(self) -> None:
        try:
            self._file.sync()
        except ValueError as error:
            raise Superseded("somebody else goes on with this upload") from error

    async def _stop_watching(self) -> None:
        self._watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch

    async def _release(self) -> None:
        await self._file.drop()
        await self._backend.run(self._file.close)

    async def _let_go_when_claimed(self) -> None:
        while not self._superseded:
            await asyncio.sleep(CLAIM_POLL_S)
            # A disk that does not answer now says nothing of claims.
            with contextlib.suppress(SpectrogramPredictorError):
                self._superseded = not await self._backend.run(self._claim.stands)
        await asyncio.shield(self._release())


class _Claim:
    """Who is the newest, as a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = uuid.uuid4().hex

    def make(self) -> bool:
        scratch = self._path.with_name(f"{self._path.name}-{self._token}")
        scratch.write_text(self._token)
        scratch.replace(self._path)
        return True

    def stands(self) -> bool:
        try:
            return self._path.read_text() == self._token
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _locked(path: Path) -> BinaryIO | None:
    """Open a file and lock it, if nobody else has; None if it is gone, or another by now."""
    try:
        # Not "ab", which would make another one of a file that was finished just now.
        file = open(os.open(path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0)  # noqa: SIM115
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            return file
    except FileNotFoundError:
        pass
    except BlockingIOError as error:
        file.close()
        raise UploadLocked(_LOCKED) from error
    file.close()
    return None
