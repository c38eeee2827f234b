"""Messages between the server and a worker: over a socket, and what is large beside it in memory.

Songs go through a piece of memory that both processes map, made once a worker: written once and read once, where a
socket would copy them into the kernel and out of it, in pieces, with both processes waiting for each other.
"""

import asyncio
import fcntl
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Sequence
from typing import Any, cast

INBOX_BYTES = 8 * 2**20
"""What a song may take to go through memory; a larger one goes through the socket."""

_SOCKET_BYTES = 4 * 2**20
_AT_ONCE_BYTES = 2**16
_F_SEAL_FUTURE_WRITE = 0x10


class Inbox:
    """Memory that the server writes and one worker reads.

    Without a name, and gone with the two processes. Whoever has the descriptor can map it for reading only, and
    cannot change its size: the server would die of writing to what is not there.

    Parameters
    ----------
    descriptor : int, optional
        Of an inbox that another process has made; the descriptor is closed. Without it, a new one is made.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        if descriptor is None:
            self.descriptor = _anonymous_file()
            try:
                os.ftruncate(self.descriptor, INBOX_BYTES)
                self._memory = mmap.mmap(self.descriptor, INBOX_BYTES)
                _seal(self.descriptor)
            except BaseException:
                os.close(self.descriptor)
                raise
        else:
            self._memory = mmap.mmap(descriptor, INBOX_BYTES, access=mmap.ACCESS_READ)
            os.close(descriptor)
        self._view = memoryview(self._memory)

    def write(self, offset: int, piece: Any) -> None:
        """Put bytes there."""
        self._view[offset : offset + memoryview(piece).nbytes] = piece

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes from there."""
        return self._view[offset : offset + length].tobytes()

    def close(self) -> None:
        """Let go of it."""
        self._view.release()
        self._memory.close()


class _End:
    """One end of a stream socket and an inbox. A message is the number of its pieces, their lengths, then they.

    The first piece of a message, and what does not fit into the inbox, goes through the socket.

    Parameters
    ----------
    stream : socket.socket
        To the other process; closed with the channel.
    inbox : Inbox
        The worker's; messages of a worker are of one piece, and never go there.
    """

    def __init__(self, stream: socket.socket, inbox: Inbox) -> None:
        # The kernel gives less if it must: then the two wait for each other more often.
        for buffer in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            stream.setsockopt(socket.SOL_SOCKET, buffer, _SOCKET_BYTES)
        self._stream = stream
        self._inbox = inbox

    def close(self) -> None:
        """Let go of the socket and the inbox."""
        self._stream.close()
        self._inbox.close()

    def _put(self, pieces: Sequence[Any]) -> list[Any]:
        """Write into the inbox what goes there; return what is to go through the socket."""
        lengths = [memoryview(piece).nbytes for piece in pieces]
        through_socket: list[Any] = [struct.pack(f"!{1 + len(pieces)}Q", len(pieces), *lengths)]
        for piece, offset in zip(pieces, _offsets(lengths), strict=True):
            if offset is None:
                through_socket.append(piece)
            else:
                self._inbox.write(offset, piece)
        through_socket[:2] = [b"".join(through_socket[:2])]
        return through_socket


class ServerEnd(_End):
    """The server's end, on an event loop; calls take as long as they take, unless somebody cancels them."""

    def __init__(self, stream: socket.socket, inbox: Inbox) -> None:
        super().__init__(stream, inbox)
        stream.setblocking(False)

    async def send(self, pieces: Sequence[Any]) -> None:
        """Send a message."""
        loop = asyncio.get_running_loop()
        for data in self._put(pieces):
            await loop.sock_sendall(self._stream, memoryview(data))

    async def receive(self, max_bytes: int) -> bytes:
        """Return the one piece of a worker's next message.

        Raises
        ------
        EOFError, OSError
            The other process has gone.
        ValueError
            It sends more than `max_bytes`, or nonsense.
        """
        head = struct.Struct("!QQ")
        received = await self._read(_AT_ONCE_BYTES)
        while len(received) < head.size:
            received += await self._read(_AT_ONCE_BYTES)
        count, length = head.unpack_from(received)
        if count != 1:
            raise ValueError(f"a message of {count} pieces")
        if length > max_bytes:
            raise ValueError(f"a message of {length} bytes; the most is {max_bytes}")
        received = received[head.size :]
        if len(received) > length:
            raise ValueError("something after a message")
        return received if len(received) == length else await self._read_rest(received, length)

    async def _read(self, most: int) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self._stream, most)
        if not data:
            raise EOFError
        return data

    async def _read_rest(self, begin: bytes, length: int) -> bytes:
        data = bytearray(length)
        data[: len(begin)] = begin
        left = memoryview(data)[len(begin) :]
        while left:
            count = await asyncio.get_running_loop().sock_recv_into(self._stream, cast("bytearray", left))
            if not count:
                raise EOFError
            left = left[count:]
            # Whoever sends byte by byte does not keep others waiting.
            await asyncio.sleep(0)
        return bytes(data)


class WorkerEnd(_End):
    """A worker's end, which has nothing else to do than to wait."""

    def send(self, pieces: Sequence[Any]) -> None:
        """Send a message."""
        for data in self._put(pieces):
            self._stream.sendall(data)

    def receive(self) -> list[bytes]:
        """Return the next message.

        Raises
        ------
        EOFError, OSError
            The other process has gone.
        """
        (count,) = struct.unpack("!Q", self._read(8))
        lengths = struct.unpack(f"!{count}Q", self._read(8 * count))
        return [
            self._read(length) if offset is None else self._inbox.read(offset, length)
            for length, offset in zip(lengths, _offsets(lengths), strict=True)
        ]

    def _read(self, length: int) -> bytes:
        data = bytearray(length)
        left = memoryview(data)
        while left:
            count = self._stream.recv_into(left, 0, socket.MSG_WAITALL)
            if not count:
                raise EOFError
            left = left[count:]
        return bytes(data)


def _offsets(lengths: Sequence[int]) -> list[int | None]:
    """Return where in the inbox each piece of a message is, or None if it is in the socket: both sides know."""
    offsets: list[int | None] = []
    used = 0
    for number, length in enumerate(lengths):
        fits = number > 0 and used + length <= INBOX_BYTES
        offsets.append(used if fits else None)
        used += length if fits else 0
    return offsets


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("inbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _seal(descriptor: int) -> None:
    if hasattr(os, "memfd_create"):
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | _F_SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
