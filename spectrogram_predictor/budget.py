"""How much of the processor's time some work may take, asked by whoever does it, between its blocks.

Wall time would not do: on a busy machine the same work takes longer, and is no other. Work is not interrupted, it
asks; what cannot ask, a single call of a library, must be bounded by what it is given.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from spectrogram_predictor.errors import Unprocessable

_ends: ContextVar[tuple[float, str] | None] = ContextVar("_ends", default=None)


@contextmanager
def limited(max_s: float, otherwise: str) -> Iterator[None]:
    """Give what is done inside so much of this process's time.

    Parameters
    ----------
    max_s : float >= 0 [s]
        How much, over all threads.
    otherwise : str
        What is said if that is too little.
    """
    token = _ends.set((time.process_time() + max_s, otherwise))
    try:
        yield
    finally:
        _ends.reset(token)


def check() -> None:
    """Go on if there is time, or if nobody has limited it.

    Raises
    ------
    Unprocessable
        It is used up.
    """
    ends = _ends.get()
    if ends and time.process_time() > ends[0]:
        raise Unprocessable(ends[1])
