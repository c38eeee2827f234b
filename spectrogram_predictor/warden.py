"""What a worker is given by the server, and what the server does not let it do from outside.

Its environment is a list of what is allowed. What it says on stderr and stdout is passed on to the log, marked as
its own, at a pace that fills no disk. If it keeps more in its scratch folder than it may, it is ended.
"""

import json
import logging
import os
import re
import select
import site
import subprocess
import threading
import time
from collections.abc import Mapping
from typing import Any

from spectrogram_predictor import logs
from spectrogram_predictor.scratch import MAX_BYTES, Scratch

logger = logging.getLogger(__name__)

_ALLOWED = re.compile(
    r"PATH|LANG|LC_\w+|TZ|LD_LIBRARY_PATH|LD_PRELOAD|(PYTHON|MALLOC_|TF_|KERAS_|OMP_|OPENBLAS_|MKL_|KMP_|NUMBA_)\w*"
)
_LOOK_S = 1.0
_LINE_BYTES = 2**14
_BURST_BYTES = 2**18
_BYTES_PER_S = 2**12
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_NAME = re.compile(r"[\w.]{1,80}")
_MAX_NAMES = 100
_names: set[str] = set()
"""Loggers that workers have named: Python keeps each for ever."""


def environment(scratch: Scratch, threads: int, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return a worker's environment variables: what libraries are set up by, and nothing that opens a door.

    Parameters
    ----------
    scratch : Scratch
        Where its libraries keep what they want to keep.
    threads : int > 0
        Of each library.
    environ : mapping
        The server's.
    """
    folder = str(scratch.path)
    return {
        **{name: value for name, value in environ.items() if _ALLOWED.fullmatch(name)},
        **{name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        **dict.fromkeys(("HOME", "TMPDIR", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"), folder),
        # Found by HOME otherwise.
        "PYTHONUSERBASE": site.getuserbase(),
        # It may only read them, and a lock could keep others from them.
        "HDF5_USE_FILE_LOCKING": "FALSE",
    }


class Warden:
    """Watch one worker from a thread, until it ends.

    Parameters
    ----------
    process : subprocess.Popen
        The worker; what it says comes out of its ``stdout``.
    scratch : Scratch
        Its folder.
    """

    def __init__(self, process: subprocess.Popen[bytes], scratch: Scratch) -> None:
        self._process = process
        self._scratch = scratch
        self._closing = threading.Event()
        self._rest = b""
        self._budget = float(_BURST_BYTES)
        self._earned = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name=f"warden-{process.pid}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching, once the worker has ended; what it said last is passed on."""
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        assert self._process.stdout
        with self._process.stdout as said:
            poll = select.poll()
            poll.register(said, select.POLLIN)
            look = time.monotonic()
            while not self._closing.is_set():
                if (now := time.monotonic()) >= look:
                    self._look()
                    look = now + _LOOK_S
                # Whoever says too much waits with its next words.
                if self._budget < 0:
                    self._closing.wait(min(_LOOK_S, -self._budget / _BYTES_PER_S))
                    self._earn()
                elif poll.poll(1000 * _LOOK_S) and not self._relay(os.read(said.fileno(), _LINE_BYTES)):
                    return
            # Whoever else has the other end is not waited for.
            while poll.poll(0) and self._relay(os.read(said.fileno(), _LINE_BYTES)):
                pass

    def _look(self) -> None:
        if self._scratch.used(self._process.pid) > MAX_BYTES and self._process.poll() is None:
            logger.error("worker process %d fills its scratch folder: it is ended", self._process.pid)
            self._process.kill()

    def _earn(self) -> None:
        now = time.monotonic()
        self._budget = min(_BURST_BYTES, self._budget + (now - self._earned) * _BYTES_PER_S)
        self._earned = now

    def _relay(self, data: bytes) -> bool:
        """Pass on what was read; False at its end."""
        self._earn()
        self._budget -= len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES or not data:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if line:
                self._log(line.decode(errors="replace"))
        return bool(data)

    def _log(self, line: str) -> None:
        record = _record(line)
        level = record.get("level")
        said = "\n".join(str(record[key]) for key in ("message", "traceback") if key in record) or line
        _logger(record.get("logger")).log(
            _LEVELS.get(str(level), logging.INFO),
            "worker process %d: %s",
            self._process.pid,
            logs.harmless(said, _LINE_BYTES),
        )


def _logger(name: Any) -> logging.Logger:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return logger
    if name not in _names and len(_names) >= _MAX_NAMES:
        return logger
    _names.add(name)
    return logging.getLogger(name)


def _record(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
