"""S3 on a bad day: errors, cut connections, answers that get lost or come late."""

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from backends.s3 import S3Backend
from backends.s3.multipart import MIB
from spectrogram_predictor.errors import BadSignature, ConfigError, StorageUnavailable
from spectrogram_predictor.signing import Keys
from spectrogram_predictor.tokens import Tokens
from tests.backends.s3 import S3Server, contents
from tests.conftest import sha256
from tests.proxy import Proxy, proxy
from tests.world import Server, World, heard

DATA = b"\x89HDF\r\n\x1a\n" + random.Random(1).randbytes(20 * MIB)
KINDS = ("500", "503", "reset", "lost", "slow")


@pytest.fixture(scope="module")
def between(s3_server: S3Server) -> Iterator[Proxy]:
    with proxy(s3_server.endpoint_url, slow_s=3.0) as running:
        yield running


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.make_bucket()


@pytest.fixture
def make(
    io_loop: IOLoop,
    s3_server: S3Server,
    between: Proxy,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Callable[[], S3Backend]]:
    """Make servers' ways to the bucket through the proxy, opened."""
    if "slow" in request.node.name:
        # Not elsewhere: on a busy machine any answer may be as late.
        monkeypatch.setattr("backends.s3.bucket._READ_TIMEOUT_S", 2.0)
    monkeypatch.setattr("backends.s3.bucket.PAUSE_S", 0.01)
    monkeypatch.setattr("backends.s3.multipart.PAUSE_S", 0.01)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    monkeypatch.setattr("backends.s3.backend._COPY_RANGE", 8 * MIB)
    made: list[S3Backend] = []

    def make() -> S3Backend:
        settings = {**s3_server.options, "cache": str(tmp_path / "cache"), "endpoint_url": between.url}
        made.append(S3Backend(f"s3://{bucket}/p", settings))
        io_loop.run_sync(made[-1].open)
        return made[-1]

    between.heal()
    yield make
    between.heal()
    for backend in made:
        io_loop.run_sync(backend.close)


@pytest.fixture
def unopened(s3_server: S3Server, between: Proxy, bucket: str, tmp_path: Path) -> Iterator[S3Backend]:
    settings = {**s3_server.options, "cache": str(tmp_path / "cache"), "endpoint_url": between.url}
    between.heal()
    yield S3Backend(f"s3://{bucket}", settings)
    between.heal()


@pytest.fixture
def backend(make: Callable[[], S3Backend]) -> S3Backend:
    return make()


async def put(backend: S3Backend) -> None:
    """Write a small object."""
    assert await backend.put("registered/a.json", b"content")
    assert await backend.read("registered/a.json") == b"content"


async def upload(backend: S3Backend) -> None:
    """Write a large one."""
    writer = await backend.writer("temp/1.upload", "incoming/1/data")
    try:
        for start in range(0, len(DATA), MIB):
            await writer.write(DATA[start : start + MIB])
        await writer.commit()
    finally:
        await writer.cancel()


async def move(backend: S3Backend) -> None:
    """Move a small one and a large one."""
    await backend.put("temp/small", b"content")
    assert await backend.move("temp/small", "models/small")
    await backend.put("temp/large", DATA)
    assert await backend.move("temp/large", "models/large")


WORK = {
    "put": put,
    "get": put,
    "list": move,
    "create": upload,
    "part": upload,
    "complete": upload,
    "copy": move,
    "copy part": move,
    "delete": move,
}


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", WORK)
async def test_what_passes_is_not_noticed(
    backend: S3Backend, between: Proxy, bucket: str, operation: str, kind: str
) -> None:
    """A fault once, at any operation: all is as if there had been none."""
    between.fail(operation, kind)
    await WORK[operation](backend)
    expected = {
        put: {"registered/a.json": b"content"},
        upload: {"temp/1.upload": DATA},
        move: {"models/small": b"content", "models/large": DATA},
    }
    assert contents(bucket, "p/") == expected[WORK[operation]]
    between.heal()
    leftovers = await backend.expire(-5)
    # Nobody knows of a multipart upload whose creation was not answered, until its time is over.
    assert len(leftovers) == (operation == "create" and kind in ("lost", "slow"))


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", ["complete", "copy", "copy part"])
async def test_an_error_in_an_answer_that_says_200_is_an_error(
    backend: S3Backend, between: Proxy, bucket: str, kind: str
) -> None:
    """As S3 answers when it has begun to answer before it was done: tried again, or said."""
    between.fail(kind, "200")
    await WORK[kind](backend)
    between.fail(kind, "200", times=50)
    with pytest.raises(StorageUnavailable):
        await (upload if kind == "complete" else move)(_again(backend))
    between.heal()


