"""TLS connections, between a real client and a stream of ours."""

import asyncio
import contextlib
import os
import socket
import ssl
import time
import types
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tornado.iostream import StreamClosedError

from spectrogram_predictor import tls
from spectrogram_predictor.certificates import ServerCertificate
from spectrogram_predictor.tls import CHUNK_BYTES, CIPHERTEXT_BYTES, TlsSocket, TlsStream


@contextlib.asynccontextmanager
async def pair(certs: Path) -> AsyncIterator[tuple[TlsStream, ssl.SSLSocket]]:
    """Connect a client in a thread; yield both ends."""
    trusting = ssl.create_default_context(cafile=certs / "server.crt")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def connect() -> ssl.SSLSocket:
            connection = socket.create_connection(listening.getsockname(), timeout=30)
            return trusting.wrap_socket(connection, server_hostname="127.0.0.1")

        connecting = asyncio.create_task(asyncio.to_thread(connect))
        accepted, _ = await asyncio.to_thread(listening.accept)
        stream = TlsStream(TlsSocket(accepted, ServerCertificate(certs).context), lambda _: None)
        await stream.wait_for_handshake()
        with await connecting as client:
            yield stream, client
        stream.close()


@pytest.mark.gen_test
async def test_everything_arrives_in_order(certs: Path) -> None:
    """Several times what one system call returns, asked for in pieces, and nothing more than was asked for."""
    sent = os.urandom(5 * CIPHERTEXT_BYTES + 12345)

    async with pair(certs) as (stream, client):
        sending = asyncio.create_task(asyncio.to_thread(client.sendall, sent + b"next"))
        received = b""
        while len(received) < len(sent):
            piece = await stream.read_bytes(min(CHUNK_BYTES, len(sent) - len(received)), partial=True)
            assert piece
            received += piece
        assert received == sent
        assert await stream.read_bytes(4) == b"next"
        await sending


@pytest.mark.gen_test
async def test_a_piece_does_not_change_when_the_next_is_read(certs: Path) -> None:
    """The buffer is used again; what it held is not."""
    async with pair(certs) as (stream, client):
        pieces = []
        for letter in b"abc":
            await asyncio.to_thread(client.sendall, bytes([letter]) * 1000)
            pieces.append(await stream.read_bytes(1000, partial=True))
        assert [set(piece) for piece in pieces] == [{97}, {98}, {99}]


@pytest.mark.gen_test
async def test_what_arrives_evenly_is_handed_on_together(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packets of a large body, as long as there are more; what is not large is not waited for."""
    monkeypatch.setattr(tls, "_LINGER_S", 1.0)

    def drip(client: ssl.SSLSocket) -> None:
        for _ in range(20):
            client.sendall(b"x" * 1000)
            time.sleep(0.005)

    async with pair(certs) as (stream, client):
        dripping = asyncio.create_task(asyncio.to_thread(drip, client))
        assert await stream.read_bytes(CHUNK_BYTES, partial=True) == b"x" * 20_000
        await dripping
        await asyncio.to_thread(client.sendall, b"y" * 1000)
        began = asyncio.get_running_loop().time()
        assert await stream.read_bytes(CHUNK_BYTES - 1, partial=True) == b"y" * 1000
        assert asyncio.get_running_loop().time() - began < 0.9


@pytest.mark.gen_test
async def test_the_event_loop_sleeps_while_more_arrives(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there, and not yet wanted, does not wake it again and again."""
    monkeypatch.setattr(tls, "_LINGER_S", 0.5)
    events: list[TlsStream] = []
    handle = TlsStream._handle_read

    def counted(stream: TlsStream) -> None:
        events.append(stream)
        handle(stream)

    monkeypatch.setattr(TlsStream, "_handle_read", counted)
    async with pair(certs) as (stream, client):
        gone = asyncio.Event()
        stream.set_close_callback(gone.set)
        reading = asyncio.ensure_future(stream.read_bytes(CHUNK_BYTES, partial=True))
        for _ in range(2):
            await asyncio.to_thread(client.sendall, b"x" * 20_000)
            await asyncio.sleep(0.1)
        assert set(await reading) == set(b"x")
        assert len(events) < 20
        # And is told when the client goes, although nobody reads.
        await asyncio.to_thread(client.close)
        await asyncio.wait_for(gone.wait(), 20)


@pytest.mark.gen_test
async def test_a_slow_reader_gets_it_all(certs: Path) -> None:
    """More than the socket takes at once is sent as there is room, once."""
    answer = os.urandom(20 * 2**20)

    def read(client: ssl.SSLSocket) -> bytes:
        received = bytearray()
        while len(received) < len(answer):
            received += client.recv(2**16)
        return bytes(received)

    async with pair(certs) as (stream, client):
        writing = asyncio.ensure_future(stream.write(answer[:100]))
        more = asyncio.ensure_future(stream.write(answer[100:]))
        await asyncio.sleep(0.2)
        assert not more.done()
        assert await asyncio.to_thread(read, client) == answer
        await asyncio.gather(writing, more)


@pytest.mark.gen_test
@pytest.mark.parametrize("politely", [True, False])
async def test_the_end_is_seen_after_what_came_before(certs: Path, *, politely: bool) -> None:
    """Whether the client says goodbye or just goes."""
    async with pair(certs) as (stream, client):
        await asyncio.to_thread(client.sendall, b"last words")
        if politely:
            with contextlib.suppress(OSError):
                client.settimeout(0.1)
                await asyncio.to_thread(client.unwrap)
        client.close()
        assert await stream.read_bytes(10) == b"last words"
        with pytest.raises(StreamClosedError):
            await stream.read_bytes(1, partial=True)


@pytest.mark.gen_test
async def test_what_is_no_tls_ends_the_handshake(certs: Path) -> None:
    """A client that speaks plain HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        stream = TlsStream(TlsSocket(accepted, ServerCertificate(certs).context), lambda _: None)
        with pytest.raises(ConnectionAbortedError):
            await stream.wait_for_handshake()
        client.close()


@pytest.mark.gen_test
async def test_what_is_read_in_small_pieces_is_data_too(certs: Path) -> None:
    """A client is not cut for sending none, however the pieces fit what has arrived."""
    async with pair(certs) as (stream, client):
        # Only this test reads.
        stream.io_loop.remove_handler(stream.socket)
        for _ in range(100):
            await asyncio.to_thread(client.sendall, bytes(2**16))
            received = 0
            while received < 2**16:
                try:
                    received += stream.socket.recv_into(bytearray(2**12))
                except ssl.SSLWantReadError:
                    await asyncio.sleep(0)
        assert not stream.closed()


@pytest.mark.gen_test
async def test_a_client_that_sends_no_data_is_cut(certs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changes of the key, for instance, without end: it costs a mebibyte, not the others' turn."""

    def no_data(*_: object) -> int:
        raise ssl.SSLWantReadError

    ours, theirs = socket.socketpair()
    connection = TlsSocket(ours, ServerCertificate(certs).context)
    monkeypatch.setattr(connection, "_tls", types.SimpleNamespace(read=no_data))

    async def read_for_ever() -> None:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                connection.recv_into(bytearray(2**16))
            await asyncio.sleep(0)

    sending = asyncio.create_task(asyncio.to_thread(theirs.sendall, bytes(2**20 + 2**16)))
    with pytest.raises(ConnectionAbortedError):
        await asyncio.wait_for(read_for_ever(), 30)
    connection.close()
    with contextlib.suppress(ConnectionError):
        await sending
    theirs.close()
