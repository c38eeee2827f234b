"""A proxy in front of an S3 server that answers as S3 does on a bad day."""

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

OPERATIONS = ("put", "copy", "get", "list", "delete", "create", "part", "copy part", "complete", "abort")

_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{}</Code><Message>as on a bad day</Message>'
    "<RequestId>1</RequestId><HostId>1</HostId></Error>"
)
_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}


@dataclass
class Proxy:
    """What goes wrong with which operation, and how often.

    Attributes
    ----------
    url : str
        Where it listens.
    seen : list of str
        The operations that came, in order.
    """

    url: str = ""
    seen: list[str] = field(default_factory=list)
    _faults: dict[str, list[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, operation: str, kind: str, times: int = 1) -> None:
        """Let the next requests of an operation go wrong.

        Parameters
        ----------
        operation : str
            One of `OPERATIONS`.
        kind : str
            ``500``, ``503``; ``200`` with an error for a body; ``reset`` in the middle of the request; ``lost``,
            an answer that never comes although all is done; ``slow``; ``damaged``, a bit of the body flipped;
            ``careless``, as of a store that does not know conditions.
        times : int
            How many of them.
        """
        self._faults.setdefault(operation, []).extend([kind] * times)

    def heal(self) -> None:
        """Let everything through."""
        self._faults.clear()

    def take(self, operation: str) -> str:
        """Return what shall go wrong with this request."""
        with self._lock:
            self.seen.append(operation)
            return self._faults[operation].pop(0) if self._faults.get(operation) else ""


@contextmanager
def proxy(target: str, slow_s: float = 1.0) -> Iterator[Proxy]:
    """Run one in front of a server."""
    state = Proxy()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(state, urlsplit(target).netloc, slow_s))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def operation_of(method: str, path: str, copies: bool) -> str:
    """Return which operation of S3 a request is."""
    query = parse_qs(urlsplit(path).query, keep_blank_values=True)
    if method == "PUT":
        return ("copy part" if copies else "part") if "partNumber" in query else "copy" if copies else "put"
    if method == "POST":
        return "create" if "uploads" in query else "complete"
    if method == "DELETE":
        return "abort" if "uploadId" in query else "delete"
    return "list" if re.fullmatch(r"/[^/]+/?", urlsplit(path).path) else "get"


def _handler(state: Proxy, netloc: str, slow_s: float) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def answer(self) -> None:
            operation = operation_of(self.command, self.path, "x-amz-copy-source" in self.headers)
            kind = state.take(operation)
            length = int(self.headers.get("Content-Length", 0))
            if kind == "reset":
                self.rfile.read(length // 2)
                return self.reset()
            body = self.rfile.read(length)
            if kind in ("500", "503"):
                code = {"500": "InternalError", "503": "SlowDown"}[kind]
                return self.send(int(kind), {"Content-Type": "application/xml"}, _ERROR.format(code).encode())
            if kind == "200":
                return self.send(200, {"Content-Type": "application/xml"}, _ERROR.format("InternalError").encode())
            if kind == "damaged":
                body = body[:-1] + bytes([body[-1] ^ 1])
            if kind == "careless":
                del self.headers["If-None-Match"]
            status, headers, content = self.forward(body)
            if kind == "lost":
                return self.reset()
            if kind == "short":
                return self.send(status, headers, content, len(content) // 2)
            if kind == "slow":
                time.sleep(slow_s)
            return self.send(status, headers, content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        def forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(netloc)
            try:
                headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                kept = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
                return answer.status, kept, answer.read()
            finally:
                connection.close()

        def send(self, status: int, headers: dict[str, str], content: bytes, most: int | None = None) -> None:
            self.send_response_only(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[:most])
            if most is not None:
                self.close_connection = True

        def reset(self) -> None:
            # Closed so, the connection is reset and not ended.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    return Handler
