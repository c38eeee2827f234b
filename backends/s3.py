"""A bucket of an S3 store, through s3fs on the server's own event loop.

s3fs knows credentials, endpoints and retries; it has no asynchronous writer, so multipart uploads are ours, over
its calls. What stores do differently is found out by a probe at the start and said in the log.
"""

import asyncio
import base64
import contextlib
import email.utils
import hashlib
import logging
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import s3fs
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from spectrogram_predictor.cache import Cache
from spectrogram_predictor.errors import ConfigError, InsufficientStorage, StorageUnavailable
from spectrogram_predictor.storage import MODELS, QUARANTINE, TEMP, Backend, Entry, Writer

logger = logging.getLogger(__name__)

MIB = 2**20

MAX_PARTS = 10_000
"""S3's limit, as are the 5 GiB of a part and of a copy in one request."""

MAX_COPY_BYTES = 5 * 2**30

OPTIONS: dict[str, type] = {
    "endpoint_url": str,
    "region": str,
    "key": str,
    "secret": str,
    "profile": str,
    "path_style": bool,
    "part_bytes": int,
    "cache": str,
    "cache_bytes": int,
}
_IN_FLIGHT = 2
_COPY_RANGE = 256 * MIB
_CHUNK = MIB
_TRIES = 3
_RIVALS = 8
_PAUSE_S = 0.2
_PROBE = "probe/"
_READ_TIMEOUT_S = 60.0


class _GoneError(StorageUnavailable):
    """There is no such object or multipart upload."""


class _TakenError(StorageUnavailable):
    """There is an object already, or somebody else is just making it."""


