"""Clients that are slow, greedy or broken: told so early, and no burden on the others."""

import contextlib
import hashlib
import os
import socket
import ssl
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import itsdangerous
import pytest

from tests.conftest import TOKEN
from tests.live import Live, wait_until
from tests.test_bad_input import (
    MULTIPART,
    UPLOADED,
    UPLOADS,
    form,
    head,
    noise,
    part,
    post_form,
    read_answer,
    read_to_end,
    refused,
)

MiB = 2**20
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def connect(server: Live, source: str = "127.0.0.1", url: str | None = None) -> ssl.SSLSocket:
    """Open a TLS connection to the upload port from one of this machine's addresses."""
    return context().wrap_socket(plain(server, source, url), server_hostname="127.0.0.1")


def plain(server: Live, source: str = "127.0.0.1", url: str | None = None) -> socket.socket:
    """Open a connection without TLS."""
    target = httpx.URL(url or server.upload_url)
    address = (target.host, target.port or 0)
    return socket.create_connection(address, timeout=30, source_address=(source, 0))


def context() -> ssl.SSLContext:
    """Trust everybody: the certificate is not what is tested here."""
    return ssl._create_unverified_context()


def upload_head(length: int, **headers: str | int) -> bytes:
    """Return the head of an upload."""
    return head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=length, **headers)


def register(server: Live, data: bytes) -> str:
    """Register what has these bytes."""
    digest = hashlib.sha256(data).hexdigest()
    assert server.post_signed("/registermodelhash", {"hash": digest}).status_code == 200
    return digest


# --- refusals --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["too_large", "queue_full", "insufficient_storage"])
def refusing(
    request: pytest.FixtureRequest, make_live: Callable[..., Live]
) -> Iterator[tuple[Live, int, int, str]]:
    """A server that refuses an upload of this size, with this status and code."""
    code: str = request.param
    size = 20 * MiB
    server = make_live(
        uploads__max_bytes=MiB if code == "too_large" else 2**30,
        uploads__max_concurrent_per_client=1,
        uploads__max_unregistered_bytes=10 * MiB if code == "insufficient_storage" else 2**30,
    )
    status = {"too_large": 413, "queue_full": 429, "insufficient_storage": 507}[code]
    with contextlib.ExitStack() as stack:
        if code == "queue_full":
            first = stack.enter_context(connect(server))
            first.sendall(upload_head(10_000) + part(b"x" * 1000))
            wait_until(lambda: server.files("incoming"))
        yield server, size, status, code


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue"])
def test_who_asks_first_is_refused_before_the_body(refusing: tuple[Live, int, int, str], expect: str) -> None:
    """The first line that comes is the answer, and no invitation to send."""
    server, size, status, code = refusing
    with connect(server) as connection:
        connection.sendall(upload_head(size, Expect=expect))
        refused(read_answer(connection), status, code)


def test_who_does_not_ask_can_read_the_refusal_at_once(refusing: tuple[Live, int, int, str]) -> None:
    """Before a byte of the body has been sent, and the server takes the rest of it all the same."""
    server, size, status, code = refusing
    with connect(server) as connection:
        connection.sendall(upload_head(size))
        refused(read_answer(connection), status, code)
        connection.sendall(b"x" * size)
        assert read_to_end(connection) == b""


def test_who_sends_everything_first_reads_the_refusal_then(refusing: tuple[Live, int, int, str]) -> None:
    """As simple clients do."""
    server, size, status, code = refusing
    with connect(server) as connection:
        connection.sendall(upload_head(size) + b"x" * size)
        refused(read_answer(connection), status, code)


@pytest.mark.parametrize("expect", ["100-continue", "100-Continue"])
def test_who_asks_first_is_let_in(live: Live, expect: str) -> None:
    """However the expectation is written."""
    body = form(part(b"asked"))
    with connect(live) as connection:
        connection.sendall(upload_head(len(body), Expect=expect))
        assert connection.recv(2**16) == b"HTTP/1.1 100 (Continue)\r\n\r\n"
        connection.sendall(body)
        assert read_answer(connection).content == UPLOADED
    assert live.http.get(f"{live.url}/hashmodels").status_code == 200


# --- what nobody registered ------------------------------------------------------------------------------------