def _again(backend: S3Backend) -> S3Backend:
    backend.bucket.prefix = "again/"
    return backend


@pytest.mark.gen_test
@pytest.mark.parametrize("kind", ["500", "503", "reset"])
@pytest.mark.parametrize("operation", WORK)
async def test_what_stays_is_said(
    backend: S3Backend, between: Proxy, bucket: str, operation: str, kind: str
) -> None:
    """A fault that does not pass is an error; nothing is half there, and no source is gone without its copy."""
    between.fail(operation, kind, times=100)
    with pytest.raises(StorageUnavailable):
        await WORK[operation](backend)
    between.heal()
    found = contents(bucket, "p/")
    whole = {b"content", DATA}
    assert set(found.values()) <= whole
    if WORK[operation] is move and operation != "list":
        assert {b"content"} <= set(found.values())
    assert await backend.expire(-5) == []


@pytest.mark.swift
@pytest.mark.gen_test
async def test_a_part_that_is_damaged_on_its_way_is_noticed(swift: S3Server, tmp_path: Path) -> None:
    """A store that checks the SHA-256 of parts refuses it; a body that is not damaged is hashed for that only."""
    with proxy(swift.endpoint_url) as between:
        settings = {**swift.options, "cache": str(tmp_path / "cache"), "endpoint_url": between.url}
        backend = S3Backend(f"s3://{swift.make_bucket()}/p", settings)
        await backend.open()
        sent: list[str] = []
        events = backend.bucket._fs.s3.meta.events
        events.register(
            "before-send.s3.UploadPart",
            lambda request, **_: sent.append(request.headers["X-Amz-Content-SHA256"].decode()),
        )
        try:
            between.fail("part", "damaged")
            with pytest.raises(StorageUnavailable):
                await upload(backend)
            assert await backend.list("temp/") == []
            await upload(backend)
            assert await backend.read("temp/1.upload") == DATA
        finally:
            await backend.close()
    assert set(sent) == {"UNSIGNED-PAYLOAD"}


@pytest.mark.gen_test
async def test_a_lost_answer_is_not_taken_for_an_older_object(backend: S3Backend, between: Proxy) -> None:
    """A completion that fails for good has not replaced what was there, of the same size."""
    await backend.put("models/a.h5", bytes(len(DATA)))
    await backend.put("temp/1.upload", DATA)
    between.fail("complete", "500", times=100)
    with pytest.raises(StorageUnavailable):
        await backend.move("temp/1.upload", "models/a.h5")
    between.heal()
    assert await backend.read("temp/1.upload") == DATA
    assert await backend.move("temp/1.upload", "models/a.h5")
    assert await backend.read("models/a.h5") == DATA


@pytest.mark.gen_test
async def test_a_store_that_does_not_copy_stops_the_start(
    unopened: S3Backend, between: Proxy, bucket: str
) -> None:
    """Nothing could be promoted there, which nobody should find out after an upload."""
    between.fail("copy", "500", times=100)
    with pytest.raises(ConfigError, match=r"storage\.url.*500"):
        await unopened.open()
    assert contents(bucket, "") == {}


