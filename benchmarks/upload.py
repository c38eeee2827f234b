"""A large upload over TLS: this server, hashing, beside nginx and Express with multer, not hashing."""

import contextlib
import hashlib
import math
import multiprocessing
import os
import shutil
import socket
import ssl
import statistics
import time
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

from benchmarks import servers
from benchmarks.table import Row

MIB = 2**20

_SO_MAX_PACING_RATE = 47
"""Bytes a second; see socket(7) of Linux. Python has no name for it."""

_BLOCK = os.urandom(MIB)
# As long as curl's and the browsers' are: both servers search the body for it.
_BOUNDARY = b"------------------------d74496d66958873e"
_HEAD = b"--" + _BOUNDARY + b'\r\nContent-Disposition: form-data; name="model"; filename="model"\r\n\r\n'
_TAIL = b"\r\n--" + _BOUNDARY + b"--\r\n"


def throughput(folder: Path, certs: Path, size: int, rounds: int) -> list[Row]:
    """Compare the three servers, in turn."""
    modules = folder / "node"
    why_not = {"multer": servers.install_multer(modules), "nginx": None if shutil.which("nginx") else "no nginx"}
    speeds: dict[str, list[float]] = {"ours": [], "nginx": [], "multer": []}
    spent: dict[str, list[float]] = {"ours": [], "nginx": [], "multer": []}
    with contextlib.ExitStack() as stack:
        running = {"ours": stack.enter_context(servers.ours(folder, certs, prediction__workers=1))}
        if not why_not["nginx"]:
            running["nginx"] = stack.enter_context(servers.nginx(folder, certs))
        if not why_not["multer"]:
            running["multer"] = stack.enter_context(servers.multer(folder, certs, modules))
        for _ in range(rounds):
            for name, server in running.items():
                before = server.cpu_s()
                seconds = send(server.urls[-1], size, put=name == "nginx")
                spent[name].append((server.cpu_s() - before) * 2**30 / size)
                speeds[name].append(size / MIB / seconds)
                _clear(folder, running["ours"].urls[0], certs)
    return [
        *(_faster(name, target, size, speeds, why_not[name]) for name, target in _TARGETS.items()),
        *_cheaper(size, spent, why_not["nginx"]),
    ]


_TARGETS = {"nginx": "at least 1", "multer": "at least 2.5"}
_BESIDE = {"nginx": "nginx", "multer": "Express + multer"}


def _faster(name: str, target: str, size: int, speeds: dict[str, list[float]], why_not: str | None) -> Row:
    title = f"upload of {size // MIB} MiB over TLS [MiB/s]"
    us = statistics.median(speeds["ours"])
    if why_not:
        return Row(title, f"{us:.0f}, with SHA-256", f"{_BESIDE[name]}: skipped, {why_not}", None, target)
    them = statistics.median(speeds[name])
    return Row(title, f"{us:.0f}, with SHA-256", f"{_BESIDE[name]}: {them:.0f}", us / them, target)


def _cheaper(size: int, spent: dict[str, list[float]], why_not: str | None) -> list[Row]:
    if why_not:
        return []
    us, them = statistics.median(spent["ours"]), statistics.median(spent["nginx"])
    digest = _digest_s(size)
    title, beside, target = "the server's CPU seconds per GiB", f"nginx: {them:.2f}", "at most 1"
    return [
        Row(title, f"{us:.2f}, with SHA-256", beside, us / them, target),
        Row(f"{title}, less {digest:.2f} for SHA-256", f"{us - digest:.2f}", beside, (us - digest) / them, target),
    ]


def _digest_s(size: int) -> float:
    """Return the CPU seconds that SHA-256 alone takes for a gibibyte."""
    digest, began = hashlib.sha256(), time.thread_time()
    for _ in range(size // MIB):
        digest.update(_BLOCK)
    return (time.thread_time() - began) * 2**30 / size


def _clear(folder: Path, url: str, certs: Path) -> None:
    with urlopen(f"{url}/hashmodels", context=ssl.create_default_context(cafile=certs / "server.crt")) as answer:
        assert answer.status == 200
    for kept in (*folder.glob("multer/*"), *folder.glob("nginx/received/*")):
        kept.unlink()


def memory(folder: Path, certs: Path, small: int, large: int) -> Row:
    """Compare the server's peak memory for a small and a large upload, each on a fresh server."""
    peaks = []
    for size in (small, large):
        with servers.ours(folder, certs, prediction__workers=1) as ours:
            send(ours.urls[1], size)
            peaks.append(ours.peak_bytes())
        shutil.rmtree(folder / "storage")
    difference = (peaks[1] - peaks[0]) / MIB
    name = f"server's peak memory [MiB], {small // MIB} MiB and {large // MIB} MiB uploaded"
    shown = f"{large // MIB} MiB: {peaks[1] / MIB:.0f}", f"{small // MIB} MiB: {peaks[0] / MIB:.0f}"
    return Row(name, *shown, difference, "at most 32 more", unit=" MiB")


def send(url: str, size: int, *, put: bool = False) -> float:
    """Send an upload from a process of its own; return the seconds until it was answered.

    Parameters
    ----------
    url : str
        Scheme, host and port.
    size : int
        Of the file, in bytes.
    put : bool
        The bare bytes in a PUT, and not a form.
    """
    # What an earlier round left unwritten is not this one's.
    os.sync()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(send_here, (url, size, put))


def send_here(url: str, size: int, put: bool = False, pace: float = math.inf) -> float:
    """Send an upload at so many bytes a second; return the seconds until it was answered."""
    address = urlsplit(url)
    head, tail, line = (b"", b"", "PUT /model") if put else (_HEAD, _TAIL, "POST /nodemodeluploads")
    context = ssl._create_unverified_context()
    request = (
        f"{line} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {len(head) + size + len(tail)}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}\r\n\r\n"
    )
    with context.wrap_socket(socket.create_connection((address.hostname, address.port))) as connection:
        if pace < math.inf:
            # Evenly, as a link of that speed would: not in bursts with pauses between them.
            connection.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, int(pace))
        began = time.monotonic()
        connection.sendall(request.encode() + head)
        for _ in range(size // MIB):
            connection.sendall(_BLOCK)
        connection.sendall(tail)
        answer = connection.recv(65536)
        seconds = time.monotonic() - began
    assert answer.split(b" ", 2)[1] in (b"200", b"201", b"204"), answer
    return seconds
