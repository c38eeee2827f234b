"""Predictions in a worker's box, beside the same without it: processor time, by turns."""

import hashlib
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import prediction
from benchmarks.table import Row
from spectrogram_predictor import warden
from spectrogram_predictor.registration import Registration, Terms
from spectrogram_predictor.scratch import Scratch
from spectrogram_predictor.worker.box import Box

_ROOT = Path(__file__).parents[1]
_AT_A_TIME = 5


def compare(folder: Path, turns: int) -> list[Row]:
    """Measure a prediction of a 30 s WAV."""
    given = prediction.material(folder)
    scratch = Scratch()
    command = [sys.executable, "-m", "benchmarks.box", given.two, given.wav, given.csv, scratch.path]
    loops = [_start([*command, which], warden.environment(scratch, 1)) for which in ("boxed", "plain")]
    spent: list[list[float]] = [[], []]
    for turn in range(turns):
        # Whoever comes second finds warmer caches.
        for which in (0, 1) if turn % 2 else (1, 0):
            spent[which].append(_ask(loops[which]))
    for loop in loops:
        loop.communicate()
    scratch.remove()
    boxed, plain = map(statistics.median, spent)
    return [
        Row(
            "CPU of a prediction in the worker's box [ms]",
            f"{1000 * boxed:.2f}",
            f"without it: {1000 * plain:.2f}",
            statistics.median(ours / theirs for ours, theirs in zip(*spent, strict=True)),
            "at most 1.02",
        )
    ]


def _start(command: list[object], environment: dict[str, str]) -> "subprocess.Popen[str]":
    quiet = subprocess.DEVNULL
    pipe = subprocess.PIPE
    arguments = list(map(str, command))
    loop = subprocess.Popen(
        arguments, stdin=pipe, stdout=pipe, stderr=quiet, text=True, cwd=_ROOT, env=environment
    )
    _ask(loop)
    return loop


def _ask(loop: "subprocess.Popen[str]") -> float:
    assert loop.stdin
    assert loop.stdout
    loop.stdin.write("\n")
    loop.stdin.flush()
    return float(loop.stdout.readline())


def main(model: Path, song: Path, csv: Path, scratch: Path, which: str) -> None:
    """Predict a few times for every line on stdin; answer with the processor time of one."""
    box = Box(scratch, (model.parent, song.parent, csv.parent), 0)
    boxed = which == "boxed"
    missing = box.enter(_ROOT / "benchmarks") if boxed else []
    from spectrogram_predictor.worker import engine

    engine.start(1, 1, 2**31)
    missing += box.seal() if boxed else []
    assert not missing, missing
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    terms = Terms(Registration(digest).to_json())
    question = (model, digest, model.suffix[1:], terms, song.read_bytes(), csv.read_bytes())
    for _ in sys.stdin:
        began = time.process_time()
        for _ in range(_AT_A_TIME):
            engine.predict(*question)
        print((time.process_time() - began) / _AT_A_TIME, flush=True)


if __name__ == "__main__":
    _model, _song, _csv, _scratch = map(Path, sys.argv[1:5])
    main(_model, _song, _csv, _scratch, sys.argv[5])
