"""A file without a name that a worker has from its start: from then on it opens none for writing.

One, for what does not go into memory, and empty when nobody has it.
"""

import functools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO


@functools.cache
def make() -> BinaryIO:
    """Make it, or return the one that was made."""
    return tempfile.TemporaryFile(prefix="spare-")


@contextmanager
def borrowed() -> Iterator[BinaryIO]:
    """Yield it, to one at a time."""
    file = make()
    try:
        yield file
    finally:
        file.seek(0)
        file.truncate()
