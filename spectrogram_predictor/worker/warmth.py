"""What is slow the first time is done before anybody waits for it, and what can wait does not press."""

import io
import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import soundfile

from spectrogram_predictor.recipe import default
from spectrogram_predictor.sound.audio import SR
from spectrogram_predictor.worker.models import Model, OutOfMemory

logger = logging.getLogger(__name__)

T = TypeVar("T")

_NICE = 5
_ANY = 128
"""Size of a model's axis that takes any."""

_SHAPES = [(2,), (64, 64, 1)]
_CSV = b"a,b\n1,2\n"


def warm_libraries() -> None:
    """Make inputs of a sound, of each of the two kinds of decoder: filters, plans and codecs are found once."""
    noise = np.random.default_rng(0).standard_normal(2 * SR).astype(np.float32) / 10
    for container, sr in (("WAV", SR), ("MP3", 2 * SR)):
        song = io.BytesIO()
        soundfile.write(song, noise, sr, format=container)
        default.inputs(_SHAPES, song.getvalue(), _CSV)


def warm_model(model: Model) -> None:
    """Call a model once, on zeros: the first call builds its graph.

    Raises
    ------
    OutOfMemory
        Not even that is possible.
    """
    try:
        model([np.zeros((1, *(size or _ANY for size in shape)), np.float32) for shape in model.shapes])
    except OutOfMemory:
        raise
    except Exception as error:
        # Whoever asks will be told, if it is not only about zeros.
        logger.debug("the model cannot be called on zeros: %r", error)


def patiently(function: Callable[..., T], *args: Any) -> T:
    """Call a function in a thread that gives way to all others of this machine."""
    result: Future[T] = Future()

    def call() -> None:
        try:
            if sys.platform == "linux":
                # This thread only, and from wherever it is: what was started with `nice` may not go up again.
                os.nice(_NICE)
            result.set_result(function(*args))
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=call, name="patient")
    thread.start()
    thread.join()
    return result.result()
