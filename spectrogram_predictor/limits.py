"""Places for clients: so many in all, and so many for each of them."""

import ipaddress
from collections import Counter
from types import TracebackType
from typing import Self

from spectrogram_predictor.errors import QueueFull

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


def client_at(address: str) -> str:
    """Return whom an address belongs to: the lower half of an IPv6 address is for its owner to choose."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((parsed, _NETWORK_BITS), strict=False))
