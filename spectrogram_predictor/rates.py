"""How many requests a second: token buckets, one for each client and one for all."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

BURST_S = 2.0
"""A client that was quiet may send what it may send in so long at once [s]."""

MAX_CLIENTS = 10_000
"""How many are told apart; beyond, those who sent nothing for the longest begin anew."""

_IPV6_SITE_BITS = 64


class Rates:
    """Admit requests.

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
        name = client_of(address)
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


def client_of(address: str) -> str:
    """Return what an address counts as: itself, or of IPv6 its network of 64 bits."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, _IPV6_SITE_BITS), strict=False))
