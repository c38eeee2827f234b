"""Appending past the page cache: what is written once, and read later if at all, need not be copied into it."""

import errno
import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

CACHED_BYTES = 2**26
"""The beginning of each file goes through the cache: models of the usual size are read again at once."""

STAGED_BYTES = 2**20
"""How much goes to the disk at a time."""

_ALIGNMENT = 4096
_O_DIRECT: int = getattr(os, "O_DIRECT", 0)


class DirectFile:
    """Append to a file, most of it with O_DIRECT where the file system knows that; see open(2).

    That saves the processor a copy, and the system the search for as many pages of memory: for a large upload, a
    third of what its bytes cost in the kernel. What others read from the cache, such as models, stays in it.

    Parameters
    ----------
    file : BinaryIO
        Unbuffered, open for appending.

    Attributes
    ----------
    size : int
        Bytes in the file: without those of the last `STAGED_BYTES` that wait for more.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = os.fstat(file.fileno()).st_size
        self._file = file
        self._staged = memoryview(b"")
        self._count = 0
        self._cached = not _O_DIRECT

    def write(self, data: bytes) -> None:
        """Append."""
        view = memoryview(data)
        if not self._count:
            through = len(view) if self._cached or self.size < CACHED_BYTES else -self.size % _ALIGNMENT
            self._append(view[:through])
            view = view[through:]
        while view:
            count = self._stage(view)
            view = view[count:]

    def flush(self) -> None:
        """Append what waits for more; harmless if nothing does, of a closed file too."""
        if not self._count:
            return
        # First forgotten: after a failure, nothing may follow what is missing.
        count, self._count = self._count, 0
        whole = count - count % _ALIGNMENT
        with self._past_cache():
            self._append(self._staged[:whole])
        self._append(self._staged[whole:count])

    def _stage(self, view: memoryview) -> int:
        if not self._staged:
            # Of whole pages: the disk takes it from where it is.
            self._staged = memoryview(mmap.mmap(-1, STAGED_BYTES))
        count = min(len(view), STAGED_BYTES - self._count)
        self._staged[self._count : self._count + count] = view[:count]
        self._count += count
        if self._count == STAGED_BYTES:
            self.flush()
        return count

    def _append(self, view: memoryview) -> None:
        while view:
            try:
                count = self._file.write(view)
            except OSError as error:
                if self._cached or error.errno != errno.EINVAL:
                    raise
                # The file system wants it aligned otherwise.
                self._cached = True
                self._set(0)
                continue
            self.size += count
            view = view[count:]

    @contextmanager
    def _past_cache(self) -> Iterator[None]:
        if not self._cached:
            try:
                self._set(_O_DIRECT)
            except OSError:
                # The file system does not know it.
                self._cached = True
        try:
            yield
        finally:
            if not self._cached:
                self._set(0)

    def _set(self, flag: int) -> None:
        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        fcntl.fcntl(self._file, fcntl.F_SETFL, flags & ~_O_DIRECT | flag)
