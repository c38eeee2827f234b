"""The whole story with a fault at each operation of the storage in turn; then the invariants of `tests.world`."""

import contextlib
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from backends.local import LocalBackend
from backends.s3 import S3Backend
from spectrogram_predictor import storage
from spectrogram_predictor.errors import StorageUnavailable
from spectrogram_predictor.promotion import Promoter
from spectrogram_predictor.registry import Registration
from spectrogram_predictor.storage import Backend, Entry, Writer
from tests.backends.memory import MemoryBackend, Store
from tests.backends.s3 import S3Server, contents
from tests.faults import KINDS, Faults, FaultyBackend, FaultyWriter, requests_of, system_calls
from tests.world import LONG_S, Server, Violation, World, heard, swept

HDF5 = b"\x89HDF\r\n\x1a\n a model of some bytes, for two parts"
ZIP = b"PK\x03\x04 another one, put there by hand"
BROKEN = b"registered, but no model"
STRAY = HDF5 + b" that nobody registered"
BEGUN = HDF5 + b" that three servers receive, one after the other"
PIECES = HDF5 + b" that comes in pieces"
WRONG = HDF5 + b" that comes in others"
MOVING = HDF5 + b" that is under way all the time"

READS = {"now", "list", "stat", "read", "chunks", "fetch", "stored", "get_object", "list_objects_v2", "list_parts"}
"""To lose the answer of one of these is the same as to fail at it."""


class Memory:
    """Storages in memory, one a world."""

    level = "operations"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def open(self) -> None:
        """Make ready."""

    async def close(self) -> None:
        """The end."""

    async def next(self) -> None:
        """Begin an empty storage."""
        self._store = Store(self._folder)

    async def backend(self) -> Backend:
        """Return a new way to it, as a server has when it starts."""
        return MemoryBackend(self._store, {})

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

    async def contents(self) -> dict[str, bytes]:
        return contents(self._bucket, f"{self._count}/")

    @contextlib.contextmanager
    def between(self, backend: Backend, faults: Faults) -> Iterator[Backend]:
        requests_of(backend, faults)
        yield FaultyBackend(backend, Faults())


@contextlib.asynccontextmanager
async def opened(ground: Any) -> AsyncIterator[Any]:
    """Open a kind of storage."""
    await ground.open()
    try:
        yield ground
    finally:
        await ground.close()


class Files:
    """Files that come whole: by upload, or by hand. What goes on meanwhile is told by another server."""

    async def begin(self, world: World, other: Server) -> None:
        """Have something under way."""
        await world.register(other, MOVING)
        self.moving = await world.begin(other)
        assert self.moving
        await self.moving.write(MOVING[:20])
        await world.register(other, ZIP)
        await world.drop(ZIP)

    async def tell(self, world: World, server: Server) -> None:
        """Tell it, whatever goes wrong in it."""
        await world.register(server, HDF5)
        await world.receive(server, HDF5)
        await world.receive(server, STRAY)
        await world.register(server, BROKEN)
        await world.receive(server, BROKEN)
        await swept(server)
        await world.predict(server, HDF5)
        await world.receive(server, HDF5)
        await swept(server)
        await world.predict(server, ZIP)

    async def end(self, world: World, server: Server) -> None:
        """Go on with what was under way."""
        assert self.moving
        if not await heard(self.moving.write(MOVING[20:])) or not await world.finish(self.moving, MOVING):
            raise Violation("I6: an upload that was moving is gone")


class Resumed:
    """Uploads that can be gone on with, and are: by three servers, one after the other."""

    async def begin(self, world: World, other: Server) -> None:
        """Have one under way."""
        await world.register(other, BEGUN)
        begun = await world.begin_partial(other, BEGUN)
        assert begun
        assert await world.go_on(other, begun, 10)
        self.begun = begun

    async def tell(self, world: World, server: Server) -> None:
        """Tell it, whatever goes wrong in it."""
        await world.go_on(server, self.begun, 30)
        await world.register(server, PIECES)
        for content in (PIECES, WRONG):
            if upload_id := await world.begin_partial(server, PIECES, content):
                await world.go_on(server, upload_id, 20)
                await world.go_on(server, upload_id, len(content))
        await swept(server)

    async def end(self, world: World, server: Server) -> None:
        """Go on with what was under way."""
        if not await world.go_on(server, self.begun, len(BEGUN)):
            raise Violation("I6: an upload that can be gone on with cannot")


STORIES = [Files, Resumed]


async def one(
    ground: Any, story: Any, faults: Faults, mutate: Callable[[Backend], Backend], promoter: Any
) -> World:
    """Tell a story once, with one fault; start again; check."""
    await ground.next()
    world = World(await ground.backend(), getattr(ground, "contents", None))
    await story.begin(world, Server(await ground.backend()))
    with ground.between(await ground.backend(), faults) as faulty:
        await story.tell(world, Server(mutate(faulty), promoter=promoter))
    await faulty.close()
    await world.check()
    raw = await ground.backend()

    def make(ttl_s: float) -> Server:
        return Server(mutate(raw), ttl_s, promoter)

    await make(LONG_S).promoter.sweep()
    await story.end(world, make(LONG_S))
    await world.settle(make)
    if done := getattr(ground, "done", None):
        await done()
    return world


