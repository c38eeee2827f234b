"""Send one request again and again: ``python -m benchmarks.load URL BODY COUNT CONCURRENCY PER_S [HEADER ...]``.

BODY is a file, a HEADER is NAME:VALUE. Connections are kept. PER_S 0 is as fast as there are answers; otherwise
requests are due at that rate, and an answer's time counts from when its request was due. With SIGNING_TOKEN in the
environment, each request has a bearer token of its own, made before.

Prints JSON: the seconds that it took, this process's CPU seconds, and of each status how often it came and how
long its answers took.
"""

import collections
import http.client
import json
import os
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Answers:
    """Those of one status; times in seconds."""

    count: int
    p50_s: float
    p99_s: float


@dataclass(frozen=True)
class Load:
    """What came of it."""

    wall_s: float
    cpu_s: float
    answers: Mapping[int, Answers]

    @property
    def good(self) -> Answers:
        """The answers that were none of refusal."""
        return self.answers[200]

    @property
    def per_s(self) -> float:
        """How many of those came in a second."""
        return self.good.count / self.wall_s


class Begun:
    """A load that is being sent; call it for what came of it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def __call__(self) -> Load:
        """Wait for the end; every request must have been answered somehow."""
        said, _ = self._process.communicate()
        assert self._process.returncode == 0
        told = json.loads(said)
        answers = {int(status): Answers(**each) for status, each in told.pop("answers").items()}
        return Load(**told, answers=answers)


@dataclass(frozen=True)
class Requests:
    """What is sent.

    Parameters
    ----------
    url : str
        Where.
    body : Path
        What, each time.
    count, concurrency : int > 0
        How often, and on how many connections.
    headers : mapping
        With each.
    per_s : float >= 0
        How many are due a second; 0 for as many as are answered.
    secret : str
        What bearer tokens are made from, if there are to be any.
    """

    url: str
    body: Path
    count: int
    concurrency: int
    headers: Mapping[str, str] = field(default_factory=dict)
    per_s: float = 0
    secret: str = ""

    def send(self) -> Load:
        """Send them from a process of its own; every answer must be 200."""
        load = self.begin()()
        assert set(load.answers) == {200}, load.answers
        return load

    def begin(self) -> Begun:
        """Begin to send them."""
        numbers = map(str, (self.body, self.count, self.concurrency, self.per_s))
        given = [f"{name}:{value}" for name, value in self.headers.items()]
        command = [sys.executable, "-m", "benchmarks.load", self.url, *numbers, *given]
        environ = {**os.environ, "SIGNING_TOKEN": self.secret}
        root = Path(__file__).parents[1]
        return Begun(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env=environ))


def main(url: str, body: str, count: str, concurrency: str, per_s: str, *headers: str) -> None:
    """Send it, and print what came of it."""
    content, path = Path(body).read_bytes(), urlsplit(url).path
    turns = iter(list(_turns(int(count), path, dict(header.split(":", 1) for header in headers))))
    taken: dict[int, list[float]] = collections.defaultdict(list)
    wall, cpu = time.perf_counter(), time.process_time()

    def send() -> None:
        connection = _connect(url)
        for number, pairs in turns:
            due = wall + number / float(per_s) if float(per_s) else time.perf_counter()
            time.sleep(max(0.0, due - time.perf_counter()))
            connection.request("POST", path, content, pairs)
            answer = connection.getresponse()
            answer.read()
            taken[answer.status].append(time.perf_counter() - due)

    with ThreadPoolExecutor(int(concurrency)) as threads:
        sending = [threads.submit(send) for _ in range(int(concurrency))]
    for each in sending:
        # A connection that broke is no answer, and what was not asked costs no server anything.
        each.result()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    answers = {status: _spread(seconds) for status, seconds in taken.items()}
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "answers": answers}))


def _spread(seconds: list[float]) -> dict[str, float]:
    percentile = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else 99 * seconds
    return {"count": len(seconds), "p50_s": percentile[49], "p99_s": percentile[98]}


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
