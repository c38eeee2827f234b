"""The storage contract over a bucket, on the server's own event loop.

What stores do differently is found out by a probe at the start and said in the log.
"""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError

from backends.s3 import multipart, probe
from backends.s3.bucket import Bucket
from backends.s3.errors import Gone, reason
from backends.s3.multipart import MIB, MultipartWriter
from spectrogram_predictor.cache import Cache
from spectrogram_predictor.errors import ConfigError, InsufficientStorage, StorageUnavailable
from spectrogram_predictor.storage import MODELS, QUARANTINE, TEMP, Backend, Entry, Writer

logger = logging.getLogger(__name__)

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
_COPY_RANGE = 256 * MIB


class S3Backend(Backend):
    """Keep objects in a bucket.

    Parameters
    ----------
    url : str
        ``s3://bucket`` or ``s3://bucket/prefix``.
    options : mapping
        ``endpoint_url``, ``region``, ``key``, ``secret``, ``profile``: by default from the usual AWS places.
        ``path_style`` (true): address the bucket in the path. ``part_bytes`` (16 MiB): size of an upload's first
        parts. ``cache`` ("var/cache") and ``cache_bytes`` (16 GiB): the folder for local copies of models.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        name, _, prefix = url.removeprefix("s3://").strip("/").partition("/")
        if not url.startswith("s3://") or not name:
            raise ConfigError(f"storage.url: the s3 backend takes s3://bucket/prefix, not {url!r}")
        for option, value in options.items():
            if option not in OPTIONS:
                raise ConfigError(f"storage.options.{option}: the s3 backend takes {', '.join(OPTIONS)}")
            if type(value) is not OPTIONS[option]:
                raise ConfigError(f"storage.options.{option} must be of type {OPTIONS[option].__name__}")
        self.part_bytes: int = options.get("part_bytes", 16 * MIB)
        if self.part_bytes < multipart.MIN_PART_BYTES:
            raise ConfigError("storage.options.part_bytes: parts of less than 5 MiB are refused by S3")
        self.bucket = Bucket(name, f"{prefix}/" if prefix else "", options)
        self._cache = Cache(Path(options.get("cache", "var/cache")), options.get("cache_bytes", 16 * 2**30))

    @property
    def local_folders(self) -> Sequence[Path]:
        return (self._cache.folder,)

    async def open(self) -> None:
        self._cache.check()
        try:
            await self.bucket.connect()
            await self.check()
            for lack in await probe.probe(self.bucket):
                logger.warning("the store behind %s %s", self.bucket.name, lack)
        except (StorageUnavailable, InsufficientStorage, BotoCoreError, OSError, ValueError) as error:
            await self.close()
            raise ConfigError(
                f"storage.url: cannot keep objects in {self.bucket.name}: {reason(error)}"
            ) from error

    async def close(self) -> None:
        await self.bucket.close()

    async def check(self) -> None:
        await self.bucket.page("", 1)

    async def now(self) -> float:
        return await self.bucket.now()

    async def list(self, prefix: str) -> list[Entry]:
        return await self.bucket.list(prefix)

    async def stat(self, key: str) -> Entry | None:
        return await self.bucket.stat(key)

    async def read(self, key: str, size: int = -1) -> bytes | None:
        content = bytearray()
        try:
            async for chunk in self.bucket.chunks(key):
                content += chunk
                if 0 <= size <= len(content):
                    break
        except Gone:
            return None
        return bytes(content if size < 0 else content[:size])

    async def chunks(self, key: str) -> AsyncIterator[bytes]:
        async for chunk in self.bucket.chunks(key):
            yield chunk

    async def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        return await self.bucket.put(key, data, exclusive=exclusive)

    async def writer(self, key: str, staging: str) -> Writer:  # noqa: ARG002  # S3 keeps the parts by itself
        return MultipartWriter(self.bucket, key, self.part_bytes)

    async def expire(self, age_s: float) -> Sequence[str]:
        oldest = await self.now() - age_s
        for entry in await self.list(probe.PREFIX):
            # Of a server that died as it started.
            if entry.modified < oldest:
                await self.delete(entry.key)
        # Those that are ours: below the same prefix there may be another project's.
        return await multipart.expire(self.bucket, (TEMP, MODELS, QUARANTINE, probe.PREFIX), age_s)

    async def move(self, source: str, destination: str) -> bool:
        entry = await self.stat(source)
        if entry is None:
            return False
        try:
            await self._copy(entry, destination)
        except Gone:
            return False
        copied = await self.stat(destination)
        if copied is None or copied.size != entry.size:
            raise StorageUnavailable("the storage does not answer as it should")
        if await self.stat(source) == entry:
            await self.delete(source)
        return True

    async def _copy(self, entry: Entry, destination: str) -> None:
        if entry.size > _COPY_RANGE:
            await multipart.copy_ranges(self.bucket, entry, destination, _COPY_RANGE)
        else:
            await self.bucket.copy(entry.key, destination)

    async def join(self, parts: Sequence[Entry], key: str, staging: str) -> None:  # noqa: ARG002
        await multipart.join(self.bucket, parts, key)

    async def delete(self, key: str) -> None:
        await self.bucket.delete(key)

    async def fetch(self, key: str, sha256: str) -> Path | None:
        try:
            return await self._cache.get(sha256, lambda: self.chunks(key), anew=key.startswith(TEMP))
        except Gone:
            return None

    async def distrust(self, sha256: str) -> None:
        self._cache.distrust(sha256)
