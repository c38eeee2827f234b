"""Predictions: this server beside the original's way, and beside the bare kernel in a loop."""

import base64
import io
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import itsdangerous
import numpy as np
import pandas as pd
import soundfile

from benchmarks import servers
from benchmarks.table import Row
from spectrogram_predictor.client import Client

CONCURRENCY = 4

_MATERIAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Material:
    """A two-input model, 30 s of sound at 22,050 Hz, and its row of 58 features, as files."""

    model: Path
    song: Path
    csv: Path


def material(folder: Path) -> Material:
    """Return real material where there is some, or else made by formula, with a model of random weights."""
    csv = folder / "row.csv"
    if _MATERIAL.is_dir():
        table = pd.read_csv(_MATERIAL / "features_30_sec.csv")
        row = table[table["filename"] == "rock.00092.wav"].drop(["filename", "label"], axis=1)
        csv.write_text(row.to_csv())
        return Material(_MATERIAL / "gtzan_two_input_235.h5", _MATERIAL / "songs" / "rock.00000.wav", csv)
    csv.write_text(pd.DataFrame(np.ones((1, 58))).to_csv())
    song = folder / "song.wav"
    soundfile.write(song, 0.1 * np.random.default_rng(0).standard_normal(30 * 22050), 22050)
    subprocess.run([sys.executable, "-m", "benchmarks.model", folder / "model.h5", "two"], check=True)
    return Material(folder / "model.h5", song, csv)


def compare(folder: Path, certs: Path, count: int, rounds: int) -> list[Row]:
    """Measure throughput beside the original's way, and CPU beside the kernel's."""
    given = material(folder)
    with servers.ours(folder, certs, prediction__workers=2) as server:
        body = _publish(server, certs, given)
        _ask(server.urls[0], body, 20, CONCURRENCY)
        ours, theirs, cpu, kernel = [], [], [], []
        for _ in range(rounds):
            before = server.cpu_s()
            ours.append(_ask(server.urls[0], body, count, CONCURRENCY))
            cpu.append((server.cpu_s() - before) / (count + CONCURRENCY))
            kernel.append(_loop("kernel", given, count)["cpu_s"])
            theirs.append(1 / _loop("original", given, max(5, count // 20))["wall_s"])
    us, them = statistics.median(ours), statistics.median(theirs)
    spent, least = statistics.median(cpu), statistics.median(kernel)
    return [
        Row(
            f"predictions of a 30 s WAV per second, {CONCURRENCY} at a time, 2 workers",
            f"{us:.1f}",
            f"the original's way: {them:.2f}",
            us / them,
            "at least 15",
        ),
        Row(
            "the server's CPU per prediction [ms], all its processes",
            f"{1000 * spent:.1f}",
            f"bare kernel in a loop: {1000 * least:.1f}",
            spent / least,
            "at most 2",
        ),
    ]


def _publish(server: servers.Process, certs: Path, given: Material) -> str:
    with Client(*server.urls, servers.TOKEN, verify=certs / "server.crt") as client:
        digest = client.publish(given.model)["hash"]
    fields = {
        "model_hash": digest,
        "ext": "wav",
        "data": base64.b64encode(given.song.read_bytes()).decode(),
        "csv": base64.b64encode(given.csv.read_bytes()).decode(),
    }
    return itsdangerous.Serializer(servers.TOKEN).dumps(fields)


def _ask(url: str, body: str, count: int, concurrency: int) -> float:
    """Send the same question many times over kept connections; return answers per second."""
    content = body.encode()
    with httpx.Client(verify=False, timeout=60) as http, ThreadPoolExecutor(concurrency) as threads:

        def ask(_: int) -> None:
            assert http.post(f"{url}/prediction", content=content).status_code == 200

        list(threads.map(ask, range(concurrency)))
        began = time.monotonic()
        list(threads.map(ask, range(count)))
        return count / (time.monotonic() - began)


def _loop(which: str, given: Material, count: int) -> dict[str, float]:
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
    environ = {**os.environ, **one, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "benchmarks.loops", which, given.model, given.song, given.csv, str(count)]
    quiet, root = subprocess.DEVNULL, Path(__file__).parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=quiet, env=environ, cwd=root, check=True)
    measured: dict[str, float] = json.load(io.BytesIO(done.stdout))
    return measured
