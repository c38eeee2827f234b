"""Objects: written, read, listed, moved, removed, fetched; and writers of large ones."""

import asyncio
import contextlib
import hashlib
import random
from pathlib import Path
from typing import Any

import pytest

from backends.conformance.story import Stories, story
from spectrogram_predictor.errors import Damaged, StorageUnavailable
from spectrogram_predictor.storage import Backend

MIB = 2**20


class Objects(Stories):
    """The contract of `spectrogram_predictor.storage.Backend`, as tests, but for uploads that are gone on with."""

    @story
    async def test_put_and_read(self, backend: Backend) -> None:
        """What was put is read, whole or its beginning; what is not there is None."""
        assert await backend.put("registered/a.json", b"content")
        assert await backend.read("registered/a.json") == b"content"
        assert await backend.read("registered/a.json", 3) == b"con"
        assert await backend.read("registered/b.json") is None
        assert await backend.read("registered/a.json/b") is None

    @story
    async def test_it_is_ready(self, backend: Backend) -> None:
        """Once open, and it keeps nothing for having been asked."""
        await backend.check()
        assert await backend.list("registered/") == []

    @story
    async def test_an_exclusive_put_is_won_once(self, backend: Backend, other: Backend) -> None:
        """Of many at the same time one wins, at whichever server, and its content stays."""
        ways = (backend, other)
        puts = [ways[n % 2].put("registered/a.json", b"%d" % n, exclusive=True) for n in range(8)]
        won = await asyncio.gather(*puts)
        assert sorted(won) == [False] * 7 + [True]
        assert await backend.read("registered/a.json") == b"%d" % won.index(True)

    @story
    async def test_put_is_seen_whole(self, backend: Backend) -> None:
        """Whoever reads while it is replaced finds the old or the new content, and nothing in between."""
        contents = [bytes([number]) * MIB for number in range(6)]
        await backend.put("registered/a.json", contents[0])
        seen: list[bytes | None] = []

        async def read() -> None:
            while True:
                seen.append(await backend.read("registered/a.json"))
                await asyncio.sleep(0)

        reading = asyncio.create_task(read())
        for content in contents[1:]:
            await backend.put("registered/a.json", content)
            await asyncio.sleep(0.01)
        reading.cancel()
        await asyncio.wait([reading])
        assert seen
        assert all(one in contents for one in seen)

    @story
    async def test_put_replaces(self, backend: Backend) -> None:
        """Without exclusive, the newer content stands, and the version tells."""
        await backend.put("registered/a.json", b"1")
        first = await backend.stat("registered/a.json")
        await backend.put("registered/a.json", b"2")
        second = await backend.stat("registered/a.json")
        assert first
        assert second
        assert first.version != second.version
        assert await backend.read("registered/a.json") == b"2"

    @story
    async def test_list(self, backend: Backend) -> None:
        """Every object below the prefix, sorted, with size and age; nothing else."""
        for key in ("temp/b", "temp/a", "temp/deep/er", "tempest/x"):
            await backend.put(key, key.encode())
        entries = await backend.list("temp/")
        assert [(entry.key, entry.size) for entry in entries] == [
            ("temp/a", 6),
            ("temp/b", 6),
            ("temp/deep/er", 12),
        ]
        now = await backend.now()
        assert all(now - 60 < entry.modified < now + 60 for entry in entries)
        assert await backend.list("absent/") == []
        assert await backend.stat("temp/a") == entries[0]
        assert await backend.stat("temp/absent") is None

    @story
    async def test_long_lists_are_whole(self, backend: Backend) -> None:
        """However many at a time the store tells."""
        keys = [f"registered/{number:04}.json" for number in range(1005)]
        for start in range(0, len(keys), 50):
            await asyncio.gather(*(backend.put(key, b"") for key in keys[start : start + 50]))
        assert [entry.key for entry in await backend.list("registered/")] == keys

    @story
    async def test_what_goes_away_in_the_middle_is_not_all(self, backend: Backend) -> None:
        """Its chunks are those of the whole object, or they end with an error."""
        data = random.Random(1).randbytes(20 * MIB)  # noqa: S311  # nothing secret
        await backend.put("temp/a", data)
        received = b""
        with contextlib.suppress(StorageUnavailable):
            async for chunk in backend.chunks("temp/a"):
                await backend.delete("temp/a")
                received += chunk
            assert received == data
        assert data.startswith(received)
        with pytest.raises(StorageUnavailable):
            [chunk async for chunk in backend.chunks("temp/a")]

    @pytest.mark.parametrize("size", [0, 5, 20 * MIB + 1])
    @story
    async def test_a_writer_publishes_on_commit(self, backend: Backend, size: int) -> None:
        """Nothing is there before commit, all of it afterwards, and a late cancel leaves it."""
        data = random.Random(size).randbytes(size)  # noqa: S311  # nothing secret
        writer = await backend.writer("temp/1.upload", "incoming/1/data")
        for start in range(0, size, MIB):
            await writer.write(data[start : start + MIB])
            await writer.write(b"")
        assert await backend.list("temp/") == []
        await writer.commit()
        await writer.cancel()
        assert [(entry.key, entry.size) for entry in await backend.list("temp/")] == [("temp/1.upload", size)]
        assert await backend.read("temp/1.upload") == data
        assert b"".join([chunk async for chunk in backend.chunks("temp/1.upload")]) == data
        assert await backend.list("incoming/") == []

    @pytest.mark.parametrize("size", [0, 5, 20 * MIB])
    @story
    async def test_a_cancelled_writer_leaves_nothing(self, backend: Backend, size: int) -> None:
        """Cancel, even twice, and there was never anything."""
        writer = await backend.writer("temp/1.upload", "incoming/1/data")
        await writer.write(bytes(size))
        await writer.cancel()
        await writer.cancel()
        assert await backend.list("incoming/") == await backend.list("temp/") == []
        assert await backend.expire(0) == []

    @story
    async def test_what_is_abandoned_expires(self, backend: Backend) -> None:
        """After its time, not before; whoever comes back too late is told."""
        writer = await backend.writer("temp/1.upload", "incoming/1/data")
        await writer.write(bytes(20 * MIB))
        await asyncio.sleep(2.1)
        assert await backend.expire(3600) == []
        assert len(await backend.expire(1)) == 1
        assert await backend.expire(1) == []
        assert await backend.list("incoming/") == []
        with pytest.raises(StorageUnavailable):
            await writer.commit()
        await writer.cancel()
        assert await backend.list("temp/") == []

    @story
    async def test_what_moves_does_not_expire(self, backend: Backend) -> None:
        """However long ago it was begun."""
        writer = await backend.writer("temp/1.upload", "incoming/1/data")
        for _ in range(8):
            await writer.write(bytes(MIB))
            assert await backend.expire(1.5) == []
            await asyncio.sleep(0.3)
        await writer.commit()
        (entry,) = await backend.list("temp/")
        assert entry.size == 8 * MIB

    @story
    async def test_what_is_moved_is_never_away(self, backend: Backend) -> None:
        """Under one name or the other it is there at any moment."""
        places = ["temp/a", "models/a.h5"]
        away: list[float] = []

        async def look() -> None:
            while True:
                # Where it comes from first: where it goes, it is before it is gone from there.
                if not await backend.stat(places[0]) and not await backend.stat(places[1]):
                    away.append(await backend.now())
                await asyncio.sleep(0)

        await backend.put(places[0], bytes(MIB))
        looking = asyncio.create_task(look())
        assert await backend.move(*places)
        looking.cancel()
        await asyncio.wait([looking])
        assert not away
        entry = await backend.stat(places[1])
        assert entry
        assert entry.size == MIB

    @story
    async def test_move(self, backend: Backend) -> None:
        """One step, replacing; a source that is gone is no error."""
        await backend.put("temp/a", b"new")
        await backend.put("models/a.h5", b"old")
        assert await backend.move("temp/a", "models/a.h5")
        assert await backend.read("models/a.h5") == b"new"
        assert await backend.stat("temp/a") is None
        assert not await backend.move("temp/a", "models/a.h5")
        assert await backend.read("models/a.h5") == b"new"

    @story
    async def test_delete(self, backend: Backend) -> None:
        """Gone is gone, and twice is fine."""
        await backend.put("temp/a", b"")
        await backend.delete("temp/a")
        await backend.delete("temp/a")
        assert await backend.stat("temp/a") is None

    @story
    async def test_fetch(self, backend: Backend) -> None:
        """A local file with the content, or None."""
        await backend.put("models/a.h5", b"content")
        digest = hashlib.sha256(b"content").hexdigest()
        path: Any = await backend.fetch("models/a.h5", digest)
        assert isinstance(path, Path)
        assert path.read_bytes() == b"content"
        # Workers are let into these only.
        assert any(path.resolve().is_relative_to(folder.resolve()) for folder in backend.local_folders)
        assert await backend.fetch("models/b.h5", "b" * 64) is None

    @story
    async def test_what_waits_for_its_trial_is_fetched_itself(self, backend: Backend) -> None:
        """Not an earlier copy of something sound with the digest that it should have."""
        digest = hashlib.sha256(b"content").hexdigest()
        await backend.put("models/a.h5", b"content")
        await backend.fetch("models/a.h5", digest)
        await backend.put("temp/1.upload", b"damaged")
        try:
            path = await backend.fetch("temp/1.upload", digest)
        except Damaged:
            path = None
        assert path is None or path.read_bytes() == b"damaged"
