"""Requests a second, of one client and of all."""

from spectrogram_predictor import rates
from spectrogram_predictor.rates import BURST_S, Rates, client_of


class Clock:
    """Seconds that pass when the test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def admitted(limits: Rates, address: str, count: int) -> int:
    """Return how many of so many requests at once are taken."""
    return sum(limits.take(address) == 0 for _ in range(count))


def test_a_client_may_burst_and_then_keeps_its_rate() -> None:
    """Others are not hindered by it, and it is told how long to wait."""
    clock = Clock()
    limits = Rates(0, 10, clock)
    assert admitted(limits, "a", 1000) == 10 * BURST_S
    assert 0 < limits.take("a") <= 0.1
    assert admitted(limits, "b", 1000) == 10 * BURST_S
    clock.now += 1
    assert admitted(limits, "a", 1000) == 10
    clock.now += 3600
    assert admitted(limits, "a", 1000) == 10 * BURST_S


def test_all_clients_together_keep_theirs() -> None:
    """However many addresses they have."""
    limits = Rates(10, 100, Clock())
    assert sum(admitted(limits, str(number), 1) for number in range(1000)) == 10 * BURST_S


def test_less_than_one_a_second_is_a_rate_too() -> None:
    """One, and then a while none."""
    clock = Clock()
    limits = Rates(0, 0.1, clock)
    assert admitted(limits, "a", 5) == 1
    clock.now += 9
    assert admitted(limits, "a", 5) == 0
    clock.now += 2
    assert admitted(limits, "a", 5) == 1


def test_zero_is_no_limit() -> None:
    """For one and for all."""
    assert admitted(Rates(0, 0, Clock()), "a", 10_000) == 10_000


def test_memory_is_bounded() -> None:
    """However many addresses there are."""
    limits = Rates(0, 1, Clock())
    for number in range(rates.MAX_CLIENTS + 100):
        limits.take(str(number))
    assert len(limits._clients) == rates.MAX_CLIENTS


def test_a_network_of_ipv6_is_one_client() -> None:
    """Whoever has one address of it has 2^64."""
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:1") != client_of("2001:db8:0:1::1")
    assert client_of("fe80::1%eth0") == client_of("fe80::2")
    assert client_of("::ffff:192.0.2.1") == client_of("192.0.2.1") == "192.0.2.1"
    assert client_of("") == ""
