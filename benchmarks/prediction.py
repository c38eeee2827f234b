"""Predictions: this server beside the bare kernel in a loop, and beside the original's way."""

import base64
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import itsdangerous
import numpy as np
import pandas as pd
import soundfile

from benchmarks import load, servers
from benchmarks.table import Row

CONCURRENCY = 4
WORKERS = 2

_MATERIAL = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Material:
    """Files: two models, of two inputs and of a picture only; 30 s as WAV and MP3; a row of 58 features."""

    two: Path
    picture: Path
    wav: Path
    mp3: Path
    csv: Path


@dataclass(frozen=True)
class Case:
    """A way to ask: what is sent where, and what the kernel does for it."""

    name: str
    path: str
    body: Path
    secret: str
    loop: tuple[Path, Path, Path | None]
    target: str


def material(folder: Path) -> Material:
    """Return real material where there is some, or else made by formula, with models of random weights."""
    csv, picture = folder / "row.csv", folder / "picture.keras"
    subprocess.run([sys.executable, "-m", "benchmarks.model", picture, "picture"], check=True, capture_output=True)
    if _MATERIAL.is_dir():
        table = pd.read_csv(_MATERIAL / "features_30_sec.csv")
        row = table[table["filename"] == "rock.00092.wav"].drop(["filename", "label"], axis=1)
        csv.write_text(row.to_csv())
        two, wav = _MATERIAL / "gtzan_two_input_235.h5", _MATERIAL / "songs" / "rock.00000.wav"
        return Material(two, picture, wav, _MATERIAL / "other" / "000140.mp3", csv)
    csv.write_text(pd.DataFrame(np.ones((1, 58))).to_csv())
    two, wav, mp3 = folder / "two.h5", folder / "song.wav", folder / "song.mp3"
    noise = 0.1 * np.random.default_rng(0).standard_normal(30 * 44100)
    soundfile.write(wav, noise[::2], 22050)
    soundfile.write(mp3, np.column_stack([noise, noise]), 44100, format="MP3")
    subprocess.run([sys.executable, "-m", "benchmarks.model", two, "two"], check=True, capture_output=True)
    return Material(two, picture, wav, mp3, csv)


