"""One worker process, as the server sees it: begun, called, measured, ended."""

import asyncio
import contextlib
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectrogram_predictor import answers, errors, logs, scratch, warden
from spectrogram_predictor.channel import Inbox, ServerEnd
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import (
    BadRequest,
    ModelNotFound,
    SpectrogramPredictorError,
    TooLarge,
    TooSlow,
    Unavailable,
    Unprocessable,
    UnsupportedMedia,
    WorkerLost,
)

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 180.0

_GROWN = 1.2
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_MAX_TEXT = 2**14
_AT_ONCE_BYTES = 2**16
_LARGE_BYTES = 2**16
_RAISED = (BadRequest, ModelNotFound, TooLarge, UnsupportedMedia, Unprocessable, Unavailable)
"""Errors of ours that come out of workers."""

_PROCESS = "spectrogram_predictor.worker.process"


class WorkerProcess:
    """A process that answers calls, one at a time.

    Parameters
    ----------
    initializer : str
        See `pool.WorkerPool`.
    settings : PredictionSettings
        Its threads, the models it keeps, its memory.
    readable : sequence of Path
        Folders that it may read.

    Attributes
    ----------
    pid : int
        Its id.
    held : tuple of str
        Models that it has loaded, as of its last answer.
    resident_bytes : int
        Memory that it had then.
    """

    def __init__(self, initializer: str, settings: PredictionSettings, readable: Sequence[Path]) -> None:
        with contextlib.ExitStack() as undo:
            self._scratch = scratch.Scratch()
            undo.callback(self._scratch.remove)
            self._channel, given = _make_channel()
            undo.callback(self._channel.close)
            with contextlib.ExitStack() as ending:
                for descriptor in given:
                    ending.callback(os.close, descriptor)
                self._process = self._begin(initializer, settings, readable, given)
            undo.callback(_end, self._process)
            self._warden = warden.Warden(self._process, self._scratch)
            undo.pop_all()
        self._ready = False
        self._statm = _open_statm(self._process.pid)
        self._fresh_bytes = 0
        self._most_bytes, self._most_models = settings.worker_memory_bytes, settings.cached_models
        self.pid = self._process.pid
        self.held: tuple[str, ...] = ()
        self.resident_bytes = 0

    @staticmethod
    async def begin(initializer: str, settings: PredictionSettings, readable: Sequence[Path]) -> "WorkerProcess":
        """Begin one, in a thread: that takes its time.

        Raises
        ------
        OSError, RuntimeError
            There is no room for another process, or for a thread.
        """
        wanted = [True]

        def begin() -> WorkerProcess:
            if not wanted:
                raise WorkerLost("nobody waits for it")
            return WorkerProcess(initializer, settings, readable)

        try:
            return await asyncio.to_thread(begin)
        except RuntimeError:
            # If there was no room for a thread, another one will come to it later, all the same.
            wanted.clear()
            raise

    def _begin(
        self, initializer: str, settings: PredictionSettings, readable: Sequence[Path], given: Sequence[int]
    ) -> "subprocess.Popen[bytes]":
        """Begin the process, which is given descriptors of the socket and the inbox."""
        box = [str(self._scratch.path), list(map(str, readable)), settings.memory_limit_bytes]
        arguments = [*map(str, given), json.dumps(box), initializer, *_limits(settings)]
        return subprocess.Popen(  # noqa: S603  # our own module
            [sys.executable, "-P", "-m", _PROCESS, *arguments],
            pass_fds=given,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=warden.environment(self._scratch, settings.threads),
        )

    @property
    def grown(self) -> bool:
        """Whether it takes more memory than it may, and more than another would in its place."""
        return self.resident_bytes > max(self._most_bytes, _GROWN * self._fresh_bytes)

    @property
    def alive(self) -> bool:
        """Whether it can be given work."""
        return self._ready and self.running

    @property
    def running(self) -> bool:
        """Whether there is a process, which may still be starting."""
        return self._process.poll() is None

    async def wait_until_ready(self) -> list[str]:
        """Return what its box lacks."""
        answer = await self._exchange((), START_TIMEOUT_S)
        missing = answer.get("result")
        if not isinstance(missing, list):
            raise _nonsense("at its start, a list of what its box lacks is due")
        self._ready = True
        return list(map(str, missing))

    async def call(
        self, message: Sequence[Any], timeout_s: float, check: Callable[[Any], object] = lambda _: None
    ) -> Any:
        """Return the result of a packed call, if it passes a check.

        Raises
        ------
        TooSlow
            It took longer than this [s].
        WorkerLost
            The process ended, or answered nonsense.
        SpectrogramPredictorError
            Whatever of ours the call raised.
        """
        answer = await self._exchange(message, timeout_s, check)
        if len(answer["held"]) > self._most_models:
            raise _nonsense(f"it holds {len(answer['held'])} models; the most is {self._most_models}")
        self.held = tuple(answer["held"])
        self.resident_bytes = self._measure()
        if self.held and not self._fresh_bytes:
            self._fresh_bytes = self.resident_bytes
        if "error" in answer:
            raise _raised(answer["error"], answer["message"])
        if "bug" in answer:
            logger.error("a worker failed:\n%s", logs.harmless(answer["bug"], _MAX_TEXT))
            raise SpectrogramPredictorError("internal error")
        return answer["result"]

    def interrupt(self) -> None:
        """End the process, whatever it does; `close` lets go of it."""
        self._ready = False
        self._process.kill()

    async def close(self) -> None:
        """End the process and let go of it; twice if need be."""
        self.interrupt()
        self._channel.close()
        try:
            # The kernel takes its time to give the memory back.
            await asyncio.to_thread(self._clean_up)
        except RuntimeError:
            # There is no room for another thread.
            self._clean_up()
        if self._statm is not None:
            os.close(self._statm)
            self._statm = None

    def _clean_up(self) -> None:
        self._process.wait()
        self._warden.close()
        self._scratch.remove()

    def _measure(self) -> int:
        if self._statm is None:
            return 0
        try:
            return int(os.pread(self._statm, 99, 0).split()[1]) * _PAGE_BYTES
        except (OSError, IndexError):
            # It has ended.
            return 0

    async def _exchange(
        self, message: Sequence[Any], timeout_s: float, check: Callable[[Any], object] = lambda _: None
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(timeout_s):
                if message:
                    await self._channel.send(message)
                data = await self._channel.receive(answers.MAX_BYTES)
            return (
                _read(data, check) if len(data) < _AT_ONCE_BYTES else await asyncio.to_thread(_read, data, check)
            )
        except TimeoutError as error:
            raise TooSlow(f"it took its worker longer than {timeout_s:g} s") from error
        except ValueError as error:
            raise _nonsense(error) from error
        except (EOFError, OSError) as error:
            raise WorkerLost("the worker process ended, please send it again") from error


def packed(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any] = {}) -> list[Any]:
    """Return a call as a worker takes it: a pickle, and beside it, not copied, what is large: songs."""
    large = tuple(
        pickle.PickleBuffer(arg) if isinstance(arg, bytes) and len(arg) > _LARGE_BYTES else arg for arg in args
    )
    beside: list[pickle.PickleBuffer] = []
    return [pickle.dumps((fn, large, kwargs), protocol=5, buffer_callback=beside.append), *beside]


