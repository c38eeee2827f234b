"""Calls that wait, and which worker takes which.

A call about a model goes to a worker that holds it: has it loaded. If none does, a free one loads it. Of several
workers, one stays free of loading: while a model of half a gigabyte is loaded, others are answered. But nobody
waits for that for ever: what has waited for long may have the last one. What one worker holds, another loads as
well once calls about it have waited, beside an idle worker and all together, for as long as loading it took, and
what may have to leave for it.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

LOAD_PATIENCE_S = 1.0
"""How long a call that must load a model leaves the last worker to those that need not."""

TRIAL_PATIENCE_S = 10.0
"""The same for one that takes as long whatever is loaded, and for which fewer people wait."""


@dataclass(eq=False)
class Call:
    """What is to be done, by whom, and who waits for it.

    Parameters
    ----------
    future : Future
        Of the result.
    message : list
        For the worker; empty once nobody waits.
    model : str or None
        What it is about.
    loads : bool
        It takes as long as loading a model, even if the model is held.
    only : int or None
        Number of the seat that must take it.
    check : callable
        Raises ValueError at a result that no worker of ours gives.
    refused_by : set of int
        Process ids of workers that are out of service for it.
    """

    future: Future[Any]
    message: list[Any]
    model: str | None = None
    loads: bool = False
    only: int | None = None
    check: Callable[[Any], object] = lambda _: None
    refused_by: set[int] = field(default_factory=set)
    since: float = field(default_factory=time.monotonic)

    def may_go_to(self, seat: "Seat") -> bool:
        """Whether a seat's worker could take it, now or later."""
        return seat.pid is not None and self.only in (None, seat.number) and seat.pid not in self.refused_by


@dataclass(eq=False)
class Seat:
    """A worker's place.

    Attributes
    ----------
    pid : int or None
        Of the process that takes calls here, if there is one.
    held : tuple of str
        Models that it has loaded.
    call : Call or None
        What it has been given.
    loading : bool
        For that it must load a model, or do something that takes as long.
    wake : callable
        Called when it has been given a call.
    """

    number: int
    pid: int | None = None
    held: tuple[str, ...] = ()
    call: Call | None = None
    loading: bool = False
    began: float = 0.0
    wake: Callable[[], object] = lambda: None


class Backlog:
    """Calls in the order in which they came, and seats.

    Parameters
    ----------
    seats : int > 0
        How many.
    """

    def __init__(self, seats: int) -> None:
        self.seats = [Seat(number) for number in range(seats)]
        self._calls: list[Call] = []
        # Of models that are held: how long loading took, and how long calls have waited beside an idle seat.
        self._load_s: dict[str, float] = {}
        self._waited_s: dict[str, float] = {}
        self._passed_over: list[str] = []
        self._looked_at = 0.0

    def put(self, call: Call) -> None:
        """Add a call."""
        self._calls.append(call)
        self.look()

    def sit(self, seat: Seat, pid: int | None, held: tuple[str, ...] = ()) -> None:
        """Say which process takes calls at a seat from now on, or that none does; what it was given goes back."""
        if seat.call:
            self._calls.insert(0, seat.call)
        seat.pid, seat.held, seat.call, seat.loading = pid, held, None, False
        self.look()

    def done(self, seat: Seat, held: tuple[str, ...]) -> None:
        """Say that a seat's call is over, and what its worker holds now."""
        if seat.loading and seat.call and seat.call.model:
            self._load_s[seat.call.model] = time.monotonic() - seat.began
        seat.held, seat.call, seat.loading = held, None, False
        self._forget()
        self.look()

    def clear(self) -> list[Call]:
        """Forget the calls that nobody has taken; return them."""
        calls, self._calls = self._calls, []
        return calls

    def look(self) -> None:
        """Give every call to the seat that is best for it, unless it is better off waiting: for some time only."""
        self._count_waiting()
        waiting = []
        for call in self._calls:
            if call.future.cancelled():
                continue
            seat = self._best(call)
            if seat is None:
                waiting.append(call)
                continue
            seat.call, seat.loading, seat.began = call, _must_load(call, seat), time.monotonic()
            if seat.loading and call.model:
                self._waited_s.pop(call.model, None)
            seat.wake()
        self._calls = waiting
        self._passed_over = list(self._beside_idle(waiting))

    def _beside_idle(self, waiting: list[Call]) -> Iterator[str]:
        """Yield the models of calls that an idle seat could have had, once a call."""
        idle = [seat for seat in self.seats if seat.call is None]
        being_loaded = {seat.call.model for seat in self.seats if seat.loading and seat.call}
        for call in waiting:
            if call.model and call.model not in being_loaded and any(call.may_go_to(seat) for seat in idle):
                yield call.model

    def _count_waiting(self) -> None:
        """Add the time since the last look to what calls have waited that an idle seat could have had."""
        now = time.monotonic()
        for model in self._passed_over:
            self._waited_s[model] = self._waited_s.get(model, 0.0) + now - self._looked_at
        self._looked_at = now

    def _forget(self) -> None:
        """Forget the times of models that nobody holds."""
        held = {model for seat in self.seats for model in seat.held}
        for times in (self._load_s, self._waited_s):
            for model in [model for model in times if model not in held]:
                del times[model]

    def _best(self, call: Call) -> Seat | None:
        able = [seat for seat in self.seats if call.may_go_to(seat)]
        idle = [seat for seat in able if seat.call is None]
        at_once = next((seat for seat in idle if not _must_load(call, seat)), None)
        if at_once or not idle or self._soon_held(call, able, idle):
            return at_once
        working = [seat for seat in self.seats if seat.pid is not None]
        patience_s = TRIAL_PATIENCE_S if call.loads else LOAD_PATIENCE_S
        last = sum(seat.loading for seat in working) >= max(1, len(working) - 1)
        if last and time.monotonic() - call.since < patience_s:
            return None
        return min(idle, key=lambda seat: (call.model not in seat.held, len(seat.held)))

    def _soon_held(self, call: Call, able: list[Seat], idle: list[Seat]) -> bool:
        """Tell whether it is better to wait for a worker that holds the model, or is about to."""
        if call.loads or call.only is not None:
            return False
        if any(seat.loading and seat.call and seat.call.model == call.model for seat in able):
            return True
        if call.model is None or not any(call.model in seat.held for seat in able):
            return False
        costs_s = self._load_s.get(call.model, 0.0) + min(map(self._dearest_s, idle))
        return self._waited_s.get(call.model, 0.0) < costs_s

    def _dearest_s(self, seat: Seat) -> float:
        """Return how long it may take to load what a seat lets go for another model."""
        return max((self._load_s.get(model, 0.0) for model in seat.held), default=0.0)


def _must_load(call: Call, seat: Seat) -> bool:
    return call.loads or (call.model is not None and call.model not in seat.held)
