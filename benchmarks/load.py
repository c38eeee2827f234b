"""Send one request again and again: ``python -m benchmarks.load URL BODY COUNT CONCURRENCY PER_S [HEADER ...]``.

BODY is a file, a HEADER is NAME:VALUE. Connections are kept. PER_S 0 is as fast as there are answers; otherwise
requests are due at that rate, and an answer's time counts from when its request was due. With SIGNING_TOKEN in the
environment, each request has a bearer token of its own, made before.

Prints JSON: answers per second, seconds to the answer, this process's CPU seconds, and how often there was which
status.
"""

import collections
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

_TIMEOUT_S = 120.0
_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True)
class Load:
    """What came of it; times in seconds."""

    per_s: float
    p50_s: float
    p99_s: float
    cpu_s: float
    statuses: Mapping[str, int]


def run(
    url: str,
    body: Path,
    count: int,
    concurrency: int,
    headers: Mapping[str, str] = _NO_HEADERS,
    *,
    per_s: float = 0,
    secret: str = "",
) -> Load:
    """Send it from a process of its own; every answer must be 200."""
    load = begin(url, body, count, concurrency, headers, per_s=per_s, secret=secret)()
    assert set(load.statuses) == {"200"}, load.statuses
    return load


class Begun:
    """A load that is being sent; call it for what came of it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def __call__(self) -> Load:
        """Wait for the end."""
        said, _ = self._process.communicate()
        assert self._process.returncode == 0
        return Load(**json.loads(said))


def begin(
    url: str,
    body: Path,
    count: int,
    concurrency: int,
    headers: Mapping[str, str] = _NO_HEADERS,
    *,
    per_s: float = 0,
    secret: str = "",
) -> Begun:
    """Begin to send it."""
    given = [f"{name}:{value}" for name, value in headers.items()]
    command = [sys.executable, "-m", "benchmarks.load", url, *map(str, (body, count, concurrency, per_s)), *given]
    environ = {**os.environ, "SIGNING_TOKEN": secret}
    return Begun(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1], env=environ))


def main(url: str, body: str, count: str, concurrency: str, per_s: str, *headers: str) -> None:
    """Send it, and print what came of it."""
    content, path = Path(body).read_bytes(), urlsplit(url).path
    turns = iter(list(_turns(int(count), path, dict(header.split(":", 1) for header in headers))))
    taken: list[float] = []
    statuses: collections.Counter[str] = collections.Counter()
    wall, cpu = time.perf_counter(), time.process_time()

    def send() -> None:
        connection = _connect(url)
        for number, pairs in turns:
            due = wall + number / float(per_s) if float(per_s) else time.perf_counter()
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.request("POST", path, content, pairs)
            answer = connection.getresponse()
            answer.read()
            taken.append(time.perf_counter() - due)
            statuses[str(answer.status)] += 1

    threads = [threading.Thread(target=send) for _ in range(int(concurrency))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    percentile = statistics.quantiles(taken, n=100)
    load = {"per_s": len(taken) / wall, "p50_s": percentile[49], "p99_s": percentile[98], "cpu_s": cpu}
    print(json.dumps({**load, "statuses": statuses}))


def _turns(count: int, path: str, headers: dict[str, str]) -> Iterator[tuple[int, dict[str, str]]]:
    secret = os.environ.get("SIGNING_TOKEN")
    if not secret:
        yield from ((number, headers) for number in range(count))
        return
    from spectrogram_predictor.signing import Keys
    from spectrogram_predictor.tokens import Tokens

    tokens = Tokens(Keys(secret), None)  # type: ignore[arg-type]  # what is made is not stored
    for number in range(count):
        yield number, {**headers, "Authorization": f"Bearer {tokens.make('POST', path)}"}


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    context = ssl._create_unverified_context()
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S, context=context)


if __name__ == "__main__":
    main(*sys.argv[1:])
