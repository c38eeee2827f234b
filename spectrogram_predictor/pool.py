"""A pool of worker processes as a ``concurrent.futures.Executor``.

``ProcessPoolExecutor`` loses every pending call when one of its processes dies. Here, when one dies, the one call
that it had fails, and a new process takes its place. It talks to them on an event loop: a call that went from
thread to thread would wait at each step for a processor, and for the interpreter's lock.

A worker is a fresh interpreter (spawned, never forked: TensorFlow does not survive a fork) in a box of its own:
see `worker.box` and `warden`. Calls go to it as pickles; answers come back as JSON, numbers and text only, so that
a worker which a model file has taken over cannot run code in the server.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

from spectrogram_predictor import scratch
from spectrogram_predictor.backlog import Backlog, Call, Seat
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import (
    DeadlineExceeded,
    OutOfService,
    SpectrogramPredictorError,
    WorkerLost,
)
from spectrogram_predictor.worker_process import WorkerProcess, packed

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0
_RESTART_PAUSE_S = 1.0
_MOST_REMEMBERED = 256


class WorkerPool(Executor):
    """Run calls on worker processes, one call a process at a time.

    Made where an event loop runs, it belongs to that one, and `close` ends it. Made elsewhere, it has one of its
    own in a thread, and any thread may use it.

    Parameters
    ----------
    settings : PredictionSettings
        Number of processes, their threads, the models they keep, the longest call.
    initializer : str, optional
        ``module:function`` that each worker calls once with ``(threads, cached_models, memory_bytes)``, and that
        returns a function which says what models it holds.
    readable : sequence of Path, optional
        Folders that workers may read, see `Backend.local_folders`.
    """

    def __init__(
        self,
        settings: PredictionSettings,
        initializer: str = "spectrogram_predictor.worker.engine:start",
        readable: Sequence[Path] = (Path("/"),),
    ) -> None:
        self._settings = settings
        self._initializer = initializer
        self._readable = readable
        self._missing: set[str] = set()
        scratch.sweep()
        self._backlog = Backlog(settings.workers or os.cpu_count() or 1)
        self._shut = False
        self._closing = asyncio.Event()
        self._workers: dict[int, WorkerProcess] = {}
        self._starting: set[WorkerProcess] = set()
        self._loads: dict[str, tuple[tuple[Any, ...], list[Any]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._thread: threading.Thread | None = None
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._run, name="workers", daemon=True)
            self._thread.start()
        self._on_loop(self._begin)

    @property
    def ready(self) -> bool:
        """Whether a worker is up."""
        return any(worker.alive for worker in list(self._workers.values()))

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that are up."""
        return [worker.pid for worker in list(self._workers.values()) if worker.alive]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call; its result must be JSON.

        The future raises what the call raised if that is one of ours, `WorkerLost` if the worker died in the
        call, `TooSlow` if it took too long and was ended. A call that raises `OutOfService` is given to
        the other workers, before it is that.
        """
        return self._put(Call(Future(), packed(fn, args, kwargs)))

    def submit_about(
        self,
        model: str,
        load: tuple[Any, ...],
        fn: Callable[..., Any],
        *args: Any,
        check: Callable[[Any], object] = lambda _: None,
        loads: bool = False,
    ) -> Future[Any]:
        """Queue a call about a model, preferably for a worker that holds it.

        Parameters
        ----------
        model : str
            Its digest.
        load : tuple
            The function that makes a worker hold the model, and its arguments: what a new worker does that takes
            the place of one which held it.
        fn, *args
            As for `submit`.
        check : callable
            Raises ValueError at a result that is none: the worker that gave it is ended.
        loads : bool
            The call takes as long as loading a model.
        """
        self._remember(model, load)
        return self._put(Call(Future(), packed(fn, args), model, loads, check=check))

    def spread(self, model: str, load: tuple[Any, ...]) -> list[Future[Any]]:
        """Let every worker hold a model, one after the other."""
        message = self._remember(model, load)
        calls = [Call(Future(), list(message), model, only=seat.number) for seat in self._backlog.seats]
        return list(map(self._put, calls))

    def awaitable(self, future: Future[Any]) -> "asyncio.Future[Any]":
        """Do as `asyncio.wrap_future`, without its detour where both belong to one event loop."""
        if self._thread:
            return asyncio.wrap_future(future)
        waiter = self._loop.create_future()
        future.add_done_callback(lambda done: _copy(done, waiter))
        waiter.add_done_callback(lambda waited: waited.cancelled() and future.cancel())
        return waiter

    def _remember(self, model: str, load: tuple[Any, ...]) -> list[Any]:
        if len(self._loads) >= _MOST_REMEMBERED:
            held = {name for seat in self._backlog.seats for name in seat.held}
            self._loads = {name: known for name, known in self._loads.items() if name in held}
        known, message = self._loads.get(model, (None, []))
        if known != load:
            message = packed(load[0], load[1:])
            self._loads[model] = load, message
        return message

    def _put(self, call: Call) -> Future[Any]:
        if self._shut:
            raise RuntimeError("the pool is shut down")
        # A call that was cancelled stays in the backlog until a worker comes by; its song need not.
        call.future.add_done_callback(lambda _: call.message.clear())
        self._on_loop(self._enqueue, call)
        return call.future

    def _enqueue(self, call: Call) -> None:
        self._backlog.put(call)
        if self._closing.is_set():
            # It came from another thread, and meanwhile the pool was ended.
            self._abandon_calls()

    def _on_loop(self, function: Callable[..., object], *args: Any) -> None:
        if self._thread:
            self._loop.call_soon_threadsafe(function, *args)
        else:
            function(*args)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; with `cancel_futures` also what they are doing.

        A pool that belongs to somebody's event loop is not waited for: that is what `close` is for.
        """
        self._shut = True
        if self._thread is None:
            self._end(cancel_futures)
        elif self._thread.is_alive():
            ended = asyncio.run_coroutine_threadsafe(self.close(cancel_futures=cancel_futures), self._loop)
            ended.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
            if wait:
                self._thread.join()

    async def close(self, *, cancel_futures: bool = True) -> None:
        """End the workers, and wait until they have ended."""
        self._shut = True
        self._end(cancel_futures)
        await asyncio.wait(self._tasks)
        # One may have been put back for others after these had ended.
        self._abandon_calls()

    def _run(self) -> None:
        """Be the thread with the event loop."""
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def _begin(self) -> None:
        self._signals = [asyncio.Event() for _ in self._backlog.seats]
        for seat, signal in zip(self._backlog.seats, self._signals, strict=True):
            seat.wake = signal.set
        work = [*map(self._serve, self._backlog.seats), self._beat()]
        self._tasks = [self._loop.create_task(each) for each in work]
        for task in self._tasks:
            task.add_done_callback(_tell_failure)

    def _end(self, cancel_futures: bool) -> None:
        self._closing.set()
        if cancel_futures:
            self._abandon_calls()
            for worker in [*self._workers.values(), *self._starting]:
                worker.interrupt()
        self._wake()

    def _wake(self) -> None:
        for seat in self._backlog.seats:
            seat.wake()

    async def _beat(self) -> None:
        """Let everybody look, now and then, whether a worker still lives, and whether a call has waited enough."""
        while not await self._closes(_HEARTBEAT_S):
            self._backlog.look()
            self._wake()

    async def _closes(self, timeout_s: float) -> bool:
        """Wait a while; whether the pool is ended."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), timeout_s)
        return self._closing.is_set()

    def _abandon_calls(self) -> None:
        for call in self._backlog.clear():
            if not call.future.cancel():
                call.future.set_exception(WorkerLost("the workers are ended"))

    async def _serve(self, seat: Seat) -> None:
        """Keep a seat taken."""
        worker = await self._start(seat.number, ())
        while worker is not None:
            worker = await self._employ(seat, worker)

    async def _employ(self, seat: Seat, worker: WorkerProcess) -> WorkerProcess | None:
        """Give work to a worker until it ends, or has grown and another is ready; return the next one."""
        self._workers[seat.number] = worker
        self._backlog.sit(seat, worker.pid, worker.held)
        successor: asyncio.Task[WorkerProcess | None] | None = None
        broken: str | None = None
        try:
            while worker.alive and not (successor and successor.done()):
                call = await self._take(seat)
                if call and worker.alive:
                    broken = call.model
                    await self._perform(seat, worker, call)
                    if worker.alive:
                        broken = None
                elif self._closing.is_set():
                    break
                if worker.grown and successor is None:
                    successor = self._prepare(seat, worker)
        finally:
            del self._workers[seat.number]
            self._backlog.sit(seat, None)
            await worker.close()
        if successor is None and not self._closing.is_set():
            logger.warning("worker %d (process %d) ended; starting another", seat.number, worker.pid)
        # What it was about when it ended may be why.
        held = [model for model in worker.held if model != broken]
        following = await successor if successor else await self._start(seat.number, held)
        if following and self._closing.is_set():
            await following.close()
            return None
        return following

    async def _take(self, seat: Seat) -> Call | None:
        """Wait for a call, or for the next heartbeat."""
        signal = self._signals[seat.number]
        if seat.call is None and not self._closing.is_set():
            await signal.wait()
        signal.clear()
        return seat.call

    async def _perform(self, seat: Seat, worker: WorkerProcess, call: Call) -> None:
        future = call.future
        if not future.running() and not future.set_running_or_notify_cancel():
            self._backlog.done(seat, worker.held)
            return
        refused = None
        try:
            result = await worker.call(list(call.message), self._settings.timeout_s, call.check)
        except OutOfService as error:
            refused = error
            call.refused_by.add(worker.pid)
        except BaseException as error:
            if isinstance(error, WorkerLost | DeadlineExceeded) or not isinstance(
                error, SpectrogramPredictorError
            ):
                # Nobody knows what it would answer next.
                worker.interrupt()
            future.set_exception(error)
            if isinstance(error, asyncio.CancelledError):
                raise
        else:
            future.set_result(result)
        self._backlog.done(seat, worker.held)
        if refused and not self._leave_to_others(call):
            future.set_exception(refused)

    def _leave_to_others(self, call: Call) -> bool:
        """Put a call back for workers that have not refused it; False if there are none."""
        # One that is still starting is one of them: it may be the only one that can answer.
        # But not for ever: those that take the place of workers which refused may refuse as well.
        seats = self._backlog.seats
        refused = len(call.refused_by) > 2 * len(seats) or all(seat.pid in call.refused_by for seat in seats)
        if self._closing.is_set() or refused:
            return False
        self._backlog.put(call)
        return True

    def _prepare(self, seat: Seat, worker: WorkerProcess) -> "asyncio.Task[WorkerProcess | None]":
        """Start another worker while this one goes on."""
        logger.info(
            "worker %d (process %d) has grown to %d MiB", seat.number, worker.pid, worker.resident_bytes >> 20
        )
        successor = self._loop.create_task(self._start(seat.number, worker.held))
        successor.add_done_callback(lambda _: seat.wake())
        return successor

    async def _start(self, number: int, held: Sequence[str]) -> WorkerProcess | None:
        """Start a worker that holds these models, however often it takes; None if the pool is closing."""
        while not self._closing.is_set():
            try:
                worker = await WorkerProcess.begin(self._initializer, self._settings, self._readable)
            except (OSError, RuntimeError) as error:
                # There may be no room for another thread, which is a RuntimeError.
                logger.error("worker %d cannot be started: %s", number, error)
                await self._closes(_RESTART_PAUSE_S)
                continue
            self._starting.add(worker)
            if self._closing.is_set():
                worker.interrupt()
            try:
                self._tell(await worker.wait_until_ready())
                await self._warm(worker, held)
            except (WorkerLost, DeadlineExceeded) as error:
                await worker.close()
                held = ()
                if not await self._closes(_RESTART_PAUSE_S):
                    logger.error("worker %d does not start: %s", number, error)
            else:
                logger.info("worker %d is process %d", number, worker.pid)
                return worker
            finally:
                self._starting.discard(worker)
        return None

    def _tell(self, missing: Sequence[str]) -> None:
        """Say once what workers' boxes lack on this machine."""
        for piece in missing:
            if piece not in self._missing:
                self._missing.add(piece)
                logger.warning("the workers' box is not whole: %s", piece)

    async def _warm(self, worker: WorkerProcess, held: Sequence[str]) -> None:
        for model in held:
            if known := self._loads.get(model):
                try:
                    await worker.call(known[1], self._settings.timeout_s)
                except (WorkerLost, DeadlineExceeded):
                    raise
                except SpectrogramPredictorError as error:
                    logger.info("%s is not loaded beforehand: %s", model, error)


def _tell_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.critical("the pool is broken", exc_info=error)


def _copy(done: Future[Any], waiter: "asyncio.Future[Any]") -> None:
    if waiter.done():
        return
    if done.cancelled():
        waiter.cancel()
    elif error := done.exception():
        waiter.set_exception(error)
    else:
        waiter.set_result(done.result())
