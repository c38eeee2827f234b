"""This server beside those that a user would pick otherwise, with the same model: see `peers`."""

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx

from benchmarks import load, prediction, servers
from benchmarks.peers import kernel
from benchmarks.table import Row

ENVIRONMENT = Path(__file__).resolve().parents[1] / ".venv-peers"
"""What ``make bench-peers`` installs."""

_START_S = 180.0
_COMMANDS = {
    "mosec": ["python", "-m", "benchmarks.peers.with_mosec", "--port", "PORT", "--timeout", "120000"],
    "FastAPI with a process pool": ["uvicorn", "benchmarks.peers.with_fastapi:app", "--port", "PORT"],
    "LitServe": ["python", "-m", "benchmarks.peers.with_litserve", "PORT"],
    "BentoML": ["bentoml", "serve", "benchmarks.peers.with_bentoml:Predict", "--port", "PORT"],
}
_ALIKE = "mosec behind nginx with our kernel"
_MULTIPART = "bench-peers"


@dataclass(frozen=True)
class _Asked:
    """One server, asked."""

    per_s: float
    cpu_s: float


def compare(folder: Path, certs: Path, count: int, rounds: int) -> list[Row]:
    """Measure each in turn, several times over."""
    given = prediction.material(folder)
    found: dict[str, list[_Asked]] = {}

    def measure(
        name: str,
        server: servers.Process | servers.Together,
        url: str,
        body: Path,
        headers: Mapping[str, str],
        secret: str = "",
    ) -> None:
        requests = load.Requests(url, body, count, prediction.CONCURRENCY, headers, secret=secret)
        replace(requests, count=20).send()
        before = server.cpu_s()
        loaded = requests.send()
        found.setdefault(name, []).append(_Asked(loaded.per_s, (server.cpu_s() - before) / count))

    for _ in range(rounds):
        with servers.ours(folder, certs, prediction__workers=prediction.WORKERS) as server:
            with server.client(certs) as client:
                digest = client.publish(given.picture)["hash"]
            url = f"{server.urls[0]}/models/{digest}/predict"
            measure("ours", server, url, given.wav, {}, servers.TOKEN)
            question = folder / "question"
            question.write_text(prediction.question(digest, given.wav))
            measure("ours, signed", server, f"{server.urls[0]}/prediction", question, {})
        for name in _COMMANDS:
            body, headers = _body(folder, name, given.wav)
            with _peer(name, given.picture, "librosa", body, headers) as server:
                measure(name, server, f"{server.urls[0]}/inference", body, headers)
        if shutil.which("nginx"):
            body, headers = _body(folder, "mosec", given.wav)
            with (
                _peer("mosec", given.picture, "ours", body, headers) as server,
                _tls(folder, certs, server.urls[0]) as front,
            ):
                both = servers.Together(server, front)
                measure(_ALIKE, both, f"{front.urls[0]}/inference", body, headers)
    return _rows(found)


def _rows(found: dict[str, list[_Asked]]) -> list[Row]:
    rates = {name: statistics.median(one.per_s for one in asked) for name, asked in found.items()}
    spent = {name: 1000 * statistics.median(one.cpu_s for one in asked) for name, asked in found.items()}
    rows = [
        Row(
            f"predictions of a 30 s WAV per second, {prediction.CONCURRENCY} at a time (CPU of each [ms])",
            f"{rates['ours']:.1f} ({spent['ours']:.1f})",
            f"{name}: {rates[name]:.1f} ({spent[name]:.1f})",
            rates["ours"] / rates[name],
            "at least 1",
        )
        for name in _COMMANDS
    ]
    signature = spent["ours, signed"] - spent["ours"]
    return [
        *rows,
        Row(
            "CPU per prediction with the same kernel and TLS [ms]; signature, base64 and JSON cost "
            f"{signature:.2f} more",
            f"{spent['ours']:.2f}",
            f"mosec behind nginx: {spent[_ALIKE]:.2f}" if _ALIKE in spent else "skipped, there is no nginx",
            spent["ours"] / spent[_ALIKE] if _ALIKE in spent else None,
            "at most 1",
        ),
    ]


def _body(folder: Path, name: str, song: Path) -> tuple[Path, dict[str, str]]:
    """Return what a peer takes a song as, and the headers that say so."""
    if name != "LitServe":
        return song, {"Content-Type": "audio/wav"}
    head = f'--{_MULTIPART}\r\nContent-Disposition: form-data; name="song"; filename="song.wav"\r\n\r\n'
    body = folder / "multipart"
    body.write_bytes(head.encode() + song.read_bytes() + f"\r\n--{_MULTIPART}--\r\n".encode())
    return body, {"Content-Type": f"multipart/form-data; boundary={_MULTIPART}"}


@contextmanager
def _peer(name: str, model: Path, which: str, body: Path, headers: dict[str, str]) -> Iterator[servers.Process]:
    """Run one of them on a free port until it answers."""
    url = f"http://127.0.0.1:{servers.free_port()}"
    command = [url.rpartition(":")[2] if part == "PORT" else part for part in _COMMANDS[name]]
    command[0] = str(ENVIRONMENT / "bin" / command[0])
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    quiet = {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environ = {**os.environ, **one, **quiet, kernel.MODEL: str(model), kernel.WHICH: which}
    with _running(command, [url], environ) as server:
        deadline = time.monotonic() + _START_S
        content = body.read_bytes()
        while not _answers(f"{url}/inference", content, headers):
            assert time.monotonic() < deadline, f"{name} does not answer"
            time.sleep(0.5)
        yield server


def _answers(url: str, content: bytes, headers: dict[str, str]) -> bool:
    try:
        return httpx.post(url, content=content, headers=headers, timeout=60).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def _tls(folder: Path, certs: Path, upstream: str) -> Iterator[servers.Process]:
    """Put nginx in front of a server that has no TLS of its own; one process, which keeps connections."""
    port, place = servers.free_port(), folder / "nginx"
    place.mkdir(exist_ok=True)
    address = upstream.removeprefix("http://")
    (place / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; error_log {place}/error.log; pid {place}/pid; events {{}}\n"
        f"http {{ access_log off; client_max_body_size 64m; client_body_buffer_size 4m;\n"
        f"client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;\n"
        f"upstream peer {{ server {address}; keepalive 16; }}\n"
        f"server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {certs}/server.crt;\n"
        f"ssl_certificate_key {certs}/server.key; location / {{ proxy_pass http://peer;\n"
        f'proxy_http_version 1.1; proxy_set_header Connection ""; }} }} }}\n'
    )
    command = ["nginx", "-e", str(place / "error.log"), "-c", str(place / "nginx.conf")]
    with _running(command, [f"https://127.0.0.1:{port}"], dict(os.environ)) as server:
        time.sleep(1)
        yield server


@contextmanager
def _running(command: Sequence[str], urls: list[str], environ: dict[str, str]) -> Iterator[servers.Process]:
    quiet, root = subprocess.DEVNULL, Path(__file__).resolve().parents[1]
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environ, cwd=root, start_new_session=True)
    try:
        yield servers.Process(process, urls)
    finally:
        servers.end_group(process)
