"""A network link between a client and a server, which breaks where you choose: a TCP proxy.

It breaks once the server has read what came through. What a kernel still has of a connection that is reset is
lost, as much as a busy server leaves unread: neither client nor server can do anything about that.
"""

import contextlib
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

_CHUNK = 2**16
_TAKEN_S = 10.0
_POLL_S = 0.002


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
        After how many bytes from clients in all it breaks, and how: ``fin``, ``rst``; ``stall``, where nothing
        more comes through, in either direction, until the client gives up; ``deaf``, where the server gets all
        that the client sends, and the link breaks with the next answer, which is lost.
    bytes_per_s : float
        The bandwidth, in the direction of the server; 0 for no limit.
    piece_bytes : int
        The largest piece that is passed on.
    others : list of str
        After each break the next of them becomes the target, and the target the last of them.
    latency_s : float
        How long each piece is on its way to the server, together with those before and after it.
    passing : threading.Event
        Cleared, it holds back what clients send from now on, connections as well.
    sent : int
        Bytes that clients have sent.
    connections : int
        How many there were.
    turns : int
        How often a client sent something after it had heard something, or at first.
    """

    target: str
    url: str = ""
    cuts: list[tuple[int, str]] = field(default_factory=list)
    bytes_per_s: float = 0.0
    latency_s: float = 0.0
    piece_bytes: int = 2**16
    others: list[str] = field(default_factory=list)
    passing: threading.Event = field(default_factory=threading.Event)
    sent: int = 0
    connections: int = 0
    turns: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _servers: set[socket.socket] = field(default_factory=set)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let nothing more through, and wait until the server has read what came."""
        self.passing.clear()
        try:
            for server in list(self._servers):
                _wait_until_read(server)
            yield
        finally:
            self.passing.set()

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
    state.passing.set()
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
            state.passing.wait()
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
    state._servers.add(server)
    deaf, heard = threading.Event(), threading.Event()
    heard.set()
    threading.Thread(target=_back, args=(server, client, deaf, heard), daemon=True).start()
    kind = "fin"
    with contextlib.suppress(OSError):
        kind = _forth(state, client, server, deaf, heard)
    state._servers.discard(server)
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


def _forth(
    state: Link, client: socket.socket, server: socket.socket, deaf: threading.Event, heard: threading.Event
) -> str:
    """Pass on what the client sends; return how the link broke."""
    with _way(server, state.latency_s) as put:
        while data := client.recv(state.piece_bytes):
            state.passing.wait()
            if heard.is_set():
                heard.clear()
                state.turns += 1
            count, kind = state.take(len(data))
            if kind == "deaf":
                deaf.set()
            elif kind:
                put(data[:count])
                break
            put(data)
            if state.bytes_per_s:
                time.sleep(count / state.bytes_per_s)
        else:
            return "fin"
    if kind != "stall":
        _wait_until_read(server)
    return kind


@contextmanager
def _way(server: socket.socket, latency_s: float) -> Iterator[Callable[[bytes], None]]:
    """Give a function that sends, at once or each piece after its time; what was given has arrived in the end."""
    if not latency_s:
        yield server.sendall
        return
    pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def deliver() -> None:
        with contextlib.suppress(OSError):
            while (piece := pieces.get())[1]:
                time.sleep(max(piece[0] - time.monotonic(), 0.0))
                server.sendall(piece[1])

    thread = threading.Thread(target=deliver, daemon=True)
    thread.start()
    try:
        yield lambda data: pieces.put((time.monotonic() + latency_s, data))
    finally:
        pieces.put((0.0, b""))
        thread.join()


def _wait_until_read(server: socket.socket) -> None:
    """Wait until the server has read all that was sent to it, unless it does not read at all."""
    deadline = time.monotonic() + _TAKEN_S
    while _unread(server) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _unread(connection: socket.socket) -> bool:
    """Tell whether the other end of a connection, on this machine, has not read all that was sent to it."""
    try:
        ours, theirs = connection.getsockname()[1], connection.getpeername()[1]
    except OSError:
        return False
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = tuple(int(address.rpartition(":")[2], 16) for address in fields[1:3])
        unsent, unread = (int(count, 16) for count in fields[4].split(":"))
        if (ports == (ours, theirs) and unsent) or (ports == (theirs, ours) and unread):
            return True
    return False


def _back(server: socket.socket, client: socket.socket, deaf: threading.Event, heard: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while (data := server.recv(_CHUNK)) and not deaf.is_set():
            heard.set()
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
