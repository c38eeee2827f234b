"""Memory that is not needed any more: found, and given back to the system.

Requests that failed, connections that broke and Keras models are cycles of objects: what they hold stays until
Python next looks through everything, which it puts off for long. What it frees, the C library keeps for itself.
"""

import ctypes
import gc
from typing import Any


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


def _find_malloc_trim() -> Any:
    """Return glibc's; others have none, and need none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None


_malloc_trim = _find_malloc_trim()
