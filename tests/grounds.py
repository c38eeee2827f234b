"""Kinds of storage to tell a story on, again and again, with faults at what they are made of."""

import contextlib
import copy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from backends.local import LocalBackend
from backends.s3 import S3Backend
from spectrogram_predictor.storage import Backend
from tests.backends.memory import MemoryBackend, Store
from tests.backends.s3 import S3Server, contents, forget
from tests.faults import Faults, FaultyBackend, requests_of, system_calls
from tests.story import CHAPTERS, Chapter, Whole
from tests.world import FOLDERS, World

READS = frozenset(
    {"now", "list", "stat", "read", "chunks", "fetch", "stored"}
    | {"get_object", "list_objects_v2", "list_parts", "list_multipart_uploads"}
)
"""To lose the answer of one of these is the same as to fail at it.

And to die at it leaves in the storage what dying at the next change leaves.
"""


class Memory:
    """Storages in memory, one a world."""

    level = "operations"
    chapters: tuple[type[Chapter], ...] = (Whole,)
    same_at_reads: frozenset[str] = frozenset({"lost"})

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open(self) -> None:
        """Make ready."""

    async def close(self) -> None:
        """The end."""

    async def next(self) -> None:
        """Begin an empty storage."""
        self._store = Store(self._folder)

    async def done(self) -> None:
        """Let go of it."""

    async def backend(self) -> Backend:
        """Return a new way to it, as a server has when it starts."""
        return MemoryBackend(self._store, {})

    def world(self, backend: Backend) -> World:
        """Return what looks at it."""
        return World(backend)

    @contextlib.contextmanager
    def between(self, backend: Backend, faults: Faults) -> Iterator[Backend]:
        """Put faults between a server and the storage."""
        yield FaultyBackend(backend, faults)


class Local(Memory):
    """Folders."""

    _count = 0

    async def next(self) -> None:
        self._count += 1
        self._opened: list[LocalBackend] = []
        self.root = self._folder / str(self._count)

    async def backend(self) -> Backend:
        backend = LocalBackend(str(self.root), {})
        await backend.open()
        self._opened.append(backend)
        return backend

    def world(self, backend: Backend) -> World:
        async def look() -> dict[str, bytes]:
            files = (path for folder in FOLDERS for path in (self.root / folder).rglob("*") if path.is_file())
            return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in files}

        # Through the backend it would take a thread for each file, after each step.
        return World(backend, look)

    async def done(self) -> None:
        for backend in self._opened:
            await backend.close()


class SystemCalls(Local):
    """The same, with a fault at each change of the file system."""

    level = "system calls"

    @contextlib.contextmanager
    def between(self, backend: Backend, faults: Faults) -> Iterator[Backend]:
        with system_calls(faults, self.root):
            yield FaultyBackend(backend, Faults())


class Requests(Memory):
    """Prefixes of a bucket, with a fault at each request: those that an operation is made of, one by one."""

    level = "requests"
    # Requests take milliseconds: chapters are told one by one, and where several ends are the same, one is enough.
    chapters = CHAPTERS
    same_at_reads = frozenset({"lost", "dies"})
    _count = 0

    def __init__(self, folder: Path, server: S3Server) -> None:
        super().__init__(folder)
        self._server = server

    async def open(self) -> None:
        settings = {"cache": str(self._folder / "cache"), **self._server.options}
        self._bucket = self._server.make_bucket()
        self._first = S3Backend(f"s3://{self._bucket}/0", settings)
        await self._first.open()
        self._first.part_bytes = 16

    async def close(self) -> None:
        await self._first.close()

    async def next(self) -> None:
        self._count += 1

    async def backend(self) -> Backend:
        # The connection is kept: opening one, with its probe, takes longer than the story.
        backend = copy.copy(self._first)
        backend.bucket = copy.copy(self._first.bucket)
        backend.bucket.prefix = f"{self._count}/"
        return backend

    @contextlib.contextmanager
    def between(self, backend: Backend, faults: Faults) -> Iterator[Backend]:
        requests_of(backend, faults)
        yield FaultyBackend(backend, Faults())


class Moto(Requests):
    """The same, looked at without requests."""

    def world(self, backend: Backend) -> World:
        async def look() -> dict[str, bytes]:
            return contents(self._bucket, f"{self._count}/")

        return World(backend, look)

    async def done(self) -> None:
        # It looks through all it has whenever some of it is listed.
        forget(self._bucket, f"{self._count}/")


@contextlib.asynccontextmanager
async def opened(ground: Any) -> AsyncIterator[Any]:
    """Open a kind of storage."""
    await ground.open()
    try:
        yield ground
    finally:
        await ground.close()
