"""Memory that nothing refers to is given back, in the server as in a worker."""

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import itsdangerous
import pytest

from spectrogram_predictor import memory
from tests.conftest import TOKEN
from tests.live import Live, wait_until

MAX_GROWTH = 48 * 2**20


class Cycle:
    """Something that refers to itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def _thawed() -> None:
    gc.collect()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("_thawed")
def test_what_refers_to_itself_only_is_collected() -> None:
    """But not what was there when everything was settled."""
    kept, gone = Cycle(), Cycle()
    seen = [weakref.ref(kept)]
    memory.settle()
    seen.append(weakref.ref(gone))
    del kept
    memory.give_back()
    assert seen[0]() is not None
    gone = Cycle()
    seen.append(weakref.ref(gone))
    del gone
    memory.give_back()
    assert seen[2]() is None


def test_a_server_that_had_too_much_to_do_is_as_small_as_before(make_live: Callable[..., Live]) -> None:
    """Requests that were refused leave nothing behind."""
    live = make_live(server__client_requests_per_s=0, server__requests_per_s=0, prediction__queue=1)
    wait_until(lambda: live.http.get(f"{live.url}/readyz").is_success)
    body = (
        itsdangerous.Serializer(TOKEN).dumps({"model_hash": "a" * 64, "ext": "wav", "data": "x" * 2**21}).encode()
    )

    def ask(_: int) -> int:
        return live.http.post(f"{live.url}/prediction", content=body).status_code

    before = resident_bytes(live)
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(ask, range(200))) <= {400, 404, 429}
    wait_until(lambda: resident_bytes(live) < before + MAX_GROWTH)


def resident_bytes(live: Live) -> int:
    return int(Path(f"/proc/{live.process.pid}/statm").read_text().split()[1]) * 4096
