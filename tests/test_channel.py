"""Messages between server and worker: through a socket and an inbox."""

import asyncio
import mmap
import os
import pickle
import socket
import struct
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from spectrogram_predictor.channel import INBOX_BYTES, Inbox, ServerEnd, WorkerEnd


class Pair:
    """The two ends of a channel, as the server and its worker have them."""

    def __init__(self) -> None:
        ours, self.stream = socket.socketpair()
        inbox = Inbox()
        self.descriptor = os.dup(inbox.descriptor)
        self.server = ServerEnd(ours, inbox)
        self.worker = WorkerEnd(self.stream, Inbox(inbox.descriptor))

    def close(self) -> None:
        self.server.close()
        self.worker.close()
        os.close(self.descriptor)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [b"call"],
        [b"call", b"song", b"row"],
        [b"", b""],
        [b"call", b"s" * INBOX_BYTES],
        [b"call", b"s" * (INBOX_BYTES - 1), b"two bytes too many"],
        [b"call", b"s" * (INBOX_BYTES + 1), b"row"],
        [b"call", pickle.PickleBuffer(b"s" * 4 * INBOX_BYTES)],
    ],
    ids=["alone", "beside", "empty", "full", "the last does not fit", "the first does not fit", "huge"],
)
@pytest.mark.gen_test
async def test_pieces_arrive_as_they_were_sent(pair: Pair, pieces: list[Any]) -> None:
    """Whether they fit into the inbox or not, again and again."""
    for _ in range(2):
        _, received = await asyncio.gather(pair.server.send(pieces), asyncio.to_thread(pair.worker.receive))
        assert received == list(map(bytes, pieces))


@pytest.mark.gen_test
async def test_what_was_received_stays(pair: Pair) -> None:
    """The next song in the inbox is not the last one's."""
    await pair.server.send([b"call", b"first"])
    first = pair.worker.receive()
    await pair.server.send([b"call", b"other"])
    assert pair.worker.receive() == [b"call", b"other"]
    assert first == [b"call", b"first"]


def test_a_worker_cannot_change_the_inbox(pair: Pair) -> None:
    """Neither its bytes nor its size: a server that writes to what is not there dies."""
    with pytest.raises(PermissionError):
        mmap.mmap(pair.descriptor, INBOX_BYTES)
    for size in (0, 2 * INBOX_BYTES):
        with pytest.raises(PermissionError):
            os.ftruncate(pair.descriptor, size)
    with pytest.raises(PermissionError):
        os.write(pair.descriptor, b"x")


@pytest.mark.parametrize("size", [0, 1, 2**16 - 16, 2**16, 3_000_000])
@pytest.mark.gen_test
async def test_answers_of_any_size_arrive(pair: Pair, size: int) -> None:
    """Again and again."""
    for answer in (b"a" * size, b"b" * size):
        received, _ = await asyncio.gather(
            pair.server.receive(size), asyncio.to_thread(pair.worker.send, [answer])
        )
        assert received == answer


@pytest.mark.gen_test
async def test_an_answer_is_not_waited_for_for_ever(pair: Pair) -> None:
    """Whoever stops waiting leaves nothing behind: the next answer is received."""
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pair.server.receive(100), 0.05)
    pair.worker.send([b"an answer"])
    assert await pair.server.receive(100) == b"an answer"


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (struct.pack("!QQ", 1, 101) + b"x" * 101, "101 bytes"),
        (struct.pack("!QQ", 1, 2**63), "bytes"),
        (struct.pack("!QQQ", 2, 1, 1) + b"xy", "2 pieces"),
        (struct.pack("!QQ", 1, 2) + b"abc", "after"),
    ],
    ids=["too large", "absurd", "two pieces", "more than one answer"],
)
@pytest.mark.gen_test
async def test_a_worker_is_not_trusted(pair: Pair, sent: bytes, why: str) -> None:
    """Neither to be brief, nor to keep to the form."""
    pair.stream.sendall(sent)
    with pytest.raises(ValueError, match=why):
        await pair.server.receive(100)


@pytest.mark.parametrize("sent", [b"", b"x", struct.pack("!QQ", 1, 100), struct.pack("!QQ", 1, 100) + b"half"])
@pytest.mark.gen_test
async def test_the_end_is_said(pair: Pair, sent: bytes) -> None:
    """Wherever the other process ends."""
    pair.stream.sendall(sent)
    pair.stream.shutdown(socket.SHUT_WR)
    with pytest.raises(EOFError):
        await pair.server.receive(100)


@pytest.mark.gen_test(timeout=120)
async def test_an_answer_in_small_pieces_takes_no_more_memory(pair: Pair) -> None:
    """A worker may send byte by byte."""
    size = 2**17
    tracemalloc.start()
    try:
        received, _ = await asyncio.gather(pair.server.receive(size), asyncio.to_thread(drip, pair.stream, size))
        assert received == b"xy" * (size // 2)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * size


def drip(stream: socket.socket, size: int) -> None:
    # So that no piece waits for the next one.
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    stream.sendall(struct.pack("!QQ", 1, size))
    for _ in range(size // 2):
        stream.sendall(b"xy")
