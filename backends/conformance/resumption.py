"""Uploads that can be gone on with."""

import asyncio
import itertools
import random

import pytest

from backends.conformance.story import Stories, story
from spectrogram_predictor import storage
from spectrogram_predictor.errors import OffsetMismatch, SpectrogramPredictorError, Superseded
from spectrogram_predictor.storage import Backend, Partial

MIB = 2**20
ONE = "1" * 32
DATA = random.Random(1).randbytes(20 * MIB + 1)  # noqa: S311  # nothing secret


async def resumed(backend: Backend) -> Partial:
    """Go on with the upload."""
    partial = await backend.resume(ONE)
    assert partial
    return partial


async def go_on(partial: Partial, data: bytes) -> None:
    """Send the same again and again; raise what is wrong with that."""
    for _ in range(50):
        await partial.write(data)
        await partial.sync()
        await asyncio.sleep(0.1)


async def stored(backend: Backend) -> bytes:
    """Return all that is stored of the upload."""
    end = await backend.stored(ONE)
    assert end is not None
    return b"".join([chunk async for chunk in backend.stored_chunks(ONE, 0, end)])


class Resumption(Stories):
    """The contract of `spectrogram_predictor.storage.Partial`, as tests."""

    @story
    async def test_an_upload_grows_from_writer_to_writer(self, backend: Backend) -> None:
        """Each begins where the one before it was synced; together they are the object."""
        await backend.begin(ONE)
        ends = [0, 0, 1, 5, MIB, 9 * MIB, 9 * MIB + 1, len(DATA)]
        for start, end in itertools.pairwise(ends):
            assert await backend.stored(ONE) == start
            partial = await resumed(backend)
            assert partial.stored == start
            for at in range(start, end, MIB):
                await partial.write(DATA[at : min(at + MIB, end)])
            assert await partial.sync() == end
            assert await stored(backend) == DATA[:end]
            await partial.close()
            await partial.close()
        partial = await resumed(backend)
        assert await backend.list("temp/") == []
        await partial.finish("temp/1.upload")
        await partial.close()
        assert await backend.read("temp/1.upload") == DATA
        assert await backend.list("incoming/") == []

    @story
    async def test_any_part_of_it_is_read(self, backend: Backend) -> None:
        """From one byte to another, wherever the writers changed."""
        await backend.begin(ONE)
        for start, end in ((0, 1), (1, 10), (10, 30)):
            partial = await resumed(backend)
            await partial.write(DATA[start:end])
            await partial.close()
        for start, end in ((0, 30), (0, 1), (1, 1), (5, 12), (9, 30), (29, 30)):
            read = [chunk async for chunk in backend.stored_chunks(ONE, start, end)]
            assert b"".join(read) == DATA[start:end]

    @story
    async def test_the_newer_writer_wins(self, backend: Backend, other: Backend) -> None:
        """The older can neither add nor acknowledge, and what it had not synced is whole or nowhere."""
        await backend.begin(ONE)
        older = await resumed(backend)
        await older.write(DATA[:1000])
        assert await older.sync() == 1000
        await older.write(b"x" * 1000)
        newer = await resumed(other)
        assert newer.stored in (1000, 2000)
        offset = newer.stored
        with pytest.raises(Superseded):
            await go_on(older, b"y" * MIB)
        with pytest.raises(Superseded):
            await older.sync()
        await newer.write(b"z" * 1000)
        assert await newer.sync() == offset + 1000
        await older.close()
        assert await stored(backend) == (DATA[:1000] + b"x" * 1000)[:offset] + b"z" * 1000
        await newer.close()

    @story
    async def test_of_many_at_the_same_time_none_mixes(self, backend: Backend) -> None:
        """What each acknowledged is there when the next one begins, and nothing of two at one place."""
        await backend.begin(ONE)
        acknowledged: list[tuple[int, int]] = []

        async def write(number: int) -> None:
            try:
                partial = await resumed(backend)
            except SpectrogramPredictorError:
                return
            start = partial.stored
            try:
                for _ in range(3):
                    await partial.write(bytes([number]) * 1000)
                    acknowledged.append((await partial.sync(), number))
                    await asyncio.sleep(0)
            except OffsetMismatch:
                pass
            finally:
                await partial.close()
            assert partial.stored >= start

        await asyncio.gather(*(write(number) for number in range(1, 7)))
        # Of those at the same time, each may have been in another's way.
        await write(7)
        found = await stored(backend)
        assert len(found) % 1000 == 0
        assert all(len(set(found[at : at + 1000])) == 1 for at in range(0, len(found), 1000))
        assert [number for _, number in acknowledged].count(7) == 3
        assert all(end <= len(found) and found[end - 1] == number for end, number in acknowledged)

    @story
    async def test_an_upload_that_is_removed_is_gone(self, backend: Backend) -> None:
        """Whoever goes on with it is told, and nothing of it is left or comes back."""
        await backend.begin(ONE)
        partial = await resumed(backend)
        await partial.write(DATA[:MIB])
        await partial.sync()
        for entry in await backend.list("incoming/"):
            await backend.delete(entry.key)
        with pytest.raises(SpectrogramPredictorError):
            await go_on(partial, DATA[:MIB])
        await partial.close()
        assert [entry for entry in await backend.list("incoming/") if storage.piece_offset(entry.key)] == []
        assert await backend.stored(ONE) in (0, None)
        assert await backend.expire(0) == []

    @story
    async def test_an_upload_that_can_be_gone_on_with_is_no_writer_s_remains(self, backend: Backend) -> None:
        """Expiry leaves it: it goes as a whole, once nothing of it has moved for long."""
        await backend.begin(ONE)
        await backend.put(storage.info_key(ONE), b"{}")
        partial = await resumed(backend)
        await partial.write(DATA[:1000])
        await partial.sync()
        await partial.close()
        assert await backend.expire(-5) == []
        assert await stored(backend) == DATA[:1000]

    @story
    async def test_one_that_others_have_finished_is_not_finished_again(self, backend: Backend) -> None:
        """What is left of it while they remove it would be torn, and take the place of what is whole."""
        await backend.begin(ONE)
        partial = await resumed(backend)
        for at in range(0, len(DATA), MIB):
            await partial.write(DATA[at : at + MIB])
        await partial.sync()
        pieces = [one.key for one in await backend.list("incoming/") if storage.piece_offset(one.key) is not None]
        await backend.put("temp/1.upload", DATA)
        for key in pieces[1:]:
            await backend.delete(key)
        if pieces:
            with pytest.raises(Superseded):
                await partial.finish("temp/1.upload")
        await partial.close()
        assert await backend.read("temp/1.upload") == DATA
