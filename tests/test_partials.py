"""Uploads that can be gone on with, without HTTP: what a client or a server that dies leaves behind."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from backends.local import LocalBackend
from spectrogram_predictor import storage
from spectrogram_predictor.errors import DigestMismatch, OffsetMismatch, Superseded, TooLarge, UploadGone
from spectrogram_predictor.registration import Registration
from spectrogram_predictor.storage import Backend
from tests.backends.memory import MemoryBackend, Store
from tests.conftest import sha256
from tests.world import LONG_S, OVER_S, Server

DATA = b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 40


@pytest.fixture(params=["pieces", "file"])
def make_backend(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    """Return ways to one storage, of both kinds."""
    store = Store(tmp_path)
    if request.param == "pieces":
        return lambda: MemoryBackend(store, {})
    return lambda: LocalBackend(str(tmp_path), {})


async def server(make_backend: object, ttl_s: float = LONG_S) -> Server:
    """Start a server that knows nothing yet."""
    backend: Backend = make_backend()  # type: ignore[operator]
    await backend.open()
    return Server(backend, ttl_s)


async def send(at: Server, upload_id: str, start: int, end: int) -> int:
    """Send some of it, and hear how far it is."""
    append = await at.uploads.partials.append(upload_id, start)
    try:
        await append.write(DATA[start:end])
        return await append.end()
    finally:
        await append.close()


@pytest.mark.gen_test
async def test_what_is_whole_when_its_server_dies_is_finished_by_another(make_backend: object) -> None:
    """All bytes are stored, and nobody was told: a sweep finds out, and promotes them."""
    first = await server(make_backend)
    await first.registry.register(Registration(sha256(DATA)))
    info = await first.uploads.partials.create(len(DATA), sha256(DATA))
    partial = await first.backend.resume(info.upload_id)
    assert partial
    await partial.write(DATA)
    assert await partial.sync() == len(DATA)
    await partial.close()
    second = await server(make_backend, OVER_S)
    status = await second.uploads.partials.status(info.upload_id, LONG_S)
    assert status.offset == len(DATA) - 1
    assert await second.promoter.sweep() == [sha256(DATA)]


@pytest.mark.gen_test
async def test_what_is_acknowledged_whole_outlives_its_time(make_backend: object) -> None:
    """Until a sweep has received it; of what that leaves when it dies in the middle, nothing stays."""
    house = await server(make_backend)
    await house.registry.register(Registration(sha256(DATA)))
    info = await house.uploads.partials.create(len(DATA), sha256(DATA))
    partial = await house.backend.resume(info.upload_id)
    assert partial
    await partial.write(DATA[:1000])
    await partial.sync()
    await partial.write(DATA[1000:])
    await partial.sync()
    await partial.close()
    done = dataclasses.replace(info, done=True)
    await house.backend.put(storage.info_key(info.upload_id), done.to_json())
    assert await house.uploads.partials.expire(OVER_S) == []
    assert await (await server(make_backend, OVER_S)).promoter.sweep() == [sha256(DATA)]
    assert await house.backend.list("incoming/") == []


@pytest.mark.gen_test
async def test_remains_of_what_was_received_go(tmp_path: Path) -> None:
    """Of its pieces the last one goes first: a server that dies meanwhile leaves the beginning."""
    store = Store(tmp_path)
    house = await server(lambda: MemoryBackend(store, {}))
    info = await house.uploads.partials.create(len(DATA), sha256(DATA))
    done = dataclasses.replace(info, done=True)
    await house.backend.put(storage.info_key(info.upload_id), done.to_json())
    await house.backend.put(storage.piece_key(info.upload_id, 0), DATA[:1000])
    await house.uploads.partials.recover()
    assert await house.uploads.partials.expire(OVER_S) == [info.upload_id]
    assert await house.backend.list("incoming/") == []


@pytest.mark.gen_test
async def test_the_last_byte_is_asked_for_until_the_digest_is_known(make_backend: object) -> None:
    """Whoever sends it then hears what has become of all of them; it does not count twice."""
    first = await server(make_backend)
    info = await first.uploads.partials.create(len(DATA), sha256(DATA))
    partial = await first.backend.resume(info.upload_id)
    assert partial
    await partial.write(DATA)
    await partial.close()
    second = await server(make_backend)
    assert await send(second, info.upload_id, len(DATA) - 1, len(DATA)) == len(DATA)
    assert await second.backend.read(storage.received_key(info.upload_id)) == DATA
    # Also when the answer got lost.
    assert await send(second, info.upload_id, len(DATA) - 1, len(DATA)) == len(DATA)
    assert (await first.uploads.partials.status(info.upload_id, LONG_S)).offset == len(DATA)


@pytest.mark.gen_test
async def test_the_digest_is_right_wherever_the_bytes_came(make_backend: object) -> None:
    """To one server and the other by turns, each of which has seen only some of them."""
    servers = [await server(make_backend) for _ in range(2)]
    info = await servers[0].uploads.partials.create(len(DATA), sha256(DATA))
    step = 777
    for number, start in enumerate(range(0, len(DATA), step)):
        end = min(start + step, len(DATA))
        assert await send(servers[number % 3 % 2], info.upload_id, start, end) == end
    assert await servers[0].backend.read(storage.received_key(info.upload_id)) == DATA


@pytest.mark.gen_test
async def test_other_bytes_are_not_kept(make_backend: object) -> None:
    """All of them came, and they hash to something else: the upload is gone."""
    one = await server(make_backend)
    info = await one.uploads.partials.create(len(DATA), sha256(b"something else"))
    with pytest.raises(DigestMismatch):
        await send(one, info.upload_id, 0, len(DATA))
    with pytest.raises(UploadGone):
        await one.uploads.partials.status(info.upload_id, LONG_S)
    assert await one.backend.list(storage.INCOMING) == []


@pytest.mark.gen_test
async def test_what_does_not_fit_is_refused(make_backend: object) -> None:
    """Another offset, and more than was said."""
    one = await server(make_backend)
    info = await one.uploads.partials.create(len(DATA), sha256(DATA))
    with pytest.raises(OffsetMismatch, match="at 0, not at 5"):
        await send(one, info.upload_id, 5, 10)
    append = await one.uploads.partials.append(info.upload_id, 0)
    with pytest.raises(TooLarge):
        await append.write(DATA + b"x")
    await append.close()


@pytest.mark.gen_test
async def test_what_is_begun_twice_is_begun_once(make_backend: object) -> None:
    """Under a name of the caller's; also if a server died between the two steps of it."""
    house = await server(make_backend)
    await house.backend.begin("a" * 32)
    first = await house.uploads.partials.create(len(DATA), sha256(DATA), upload_id="a" * 32)
    await send(house, first.upload_id, 0, 100)
    assert await house.uploads.partials.create(len(DATA), sha256(DATA), upload_id="a" * 32) == first
    assert (await house.uploads.partials.status(first.upload_id, LONG_S)).offset == 100


