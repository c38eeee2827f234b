"""TLS connections that read as much as there is.

``ssl.SSLSocket`` makes two system calls for every record of 16 KiB, and Tornado's streams copy what was read twice
and take new memory for each copy: that costs a large upload more than its decryption. Here the kernel hands over
`CIPHERTEXT_BYTES` at a time, and a body's chunks are copied once, out of a buffer that is used again.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from tornado.iostream import SSLIOStream

CHUNK_BYTES = 2**20
"""The largest piece of a body that a handler is given."""

CIPHERTEXT_BYTES = 2**18
"""How much is received at a time, and decrypted before others get their turn."""

_PLAINTEXT_BYTES = 2**16
_MOST_UNSENT = 2**18
_MOST_FRUITLESS = 2**20
_SPARE_BUFFERS = 4
_LINGER_S = 0.002

_ciphertext = memoryview(bytearray(CIPHERTEXT_BYTES))
"""What a system call returned; only between two lines of `TlsSocket._receive`, so one does for all."""

_spare: list[bytearray] = []

# The GNU C library takes and gives back memory for each chunk, page by page, until something larger has been freed
# once (mallopt(3), M_MMAP_THRESHOLD): that would cost an upload a tenth of its time in the kernel.
_large = bytes(16 * CHUNK_BYTES)
del _large


class TlsSocket(socket.socket):
    """The server's side of a TLS connection, non-blocking.

    Has what `tornado.iostream.SSLIOStream` uses of ``ssl.SSLSocket``, with the same errors.

    Parameters
    ----------
    connection : socket.socket
        As accepted; it is taken over.
    context : ssl.SSLContext
        With the certificate.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(fileno=connection.detach())
        self.setblocking(False)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = memoryview(b"")
        self._encrypted = 0
        self._fruitless = 0

    def do_handshake(self) -> None:
        """Go on with the handshake; raise SSLWantReadError or SSLWantWriteError if it is not over."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._receive()
            except ssl.SSLError as error:
                # What is wrong, for the client to read.
                self._flush()
                # Tornado would warn of it, at every knock of a port scanner.
                raise ConnectionAbortedError(errno.ECONNABORTED, str(error)) from error
            else:
                return self._flush()

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:  # noqa: ARG002  # not used by the stream
        """Fill the buffer with all that has arrived; 0 at the end, SSLWantReadError if there is nothing yet."""
        view = memoryview(buffer)
        size, filled, before = len(view), 0, 0
        read = self._tls.read
        while filled < size:
            try:
                # One record at a time, of 16 KiB at most: this line is run 65,536 times for a gibibyte.
                while filled < size and (count := read(size - filled, view[filled:])):
                    filled += int(count)
            except ssl.SSLWantReadError:
                if filled > before:
                    before, self._fruitless = filled, 0
                try:
                    self._answer_tls()
                    self._receive()
                except OSError:
                    # Also if the connection broke: what arrived before still counts.
                    if filled:
                        break
                    raise
            except ssl.SSLEOFError:
                # The client went without saying so; HTTP says itself how long a body is.
                break
            else:
                break
        if filled > before:
            self._fruitless = 0
        return filled

    @property
    def holds_more(self) -> bool:
        """Whether something has been received that nobody has read: the kernel does not tell of it again."""
        return bool(self._incoming.pending or self._tls.pending())

    def has_more(self) -> bool:
        """Tell whether there is something to read, here or in the kernel."""
        if self.holds_more:
            return True
        try:
            return bool(super().recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def send(self, data: Any, flags: int = 0) -> int:  # noqa: ARG002
        """Encrypt and send; raise SSLWantWriteError if not all went, to be called again with the same data."""
        if not self._encrypted:
            self._encrypted = self._tls.write(data[:_PLAINTEXT_BYTES])
        self._flush()
        sent, self._encrypted = self._encrypted, 0
        return sent

    def _answer_tls(self) -> None:
        """Send what TLS itself has to say, such as that it has changed its key, as far as the client takes it."""
        try:
            self._flush()
        except ssl.SSLWantWriteError:
            if len(self._unsent) + self._outgoing.pending > _MOST_UNSENT:
                raise ConnectionAbortedError(errno.ECONNABORTED, "the client does not read") from None

    def _receive(self) -> None:
        if self._fruitless > _MOST_FRUITLESS:
            # Records without data, one after the other: a client could keep the server busy with them for ever.
            raise ConnectionAbortedError(errno.ECONNABORTED, "the client sends no data")
        try:
            count = super().recv_into(_ciphertext)
        except BlockingIOError as error:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "nothing has arrived") from error
        self._fruitless += count
        if count:
            self._incoming.write(_ciphertext[:count])
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        while self._unsent or self._outgoing.pending:
            if not self._unsent:
                self._unsent = memoryview(self._outgoing.read())
            try:
                count = super().send(self._unsent)
            except BlockingIOError as error:
                raise ssl.SSLWantWriteError(ssl.SSL_ERROR_WANT_WRITE, "the socket is full") from error
            self._unsent = self._unsent[count:]


class TlsStream(SSLIOStream):
    """Tornado's stream over a `TlsSocket`.

    Parameters
    ----------
    connection : TlsSocket
        The connection.
    on_close : callable
        Called once when it is closed.
    **kwargs
        See `tornado.iostream.BaseIOStream`.
    """

    socket: TlsSocket  # type: ignore[assignment]  # in place of ssl.SSLSocket

    def __init__(self, connection: TlsSocket, on_close: "Callable[[TlsStream], None]", **kwargs: Any) -> None:
        super().__init__(connection, **kwargs)
        self._on_close = on_close
        self._waking = False
        self._lingering = False

    def close_fd(self) -> None:
        """Close the connection."""
        super().close_fd()
        self._on_close(self)

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read; if that is not all that is here, come back for the rest, of which the kernel will not tell."""
        count = super().read_from_fd(buf)
        if count == len(buf) and not self._waking and self.socket.holds_more:
            self._waking = True
            self.io_loop.add_callback(self._wake)
        return count

    def _wake(self) -> None:
        self._waking = False
        if self.reading() and not self.closed():
            self._handle_events(self.fileno(), self.io_loop.READ)

    async def read_bytes(self, num_bytes: int, partial: bool = False) -> bytes:
        """Read; see `tornado.iostream.BaseIOStream.read_bytes`."""
        if not partial:
            return await super().read_bytes(num_bytes)
        buffer = _spare.pop() if _spare else bytearray(CHUNK_BYTES)
        with memoryview(buffer) as whole, whole[:num_bytes] as view:
            # The views end here: a stream that was closed stays for the garbage collector, its buffer does not.
            count = await self._fill(view)
            data = bytes(view[:count])
        if len(_spare) < _SPARE_BUFFERS:
            _spare.append(buffer)
        return data

    async def _fill(self, view: memoryview) -> int:
        """Read what has arrived, a little at a time; wait only if it is nothing, or for more of a large body."""
        with view[:CIPHERTEXT_BYTES] as part:
            filled = await self.read_into(cast("bytearray", part), partial=True)
        while filled < len(view) and not self.closed():
            if self.socket.has_more():
                # A large upload's chunks would keep a small request waiting at each of its steps.
                await asyncio.sleep(0)
            elif len(view) == CHUNK_BYTES:
                await self._linger()
            else:
                break
            with view[filled : filled + CIPHERTEXT_BYTES] as part:
                count = self._read_at_once(part)
            if not count:
                break
            filled += count
        return filled

    async def _linger(self) -> None:
        """Let more of a large body arrive: packet by packet, each would wake everybody who takes it."""
        self._lingering = True
        # What arrives meanwhile is no event: there would be one after the other, all the time.
        self._listen_for(self.io_loop.ERROR)
        try:
            await asyncio.sleep(_LINGER_S)
        finally:
            self._lingering = False
            if not self.closed():
                self._listen_for(self.io_loop.ERROR | self.io_loop.READ)

    def _listen_for(self, events: int) -> None:
        if self._state is not None:
            self._state = events | self._state & self.io_loop.WRITE
            self.io_loop.update_handler(self.fileno(), self._state)

    def _handle_read(self) -> None:
        if not self._lingering:
            super()._handle_read()

    def _read_at_once(self, part: memoryview) -> int:
        """Read what is there, without all that waiting takes; 0 if that is nothing, or not the next."""
        if self.closed() or self._read_buffer_size:
            return 0
        try:
            return self.read_from_fd(part) or 0
        except OSError:
            # What arrived before still counts; the next read says it again.
            return 0
