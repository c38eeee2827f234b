"""A TLS port: accept, wrap, hand to Tornado's HTTP server.

Tornado reads one TLS record (16 KiB) at a time and passes each on by itself; `BulkStream` fills its buffer with
all that has arrived first.
"""

import socket
import ssl
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import SSLIOStream
from tornado.netutil import add_accept_handler, bind_sockets, ssl_wrap_socket
from tornado.web import Application

from spectrogram_predictor.errors import ConfigError

CHUNK_BYTES = 2**20
MAX_BUFFER_BYTES = 8 * 2**20
IDLE_TIMEOUT_S = 3600.0
_NO_LIMIT = 2**62


class BulkStream(SSLIOStream):
    """A TLS stream that reads as much as there is, not one record."""

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Fill `buf` with what has arrived; see `tornado.iostream.BaseIOStream.read_from_fd`."""
        view = memoryview(buf)
        filled = 0
        while filled < len(view):
            try:
                count = super().read_from_fd(view[filled:])
            except OSError:
                # What arrived before the connection broke still counts; the next read will fail again.
                if filled:
                    return filled
                raise
            if not count:
                # None: nothing more now. 0: the other side closed, which the next read will find again.
                return filled or count
            filled += count
        return filled


class Listener:
    """One port of the server.

    Parameters
    ----------
    app : tornado.web.Application
        What it serves; limits on bodies are its handlers' business.
    context : ssl.SSLContext
        The certificate.
    host, port
        Where; port 0 takes a free one.

    Raises
    ------
    ConfigError
        The port cannot be had.
    """

    def __init__(self, app: Application, context: ssl.SSLContext, host: str, port: int) -> None:
        self._context = context
        self._server = HTTPServer(
            app,
            chunk_size=CHUNK_BYTES,
            max_buffer_size=MAX_BUFFER_BYTES,
            max_body_size=_NO_LIMIT,
            idle_connection_timeout=IDLE_TIMEOUT_S,
        )
        try:
            self._sockets = bind_sockets(port, host, reuse_port=False)
        except OSError as error:
            raise ConfigError(f"cannot listen on {host} port {port}: {error.strerror}") from error
        self.port: int = self._sockets[0].getsockname()[1]
        self._removers: list[Callable[[], None]] = []

    def start(self) -> None:
        """Accept connections."""
        self._removers = [add_accept_handler(sock, self._accept) for sock in self._sockets]

    def stop(self) -> None:
        """Accept no more; connections that are open go on."""
        for remove in self._removers:
            remove()
        for sock in self._sockets:
            sock.close()
        self._removers, self._sockets = [], []

    async def close(self) -> None:
        """Close the connections that are open."""
        await self._server.close_all_connections()

    def _accept(self, connection: socket.socket, address: Any) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wrapped = ssl_wrap_socket(connection, self._context, do_handshake_on_connect=False, server_side=True)
        except OSError:
            # The client has gone already.
            connection.close()
            return
        stream = BulkStream(wrapped, max_buffer_size=MAX_BUFFER_BYTES, read_chunk_size=CHUNK_BYTES)
        self._server.handle_stream(stream, address)
