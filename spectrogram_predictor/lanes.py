"""Work beside the event loop that keeps its order, a little ahead of whoever hands it over."""

import asyncio
import itertools
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

DEPTH = 4

_NICE = 15


class Lane:
    """Do one thing after the other in a thread.

    `put` returns at once while fewer than `DEPTH` things are to do. Loop and thread do not tell each other of each
    of them: the thread takes the next one that is there, and wakes the loop when little is left. What a thing
    raises, a later `put` or `join` raises; what was to be done after it is not.

    Parameters
    ----------
    thread : Executor
        With one thread, so that order is kept.
    """

    def __init__(self, thread: Executor) -> None:
        self._thread = thread
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._lock = threading.Lock()
        self._working = False
        self._failure: BaseException | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    async def put(self, function: Callable[..., object], *args: Any) -> None:
        """Hand over a call."""
        self._raise()
        with self._lock:
            self._calls.append((function, args))
            begin, self._working = not self._working, True
        if begin:
            self._begin(asyncio.get_running_loop())
        if len(self._calls) > DEPTH:
            await self._until(DEPTH // 2)
            self._raise()

    async def join(self) -> None:
        """Wait until everything is done."""
        await self._until(0)
        self._raise()

    async def drop(self) -> None:
        """Wait until nothing is being done any more, whatever became of it."""
        await self._until(0)
        self._failure = None

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def _until(self, left: int) -> None:
        """Wait until no more than so many are left; the one that is being done counts."""
        with self._lock:
            if len(self._calls) <= left:
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append((left, waiter))
        await waiter

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Do some of what is there, and come back for more: other lanes share the thread."""
        for _ in range(DEPTH):
            if not self._settle(self._do_next(), loop):
                return
        self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._thread.submit(self._work, loop)
        except RuntimeError:
            # The threads are ended: what is left is done by whoever is here.
            self._work(loop)

    def _do_next(self) -> BaseException | None:
        """Do what is next; return what it raised."""
        function, args = self._calls[0]
        try:
            function(*args)
        except BaseException as error:
            return error
        return None

    def _settle(self, failure: BaseException | None, loop: asyncio.AbstractEventLoop) -> bool:
        """Take what is done off the list, wake who waited for that; tell whether there is more to do."""
        with self._lock:
            # At once: between the two, somebody could be told of it, and what follows would be done all the same.
            if failure is None:
                self._calls.popleft()
            else:
                self._failure = failure
                self._calls.clear()
            left = len(self._calls)
            self._working = left > 0
            waking = [waiter for most, waiter in self._waiters if left <= most]
            self._waiters = [(most, waiter) for most, waiter in self._waiters if left > most]
        if waking:
            loop.call_soon_threadsafe(_wake, waking)
        return left > 0


class Lanes:
    """A few threads that any number of lanes share; what somebody waits for comes before them.

    Parameters
    ----------
    count : int > 0
        Threads.
    name : str
        What they are called.
    """

    def __init__(self, count: int, name: str) -> None:
        self._threads = [
            ThreadPoolExecutor(1, thread_name_prefix=f"{name}-{number}", initializer=_give_way)
            for number in range(count)
        ]
        self._next = itertools.cycle(self._threads)

    def lane(self) -> Lane:
        """Return a new lane."""
        return Lane(next(self._next))

    def close(self) -> None:
        """Let go of the threads, once they are done."""
        for thread in self._threads:
            thread.shutdown(wait=True)


def _give_way() -> None:
    """Let this thread have a processor when nobody else wants it, and a little of one when all do."""
    if sys.platform == "linux":
        # Elsewhere the process has a priority, and not each thread. By so much below the server's own, or
        # as low as it goes: nobody is refused that.
        os.nice(_NICE)


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
