"""A folder on this machine, through fsspec's local filesystem.

fsspec lists, opens and removes; what makes an object appear is our own, because its writers commit on close and on
garbage collection, and its ``mv`` neither syncs nor replaces in one step. Here: write beside, fsync the file, link
or rename inside one filesystem, fsync the folder.
"""

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

from fsspec.implementations.local import LocalFileSystem

from backends.growing import GrowingFile, LocalPartial
from spectrogram_predictor.errors import ConfigError, InsufficientStorage, StorageUnavailable
from spectrogram_predictor.lanes import Lanes
from spectrogram_predictor.storage import (
    FETCHED,
    INCOMING,
    Backend,
    Entry,
    Partial,
    Writer,
    claim_key,
    incoming_key,
    partials,
)

T = TypeVar("T")

_THREADS = 8
_WRITERS = 4
_CHUNK = 2**20
_STALE_S = 3600.0
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GONE = (FileNotFoundError, NotADirectoryError)
_SCRATCH = ".scratch"


class LocalBackend(Backend):
    """Keep objects as files below one folder.

    Parameters
    ----------
    url : str
        The folder; made if it is not there.
    options : mapping
        None are known.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        if options:
            raise ConfigError(f"storage.options: the local backend takes none, not {', '.join(options)}")
        self._root = Path(url.removeprefix("file://")).absolute()
        self._fs = LocalFileSystem(skip_instance_cache=True)
        self.threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage")
        self.lanes = Lanes(_WRITERS, "write")

    @property
    def local_folders(self) -> Sequence[Path]:
        return tuple(self._root / name for name in FETCHED)

    async def open(self) -> None:
        def make() -> None:
            scratch = self._root / _SCRATCH
            scratch.mkdir(parents=True, exist_ok=True)
            # Where people drop files, and what workers are let into: only what is there.
            for name in FETCHED:
                (self._root / name).mkdir(exist_ok=True)
            for leftover in scratch.iterdir():
                if leftover.stat().st_mtime < time.time() - _STALE_S:
                    leftover.unlink()
            self._put(f"{_SCRATCH}/{uuid.uuid4().hex}.probe", b"", exclusive=True).unlink()

        try:
            await self.run(make)
        except (OSError, StorageUnavailable, InsufficientStorage) as error:
            raise ConfigError(f"storage.url: cannot keep files in {self._root}: {error}") from error

    async def close(self) -> None:
        self.lanes.close()
        self.threads.shutdown(wait=True)

    async def check(self) -> None:
        def check() -> None:
            self._check_root()
            if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
                raise OSError(errno.EROFS, "cannot be written to")

        await self.run(check)

    async def free_bytes(self) -> int | None:
        return await self.run(lambda: shutil.disk_usage(self._root).free)

    async def now(self) -> float:
        return time.time()

    async def list(self, prefix: str) -> list[Entry]:
        def find() -> list[Entry]:
            self._check_root()
            found = self._fs.find(str(self.path(prefix)), detail=True, on_error=raise_unless_gone)
            entries = (self._entry(Path(path)) for path in found)
            return sorted((entry for entry in entries if entry), key=lambda entry: entry.key)

        return await self.run(find)

    async def stat(self, key: str) -> Entry | None:
        def stat() -> Entry | None:
            entry = self._entry(self.path(key))
            if entry is None:
                self._check_root()
            return entry

        return await self.run(stat)

    async def read(self, key: str, size: int = -1) -> bytes | None:
        def read() -> bytes | None:
            try:
                with self._open(key) as file:
                    return file.read(size)
            except _GONE:
                self._check_root()
                return None

        return await self.run(read)

    async def chunks(self, key: str) -> AsyncIterator[bytes]:
        file = await self.run(lambda: self._open(key))
        try:
            while chunk := await self.run(lambda: file.read(_CHUNK)):
                yield chunk
        finally:
            file.close()

    async def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        def put() -> bool:
            try:
                self._put(key, data, exclusive=exclusive)
            except FileExistsError:
                return False
            return True

        return await self.run(put)

    async def writer(self, key: str, staging: str) -> Writer:
        return await self.run(lambda: _LocalWriter(self, self.path(key), self.path(staging)))

    async def begin(self, upload_id: str) -> None:
        def begin() -> None:
            path = self.path(incoming_key(upload_id))
            self.make_folder(path.parent)
            # It may be asked for twice, if an answer got lost.
            path.open("ab").close()
            _sync_folder(path.parent)

        await self.run(begin)

    async def resume(self, upload_id: str) -> Partial | None:
        return await LocalPartial.resume(self, self.path(incoming_key(upload_id)), self.path(claim_key(upload_id)))

    async def stored(self, upload_id: str) -> int | None:
        def stored() -> int | None:
            try:
                with self.path(incoming_key(upload_id)).open("rb") as file:
                    # In this order: what is added meanwhile may not be durable.
                    size = os.fstat(file.fileno()).st_size
                    os.fdatasync(file.fileno())
                    return size
            except _GONE:
                self._check_root()
                return None

        return await self.run(stored)

    async def stored_chunks(self, upload_id: str, start: int, end: int) -> AsyncIterator[bytes]:
        file = await self.run(lambda: self._open(incoming_key(upload_id)))
        try:
            file.seek(start)
            while chunk := await self.run(lambda: file.read(min(_CHUNK, end - file.tell()))):
                yield chunk
        finally:
            file.close()

    async def expire(self, age_s: float) -> Sequence[str]:
        oldest = await self.now() - age_s
        entries = await self.list(INCOMING)
        kept = {entry.key for those in partials(entries).values() for entry in those}
        expired = [entry.key for entry in entries if entry.modified < oldest and entry.key not in kept]
        for key in expired:
            await self.delete(key)
        return expired

    async def move(self, source: str, destination: str) -> bool:
        def move() -> bool:
            try:
                self.move_file(self.path(source), self.path(destination))
            except FileNotFoundError:
                return False
            return True

        return await self.run(move)

    async def delete(self, key: str) -> None:
        def delete() -> None:
            path = self.path(key)
            with contextlib.suppress(*_GONE):
                # Not fsspec's rm_file: it refuses links and special files, which people drop too.
                path.unlink()
            self.remove_empty_folders(path.parent)

        await self.run(delete)

    async def fetch(self, key: str, sha256: str) -> Path | None:  # noqa: ARG002  # nothing is copied
        path = self.path(key)
        return path if await self.run(path.is_file) else None

    async def run(self, function: Callable[[], T]) -> T:
        return await self.translated(asyncio.get_running_loop().run_in_executor(self.threads, function))

    async def translated(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise InsufficientStorage("there is no room to store it") from error
            raise StorageUnavailable("the storage does not answer as it should") from error

    def path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        assert parts, "a key is never empty"
        assert not key.startswith("/"), "a key is relative"
        assert ".." not in parts, "a key has no dots"
        return self._root.joinpath(*parts)

    def _open(self, key: str) -> BinaryIO:
        path = self.path(key)
        if path.is_symlink() or not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "not a regular file", str(path))
        file: BinaryIO = self._fs.open(str(path), "rb", block_size=0)
        return file

    def _entry(self, path: Path) -> Entry | None:
        try:
            status = path.lstat()
        except _GONE:
            return None
        key = path.relative_to(self._root).as_posix()
        # ctime too: a tool that keeps a file's own time (rsync, scp -p) still changes this one.
        version = f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"
        return Entry(key, status.st_size, max(status.st_mtime, status.st_ctime), version)

    def _put(self, key: str, data: bytes, *, exclusive: bool) -> Path:
        target = self.path(key)
        scratch = self._root / _SCRATCH / uuid.uuid4().hex
        self.make_folder(scratch.parent)
        try:
            with scratch.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self.make_folder(target.parent)
            if exclusive:
                target.hardlink_to(scratch)
            else:
                scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
        _sync_folder(target.parent)
        return target

    def move_file(self, origin: Path, target: Path) -> None:
        self.make_folder(target.parent)
        origin.rename(target)
        _sync_folder(target.parent)
        _sync_folder(origin.parent)
        self.remove_empty_folders(origin.parent)

    def _check_root(self) -> None:
        # A disk that is not mounted now has lost nothing: what is missing from it is not gone.
        if not self._root.is_dir():
            raise OSError(errno.ENODEV, "the folder is away")

    def make_folder(self, folder: Path) -> None:
        self._check_root()
        missing = list(itertools.takewhile(lambda parent: not parent.exists(), self._ancestors(folder)))
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            _sync_folder(made.parent)

    def remove_empty_folders(self, folder: Path) -> None:
        # The first level stays: people drop files into temp/.
        with contextlib.suppress(OSError):
            for empty in self._ancestors(folder):
                if empty.parent == self._root:
                    return
                empty.rmdir()

    def _ancestors(self, folder: Path) -> Iterator[Path]:
        return itertools.takewhile(lambda path: path != self._root, (folder, *folder.parents))


class _LocalWriter(Writer):
    """A file that grows inside a folder of its own, and is moved to its key when it is whole."""

    def __init__(self, backend: LocalBackend, target: Path, path: Path) -> None:
        self._backend = backend
        self._target = target
        self._path = path
        self._committed = False
        backend.make_folder(path.parent)
        self._file = GrowingFile(backend, path.open("xb", buffering=0))

    async def write(self, data: bytes) -> None:
        await self._file.write(data)

    async def commit(self) -> None:
        await self._file.settle()

        def commit() -> None:
            self._file.sync()
            self._file.close()
            self._backend.move_file(self._path, self._target)
            self._committed = True

        await self._backend.run(commit)

    async def cancel(self) -> None:
        if self._committed:
            return
        await self._file.drop()

        def cancel() -> None:
            self._file.close()
            self._path.unlink(missing_ok=True)
            self._backend.remove_empty_folders(self._path.parent)

        await self._backend.run(cancel)


def raise_unless_gone(error: OSError) -> None:
    """Tell of a folder that cannot be listed: fsspec would take it for an empty one."""
    if not isinstance(error, _GONE):
        raise error


def _sync_folder(folder: Path) -> None:
    # A rename is only durable once the folder is (fsync(2)).
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
