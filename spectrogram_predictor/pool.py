"""A pool of worker processes as a ``concurrent.futures.Executor``.

``ProcessPoolExecutor`` loses every pending call when one of its processes dies. Here each process belongs to one
thread of the server: when it dies, the one call that it had fails, and a new process takes its place.

A worker is a fresh interpreter (spawned, never forked: TensorFlow does not survive a fork), without the server's
secrets in its environment. Calls go to it as pickles; answers come back as JSON, numbers and text only, so that a
worker which a model file has taken over cannot run code in the server.
"""

import importlib
import json
import logging
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from spectrogram_predictor import errors, logs
from spectrogram_predictor.channel import Channel, Inbox
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import (
    DeadlineExceeded,
    OutOfService,
    SpectrogramPredictorError,
    TooSlow,
    WorkerLost,
)

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 180.0
MAX_ANSWER_BYTES = 64 * 2**20

_HEARTBEAT_S = 1.0
_RESTART_PAUSE_S = 1.0
_REFUSED_PAUSE_S = 0.005
_LARGE = 2**16
_SECRETS = ("SIGNING_TOKEN", "AWS_")


@dataclass
class _Call:
    """Who waits for it, its message while it is needed, and the processes that are out of service for it."""

    future: Future[Any]
    message: list[Any]
    refused_by: set[int] = field(default_factory=set)


