"""Objects made of parts: sent as they arrive, or copied in ranges; those that nobody finishes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

from backends.s3.bucket import PAUSE_S, TRIES, Bucket, checksum
from backends.s3.errors import Gone
from spectrogram_predictor.errors import StorageUnavailable
from spectrogram_predictor.storage import Entry, Writer

logger = logging.getLogger(__name__)

MIB = 2**20

MAX_PARTS = 10_000
"""S3's limit, as are the 5 TiB of an object and the 5 GiB of a part."""

MIN_PART_BYTES = 5 * MIB
"""S3 takes no smaller ones, but for the last."""

_MAX_PART_BYTES = 5 * 2**30
_COPIES = 8
_PARTS_OF_A_SIZE = 250
_GROWN_BYTES = 640 * MIB
_IN_FLIGHT_BYTES = 32 * MIB


def part_size(first: int, number: int) -> int:
    """Return how large a part should be [bytes] after so many: they grow, so that 10,000 are enough.

    Notes
    -----
    They are in memory. 10,000 equal ones of 5 TiB have 525 MiB: small at first, they need not grow much further.
    """
    grown = min(first << (number // _PARTS_OF_A_SIZE), _GROWN_BYTES)
    return min(max(first, grown), _MAX_PART_BYTES)


class MultipartUpload:
    """An object that appears once all its parts are there.

    Parameters
    ----------
    bucket : Bucket
        Where.
    key : str
        The object's.
    """

    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._name = {"key": key}
        self._parts: dict[int, dict[str, str]] = {}

    async def create(self, **arguments: Any) -> None:
        """Begin it."""
        answer = await self._bucket.call("create_multipart_upload", **self._name, **arguments)
        self._name["UploadId"] = answer["UploadId"]
        self.touch()

    def touch(self) -> None:
        """Note that something has come for it, which the store sees with the next part only."""
        self._bucket.moving[self._name["UploadId"]] = time.monotonic()

    async def send(self, number: int, body: BytesIO) -> None:
        """Add a part, from 1 on, with its SHA-256."""
        with body.getbuffer() as content:
            sha256 = await asyncio.to_thread(checksum, content)
        body.seek(0)
        answer = await self._bucket.call(
            "upload_part", **self._name, PartNumber=number, Body=body, ChecksumSHA256=sha256
        )
        self._parts[number] = {"ETag": answer["ETag"], "ChecksumSHA256": sha256}

    async def copy(self, number: int, origin: str, content: range) -> None:
        """Add a part that the store copies: these bytes of another object."""
        answer = await self._bucket.call(
            "upload_part_copy",
            **self._name,
            PartNumber=number,
            CopySource=self._bucket.origin(origin),
            CopySourceRange=f"bytes={content[0]}-{content[-1]}",
        )
        self._parts[number] = {"ETag": answer["CopyPartResult"]["ETag"]}
        self.touch()

    async def complete(self, size: int, before: Entry | None = None) -> None:
        """Let the object appear.

        Parameters
        ----------
        size : int
            What it has to have [bytes].
        before : Entry or None
            What was there under the key, if anything can have been.
        """
        parts = [{"PartNumber": number, **part} for number, part in sorted(self._parts.items())]
        arguments: dict[str, Any] = {**self._name, "MultipartUpload": {"Parts": parts}}
        for attempt in range(TRIES):
            try:
                await self._bucket.call("complete_multipart_upload", **arguments)
            except StorageUnavailable as error:
                # It may have been done, and only the answer got lost.
                entry = await self._bucket.stat(self._name["key"])
                if entry and entry.size == size and entry != before:
                    logger.info("%s is complete, although the storage did not say so", entry.key)
                    break
                if isinstance(error, Gone) or attempt == TRIES - 1:
                    raise StorageUnavailable("the storage did not complete the upload") from error
                await asyncio.sleep(PAUSE_S * 4**attempt)
            else:
                break
        self._bucket.moving.pop(self._name["UploadId"], None)

    async def abort(self) -> None:
        """Let go of the parts; what cannot be aborted now expires."""
        self._bucket.moving.pop(self._name.get("UploadId", ""), None)
        with contextlib.suppress(StorageUnavailable):
            await self._bucket.call("abort_multipart_upload", **self._name)


class MultipartWriter(Writer):
    """A multipart upload onto the final key, straight from the stream; a small object in one request.

    In memory are the part that is being filled and those on their way.
    """

    def __init__(self, bucket: Bucket, key: str, part_bytes: int) -> None:
        self._bucket = bucket
        self._key = key
        self._part_bytes = part_bytes
        self._upload: MultipartUpload | None = None
        self._part = BytesIO()
        self._number = 0
        self._size = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._committed = False

    async def write(self, data: bytes) -> None:
        self._part.write(data)
        self._size += len(data)
        if self._upload:
            self._upload.touch()
        if self._part.tell() >= part_size(self._part_bytes, self._number):
            await self._send()

    async def commit(self) -> None:
        if not self._upload:
            await self._bucket.put(self._key, self._part.getvalue())
        else:
            if self._part.tell():
                await self._send()
            await self._until_under_way(0)
            await self._upload.complete(self._size)
        self._committed = True

    async def cancel(self) -> None:
        if self._committed:
            return
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._sending.clear()
        self._part = BytesIO()
        if self._upload:
            await self._upload.abort()
            self._upload = None

    async def _send(self) -> None:
        if not self._upload:
            upload = MultipartUpload(self._bucket, self._key)
            await upload.create(ChecksumAlgorithm="SHA256")
            self._upload = upload
        await self._until_under_way(max(_IN_FLIGHT_BYTES // self._part.tell(), 1) - 1)
        self._number += 1
        self._sending.add(asyncio.create_task(self._upload.send(self._number, self._part)))
        self._part = BytesIO()

    async def _until_under_way(self, most: int) -> None:
        """Wait until no more parts than that are on their way; raise what became of one."""
        while len(self._sending) > most:
            done, _ = await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # One that failed stays: nothing can be committed without it.
                await task
                self._sending.discard(task)


async def copy_ranges(bucket: Bucket, entry: Entry, destination: str, range_bytes: int) -> None:
    """Let the store copy a large object, in ranges at the same time."""
    content = range(entry.size)
    step = max(range_bytes, -(-entry.size // MAX_PARTS))
    ranges = (content[first : first + step] for first in content[::step])
    await _assemble(bucket, destination, entry.size, ([(entry.key, part)] for part in ranges))


async def join(bucket: Bucket, entries: Sequence[Entry], destination: str) -> None:
    """Let the store make one object of several; those too small for a part are fetched, and sent together."""
    size = sum(entry.size for entry in entries)
    await _assemble(bucket, destination, size, _parts(entries))


Piece = tuple[str, range]
"""An object's key, and which of its bytes."""


def _parts(entries: Sequence[Entry]) -> Iterator[list[Piece]]:
    """Yield what becomes one part each: at least 5 MiB, but for the last.

    What is too small is filled up from what follows, and with no more than it takes: that is fetched and sent.
    """
    group: list[Piece] = []
    missing = MIN_PART_BYTES
    for entry in entries:
        content = range(entry.size)
        if group and len(content) >= missing + MIN_PART_BYTES:
            yield [*group, (entry.key, content[:missing])]
            group, content, missing = [], content[missing:], MIN_PART_BYTES
        group.append((entry.key, content))
        missing -= len(content)
        if missing <= 0:
            yield group
            group, missing = [], MIN_PART_BYTES
    if group:
        yield group


async def _assemble(bucket: Bucket, key: str, size: int, parts: Iterable[Sequence[Piece]]) -> None:
    """Make an object of what is in the bucket, several parts at the same time."""
    before = await bucket.stat(key)
    upload = MultipartUpload(bucket, key)
    await upload.create()
    places = asyncio.Semaphore(_COPIES)
    tasks = [
        asyncio.create_task(_add(bucket, upload, number, part, places))
        for number, part in enumerate(parts, start=1)
    ]
    try:
        await asyncio.gather(*tasks)
        await upload.complete(size, before)
    except BaseException:
        # A part that arrives after the abort stays, and costs money.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await upload.abort()
        raise


async def _add(
    bucket: Bucket, upload: MultipartUpload, number: int, part: Sequence[Piece], places: asyncio.Semaphore
) -> None:
    async with places:
        if len(part) == 1:
            await upload.copy(number, *part[0])
            return
        body = BytesIO()
        for key, content in part:
            async for chunk in bucket.chunks(key, content):
                body.write(chunk)
        await upload.send(number, body)


async def expire(bucket: Bucket, prefixes: tuple[str, ...], age_s: float) -> Sequence[str]:
    """Abort uploads below these prefixes to which nobody has added for so long; return their keys.

    Notes
    -----
    Of other processes' uploads only whole parts are seen.
    """
    oldest = await bucket.now() - age_s
    ours = {upload_id for upload_id, moved in bucket.moving.items() if moved > time.monotonic() - age_s}
    expired = []
    for upload in await _begun(bucket):
        name = {"key": upload["Key"].removeprefix(bucket.prefix), "UploadId": upload["UploadId"]}
        old = name["key"].startswith(prefixes) and upload["Initiated"].timestamp() <= oldest
        if old and name["UploadId"] not in ours and await _last_part(bucket, name) <= oldest:
            with contextlib.suppress(Gone):
                await bucket.call("abort_multipart_upload", **name)
                bucket.moving.pop(name["UploadId"], None)
                expired.append(name["key"])
    return expired


async def _begun(bucket: Bucket) -> Sequence[Mapping[str, Any]]:
    """Return the multipart uploads that there are."""
    found: list[Mapping[str, Any]] = []
    marker: dict[str, str] = {}
    while True:
        answer = await bucket.call("list_multipart_uploads", Prefix=bucket.prefix, **marker)
        found += answer.get("Uploads", ())
        if not answer.get("IsTruncated"):
            return found
        marker = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}


async def _last_part(bucket: Bucket, name: Mapping[str, str]) -> float:
    """Return when the last part of a multipart upload came [s since 1970]; 0 if none has."""
    newest, marker = 0.0, 0
    while True:
        try:
            answer = await bucket.call("list_parts", **name, PartNumberMarker=marker)
        except Gone:
            return newest
        for part in answer.get("Parts", ()):
            newest = max(newest, float(part["LastModified"].timestamp()))
        if not answer.get("IsTruncated"):
            return newest
        marker = answer["NextPartNumberMarker"]