@pytest.mark.gen_test
async def test_what_is_begun_twice_at_once_is_begun_once(
    make_backend: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower of two calls does not undo what has come since the other one's answer."""
    slow, fast = await server(make_backend), await server(make_backend)
    reached, go = asyncio.Event(), asyncio.Event()
    put = slow.backend.put

    async def late(key: str, data: bytes, *, exclusive: bool = False) -> bool:
        reached.set()
        await go.wait()
        return await put(key, data, exclusive=exclusive)

    monkeypatch.setattr(slow.backend, "put", late)
    first = asyncio.create_task(slow.uploads.partials.create(len(DATA), sha256(DATA), upload_id="a" * 32))
    await reached.wait()
    await fast.uploads.partials.create(len(DATA), sha256(DATA), upload_id="a" * 32)
    assert await send(fast, "a" * 32, 0, len(DATA)) == len(DATA)
    go.set()
    assert (await first).done
    assert (await fast.uploads.partials.status("a" * 32, LONG_S)).offset == len(DATA)


@pytest.mark.gen_test
async def test_what_was_never_begun_leaves_nothing(make_backend: object, tmp_path: Path) -> None:
    """Whoever makes an id up does not even leave a claim."""
    house = await server(make_backend)
    with pytest.raises(UploadGone):
        await house.uploads.partials.append("f" * 32, 0)
    assert await house.backend.list("incoming/") == []


@pytest.mark.gen_test
async def test_of_two_the_one_that_came_later_wins(make_backend: object) -> None:
    """Also if the older one gets to the upload after it."""
    one = await server(make_backend)
    info = await one.uploads.partials.create(len(DATA), sha256(DATA))
    newer = await one.uploads.partials.append(info.upload_id, 0, arrived=2.0)
    with pytest.raises(Superseded):
        await one.uploads.partials.append(info.upload_id, 0, again=True, arrived=1.0)
    await newer.write(DATA[:100])
    assert await newer.end() == 100
    with pytest.raises(Superseded):
        await one.uploads.partials.append(info.upload_id, 100, arrived=1.0)
    newest = await one.uploads.partials.append(info.upload_id, 100, arrived=3.0)
    with pytest.raises(Superseded):
        await newer.write(DATA[100:])
    await newest.close()
    await newer.close()


@pytest.mark.gen_test
async def test_an_upload_that_was_ended_takes_nothing(make_backend: object) -> None:
    """Not from whoever was sending either."""
    one = await server(make_backend)
    info = await one.uploads.partials.create(len(DATA), sha256(DATA))
    append = await one.uploads.partials.append(info.upload_id, 0)
    await append.write(DATA[:100])
    await one.uploads.partials.terminate(info.upload_id)
    with pytest.raises(Superseded):
        await append.write(DATA[100:])
    await append.close()
    assert await one.backend.list(storage.INCOMING) == []


@pytest.mark.gen_test
async def test_an_upload_that_nobody_goes_on_with_expires(make_backend: object) -> None:
    """All of it at once, and not before its time."""
    one = await server(make_backend)
    info = await one.uploads.partials.create(len(DATA), sha256(DATA))
    await send(one, info.upload_id, 0, 100)
    assert await one.uploads.partials.expire(LONG_S) == []
    assert await one.uploads.partials.expire(OVER_S) == [info.upload_id]
    with pytest.raises(UploadGone):
        await one.uploads.partials.status(info.upload_id, LONG_S)
    assert await one.backend.list(storage.INCOMING) == []
