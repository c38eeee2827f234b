"""The load generator, in a process of its own: ``python -m benchmarks.load upload|predict ...`` prints seconds.

The same for every server that is measured. What it sends is ready before the clock starts.
"""

import itertools
import json
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

_BOUNDARY = "a-boundary-that-is-not-in-the-model"
_BLOCK_BYTES = 2**20
_UPLOADED = {"message": "file uploaded!", "uploaded": True}


def upload(url: str, cacert: str, size: int) -> float:
    """Send one file as multipart/form-data in blocks of 1 MiB; return how long it took until the answer [s].

    Parameters
    ----------
    url : str
        The upload port.
    cacert : str
        The server's certificate.
    size : int > 0
        Bytes of the file.
    """
    disposition = 'Content-Disposition: form-data; name="model"; filename="model"'
    head = f"--{_BOUNDARY}\r\n{disposition}\r\nContent-Type: application/octet\r\n\r\n".encode()
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    block = os.urandom(_BLOCK_BYTES)
    connection = _connect(url, cacert)
    began = time.perf_counter()
    connection.putrequest("POST", "/nodemodeluploads")
    connection.putheader("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}")
    connection.putheader("Content-Length", str(len(head) + size + len(tail)))
    connection.endheaders(head)
    for start in range(0, size, _BLOCK_BYTES):
        connection.send(block[: size - start])
    connection.send(tail)
    answer = connection.getresponse().read()
    took_s = time.perf_counter() - began
    assert json.loads(answer) == _UPLOADED, answer
    return took_s


def predict(url: str, cacert: str, body: bytes, concurrency: int, count: int) -> float:
    """Send one signed question over and over; return how long all answers took [s].

    Parameters
    ----------
    url : str
        The API port.
    cacert : str
        The server's certificate.
    body : bytes
        The signed question.
    concurrency : int > 0
        Connections; each is kept alive and asks again when it has its answer.
    count : int > 0
        Questions over all connections.
    """
    turns = itertools.count()
    gate = threading.Barrier(concurrency + 1)

    def ask() -> None:
        connection = _connect(url, cacert)
        gate.wait()
        while next(turns) < count:
            connection.request("POST", "/prediction", body=body)
            response = connection.getresponse()
            answer = response.read()
            assert response.status == 200, answer

    with ThreadPoolExecutor(concurrency) as threads:
        tasks = [threads.submit(ask) for _ in range(concurrency)]
        gate.wait()
        began = time.perf_counter()
        for task in tasks:
            task.result()
        return time.perf_counter() - began


def _connect(url: str, cacert: str) -> HTTPSConnection:
    address = urlsplit(url)
    assert address.hostname
    context = ssl.create_default_context(cafile=cacert)
    connection = HTTPSConnection(address.hostname, address.port, context=context, timeout=300)
    connection.connect()
    return connection


def main(kind: str, url: str, cacert: str, *rest: str) -> None:
    """Measure once, and print the seconds."""
    measures: dict[str, Callable[[], float]] = {
        "upload": lambda: upload(url, cacert, int(rest[0])),
        "predict": lambda: predict(url, cacert, Path(rest[0]).read_bytes(), int(rest[1]), int(rest[2])),
    }
    print(measures[kind]())


if __name__ == "__main__":
    main(*sys.argv[1:])
