"""Send one request again and again: ``python -m benchmarks.load URL BODY COUNT CONCURRENCY [NAME:VALUE ...]``.

BODY is a file; what follows COUNT and CONCURRENCY are headers. Connections are kept. Prints JSON: answers per
second, seconds to the answer (median and 99th percentile), this process's CPU seconds, and how many answers had
which status.
"""

import collections
import http.client
import json
import ssl
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Load:
    """What came of it; times in seconds."""

    per_s: float
    p50_s: float
    p99_s: float
    cpu_s: float
    statuses: Mapping[str, int]


def run(url: str, body: Path, count: int, concurrency: int, headers: Mapping[str, str] | None = None) -> Load:
    """Send it from a process of its own; every answer must be 200."""
    given = [f"{name}:{value}" for name, value in (headers or {}).items()]
    command = [sys.executable, "-m", "benchmarks.load", url, body, str(count), str(concurrency), *given]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=root, check=True)
    load = Load(**json.loads(done.stdout))
    assert set(load.statuses) == {"200"}, load.statuses
    return load


def main(url: str, body: str, count: str, concurrency: str, *headers: str) -> None:
    """Send it, and print what came of it."""
    content = Path(body).read_bytes()
    pairs = dict(header.split(":", 1) for header in headers)
    turns = iter(range(int(count)))
    taken: list[float] = []
    statuses: collections.Counter[str] = collections.Counter()

    def send() -> None:
        connection = _connect(url)
        for _ in turns:
            began = time.perf_counter()
            connection.request("POST", urlsplit(url).path, content, pairs)
            answer = connection.getresponse()
            answer.read()
            taken.append(time.perf_counter() - began)
            statuses[str(answer.status)] += 1

    threads = [threading.Thread(target=send) for _ in range(int(concurrency))]
    wall, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    percentile = statistics.quantiles(taken, n=100)
    load = {"per_s": len(taken) / wall, "p50_s": percentile[49], "p99_s": percentile[98], "cpu_s": cpu}
    print(json.dumps({**load, "statuses": statuses}))


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S)
    context: Any = ssl._create_unverified_context()
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_TIMEOUT_S, context=context)


if __name__ == "__main__":
    main(*sys.argv[1:])
