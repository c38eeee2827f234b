"""The box that a worker process puts itself into: whatever a model file does there, it does to itself.

`Box.enter` comes before TensorFlow, whose threads then are inside as well; `Box.seal` after TensorFlow has set
itself up, and before the first model file. What the machine does not offer is left out, and said. The server makes
the scratch folder and the environment, and watches from outside (see `warden`).
"""

import os
import platform
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spectrogram_predictor.worker import landlock, seccomp
from spectrogram_predictor.worker.kernel import prctl, syscall

MAX_FILE_BYTES = 2**30
"""Largest file in the scratch folder, and most in the one that a worker writes to later on: see `spare`."""

MAX_OPEN_FILES = 256

_LEAST_MEMORY_BYTES = 2**30
_MAPPED_BYTES = 2**34
"""What is mapped beside private memory: libraries, and what the C library keeps in reserve for each thread."""

_PR_SET_NO_NEW_PRIVS = 38
_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITIES_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 2

_SYSTEM = """
    /usr /lib /lib64 /etc/ld.so.cache /etc/localtime /dev/urandom /dev/random /dev/zero
    /proc/self /proc/cpuinfo /proc/meminfo /proc/stat /proc/sys/vm/overcommit_memory
    /sys/devices/system/cpu /sys/devices/system/node /sys/fs/cgroup
"""
"""What Python, the C library and TensorFlow read of the system."""


@dataclass(frozen=True)
class Box:
    """What a worker may have.

    Parameters
    ----------
    scratch : Path
        The folder that it may write to.
    readable : tuple of Path
        Folders with the models and songs; beside them it reads Python and its libraries, and this package.
    memory_bytes : int
        Private memory; 0 for half of what there is.
    """

    scratch: Path
    readable: tuple[Path, ...]
    memory_bytes: int

    def enter(self, package: Path) -> list[str]:
        """Give up privileges, take limits, see only the files that are needed.

        Parameters
        ----------
        package : Path
            Folder of the Python code that is called.

        Returns
        -------
        missing : list of str
            What this machine does not offer.
        """
        if sys.platform != "linux":
            return [f"workers are boxed on Linux only, not on {sys.platform}"]
        missing = _tried("the kernel does not end workers first when memory runs out", _go_first)
        _limit(self.memory_bytes or _half_of_memory())
        missing += _tried("workers keep the server's capabilities", _drop_capabilities)
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        return missing + _tried(
            "workers can open every file that the server can", lambda: self._hide_files(package)
        )

    def seal(self) -> list[str]:
        """Refuse the system calls that no model needs; return what this machine does not offer."""
        if sys.platform != "linux":
            return []
        return _tried("workers can use the network, run programs and signal processes", seccomp.restrict)

    @property
    def sees_models(self) -> bool:
        """Whether it still can: where another folder was made or mounted in the place of one, it cannot."""
        return not any(_forbidden(folder) for folder in self.readable)

    def _hide_files(self, package: Path) -> None:
        own = Path(__file__).parents[1]
        system = map(Path, _SYSTEM.split())
        landlock.restrict([*self.readable, package, own, *_python(), *system], [self.scratch, Path("/dev/null")])


def _tried(otherwise: str, piece: Callable[[], None]) -> list[str]:
    try:
        piece()
    except OSError as error:
        return [f"{otherwise}: {error}"]
    return []


def _go_first() -> None:
    Path("/proc/self/oom_score_adj").write_text("1000")


def _limit(memory_bytes: int) -> None:
    # Not the number of processes: that counts all of the user's. Inside, there can be no other process.
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: MAX_OPEN_FILES,
        resource.RLIMIT_FSIZE: MAX_FILE_BYTES,
        resource.RLIMIT_DATA: memory_bytes,
        resource.RLIMIT_AS: memory_bytes + _MAPPED_BYTES,
    }
    for what, most in limits.items():
        _, hard = resource.getrlimit(what)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))


def _half_of_memory() -> int:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            total = min(total, int(Path("/sys/fs/cgroup", name).read_text()))
        except (OSError, ValueError):
            continue
    return max(total // 2, _LEAST_MEMORY_BYTES)


def _drop_capabilities() -> None:
    """Keep one of root's, if it is root: to read what others own, in the folders that it sees."""
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    held = _effective_capabilities() & 1 << _CAP_DAC_READ_SEARCH
    number = _CAPSET.get(platform.machine())
    if number is None:
        raise OSError(f"unknown on {platform.machine()}")
    syscall(number, header, struct.pack("=6I", held, held, 0, 0, 0, 0))


def _effective_capabilities() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("CapEff:")[2].split()[0], 16)


def _python() -> Iterator[Path]:
    for prefix in {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}:
        for name in ("lib", "lib64", "share"):
            yield Path(prefix, name)
    for path in map(Path, sys.path):
        if path.name in ("site-packages", "dist-packages"):
            yield path


def _forbidden(folder: Path) -> bool:
    try:
        os.close(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    except PermissionError:
        return True
    except OSError:
        return False
    return False
