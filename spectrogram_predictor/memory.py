"""Memory that is not needed any more: found, and given back to the system.

Requests that failed, connections that broke and Keras models are cycles of objects: what they hold stays until
Python next looks through everything, which it puts off for long. What it frees, the C library keeps for itself.
"""

import ctypes
import gc
from typing import Any

_ARENA_MAX = -8
"""mallopt(3), M_ARENA_MAX."""


def share_arena() -> None:
    """Let all threads take their memory from one place; before there are any.

    In a thread's own, the GNU C library keeps twice the largest piece that was ever freed, and nothing makes it
    give that back.
    """
    if _mallopt:
        _mallopt(_ARENA_MAX, 1)


def settle() -> None:
    """Take what is there now, such as libraries, for what stays: `give_back` does not look through it.

    Those are hundreds of thousands of objects; for the rest, it takes milliseconds in place of tenths of a second.
    """
    gc.collect()
    gc.freeze()


def give_back() -> None:
    """Collect what nothing refers to, and let the system have what was freed."""
    gc.collect()
    if _malloc_trim:
        _malloc_trim(0)


def _of_glibc(name: str) -> Any:
    """Return a function; other libraries have none, and need none."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None


_malloc_trim = _of_glibc("malloc_trim")
_mallopt = _of_glibc("mallopt")
