"""Places: who gets one, and who is one client."""

import pytest

from spectrogram_predictor.errors import QueueFull
from spectrogram_predictor.limits import Places, client_at


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
