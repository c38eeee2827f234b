"""What one client may take, and all together: places at the same time, requests a second."""

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Self

from spectrogram_predictor.errors import QueueFull

BURST_S = 2.0
"""A client that was quiet may send what it may send in so long at once [s]."""

MAX_CLIENTS = 10_000
"""How many are told apart by their rate; beyond, those who sent nothing for the longest begin anew."""

_NETWORK_BITS = 64


class Place:
    """One client's place, until it is left; a context manager."""

    def __init__(self, taken: "Counter[str]", client: str) -> None:
        self._taken = taken
        self._client: str | None = client

    def leave(self) -> None:
        """Let somebody else have it; harmless twice."""
        client, self._client = self._client, None
        if client is not None:
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()


class Places:
    """Give places to clients, within limits.

    Parameters
    ----------
    limit : int > 0
        Places in all.
    per_client : int >= 0
        Places for one client; 0 for as many as there are.
    """

    def __init__(self, limit: int, per_client: int) -> None:
        self.limit = limit
        self.per_client = per_client
        self._taken: Counter[str] = Counter()

    def take(self, address: str) -> Place:
        """Return a place for the client at an address.

        Raises
        ------
        QueueFull
            There is none, or none for this client.
        """
        client = client_at(address)
        if self._taken.total() >= self.limit:
            raise QueueFull("too many at the same time, try again later")
        if self.per_client and self._taken[client] >= self.per_client:
            raise QueueFull(f"more than {self.per_client} at the same time from one address, try again later")
        self._taken[client] += 1
        return Place(self._taken, client)


class Rates:
    """Admit requests: token buckets, one for each client and one for all.

    Parameters
    ----------
    per_s : float >= 0
        Requests a second, of all clients together; 0 for no limit.
    client_per_s : float >= 0
        The same for one address (of IPv6, one network of 64 bits).
    clock : callable
        Returns seconds that never go back.
    """

    def __init__(self, per_s: float, client_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._all = _Bucket(per_s)
        self._client_per_s = client_per_s
        self._clients: OrderedDict[str, _Bucket] = OrderedDict()
        self._clock = clock

    def take(self, address: str) -> float:
        """Count one request; return how long the client should wait first [s], 0 if not at all."""
        now = self._clock()
        return self._client(address).take(now) or self._all.take(now)

    def _client(self, address: str) -> "_Bucket":
        name = client_at(address)
        bucket = self._clients.pop(name, None) or _Bucket(self._client_per_s)
        self._clients[name] = bucket
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        return bucket


class _Bucket:
    """Fills at a rate, holds `BURST_S` of it."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._most = max(1.0, BURST_S * per_s)
        self._level = self._most
        self._at: float | None = None

    def take(self, now: float) -> float:
        if not self._per_s:
            return 0.0
        since = now - self._at if self._at is not None else 0.0
        self._level = min(self._most, self._level + since * self._per_s)
        self._at = now
        if self._level < 1:
            return (1 - self._level) / self._per_s
        self._level -= 1
        return 0.0


def client_at(address: str) -> str:
    """Return whom an address belongs to: the lower half of an IPv6 address is for its owner to choose."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((parsed, _NETWORK_BITS), strict=False))
