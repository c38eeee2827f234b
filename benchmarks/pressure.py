"""What a server does that has too much to do: ten times what it can, a huge model beside a small one, many models.

The model that is asked too often takes so long that asking costs little beside it. Whoever publishes the huge one
has the last processor only, at the lowest priority; the server has all of them.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from benchmarks import fairness, load, prediction, servers
from benchmarks.table import Row
from benchmarks.upload import MIB

_TIMES = 10
_QUEUE = 16
_CONNECTIONS = 64
_AFTERWARDS_S = 2

_spawn = multiprocessing.get_context("spawn")


def overload(folder: Path, certs: Path, seconds: float) -> list[Row]:
    """Ask ten times as often as can be answered, of a model that takes its time; then once more as before."""
    model, song = make_model(folder / "slow.keras", "slow"), _second(folder / "second.wav")
    with servers.ours(folder, certs, prediction__workers=prediction.WORKERS, prediction__queue=_QUEUE) as server:
        with server.client(certs) as client:
            path = f"/models/{client.publish(model)['hash']}/predict"
        one = load.Requests(server.urls[0] + path, song, 20, 1, secret=servers.TOKEN)
        one.send()
        before = one.send().good
        can = replace(one, count=100, concurrency=prediction.CONCURRENCY).send().per_s
        memory = server.resident_bytes()
        count, offered = round(_TIMES * can * seconds), _TIMES * can
        pressed = replace(one, count=count, concurrency=_CONNECTIONS, per_s=offered).begin()()
        grown = server.resident_bytes() - memory
        afterwards = one.send().good
    assert set(pressed.answers) == {200, 429}, pressed.answers
    return [
        *_kept_up(pressed, can),
        Row(
            "memory of all processes after that [MiB]",
            f"{(memory + grown) / MIB:.0f}",
            f"before: {memory / MIB:.0f}",
            grown / MIB,
            "at most 32",
            " MiB",
        ),
        Row(
            "an answer right after that [ms]",
            f"{1000 * afterwards.p50_s:.1f}",
            f"before: {1000 * before.p50_s:.1f}",
            afterwards.p50_s / before.p50_s,
            "at most 1.5",
        ),
    ]


def _kept_up(pressed: load.Load, can: float) -> list[Row]:
    """Say what was asked, answered and refused a second, of a server that can answer so many."""
    refused = pressed.answers[429]
    sent = (pressed.good.count + refused.count) / pressed.wall_s
    generator = pressed.cpu_s / pressed.wall_s / len(os.sched_getaffinity(0))
    return [
        Row(
            f"requests per second, for {pressed.wall_s:.0f} s, to a server that has too much to do",
            f"{sent:.0f}",
            f"what it can do: {can:.1f}",
            sent / can,
            f"at least {0.9 * _TIMES:g}",
        ),
        Row(
            f"answers per second then (load generator: {100 * generator:.0f} % of the processors)",
            f"{pressed.per_s:.1f}",
            f"otherwise: {can:.1f}",
            pressed.per_s / can,
            "at least 0.9",
        ),
        Row(
            f"p99 of the {refused.count} refusals then [ms]",
            f"{1000 * refused.p99_s:.0f}",
            f"of answers: {1000 * pressed.good.p99_s:.0f}",
            1000 * refused.p99_s,
            "at most 100",
            " ms",
        ),
    ]


def loading(folder: Path, certs: Path, size: int, count: int, rounds: int) -> Row:
    """Compare a model's p99 while a huge one is published, loaded and asked with its p99 otherwise."""
    given = prediction.material(folder)
    quiet, busy = [], []
    for number in range(rounds):
        huge = make_model(folder / f"huge{number}.keras", "huge", size)
        with (
            servers.ours(folder, certs, prediction__workers=prediction.WORKERS) as server,
            _spawn.Pool(1) as pool,
        ):
            with server.client(certs) as client:
                question = prediction.question(client.publish(given.picture)["hash"], given.wav)
            fairness.ask(server.urls[0], question, count)
            quiet.append(fairness.ask(server.urls[0], question, count))
            with fairness.asking(server.urls[0], question) as seconds:
                pool.apply(_publish, (server.urls, certs, huge, given.wav))
                time.sleep(_AFTERWARDS_S)
            busy.append(fairness.p99(seconds))
        huge.unlink()
    us, idle = statistics.median(busy), statistics.median(quiet)
    name = f"p99 of a model's answers while one of {size / MIB:.0f} MiB is published and loaded [ms]"
    return Row(name, f"{1000 * us:.1f}", f"idle: {1000 * idle:.1f}", us / idle, "at most 1.5")


def cycles(folder: Path, certs: Path, few: int, many: int) -> Row:
    """Compare memory after many models that were published, asked and evicted with that after few."""
    given = prediction.material(folder)
    models = folder / "models"
    models.mkdir()
    make_model(models, "many", many)
    memory = {}
    settings = {"prediction__workers": prediction.WORKERS, "prediction__cached_models": 2}
    with servers.ours(folder, certs, **settings) as server, server.client(certs) as client:
        for number, model in enumerate(sorted(models.iterdir()), 1):
            digest = client.publish(model)["hash"]
            for _ in range(prediction.WORKERS):
                client.predict(given.wav, digest)
            if number in (few, many):
                memory[number] = server.resident_bytes()
    name = f"memory of all processes after {many} models that were published, asked and evicted [MiB]"
    cells = f"{memory[many] / MIB:.0f}", f"after {few}: {memory[few] / MIB:.0f}"
    return Row(name, *cells, memory[many] / memory[few], "at most 1.1")


def make_model(path: Path, kind: str, size: int = 0) -> Path:
    """Save one model, or a folder of many, in a process of its own: Keras takes gigabytes."""
    command = [sys.executable, "-m", "benchmarks.model", str(path), kind, str(size)]
    subprocess.run(command, check=True, capture_output=True)
    return path


def _second(path: Path) -> Path:
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(22050), 22050)
    return path


def _publish(urls: list[str], certs: Path, model: Path, song: Path) -> None:
    os.sched_setaffinity(0, fairness.last_processor())
    os.nice(19)
    with servers.client(urls, certs) as client:
        client.predict(song, client.publish(model)["hash"])
