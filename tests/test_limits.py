"""What one client may take, and all together; and who is one client."""

import pytest

from spectrogram_predictor import limits
from spectrogram_predictor.errors import QueueFull
from spectrogram_predictor.limits import BURST_S, Places, Rates, client_at


def test_places_are_limited_in_all_and_for_each() -> None:
    """A place that was left can be taken again, by anybody; to leave twice is to leave once."""
    places = Places(3, 2)
    first, second = places.take("192.0.2.1"), places.take("192.0.2.1")
    with pytest.raises(QueueFull):
        places.take("192.0.2.1")
    with places.take("192.0.2.2"), pytest.raises(QueueFull):
        places.take("192.0.2.3")
    first.leave()
    first.leave()
    places.take("192.0.2.1")
    with pytest.raises(QueueFull):
        places.take("192.0.2.1")
    second.leave()
    places.take("192.0.2.4")
    places.take("192.0.2.5")


def test_no_limit_for_each_is_the_limit_of_all() -> None:
    """Behind a proxy all clients have one address."""
    places = Places(5, 0)
    for _ in range(5):
        places.take("127.0.0.1")
    with pytest.raises(QueueFull):
        places.take("127.0.0.1")


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_an_ipv6_network_is_one_client(address: str, client: str) -> None:
    """Its owner has all addresses in it."""
    assert client_at(address) == client


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def admitted(rates: Rates, address: str, count: int) -> int:
    """Return how many of so many requests at once are taken."""
    return sum(rates.take(address) == 0 for _ in range(count))


def test_a_client_may_burst_and_then_keeps_its_rate() -> None:
    """Others are not hindered by it, and it is told how long to wait."""
    clock = Clock()
    rates = Rates(0, 10, clock)
    assert admitted(rates, "a", 1000) == 10 * BURST_S
    assert 0 < rates.take("a") <= 0.1
    assert admitted(rates, "b", 1000) == 10 * BURST_S
    clock.now += 1
    assert admitted(rates, "a", 1000) == 10
    clock.now += 3600
    assert admitted(rates, "a", 1000) == 10 * BURST_S


def test_all_clients_together_keep_theirs() -> None:
    """However many addresses they have."""
    rates = Rates(10, 100, Clock())
    assert sum(admitted(rates, str(number), 1) for number in range(1000)) == 10 * BURST_S


def test_less_than_one_a_second_is_a_rate_too() -> None:
    """One, and then a while none."""
    clock = Clock()
    rates = Rates(0, 0.1, clock)
    assert admitted(rates, "a", 5) == 1
    clock.now += 9
    assert admitted(rates, "a", 5) == 0
    clock.now += 2
    assert admitted(rates, "a", 5) == 1


def test_zero_is_no_limit() -> None:
    """For one and for all."""
    assert admitted(Rates(0, 0, Clock()), "a", 10_000) == 10_000


def test_memory_is_bounded() -> None:
    """However many addresses there are."""
    rates = Rates(0, 1, Clock())
    for number in range(limits.MAX_CLIENTS + 100):
        rates.take(str(number))
    assert len(rates._clients) == limits.MAX_CLIENTS
