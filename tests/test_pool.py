"""The pool: real processes, real deaths."""

import asyncio
import contextlib
import errno
import fcntl
import gc
import os
import signal
import struct
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import (
    DeadlineExceeded,
    OutOfService,
    SpectrogramPredictorError,
    TooSlow,
    Unprocessable,
    WorkerLost,
)
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.scratch import Scratch
from tests.live import is_first, wait_until

NOTHING = "tests.test_pool:start"

HELD: list[str] = []
"""What models a worker holds: names only."""


def start(threads: int, cached_models: int, memory_bytes: int) -> Callable[[], list[str]]:
    """Initialise a worker that needs no TensorFlow."""
    return HELD.copy


def echo(value: Any) -> Any:
    return value


def die(signal_number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), signal_number)


def refuse() -> None:
    raise Unprocessable("no")


def refuse_in(pids: list[int], seconds: float = 0.0) -> int:
    if os.getpid() in pids:
        raise OutOfService("not here")
    time.sleep(seconds)
    return os.getpid()


def fail() -> None:
    raise ZeroDivisionError("a bug")


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def answer_half() -> None:
    """Begin an answer on the connection to the server, as a worker does that is stopped in the middle of one."""
    os.write(int(sys.argv[1]), struct.pack("!QQ", 1, 256) + b"half of an answer")
    time.sleep(600)


def hold(model: str) -> int:
    HELD.append(model)
    return os.getpid()


def holds(model: str) -> tuple[int, bool]:
    return os.getpid(), model in HELD


GROWN: list[bytes] = []


def grow(count: int) -> int:
    GROWN.append(os.urandom(2**20) * count)
    return os.getpid()


def hold_large(model: str) -> int:
    grow(300)
    return hold(model)


MEMORY: list[str] = []


def remember(what: str) -> None:
    MEMORY.append(what)


def recall() -> tuple[int, list[str]]:
    time.sleep(0.05)
    return os.getpid(), MEMORY


@pytest.fixture(autouse=True)
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find this module."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(PredictionSettings(workers=2, timeout_s=2.0), NOTHING)
    wait_until(lambda: len(pool.pids) == 2)
    yield pool
    pool.shutdown(cancel_futures=True)


def test_calls_are_answered(pool: WorkerPool) -> None:
    """Values there and back, megabytes too."""
    assert pool.submit(echo, [1.5, "x", None]).result(60) == [1.5, "x", None]
    assert pool.submit(len, b"x" * 5_000_000).result(60) == 5_000_000
    assert sorted(pool.map(echo, range(20))) == list(range(20))
    assert pool.ready


