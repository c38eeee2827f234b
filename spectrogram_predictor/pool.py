"""A pool of worker processes as a ``concurrent.futures.Executor``.

``ProcessPoolExecutor`` loses every pending call when one of its processes dies. Here each process belongs to one
thread of the server: when it dies, the one call that it had fails, and a new process takes its place.

A worker is a fresh interpreter (spawned, never forked: TensorFlow does not survive a fork) in a box of its own:
see `worker.box` and `warden`. Calls go to it as pickles; answers come back as JSON, numbers and text only, so that
a worker which a model file has taken over cannot run code in the server.
"""

import logging
import os
import pickle
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
from spectrogram_predictor.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

_HEARTBEAT_S = 1.0
_RESTART_PAUSE_S = 1.0
_MOST_REMEMBERED = 256
_LARGE = 2**16


class WorkerPool(Executor):
    """Run calls on worker processes, one call a process at a time.

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
        self._closing = threading.Event()
        self._workers: dict[int, WorkerProcess] = {}
        self._starting: set[WorkerProcess] = set()
        self._loads: dict[str, tuple[tuple[Any, ...], list[Any]]] = {}
        self._threads = [
            threading.Thread(target=self._serve, args=(seat,), name=f"worker-{seat.number}", daemon=True)
            for seat in self._backlog.seats
        ]
        for thread in self._threads:
            thread.start()

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
        return self._put(Call(Future(), _pack((fn, args, kwargs))))

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
        return self._put(Call(Future(), _pack((fn, args, {})), model, loads, check=check))

    def spread(self, model: str, load: tuple[Any, ...]) -> list[Future[Any]]:
        """Let every worker hold a model, one after the other."""
        message = self._remember(model, load)
        calls = [Call(Future(), list(message), model, only=seat.number) for seat in self._backlog.seats]
        return list(map(self._put, calls))

    def _remember(self, model: str, load: tuple[Any, ...]) -> list[Any]:
        if len(self._loads) >= _MOST_REMEMBERED:
            held = {name for seat in self._backlog.seats for name in seat.held}
            self._loads = {name: known for name, known in self._loads.items() if name in held}
        known, message = self._loads.get(model, (None, []))
        if known != load:
            message = _pack((load[0], load[1:], {}))
            self._loads[model] = load, message
        return message

    def _put(self, call: Call) -> Future[Any]:
        if self._closing.is_set():
            raise RuntimeError("the pool is shut down")
        # A call that was cancelled stays in the backlog until a worker comes by; its song need not.
        call.future.add_done_callback(lambda _: call.message.clear())
        self._backlog.put(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; with `cancel_futures` also what they are doing."""
        self._closing.set()
        if cancel_futures:
            self._abandon_calls()
            for worker in [*self._workers.values(), *self._starting]:
                worker.interrupt()
        self._backlog.wake()
        if wait:
            for thread in self._threads:
                thread.join()
            # One may have been put back for others after these had ended.
            self._abandon_calls()

    def _abandon_calls(self) -> None:
        for call in self._backlog.clear():
            if not call.future.cancel():
                call.future.set_exception(WorkerLost("the workers are ended"))

    def _serve(self, seat: Seat) -> None:
        """Keep a seat taken; the body of each thread."""
        worker = self._start(seat.number, ())
        while worker is not None:
            worker = self._employ(seat, worker)

    def _employ(self, seat: Seat, worker: WorkerProcess) -> WorkerProcess | None:
        """Give work to a worker until it ends, or has grown and another is ready; return the next one."""
        self._workers[seat.number] = worker
        self._backlog.sit(seat, worker.pid, worker.held)
        successor: Future[WorkerProcess | None] | None = None
        broken: str | None = None
        try:
            while worker.alive and not (successor and successor.done()):
                call = self._backlog.take(seat, _HEARTBEAT_S)
                if call and worker.alive:
                    broken = call.model
                    self._perform(seat, worker, call)
                    if worker.alive:
                        broken = None
                elif self._closing.is_set():
                    break
                if worker.grown and successor is None:
                    successor = self._prepare(seat.number, worker)
        finally:
            del self._workers[seat.number]
            self._backlog.sit(seat, None)
            worker.close()
        if successor is None and not self._closing.is_set():
            logger.warning("worker %d (process %d) ended; starting another", seat.number, worker.pid)
        # What it was about when it ended may be why.
        held = [model for model in worker.held if model != broken]
        following = successor.result() if successor else self._start(seat.number, held)
        if following and self._closing.is_set():
            following.close()
            return None
        return following

    def _perform(self, seat: Seat, worker: WorkerProcess, call: Call) -> None:
        future = call.future
        if not future.running() and not future.set_running_or_notify_cancel():
            self._backlog.done(seat, worker.held)
            return
        refused = None
        try:
            result = worker.call(list(call.message), self._settings.timeout_s, call.check)
        except OutOfService as error:
            refused = error
            call.refused_by.add(worker.pid)
        except BaseException as error:
            if isinstance(error, WorkerLost | DeadlineExceeded):
                worker.close()
            future.set_exception(error)
        else:
            future.set_result(result)
        self._backlog.done(seat, worker.held)
        if refused and not self._leave_to_others(call):
            future.set_exception(refused)

    def _leave_to_others(self, call: Call) -> bool:
        """Put a call back for workers that have not refused it; False if there are none."""
        # One that is still starting is one of them: it may be the only one that can answer.
        if self._closing.is_set() or all(seat.pid in call.refused_by for seat in self._backlog.seats):
            return False
        self._backlog.put(call)
        return True

    def _prepare(self, number: int, worker: WorkerProcess) -> Future[WorkerProcess | None]:
        """Start another worker while this one goes on."""
        logger.info("worker %d (process %d) has grown to %d MiB", number, worker.pid, worker.resident_bytes >> 20)
        successor: Future[WorkerProcess | None] = Future()
        held = worker.held
        threading.Thread(
            target=lambda: successor.set_result(self._start(number, held)), name=f"next-{number}", daemon=True
        ).start()
        return successor

    def _start(self, number: int, held: Sequence[str]) -> WorkerProcess | None:
        """Start a worker that holds these models, however often it takes; None if the pool is closing."""
        while not self._closing.is_set():
            try:
                worker = WorkerProcess(self._initializer, self._settings, self._readable)
            except OSError as error:
                logger.error("worker %d cannot be started: %s", number, error)
                self._closing.wait(_RESTART_PAUSE_S)
                continue
            self._starting.add(worker)
            if self._closing.is_set():
                worker.interrupt()
            try:
                self._tell(worker.wait_until_ready())
                self._warm(worker, held)
            except (WorkerLost, DeadlineExceeded) as error:
                worker.close()
                held = ()
                if not self._closing.wait(_RESTART_PAUSE_S):
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

    def _warm(self, worker: WorkerProcess, held: Sequence[str]) -> None:
        for model in held:
            if known := self._loads.get(model):
                try:
                    worker.call(known[1], self._settings.timeout_s)
                except (WorkerLost, DeadlineExceeded):
                    raise
                except SpectrogramPredictorError as error:
                    logger.info("%s is not loaded beforehand: %s", model, error)


def _pack(call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> list[Any]:
    """Return a call as a pickle, and beside it, not copied, what is large: songs."""
    fn, args, kwargs = call
    large = tuple(
        pickle.PickleBuffer(arg) if isinstance(arg, bytes) and len(arg) > _LARGE else arg for arg in args
    )
    beside: list[pickle.PickleBuffer] = []
    return [pickle.dumps((fn, large, kwargs), protocol=5, buffer_callback=beside.append), *beside]
