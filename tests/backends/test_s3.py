"""The S3 backend: the contract, on a real S3 API over real sockets, and what only buckets have."""

import asyncio
import hashlib
import itertools
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from backends.conformance import Conformance
from backends.s3 import S3Backend
from backends.s3.multipart import MAX_PARTS, MIB, part_size
from spectrogram_predictor.errors import ConfigError, Damaged, StorageUnavailable
from spectrogram_predictor.storage import Backend
from tests.backends.s3 import S3Server


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.make_bucket()


@pytest.fixture
def make(io_loop: IOLoop, s3_server: S3Server, bucket: str, tmp_path: Path) -> Iterator[Callable[..., S3Backend]]:
    """Make backends on one bucket, opened."""
    made: list[S3Backend] = []

    def make(prefix: str = "", **options: Any) -> S3Backend:
        settings = {"cache": str(tmp_path / "cache"), **s3_server.options, **options}
        backend = S3Backend(f"s3://{bucket}/{prefix}", settings)
        io_loop.run_sync(backend.open)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        io_loop.run_sync(backend.close)


@pytest.fixture
def backend(make: Callable[..., S3Backend]) -> S3Backend:
    return make(prefix="a/prefix")


class TestS3Backend(Conformance):
    """S3 keeps the contract."""

    @pytest.fixture
    def backend(self, s3_server: S3Server, bucket: str, tmp_path: Path) -> S3Backend:
        return S3Backend(f"s3://{bucket}/a/prefix", {**s3_server.options, "cache": str(tmp_path / "one")})

    @pytest.fixture
    def other(self, s3_server: S3Server, bucket: str, tmp_path: Path) -> S3Backend:
        return S3Backend(f"s3://{bucket}/a/prefix", {**s3_server.options, "cache": str(tmp_path / "other")})


@pytest.mark.swift
class TestSwift(TestS3Backend):
    """So does a store that is not Amazon's."""

    @pytest.fixture
    def s3_server(self, swift: S3Server) -> S3Server:
        return swift


@pytest.mark.gen_test
async def test_everything_is_below_the_prefix(backend: S3Backend, s3_server: S3Server, bucket: str) -> None:
    """Two projects may share a bucket, and what is another's is never listed, expired or aborted."""
    outside = s3_server.client()
    outside.put_object(Bucket=bucket, Key="temp/theirs", Body=b"")
    outside.create_multipart_upload(Bucket=bucket, Key="temp/theirs.upload")
    await backend.put("temp/ours", b"")
    assert [entry.key for entry in await backend.list("temp/")] == ["temp/ours"]
    await asyncio.sleep(2.1)
    assert await backend.expire(0) == []
    keys = {item["Key"] for item in outside.list_objects_v2(Bucket=bucket)["Contents"]}
    assert keys == {"temp/theirs", "a/prefix/temp/ours"}
    assert len(outside.list_multipart_uploads(Bucket=bucket)["Uploads"]) == 1


@pytest.mark.gen_test
async def test_large_objects_are_moved_in_ranges(
    backend: S3Backend, monkeypatch: pytest.MonkeyPatch, s3_server: S3Server, bucket: str
) -> None:
    """At the same time, and nothing of it is left."""
    monkeypatch.setattr("backends.s3.backend._COPY_RANGE", 5 * MIB)
    data = bytes(range(256)) * (64 * 2**10) + b"the end"
    await backend.put("temp/1.upload", data)
    assert await backend.move("temp/1.upload", "models/a.h5")
    assert await backend.read("models/a.h5") == data
    assert await backend.stat("temp/1.upload") is None
    assert "Uploads" not in s3_server.client().list_multipart_uploads(Bucket=bucket)


