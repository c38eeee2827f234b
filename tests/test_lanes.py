"""Order, errors and the end of work beside the event loop."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from spectrogram_predictor.lanes import DEPTH, Lanes


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    lanes = Lanes(2, "test")
    yield lanes
    lanes.close()


@pytest.mark.gen_test
async def test_order_is_kept(lanes: Lanes) -> None:
    """However many lanes share the threads."""
    done: dict[int, list[int]] = {number: [] for number in range(5)}
    mine = {number: lanes.lane() for number in done}
    for step in range(50):
        await asyncio.gather(*(lane.put(done[number].append, step) for number, lane in mine.items()))
    for lane in mine.values():
        await lane.join()
    assert all(steps == list(range(50)) for steps in done.values())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
@pytest.mark.gen_test
async def test_what_somebody_waits_for_comes_first(lanes: Lanes) -> None:
    """The threads have a low priority; the rest of the process keeps its own."""
    found: list[int] = []
    lane, before = lanes.lane(), os.getpriority(os.PRIO_PROCESS, 0)
    await lane.put(lambda: found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    await lane.join()
    assert found == [min(before + 15, 19)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@pytest.mark.gen_test
async def test_one_is_only_so_far_ahead(lanes: Lanes) -> None:
    """Then `put` waits."""
    go = threading.Event()
    lane = lanes.lane()
    for _ in range(DEPTH):
        await asyncio.wait_for(lane.put(go.wait), 5)
    waiting = asyncio.create_task(lane.put(go.wait))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    go.set()
    await waiting
    await lane.join()


@pytest.mark.gen_test
async def test_what_went_wrong_is_said_once(lanes: Lanes) -> None:
    """By a later call; `drop` does not care."""

    def fail() -> None:
        raise OSError("full")

    lane = lanes.lane()
    await lane.put(fail)
    with pytest.raises(OSError, match="full"):
        await lane.join()
    await lane.join()
    await lane.put(fail)
    await lane.drop()
    await lane.join()


@pytest.mark.gen_test
async def test_nothing_is_done_after_what_went_wrong(lanes: Lanes) -> None:
    """What was handed over before anybody knew would come at the wrong place; what comes later is done again."""
    go, done = threading.Event(), list[int]()

    def fail() -> None:
        go.wait()
        raise OSError("full")

    lane = lanes.lane()
    await lane.put(done.append, 1)
    await lane.put(fail)
    await lane.put(done.append, 2)
    go.set()
    with pytest.raises(OSError, match="full"):
        await lane.join()
    await lane.put(done.append, 3)
    await lane.join()
    assert done == [1, 3]


@pytest.mark.gen_test
async def test_a_busy_lane_leaves_its_thread_to_others(lanes: Lanes) -> None:
    """However fast its owner hands over more."""
    busy = lanes.lane()
    stop = False

    async def feed() -> None:
        while not stop:
            await busy.put(time.sleep, 0.001)

    feeding = asyncio.create_task(feed())
    for _ in range(4):
        other = lanes.lane()
        await other.put(time.sleep, 0)
        await asyncio.wait_for(other.join(), 10)
    stop = True
    await feeding
    await busy.join()


@pytest.mark.gen_test
async def test_what_is_left_is_done_when_the_threads_end(lanes: Lanes) -> None:
    """Nobody waits for ever for a lane whose thread has ended meanwhile, nor for a new one."""
    done: list[int] = []
    go = threading.Event()
    lane = lanes.lane()
    await lane.put(go.wait)
    for number in range(DEPTH - 1):
        await lane.put(done.append, number)
    closing = asyncio.create_task(asyncio.to_thread(lanes.close))
    more = asyncio.create_task(lane.put(done.append, DEPTH - 1))
    go.set()
    await asyncio.wait_for(closing, 10)
    await asyncio.wait_for(more, 10)
    await lane.put(done.append, DEPTH)
    await asyncio.wait_for(lane.join(), 10)
    assert done == list(range(DEPTH + 1))
