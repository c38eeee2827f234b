"""The whole story with a fault at each operation of the storage in turn; then the invariants of `tests.world`."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from spectrogram_predictor import pieces, storage
from spectrogram_predictor.errors import StorageUnavailable
from spectrogram_predictor.promotion import Promoter
from spectrogram_predictor.registration import Registration
from spectrogram_predictor.storage import Backend, Entry, Writer
from tests.backends.s3 import S3Server
from tests.faults import KINDS, Faults, FaultyBackend, FaultyWriter
from tests.grounds import READS, Local, Memory, Moto, Requests, SystemCalls, opened
from tests.story import Chapter
from tests.world import LONG_S, Server, Violation, World

Mutate = Callable[[Backend], Backend]


def under_way() -> list["asyncio.Task[Any]"]:
    """Return what comes to an end by itself: not who watches over an upload, for as long as that is open."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return [task for task in others if "_let_go_when_claimed" not in repr(task.get_coro())]


async def one(ground: Any, chapter: Chapter, faults: Faults, mutate: Mutate, promoter: Any) -> World:
    """Tell a chapter once, with one fault; start again; check."""
    await ground.next()
    world = ground.world(await ground.backend())
    await chapter.before(world, Server(await ground.backend()))
    with ground.between(await ground.backend(), faults) as faulty:
        await chapter.tell(world, Server(mutate(faulty), promoter=promoter))
    # What the server was doing beside what failed is done, before anybody looks: that takes more than one request.
    await asyncio.gather(*under_way(), return_exceptions=True)
    await faulty.close()
    await world.check()
    raw = await ground.backend()

    def make(ttl_s: float) -> Server:
        return Server(mutate(raw), ttl_s, promoter)

    await make(LONG_S).promoter.sweep()
    await chapter.after(world, make)
    await world.settle(make)
    await ground.done()
    return world


async def explore(
    ground: Any, mutate: Mutate = lambda backend: backend, promoter: Any = Promoter, every: int = 1
) -> str:
    """Put a fault at each operation in turn, or at one of so many; return what was counted."""
    operations = faults = 0
    states: set[Any] = set()
    async with opened(ground):
        for chapter in ground.chapters:
            whole = Faults()
            states |= (await one(ground, chapter(), whole, mutate, promoter)).states
            operations += len(whole.names)
            for kind, at in [*points(ground, whole.names)][::every]:
                try:
                    states |= (await one(ground, chapter(), Faults(at, kind), mutate, promoter)).states
                except Violation as violation:
                    raise Violation(f"{violation} ({kind} at {at}: {whole.names[at - 1]})") from violation
                faults += 1
    return f"{operations} {ground.level}, {faults} faults at them, {len(states)} states explored, 0 violations"


def points(ground: Any, names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield what can go wrong, and at which of these operations."""
    for kind in KINDS:
        for at, name in enumerate(names, start=1):
            if name not in READS or kind not in ground.same_at_reads:
                yield kind, at


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the store take parts of a few bytes."""
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 1)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory where there is one: thousands of fsyncs, and no power cut."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


@pytest.mark.long
@pytest.mark.parametrize("ground", [Memory, Local, SystemCalls])
def test_a_fault_at_every_operation_loses_nothing(
    ground: Any, io_loop: IOLoop, folder: Path, caplog: pytest.LogCaptureFixture, say: Callable[[str], None]
) -> None:
    """Whatever fails, whichever answer is lost, wherever the server dies."""
    counted = io_loop.run_sync(lambda: explore(ground(folder)))
    say(f"crash matrix, {ground.__name__}: {counted}")
    caplog.clear()


@pytest.mark.long
@pytest.mark.usefixtures("small_parts")
def test_a_fault_at_every_request_to_a_bucket_loses_nothing(
    io_loop: IOLoop,
    tmp_path: Path,
    s3_server: S3Server,
    caplog: pytest.LogCaptureFixture,
    say: Callable[[str], None],
) -> None:
    """Neither objects, nor parts that cost money."""
    counted = io_loop.run_sync(lambda: explore(Moto(tmp_path, s3_server)))
    say(f"crash matrix, bucket: {counted}")
    caplog.clear()


@pytest.mark.long
@pytest.mark.swift
def test_a_fault_at_some_requests_to_a_real_store_loses_nothing(
    io_loop: IOLoop, tmp_path: Path, swift: S3Server, caplog: pytest.LogCaptureFixture, say: Callable[[str], None]
) -> None:
    """A sample, as each request takes its time there."""
    counted = io_loop.run_sync(lambda: explore(Requests(tmp_path, swift), every=11), timeout=600)
    say(f"crash matrix, Swift: {counted}")
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


class GoesBack(Wrapper):
    """It acknowledges a piece, and does not count it when it is asked."""

    async def stored(self, upload_id: str) -> int | None:
        return pieces.end_of((await pieces.find(self.inner, upload_id))[:-1])


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


class PutsOff(Promoter):
    """Never comes to promote anything."""

    async def _promote(self, key: str, registration: Registration) -> str | None:
        return None


class BelievesAnybody(Promoter):
    """Promotes what nobody registered."""

    async def _drop(self, entry: Entry, digest: str) -> None:
        await self._promote(entry.key, Registration(digest))


@pytest.mark.parametrize(
    ("wrong", "broken"),
    [
        (CopiesWithoutLooking, "I1: "),
        (PutsOff, "I2: .* are not promoted"),
        (KeepsAll, "I3: .* are left"),
        (BelievesAnybody, "I3: "),
        (GoesBack, "I4: the offset went"),
        (DropsPieces, "I4: "),
        (DeletesFirst, "I5: "),
        (AnswersEarly, "I5: "),
        (GivesUp, "I5: "),
        (ExpiresAll, "I6: "),
    ],
)
def test_what_is_wrong_is_found(
    wrong: Any, broken: str, io_loop: IOLoop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each invariant, broken on purpose in one place, is said to be broken."""
    changes = {"promoter": wrong} if issubclass(wrong, Promoter) else {"mutate": wrong}
    with pytest.raises(Violation, match=f"^{broken}"):
        io_loop.run_sync(lambda: explore(Memory(tmp_path), **changes))
    caplog.clear()
