"""What every storage backend must do. Subclass `Conformance` and give it a ``backend`` fixture."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from spectrogram_predictor.storage import Backend


class Conformance:
    """The contract of `spectrogram_predictor.storage.Backend`, as tests."""

    @pytest.mark.gen_test
    async def test_put_and_read(self, backend: Backend) -> None:
        """What was put is read, whole or its beginning; what is not there is None."""
        assert await backend.put("registered/a.json", b"content")
        assert await backend.read("registered/a.json") == b"content"
        assert await backend.read("registered/a.json", 3) == b"con"
        assert await backend.read("registered/b.json") is None
        assert await backend.read("registered/a.json/b") is None

    @pytest.mark.gen_test
    async def test_it_is_ready(self, backend: Backend) -> None:
        """Once open, and it keeps nothing for having been asked."""
        await backend.check()
        assert await backend.list("registered/") == []

    @pytest.mark.gen_test
    async def test_an_exclusive_put_is_won_once(self, backend: Backend) -> None:
        """Of many at the same time one wins, and its content stays."""
        puts = [backend.put("registered/a.json", b"%d" % n, exclusive=True) for n in range(8)]
        won = await asyncio.gather(*puts)
        assert sorted(won) == [False] * 7 + [True]
        assert await backend.read("registered/a.json") == b"%d" % won.index(True)

    @pytest.mark.gen_test
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

    @pytest.mark.gen_test
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

    @pytest.mark.gen_test
    async def test_a_writer_publishes_on_commit(self, backend: Backend) -> None:
        """What was written is there after commit, and a late cancel leaves it."""
        writer = await backend.writer("incoming/1/data")
        for part in (b"ab", b"", b"cd" * 10**6):
            await writer.write(part)
        await writer.commit()
        await writer.cancel()
        assert await backend.read("incoming/1/data") == b"ab" + b"cd" * 10**6
        assert b"".join([chunk async for chunk in backend.chunks("incoming/1/data")]) == b"ab" + b"cd" * 10**6

    @pytest.mark.gen_test
    async def test_a_cancelled_writer_leaves_nothing(self, backend: Backend) -> None:
        """Cancel, even twice, and there was never anything."""
        writer = await backend.writer("incoming/1/data")
        await writer.write(b"ab")
        await writer.cancel()
        await writer.cancel()
        assert await backend.list("incoming/") == []

    @pytest.mark.gen_test
    async def test_move(self, backend: Backend) -> None:
        """One step, replacing; a source that is gone is no error."""
        await backend.put("temp/a", b"new")
        await backend.put("models/a.h5", b"old")
        assert await backend.move("temp/a", "models/a.h5")
        assert await backend.read("models/a.h5") == b"new"
        assert await backend.stat("temp/a") is None
        assert not await backend.move("temp/a", "models/a.h5")
        assert await backend.read("models/a.h5") == b"new"

    @pytest.mark.gen_test
    async def test_delete(self, backend: Backend) -> None:
        """Gone is gone, and twice is fine."""
        await backend.put("temp/a", b"")
        await backend.delete("temp/a")
        await backend.delete("temp/a")
        assert await backend.stat("temp/a") is None

    @pytest.mark.gen_test
    async def test_fetch(self, backend: Backend) -> None:
        """A local file with the content, or None."""
        await backend.put("models/a.h5", b"content")
        path: Any = await backend.fetch("models/a.h5")
        assert isinstance(path, Path)
        assert path.read_bytes() == b"content"
        assert await backend.fetch("models/b.h5") is None