@pytest.mark.gen_test
async def test_a_store_that_does_not_copy_ranges_is_said_to(
    unopened: S3Backend, between: Proxy, bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start, with what cannot be done there; and nothing of the attempt is left."""
    between.fail("copy part", "500", times=100)
    await unopened.open()
    try:
        between.heal()
        assert [record for record in caplog.messages if "does not copy ranges" in record]
        assert await unopened.expire(-5) == []
    finally:
        await unopened.close()
    assert contents(bucket, "") == {}
    caplog.clear()


@pytest.mark.gen_test
async def test_a_store_that_does_not_create_exclusively_is_said_to(
    unopened: S3Backend, between: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """With all that rests on it: registrations, request tokens, uploads that are gone on with."""
    between.fail("put", "careless", times=100)
    await unopened.open()
    await unopened.close()
    (said,) = (record for record in caplog.messages if "exclusively" in record)
    for at_risk in ("registrations", "replayed", "upload"):
        assert at_risk in said
    caplog.clear()


@pytest.mark.gen_test
async def test_a_lost_answer_does_not_use_up_a_token(backend: S3Backend, between: Proxy) -> None:
    """Whoever claimed it first has it, also if the store had to be asked twice; nobody else has it after that."""
    nonce = "n" * 32
    between.fail("put", "lost")
    await Tokens(Keys("a token"), backend).claim(nonce, "request")
    for kind in ("", "lost"):
        between.fail("put", kind)
        with pytest.raises(BadSignature, match="used"):
            await Tokens(Keys("a token"), backend).claim(nonce, "another")


@pytest.mark.gen_test
async def test_what_is_damaged_on_its_way_does_not_replace_what_is_sound(
    backend: S3Backend, between: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """This store does not notice, and there is a copy here that would pass every trial."""
    house = Server(backend)
    world = World(backend)
    await world.register(house, DATA)
    await world.receive(house, DATA)
    assert await house.promoter.sweep() == [sha256(DATA)]
    between.fail("part", "damaged")
    await world.receive(house, DATA)
    assert await house.promoter.sweep() == []
    (model,) = await backend.list("models/")
    assert await backend.read(model.key) == DATA
    assert await backend.list("temp/") == []
    assert "damaged on its way into the storage: send it again" in caplog.text
    caplog.clear()


@pytest.mark.gen_test
async def test_an_object_that_ends_early_is_an_error_of_the_storage(backend: S3Backend, between: Proxy) -> None:
    """However orderly its connection is closed."""
    await backend.put("temp/a", DATA)
    between.fail("get", "short", times=100)
    with pytest.raises(StorageUnavailable):
        await backend.read("temp/a")
    with pytest.raises(StorageUnavailable):
        [chunk async for chunk in backend.chunks("temp/a")]
    between.heal()
    assert await backend.read("temp/a") == DATA


@pytest.mark.gen_test
async def test_copies_that_a_dead_server_began_are_aborted(
    backend: S3Backend, s3_server: S3Server, bucket: str
) -> None:
    """Wherever they were to go: their parts cost money."""
    client = s3_server.client()
    for key in ("temp/1.upload", "models/a.h5", "probe/1-part"):
        client.create_multipart_upload(Bucket=bucket, Key=f"p/{key}")
    client.create_multipart_upload(Bucket=bucket, Key="p/theirs")
    client.put_object(Bucket=bucket, Key="p/probe/1-ranges", Body=b"")
    assert sorted(await backend.expire(-5)) == ["models/a.h5", "probe/1-part", "temp/1.upload"]
    assert len(client.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1
    assert await backend.list("probe/") == []


@pytest.mark.gen_test
async def test_two_servers_finish_the_same_upload(
    make_two: tuple[S3Backend, S3Backend], between: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """Both promote it at the same time, one of them on a slow line: it is there once, and whole."""
    one, two = (Server(backend) for backend in make_two)
    world = World(make_two[0])
    await world.register(one, DATA)
    await world.receive(one, DATA)
    between.fail("delete", "slow")
    await asyncio.gather(one.promoter.sweep(), two.promoter.sweep())
    await world.settle(lambda ttl_s: Server(make_two[1], ttl_s))
    assert not [entry.key for entry in await one.backend.list("rejected/")]
    caplog.clear()


@pytest.mark.gen_test
async def test_the_same_model_eight_times_at_once(
    make_two: tuple[S3Backend, S3Backend], caplog: pytest.LogCaptureFixture
) -> None:
    """Sent to two servers that sweep all the while: it is there once, and whole."""
    servers = [Server(backend) for backend in make_two]
    data = DATA[: 6 * MIB]
    world = World(make_two[0])
    await world.register(servers[0], data)
    uploads = [world.receive(servers[number % 2], data) for number in range(8)]
    sweeps = [heard(server.promoter.sweep()) for server in servers * 2]
    await asyncio.gather(*uploads, *sweeps)
    await asyncio.gather(*(server.promoter.sweep() for server in servers))
    assert [entry.key for entry in await world.backend.list("models/")] == [f"models/{sha256(data)}.h5"]
    await world.settle(lambda ttl_s: Server(make_two[1], ttl_s))
    caplog.clear()


@pytest.fixture
def make_two(make: Callable[[], S3Backend]) -> tuple[S3Backend, S3Backend]:
    return make(), make()
