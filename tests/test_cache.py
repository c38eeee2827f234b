"""Local copies that several servers on a machine share."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spectrogram_predictor.cache import Cache
from spectrogram_predictor.errors import Damaged
from tests.conftest import sha256

CONTENTS = [f"model {number}".encode() for number in range(12)]


def slowly(data: bytes, fetched: list[bytes]) -> Callable[[], AsyncIterator[bytes]]:
    """Give bytes in pieces, and note that they were asked for."""

    async def content() -> AsyncIterator[bytes]:
        fetched.append(data)
        for at in range(0, len(data), 3):
            await asyncio.sleep(0.005)
            yield data[at : at + 3]

    return content


def test_servers_that_share_a_folder_wait_for_each_other_and_get_done(tmp_path: Path) -> None:
    """Each fetches once what both want, from opposite ends, with next to no threads: nobody waits for ever."""

    async def both() -> list[bytes]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        fetched: list[bytes] = []
        one, other = Cache(tmp_path, 2**20), Cache(tmp_path, 2**20)
        wanted = [one.get(sha256(data), slowly(data, fetched)) for data in CONTENTS]
        wanted += [other.get(sha256(data), slowly(data, fetched)) for data in reversed(CONTENTS)]
        paths = await asyncio.wait_for(asyncio.gather(*wanted), 30)
        assert [path.read_bytes() for path in paths] == CONTENTS + CONTENTS[::-1]
        return fetched

    assert sorted(asyncio.run(both())) == sorted(CONTENTS)


def test_whoever_is_cancelled_while_waiting_holds_nothing(tmp_path: Path) -> None:
    """The next one gets the lock."""

    async def waits() -> None:
        cache, sha = Cache(tmp_path, 2**20), sha256(CONTENTS[0])
        held = await cache._lock(sha)
        waiting = asyncio.create_task(cache._lock(sha))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        os.close(held)
        os.close(await asyncio.wait_for(cache._lock(sha), 5))

    asyncio.run(waits())


def test_what_comes_otherwise_is_not_kept(tmp_path: Path) -> None:
    """Its digest is not its name."""
    cache = Cache(tmp_path, 2**20)
    with pytest.raises(Damaged):
        asyncio.run(cache.get(sha256(b"right"), slowly(b"wrong", [])))
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["lock-"]


def test_what_has_to_be_looked_at_itself_is_fetched(tmp_path: Path) -> None:
    """Although there is a copy, which is none the worse if that was damaged."""

    async def look() -> None:
        cache, sha, fetched = Cache(tmp_path, 2**20), sha256(b"right"), list[bytes]()
        await cache.get(sha, slowly(b"right", fetched))
        with pytest.raises(Damaged):
            await cache.get(sha, slowly(b"wrong", fetched), anew=True)
        assert (await cache.get(sha, slowly(b"right", fetched))).read_bytes() == b"right"
        assert fetched == [b"right", b"wrong"]
        await cache.get(sha, slowly(b"right", fetched), anew=True)
        assert len(fetched) == 3

    asyncio.run(look())


def test_a_copy_that_is_distrusted_is_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If it is damaged it is fetched again, otherwise it is not."""

    async def look() -> None:
        cache, sha, fetched = Cache(tmp_path, 2**20), sha256(b"right"), list[bytes]()
        path = await cache.get(sha, slowly(b"right", fetched))
        cache.distrust(sha)
        await cache.get(sha, slowly(b"right", fetched))
        assert len(fetched) == 1
        path.write_bytes(b"wrong")
        cache.distrust(sha)
        assert (await cache.get(sha, slowly(b"right", fetched))).read_bytes() == b"right"
        assert len(fetched) == 2

    asyncio.run(look())
    assert "is damaged: fetching it again" in caplog.text
    caplog.clear()
