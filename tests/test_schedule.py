"""What a graph holds at a time is bounded whatever the order of its calls."""

import random
from collections.abc import Collection

from hypothesis import given, settings
from hypothesis import strategies as st

from spectrogram_predictor.worker.schedule import Place, Schedule

Graph = tuple[list[list[int]], list[int], set[int], set[int]]
"""The calls that each takes from, the size of what each makes; those that are kept, those that are early."""


def held_at_a_time(graph: Graph, order: random.Random) -> int:
    """Make each call once all that it takes is there, or some if it is early, several at the same time.

    Return the most that was held.
    """
    calls, sizes, kept, early = graph
    waiting, running, over, most = set(range(len(calls))), set[int](), set[int](), 0
    while waiting or running:
        whole = {one for one, taken in enumerate(calls) if over.issuperset(taken)}
        ready = sorted(one for one in waiting if one in whole or (one in early and over.intersection(calls[one])))
        ending = sorted(running & whole)
        if ready and (not ending or order.random() < 0.6):
            running.add(order.choice(ready))
            waiting -= running
        else:
            ended = order.choice(ending)
            running.remove(ended)
            over.add(ended)
        started = running | over
        held = {
            one
            for one in started
            if one in kept or one in running or any(one in calls[n] and n not in over for n in range(len(calls)))
        }
        most = max(most, sum(sizes[one] for one in held))
    return most


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw a few calls, each of which may take from those before it."""
    count = draw(st.integers(1, 12))
    calls = [draw(st.lists(st.integers(0, n - 1), max_size=3, unique=True)) if n else [] for n in range(count)]
    sizes = draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
    some = st.integers(0, count - 1)
    return calls, sizes, draw(st.sets(some, max_size=2)), draw(st.sets(some))


def scheduled(
    calls: list[list[int]], sizes: list[int], kept: Collection[int] = (), early: Collection[int] = ()
) -> int:
    schedule = Schedule()
    for number, (taken, made) in enumerate(zip(calls, sizes, strict=True)):
        given_: list[Place] = [(one, 0) for one in taken] or [(None, 0)]
        schedule.add(given_, [made], 0, at_once=number not in early, whole=True)
    for one in kept:
        schedule.keep((one, 0))
    return schedule.peak()


@settings(deadline=None)
@given(graphs(), st.integers())
def test_no_order_holds_more(graph: Graph, seed: int) -> None:
    """Neither one call after the other, nor as many as can be at the same time, nor what begins too early."""
    assert scheduled(*graph) >= held_at_a_time(graph, random.Random(seed))


def test_what_is_one_after_the_other_counts_two_at_a_time() -> None:
    """What a call takes, and what it makes."""
    chain = [[], *([n] for n in range(9))]
    assert scheduled(chain, [7] * 10) == 14


def test_what_is_beside_each_other_counts_together() -> None:
    """Though it could be made and be gone before the next."""
    branches = [[], *[[0]] * 5, *([n] for n in range(1, 6)), list(range(6, 11))]
    assert scheduled(branches, [0, *[100] * 5, *[1] * 5, 1]) >= 500


def test_a_part_that_may_be_over_before_the_whole_ends_nothing() -> None:
    """Of what has several outputs, one may be there long before the others."""
    for whole, most in ((True, 100), (False, 200)):
        schedule = Schedule()
        big = schedule.add([(None, 0)], [100], 0, at_once=True, whole=True)
        two = schedule.add([(big, 0), (None, 0)], [0, 0], 0, at_once=True, whole=whole)
        after = schedule.add([(two, 1)], [100], 0, at_once=True, whole=True)
        schedule.add([(after, 0)], [0], 0, at_once=True, whole=True)
        assert schedule.peak() == most
