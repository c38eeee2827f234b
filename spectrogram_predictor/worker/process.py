"""A worker process: put into its box, then answering one call after the other until the server goes away."""

import importlib
import json
import os
import pickle
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectrogram_predictor import logs
from spectrogram_predictor.channel import Inbox, WorkerEnd
from spectrogram_predictor.errors import SpectrogramPredictorError
from spectrogram_predictor.worker import spare
from spectrogram_predictor.worker.box import Box


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


def _answer(message: Sequence[bytes], held: Callable[[], Sequence[str]]) -> bytes:
    try:
        fn, args, kwargs = pickle.loads(message[0], buffers=message[1:])  # noqa: S301  # from the server, which is trusted
        return _dumps({"result": fn(*args, **kwargs)}, held())
    except SpectrogramPredictorError as error:
        return _dumps({"error": error.code, "message": error.message}, held())
    except Exception:
        return _dumps({"bug": traceback.format_exc()}, held())


def _dumps(answer: dict[str, Any], held: Sequence[str] = ()) -> bytes:
    # What HDF5 files call UTF-8 may be none.
    whole = {**answer, "held": list(held)}
    return json.dumps(whole, allow_nan=False, ensure_ascii=False).encode(errors="replace")


def main(arguments: list[str]) -> None:
    """Be a worker: answer calls until the server goes away."""
    stream, inbox, plan, initializer, *limits = arguments
    # Ctrl-C in a terminal goes to the whole group; the server decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure()
    channel = WorkerEnd(socket.socket(fileno=int(stream)), Inbox(int(inbox)))
    module, _, function = initializer.partition(":")
    folder, readable, memory_bytes = json.loads(plan)
    box = Box(Path(folder), tuple(map(Path, readable)), memory_bytes)
    # Afterwards the folder that it is in cannot be looked through.
    package = importlib.import_module(module.partition(".")[0])
    missing = box.enter(Path(package.__path__[0]))
    with quiet_import():
        start = getattr(importlib.import_module(module), function)
        held = start(*map(int, limits))
    spare.make()
    missing += box.seal()
    try:
        channel.send([_dumps({"result": missing})])
        while box.sees_models:
            message = channel.receive()
            channel.send([_answer(message, held)])
    except (EOFError, OSError):
        # The server has gone.
        return


if __name__ == "__main__":
    main(sys.argv[1:])
