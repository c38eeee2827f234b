"""Work beside the event loop that keeps its order, a little ahead of whoever hands it over."""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

DEPTH = 3


class Lane:
    """Do one thing after the other in a thread.

    `put` returns at once while fewer than `DEPTH` things wait: the thread need not stop between two of them to be
    told of the next, nor the event loop wait for each. What a thing raises, a later `put` or `join` raises.

    Parameters
    ----------
    thread : Executor
        With one thread, so that order is kept.
    """

    def __init__(self, thread: Executor) -> None:
        self._thread = thread
        self._pending: deque[asyncio.Future[Any]] = deque()

    async def put(self, function: Callable[..., object], *args: Any) -> None:
        """Hand over a call."""
        self._pending.append(asyncio.get_running_loop().run_in_executor(self._thread, function, *args))
        while self._pending and (len(self._pending) > DEPTH or self._pending[0].done()):
            await self._pending.popleft()

    async def join(self) -> None:
        """Wait until everything is done."""
        while self._pending:
            await self._pending.popleft()

    async def drop(self) -> None:
        """Wait until nothing is being done any more, whatever became of it."""
        await asyncio.gather(*self._pending, return_exceptions=True)
        self._pending.clear()


class Lanes:
    """A few threads that any number of lanes share.

    Parameters
    ----------
    count : int > 0
        Threads.
    name : str
        What they are called.
    """

    def __init__(self, count: int, name: str) -> None:
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix=f"{name}-{number}") for number in range(count)]
        self._next = itertools.cycle(self._threads)

    def lane(self) -> Lane:
        """Return a new lane."""
        return Lane(next(self._next))

    def close(self) -> None:
        """Let go of the threads, once they are done."""
        for thread in self._threads:
            thread.shutdown(wait=True)
