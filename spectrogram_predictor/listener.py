"""A TLS port: accept, wrap, hand to Tornado's HTTP server."""

import asyncio
import logging
import resource
import socket
import sys

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application

from spectrogram_predictor.certificates import ServerCertificate
from spectrogram_predictor.config import ServerSettings
from spectrogram_predictor.errors import ConfigError, QueueFull
from spectrogram_predictor.limits import Place, Places
from spectrogram_predictor.tls import CHUNK_BYTES, TlsSocket, TlsStream

logger = logging.getLogger(__name__)

MAX_BUFFER_BYTES = 8 * 2**20
HANDSHAKE_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 75.0
"""How long a connection may be open without a request, and how long the head of one may take."""

UNREAD_TIMEOUT_S = 60.0
"""How long an answer may be in its way without the client taking any of it: it is in memory meanwhile."""

_NO_LIMIT = 2**62
_AT_ONCE = 64
_PAUSE_S = 0.5
_TELL_S = 5.0


class Listener:
    """One port of the server.

    Parameters
    ----------
    app : tornado.web.Application
        What it serves; limits on bodies are its handlers' business.
    certificate : ServerCertificate
        Each connection gets the one that is current when it is accepted.
    settings : ServerSettings
        Where, and how many connections.
    port : int
        0 takes a free one.

    Raises
    ------
    ConfigError
        The port cannot be had.
    """

    def __init__(
        self, app: Application, certificate: ServerCertificate, settings: ServerSettings, port: int
    ) -> None:
        self._certificate = certificate
        self._server = HTTPServer(
            app,
            chunk_size=CHUNK_BYTES,
            max_buffer_size=MAX_BUFFER_BYTES,
            max_body_size=_NO_LIMIT,
            idle_connection_timeout=IDLE_TIMEOUT_S,
        )
        try:
            self._sockets = bind_sockets(port, settings.host, reuse_port=False)
        except OSError as error:
            raise ConfigError(f"cannot listen on {settings.host} port {port}: {error.strerror}") from error
        self.port: int = self._sockets[0].getsockname()[1]
        self._streams: set[TlsStream] = set()
        self._handshakes: set[asyncio.Task[None]] = set()
        # The rest of the descriptors is for files and workers, and for the other port.
        self._max_streams = min(settings.max_connections, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 3)
        self._places = Places(self._max_streams, settings.max_connections_per_client)
        self._turned_away = 0

    def start(self) -> None:
        """Accept connections."""
        for sock in self._sockets:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def stop(self) -> None:
        """Accept no more; connections that are open go on."""
        for sock in self._sockets:
            if sock.fileno() >= 0:
                asyncio.get_running_loop().remove_reader(sock)
            sock.close()
        self._sockets = []

    async def close(self) -> None:
        """Close the connections that are open."""
        await self._server.close_all_connections()

    def _accept(self, sock: socket.socket) -> None:
        """Take some of the connections that wait, so that requests under way get their turn too."""
        for _ in range(_AT_ONCE):
            if len(self._streams) >= self._max_streams:
                self._pause(sock, f"{self._max_streams} connections are open")
                return
            try:
                connection, address = sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(sock, str(error.strerror))
                return
            try:
                place = self._places.take(address[0])
            except QueueFull:
                connection.close()
                self._turn_away(address[0])
            else:
                self._wrap(connection, address, place)

    def _turn_away(self, address: str) -> None:
        if not self._turned_away:
            asyncio.get_running_loop().call_later(_TELL_S, self._tell, address)
        self._turned_away += 1

    def _tell(self, address: str) -> None:
        logger.warning(
            "port %d turned away %d connections of clients that had %d already, such as %s",
            self.port,
            self._turned_away,
            self._places.per_client,
            address,
        )
        self._turned_away = 0

    def _wrap(self, connection: socket.socket, address: tuple[str, int], place: Place) -> None:
        try:
            connection.getpeername()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sys.platform == "linux":
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * UNREAD_TIMEOUT_S))
        except OSError:
            # The client has gone already.
            connection.close()
            place.leave()
            return
        wrapped = TlsSocket(connection, self._certificate.context)

        def forget(stream: TlsStream) -> None:
            self._streams.discard(stream)
            place.leave()

        stream = TlsStream(wrapped, forget, max_buffer_size=MAX_BUFFER_BYTES)
        self._streams.add(stream)
        serving = asyncio.create_task(self._serve(stream, address))
        self._handshakes.add(serving)
        serving.add_done_callback(self._handshakes.discard)

    async def _serve(self, stream: TlsStream, address: tuple[str, int]) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                await stream.wait_for_handshake()
        except OSError:
            stream.close()
        else:
            # Not before: what came with the end of the handshake is only seen by a read that begins after it.
            self._server.handle_stream(stream, address)

    def _pause(self, sock: socket.socket, why: str) -> None:
        """Let those that wait go on waiting, rather than ask the kernel for them again and again."""
        logger.warning("port %d accepts no connections for now: %s", self.port, why)
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        loop.call_later(_PAUSE_S, self._resume, sock)

    def _resume(self, sock: socket.socket) -> None:
        if sock in self._sockets:
            asyncio.get_running_loop().add_reader(sock, self._accept, sock)
