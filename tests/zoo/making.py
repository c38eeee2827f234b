"""What the animals are made of: a harmless model, and ways to change it."""

import functools
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

DEEP = 3
ENDINGS = ("h5", "keras")


@dataclass(frozen=True)
class Trap:
    """What shows that something got through: a file that code writes, a port that nobody should come to."""

    marker: Path
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/x"


@dataclass(frozen=True)
class Animal:
    """A file, and what must be said of it."""

    name: str
    ending: str
    reason: str
    make: Callable[[Trap], bytes]


@functools.cache
def harmless(ending: str) -> bytes:
    """A model of two layers that loads, as Keras writes it."""
    import keras

    keras.utils.set_random_seed(11)
    layers = keras.layers
    return saved(keras.Sequential([layers.Input((4,)), layers.Dense(3, name="dense")]), ending)


def saved(model: Any, ending: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model.{ending}"
        model.save(path)
        return path.read_bytes()


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def archived(contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as opened:
        for name, data in contents.items():
            opened.writestr(name, data)
    return file.getvalue()


def with_text(ending: str, text: str) -> bytes:
    """Return the harmless model with another configuration."""
    if ending == "keras":
        return archived({**members(harmless("keras")), "config.json": text.encode()})
    return with_hdf5("h5", lambda file: file.attrs.__setitem__("model_config", text))


def with_config(ending: str, config: Any) -> bytes:
    return with_text(ending, json.dumps(config))


def with_hdf5(ending: str, change: Callable[[h5py.File], Any], **how: Any) -> bytes:
    """Return the harmless model with something changed in its HDF5 file."""
    data = harmless(ending) if ending == "h5" else members(harmless("keras"))["model.weights.h5"]
    file = io.BytesIO(data)
    with h5py.File(file, "r+", **how) as opened:
        after = change(opened)
    # What no library would write is written over what one has.
    made = after(file.getvalue()) if callable(after) else file.getvalue()
    return made if ending == "h5" else archived({**members(harmless("keras")), "model.weights.h5": made})


class Dialect:
    """How a configuration says things: with modules in .keras archives, without in HDF5 files."""

    def __init__(self, ending: str) -> None:
        self._modules = ending == "keras"

    def part(
        self, class_name: str, config: Any, module: str | None = "keras.layers", **more: Any
    ) -> dict[str, Any]:
        made = {"class_name": class_name, "config": config, **more}
        return (
            {"module": module, **made, "registered_name": more.get("registered_name")} if self._modules else made
        )

    def function(self, module: str, name: str) -> dict[str, Any]:
        return {"module": module, "class_name": "function", "config": name, "registered_name": name}

    def layer(self, class_name: str, name: str = "odd", **config: Any) -> dict[str, Any]:
        return self.part(class_name, {"name": name, **config})

    def input(self, *shape: int | None) -> dict[str, Any]:
        return self.layer("InputLayer", "in", batch_shape=[None, *shape], dtype="float32")

    def sequential(self, *layers: Any, name: str = "model", **more: Any) -> dict[str, Any]:
        return self.part("Sequential", {"name": name, "layers": list(layers)}, "keras", **more)

    def deep(self, part: Any, depth: int, *shape: int) -> dict[str, Any]:
        """Return a model with a layer in it, so many models deep."""
        for level in range(depth):
            part = self.sequential(self.input(*shape), part, name=f"level_{level}")
        return self.sequential(self.input(*shape), part)

    def graph(self, *layers: tuple[dict[str, Any], list[str], list[Any]]) -> dict[str, Any]:
        """Return a functional model: layers, the names of those before, and further arguments."""
        made = []
        for layer, before, further in layers:
            name = layer["config"]["name"]
            nodes = [self._node(before, further)] if before else []
            made.append({**layer, "name": name, "inbound_nodes": nodes})
        ends = {"input_layers": [["in", 0, 0]], "output_layers": [[made[-1]["name"], 0, 0]]}
        config = {"name": "graph", "layers": made, **ends}
        return self.part("Functional", config, "keras.src.models.functional")

    def _node(self, before: list[str], further: list[Any]) -> Any:
        if not self._modules:
            return [[name, 0, 0, {}] for name in before]
        tensors = [
            {
                "class_name": "__keras_tensor__",
                "config": {"shape": [None, 4], "dtype": "float32", "keras_history": [name, 0, 0]},
            }
            for name in before
        ]
        return {"args": [tensors[0] if len(tensors) == 1 else tensors, *further], "kwargs": {}}


def of_config(
    name: str, reason: str, make: Callable[[Dialect, Trap], Any], shape: tuple[int, ...] = (4,)
) -> Iterator[Animal]:
    """Yield a layer in both formats, at the top and three models deep."""
    for ending in ENDINGS:
        for depth in (0, DEEP):

            def build(trap: Trap, ending: str = ending, depth: int = depth) -> bytes:
                dialect = Dialect(ending)
                return with_config(ending, dialect.deep(make(dialect, trap), depth, *shape))

            yield Animal(f"{name}, {depth} deep", ending, reason, build)


def dense(**config: Any) -> Callable[[Dialect, Trap], Any]:
    return lambda dialect, trap: dialect.layer("Dense", **{"units": 3, **config})