async def explore(
    ground: Any,
    story: Any,
    mutate: Callable[[Backend], Backend] = lambda backend: backend,
    promoter: Any = Promoter,
) -> str:
    """Put the fault at each operation in turn; return what was counted."""
    states: set[Any] = set()
    runs = 0
    async with opened(ground):
        whole = Faults()
        states |= (await one(ground, story(), whole, mutate, promoter)).states
        for kind in KINDS:
            for at in itertools.count(1):
                if kind == "lost" and whole.names[at - 1 : at] and whole.names[at - 1] in READS:
                    continue
                faults = Faults(at, kind)
                try:
                    states |= (await one(ground, story(), faults, mutate, promoter)).states
                except Violation as violation:
                    raise Violation(f"{violation} ({kind} at {at}: {faults.names[at - 1 : at]})") from violation
                if len(faults.names) < at:
                    break
                runs += 1
    return f"{len(whole.names)} {ground.level}, {runs} faults at them, {len(states)} states explored, 0 violations"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store take parts of a few bytes."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("ground", [Memory, Local, SystemCalls])
def test_a_fault_at_every_operation_loses_nothing(
    ground: Any,
    story: Any,
    io_loop: IOLoop,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    say: Callable[[str], None],
) -> None:
    """Whatever fails, whichever answer is lost, wherever the server dies."""
    counted = io_loop.run_sync(lambda: explore(ground(tmp_path), story))
    say(f"crash matrix, {ground.__name__}, {story.__name__}: {counted}")
    caplog.clear()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("story", STORIES)
def test_a_fault_at_every_request_to_a_bucket_loses_nothing(
    story: Any,
    io_loop: IOLoop,
    tmp_path: Path,
    s3_server: S3Server,
    caplog: pytest.LogCaptureFixture,
    say: Callable[[str], None],
) -> None:
    """Neither objects, nor parts that cost money."""
    counted = io_loop.run_sync(lambda: explore(Requests(tmp_path, s3_server), story))
    say(f"crash matrix, {Requests.__name__}, {story.__name__}: {counted}")
    caplog.clear()


class Wrapper(FaultyBackend):
    """A backend that is wrong in one way."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner, Faults())


class DeletesFirst(Wrapper):
    """Its move has the content in memory only, for a moment."""

    async def move(self, source: str, destination: str) -> bool:
        data = await self.inner.read(source)
        if data is None:
            return False
        await self.inner.delete(source)
        return await self.inner.put(destination, data)


class CopiesWithoutLooking(Wrapper):
    """Its move does not notice that the copy is half a copy."""

    async def move(self, source: str, destination: str) -> bool:
        data = await self.inner.read(source)
        if data is None:
            return False
        await self.inner.put(destination, data[: len(data) // 2])
        await self.inner.put(destination, data)
        await self.inner.delete(source)
        return True


class AnswersEarly(Wrapper):
    """Its writers say that all is durable when it is only on its way."""

    async def writer(self, key: str, staging: str) -> Writer:
        return EarlyWriter(await self.inner.writer(key, staging), self.faults)


class EarlyWriter(FaultyWriter):
    """Swallows what goes wrong with a commit."""

    async def commit(self) -> None:
        with contextlib.suppress(StorageUnavailable):
            await self._inner.commit()


class DropsPieces(Wrapper):
    """It says that a piece is there, and it is not."""

    async def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        return storage.piece_offset(key) is not None or await self.inner.put(key, data, exclusive=exclusive)


class KeepsAll(Wrapper):
    """Its delete does nothing."""

    async def delete(self, key: str) -> None:
        pass


class ExpiresAll(Wrapper):
    """It does not care whether something moves."""

    async def expire(self, age_s: float) -> Sequence[str]:
        return await self.inner.expire(-5.0)


class GivesUp(Promoter):
    """Takes a storage that is away for a fault of the file."""

    async def _settle(self, entry: Entry) -> str | None:
        try:
            return await super()._settle(entry)
        except StorageUnavailable:
            await self._backend.delete(entry.key)
            return None


class BelievesAnybody(Promoter):
    """Promotes what nobody registered."""

    async def _drop(self, entry: Entry, digest: str) -> None:
        await self._promote(entry.key, Registration(digest))


@pytest.mark.parametrize(
    ("wrong", "broken"),
    [
        (DeletesFirst, "I5"),
        (CopiesWithoutLooking, "I1"),
        (AnswersEarly, "I5.*I4"),
        (DropsPieces, "I4"),
        (KeepsAll, "I3"),
        (ExpiresAll, "I6"),
        (GivesUp, "I5"),
        (BelievesAnybody, "I3"),
    ],
)
def test_what_is_wrong_is_found(
    wrong: Any, broken: str, io_loop: IOLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each invariant, broken on purpose in one place, is said to be broken."""
    story = Resumed if wrong is DropsPieces else Files
    changes = {"promoter": wrong} if issubclass(wrong, Promoter) else {"mutate": wrong}
    with pytest.raises(Violation, match=f"^{broken}"):
        io_loop.run_sync(lambda: explore(Memory(tmp_path), story, **changes))
    caplog.clear()
