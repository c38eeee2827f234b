"""Servers under measurement, each in processes of its own."""

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from spectrogram_predictor.certificates import CERTIFICATE
from spectrogram_predictor.client import Client

TOKEN = "a token for the benchmarks"

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Process:
    """A server's process, and what it has cost so far."""

    def __init__(self, process: "subprocess.Popen[Any]", urls: list[str]) -> None:
        self.pid = process.pid
        self.urls = urls

    def client(self, certs: Path) -> Client:
        """Return a client of it, if it is ours."""
        return client(self.urls, certs)

    def cpu_s(self) -> float:
        """Return the CPU seconds of the process and of its descendants, also of those that have ended."""
        return sum(_cpu_s(pid) for pid in (self.pid, *_descendants(self.pid)))

    def resident_bytes(self) -> int:
        """Return the memory of the process and of its descendants, each with what they share."""
        return sum(_resident_bytes(pid) for pid in (self.pid, *_descendants(self.pid)))

    def peak_bytes(self) -> int:
        """Return the most memory that the process itself, without its workers, has had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]


class Together:
    """Several servers that answer together."""

    def __init__(self, *servers: Process) -> None:
        self._servers = servers

    def cpu_s(self) -> float:
        """Return the CPU seconds of all of them."""
        return sum(server.cpu_s() for server in self._servers)


def client(urls: list[str], certs: Path) -> Client:
    """Return a client of a server of ours."""
    api, uploads = urls
    return Client(api, uploads, TOKEN, verify=certs / CERTIFICATE)


@contextmanager
def ours(folder: Path, certs: Path, **settings: Any) -> Iterator[Process]:
    """Run this server on free ports and wait for its worker; its addresses are [API, uploads]."""
    values = {
        "server.api_port": 0,
        "server.upload_port": 0,
        "server.certs": certs,
        "storage.url": folder / "storage",
        "promotion.interval_s": 3600.0,
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "spectrogram_predictor", "serve"]
    for key, value in values.items():
        command += ["--set", f"{key}={value}"]
    with _run(command, 2, folder / "server.log") as process:
        context = ssl.create_default_context(cafile=certs / CERTIFICATE)
        while not _ready(process.urls[0], context):
            time.sleep(0.2)
        yield process


@contextmanager
def bare(folder: Path, certs: Path, seconds: float) -> Iterator[Process]:
    """Run a server that takes what it is sent and answers nothing of interest, so much later."""
    command = [sys.executable, "-m", "benchmarks.bare", str(certs), str(seconds)]
    with _run(command, 1, folder / "bare.log") as process:
        yield process


@contextmanager
def multer(folder: Path, certs: Path, modules: Path) -> Iterator[Process]:
    """Run the Express/multer server; its address is [uploads]."""
    received = folder / "multer"
    received.mkdir(exist_ok=True)
    script = shutil.copy(Path(__file__).with_name("multer.js"), modules / "multer.js")
    with _run(["node", str(script), str(certs), str(received)], 1, folder / "multer.log") as process:
        yield process


@contextmanager
def nginx(folder: Path, certs: Path) -> Iterator[Process]:
    """Run nginx as Debian has it, taking PUT requests into a folder over TLS; its address is [uploads]."""
    received = folder / "nginx"
    for name in ("", "received", "temp"):
        (received / name).mkdir(exist_ok=True)
    port = free_port()
    config = received / "nginx.conf"
    config.write_text(_NGINX.format(folder=received, certs=certs, port=port))
    process = subprocess.Popen(["nginx", "-c", config], stderr=(received / "log").open("wb"))
    try:
        _wait_for(port)
        yield Process(process, [f"https://127.0.0.1:{port}"])
    finally:
        process.terminate()
        process.wait()


_NGINX = """
daemon off;
user root;
pid {folder}/pid;
error_log {folder}/error.log;
worker_processes auto;
events {{ worker_connections 768; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path {folder}/temp;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {certs}/server.crt;
        ssl_certificate_key {certs}/server.key;
        root {folder}/received;
        dav_methods PUT;
    }}
}}
"""
"""Debian's nginx.conf as far as it matters here, and what PUT needs."""


def install_multer(modules: Path) -> str | None:
    """Install Express and multer there; return why that is not possible, or None."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "there is no node or npm"
    modules.mkdir(parents=True, exist_ok=True)
    if not (modules / "node_modules" / "multer").is_dir():
        done = subprocess.run(
            ["npm", "install", "--silent", "--prefix", modules, "express", "multer"], capture_output=True
        )
        if done.returncode:
            return "npm install express multer failed"
    return None


@contextmanager
def _run(command: list[str], addresses: int, log: Path) -> Iterator[Process]:
    environ = {**os.environ, "SIGNING_TOKEN": TOKEN}
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environ)
    assert process.stdout
    try:
        found = [re.search(r"https://\S+", process.stdout.readline()) for _ in range(addresses)]
        assert all(found), log.read_text()
        yield Process(process, [match[0] for match in found if match])
    finally:
        process.terminate()
        process.wait()


def end_group(process: "subprocess.Popen[Any]") -> None:
    """End a process that leads a group, and whatever it has begun."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)


def free_port() -> int:
    """Return a port that nobody listens on, for servers that take no 0."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def _wait_for(port: int) -> None:
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)


def _ready(url: str, context: ssl.SSLContext) -> bool:
    try:
        with urlopen(f"{url}/readyz", context=context):
            return True
    except HTTPError:
        return False


def _descendants(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [*children, *(further for child in children for further in _descendants(child))]


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # Its own, and of its children that have ended and that it has waited for.
    return sum(map(int, fields[11:15])) * _TICK_S


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
