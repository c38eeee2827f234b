"""A network link between a client and a server, which breaks where you choose: a TCP proxy."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

KINDS = ("fin", "rst", "stall")

_CHUNK = 2**16


@dataclass
class Link:
    """What goes over it, and when it breaks.

    Attributes
    ----------
    url : str
        Where it listens.
    target : str
        The server's URL; may change at any time, for the connections that come.
    cuts : list of (int, str)
        After how many bytes from clients in all it breaks, and how: ``fin``, ``rst``, or ``stall``, where nothing
        more comes through, in either direction, until the client gives up.
    bytes_per_s : float
        The bandwidth, in the direction of the server; 0 for no limit.
    piece_bytes : int
        The largest piece that is passed on.
    others : list of str
        After each break the next of them becomes the target, and the target the last of them.
    latency_s : float
        Added to each piece in the direction of the server.
    sent : int
        Bytes that clients have sent.
    connections : int
        How many there were.
    """

    target: str
    url: str = ""
    cuts: list[tuple[int, str]] = field(default_factory=list)
    bytes_per_s: float = 0.0
    latency_s: float = 0.0
    piece_bytes: int = 2**16
    others: list[str] = field(default_factory=list)
    sent: int = 0
    connections: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def break_at(self, offsets: Sequence[int], kinds: Sequence[str] = ("fin", "rst")) -> None:
        """Break after so many bytes from now, in these ways by turns."""
        turns = [kinds[number % len(kinds)] for number in range(len(offsets))]
        self.cuts = [(self.sent + offset, kind) for offset, kind in zip(sorted(offsets), turns, strict=True)]

    def take(self, count: int) -> tuple[int, str]:
        """Return how many of these bytes get through, and how it breaks after them, if it does."""
        with self._lock:
            before, self.sent = self.sent, self.sent + count
            if self.cuts and self.sent >= self.cuts[0][0]:
                at, kind = self.cuts.pop(0)
                self.others.append(self.target)
                self.target = self.others.pop(0)
                return max(at - before, 0), kind
            return count, ""


@contextmanager
def link(target: str) -> Iterator[Link]:
    """Lay one to a server."""
    state = Link(target)
    listening = socket.create_server(("127.0.0.1", 0))
    # What the client has sent and this end has not read, is lost at a cut.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**18)
    state.url = f"https://127.0.0.1:{listening.getsockname()[1]}"
    threading.Thread(target=_accept, args=(state, listening), daemon=True).start()
    try:
        yield state
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def _accept(state: Link, listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listening.accept()
            state.connections += 1
            threading.Thread(target=_serve, args=(state, client), daemon=True).start()


def _serve(state: Link, client: socket.socket) -> None:
    where = urlsplit(state.target)
    try:
        server = socket.create_connection((where.hostname, where.port))
    except OSError:
        # As a server that is not there.
        _reset(client)
        return
    back = threading.Thread(target=_back, args=(server, client), daemon=True)
    back.start()
    kind = "fin"
    with contextlib.suppress(OSError):
        kind = _forth(state, client, server)
    if kind == "stall":
        with contextlib.suppress(OSError):
            while client.recv(_CHUNK):
                pass
    if kind == "fin":
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
    else:
        for end in (client, server):
            _reset(end)


def _forth(state: Link, client: socket.socket, server: socket.socket) -> str:
    """Pass on what the client sends; return how the link broke."""
    while data := client.recv(state.piece_bytes):
        count, kind = state.take(len(data))
        if state.latency_s:
            time.sleep(state.latency_s)
        server.sendall(data[:count])
        if kind:
            return kind
        if state.bytes_per_s:
            time.sleep(count / state.bytes_per_s)
    return "fin"


def _back(server: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := server.recv(_CHUNK):
            client.sendall(data)
    with contextlib.suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        # Wakes whoever reads from it, which would keep it open.
        end.shutdown(socket.SHUT_RD)
    end.close()
