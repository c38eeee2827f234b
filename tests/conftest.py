"""What the tests share: small real models, small real sounds, real servers."""

import asyncio
import base64
import functools
import hashlib
import io
import logging
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tornado.ioloop import IOLoop

from spectrogram_predictor import Recipe
from spectrogram_predictor.certificates import make_self_signed
from spectrogram_predictor.registration import Registration, Terms
from tests.backends import s3
from tests.backends.s3 import S3Server
from tests.live import Live

MATERIAL = Path(__file__).resolve().parents[2] / "shared" / "data"
SWIFT = MATERIAL.parent / "tools" / "s3-swift"
COUNTED = "counted"
TOKEN = "a token for the tests, long enough"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: tests wait for servers, links and clocks for a third of their time."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # What takes longest is not to be begun last, when there is nothing else to do beside it.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for marker, needed in (("material", MATERIAL), ("swift", SWIFT)):
        if not needed.exists():
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=f"there is no {needed}"))


@pytest.fixture
def say(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Print a line at the end of the whole run: what a test has counted."""
    return functools.partial(record_property, COUNTED)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    # Properties come along from whichever process ran the test.
    for report in [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]:
        for name, line in report.user_properties if report.when == "call" else ():
            if name == COUNTED:
                terminalreporter.write_line(line)


@pytest.fixture
def io_loop() -> Iterator[IOLoop]:
    """A loop for each test; unlike the plug-in's, it does not make another that nobody closes."""
    asyncio.set_event_loop(asyncio.new_event_loop())
    loop = IOLoop.current()
    yield loop
    loop.close(all_fds=True)
    asyncio.set_event_loop(None)


@pytest.fixture
def material() -> Path:
    """The folder of real songs and models; its tests are marked ``material``."""
    return MATERIAL


@pytest.fixture(autouse=True)
def _no_unexpected_warnings(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Iterator[None]:
    """A record at WARNING or above is asserted on (and cleared with ``caplog.clear()``), or the test fails."""
    yield
    records = [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    # Keras warns of old formats, TensorFlow of many models in one process: both are what tests do.
    # Moto is the S3 server: what it stumbles over is its own.
    unexpected = [record for record in records if record.name not in ("absl", "tensorflow", "moto")]
    assert not unexpected, [record.getMessage() for record in unexpected]


@pytest.fixture(autouse=True)
def _no_state_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads are noted in a folder of the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a self-signed certificate for localhost."""
    folder = tmp_path_factory.mktemp("certs")
    make_self_signed(folder)
    return folder


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, certs: Path) -> Iterator[Live]:
    """A real server in a process of its own, shared by the tests that leave it as it was."""
    server = Live(tmp_path_factory.mktemp("live"), certs, TOKEN)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def make_live(tmp_path: Path, certs: Path) -> Iterator[Callable[..., Live]]:
    """Make servers of this test's own, started with the settings given, all on one storage folder."""
    servers: list[Live] = []

    def make(**settings: Any) -> Live:
        server = Live(tmp_path, certs, TOKEN, settings)
        servers.append(server)
        server.start()
        return server

    yield make
    for server in servers:
        server.stop()


@functools.cache
def wav(
    seconds: float = 2.0, sr: int = 22050, channels: int = 1, container: str = "WAV", subtype: str | None = None
) -> bytes:
    """A chord with a little noise, encoded."""
    rng = np.random.default_rng(7)
    t = np.arange(int(seconds * sr)) / sr
    y = sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)) / 4 + 0.01 * rng.standard_normal(t.size)
    file = io.BytesIO()
    soundfile.write(file, np.column_stack([y] * channels), sr, format=container, subtype=subtype)
    return file.getvalue()


@pytest.fixture(scope="session")
def song() -> bytes:
    """Two seconds of sound as a WAV file."""
    return wav()


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def picture_model(models_folder: Path) -> Path:
    """A real Keras model that takes a 24 × 32 picture and answers three numbers."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((24, 32, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3, "softmax")]
    )
    path = models_folder / "picture.keras"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def two_input_model(models_folder: Path) -> Path:
    """A real Keras model in HDF5 that takes [58 features, a 24 × 32 picture] and answers ten numbers."""
    path = models_folder / "two_inputs.h5"
    build_model(["features", "picture"]).save(path)
    return path


def build_model(kinds: list[str], features: int = 58) -> Any:
    """Build a model with these inputs, in this order; the same weights whatever the order."""
    import keras

    layers = keras.layers
    inputs = {"features": layers.Input((features,), name="feat"), "picture": layers.Input((24, 32, 1), name="img")}
    constant = keras.initializers.Constant
    branches = []
    for kind in sorted(kinds):
        flat = layers.Flatten()(layers.Rescaling(1 / 255)(inputs[kind])) if kind == "picture" else inputs[kind]
        branches.append(layers.Dense(4, kernel_initializer=constant(0.01), name=f"dense_{kind}")(flat))
    merged = layers.Concatenate()(branches) if len(branches) > 1 else branches[0]
    weights = np.linspace(-0.1, 0.1, merged.shape[-1] * 10).reshape(merged.shape[-1], 10)
    output = layers.Dense(10, "softmax", kernel_initializer=constant(weights), name="answer")(merged)
    return keras.Model([inputs[kind] for kind in kinds], output)


def sha256(data: bytes | Path) -> str:
    """Return the digest of bytes or of a file."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.read_bytes()).hexdigest()


def padded(model: Path, target: Path, size: int = 1) -> Path:
    """Make another model file of one in HDF5: with so many bytes more in it, which no layer has a use for."""
    import h5py

    shutil.copyfile(model, target)
    with h5py.File(target, "a") as file:
        dataset = file.create_dataset("padding", (size,), "uint8")
        step = 2**24
        for start in range(0, size, step):
            dataset[start : start + step] = np.frombuffer(os.urandom(min(step, size - start)), np.uint8)
    return target


def csv_row(values: list[Any] | None = None, index: bool = True) -> bytes:
    """Return a CSV as pandas writes one row: names, and an index without a name."""
    values = [0.5] * 58 if values is None else values
    names = [f"f{number}" for number in range(len(values))]
    lines = [["", *names], ["992", *map(str, values)]] if index else [names, list(map(str, values))]
    return "".join(",".join(line) + "\n" for line in lines).encode()


def b64(data: bytes) -> str:
    """Return base64 text."""
    return base64.b64encode(data).decode()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 server."""
    with s3.moto() as server:
        yield server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 store on disk, of several processes; its tests are marked ``swift``."""
    with s3.swift(SWIFT, tmp_path_factory.mktemp("swift")) as server:
        yield server


def peak_bytes(call: Callable[[], object]) -> int:
    """Return the most memory that a call held at a time."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def changed(given: Recipe, path: str, value: Any) -> Recipe:
    """Return a recipe with one of its parameters changed."""
    mapping = given.to_mapping()
    *outer, last = path.split(".")
    at: Any = mapping
    for key in outer:
        at = at[int(key) if key.isdigit() else key]
    assert at[last] != value
    at[last] = value
    return Recipe.from_json(mapping)


def terms(digest: str, recipe: Recipe | None = None) -> Terms:
    """Return what a model with this recipe is served under."""
    return Terms(Registration(digest, recipe=recipe).to_json())


def inspect(model: Path, recipe: Recipe | None = None) -> dict[str, Any]:
    """Load a model file and say what it is, as a worker does."""
    from spectrogram_predictor.worker import engine

    digest = sha256(model)
    return engine.inspect(model, digest, model.suffix.removeprefix("."), terms(digest, recipe))


def ask(model: Path, recipe: Recipe | None, song: bytes, csv: bytes | None = None) -> np.ndarray:
    """Ask a model file about a song, as a worker does."""
    from spectrogram_predictor.worker import engine

    digest, format_ = sha256(model), model.suffix.removeprefix(".")
    return np.array(engine.predict(model, digest, format_, terms(digest, recipe), song, csv))
