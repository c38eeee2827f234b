"""What others notice of an upload at full speed, and an upload of a crowd that wants nothing.

So that the load generator does not simply take the processors away, it has the last one only, while nobody else
wants it (SCHED_IDLE: with `nice`, the kernel would let it go on for a millisecond or two when another wakes). The
client whose predictions are timed has the same one at the usual priority: nobody keeps it from asking. The server
has all of them.
"""

import base64
import http.client
import itertools
import multiprocessing
import os
import random
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

import itsdangerous
import numpy as np
import soundfile

from benchmarks import servers, upload
from benchmarks.table import Row

CROWD = 500
GIGABIT = 125e6

_spawn = multiprocessing.get_context("spawn")


def predictions(folder: Path, certs: Path, count: int, rounds: int) -> list[Row]:
    """Compare the p99 of small predictions during uploads with that of an idle server, in turn.

    Some of the uploads go to nginx: what they cost predictions, this machine's two processors cost them.
    """
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        server = stack.enter_context(servers.ours(folder, certs, prediction__workers=1))
        urls = {"ours": server.urls[1]}
        if shutil.which("nginx"):
            urls["nginx"] = stack.enter_context(servers.nginx(folder, certs)).urls[0]
        body = _publish(server, folder, certs)
        ask(server.urls[0], body, count)
        for _ in range(rounds):
            for name, (taker, pace) in _UPLOADS.items():
                found.setdefault("idle", []).append(ask(server.urls[0], body, count))
                if taker in urls:
                    with _uploading(urls[taker], pace, put=taker == "nginx"):
                        found.setdefault(name, []).append(ask(server.urls[0], body, count))
                _sweep(server.urls[0])
    p99 = {name: statistics.median(each) for name, each in found.items()}
    return [
        Row(
            f"p99 of small predictions during an upload {name} [ms]",
            f"{1000 * p99[name]:.1f}" if name in p99 else "",
            f"idle: {1000 * p99['idle']:.1f}" if name in p99 else "skipped, there is no nginx",
            p99[name] / p99["idle"] if name in p99 else None,
            "at most 1.5" if taker == "ours" else "",
        )
        for name, (taker, _) in _UPLOADS.items()
    ]


_UPLOADS = {
    "at 1 Gbit/s": ("ours", GIGABIT),
    "at 1 Gbit/s that nginx takes": ("nginx", GIGABIT),
    "unpaced": ("ours", float("inf")),
}
"""Who takes it, and the sender's bytes a second."""


def crowd(folder: Path, certs: Path, size: int, rounds: int) -> Row:
    """Compare an upload's speed beside idle and dripping connections with its speed alone, in turn."""
    alone, beside = [], []
    settings = {"server__max_connections_per_client": 0, "uploads__max_concurrent_per_client": 0}
    with servers.ours(folder, certs, prediction__workers=1, **settings) as server:
        for _ in range(2 * rounds + 1):
            alone.append(size / upload.MIB / upload.send(server.urls[1], size))
            with _crowded(server.urls[1]):
                beside.append(size / upload.MIB / upload.send(server.urls[1], size))
            _sweep(server.urls[0])
    us, them = statistics.median(beside), statistics.median(alone)
    name = f"an upload beside {CROWD} connections that are idle or drip [MiB/s]"
    return Row(name, f"{us:.0f}", f"alone: {them:.0f}", us / them, "at least 0.8")


def ask(url: str, body: str, count: int) -> float:
    """Ask so many times, one after the other, from a process of its own; return the p99 in seconds."""
    with _spawn.Pool(1) as pool:
        return p99(pool.apply(_ask, (url, body, count)))


def p99(seconds: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return float(np.percentile(seconds, 99))


@contextmanager
def asking(url: str, body: str) -> Iterator[list[float]]:
    """Ask on and on meanwhile, in a process of its own; the list has the seconds of each at the end."""
    found: list[float] = []
    ours, theirs = _spawn.Pipe()
    process = _spawn.Process(target=_ask_on, args=(url, body, theirs))
    process.start()
    theirs.close()
    ours.recv()
    yield found
    ours.send(None)
    found += ours.recv()
    process.join()


def _ask(url: str, body: str, count: int) -> list[float]:
    return list(itertools.islice(_answers(url, body), count))


def _ask_on(url: str, body: str, asker: Connection) -> None:
    answers = _answers(url, body)
    next(answers)
    asker.send(None)
    found = []
    while not asker.poll():
        found.append(next(answers))
    asker.send(found)


def _answers(url: str, body: str) -> Iterator[float]:
    """Ask on one connection, which is there before; yield the seconds of each answer."""
    os.sched_setaffinity(0, last_processor())
    address = urlsplit(url)
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context)
    connection.connect()
    while True:
        began = time.monotonic()
        connection.request("POST", "/prediction", body)
        answer = connection.getresponse()
        answer.read()
        seconds = time.monotonic() - began
        assert answer.status == 200
        yield seconds


@contextmanager
def _uploading(url: str, pace: float, put: bool) -> Iterator[None]:
    ended = _spawn.Event()
    process = _spawn.Process(target=_upload_on, args=(url, pace, put, ended))
    process.start()
    time.sleep(1)
    yield
    ended.set()
    process.join()


def _upload_on(url: str, pace: float, put: bool, ended: Event) -> None:
    os.sched_setaffinity(0, last_processor())
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    while not ended.is_set():
        upload.send_here(url, 256 * upload.MIB, put, pace)


@contextmanager
def _crowded(url: str) -> Iterator[None]:
    ready, ended = _spawn.Event(), _spawn.Event()
    process = _spawn.Process(target=_drip, args=(url, ready, ended))
    process.start()
    ready.wait()
    yield
    ended.set()
    process.join()


def _drip(url: str, ready: Event, ended: Event) -> None:
    """Hold connections, half of them silent; the others send a byte of a request's head each second."""
    address = urlsplit(url)
    context = ssl._create_unverified_context()
    with ExitStack() as stack:
        connections = []
        for number in range(CROWD):
            connection = socket.create_connection((address.hostname, address.port))
            if number % 4:
                connection = context.wrap_socket(connection)
            connections.append(stack.enter_context(connection))
        for connection in connections[1::2]:
            connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        ready.set()
        while not ended.wait(1):
            for connection in connections[1::2]:
                connection.sendall(b"x")


def _publish(server: servers.Process, folder: Path, certs: Path) -> str:
    """Publish a model that takes no time; return the question about a short song."""
    model, song = folder / "small.keras", folder / "small.wav"
    subprocess.run([sys.executable, "-m", "benchmarks.model", model, "small"], check=True, capture_output=True)
    rng = random.Random(0)
    soundfile.write(song, [rng.uniform(-0.1, 0.1) for _ in range(22050)], 22050)
    with server.client(certs) as client:
        digest = client.publish(model)["hash"]
    fields = {"model_hash": digest, "ext": "wav", "data": base64.b64encode(song.read_bytes()).decode()}
    return itsdangerous.Serializer(servers.TOKEN).dumps(fields)


def _sweep(url: str) -> None:
    address = urlsplit(url)
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context)
    connection.request("GET", "/hashmodels")
    assert connection.getresponse().status == 200
    connection.close()


def last_processor() -> set[int]:
    """Return the one that load generators have."""
    return {max(os.sched_getaffinity(0))}