def compare(folder: Path, certs: Path, count: int, rounds: int) -> list[Row]:
    """Measure CPU beside the kernel's, throughput beside the original's, and how even the answers are."""
    given = material(folder)
    with servers.ours(folder, certs, prediction__workers=WORKERS) as server:
        cases = _cases(folder, server, certs, given)
        spent: dict[str, list[tuple[float, float]]] = {case.name: [] for case in cases}
        ours, theirs, even, generator = [], [], [], []
        for case in cases:
            _ask(server, case, 20)
        for _ in range(rounds):
            for case in cases:
                before = server.cpu_s()
                loaded = _ask(server, case, count)
                spent[case.name].append(((server.cpu_s() - before) / count, _kernel(case, count)))
                if case is cases[0]:
                    ours.append(loaded.per_s)
                    generator.append(loaded.cpu_s / count)
                    even.append(_ask(server, case, count, per_s=loaded.per_s / 2))
            theirs.append(_original(given, max(5, count // 20)))
        floor = _bare(folder, certs, cases[-1], spent[cases[-1].name], count, rounds)
    us, them = statistics.median(ours), statistics.median(theirs)
    rows = [_beside_kernel(case, spent[case.name]) for case in cases]
    p50, p99 = (
        1000 * statistics.median(each)
        for each in zip(*[(one.good.p50_s, one.good.p99_s) for one in even], strict=True)
    )
    return [
        *rows,
        floor,
        Row(
            f"predictions of a 30 s WAV per second, {CONCURRENCY} at a time, {WORKERS} workers "
            f"(load generator: {1000 * statistics.median(generator):.1f} ms of CPU each)",
            f"{us:.1f}",
            f"the original's way: {them:.2f}",
            us / them,
            "at least 40",
        ),
        Row(
            "99th percentile of an answer's time at half load [ms]",
            f"{p99:.0f}",
            f"median: {p50:.0f}",
            p99 / p50,
            "at most 3",
        ),
    ]


def _cases(folder: Path, server: servers.Process, certs: Path, given: Material) -> list[Case]:
    with server.client(certs) as client:
        two, picture = (client.publish(model)["hash"] for model in (given.two, given.picture))
    cases = []
    for name, song, target in (("WAV", given.wav, "at most 1.35"), ("MP3", given.mp3, "at most 1.1")):
        body = folder / f"question-{name}"
        body.write_text(question(two, song, given.csv))
        cases.append(
            Case(f"{name} with CSV, signed", "/prediction", body, "", (given.two, song, given.csv), target)
        )
    path = f"/models/{picture}/predict"
    loop = (given.picture, given.wav, None)
    return [*cases, Case("WAV as it is", path, given.wav, servers.TOKEN, loop, "at most 1.15")]


def question(digest: str, song: Path, csv: Path | None = None) -> str:
    """Return what the document's route takes."""
    fields = {"model_hash": digest, "ext": song.suffix[1:], "data": base64.b64encode(song.read_bytes()).decode()}
    if csv:
        fields["csv"] = base64.b64encode(csv.read_bytes()).decode()
    return itsdangerous.Serializer(servers.TOKEN).dumps(fields)


def _ask(server: servers.Process, case: Case, count: int, per_s: float = 0) -> load.Load:
    url = server.urls[0] + case.path
    return load.Requests(url, case.body, count, CONCURRENCY, per_s=per_s, secret=case.secret).send()


def _beside_kernel(case: Case, spent: Sequence[tuple[float, float]]) -> Row:
    ours, kernel = (statistics.median(each) for each in zip(*spent, strict=True))
    return Row(
        f"the server's CPU per prediction of 30 s of {case.name} [ms], all its processes",
        f"{1000 * ours:.1f}",
        f"bare kernel in {WORKERS} loops: {1000 * kernel:.1f}",
        statistics.median(us / them for us, them in spent),
        case.target,
    )


def _bare(
    folder: Path, certs: Path, case: Case, spent: Sequence[tuple[float, float]], count: int, rounds: int
) -> Row:
    """Return what Tornado and TLS take of it: the same body, and an answer when the kernel would be done."""
    found = []
    kernel = statistics.median(seconds for _, seconds in spent)
    with servers.bare(folder, certs, kernel) as server:
        requests = load.Requests(f"{server.urls[0]}/", case.body, count, CONCURRENCY)
        requests.send()
        for _ in range(rounds):
            before = server.cpu_s()
            requests.send()
            found.append((server.cpu_s() - before) / count)
    us = statistics.median(found)
    name = f"CPU of a bare handler of Tornado that takes {case.name} over TLS, and answers a constant [ms]"
    return Row(name, f"{1000 * us:.1f}", f"the kernel that it has not: {1000 * kernel:.1f}", us / kernel, "")


def _kernel(case: Case, count: int) -> float:
    """Return CPU seconds of the kernel, in as many processes at a time as there are workers."""
    loops = [begin_loop("kernel", *case.loop, count) for _ in range(WORKERS)]
    return statistics.mean(float(json.loads(loop.communicate()[0])["cpu_s"]) for loop in loops)


def _original(given: Material, count: int) -> float:
    said, _ = begin_loop("original", given.two, given.wav, given.csv, count).communicate()
    return 1 / float(json.loads(said)["wall_s"])


def begin_loop(which: str, model: Path, song: Path, csv: Path | None, count: int) -> "subprocess.Popen[bytes]":
    """Begin a loop of predictions in a process of its own."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"), "1")
    environ = {**os.environ, **one, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-m", "benchmarks.loops", which, *map(str, (model, song, csv or "", count))]
    quiet, root = subprocess.DEVNULL, Path(__file__).parents[1]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, env=environ, cwd=root)
