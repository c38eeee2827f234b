"""Any filesystem that fsspec has a name for, with the guarantees that it has.

What it lacks is found out at the start and said in the log. One thread does everything: few of fsspec's
filesystems may be used from several at once.
"""

import asyncio
import contextlib
import datetime
import errno
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

from backends.local import raise_unless_gone
from spectrogram_predictor.cache import Cache
from spectrogram_predictor.errors import ConfigError, InsufficientStorage, StorageUnavailable
from spectrogram_predictor.storage import INCOMING, NOT_EXCLUSIVE, TEMP, Backend, Entry, Writer, partials

logger = logging.getLogger(__name__)

T = TypeVar("T")

_OPTIONS: dict[str, type] = {"cache": str, "cache_bytes": int}
_CHUNK = 8 * 2**20
_SCRATCH = ".scratch"
_TIMES = ("mtime", "modified", "last_modified", "LastModified", "updated", "created")
_VERSIONS = ("ETag", "etag", "generation", "ino")


class GenericBackend(Backend):
    """Keep objects in one of fsspec's filesystems.

    Parameters
    ----------
    url : str
        As fsspec takes it: ``sftp://host/folder``, ``gs://bucket/prefix``, ``memory://name``.
    options : mapping
        ``cache`` ("var/cache") and ``cache_bytes`` (16 GiB): the folder for local copies of models. All
        others are the filesystem's own.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        own = dict(options)
        for option, type_ in _OPTIONS.items():
            if type(own.get(option, type_())) is not type_:
                raise ConfigError(f"storage.options.{option} must be of type {type_.__name__}")
        self._cache = Cache(Path(own.pop("cache", "var/cache")), own.pop("cache_bytes", 16 * 2**30))
        self._url = url
        self._options = own
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="storage")
        self._moving: dict[str, float] = {}
        self._exclusive = self._ages = self._replacing = True
        self._clock = f"{_SCRATCH}/clock-{uuid.uuid4().hex}"

    @property
    def local_folders(self) -> Sequence[Path]:
        return (self._cache.folder,)

    async def open(self) -> None:
        self._cache.check()
        try:
            await self._run(self._connect)
            for lack in await self._run(lambda: list(self._lacks())):
                logger.warning("the filesystem behind %s %s", self._url, lack)
        except (StorageUnavailable, InsufficientStorage) as error:
            await self.close()
            reason = error.__cause__ or error
            raise ConfigError(f"storage.url: cannot keep objects in {self._url}: {reason}") from error

    async def close(self) -> None:
        if hasattr(self, "_fs"):
            with contextlib.suppress(StorageUnavailable):
                await self.delete(self._clock)
        self._thread.shutdown(wait=True)

    async def check(self) -> None:
        await self.now()

    async def now(self) -> float:
        if not self._ages:
            return time.time()

        def now() -> float:
            self._write(self._clock, b"")
            return _modified(self._fs.info(self._path(self._clock)))

        return await self._run(now)

    async def list(self, prefix: str) -> list[Entry]:
        def find() -> list[Entry]:
            with contextlib.suppress(FileNotFoundError):
                found = self._fs.find(self._path(prefix.rstrip("/")), detail=True, on_error=raise_unless_gone)
                return sorted((self._entry(info) for info in found.values()), key=lambda entry: entry.key)
            return []

        return await self._run(find)

    async def stat(self, key: str) -> Entry | None:
        def stat() -> Entry | None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                info = self._fs.info(self._path(key))
                return self._entry(info) if info["type"] == "file" else None
            return None

        return await self._run(stat)

    async def read(self, key: str, size: int = -1) -> bytes | None:
        def read() -> bytes | None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                data: bytes = self._fs.cat_file(self._path(key), start=0, end=size if size >= 0 else None)
                return data
            return None

        return await self._run(read)

    async def chunks(self, key: str) -> AsyncIterator[bytes]:
        size = (await self._run(lambda: self._fs.info(self._path(key))))["size"]
        for start in range(0, size, _CHUNK):
            end = min(start + _CHUNK, size)
            data: bytes = await self._run(
                lambda start=start, end=end: self._fs.cat_file(self._path(key), start=start, end=end)  # type: ignore[misc]
            )
            if len(data) != end - start:
                raise StorageUnavailable("the storage stopped in the middle of an object")
            yield data

    async def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        def put() -> bool:
            if exclusive:
                return self._create(key, data)
            scratch = f"{_SCRATCH}/{uuid.uuid4().hex}"
            self._write(scratch, data)
            self._move(scratch, key)
            return True

        return await self._run(put)

    async def writer(self, key: str, staging: str) -> Writer:
        return await self._run(lambda: _GenericWriter(self, key, staging))

    async def expire(self, age_s: float) -> Sequence[str]:
        oldest = await self.now() - age_s
        # Not every filesystem dates a file by its last byte: what moves here is known here.
        ours = {key for key, moved in self._moving.items() if moved > time.monotonic() - age_s}
        entries = await self.list(INCOMING)
        kept = ours | {entry.key for those in partials(entries).values() for entry in those}
        expired = [entry.key for entry in entries if entry.modified < oldest and entry.key not in kept]
        litter = [entry.key for entry in await self.list(_SCRATCH) if entry.modified < oldest]
        for key in (*expired, *litter):
            await self.delete(key)
        return expired if self._ages else []

    async def move(self, source: str, destination: str) -> bool:
        def move() -> bool:
            try:
                self._move(source, destination)
            except FileNotFoundError:
                return False
            return True

        return await self._run(move)

    async def delete(self, key: str) -> None:
        def delete() -> None:
            try:
                self._fs.rm_file(self._path(key))
            except Exception:
                # Not all of them say FileNotFoundError.
                if self._fs.exists(self._path(key)):
                    raise

        await self._run(delete)

    async def fetch(self, key: str, sha256: str) -> Path | None:
        if await self.stat(key) is None:
            return None
        return await self._cache.get(sha256, lambda: self.chunks(key), anew=key.startswith(TEMP))

    async def distrust(self, sha256: str) -> None:
        self._cache.distrust(sha256)

    async def _run(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise InsufficientStorage("there is no room to store it") from error
            raise StorageUnavailable("the storage does not answer as it should") from error
        except Exception as error:
            # Each filesystem has errors of its own.
            raise StorageUnavailable("the storage does not answer as it should") from error

    def _connect(self) -> None:
        options = {"skip_instance_cache": True, "use_listings_cache": False, **self._options}
        self._fs: AbstractFileSystem
        self._fs, root = fsspec.core.url_to_fs(self._url, **options)
        self._root: str = root.rstrip("/")
        self._renames = _overrides(self._fs, "mv")

    def _lacks(self) -> Iterator[str]:
        """Find out what it can do; fail if it cannot be used at all."""
        key = f"{_SCRATCH}/{uuid.uuid4().hex}"
        self._write(key, b"probe")
        try:
            if self._fs.cat_file(self._path(key)) != b"probe":
                raise StorageUnavailable("what was written is not what is read")
            info = self._fs.info(self._path(key))
            if not any(info.get(name) for name in _TIMES):
                self._ages = False
                yield "does not date its files: what was abandoned in incoming/ stays until you remove it"
            if not self._creates(key):
                self._exclusive = False
                yield NOT_EXCLUSIVE
            if not self._renames:
                yield "moves by copying: if it dies in the middle of it, a torn model is what `verify` finds"
            elif not self._replaces(key):
                self._replacing = False
                yield "does not replace by moving: what is replaced is away for a moment"
            yield "does not say when bytes are durable: what is acknowledged may not survive its machine's crash"
        finally:
            self._fs.rm_file(self._path(key))

    def _creates(self, key: str) -> bool:
        """Tell whether it refuses to create what is there, and does so itself: fsspec looks, and creates then."""
        if not _overrides(self._fs, "pipe_file"):
            return False
        try:
            self._fs.pipe_file(self._path(key), b"other", mode="create")
        except FileExistsError:
            return True
        except Exception:
            return False
        return False

    def _replaces(self, key: str) -> bool:
        """Tell whether it moves onto what is there."""
        other = f"{key}-other"
        self._write(other, b"other")
        try:
            self._fs.mv(self._path(other), self._path(key))
            return bool(self._fs.cat_file(self._path(key)) == b"other")
        except Exception:
            self._fs.rm_file(self._path(other))
            return False

    def _create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        self._make_folder(path)
        if not self._exclusive:
            if self._fs.exists(path):
                return False
            self._write(key, data)
            return True
        try:
            self._fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        return True

    def _write(self, key: str, data: bytes) -> None:
        self._make_folder(self._path(key))
        self._fs.pipe_file(self._path(key), data)

    def _move(self, source: str, destination: str) -> None:
        origin, target = self._path(source), self._path(destination)
        size = self._fs.info(origin)["size"]
        self._make_folder(target)
        if self._renames:
            if not self._replacing and self._fs.exists(target):
                self._fs.rm_file(target)
            self._fs.mv(origin, target)
            return
        self._fs.cp_file(origin, target)
        if self._fs.info(target)["size"] != size:
            raise OSError("the copy is not whole")
        self._fs.rm_file(origin)

    def _make_folder(self, path: str) -> None:
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _entry(self, info: Mapping[str, Any]) -> Entry:
        modified = _modified(info) if self._ages else time.time()
        version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
        key = str(info["name"]).removeprefix(f"{self._root}/")
        return Entry(key, info["size"], modified, f"{info['size']}-{modified if self._ages else 0}-{version}")


class _GenericWriter(Writer):
    """A file that grows in incoming/, and is moved to its key when it is whole."""

    def __init__(self, backend: GenericBackend, key: str, staging: str) -> None:
        self._backend = backend
        self._key = key
        self._staging = staging
        self._committed = False
        backend._make_folder(backend._path(staging))
        self._file: Any = backend._fs.open(backend._path(staging), "wb")
        self._touch()

    async def write(self, data: bytes) -> None:
        self._touch()
        await self._backend._run(lambda: self._file.write(data))

    async def commit(self) -> None:
        def commit() -> None:
            self._file.close()
            self._backend._move(self._staging, self._key)
            self._committed = True

        await self._backend._run(commit)
        self._backend._moving.pop(self._staging, None)

    async def cancel(self) -> None:
        self._backend._moving.pop(self._staging, None)
        if self._committed:
            return

        def cancel() -> None:
            with contextlib.suppress(Exception):
                # What closing publishes is removed.
                self._file.close()

        await self._backend._run(cancel)
        await self._backend.delete(self._staging)

    def _touch(self) -> None:
        self._backend._moving[self._staging] = time.monotonic()


def _overrides(filesystem: AbstractFileSystem, method: str) -> bool:
    """Tell whether it does something in a way of its own; one in front of another does what that does."""
    inner = getattr(filesystem, "fs", None)
    own = any(
        getattr(type(filesystem), name, None) not in (None, getattr(base, name, None))
        for base, name in ((AbstractFileSystem, method), (AsyncFileSystem, f"_{method}"))
    )
    return own and (not isinstance(inner, AbstractFileSystem) or _overrides(inner, method))


def _modified(info: Mapping[str, Any]) -> float:
    value = next(info[name] for name in _TIMES if info.get(name))
    if isinstance(value, str):
        value = datetime.datetime.fromisoformat(value)
    return float(value.timestamp() if isinstance(value, datetime.datetime) else value)
