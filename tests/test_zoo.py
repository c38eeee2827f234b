"""No file of the zoo gets through, and none leaves a trace: no marker, no connection, no memory."""

import re
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from spectrogram_predictor import predictor
from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import Unprocessable, UnsupportedMedia
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.registration import Registration, Terms
from spectrogram_predictor.worker import models
from tests import zoo
from tests.conftest import sha256, wav
from tests.gauge import Memory
from tests.live import Live, wait_until
from tests.zoo import making
from tests.zoo.archives import sound
from tests.zoo.making import DEEP, ENDINGS, Animal, Dialect, Trap
from tests.zoo.names import with_lambda, writing

ANIMALS = zoo.animals()
MAX_GROWTH_BYTES = 64 * 2**20
SAMPLE = (
    "CVE-2024-3660 CVE-2025-9905 CVE-2026-12481 Lambda, 3 deep",
    "CVE-2025-12058 StringLookup, 3 deep",
    "a trillion units, 3 deep",
    "an archive: a bomb",
    "HDF5: CVE-2026-1669 external, 3 deep",
    "HDF5: CVE-2026-12480 virtual, 3 deep",
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerPool]:
    """One real worker for the whole zoo: it must not even be replaced."""
    readable = [tmp_path_factory.getbasetemp()]
    pool = WorkerPool(PredictionSettings(workers=1, timeout_s=60), readable=readable)
    wait_until(lambda: pool.pids)
    yield pool
    pool.shutdown(cancel_futures=True)


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """A marker that nobody may make, and a port that nobody may come to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        trap = Trap(tmp_path / "marker", listener.getsockname()[1])
        yield trap
        came, _, _ = select.select([listener], [], [], 0)
        assert not came, "somebody came to the port"
    assert not trap.marker.exists(), "something wrote the marker"


def inspect(pool: WorkerPool, path: Path, *, allow_custom: bool = False) -> object:
    """Inspect a file in the worker, as before a promotion."""
    digest = sha256(path)
    terms = Terms(Registration(digest, allow_custom=allow_custom).to_json())
    return pool.submit(predictor._inspect, path, digest, path.suffix.removeprefix("."), terms).result(120)


def test_what_is_harmless_gets_through(pool: WorkerPool, tmp_path: Path) -> None:
    """Or what follows would show nothing; and again as whoever makes archives by hand writes it."""
    for ending in ENDINGS:
        path = tmp_path / f"model.{ending}"
        path.write_bytes(making.harmless(ending))
        inspect(pool, path)
    for compression in (0, 8):
        (tmp_path / "again.keras").write_bytes(
            making.archived(making.members(making.harmless("keras")), compression)
        )
        inspect(pool, tmp_path / "again.keras")


def test_archives_that_are_right_in_another_way_get_through(pool: WorkerPool, tmp_path: Path) -> None:
    """Streamed, with what is known at last behind each member; and with room for large sizes."""
    for data in sound():
        (tmp_path / "model.keras").write_bytes(data)
        inspect(pool, tmp_path / "model.keras")


@pytest.mark.parametrize("animal", ANIMALS, ids=lambda animal: f"{animal.name}-{animal.ending}")
def test_it_is_refused_with_the_reason(pool: WorkerPool, tmp_path: Path, trap: Trap, animal: Animal) -> None:
    """By the worker itself, at once, before Keras has seen it."""
    path = tmp_path / f"model.{animal.ending}"
    path.write_bytes(animal.make(trap))
    (pid,) = pool.pids
    memory = Memory(pid)
    with pytest.raises((UnsupportedMedia, Unprocessable)) as refused:
        inspect(pool, path)
    assert re.search(animal.reason, refused.value.message), refused.value.message
    assert len(refused.value.message) < 400
    assert refused.value.message.isprintable()
    assert memory.growth_bytes < MAX_GROWTH_BYTES
    assert pool.pids == [pid]


def test_every_vulnerability_is_there_and_three_models_deep() -> None:
    """In each format that it is about."""
    numbers = {
        "CVE-2024-3660", "CVE-2025-1550", "CVE-2025-8747", "CVE-2025-9905", "CVE-2025-9906", "CVE-2025-12058",
        "CVE-2026-0897", "CVE-2026-1669", "CVE-2026-12480", "CVE-2026-1462", "CVE-2026-12479", "CVE-2026-12481",
    }  # fmt: skip
    for number in numbers:
        kept = {(one.ending, "3 deep" in one.name) for one in ANIMALS if number in one.name}
        assert kept == {(ending, deep) for ending in ENDINGS for deep in (False, True)}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_lambda_is_real(tmp_path: Path, ending: str) -> None:
    """Where it is allowed, and nothing else holds it, it runs: or its refusals would show nothing."""
    trap = Trap(tmp_path / "marker", 0)
    path = tmp_path / f"model.{ending}"
    path.write_bytes(making.saved(with_lambda(writing(trap), DEEP), ending))
    model = models.load(path, ending, allow_custom=True)
    model([np.zeros((1, 4), np.float32)])
    assert trap.marker.exists()


CONTAINERS = [
    animal
    for animal in ANIMALS
    if animal.name.startswith(("HDF5", "an archive")) or "CVE-2025-12058" in animal.name or "units" in animal.name
]


@pytest.mark.parametrize("animal", CONTAINERS[::7], ids=lambda animal: f"{animal.name}-{animal.ending}")
def test_allowing_code_allows_nothing_else(pool: WorkerPool, tmp_path: Path, trap: Trap, animal: Animal) -> None:
    """Containers, other layers and sizes are looked at as ever."""
    path = tmp_path / f"model.{animal.ending}"
    path.write_bytes(animal.make(trap))
    with pytest.raises((UnsupportedMedia, Unprocessable)) as refused:
        inspect(pool, path, allow_custom=True)
    assert re.search(animal.reason, refused.value.message), refused.value.message


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("depth", [0, DEEP])
def test_what_is_behind_code_is_counted(pool: WorkerPool, tmp_path: Path, ending: str, depth: int) -> None:
    """At the least that it must be: nothing says what the code makes, but what is built for that has weights."""
    dialect = Dialect(ending)
    code = dialect.layer("Lambda", function={"class_name": "__lambda__", "config": {"value": ["4w=="]}})
    for layers in (
        [dialect.layer("Dense", "big", units=2**31)],
        [dialect.layer("Dense", "one", units=2**15), dialect.layer("Dense", "two", units=2**15)],
        [dialect.layer("Conv1D", "one", filters=2**15, kernel_size=[2**15])],
        [dialect.layer("Bidirectional", "both", layer=dialect.layer("LSTM", "one", units=2**15))],
    ):
        part = dialect.sequential(dialect.input(4), code, *layers, name="model_in")
        path = tmp_path / f"model.{ending}"
        path.write_bytes(making.with_config(ending, dialect.deep(part, depth, 4)))
        with pytest.raises(Unprocessable, match=r"^the model would have "):
            inspect(pool, path, allow_custom=True)


def test_a_server_rejects_what_is_registered_and_says_why(make_live: Callable[..., Live], trap: Trap) -> None:
    """Registered, uploaded, swept: rejected, with the reason for the person; and the server goes on."""
    server = make_live()
    chosen = [animal for animal in ANIMALS if animal.name in SAMPLE]
    assert {animal.name for animal in chosen} == set(SAMPLE)
    files = {sha256(data): (animal, data) for animal in chosen for data in [animal.make(trap)]}
    with server.client() as client:
        for digest, (_, data) in files.items():
            client.register(digest)
            assert server.upload(data).status_code == 200
        assert client.sweep() == []
        # The worker may still have been starting.
        wait_until(lambda: all(client.model(digest)["state"] != "registered" for digest in files))
        for digest, (animal, _) in files.items():
            state = client.model(digest)
            assert state["state"] == "rejected", animal
            assert re.search(animal.reason, state["reason"])
        path = trap.marker.with_name("harmless.keras")
        path.write_bytes(making.harmless("keras"))
        assert client.publish(path)["state"] == "promoted"
    assert not server.files("temp")


def test_code_is_allowed_for_one_digest(make_live: Callable[..., Live], tmp_path: Path) -> None:
    """By a registration that says so, which stays with the model and is seen; for no other file."""
    server = make_live()
    paths = [tmp_path / f"{number}.keras" for number in range(2)]
    for path in paths:
        model = with_lambda("x * 0 + 2")
        model.get_layer("answer").set_weights([np.ones((4, 3)), np.array([0.0, 1.0, 2.0])])
        path.write_bytes(making.saved(model, "keras"))
    allowed, other = map(sha256, paths)
    with server.client() as client:
        assert client.publish(paths[0], allow_custom=True)["allow_custom"] is True
        client.register(paths[0], labels=["a", "b", "c"])
        assert client.model(allowed)["allow_custom"] is True
        assert client.predict(wav(), allowed, "a,b,c,d\n1,2,3,4\n") == [[8.0, 9.0, 10.0]]
        answer = server.post_signed("/registermodelhash", {"hash": allowed, "allow_custom": False})
        assert answer.status_code == 415
        assert "holds Python code" in answer.json()["msg"]
        assert client.model(allowed)["allow_custom"] is True
        client.register(paths[1])
        client.upload(paths[1])
        client.sweep()
        wait_until(lambda: client.model(other)["state"] != "registered")
        assert client.model(other)["state"] == "rejected"
        assert "allow_custom" not in client.model(other)
        assert client.publish(paths[1], allow_custom=True)["state"] == "promoted"


@pytest.mark.parametrize("value", [1, "true", None, []])
def test_code_is_allowed_by_true_alone(live: Live, value: object) -> None:
    """Nothing else stands for it."""
    answer = live.post_signed("/registermodelhash", {"hash": "0" * 64, "allow_custom": value})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
