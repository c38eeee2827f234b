"""Local copies of what a backend keeps elsewhere, by digest, within a bound.

Any number of servers on one machine may share a folder: each content is fetched once, whoever asks first.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from spectrogram_predictor.errors import ConfigError, Damaged, InsufficientStorage

logger = logging.getLogger(__name__)

_STALE_S = 3600.0
_IN_USE_S = 300.0
_LOOK_AGAIN_S = 0.05
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Cache:
    """A folder of files whose names are their digests.

    Parameters
    ----------
    folder : Path
        Made when it is needed.
    max_bytes : int > 0
        When there is more, what was asked for least recently goes; what was asked for in the last minutes stays.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._fetching: dict[str, asyncio.Task[Path]] = {}
        self._verified: set[str] = set()

    @property
    def folder(self) -> Path:
        """Where the files are; made, if it can be."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder

    def check(self) -> None:
        """Raise ConfigError if nothing can be kept in it."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                file.write(b"probe")
        except OSError as error:
            if error.errno in _FULL:
                # What is in it can go, or is all that is needed.
                return
            raise ConfigError(f"storage.options.cache: cannot keep models in {self._folder}: {error}") from error

    def distrust(self, sha256: str) -> None:
        """Check the file with this digest before it is returned again."""
        self._verified.discard(sha256)

    async def get(self, sha256: str, content: Callable[[], AsyncIterator[bytes]], *, anew: bool = False) -> Path:
        """Return a file with this digest, from here or fetched.

        Parameters
        ----------
        sha256 : str
            The digest.
        content : callable
            Returns the bytes, in pieces, if they have to be fetched.
        anew : bool
            They are fetched in any case: it is they that are to be checked.

        Raises
        ------
        Damaged
            What was fetched has another digest.
        InsufficientStorage
            It cannot be kept here.
        """
        if anew:
            return await self._get(sha256, content, anew=True)
        if sha256 in self._verified and await asyncio.to_thread(self._touch, sha256):
            return self._folder / sha256
        task = self._fetching.get(sha256)
        if task is None:
            task = self._fetching[sha256] = asyncio.create_task(self._get(sha256, content))
            task.add_done_callback(lambda _: self._fetching.pop(sha256, None))
        # One caller's cancellation is not the others'.
        return await asyncio.shield(task)

    async def _get(self, sha256: str, content: Callable[[], AsyncIterator[bytes]], *, anew: bool = False) -> Path:
        try:
            lock = await self._lock(sha256)
            try:
                if anew or not await asyncio.to_thread(self._verify, sha256):
                    await self._fetch_into_room(sha256, content)
            finally:
                os.close(lock)
            await asyncio.to_thread(self._evict, self._max_bytes)
        except OSError as error:
            logger.warning("the cache %s cannot be used: %s", self._folder, error)
            raise InsufficientStorage("there is no room for the model on this machine") from error
        self._verified.add(sha256)
        return self._folder / sha256

    async def _fetch_into_room(self, sha256: str, content: Callable[[], AsyncIterator[bytes]]) -> None:
        try:
            await self._fetch(sha256, content())
        except OSError as error:
            if error.errno not in _FULL:
                raise
            # The disk has less room than the cache may take.
            await asyncio.to_thread(self._evict, 0)
            await self._fetch(sha256, content())

    async def _fetch(self, sha256: str, content: AsyncIterator[bytes]) -> None:
        part = self._folder / f"{sha256}.{uuid.uuid4().hex}.part"
        digest = hashlib.sha256()

        def take(chunk: bytes) -> None:
            digest.update(chunk)
            file.write(chunk)

        began = time.monotonic()
        try:
            with part.open("xb") as file:
                async for chunk in content:
                    await asyncio.to_thread(take, chunk)
            if digest.hexdigest() != sha256:
                raise Damaged("the stored model is damaged: its digest is not its name")
            part.replace(self._folder / sha256)
        finally:
            part.unlink(missing_ok=True)
        logger.info("fetched %s in %.2f s", sha256, time.monotonic() - began)

    async def _lock(self, sha256: str) -> int:
        """Wait for whoever on this machine is fetching the same; return what holds the lock until it is closed.

        Not in a thread: whoever holds a lock needs threads to get done, and they would all be waiting.
        """
        descriptor = await asyncio.to_thread(self._open_lock, sha256)
        try:
            while not _is_locked(descriptor):  # noqa: ASYNC110  # another process tells nobody
                await asyncio.sleep(_LOOK_AGAIN_S)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _open_lock(self, sha256: str) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        return os.open(self._folder / f"lock-{sha256[:2]}", os.O_RDWR | os.O_CREAT, 0o600)

    def _touch(self, sha256: str) -> bool:
        path = self._folder / sha256
        with contextlib.suppress(OSError):
            os.utime(path)
        return path.exists()

    def _verify(self, sha256: str) -> bool:
        """Tell whether there is a copy, and it is sound; one that is not is removed."""
        path = self._folder / sha256
        if not self._touch(sha256):
            return False
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                return True
        logger.warning("the copy of %s in the cache is damaged: fetching it again", sha256)
        path.unlink(missing_ok=True)
        return False

    def _evict(self, max_bytes: int) -> None:
        now = time.time()
        copies = sorted(self._entries(), key=lambda entry: entry[1].st_mtime)
        size = sum(status.st_size for _, status in copies)
        for path, status in copies:
            stale = path.suffix == ".part" and status.st_mtime < now - _STALE_S
            if stale or (size > max_bytes and not path.suffix and status.st_mtime < now - _IN_USE_S):
                path.unlink(missing_ok=True)
                size -= status.st_size
                self._verified.discard(path.name)

    def _entries(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if not path.name.startswith("lock-"):
                    yield path, path.stat()


def _is_locked(descriptor: int) -> bool:
    """Take the lock, if nobody else has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
