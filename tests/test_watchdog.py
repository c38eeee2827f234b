"""How slowly a body may come, by a clock that the tests turn."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from spectrogram_predictor.config import UploadSettings
from spectrogram_predictor.handlers.watchdog import SAVED_STALLS, Watchdog

LIMITS = UploadSettings(stall_timeout_s=60.0, min_bytes_per_s=1024)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Callable[..., None], Any]] = []
        monkeypatch.setattr(asyncio, "get_running_loop", lambda: self)

    def time(self) -> float:
        return self.now

    def call_later(self, delay_s: float, function: Callable[..., None]) -> Any:
        timer = (self.now + delay_s, function, self)
        self._timers.append(timer)

        class Handle:
            cancel = staticmethod(lambda: self._timers.remove(timer))

        return Handle()

    def pass_s(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and (due := min(self._timers, key=lambda timer: timer[0]))[0] <= end:
            self._timers.remove(due)
            self.now = due[0]
            due[1]()
        self.now = end


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def arrive(clock: Clock, dog: Watchdog, size: int, after_s: float) -> None:
    """Let bytes come after a while, and wait for more."""
    dog.wait()
    clock.pass_s(after_s)
    dog.arrived(size)


def test_hours_are_no_reason(clock: Clock) -> None:
    """Three hours at twice the slowest rate, in pieces that come just in time."""
    cut: list[str] = []
    dog = Watchdog(LIMITS, cut.append)
    for _ in range(3 * 60):
        arrive(clock, dog, 2 * 1024 * 59, 59)
    assert clock.now > 10_000
    assert cut == []


def test_what_stands_still_is_cut(clock: Clock) -> None:
    """After the time that it may, neither earlier nor later, and once."""
    cut: list[str] = []
    dog = Watchdog(LIMITS, cut.append)
    arrive(clock, dog, 10**9, 30)
    dog.wait()
    clock.pass_s(59.9)
    assert cut == []
    clock.pass_s(0.2)
    clock.pass_s(600)
    assert cut == ["nothing came for 60 s"]


def test_what_drips_is_cut(clock: Clock) -> None:
    """A byte a second has a minute."""
    cut: list[str] = []
    dog = Watchdog(LIMITS, cut.append)
    while not cut:
        arrive(clock, dog, 1, 1)
    assert cut == ["it came too slowly"]
    assert clock.now == pytest.approx(61, abs=1)


def test_what_came_fast_buys_a_limited_time(clock: Clock) -> None:
    """After a gigabyte in a second, a drip is cut all the same."""
    cut: list[str] = []
    dog = Watchdog(LIMITS, cut.append)
    arrive(clock, dog, 2**30, 1)
    while not cut:
        arrive(clock, dog, 1, 10)
    assert clock.now == pytest.approx(SAVED_STALLS * 60, abs=20)


def test_our_own_time_does_not_count(clock: Clock) -> None:
    """While the disk takes ten minutes, nobody waits for the client."""
    cut: list[str] = []
    dog = Watchdog(LIMITS, cut.append)
    arrive(clock, dog, 2**20, 1)
    clock.pass_s(600)
    arrive(clock, dog, 2**20, 1)
    assert cut == []
    dog.stop()
    clock.pass_s(600)
    assert cut == []


def test_no_rate_is_no_rate(clock: Clock) -> None:
    """With 0, what moves is let through."""
    cut: list[str] = []
    dog = Watchdog(UploadSettings(min_bytes_per_s=0), cut.append)
    for _ in range(1000):
        arrive(clock, dog, 1, 59)
    assert cut == []
