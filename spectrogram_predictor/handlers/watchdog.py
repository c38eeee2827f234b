"""Watching a body arrive: there is no limit to how long it may take, but it must not stand still, nor drip."""

import asyncio
from collections.abc import Callable

from spectrogram_predictor.config import UploadSettings

SAVED_STALLS = 10
"""How many times ``uploads.stall_timeout_s`` a sender can have ahead of the slowest rate, however much it sent."""


class Watchdog:
    """Cut a body that stalls, or comes more slowly than it may.

    Only time in which the client is waited for counts, not what our own disk takes. What arrives buys time, at
    ``uploads.min_bytes_per_s``; a sender that has none left is cut.

    Parameters
    ----------
    limits : UploadSettings
        ``stall_timeout_s`` and ``min_bytes_per_s``.
    cut : callable
        Called once, with the reason.
    """

    def __init__(self, limits: UploadSettings, cut: Callable[[str], None]) -> None:
        self._stall_s = limits.stall_timeout_s
        self._rate = limits.min_bytes_per_s
        self._cut = cut
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._since: float | None = None
        self._left_s = self._stall_s

    def wait(self) -> None:
        """Begin to wait for the client."""
        self._since = self._loop.time()
        if self._timer is None:
            # One timer goes on from chunk to chunk: to set it anew for each costs more than to look too early.
            self._timer = self._loop.call_later(self._stall_s, self._look)

    def arrived(self, count: int) -> None:
        """Take note of bytes from the client, who is not waited for until `wait`."""
        if self._since is None:
            return
        waited_s, self._since = self._loop.time() - self._since, None
        if not self._rate:
            return
        self._left_s += count / self._rate - waited_s
        if self._left_s < 0:
            self._end("it came too slowly")
        self._left_s = min(self._left_s, SAVED_STALLS * self._stall_s)

    def stop(self) -> None:
        """Watch no more."""
        self._since = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._since is None:
            self._timer = self._loop.call_later(self._stall_s, self._look)
            return
        left_s = self._since + self._stall_s - self._loop.time()
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        else:
            self._end(f"nothing came for {self._stall_s:g} s")

    def _end(self, why: str) -> None:
        self.stop()
        self._cut(why)