def test_errors_come_back(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """Ours as they are; a bug as an internal error, with its traceback in the log only."""
    with pytest.raises(Unprocessable, match="no"):
        pool.submit(refuse).result(60)
    with pytest.raises(SpectrogramPredictorError, match="internal error"):
        pool.submit(fail).result(60)
    assert "ZeroDivisionError" in caplog.text
    caplog.clear()


def test_a_worker_that_dies_takes_one_call_with_it(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """The others in the queue are answered, and a new process takes its place."""
    echoes = [pool.submit(echo, n) for n in range(5)]
    dead = pool.submit(die)
    echoes += [pool.submit(echo, n) for n in range(5, 10)]
    with pytest.raises(WorkerLost):
        dead.result(60)
    assert [future.result(60) for future in echoes] == list(range(10))
    wait_until(lambda: len(pool.pids) == 2)
    caplog.clear()


def test_a_worker_that_died_idle_costs_nothing(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """The next calls go elsewhere or wait for the new one."""
    killed = pool.pids
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(killed) & set(pool.pids))
    assert [pool.submit(echo, n).result(60) for n in range(4)] == list(range(4))
    caplog.clear()


def test_a_call_that_takes_too_long_is_ended(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """Its process too: nothing else stops native code."""
    stuck = pool.submit(sleep, 600)
    with pytest.raises(TooSlow, match="longer than 2 s"):
        stuck.result(60)
    assert pool.submit(echo, 1).result(60) == 1
    caplog.clear()


def test_a_worker_that_does_not_read_is_replaced(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """A call counts from its first byte: what a stopped process is sent would wait for it for ever."""
    stopped = pool.pids
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    for future in [pool.submit(len, b"x" * 8_000_000) for _ in stopped]:
        with pytest.raises(DeadlineExceeded):
            future.result(20)
    assert pool.submit(echo, 1).result(60) == 1
    assert not set(stopped) & set(pool.pids)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stopped))
    caplog.clear()


def test_half_an_answer_is_none(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    """The deadline holds until the last byte."""
    half = pool.submit(answer_half)
    with pytest.raises(DeadlineExceeded):
        half.result(20)
    assert pool.submit(echo, 1).result(60) == 1
    caplog.clear()


def test_an_answer_does_not_wait_for_the_worker_to_be_gone(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel takes its time to give back what it had, and its folder may be full."""
    removed = threading.Event()
    monkeypatch.setattr(Scratch, "remove", lambda self, remove=Scratch.remove: removed.wait() and remove(self))
    try:
        with pytest.raises(TooSlow):
            pool.submit(sleep, 600).result(20)
    finally:
        removed.set()
    assert pool.submit(echo, 1).result(60) == 1
    caplog.clear()


def test_a_call_that_one_worker_is_out_of_service_for_goes_to_another(pool: WorkerPool) -> None:
    """However busy that one is, and however idle the other; what all refuse is refused."""
    out, other = pool.pids
    futures = [pool.submit(refuse_in, [out], 0.05) for _ in range(20)]
    assert {future.result(60) for future in futures} == {other}
    for _ in range(5):
        with pytest.raises(OutOfService, match="not here"):
            pool.submit(refuse_in, [out, other]).result(60)
    assert pool.submit(echo, 1).result(60) == 1


def start_slowly(threads: int, cached_models: int, memory_bytes: int) -> Callable[[], list[str]]:
    """Initialise a worker; the second one to come takes until the test lets it."""
    if not is_first():
        wait_until(Path(os.environ["PYTHONPATH"].rpartition(os.pathsep)[2], "go on").exists)
    return HELD.copy


def test_a_worker_that_is_starting_is_waited_for(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the only one that is up refuses, it may answer."""
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{tmp_path}")
    (tmp_path / "first").touch()
    other = WorkerPool(PredictionSettings(workers=2, timeout_s=2.0), "tests.test_pool:start_slowly")
    try:
        wait_until(lambda: len(other.pids) == 1)
        [out] = other.pids
        waiting = other.submit(refuse_in, [out])
        wait_until(waiting.running)
        assert other.submit(echo, 1).result(60) == 1
        assert not waiting.done()
        (tmp_path / "go on").touch()
        assert waiting.result(60) != out
    finally:
        other.shutdown(cancel_futures=True)


def start_alone(threads: int, cached_models: int, memory_bytes: int) -> Callable[[], list[str]]:
    """Initialise a worker, once no other one is up."""
    lock = os.open(os.environ["PYTHONPATH"].rpartition(os.pathsep)[2], os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    # Until the server has seen that the other one is gone.
    time.sleep(1.0)
    return HELD.copy


def refuse_and_die() -> None:
    threading.Timer(0.2, die).start()
    raise OutOfService("nowhere")


def test_a_call_that_all_refuse_does_not_go_round_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Although there is always another worker, just starting, that has not been asked."""
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{tmp_path}")
    monkeypatch.setattr("spectrogram_predictor.pool._HEARTBEAT_S", 0.05)
    pool = WorkerPool(PredictionSettings(workers=2), "tests.test_pool:start_alone")
    try:
        with pytest.raises((OutOfService, WorkerLost), match="nowhere"):
            pool.submit(refuse_and_die).result(60)
        assert caplog.text.count("starting another") > 2
    finally:
        pool.shutdown(cancel_futures=True)
    caplog.clear()


@pytest.mark.gen_test(timeout=120)
async def test_a_cancelled_pool_lets_go() -> None:
    """Whoever ends an event loop cancels what is left on it; that is not taken for a call's failure."""
    pool = WorkerPool(PredictionSettings(workers=1, timeout_s=60.0), NOTHING)
    await pool.awaitable(pool.submit(echo, 1))
    stuck = pool.awaitable(pool.submit(sleep, 600))
    await asyncio.sleep(0.1)
    [pid] = pool.pids
    for task in pool._tasks:
        task.cancel()
    await asyncio.wait(pool._tasks, timeout=20)
    assert all(task.cancelled() for task in pool._tasks)
    with pytest.raises(asyncio.CancelledError):
        await stuck
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_call_that_waits_for_another_worker_ends_with_the_pool(pool: WorkerPool) -> None:
    """It is not left without an answer."""
    out, _ = pool.pids
    busy = [pool.submit(refuse_in, [out], 600)]
    wait_until(lambda: busy[0].running())
    waiting = [pool.submit(refuse_in, [out]) for _ in range(5)]
    wait_until(lambda: all(future.running() for future in waiting))
    pool.shutdown(cancel_futures=True)
    for future in [*busy, *waiting]:
        with pytest.raises((WorkerLost, OutOfService)):
            future.result(10)


def test_a_cancelled_call_is_not_done(pool: WorkerPool) -> None:
    """What nobody waits for any more is taken out of the queue."""
    busy = [pool.submit(sleep, 1.0) for _ in range(2)]
    wait_until(lambda: all(future.running() for future in busy))
    cancelled, done = pool.submit(remember, "cancelled"), pool.submit(remember, "done")
    assert cancelled.cancel()
    assert [future.result(60) for future in busy] == ["slept", "slept"]
    done.result(60)
    recalled = [pool.submit(recall) for _ in range(20)]
    remembered: dict[int, list[str]] = dict(future.result(60) for future in recalled)
    assert sorted(remembered.values()) == [[], ["done"]]


def test_a_cancelled_call_holds_no_memory(pool: WorkerPool) -> None:
    """Its song is let go of at once, not when a worker has time to see that nobody waits."""
    busy = [pool.submit(sleep, 1.0) for _ in range(2)]
    wait_until(lambda: all(future.running() for future in busy))
    tracemalloc.start()
    try:
        waiting = [pool.submit(len, bytes(2_000_000)) for _ in range(5)]
        assert tracemalloc.get_traced_memory()[0] > 10_000_000
        assert all(future.cancel() for future in waiting)
        assert tracemalloc.get_traced_memory()[0] < 1_000_000
    finally:
        tracemalloc.stop()
    assert all(future.running() for future in busy)


def no_room(*_: Any) -> NoReturn:
    raise OSError(errno.ENFILE, "Too many open files in system")


def no_thread(*_: Any) -> NoReturn:
    raise RuntimeError("can't start new thread")


def opened(kind: str) -> int:
    links = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    return sum(kind in link for link in links)


def begun() -> set[int]:
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        # The thread may have ended.
        with contextlib.suppress(OSError):
            found |= set(map(int, path.read_text().split()))
    return found


@pytest.mark.parametrize(
    ("what", "failing"),
    [
        ("worker_process.sys.executable", "/nonexistent"),
        ("worker_process.socket.socketpair", no_room),
        ("channel.mmap.mmap", no_room),
        ("warden.Warden.__init__", no_thread),
    ],
)
def test_a_worker_that_cannot_be_started_is_tried_again(
    what: str, failing: Any, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No room for another process now is no reason to do without it for ever; nothing is left of the attempt."""
    gc.collect()
    kinds = ("socket:", "memfd:", "pipe:", "spectrogram-predictor-worker-")
    before, children = {kind: opened(kind) for kind in kinds}, begun() - set(pool.pids)
    with monkeypatch.context() as patched:
        patched.setattr(f"spectrogram_predictor.{what}", failing)
        killed = pool.pids
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: caplog.text.count("cannot be started") > 3)
    assert pool.submit(echo, 1).result(60) == 1
    wait_until(lambda: len(pool.pids) == 2)
    assert {kind: opened(kind) for kind in kinds} == before
    assert begun() - children == set(pool.pids)
    caplog.clear()


def test_a_thread_that_comes_late_begins_no_process(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Python keeps what it had no thread for, until there is one; by then another has been begun."""
    kept: list[Callable[[], Any]] = []

    def keep(function: Callable[[], Any]) -> NoReturn:
        kept.append(function)
        no_thread()

    with monkeypatch.context() as patched:
        patched.setattr("spectrogram_predictor.pool.asyncio.to_thread", keep)
        for pid in pool.pids:
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: caplog.text.count("cannot be started") > 3)
    assert pool.submit(echo, 1).result(60) == 1
    late = [function for function in kept if function.__name__ == "begin"]
    assert len(late) > 3
    for function in late:
        with pytest.raises(WorkerLost):
            function()
    caplog.clear()


def start_with_nonsense(threads: int, cached_models: int, memory_bytes: int) -> Callable[[], list[str]]:
    """Initialise a worker; as long as the test wants it, it says something else than that it is there."""
    if Path(os.environ["PYTHONPATH"].rpartition(os.pathsep)[2], "wrong").exists():
        said = b'{"held": [], "bug": "x"}'
        os.write(int(sys.argv[1]), struct.pack("!QQ", 1, len(said)) + said)
        time.sleep(600)
    return HELD.copy


def test_a_worker_that_begins_with_nonsense_is_replaced(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that answers so later."""
    monkeypatch.setenv("PYTHONPATH", f"{os.environ['PYTHONPATH']}{os.pathsep}{tmp_path}")
    (tmp_path / "wrong").touch()
    pool = WorkerPool(PredictionSettings(workers=1), "tests.test_pool:start_with_nonsense")
    try:
        wait_until(lambda: "does not start" in caplog.text)
        (tmp_path / "wrong").unlink()
        assert pool.submit(echo, 1).result(60) == 1
    finally:
        pool.shutdown(cancel_futures=True)
    caplog.clear()


def test_shutdown_leaves_no_process(pool: WorkerPool) -> None:
    """Not even a busy one."""
    pids = pool.pids
    pool.submit(sleep, 600)
    pool.shutdown(cancel_futures=True)
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(RuntimeError):
        pool.submit(echo, 1)


@pytest.mark.gen_test(timeout=120)
async def test_a_pool_made_on_an_event_loop_belongs_to_it() -> None:
    """Calls pass through no thread; who stops waiting stops the call, unless it has begun; `close` ends it."""
    pool = WorkerPool(PredictionSettings(workers=1, timeout_s=60.0), NOTHING)
    try:
        assert await pool.awaitable(pool.submit(echo, [1.5, "x"])) == [1.5, "x"]
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("worker")]
        with pytest.raises(Unprocessable, match="no"):
            await pool.awaitable(pool.submit(refuse))
        begun, waiting = pool.submit(sleep, 0.5), pool.submit(remember, "cancelled")
        await asyncio.sleep(0.1)
        for future in (begun, waiting):
            pool.awaitable(future).cancel()
        await asyncio.sleep(0)
        assert (begun.cancelled(), waiting.cancelled()) == (False, True)
        assert (await pool.awaitable(pool.submit(recall)))[1] == []
        assert begun.result() == "slept"
        stuck = pool.awaitable(pool.submit(sleep, 600))
        await asyncio.sleep(0.1)
    finally:
        [pid] = pool.pids
        await pool.close()
    with pytest.raises(WorkerLost):
        await stuck
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="shut down"):
        pool.submit(echo, 1)


def test_shutdown_waits_for_what_was_submitted(lone: WorkerPool) -> None:
    """All of it is done, and then it ends: also what was queued behind another call."""
    futures = [lone.submit(sleep, 0.3) for _ in range(2)]
    ending = threading.Thread(target=lone.shutdown)
    ending.start()
    ending.join(30)
    assert not ending.is_alive()
    assert [future.result(0) for future in futures] == ["slept", "slept"]


@pytest.mark.gen_test(timeout=120)
async def test_a_pool_is_closed_while_it_starts() -> None:
    """Nobody waits for a worker that is not needed any more."""
    pool = WorkerPool(PredictionSettings(workers=2), NOTHING)
    waiting = pool.awaitable(pool.submit(echo, 1))
    pool.shutdown(cancel_futures=True)
    await pool.close()
    assert waiting.cancelled()
    assert pool.pids == []


@pytest.fixture
def lone() -> Iterator[WorkerPool]:
    """A pool of one worker, which may take 200 MiB."""
    pool = WorkerPool(PredictionSettings(workers=1, worker_memory_bytes=200 * 2**20), NOTHING)
    wait_until(lambda: len(pool.pids) == 1)
    yield pool
    pool.shutdown(cancel_futures=True)


def test_a_worker_that_has_grown_is_replaced_without_a_gap(lone: WorkerPool) -> None:
    """It goes on until another holds what it held, and then is gone with its memory."""
    load = (hold, "a")
    old = lone.submit_about("a", load, hold, "a").result(60)
    assert lone.submit_about("a", load, holds, "a").result(60) == [old, True]
    assert lone.submit(grow, 300).result(60) == old
    answers = [[old, True]]
    while answers[-1][0] == old:
        answers.append(lone.submit_about("a", load, holds, "a").result(60))
    assert len(answers) > 10, "it answered while the other one started"
    assert all(held for _, held in answers)
    wait_until(lambda: not Path(f"/proc/{old}").exists())


def test_a_worker_that_needs_what_it_takes_is_not_replaced(lone: WorkerPool) -> None:
    """Another one in its place would take as much."""
    old = lone.submit_about("a", (hold_large, "a"), hold_large, "a").result(60)
    assert [lone.submit(os.getpid).result(60) for _ in range(20)] == [old] * 20
    assert lone.pids == [old]


def test_a_worker_in_the_place_of_one_that_died_holds_what_that_held(
    lone: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    """Before it is given work; but for what it died of."""
    for model in ("a", "b"):
        old = lone.submit_about(model, (hold, model), hold, model).result(60)
    with pytest.raises(WorkerLost):
        lone.submit_about("b", (hold, "b"), die).result(60)
    new, held = lone.submit(holds, "a").result(60)
    assert new != old
    assert held
    assert lone.submit(holds, "b").result(60) == [new, False]
    caplog.clear()


def test_a_worker_that_died_idle_did_not_die_of_its_last_call(
    lone: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one holds all that it held, also what was asked last."""
    old = lone.submit_about("a", (hold, "a"), hold, "a").result(60)
    wait_until(lambda: lone._backlog.seats[0].call is None)
    os.kill(old, signal.SIGKILL)
    wait_until(lambda: lone.pids not in ([], [old]))
    new, held = lone.submit(holds, "a").result(60)
    assert new != old
    assert held
    caplog.clear()


def test_every_worker_is_made_to_hold_a_model(pool: WorkerPool) -> None:
    """Once each."""
    futures = pool.spread("a", (hold, "a"))
    assert {future.result(60) for future in futures} == set(pool.pids)
