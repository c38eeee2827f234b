"""The 58 features of a song: ours beside librosa's functions one by one, in one thread.

``python -m benchmarks.features warm|ours|librosa SONG ROUNDS`` prints seconds as JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks.table import Row

_MATERIAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "songs" / "rock.00000.wav"


def compare(folder: Path, rounds: int) -> list[Row]:
    """Measure both in turn in a warm process, and the first features of a fresh process without a numba cache."""
    song = _MATERIAL if _MATERIAL.is_file() else _make_song(folder / "features.wav")
    warm = _run("warm", song, 5 * rounds)
    first = {which: _run(which, song, 1)[which][0] for which in _WAYS}
    us, them = (statistics.median(warm[which]) for which in _WAYS)
    return [
        Row(
            "58 features of 30 s of sound [ms], one thread",
            f"{1000 * us:.0f}",
            f"librosa's functions one by one: {1000 * them:.0f}",
            them / us,
            "at least 6",
        ),
        Row(
            "the same, first in a fresh process without numba's cache [s], with imports",
            f"{first['ours']:.1f}",
            f"librosa's functions one by one: {first['librosa']:.1f}",
            first["librosa"] / first["ours"],
            "at least 6",
        ),
    ]


def _make_song(path: Path) -> Path:
    """Write 30 s of a chord with a beat."""
    t = np.arange(30 * 22050) / 22050
    beat = np.random.default_rng(0).standard_normal(t.size) * np.exp(-20 * (t % 0.5))
    soundfile.write(path, 0.1 * sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)) + 0.2 * beat, 22050)
    return path


def _run(which: str, song: Path, rounds: int) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as cache:
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        command = [sys.executable, "-m", "benchmarks.features", which, str(song), str(rounds)]
        environ, root = {**os.environ, **one, "NUMBA_CACHE_DIR": cache}, Path(__file__).parents[1]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environ, cwd=root, check=True)
    measured: dict[str, list[float]] = json.loads(done.stdout)
    return measured


def main(which: str, song: str, rounds: str) -> None:
    """Measure, in this process."""
    y, _ = soundfile.read(song, dtype="float32")
    ways = _WAYS if which == "warm" else {which: _WAYS[which]}
    if which == "warm":
        for way in ways.values():
            way(y)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(int(rounds)):
        for name, way in ways.items():
            began = time.perf_counter()
            way(y)
            seconds[name].append(time.perf_counter() - began)
    print(json.dumps(seconds))


def _ours(y: Any) -> Any:
    from spectrogram_predictor.sound import features

    return features.compute(y)


def _librosa(y: Any) -> Any:
    """Call librosa's functions as the notebooks do that made the table."""
    import librosa

    feature = librosa.feature
    tracks = [
        feature.chroma_stft(y=y),
        feature.rms(y=y),
        feature.spectral_centroid(y=y),
        feature.spectral_bandwidth(y=y),
        feature.spectral_rolloff(y=y),
        feature.zero_crossing_rate(y),
        *librosa.effects.hpss(y),
        *feature.mfcc(y=y),
    ]
    return librosa.beat.beat_track(y=y)[0], [moment for track in tracks for moment in (track.mean(), track.var())]


_WAYS: dict[str, Callable[[Any], Any]] = {"ours": _ours, "librosa": _librosa}


if __name__ == "__main__":
    main(*sys.argv[1:])
