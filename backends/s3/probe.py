"""What a store can do, found out by trying it: S3 is spoken in dialects."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

from backends.s3.bucket import Bucket, checksum
from backends.s3.errors import Gone
from backends.s3.multipart import MIN_PART_BYTES, MultipartUpload
from spectrogram_predictor.errors import StorageUnavailable
from spectrogram_predictor.storage import NOT_EXCLUSIVE

PREFIX = "probe/"

_RIVALS = 8
_RACES = 3


async def probe(bucket: Bucket) -> list[str]:
    """Set the bucket up for what the store can do; return what it cannot, in words.

    Raises
    ------
    StorageUnavailable
        It cannot be used at all.
    """
    key = f"{PREFIX}{uuid.uuid4().hex}"
    try:
        await bucket.put(key, b"probe")
        if await _read(bucket, key) != b"probe":
            raise StorageUnavailable("what was written is not what is read")
        await _copy(bucket, key)
        return [lack async for lack in _lacks(bucket, key)]
    finally:
        await bucket.delete(key)


async def _copy(bucket: Bucket, key: str) -> None:
    copied = f"{key}-copy"
    try:
        await bucket.copy(key, copied)
        if await _read(bucket, copied) != b"probe":
            raise StorageUnavailable("what was copied is not what is read")
    finally:
        await bucket.delete(copied)


async def _lacks(bucket: Bucket, key: str) -> AsyncIterator[str]:
    wins = [await _race(bucket, f"{key}-{number}") for number in range(_RACES)]
    if any(won != 1 for won in wins):
        bucket.exclusive = max(wins) == 1
        yield NOT_EXCLUSIVE
    if not await _copies_ranges(bucket, f"{key}-ranges"):
        yield "does not copy ranges: large models, and uploads that were gone on with, cannot be promoted"
    if await _takes_wrong_part(bucket, f"{key}-part"):
        yield "does not check the SHA-256 of parts: damage on the way to it shows at promotion only"
    else:
        bucket.trust_checksums()


async def _race(bucket: Bucket, key: str) -> int:
    """Let rivals create one object; return how many were told that they did."""
    puts = (bucket.put(key, b"%d" % number, exclusive=True) for number in range(_RIVALS))
    won = await asyncio.gather(*puts, return_exceptions=True)
    await bucket.delete(key)
    return sum(result is True for result in won)


async def _copies_ranges(bucket: Bucket, key: str) -> bool:
    copied = f"{key}-copy"
    # Of a smaller object S3 need not copy a range.
    await bucket.put(key, bytes(MIN_PART_BYTES) + b"probe")
    upload = MultipartUpload(bucket, copied)
    try:
        await upload.create()
        await upload.copy(1, key, range(MIN_PART_BYTES, MIN_PART_BYTES + 5))
        await upload.complete(5)
        return await _read(bucket, copied) == b"probe"
    except StorageUnavailable:
        return False
    finally:
        await upload.abort()
        await bucket.delete(copied)
        await bucket.delete(key)


async def _read(bucket: Bucket, key: str) -> bytes:
    return b"".join([chunk async for chunk in bucket.chunks(key)])


async def _takes_wrong_part(bucket: Bucket, key: str) -> bool:
    answer = await bucket.call("create_multipart_upload", key, ChecksumAlgorithm="SHA256")
    name = {"key": key, "UploadId": answer["UploadId"]}
    try:
        await bucket.call("upload_part", **name, PartNumber=1, Body=b"right", ChecksumSHA256=checksum(b"wrong"))
    except StorageUnavailable:
        return False
    else:
        return True
    finally:
        with contextlib.suppress(Gone):
            await bucket.call("abort_multipart_upload", **name)
