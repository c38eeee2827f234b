"""Models that name what is none of a model's: code, functions, files, addresses."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

from tests.zoo.making import (
    DEEP,
    ENDINGS,
    Animal,
    Dialect,
    Trap,
    dense,
    of_config,
    saved,
    with_config,
    with_hdf5,
)


def lambdas(wrapped: bool) -> Iterator[Animal]:
    """Yield real models whose code writes the marker when it runs."""
    name = "CVE-2024-3660 CVE-2025-9905 CVE-2026-12481 Lambda"
    for ending in ENDINGS:
        for depth in (0, DEEP):

            def build(trap: Trap, ending: str = ending, depth: int = depth) -> bytes:
                return saved(with_lambda(writing(trap), depth, wrapped), ending)

            yield Animal(
                f"{name}{' wrapped' if wrapped else ''}, {depth} deep",
                ending,
                "^the layer 'odd' of class Lambda holds Python code",
                build,
            )


def writing(trap: Trap) -> str:
    """Return code that writes the marker."""
    return f"(open({str(trap.marker)!r}, 'w').close(), x)[1]"


def with_lambda(code: str, depth: int = 0, wrapped: bool = False) -> Any:
    """Build a model that runs code on ``x`` when it is called, so many models deep."""
    import keras

    layers = keras.layers
    # Not from around it: only what is in the code itself is saved.
    scope: dict[str, Any] = {}
    exec(f"run = lambda x: {code}", scope)
    layer = layers.Lambda(scope["run"], output_shape=(4,), name="odd")
    shape = (2, 4) if wrapped else (4,)
    part: Any = layers.TimeDistributed(layer, name="each") if wrapped else layer
    for level in range(depth):
        part = keras.Sequential([layers.Input(shape), part], name=f"level_{level}")
    return keras.Sequential([layers.Input(shape), part, layers.Flatten(), layers.Dense(3, name="answer")])


def _lookup(class_name: str, where: Callable[[Trap], str]) -> Callable[[Dialect, Trap], Any]:
    return lambda dialect, trap: dialect.layer(class_name, vocabulary=where(trap), output_mode="int")


def _fetch(trap: Trap) -> dict[str, Any]:
    return {"fname": "x", "origin": trap.url}


def _unsafe_then_lambda(dialect: Dialect, trap: Trap) -> Any:
    code = {"class_name": "__lambda__", "config": {"value": [base64.b64encode(b"\xe3").decode(), None, None]}}
    first = dialect.function("keras.config", "enable_unsafe_deserialization")
    inner = dialect.layer("Lambda", "code", function=code)
    return dialect.sequential(
        dialect.input(4), dialect.layer("Dense", units=3, activation=first), inner, name="odd"
    )


def names() -> Iterator[Animal]:
    """Yield what names classes and functions that are none of a model's."""
    lookup = "^the layer 'odd' of class {} reads a vocabulary"
    for class_name in ("StringLookup", "IntegerLookup", "TextVectorization"):
        yield from of_config(
            f"CVE-2025-12058 {class_name}",
            lookup.format(class_name),
            _lookup(class_name, lambda _: "/etc/hostname"),
        )
    yield from of_config(
        "CVE-2025-12058 address", lookup.format("StringLookup"), _lookup("StringLookup", lambda trap: trap.url)
    )
    yield from of_config(
        "CVE-2025-1550 os.system",
        "^the layer 'odd' of class Dense uses 'os.system'",
        lambda dialect, trap: dialect.layer("Dense", units=3, activation=dialect.function("os", "system")),
    )
    yield from of_config(
        "CVE-2025-1550 class",
        "^the layer 'odd' of class Popen is not one of Keras's own",
        lambda dialect, trap: dialect.part("Popen", {"name": "odd", "args": ["id"]}, "subprocess"),
    )
    yield from of_config(
        "CVE-2025-8747 get_file",
        "^the layer 'odd' of class Lambda holds Python code",
        lambda dialect, trap: dialect.layer(
            "Lambda", function=dialect.function("keras.utils", "get_file"), arguments=_fetch(trap)
        ),
    )
    yield from of_config(
        "CVE-2025-8747 get_file as activation",
        "^the layer 'odd' of class Dense uses 'keras.utils.get_file'",
        lambda dialect, trap: dialect.layer(
            "Dense", units=3, activation=dialect.function("keras.utils", "get_file")
        ),
    )
    yield from of_config(
        "CVE-2025-9906 unsafe mode",
        "^the layer 'odd' of class Dense uses 'keras.config.enable_unsafe_deserialization'",
        _unsafe_then_lambda,
    )
    yield from of_config(
        "CVE-2026-1462 TFSMLayer",
        "^the layer 'odd' of class TFSMLayer runs a program from another file",
        lambda dialect, trap: dialect.layer("TFSMLayer", filepath=str(trap.marker.parent), call_endpoint="serve"),
    )
    yield from of_config(
        "CVE-2026-12479 name",
        "^the layer '..' of class Dense has name='..', which looks like a path",
        lambda dialect, trap: dialect.layer("Dense", "..", units=3),
    )
    for class_name in ("TorchModuleWrapper", "JaxLayer", "FlaxLayer", "FeatureSpace", "Wrapper", "Layer"):
        yield from of_config(
            class_name,
            f"^the layer 'odd' of class {class_name} ",
            lambda dialect, trap, class_name=class_name: dialect.layer(class_name, module="gANLAS4="),
        )
    own = "^the layer 'odd' of class {0} (is not one of Keras's own|needs 'keras.layers.{0}', which)"
    for class_name in (
        "deserialize",
        "Input",
        "TFOpLambda",
        "exec",
        "TypeSpec",
        "CompositeTensor",
        "__typespec__",
    ):
        yield from of_config(
            class_name,
            own.format(class_name),
            lambda dialect, trap, class_name=class_name: dialect.layer(class_name, config={}),
        )
    code = {"class_name": "__lambda__", "config": {"value": ["4w==", None, None]}}
    yield from of_config(
        "code as initializer", "^the layer 'odd' of class Dense holds Python code", dense(kernel_initializer=code)
    )
    yield from of_config(
        "a wrapped Lambda",
        "^the layer 'within' of class Lambda holds Python code",
        lambda dialect, trap: dialect.layer("TimeDistributed", layer=dialect.layer("Lambda", "within")),
        (2, 4),
    )
    yield from of_config(
        "registered as another",
        "^the layer 'odd' of class Dense is (registered as 'evil>Dense'|not one of Keras's own)",
        lambda dialect, trap: dialect.part(
            "Dense" if dialect.part("", {}).get("module") else "evil>Dense",
            {"name": "odd", "units": 3},
            registered_name="evil>Dense",
        ),
    )
    yield from of_config(
        "a function of Keras's loader",
        "^the layer 'odd' of class Dense uses 'deserialize'",
        dense(kernel_initializer="deserialize"),
    )
    yield from of_config(
        "an array of texts",
        "^the layer 'odd' of class Dense has an array that does not hold numbers",
        dense(kernel_initializer={"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "U536870911"}}),
    )
    yield from of_config("a path", "which looks like a path", dense(data_format="/etc/passwd"))
    yield from of_config("an address", "which looks like a path", dense(data_format="gs:bucket"))
    yield from of_config("control characters", "control characters", dense(data_format="a\u0000b"))
    yield from of_config("a long text", "a text of 2000 characters", dense(data_format="a" * 2000))


def operations() -> Iterator[Animal]:
    """Yield models in which a node that nothing needs calls a function when the model is loaded."""
    functions = ("keras.utils.pad_sequences", "keras.config.set_dtype_policy", "keras.datasets.mnist.load_data")
    for full in functions:
        module, _, name = full.rpartition(".")
        for depth in (0, DEEP):

            def build(trap: Trap, module: str = module, name: str = name, depth: int = depth) -> bytes:
                dialect = Dialect("keras")
                switch = dialect.part("Switch", {"name": "odd"}, "keras.src.ops.core", registered_name="Switch")
                arguments = [[dialect.function(module, name)], [[1]], 25_000_000, "float64"]
                dense = dialect.layer("Dense", "dense", units=3)
                part = dialect.graph((dialect.input(4), [], []), (switch, ["in"], arguments), (dense, ["in"], []))
                return with_config("keras", dialect.deep(part, depth, 4) if depth else part)

            yield Animal(
                f"an operation that calls {full}, {depth} deep",
                "keras",
                f"uses '{full}'|^the layer 'odd' of class Switch needs 'keras.src.ops.core.Switch'",
                build,
            )


def training() -> Iterator[Animal]:
    """Yield models that were trained with something bad: of a model in a model, that is loaded."""
    losses = {
        "os.system": ("os", "system"),
        "keras.utils.get_file": ("keras.utils", "get_file"),
    }
    for full, (module, name) in losses.items():

        def archive_of(trap: Trap, module: str = module, name: str = name, depth: int = 0) -> bytes:
            dialect = Dialect("keras")
            compiled = {"compile_config": {"optimizer": "adam", "loss": {"out": [dialect.function(module, name)]}}}
            part = dialect.sequential(dialect.input(4), dialect.layer("Dense", "dense", units=3), **compiled)
            for level in range(depth):
                part = dialect.sequential(dialect.input(4), part, name=f"level_{level}")
            return with_config("keras", part)

        def hdf5_of(trap: Trap, module: str = module, name: str = name) -> bytes:
            training = json.dumps({"loss": Dialect("h5").function(module, name), "optimizer_config": None})
            return with_hdf5("h5", lambda file: file.attrs.__setitem__("training_config", training))

        said = f"uses '{full}', which is not one of Keras's own"
        yield Animal(f"a loss {full}", "keras", said, archive_of)
        yield Animal(f"a loss {full}", "h5", said, hdf5_of)
        yield Animal(
            f"a loss {full}, {DEEP} deep",
            "keras",
            said,
            lambda trap, build=archive_of: build(trap, depth=DEEP),  # type: ignore[misc]
        )

    def own_loss(trap: Trap) -> bytes:
        dialect = Dialect("keras")
        compiled = {"compile_config": {"optimizer": "adam", "loss": dialect.function("notebook", "own")}}
        inner = dialect.sequential(
            dialect.input(4), dialect.layer("Dense", "dense", units=3), name="in", **compiled
        )
        return with_config("keras", dialect.sequential(dialect.input(4), inner))

    yield Animal("a loss of its own in a model within", "keras", "uses 'notebook.own', which is not one", own_loss)
