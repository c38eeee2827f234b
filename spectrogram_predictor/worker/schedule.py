"""How much of a graph may be held at the same time, in whatever order its calls are made.

TensorFlow calls what is ready, not one layer after the other: branches that could be worked off one by one are
held all together. So what counts is which numbers are gone for certain before others come.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_

Place = tuple[int | None, int]
"""A call's number, and which of its outputs; no number for what is there from the beginning."""


@dataclass
class _Held:
    """Numbers that a call holds until others are over: sets of calls, as the bits of a number."""

    size: int
    after: int
    until: int
    forever: bool = False


@dataclass
class _Chain:
    """What is held one after the other, never two at a time."""

    last: _Held
    most: int


class Schedule:
    """The calls of a graph, in an order in which they can be made, and what each of them holds."""

    def __init__(self) -> None:
        self._over: list[int] = []
        """For each call, those that are over for certain when its outputs are there."""
        self._outputs: list[list[_Held]] = []
        self._held: list[_Held] = []

    def add(
        self, given: Sequence[Place], outputs: Sequence[int], beside: int, *, at_once: bool, whole: bool
    ) -> int:
        """Add a call.

        Parameters
        ----------
        given : sequence of Place
            What it takes of others.
        outputs : sequence of int
            Size of each of its outputs [numbers].
        beside : int
            What it holds while it works [numbers].
        at_once : bool
            It does nothing before all that it takes is there.
        whole : bool
            Nobody gets anything of it before it is over.

        Returns
        -------
        call : int
            Its number.
        """
        call = len(self._over)
        over = [0 if one is None else self._over[one] for one, _ in given] or [0]
        every, some = reduce(or_, over), reduce(and_, over)
        after = every if at_once else some
        self._over.append(every | 1 << call if whole else some)
        self._outputs.append([_Held(size, after, 1 << call) for size in outputs])
        self._held += [_Held(beside, after, 1 << call), *self._outputs[call]]
        for place in given:
            if held := self._output(place):
                held.until |= 1 << call
        return call

    def keep(self, place: Place) -> None:
        """Keep an output to the end."""
        if held := self._output(place):
            held.forever = True

    def peak(self) -> int:
        """Return a number that what is held at the same time does not exceed.

        Of what is held one after the other, only the largest counts; the fewer such chains, the better the bound.
        """
        chains: list[_Chain] = []
        for held in self._held:
            if held.size:
                _put(held, chains)
        return sum(chain.most for chain in chains)

    def _output(self, place: Place) -> _Held | None:
        call, index = place
        if call is None:
            return None
        outputs = self._outputs[call]
        # How many there are is not known of every call.
        return outputs[min(index, len(outputs) - 1)]


def _put(held: _Held, chains: list[_Chain]) -> None:
    free = [one for one in chains if not one.last.forever and not one.last.until & ~held.after]
    if not free:
        chains.append(_Chain(held, held.size))
        return
    # Where it adds the least, and leaves the most to others.
    chain = min(free, key=lambda one: (max(0, held.size - one.most), one.most))
    chain.last, chain.most = held, max(chain.most, held.size)