@pytest.mark.gen_test
async def test_what_was_put_in_the_place_of_what_is_moved_stays(
    backend: S3Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the store copied, somebody wrote there anew: that is not what was to go."""
    await backend.put("models/a.h5", b"damaged")
    copy = backend.bucket.copy

    async def slow(origin: str, destination: str) -> None:
        await copy(origin, destination)
        await backend.put("models/a.h5", b"sound")

    monkeypatch.setattr(backend.bucket, "copy", slow)
    assert await backend.move("models/a.h5", "quarantine/a.h5")
    assert await backend.read("quarantine/a.h5") == b"damaged"
    assert await backend.read("models/a.h5") == b"sound"


@pytest.mark.gen_test
async def test_small_pieces_are_filled_up_and_large_ones_copied(backend: S3Backend) -> None:
    """Of any sizes, in any order: together they are the object."""
    data = random.Random(3).randbytes(30 * MIB)
    ends = [0, 1, 3 * MIB, 3 * MIB + 5, 8 * MIB, 19 * MIB, 20 * MIB, 26 * MIB, 30 * MIB]
    for number, (start, end) in enumerate(itertools.pairwise(ends)):
        await backend.put(f"incoming/1/{number}", data[start:end])
    await backend.join(await backend.list("incoming/1/"), "temp/1.upload", "")
    assert await backend.read("temp/1.upload") == data


@pytest.mark.gen_test
async def test_an_answer_that_got_lost_is_not_an_upload_that_did(
    backend: S3Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store completes, the connection breaks: it is found complete, and asking again changes nothing."""
    call = backend.bucket.call

    async def lose(method: str, *args: Any, **kwargs: Any) -> Any:
        answer = await call(method, *args, **kwargs)
        if method == "complete_multipart_upload":
            raise StorageUnavailable("lost")
        return answer

    monkeypatch.setattr(backend.bucket, "call", lose)
    writer = await backend.writer("temp/1.upload", "incoming/1/data")
    await writer.write(bytes(20 * MIB))
    await writer.commit()
    entry = await backend.stat("temp/1.upload")
    assert entry
    assert entry.size == 20 * MIB


@pytest.mark.gen_test
async def test_an_upload_whose_next_part_takes_long_does_not_expire(backend: S3Backend) -> None:
    """While bytes come it moves, although the store has not seen them yet; once they do not, it goes."""
    backend.part_bytes = 5 * MIB
    writers = [await backend.writer(f"temp/{name}.upload", "") for name in ("slow", "dead")]
    for writer in writers:
        await writer.write(bytes(5 * MIB))
    expired: Sequence[str] = ()
    while not expired:
        await writers[0].write(b"x")
        expired = await backend.expire(2)
        await asyncio.sleep(0.1)
    assert expired == ["temp/dead.upload"]
    await writers[0].commit()
    entry = await backend.stat("temp/slow.upload")
    assert entry
    assert entry.size > 5 * MIB
    await writers[1].cancel()
    assert backend.bucket.moving == {}


def test_ten_thousand_pieces_are_enough() -> None:
    """Too, and two of them are no more than that in memory; an upload of 2 GiB takes no more than ever."""
    offset, count, largest = 0, 0, 0
    while offset < 5 * 2**40:
        size = Backend.piece_size(None, offset)  # type: ignore[arg-type]  # looks at nothing else
        assert size == 8 * MIB or offset > 2**31
        offset, count, largest = offset + size, count + 1, max(largest, size)
    assert count < MAX_PARTS - 500
    assert largest == 640 * MIB


@pytest.mark.parametrize("first", [5 * MIB, 16 * MIB, 2**30, 6 * 2**30])
def test_ten_thousand_parts_are_enough(first: int) -> None:
    """For the largest object that S3 takes; none is larger than S3 takes, nor than memory should hold."""
    sizes = [part_size(first, number) for number in range(MAX_PARTS)]
    assert sum(sizes) >= 5 * 2**40
    assert sizes[0] == min(first, 5 * 2**30)
    assert max(sizes) <= min(max(first, 640 * MIB), 5 * 2**30)


@pytest.mark.gen_test
async def test_a_model_is_fetched_once(make_two: tuple[S3Backend, S3Backend]) -> None:
    """By however many askers on a machine; what is damaged is never handed out, here or there."""
    one, two = make_two
    digest = hashlib.sha256(b"content").hexdigest()
    await one.put("models/a.h5", b"content")
    asked = [backend.fetch("models/a.h5", digest) for backend in (one, two) for _ in range(5)]
    paths = set(await asyncio.gather(*asked))
    assert len(paths) == 1
    path = paths.pop()
    assert path
    assert path.read_bytes() == b"content"
    await one.put("models/a.h5", b"damaged")
    assert await two.fetch("models/a.h5", digest) == path
    with pytest.raises(Damaged):
        await one.fetch("models/a.h5", "a" * 64)


@pytest.fixture
def make_two(make: Callable[..., S3Backend]) -> tuple[S3Backend, S3Backend]:
    return make(), make()


@pytest.mark.gen_test
async def test_a_bucket_that_cannot_be_used_stops_the_start(s3_server: S3Server, bucket: str) -> None:
    """The message says what is wrong with it."""
    for url, options, said in (
        ("s3://absent-bucket", {**s3_server.options}, "NoSuchBucket"),
        (f"s3://{bucket}", {**s3_server.options, "endpoint_url": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
    ):
        backend = S3Backend(url, options)
        with pytest.raises(ConfigError, match=said):
            await backend.open()


@pytest.mark.swift
@pytest.mark.gen_test
async def test_credentials_that_are_wrong_or_missing_stop_the_start(
    swift: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The message says which, and what to do; never the secret."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    url = f"s3://{swift.make_bucket()}"
    address = {"endpoint_url": swift.endpoint_url, "region": swift.region}
    for options, said in (
        ({**swift.options, "secret": "a wrong one"}, "SignatureDoesNotMatch"),
        (address, "AWS_ACCESS_KEY_ID"),
        ({**address, "profile": "absent"}, "absent"),
    ):
        backend = S3Backend(url, options)
        with pytest.raises(ConfigError, match=said) as caught:
            await backend.open()
        assert "a wrong one" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("bucket", {}),
        ("s3://", {}),
        ("s3://bucket", {"endpoint": "x"}),
        ("s3://bucket", {"path_style": "yes"}),
        ("s3://bucket", {"part_bytes": 1}),
    ],
)
def test_what_makes_no_sense_is_refused(url: str, options: dict[str, Any]) -> None:
    """With the key's name."""
    with pytest.raises(ConfigError, match=r"storage\.(url|options)"):
        S3Backend(url, options)


@pytest.mark.gen_test
async def test_a_bucket_that_goes_away_has_lost_nothing(
    backend: S3Backend, s3_server: S3Server, bucket: str
) -> None:
    """It answers that it is away, never that something is not there."""
    outside = s3_server.client()
    outside.delete_bucket(Bucket=bucket)
    for ask in (
        backend.check,
        lambda: backend.stat("models/a.h5"),
        lambda: backend.read("registered/a.json"),
        lambda: backend.list("temp/"),
        lambda: backend.put("registered/b.json", b""),
        lambda: backend.move("temp/a", "models/a.h5"),
    ):
        with pytest.raises(StorageUnavailable):
            await ask()  # type: ignore[operator]
    outside.create_bucket(Bucket=bucket)
