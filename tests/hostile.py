"""Model files that do what no model should, and what loads them without any guard."""

import builtins
import errno
import json
import platform
import struct
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spectrogram_predictor import logs
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.worker import seccomp
from spectrogram_predictor.worker.kernel import forbid_tracing, prctl, syscall
from tests.live import wait_until

_GUARD = """
import builtins, ctypes, errno, json, mmap, os, resource, signal, socket
import subprocess, sys, tempfile, threading, time
parent, me = os.getppid(), os.getpid()
libc = ctypes.CDLL(None, use_errno=True)
def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
def attempt():
{code}
try:
    # Where the model is only built, it does nothing.
    builtins.outcome = repr(attempt()) if hasattr(builtins, "unguarded") else None
except BaseException as error:
    name = errno.errorcode.get(getattr(error, "errno", None))
    builtins.outcome = name or type(error).__name__
"""


def write_model(path: Path, code: str) -> None:
    """Write a Keras model, in the format of the name's ending, that runs the body of a function when called."""
    import keras

    whole = _GUARD.format(code=textwrap.indent(textwrap.dedent(code), "    "))
    function = eval(f"lambda x: (exec({whole!r}, {{}}), x)[1]")
    inputs = keras.layers.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(function, output_shape=(2,))(inputs)).save(path)


def start(threads: int, cached_models: int, memory_bytes: int) -> Callable[[], list[str]]:
    """Set a worker up as the engine does, without what keeps Keras from running a model's code."""
    from spectrogram_predictor.worker import engine  # with TensorFlow, which only workers need

    builtins.unguarded = True  # type: ignore[attr-defined]
    return engine.start(threads, cached_models, memory_bytes)


def run(path: Path) -> str:
    """Load a model with all its code, call it, and return what has come of that: a value, or an error's name."""
    import keras

    load = keras.models.load_model
    model = load(path, compile=False, safe_mode=False)
    answer: Any = model(np.zeros((1, 2), np.float32))
    assert np.asarray(answer).tolist() == [[0.0, 0.0]]
    outcome: str = builtins.outcome  # type: ignore[attr-defined]
    return outcome


def hide(numbers: tuple[int, int]) -> None:
    """Let this process and those that it starts see a kernel without a call."""
    prctl(38, 1)
    column, _ = seccomp._ARCHITECTURES[platform.machine()]
    number, refused = numbers[column], 0x50000 | errno.ENOSYS
    program = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, refused), (0x06, 0, 0, 0x7FFF0000)]
    code = b"".join(struct.pack("=HBBI", *item) for item in program)
    syscall((317, 277)[column], 1, 0, seccomp._Program(len(program), code))


_LACKING = {"no-landlock": (444, 444), "no-filter": (317, 277)}


def main(how: str, *paths: str) -> None:
    """Run models and print their outcomes: ``bare``, or in a pool, or on a kernel that lacks something."""
    if how == "bare":
        start(1, 1, 2**31)
        print(json.dumps([run(Path(path)) for path in paths]))
        return
    if how in _LACKING:
        hide(_LACKING[how])
    from tests import hostile

    logs.configure()
    forbid_tracing()
    folders = list({Path(path).parent for path in paths})
    pool = WorkerPool(PredictionSettings(workers=2), "tests.hostile:start", folders)
    # Its name here is another one.
    outcomes = [pool.submit(hostile.run, Path(path)).result(120) for path in paths]
    wait_until(lambda: len(pool.pids) == 2)
    pool.shutdown(cancel_futures=True)
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
