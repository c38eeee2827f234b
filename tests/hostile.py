"""Model files that do what no model should, and what loads them without any guard."""

import builtins
import json
import os
import socket
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np

from spectrogram_predictor.pool import _Channel
from spectrogram_predictor.worker import engine, models

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


def start(threads: int, cached_models: int) -> None:
    """Set a worker up as the engine does, without what keeps Keras from running a model's code."""
    engine.start(threads, cached_models)
    builtins.unguarded = True  # type: ignore[attr-defined]


def run(path: Path) -> str:
    """Load a model with all its code, call it, and return what has come of that: a value, or an error's name."""
    load = models.keras.models.load_model
    model = load(path, compile=False, safe_mode=False)
    answer: Any = model(np.zeros((1, 2), np.float32))
    assert np.asarray(answer).tolist() == [[0.0, 0.0]]
    outcome: str = builtins.outcome  # type: ignore[attr-defined]
    return outcome


def answer_raw(data: bytes) -> None:
    """Answer the server with these bytes, whatever they are."""
    channel = _Channel(socket.socket(fileno=os.dup(int(sys.argv[1]))))
    channel.send([data])
    time.sleep(600)


def answer(value: Any, *_: Any) -> Any:
    """Answer with this value."""
    return value


def shout(lines: list[str]) -> None:
    """Say lines on stderr, past all logging."""
    for line in lines:
        os.write(2, f"{line}\n".encode())


def main() -> None:
    """Run models that are named on stdin, without a box: what each of them would do."""
    start(1, 1)
    print(json.dumps([run(Path(line.strip())) for line in os.fdopen(0)]))


if __name__ == "__main__":
    main()