class S3Backend(Backend):
    """Keep objects in a bucket.

    Parameters
    ----------
    url : str
        ``s3://bucket`` or ``s3://bucket/prefix``.
    options : mapping
        ``endpoint_url``, ``region``, ``key``, ``secret``, ``profile``: by default from the usual AWS places.
        ``path_style`` (true): address the bucket in the path. ``part_bytes`` (8 MiB): size of an upload's first
        parts. ``cache`` ("var/cache") and ``cache_bytes`` (16 GiB): the folder for local copies of models.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._bucket, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
        if not url.startswith("s3://") or not self._bucket:
            raise ConfigError(f"storage.url: the s3 backend takes s3://bucket/prefix, not {url!r}")
        for name, value in options.items():
            if name not in OPTIONS:
                raise ConfigError(f"storage.options.{name}: the s3 backend takes {', '.join(OPTIONS)}")
            if type(value) is not OPTIONS[name]:
                raise ConfigError(f"storage.options.{name} must be of type {OPTIONS[name].__name__}")
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options
        self.part_bytes: int = options.get("part_bytes", 8 * MIB)
        if self.part_bytes < 5 * MIB:
            raise ConfigError("storage.options.part_bytes: parts of less than 5 MiB are refused by S3")
        self._cache = Cache(Path(options.get("cache", "var/cache")), options.get("cache_bytes", 16 * 2**30))
        self._exclusive = True

    @property
    def local_folders(self) -> Sequence[Path]:
        return (self._cache.folder,)

    async def open(self) -> None:
        self._fs = s3fs.S3FileSystem(
            asynchronous=True,
            skip_instance_cache=True,
            use_listings_cache=False,
            endpoint_url=self._options.get("endpoint_url"),
            key=self._options.get("key"),
            secret=self._options.get("secret"),
            profile=self._options.get("profile"),
            client_kwargs={"region_name": self._options["region"]} if "region" in self._options else {},
            config_kwargs={
                "connect_timeout": 5,
                "read_timeout": _READ_TIMEOUT_S,
                "retries": {"mode": "standard", "max_attempts": _TRIES},
                "s3": {"addressing_style": "path" if self._options.get("path_style", True) else "auto"},
                # Ours are in the requests that carry bytes; not every store knows the others.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        )
        # botocore tries again by itself.
        self._fs.retries = 1
        try:
            await self._fs.set_session()
            await self._probe()
        except (StorageUnavailable, InsufficientStorage, BotoCoreError, OSError, ValueError) as error:
            await self.close()
            raise ConfigError(f"storage.url: cannot keep objects in {self._bucket}: {_reason(error)}") from error

    async def close(self) -> None:
        if client := getattr(self._fs, "_s3", None):
            self._fs._s3 = None
            await client.close()

    async def check(self) -> None:
        await self._page("", 1)

    async def now(self) -> float:
        answer = await self._page("", 1)
        date = answer["ResponseMetadata"]["HTTPHeaders"]["date"]
        return float(email.utils.parsedate_to_datetime(date).timestamp())

    async def list(self, prefix: str) -> list[Entry]:
        found: list[Entry] = []
        token: dict[str, str] = {}
        while True:
            answer = await self._page(prefix, 1000, **token)
            found += [self._entry(item) for item in answer.get("Contents", ())]
            if not answer.get("IsTruncated"):
                return sorted(found, key=lambda entry: entry.key)
            token = {"ContinuationToken": answer["NextContinuationToken"]}

    async def stat(self, key: str) -> Entry | None:
        # Not HEAD: its 404 does not say whether it is the object or the whole bucket that is away.
        answer = await self._page(key, 1)
        entries = [self._entry(item) for item in answer.get("Contents", ())]
        return next((entry for entry in entries if entry.key == key), None)

    async def read(self, key: str, size: int = -1) -> bytes | None:
        content = bytearray()
        try:
            async for chunk in self._read(key):
                content += chunk
                if 0 <= size <= len(content):
                    break
        except _GoneError:
            return None
        return bytes(content if size < 0 else content[:size])

    async def chunks(self, key: str) -> AsyncIterator[bytes]:
        async for chunk in self._read(key):
            yield chunk

    async def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        if exclusive and not self._exclusive and await self.stat(key):
            return False
        condition = {"IfNoneMatch": "*"} if exclusive and self._exclusive else {}
        for _ in range(_TRIES):
            try:
                await self._call("put_object", key, Body=data, ChecksumSHA256=_checksum(data), **condition)
            except _TakenError:
                if exclusive and await self.stat(key):
                    return False
                # Somebody's write was under way, and came to nothing.
                await asyncio.sleep(_PAUSE_S)
            else:
                return True
        raise StorageUnavailable("the storage does not answer as it should")

    async def writer(self, key: str, staging: str) -> Writer:  # noqa: ARG002  # S3 keeps the parts by itself
        return _S3Writer(self, key)

    async def expire(self, age_s: float) -> Sequence[str]:
        oldest = await self.now() - age_s
        expired = []
        for upload in await self._multipart_uploads():
            name = {"key": upload["Key"].removeprefix(self._prefix), "UploadId": upload["UploadId"]}
            if upload["Initiated"].timestamp() <= oldest and await self._last_part(**name) <= oldest:
                with contextlib.suppress(_GoneError):
                    await self._call("abort_multipart_upload", **name)
                    expired.append(name["key"])
        return expired

    async def move(self, source: str, destination: str) -> bool:
        entry = await self.stat(source)
        if entry is None:
            return False
        try:
            await self._copy(entry, destination)
        except _GoneError:
            return False
        copied = await self.stat(destination)
        if copied is None or copied.size != entry.size:
            raise StorageUnavailable("the storage does not answer as it should")
        await self.delete(source)
        return True

    async def delete(self, key: str) -> None:
        with contextlib.suppress(_GoneError):
            await self._call("delete_object", key)

    async def fetch(self, key: str, sha256: str) -> Path | None:
        try:
            return await self._cache.get(sha256, lambda: self.chunks(key))
        except _GoneError:
            return None

    async def _call(self, method: str, key: str | None = None, **arguments: Any) -> Any:
        """Call S3; errors are of our tree."""
        if key is not None:
            arguments["Key"] = self._prefix + key
        try:
            return await self._fs._call_s3(method, Bucket=self._bucket, **arguments)
        except (OSError, BotoCoreError, ClientError, TimeoutError) as error:
            raise _translated(error) from error

    async def _page(self, prefix: str, size: int, **token: str) -> Any:
        return await self._call("list_objects_v2", Prefix=self._prefix + prefix, MaxKeys=size, **token)

    async def _read(self, key: str) -> AsyncIterator[bytes]:
        answer = await self._call("get_object", key)
        received = 0
        try:
            async with answer["Body"] as body:
                while chunk := await body.read(_CHUNK):
                    received += len(chunk)
                    yield chunk
        except (OSError, BotoCoreError, TimeoutError) as error:
            raise StorageUnavailable("the storage stopped in the middle of an object") from error
        if received != answer["ContentLength"]:
            raise StorageUnavailable("the storage stopped in the middle of an object")

    async def _copy(self, entry: Entry, destination: str) -> None:
        origin = {"Bucket": self._bucket, "Key": self._prefix + entry.key}
        if entry.size <= _COPY_RANGE:
            await self._call("copy_object", destination, CopySource=origin)
            return
        async with self._multipart(destination, entry.size) as (name, parts):
            ranges = range(0, entry.size, max(_COPY_RANGE, -(-entry.size // MAX_PARTS)))

            async def copy(number: int, first: int) -> None:
                last = min(first + ranges.step, entry.size) - 1
                answer = await self._call(
                    "upload_part_copy",
                    **name,
                    PartNumber=number,
                    CopySource=origin,
                    CopySourceRange=f"bytes={first}-{last}",
                )
                parts[number] = {"ETag": answer["CopyPartResult"]["ETag"]}

            copies = [asyncio.create_task(copy(number, first)) for number, first in enumerate(ranges, start=1)]
            try:
                await asyncio.gather(*copies)
            finally:
                # A part that arrives after the abort stays, and costs money.
                for task in copies:
                    task.cancel()
                await asyncio.gather(*copies, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def _multipart(
        self, key: str, size: int
    ) -> AsyncIterator[tuple[dict[str, str], dict[int, dict[str, str]]]]:
        """Make an object of parts: complete it at the end, abort it at an error."""
        before = await self.stat(key)
        answer = await self._call("create_multipart_upload", key)
        name = {"key": key, "UploadId": answer["UploadId"]}
        parts: dict[int, dict[str, str]] = {}
        try:
            yield name, parts
            await self._complete(name, parts, size, before)
        except BaseException:
            with contextlib.suppress(StorageUnavailable):
                await self._call("abort_multipart_upload", **name)
            raise

    async def _complete(
        self,
        name: Mapping[str, str],
        parts: Mapping[int, Mapping[str, str]],
        size: int,
        before: Entry | None = None,
    ) -> None:
        listed = [{"PartNumber": number, **part} for number, part in sorted(parts.items())]
        for attempt in range(_TRIES):
            try:
                await self._call("complete_multipart_upload", **name, MultipartUpload={"Parts": listed})
            except StorageUnavailable as error:
                # It may have been done, and only the answer got lost.
                entry = await self.stat(name["key"])
                if entry and entry.size == size and entry != before:
                    logger.info("%s is complete, although the storage did not say so", name["key"])
                    return
                if isinstance(error, _GoneError) or attempt == _TRIES - 1:
                    raise StorageUnavailable("the storage did not complete the upload") from error
                await asyncio.sleep(_PAUSE_S * 4**attempt)
            else:
                return

    async def _multipart_uploads(self) -> Sequence[Mapping[str, Any]]:
        """Return those that are ours; below the same prefix there may be another project's."""
        found = []
        for folder in (TEMP, MODELS, QUARANTINE, _PROBE):
            marker: dict[str, str] = {}
            while True:
                answer = await self._call("list_multipart_uploads", Prefix=self._prefix + folder, **marker)
                found += answer.get("Uploads", ())
                if not answer.get("IsTruncated"):
                    break
                marker = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}
        return found

    async def _last_part(self, **name: str) -> float:
        """Return when the last part of a multipart upload came [s since 1970]; 0 if none has."""
        newest, marker = 0.0, 0
        while True:
            try:
                answer = await self._call("list_parts", **name, PartNumberMarker=marker)
            except _GoneError:
                return newest
            for part in answer.get("Parts", ()):
                newest = max(newest, float(part["LastModified"].timestamp()))
            if not answer.get("IsTruncated"):
                return newest
            marker = answer["NextPartNumberMarker"]

    def _entry(self, item: Mapping[str, Any]) -> Entry:
        modified = item["LastModified"].timestamp()
        key = item["Key"].removeprefix(self._prefix)
        return Entry(key, item["Size"], modified, f"{item['ETag']}-{modified}")

    async def _probe(self) -> None:
        """Find out what the store can do; raise if it cannot be used at all."""
        key = f"{_PROBE}{uuid.uuid4().hex}"
        await self.check()
        try:
            await self.put(key, b"probe")
            if await self.read(key) != b"probe":
                raise StorageUnavailable("what was written is not what is read")
            for lack in [lack async for lack in self._lacks(key)]:
                logger.warning("the store behind %s %s", self._bucket, lack)
        finally:
            await self.delete(key)

    async def _lacks(self, key: str) -> AsyncIterator[str]:
        wins = [await self._race(f"{key}-{number}") for number in range(3)]
        if any(won != 1 for won in wins):
            self._exclusive = max(wins) == 1
            yield "does not create objects exclusively: of two registrations at the same time, either may win"
        if await self._takes_wrong_part(f"{key}-part"):
            yield "does not check the SHA-256 of parts: damage on the way to it shows at promotion only"

    async def _race(self, key: str) -> int:
        """Let rivals create one object; return how many were told that they did."""
        puts = (self.put(key, b"%d" % number, exclusive=True) for number in range(_RIVALS))
        won = await asyncio.gather(*puts, return_exceptions=True)
        await self.delete(key)
        return sum(result is True for result in won)

    async def _takes_wrong_part(self, key: str) -> bool:
        answer = await self._call("create_multipart_upload", key)
        name = {"key": key, "UploadId": answer["UploadId"]}
        try:
            await self._call(
                "upload_part", **name, PartNumber=1, Body=b"right", ChecksumSHA256=_checksum(b"wrong")
            )
        except StorageUnavailable:
            return False
        else:
            return True
        finally:
            with contextlib.suppress(_GoneError):
                await self._call("abort_multipart_upload", **name)


