"""Storage that goes wrong at the operation you choose.

Operations are numbered from 1. At the chosen one a server is told that the storage is away (``fails``), or is told
so although it was done (``lost``: the answer got lost), or has gone itself (``dies``: this operation and all later
ones do nothing).
"""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from spectrogram_predictor.errors import StorageUnavailable
from spectrogram_predictor.storage import Backend, Entry, Partial, Writer

T = TypeVar("T")

KINDS = ("fails", "lost", "dies")


class Faults:
    """Count operations, and let one of them go wrong.

    Parameters
    ----------
    at : int
        The operation's number; 0 for none.
    kind : str
        One of `KINDS`.

    Attributes
    ----------
    names : list of str
        The operations so far.
    felt : int
        How many of them went wrong.
    """

    def __init__(self, at: int = 0, kind: str = "fails") -> None:
        assert kind in KINDS
        self.names: list[str] = []
        self.dead = False
        self.felt = 0
        self._at = at
        self._kind = kind

    def arm(self, after: int, kind: str) -> None:
        """Choose another operation, counted from now."""
        self._at, self._kind = len(self.names) + after, kind

    def before(self, name: str) -> int:
        """Begin an operation; return its number."""
        if self.dead:
            self._raise("dead")
        self.names.append(name)
        number = len(self.names)
        if number == self._at and self._kind != "lost":
            self.dead = self._kind == "dies"
            self._raise(f"{self._kind} before {name}")
        return number

    def after(self, number: int) -> None:
        """End it."""
        if self.dead or (number == self._at and self._kind == "lost"):
            self._raise("nobody hears the answer")

    async def run(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do one operation, or not."""
        number = self.before(name)
        result = await work()
        self.after(number)
        return result

    def _raise(self, message: str) -> None:
        self.felt += 1
        raise StorageUnavailable(message)


class FaultyBackend(Backend):
    """Another backend, behind faults.

    Parameters
    ----------
    inner : Backend
        The other one, opened; it is not closed from here.
    faults : Faults
        What goes wrong.
    """

    def __init__(self, inner: Backend, faults: Faults) -> None:
        self.inner = inner
        self.faults = faults
        self.writers: list[Writer] = []
        self.partials: list[Partial] = []

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        """Let go of files that a dead server would not have open any more."""
        for writer in self.writers:
            await let_go(writer)
        for partial in self.partials:
            await partial.close()

    async def check(self) -> None:
        await self.faults.run("check", self.inner.check)

    async def now(self) -> float:
        return await self.faults.run("now", self.inner.now)

    async def list(self, prefix: str) -> list[Entry]:
        return await self.faults.run("list", lambda: self.inner.list(prefix))

    async def stat(self, key: str) -> Entry | None:
        return await self.faults.run("stat", lambda: self.inner.stat(key))

    async def read(self, key: str, size: int = -1) -> bytes | None:
        return await self.faults.run("read", lambda: self.inner.read(key, size))

    async def chunks(self, key: str) -> AsyncIterator[bytes]:
        number = self.faults.before("chunks")
        async for chunk in self.inner.chunks(key):
            yield chunk
        self.faults.after(number)

    async def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        return await self.faults.run("put", lambda: self.inner.put(key, data, exclusive=exclusive))

    async def writer(self, key: str, staging: str) -> Writer:
        async def begin() -> Writer:
            self.writers.append(await self.inner.writer(key, staging))
            return FaultyWriter(self.writers[-1], self.faults)

        return await self.faults.run("writer", begin)

    @property
    def _appends(self) -> bool:
        """Whether the other one keeps uploads in a way of its own; if not, they are made of operations."""
        if isinstance(self.inner, FaultyBackend):
            return self.inner._appends
        return type(self.inner).resume is not Backend.resume

    async def begin(self, upload_id: str) -> None:
        await self.faults.run("begin", lambda: self.inner.begin(upload_id))

    async def resume(self, upload_id: str) -> Partial | None:
        async def resume() -> Partial | None:
            partial = await self.inner.resume(upload_id)
            if partial is None:
                return None
            self.partials.append(partial)
            return FaultyPartial(partial, self.faults)

        return await (self.faults.run("resume", resume) if self._appends else super().resume(upload_id))

    async def stored(self, upload_id: str) -> int | None:
        if self._appends:
            return await self.faults.run("stored", lambda: self.inner.stored(upload_id))
        return await super().stored(upload_id)

    def stored_chunks(self, upload_id: str, start: int, end: int) -> AsyncIterator[bytes]:
        return (self.inner if self._appends else super()).stored_chunks(upload_id, start, end)

    async def join(self, parts: Sequence[Entry], key: str, staging: str) -> None:
        await self.faults.run("join", lambda: self.inner.join(parts, key, staging))

    async def expire(self, age_s: float) -> Sequence[str]:
        return await self.faults.run("expire", lambda: self.inner.expire(age_s))

    async def move(self, source: str, destination: str) -> bool:
        return await self.faults.run("move", lambda: self.inner.move(source, destination))

    async def delete(self, key: str) -> None:
        await self.faults.run("delete", lambda: self.inner.delete(key))

    async def fetch(self, key: str, sha256: str) -> Path | None:
        return await self.faults.run("fetch", lambda: self.inner.fetch(key, sha256))


class FaultyWriter(Writer):
    """Another backend's writer, behind the same faults."""

    def __init__(self, inner: Writer, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    async def write(self, data: bytes) -> None:
        await self._faults.run("write", lambda: self._inner.write(data))

    async def commit(self) -> None:
        await self._faults.run("commit", self._inner.commit)

    async def cancel(self) -> None:
        await self._faults.run("cancel", self._inner.cancel)


class FaultyPartial(Partial):
    """Another backend's partial upload, behind the same faults."""

    def __init__(self, inner: Partial, faults: Faults) -> None:
        self._inner = inner
        self._faults = faults

    @property
    def stored(self) -> int:  # type: ignore[override]
        return self._inner.stored

    async def write(self, data: bytes) -> None:
        await self._faults.run("write", lambda: self._inner.write(data))

    async def sync(self) -> int:
        return await self._faults.run("sync", self._inner.sync)

    async def finish(self, key: str) -> None:
        await self._faults.run("finish", lambda: self._inner.finish(key))

    async def close(self) -> None:
        await self._faults.run("close", self._inner.close)


async def let_go(writer: Any) -> None:
    """Take from a writer what a process that dies takes with it: open files, requests under way."""
    if file := getattr(writer, "_file", None):
        await file.drop()
        file.close()
    for task in getattr(writer, "_sending", ()):
        task.cancel()
        with contextlib.suppress(BaseException):
            await task


def requests_of(backend: Any, faults: Faults) -> None:
    """Put the faults between an S3 backend and its store: each request is an operation."""
    call = backend.bucket.call

    async def counted(method: str, key: str | None = None, **arguments: Any) -> Any:
        return await faults.run(method, lambda: call(method, key, **arguments))

    backend.bucket.call = counted


@contextlib.contextmanager
def system_calls(faults: Faults, root: Path) -> Iterator[None]:
    """Put the faults between everything here and the file system below a folder: each change is an operation."""
    patched: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def counted(subject: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(subject, Path) and not subject.is_relative_to(root):
                return function(subject, *args, **kwargs)
            try:
                number = faults.before(name)
                result = function(subject, *args, **kwargs)
                faults.after(number)
            except StorageUnavailable as error:
                raise OSError(5, str(error)) from error
            return result

        patched.append((owner, name, function))
        setattr(owner, name, counted)

    for name in ("rename", "replace", "hardlink_to", "unlink", "mkdir", "rmdir"):
        patch(Path, name)
    patch(os, "fsync")
    try:
        yield
    finally:
        for owner, name, function in patched:
            setattr(owner, name, function)
