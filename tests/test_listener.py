"""A port under pressure."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import struct
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from tornado.web import Application, RequestHandler

from spectrogram_predictor import listener
from spectrogram_predictor.certificates import ServerCertificate
from spectrogram_predictor.config import ServerSettings
from tests.live import Live, wait_until


def test_clients_wait_while_there_are_too_many(make_live: Callable[..., Live]) -> None:
    """Out of file descriptors, the port rests instead of spinning, and serves everybody in the end."""
    server = make_live()
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (40, 40))
    address = ("127.0.0.1", httpx.URL(server.url).port or 0)
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(address))
        wait_until(lambda: "accepts no connections for now" in server.log, 10)
        before = server.log.count("\n")
        time.sleep(2)
        assert server.log.count("\n") - before < 10
    assert wait_until(lambda: answers(server), 20)
    assert "Traceback" not in server.log


def test_a_port_has_a_limit_of_its_own(make_live: Callable[..., Live]) -> None:
    """It leaves descriptors for files, workers and the other port."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (90, hard))
    try:
        server = make_live()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    address = ("127.0.0.1", httpx.URL(server.url).port or 0)
    with contextlib.ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(socket.create_connection(address))
        wait_until(lambda: "30 connections are open" in server.log, 10)
        assert server.http.get(f"{server.upload_url}/test").status_code == 200
    assert wait_until(lambda: answers(server), 20)


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(live: Live) -> None:
    """Many clients send both in one packet."""
    context = ssl._create_unverified_context()
    host, port = httpx.URL(live.url).host, httpx.URL(live.url).port or 0
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing)
    with socket.create_connection((host, port), timeout=30) as connection:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        tls.write(b"GET /test HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        connection.sendall(outgoing.read())
        while data := connection.recv(65536):
            incoming.write(data)
    assert b'{"msg":"server up"}' in tls.read(65536)


@pytest.mark.gen_test(timeout=60)
async def test_who_does_not_read_an_answer_is_cut(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in memory meanwhile; whoever reads slowly gets all of it."""

    class Large(RequestHandler):
        def get(self) -> None:
            self.finish(bytes(2**23))

    monkeypatch.setattr(listener, "UNREAD_TIMEOUT_S", 1.0)
    port = listener.Listener(
        Application([("/", Large)]), ServerCertificate(certs), ServerSettings(host="127.0.0.1"), 0
    )
    port.start()

    def connect() -> ssl.SSLSocket:
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        plain.connect(("127.0.0.1", port.port))
        client = ssl._create_unverified_context().wrap_socket(plain)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client

    def read_slowly(client: ssl.SSLSocket) -> int:
        received = 0
        while data := client.recv(2**16):
            received += len(data)
            time.sleep(0.02)
        return received

    with await asyncio.to_thread(connect) as reading, await asyncio.to_thread(connect):
        received = asyncio.create_task(asyncio.to_thread(read_slowly, reading))
        await asyncio.to_thread(wait_until, lambda: len(port._streams) == 2)
        assert await received > 2**23
        await asyncio.to_thread(wait_until, lambda: not port._streams, 30)
    port.stop()


@pytest.mark.parametrize("size", [66_000, 90_000, 400_000])
def test_a_head_that_is_too_long_ends_the_connection(live: Live, size: int) -> None:
    """At once, however it arrives."""
    with live.connect() as connection:
        connection.sendall(b"GET /test HTTP/1.1\r\nX: " + b"x" * size)
        connection.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b""


def test_a_client_that_went_before_it_was_accepted_costs_nothing(live: Live) -> None:
    """Not even for the time that a handshake may take."""
    address = ("127.0.0.1", httpx.URL(live.url).port or 0)
    folder = f"/proc/{live.process.pid}/fd"
    before = len(os.listdir(folder))
    for _ in range(50):
        connection = socket.create_connection(address)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    wait_until(lambda: len(os.listdir(folder)) <= before + 2, 10)


def answers(server: Live) -> bool:
    """Tell whether a new client gets through."""
    try:
        return server.http.get(f"{server.url}/test", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
