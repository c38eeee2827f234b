"""System calls that Python has no function for."""

import ctypes
import os
import sys

_PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)


def syscall(number: int, *arguments: int | bytes | ctypes.Structure | None) -> int:
    """Make a system call.

    Parameters
    ----------
    number : int
        Its number on this architecture.
    arguments : int, bytes, structure or None
        Bytes and structures are passed by their address.

    Raises
    ------
    OSError
        The kernel says no.
    """
    passed = [ctypes.byref(item) if isinstance(item, ctypes.Structure) else _word(item) for item in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def prctl(option: int, value: int = 0) -> None:
    """Change what this process may do, see prctl(2).

    Raises
    ------
    OSError
        The kernel says no.
    """
    if _libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def forbid_tracing() -> None:
    """Let no other process of the same user read the memory and the environment of this one."""
    if sys.platform == "linux":
        prctl(_PR_SET_DUMPABLE, 0)


def _word(item: int | bytes | None) -> ctypes.c_long | bytes | None:
    return ctypes.c_long(item) if isinstance(item, int) else item
