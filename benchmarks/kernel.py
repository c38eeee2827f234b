"""The kernel's stages: decode, spectrum, picture, model call, beside librosa's, matplotlib's and Keras' ways.

``python -m benchmarks.kernel MODEL SONG CSV MP3 ROUNDS`` prints seconds of CPU of both sides of each as JSON.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

from benchmarks import prediction
from benchmarks.table import Row

_MP3 = Path(__file__).resolve().parents[2] / "shared" / "data" / "other" / "000010.mp3"
_SIZE = 235, 335
_SR = 22050
_MOST_MS = 10

Way = Callable[[], Any]

_BESIDE = {
    "decode of 30 s of WAV": ("librosa.load", 2),
    "its mel spectrogram in decibels": ("librosa's functions", 2),
    "the picture of that, 235 × 335": ("matplotlib and PIL", 50),
    "model call": ("model.predict", 10),
    "all of that": ("these ways", 12),
    "decode of 30 s of MP3, 44.1 kHz stereo": ("librosa.load", 1.2),
    "the 10 s in its middle": ("librosa.load of all, cut", 1.5),
    "model call on 10 windows of a song, as one batch": ("one by one", 1),
    "2 songs, their model calls as one batch": ("one by one", 1),
    "4 songs, their model calls as one batch": ("one by one", 1),
}
"""What each stage is beside, and how many times its CPU that should take at least."""


def compare(folder: Path, rounds: int) -> list[Row]:
    """Measure all stages in one process on one thread, both sides in turn."""
    given = prediction.material(folder)
    mp3 = _MP3 if _MP3.is_file() else _make_mp3(folder / "song.mp3")
    measured = _run(given, mp3, 20 * rounds)
    rows = []
    for name, (beside, least) in _BESIDE.items():
        us, them = (1000 * statistics.median(seconds) for seconds in measured[name])
        cells = f"{us:.2f}", f"{beside}: {them:.2f}"
        rows.append(Row(f"kernel: {name} [ms CPU]", *cells, them / us, f"at least {least:g}"))
        if name == "all of that":
            rows.append(Row(f"kernel: {name}", cells[0], "", us, f"at most {_MOST_MS}", " ms"))
    return rows


def _make_mp3(path: Path) -> Path:
    noise = np.random.default_rng(1).standard_normal((30 * 44_100, 2))
    soundfile.write(path, 0.1 * noise, 44_100, format="MP3")
    return path


def _run(given: prediction.Material, mp3: Path, rounds: int) -> dict[str, list[list[float]]]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environ = {**os.environ, **one, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    files = map(str, (given.two, given.wav, given.csv, mp3))
    command = [sys.executable, "-m", "benchmarks.kernel", *files, str(rounds)]
    quiet, root = subprocess.DEVNULL, Path(__file__).parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=quiet, env=environ, cwd=root, check=True)
    measured: dict[str, list[list[float]]] = json.loads(done.stdout)
    return measured


def main(model: str, song: str, csv: str, mp3: str, rounds: str) -> None:
    """Measure, in this process."""
    files = [Path(path).read_bytes() for path in (song, csv, mp3)]
    pairs = _pairs(_Ours(Path(model), *files), _Theirs(Path(model), *files))
    print(json.dumps({name: _in_turn(pair, int(rounds)) for name, pair in zip(_BESIDE, pairs, strict=True)}))


def _in_turn(ways: tuple[Way, Way], rounds: int) -> list[list[float]]:
    seconds: list[list[float]] = [[] for _ in ways]
    for number in range(1 + rounds):
        for way, taken in zip(ways, seconds, strict=True):
            began = time.process_time()
            way()
            if number:  # the first is slower
                taken.append(time.process_time() - began)
    return seconds


def _pairs(ours: "_Ours", theirs: "_Theirs") -> Iterator[tuple[Way, Way]]:
    y = theirs.decode(ours.song)
    S = theirs.spectrum(y)
    np.testing.assert_allclose(ours.spectrum(y), S, atol=1e-3)
    inputs = ours.inputs(ours.song)
    windows = [np.repeat(array, 10, axis=0) for array in inputs]
    yield (lambda: ours.decode(ours.song)), (lambda: theirs.decode(ours.song))
    yield (lambda: ours.spectrum(y)), (lambda: theirs.spectrum(y))
    yield (lambda: ours.picture(S)), (lambda: theirs.picture(S))
    yield (lambda: ours.model(inputs)), (lambda: theirs.predict(inputs))
    yield (lambda: ours.model(ours.inputs(ours.song))), (lambda: theirs.predict(theirs.inputs(ours.song)))
    yield (lambda: ours.decode(ours.mp3)), (lambda: theirs.decode(ours.mp3))
    yield ours.middle, theirs.middle
    yield (lambda: ours.model(windows)), (lambda: [ours.model(inputs) for _ in range(10)])
    yield (lambda: ours.batched(2)), (lambda: ours.one_by_one(2))
    yield (lambda: ours.batched(4)), (lambda: ours.one_by_one(4))


class _Ours:
    def __init__(self, model: Path, song: bytes, csv: bytes, mp3: bytes) -> None:
        from spectrogram_predictor.recipe import default
        from spectrogram_predictor.sound import audio
        from spectrogram_predictor.worker import models

        models.configure(1)
        self.model = models.load(model, model.suffix.removeprefix("."))
        self.song, self.csv, self.mp3 = song, csv, mp3
        self.decode, self.spectrum, self._default = audio.decode, default.spectrogram, default

    def picture(self, S: Any) -> Any:
        return self._default.draw(S, *_SIZE).astype(np.float32)

    def inputs(self, song: bytes) -> list[Any]:
        return self._default.inputs(self.model.shapes, song, self.csv)

    def middle(self) -> Any:
        return self.decode(self.mp3, samples=10 * _SR, middle=True)

    def one_by_one(self, songs: int) -> Any:
        return [self.model(self.inputs(self.song)) for _ in range(songs)]

    def batched(self, songs: int) -> Any:
        made = [self.inputs(self.song) for _ in range(songs)]
        return self.model([np.concatenate(arrays) for arrays in zip(*made, strict=True)])


class _Theirs:
    """Each stage as the 2020 system did it, but with the model loaded once."""

    def __init__(self, model: Path, _: bytes, csv: bytes, mp3: bytes) -> None:
        import keras
        import librosa

        self._model = keras.models.load_model(model, compile=False)
        self._librosa, self._csv, self._mp3 = librosa, csv, mp3

    def decode(self, song: bytes) -> Any:
        return self._librosa.load(io.BytesIO(song))[0]

    def spectrum(self, y: Any) -> Any:
        power = self._librosa.feature.melspectrogram(y=y, n_fft=2048, hop_length=1024)
        return self._librosa.power_to_db(power)

    def picture(self, S: Any) -> Any:
        from benchmarks import original

        return original.draw(S, *_SIZE)

    def inputs(self, song: bytes) -> list[Any]:
        row = pd.read_csv(io.BytesIO(self._csv), index_col=0).to_numpy(np.float32)
        return [row, self.picture(self.spectrum(self.decode(song)))]

    def predict(self, inputs: list[Any]) -> Any:
        return self._model.predict(inputs, verbose=0)

    def middle(self) -> Any:
        y = self.decode(self._mp3)
        return y[(len(y) - 10 * _SR) // 2 :][: 10 * _SR]


if __name__ == "__main__":
    main(*sys.argv[1:])