def test_what_nobody_registered_is_bounded(make_live: Callable[..., Live]) -> None:
    """While it arrives and until it is swept; what is registered goes past it."""
    server = make_live(uploads__max_unregistered_bytes=3 * MiB)
    known = noise(4 * MiB, seed=2)
    digest = register(server, known)
    headers = {"X-Model-Digest": digest}
    assert server.upload(noise(MiB)).content == UPLOADED
    with connect(server) as under_way:
        body = form(part(noise(MiB + MiB // 2)))
        under_way.sendall(upload_head(len(body)) + body[:-1000])
        wait_until(lambda: (server.storage / "incoming").is_dir() and received(server) > MiB)
        refused(server.upload(noise(MiB)), 507, "insufficient_storage")
        refused(post_form(server, iter([form(part(noise(MiB)))])), 507, "insufficient_storage")
        refused(server.upload(known), 507, "insufficient_storage")
        response = server.http.post(server.upload_url + UPLOADS, files=[("model", known)], headers=headers)
        assert response.content == UPLOADED
        under_way.sendall(body[-1000:])
        assert read_answer(under_way).content == UPLOADED
    refused(server.upload(noise(MiB)), 507, "insufficient_storage")
    server.http.get(f"{server.url}/hashmodels")
    wait_until(lambda: server.files("temp") == [])
    assert server.upload(noise(2 * MiB)).content == UPLOADED
    assert "Traceback" not in server.log


def test_what_turns_out_to_be_registered_no_longer_counts(make_live: Callable[..., Live]) -> None:
    """Without a header that is known at the end only, and then it takes nobody's room."""
    server = make_live(uploads__max_unregistered_bytes=3 * MiB)
    known = noise(2 * MiB, seed=3)
    register(server, known)
    assert server.upload(known).content == UPLOADED
    assert server.upload(noise(2 * MiB)).content == UPLOADED
    refused(server.upload(noise(2 * MiB)), 507, "insufficient_storage")


def test_an_announced_digest_must_be_right(make_live: Callable[..., Live]) -> None:
    """Registered or not: nothing else comes in under it, nor a second file beside it."""
    server = make_live()
    known = noise(1000)
    digest = register(server, known)

    def send(header: str, *models: bytes) -> httpx.Response:
        files = [("model", model) for model in models]
        return server.http.post(server.upload_url + UPLOADS, files=files, headers={"X-Model-Digest": header})

    refused(send(digest, b"something else"), 409, "digest_mismatch")
    refused(send("0" * 64, known), 409, "digest_mismatch")
    refused(send("zero", known), 400, "bad_request")
    refused(send(digest, known, known), 400, "bad_request")
    assert server.files("temp") == server.files("incoming") == []
    assert send(digest.upper(), known).content == UPLOADED


def test_signed_uploads_count_until_they_are_verified(make_live: Callable[..., Live]) -> None:
    """The signature is at the end."""
    server = make_live(uploads__max_unregistered_bytes=MiB)
    signed = itsdangerous.Signer(TOKEN).sign(noise(2 * MiB))
    refused(post_form(server, form(part(signed)), url=server.url), 507, "insufficient_storage")


def received(server: Live) -> int:
    """Return how many bytes are in incoming/."""
    return sum((server.storage / name).stat().st_size for name in server.files("incoming"))


# --- one address -----------------------------------------------------------------------------------------------


def test_one_address_has_so_many_uploads(make_live: Callable[..., Live]) -> None:
    """Another one has its own."""
    server = make_live(uploads__max_concurrent_per_client=2)
    body = form(part(noise(10_000)))
    with contextlib.ExitStack() as stack:
        for number in (1, 2):
            connection = stack.enter_context(connect(server, "127.0.0.2"))
            connection.sendall(upload_head(len(body)) + body[:5000])
            wait_until(lambda count=number: len(server.files("incoming")) == count)
        third = stack.enter_context(connect(server, "127.0.0.2"))
        third.sendall(upload_head(len(body)) + body)
        refused(read_answer(third), 429, "queue_full")
        assert server.upload(noise(1000)).content == UPLOADED
    wait_until(lambda: server.files("incoming") == [])


def test_one_address_has_so_many_connections(make_live: Callable[..., Live]) -> None:
    """More are closed at once, and the log says so; when some have gone, there is room again."""
    server = make_live(server__max_connections_per_client=5)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(connect(server, "127.0.0.2"))
        extra = stack.enter_context(plain(server, "127.0.0.2"))
        extra.settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert extra.recv(1) == b""
        with connect(server, "127.0.0.3") as other:
            other.sendall(head("GET", "/test"))
            assert read_answer(other).status_code == 200
        wait_until(lambda: "turned away 1 connections of clients that had 5 already" in server.log, 20)

    def served() -> bool:
        try:
            with connect(server, "127.0.0.2") as again:
                again.sendall(head("GET", "/test"))
                return read_answer(again).status_code == 200
        except OSError:
            return False

    assert wait_until(served, 10)


# --- a crowd, and a slow link ----------------------------------------------------------------------------------

CROWD = 500
STALL_S = 10.0
SLOW_S = 90.0
LONGEST_S = 85.0
"""How long a connection may be open without a request, and some more."""


@pytest.mark.long
def test_a_crowd_is_no_burden_and_goes_and_a_slow_link_arrives(
    make_live: Callable[..., Live], say: Callable[[str], None]
) -> None:
    """500 connections that are idle or drip, while one client uploads for 90 s and another at full speed."""
    server = make_live(uploads__stall_timeout_s=STALL_S, uploads__max_concurrent=40)
    slow = noise(2 * MiB, seed=5)
    digest = register(server, slow)
    answers: list[bytes] = []
    sender = threading.Thread(target=lambda: answers.append(send_slowly(server, slow)))
    sender.start()
    alone = speed(server)
    with contextlib.ExitStack() as stack:
        crowd = Crowd(server, stack)
        cpu_s, began = cpu(server), time.monotonic()
        crowd.drip_for(5)
        share = (cpu(server) - cpu_s) / (time.monotonic() - began)
        dripping = threading.Thread(target=crowd.drip_for, args=(LONGEST_S,))
        dripping.start()
        beside = speed(server)
        dripping.join()
        assert crowd.left() == 0
    sender.join()
    assert answers == [UPLOADED]
    with contextlib.suppress(httpx.HTTPError):
        server.http.get(f"{server.url}/hashmodels")
    assert f"received {digest}" in server.log
    assert server.files("incoming") == []
    assert "Traceback" not in server.log
    say(f"a crowd of {CROWD}: {share:.0%} of a core; an upload beside it has {beside / alone:.0%} of its speed")
    # The server's own time, as the speed depends on what else the machine does: `make bench` compares that.
    assert share < 0.2


class Crowd:
    """Five kinds of clients that want nothing, from two addresses."""

    def __init__(self, server: Live, stack: contextlib.ExitStack) -> None:
        self._open: dict[socket.socket, Iterator[bytes]] = {}
        for number in range(CROWD):
            source = f"127.0.0.{2 + number % 2}"
            kind = number // 2 % 5
            connection = plain(server, source) if kind < 2 else connect(server, source)
            stack.enter_context(connection)
            connection.setblocking(False)
            self._open[connection] = drip(kind)

    def drip_for(self, seconds: float) -> None:
        """Let each send its next byte, once a second, until all have gone."""
        end = time.monotonic() + seconds
        while self._open and time.monotonic() < end:
            for connection, rest in list(self._open.items()):
                if not alive(connection, next(rest)):
                    del self._open[connection]
            time.sleep(1)

    def left(self) -> int:
        """Return how many the server has not ended."""
        return len(self._open)


def drip(kind: int) -> Iterator[bytes]:
    """Yield what a client sends in each second: of nothing, a handshake, nothing again, a head, a form."""
    whole = [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"",
        b"POST / HTTP/1.1\r\nX: " + b"x" * 500,
        upload_head(10_000) + b"x" * 500,
    ][kind]
    if kind == 4:
        begun = whole.index(b"\r\n\r\n") + 4
        yield whole[:begun]
        whole = whole[begun:]
    for at in range(len(whole)):
        yield whole[at : at + 1]
    while True:
        yield b""


def alive(connection: socket.socket, data: bytes) -> bool:
    """Send a little and see whether the server is still there."""
    try:
        if data:
            connection.sendall(data)
        while connection.recv(2**16):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False


def speed(server: Live) -> float:
    """Return what a healthy upload gets, in MiB/s: the median of five."""
    body = form(part(noise(MiB) * 64))
    found = []
    for _ in range(5):
        began = time.monotonic()
        with connect(server) as connection:
            connection.sendall(upload_head(len(body)))
            connection.sendall(body)
            assert read_answer(connection).content == UPLOADED
        found.append(64 / (time.monotonic() - began))
    server.http.get(f"{server.url}/hashmodels")
    return statistics.median(found)


def send_slowly(server: Live, data: bytes) -> bytes:
    """Upload over a link that takes 90 s for it; return the answer."""
    body = form(part(data))
    pieces = int(SLOW_S * 4)
    size = len(body) // pieces + 1
    began = time.monotonic()
    with connect(server, "127.0.0.9") as connection:
        connection.sendall(upload_head(len(body)))
        for number in range(pieces):
            connection.sendall(body[number * size : (number + 1) * size])
            time.sleep(max(0, began + number / 4 - time.monotonic()))
        connection.settimeout(60)
        return read_answer(connection).content


def cpu(server: Live) -> float:
    """Return the CPU seconds of the server process."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S