class _S3Writer(Writer):
    """A multipart upload onto the final key, straight from the stream; a small object in one request.

    In memory are the part that is being filled and those on their way. Parts grow, so that S3's 10,000 are enough
    for its 5 TB.
    """

    def __init__(self, backend: S3Backend, key: str) -> None:
        self._backend = backend
        self._key = key
        self._name: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._filled = 0
        self._size = 0
        self._number = 0
        self._parts: dict[int, dict[str, str]] = {}
        self._sending: deque[asyncio.Task[None]] = deque()
        self._committed = False

    async def write(self, data: bytes) -> None:
        self._chunks.append(data)
        self._filled += len(data)
        self._size += len(data)
        if self._filled >= self._backend.part_bytes << (self._number // 1000):
            await self._send()

    async def commit(self) -> None:
        if not self._name:
            await self._backend.put(self._key, self._take())
        else:
            if self._filled:
                await self._send()
            while self._sending:
                await self._sending.popleft()
            await self._backend._complete(self._name, self._parts, self._size)
        self._committed = True

    async def cancel(self) -> None:
        if self._committed:
            return
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        self._sending.clear()
        self._take()
        if self._name:
            # What cannot be aborted now expires.
            with contextlib.suppress(StorageUnavailable):
                await self._backend._call("abort_multipart_upload", **self._name)
            self._name = {}

    def _take(self) -> bytes:
        data = b"".join(self._chunks)
        self._chunks, self._filled = [], 0
        return data

    async def _send(self) -> None:
        if not self._name:
            answer = await self._backend._call("create_multipart_upload", self._key, ChecksumAlgorithm="SHA256")
            self._name = {"key": self._key, "UploadId": answer["UploadId"]}
        while len(self._sending) >= _IN_FLIGHT:
            await self._sending.popleft()
        self._number += 1
        self._sending.append(asyncio.create_task(self._send_part(self._number, self._take())))

    async def _send_part(self, number: int, data: bytes) -> None:
        checksum = await asyncio.to_thread(_checksum, data)
        answer = await self._backend._call(
            "upload_part", **self._name, PartNumber=number, Body=data, ChecksumSHA256=checksum
        )
        self._parts[number] = {"ETag": answer["ETag"], "ChecksumSHA256": checksum}


def _checksum(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def _translated(error: BaseException) -> StorageUnavailable | InsufficientStorage:
    code, status = _answer(error)
    if code in ("NoSuchKey", "NoSuchUpload"):
        return _GoneError("there is no such object")
    if status in (409, 412):
        return _TakenError("there is such an object already")
    if status == 507 or code in ("QuotaExceeded", "InsufficientStorage", "StorageFull", "XMinioStorageFull"):
        return InsufficientStorage("there is no room to store it")
    return StorageUnavailable("the storage does not answer as it should")


def _answer(error: BaseException | None) -> tuple[str, int]:
    """Return code and status of what S3 said, however s3fs has wrapped it."""
    while error is not None and not isinstance(error, ClientError):
        error = error.__cause__ or error.__context__
    if error is None:
        return "", 0
    response: Any = error.response
    return response["Error"].get("Code", ""), response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _reason(error: BaseException) -> str:
    code, status = _answer(error)
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, BotoCoreError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, NoCredentialsError):
        return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
    return f"{code} ({status})" if code else str(cause or error)
