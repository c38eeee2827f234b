"""A large upload over TLS: this server, hashing, beside Express with multer, not hashing."""

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

_BLOCK = os.urandom(MIB)
# As long as curl's and the browsers' are: both servers search the body for it.
_BOUNDARY = b"------------------------d74496d66958873e"
_HEAD = b"--" + _BOUNDARY + b'\r\nContent-Disposition: form-data; name="model"; filename="model"\r\n\r\n'
_TAIL = b"\r\n--" + _BOUNDARY + b"--\r\n"


def throughput(folder: Path, certs: Path, size: int, rounds: int) -> Row:
    """Compare the two servers, in turn."""
    name, target = f"upload of {size // MIB} MiB over TLS [MiB/s]", "at least 2.2"
    modules = folder / "node"
    if reason := servers.install_multer(modules):
        return Row(name, "", f"Express + multer: skipped, {reason}", None, target)
    with (
        servers.ours(folder, certs, prediction__workers=1) as ours,
        servers.multer(folder, certs, modules) as theirs,
    ):
        results: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(rounds):
            results["ours"].append(size / MIB / send(ours.urls[1], size))
            _sweep(ours.urls[0], certs)
            results["theirs"].append(size / MIB / send(theirs.urls[0], size))
            shutil.rmtree(folder / "multer")
            (folder / "multer").mkdir()
    us, them = (statistics.median(results[who]) for who in ("ours", "theirs"))
    return Row(name, f"{us:.0f}, with SHA-256", f"Express + multer: {them:.0f}", us / them, target)


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


def send(url: str, size: int) -> float:
    """Send an upload from a process of its own; return the seconds until it was answered."""
    # What an earlier round left unwritten is not this one's.
    os.sync()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_send, (url, size))


def _send(url: str, size: int) -> float:
    address = urlsplit(url)
    context = ssl._create_unverified_context()
    length = len(_HEAD) + size + len(_TAIL)
    request = (
        f"POST /nodemodeluploads HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: {length}\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY.decode()}\r\n\r\n"
    )
    with context.wrap_socket(socket.create_connection((address.hostname, address.port))) as connection:
        began = time.monotonic()
        connection.sendall(request.encode() + _HEAD)
        for _ in range(size // MIB):
            connection.sendall(_BLOCK)
        connection.sendall(_TAIL)
        answer = connection.recv(65536)
        seconds = time.monotonic() - began
    assert b" 200 " in answer.split(b"\r\n")[0], answer
    return seconds


def _sweep(url: str, certs: Path) -> None:
    with urlopen(f"{url}/hashmodels", context=ssl.create_default_context(cafile=certs / "server.crt")) as answer:
        assert answer.status == 200