class WorkerPool(Executor):
    """Run calls on worker processes, one call a process at a time.

    Parameters
    ----------
    settings : PredictionSettings
        Number of processes, their threads, the models they keep, the longest call.
    initializer : str, optional
        ``module:function`` that each worker calls once with ``(threads, cached_models)``.
    """

    def __init__(
        self, settings: PredictionSettings, initializer: str = "spectrogram_predictor.worker.engine:start"
    ) -> None:
        self._settings = settings
        self._initializer = initializer
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._workers: dict[int, _Worker] = {}
        count = settings.workers or os.cpu_count() or 1
        self._threads = [
            threading.Thread(target=self._serve, args=(number,), name=f"worker-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ready(self) -> bool:
        """Whether a worker is up."""
        return any(worker.alive for worker in list(self._workers.values()))

    @property
    def _running(self) -> "list[_Worker]":
        return [worker for worker in list(self._workers.values()) if worker.running]

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
        if self._closing.is_set():
            raise RuntimeError("the pool is shut down")
        future: Future[Any] = Future()
        message = _pack((fn, args, kwargs))
        # A call that was cancelled stays in the queue until a worker comes by; its song need not.
        future.add_done_callback(lambda _: message.clear())
        self._calls.put(_Call(future, message))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers; with `cancel_futures` also what they are doing."""
        if cancel_futures:
            self._closing.set()
            self._abandon_calls()
            for worker in list(self._workers.values()):
                worker.interrupt()
        for _ in self._threads:
            self._calls.put(None)
        self._closing.set()
        if wait:
            for thread in self._threads:
                thread.join()
            # One may have been put back for others after these had ended.
            self._abandon_calls()

    def _abandon_calls(self) -> None:
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            if call and not call.future.cancel():
                call.future.set_exception(WorkerLost("the workers are ended"))

    def _serve(self, number: int) -> None:
        """Keep one worker alive and busy; the body of each thread."""
        while (worker := self._start(number)) is not None:
            try:
                while worker.alive:
                    try:
                        call = self._calls.get(timeout=_HEARTBEAT_S)
                    except queue.Empty:
                        continue
                    if call is None:
                        return
                    if not worker.alive:
                        # It has not seen this call: another may have it.
                        self._calls.put(call)
                        break
                    if worker.pid in call.refused_by and self._leave_to_others(call):
                        continue
                    self._perform(worker, call)
            finally:
                del self._workers[number]
                worker.close()
            if not self._closing.is_set():
                logger.warning("worker %d (process %d) ended; starting another", number, worker.pid)

    def _perform(self, worker: "_Worker", call: _Call) -> None:
        future = call.future
        if not future.running() and not future.set_running_or_notify_cancel():
            return
        try:
            result = worker.call(list(call.message), self._settings.timeout_s)
        except (WorkerLost, DeadlineExceeded) as error:
            worker.close()
            future.set_exception(error)
        except OutOfService as error:
            call.refused_by.add(worker.pid)
            if not self._leave_to_others(call):
                future.set_exception(error)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _leave_to_others(self, call: _Call) -> bool:
        """Put a call back for workers that have not refused it; False if there are none."""
        # One that is still starting is one of them: it may be the only one that can answer.
        if self._closing.is_set() or not {worker.pid for worker in self._running} - call.refused_by:
            return False
        self._calls.put(call)
        # They may be busy; whoever refuses has nothing to do and is always first.
        self._closing.wait(_REFUSED_PAUSE_S)
        return True

    def _start(self, number: int) -> "_Worker | None":
        while not self._closing.is_set():
            try:
                worker = _Worker(self._initializer, self._settings)
            except OSError as error:
                logger.error("worker %d cannot be started: %s", number, error)
                self._closing.wait(_RESTART_PAUSE_S)
                continue
            self._workers[number] = worker
            if self._closing.is_set():
                worker.interrupt()
            try:
                worker.wait_until_ready()
            except (WorkerLost, DeadlineExceeded) as error:
                del self._workers[number]
                worker.close()
                if not self._closing.wait(_RESTART_PAUSE_S):
                    logger.error("worker %d does not start: %s", number, error)
            else:
                logger.info("worker %d is process %d", number, worker.pid)
                return worker
        return None


class _Worker:
    """One process, as its thread in the server sees it."""

    def __init__(self, initializer: str, settings: PredictionSettings) -> None:
        arguments = [initializer, str(settings.threads), str(settings.cached_models)]
        ours, theirs = socket.socketpair()
        inbox = Inbox()
        self._channel = Channel(ours, inbox)
        descriptors = [theirs.fileno(), inbox.descriptor]
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-P", "-m", __name__, *map(str, descriptors), *arguments],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                env=_environment(settings.threads),
            )
        except BaseException:
            self._channel.close()
            raise
        finally:
            theirs.close()
            os.close(inbox.descriptor)
        self._ready = False
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be given work."""
        return self._ready and self.running

    @property
    def running(self) -> bool:
        """Whether there is a process, which may still be starting."""
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        self._exchange((), START_TIMEOUT_S)
        self._ready = True

    def call(self, message: Sequence[Any], timeout_s: float) -> Any:
        answer = self._exchange(message, timeout_s)
        if "error" in answer:
            raise errors.from_code(answer["error"], answer["message"])
        if "bug" in answer:
            logger.error("a worker failed:\n%s", answer["bug"])
            raise SpectrogramPredictorError("internal error")
        return answer["result"]

    def interrupt(self) -> None:
        """End the process, whatever it does; from any thread."""
        self._process.kill()

    def close(self) -> None:
        """End the process and let go of it; from the thread that owns it, twice if need be."""
        self._ready = False
        self._process.kill()
        self._process.wait()
        self._channel.close()

    def _exchange(self, message: Sequence[Any], timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        try:
            if message:
                self._channel.send(message, deadline)
            (answer,) = self._channel.receive(MAX_ANSWER_BYTES, deadline)
            return json.loads(answer)
        except TimeoutError as error:
            raise TooSlow(f"it took its worker longer than {timeout_s:g} s") from error
        except (EOFError, OSError, ValueError) as error:
            raise WorkerLost("the worker process ended, please send it again") from error


@contextmanager
def quiet_import() -> Iterator[None]:
    """Keep what TensorFlow's native code says of missing accelerators off stderr, unless importing it fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.seek(0)
            os.write(stderr, said.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _pack(call: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> list[Any]:
    """Return a call as a pickle, and beside it, not copied, what is large: songs."""
    fn, args, kwargs = call
    large = tuple(
        pickle.PickleBuffer(arg) if isinstance(arg, bytes) and len(arg) > _LARGE else arg for arg in args
    )
    beside: list[pickle.PickleBuffer] = []
    return [pickle.dumps((fn, large, kwargs), protocol=5, buffer_callback=beside.append), *beside]


def _environment(threads: int) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SECRETS)}
    environment.update({name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")})
    return environment


def _answer(message: Sequence[bytes]) -> bytes:
    try:
        fn, args, kwargs = pickle.loads(message[0], buffers=message[1:])  # noqa: S301  # from the server, which is trusted
        answer = {"result": fn(*args, **kwargs)}
        return json.dumps(answer, allow_nan=False).encode()
    except SpectrogramPredictorError as error:
        return json.dumps({"error": error.code, "message": error.message}).encode()
    except Exception:
        return json.dumps({"bug": traceback.format_exc()}).encode()


def main(arguments: list[str]) -> None:
    """Be a worker: answer calls until the server goes away."""
    stream, inbox, initializer, threads, cached_models = arguments
    # Ctrl-C in a terminal goes to the whole group; the server decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure()
    channel = Channel(socket.socket(fileno=int(stream)), Inbox(int(inbox)))
    module, _, function = initializer.partition(":")
    began = time.monotonic()
    with quiet_import():
        start = getattr(importlib.import_module(module), function)
        start(int(threads), int(cached_models))
    try:
        channel.send([json.dumps({"result": time.monotonic() - began}).encode()])
        while True:
            message = channel.receive()
            channel.send([_answer(message)])
    except (EOFError, OSError):
        # The server has gone.
        return


if __name__ == "__main__":
    main(sys.argv[1:])