def _make_channel() -> tuple[ServerEnd, list[int]]:
    """Return the server's end of a new channel, and the worker's: descriptors, to be closed once it has them."""
    with contextlib.ExitStack() as undo:
        ours, theirs = map(undo.enter_context, socket.socketpair())
        inbox = Inbox()
        undo.callback(os.close, inbox.descriptor)
        channel = ServerEnd(ours, inbox)
        undo.pop_all()
    return channel, [theirs.detach(), inbox.descriptor]


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process that nobody watches yet."""
    process.kill()
    process.wait()
    assert process.stdout
    process.stdout.close()


def _read(data: bytes, check: Callable[[Any], object]) -> dict[str, Any]:
    answer = answers.parse(data)
    if "result" in answer:
        check(answer["result"])
    return answer


def _raised(code: str, message: str) -> SpectrogramPredictorError:
    error = errors.from_code(code, logs.one_line(message, _MAX_TEXT))
    return error if isinstance(error, _RAISED) else _nonsense(f"an error of the kind {code!r}")


def _nonsense(what: object) -> WorkerLost:
    logger.error("a worker has answered nonsense, and is ended: %s", logs.one_line(str(what), _MAX_TEXT))
    return WorkerLost("the worker's answer was none, please send it again")


def _limits(settings: PredictionSettings) -> list[str]:
    """Return what a worker's initializer is called with."""
    return [str(settings.threads), str(settings.cached_models), str(settings.worker_memory_bytes)]


def _open_statm(pid: int) -> int | None:
    """Open what the kernel says of a process's memory, if it does."""
    try:
        return os.open(f"/proc/{pid}/statm", os.O_RDONLY)
    except OSError:
        return None
