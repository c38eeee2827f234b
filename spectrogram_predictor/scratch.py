"""The folder that a worker may write to: made for it, looked at while it works, gone with it.

What is in it was written by whatever the model file does: nothing here trusts its depth, its names or its modes.
"""

import contextlib
import fcntl
import logging
import math
import os
import stat
import tempfile
import time
from pathlib import Path

logger = logging.getLogger(__name__)

MAX_BYTES = 2**31
"""Most that a worker may keep there."""

_MAX_ENTRIES = 10_000
_PREFIX = "spectrogram-predictor-worker-"
_YOUNG_S = 60.0
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class Scratch:
    """A folder of one worker's own, below the server's temporary folder.

    Attributes
    ----------
    path : Path
        Where it is.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
        # Held as long as this process lives: so others can tell that it does.
        try:
            self._lock = os.open(self.path, os.O_RDONLY)
        except OSError:
            self.path.rmdir()
            raise
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def used(self, pid: int) -> float:
        """Return how many bytes a process keeps in it, deleted files and folders that it holds open as well.

        More entries, or deeper ones, than a model's file has ever needed are infinitely many bytes.
        """
        total, entries = _deleted(pid), 0
        pending = [self.path]
        while pending:
            try:
                found = list(os.scandir(pending.pop()))
                statuses = [(entry, entry.stat(follow_symlinks=False)) for entry in found[:_MAX_ENTRIES]]
            except (FileNotFoundError, NotADirectoryError):
                # It goes while we look: the next look is in a second.
                continue
            except OSError:
                # Too deep, or closed to us.
                return math.inf
            entries += len(found)
            if entries > _MAX_ENTRIES:
                return math.inf
            total += sum(512 * status.st_blocks for _, status in statuses)
            pending += [Path(entry.path) for entry, status in statuses if stat.S_ISDIR(status.st_mode)]
        return total

    def remove(self) -> None:
        """Remove it with all that is in it, once the worker has ended; twice if need be."""
        if self._lock < 0:
            return
        try:
            _remove_all(self.path)
        except OSError as error:
            logger.warning("%s cannot be removed: %s", self.path, error)
        os.close(self._lock)
        self._lock = -1


def sweep() -> None:
    """Remove the folders of servers that were killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            status = path.lstat()
            if status.st_uid == os.geteuid() and status.st_mtime < time.time() - _YOUNG_S:
                _remove_unless_locked(path)


def _remove_unless_locked(path: Path) -> None:
    folder = os.open(path, _FOLDER)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    finally:
        os.close(folder)


def _remove_all(top: Path) -> None:
    try:
        # Empty, if the worker could not be started: there may be no descriptor left to look with.
        top.rmdir()
    except OSError:
        _remove(top)


def _remove(top: Path) -> None:
    # Not shutil.rmtree: it goes no deeper than Python's stack, and into no folder of mode 0.
    here = os.open(top, _FOLDER)
    names: list[str] = []
    try:
        pending = [_clear(here)]
        while pending:
            if pending[-1]:
                names.append(pending[-1].pop())
                os.chmod(names[-1], 0o700, dir_fd=here)
                here = _moved(here, names[-1])
                pending.append(_clear(here))
            else:
                pending.pop()
                if names:
                    here = _moved(here, "..")
                    os.rmdir(names.pop(), dir_fd=here)
    finally:
        os.close(here)
    top.rmdir()


def _moved(here: int, name: str) -> int:
    there = os.open(name, _FOLDER, dir_fd=here)
    os.close(here)
    return there


def _clear(folder: int) -> list[str]:
    """Remove what is no folder; return the names of those that are."""
    with os.scandir(folder) as entries:
        found = list(entries)
    folders = []
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.name)
        else:
            os.unlink(entry.name, dir_fd=folder)
    return folders


def _deleted(pid: int) -> float:
    total = 0
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                status = os.stat(entry.path)
                if stat.S_IFMT(status.st_mode) in (stat.S_IFREG, stat.S_IFDIR) and not status.st_nlink:
                    total += 512 * status.st_blocks
    return total
