"""Messages between server and worker: through a socket and an inbox."""

import mmap
import os
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from spectrogram_predictor.channel import INBOX_BYTES, Channel, Inbox


class Pair:
    """The two ends of a channel, as the server and its worker have them."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        inbox = Inbox()
        self.descriptor = os.dup(inbox.descriptor)
        self.server = Channel(ours, inbox)
        self.worker = Channel(theirs, Inbox(inbox.descriptor))

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
    ],
    ids=["alone", "beside", "empty", "full", "the last does not fit", "the first does not fit"],
)
def test_pieces_arrive_as_they_were_sent(pair: Pair, pieces: list[bytes]) -> None:
    """Whether they fit into the inbox or not, again and again."""
    for _ in range(2):
        sending = threading.Thread(target=pair.server.send, args=(pieces,))
        sending.start()
        assert pair.worker.receive() == pieces
        sending.join()


def test_what_was_received_stays(pair: Pair) -> None:
    """The next song in the inbox is not the last one's."""
    pair.server.send([b"call", b"first"])
    first = pair.worker.receive()
    pair.server.send([b"call", b"other"])
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


def test_answers_are_bounded_and_timed(pair: Pair) -> None:
    """A worker is not trusted to be brief, nor to answer at all."""
    with pytest.raises(TimeoutError):
        pair.server.receive(100, time.monotonic() + 0.05)
    pair.worker.send([b"x" * 101])
    with pytest.raises(ValueError, match="101 bytes"):
        pair.server.receive(100)


def test_an_answer_in_small_pieces_takes_no_more_memory(pair: Pair) -> None:
    """A worker may send byte by byte."""
    size = 2**19
    tracemalloc.start()
    try:
        sending = threading.Thread(target=drip, args=(pair.worker._stream, size))
        sending.start()
        (received,) = pair.server.receive(size, time.monotonic() + 60)
        sending.join()
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
