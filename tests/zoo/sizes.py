"""Models of a hundred bytes that would take a terabyte, and configurations that are too much to read."""

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from tests.zoo.making import (
    DEEP,
    ENDINGS,
    Animal,
    Dialect,
    Trap,
    archived,
    dense,
    members,
    of_config,
    with_config,
    with_hdf5,
    with_text,
)


def sizes() -> Iterator[Animal]:
    """Yield models of a hundred bytes that would take a terabyte."""
    weights = "^the model would have [0-9,]+ weights, and its file holds [0-9,]+ numbers"
    numbers = "^the model would hold [0-9,]+ numbers at a time"
    told = "^the layer 'odd' of class {} is of a size that cannot be told"
    yield from of_config("a trillion units", weights, dense(units=10**12))
    yield from of_config("a matrix of low rank", weights, dense(lora_rank=10**12))
    yield from of_config("units below zero", told.format("Dense"), dense(units=-(10**12)))
    yield from of_config("units that are no number", told.format("Dense"), dense(units="many"))
    yield from of_config("units without end", told.format("Dense"), dense(units=float("inf")))
    yield from of_config("too large a number", "which is too large a number", dense(units=10**30))
    yield from of_config(
        "a table", weights, lambda dialect, trap: dialect.layer("Embedding", input_dim=10**9, output_dim=10**3)
    )
    yield from of_config(
        "a table of low rank",
        weights,
        lambda dialect, trap: dialect.layer(
            "ReversibleEmbedding", input_dim=9, output_dim=9, tie_weights=True, lora_rank=10**8
        ),
    )
    yield from of_config(
        "scales for more than it is given",
        told.format("Rescaling"),
        lambda dialect, trap: dialect.layer("Rescaling", scale=[[0.1]] * 10**4, offset=0.0),
    )
    yield from of_config("steps", numbers, lambda dialect, trap: dialect.layer("RepeatVector", n=10**12))
    yield from of_config(
        "unrolled steps",
        told.format("LSTM"),
        lambda dialect, trap: dialect.layer("LSTM", units=1, unroll=True),
        (10**6, 1),
    )
    yield from _unrolled()
    yield from of_config(
        "upsampling", numbers, lambda dialect, trap: dialect.layer("UpSampling2D", size=[10**5, 10**5]), (4, 4, 1)
    )
    yield from of_config(
        "padding", numbers, lambda dialect, trap: dialect.layer("ZeroPadding2D", padding=10**6), (4, 4, 1)
    )
    yield from of_config(
        "resizing", numbers, lambda dialect, trap: dialect.layer("Resizing", height=10**6, width=10**6), (4, 4, 1)
    )
    yield from of_config(
        "both ways",
        weights,
        lambda dialect, trap: dialect.layer("Bidirectional", layer=dialect.layer("GRU", "in", units=10**7)),
        (4, 4),
    )
    yield from of_config(
        "each step",
        weights,
        lambda dialect, trap: dialect.layer("TimeDistributed", layer=dialect.layer("Dense", "in", units=10**9)),
        (4, 4),
    )
    yield from of_config(
        "attention",
        numbers,
        lambda dialect, trap: dialect.graph(
            (dialect.input(10**6, 1), [], []), (dialect.layer("Attention"), ["in", "in"], [])
        ),
        (10**6, 1),
    )
    yield from of_config(
        "built for more than it is given",
        weights,
        lambda dialect, trap: {
            **dialect.layer("Dense", units=10**3),
            "build_config": {"input_shape": [None, 10**9]},
        },
    )
    yield from of_config(
        "many small steps to much",
        numbers,
        lambda dialect, trap: dialect.sequential(
            dialect.input(2, 2, 1),
            *(dialect.layer("UpSampling2D", f"up_{n}", size=[2, 2]) for n in range(20)),
            name="odd",
        ),
        (2, 2, 1),
    )
    yield from of_config(
        "an input of one number for all",
        weights,
        lambda dialect, trap: dialect.sequential(
            dialect.layer("Dense", "big", units=10**4, input_dim=10**9), name="odd"
        ),
    )
    yield from of_config(
        "an input that is said in another way",
        weights,
        lambda dialect, trap: dialect.sequential(
            dialect.layer("InputLayer", "in", shape=[10**9]),
            dialect.layer("Dense", "big", units=10**4),
            name="odd",
        ),
    )
    yield from of_config(
        "a model that is built for more than it is given",
        weights,
        lambda dialect, trap: dialect.sequential(
            dialect.layer("Dense", "big", units=10**4), name="odd", build_config={"input_shape": [None, 10**9]}
        ),
    )
    yield from of_config(
        "a sequence that looks like a graph",
        weights,
        lambda dialect, trap: {
            **dialect.sequential(),
            "config": {
                "name": "odd",
                "layers": [dialect.input(10**6), dialect.layer("Dense", "big", units=10**6)],
                "input_layers": [],
                "output_layers": [],
            },
        },
    )
    yield from of_config(
        "no windows at all",
        numbers,
        lambda dialect, trap: dialect.sequential(
            dialect.layer("InputLayer", "in", batch_shape=[0, 4]),
            dialect.layer("RepeatVector", n=10**9),
            name="odd",
        ),
    )
    yield from of_config(
        "two directions of two sizes",
        weights,
        lambda dialect, trap: dialect.layer(
            "Bidirectional",
            layer=dialect.layer("LSTM", "one", units=1),
            backward_layer=dialect.layer("LSTM", "two", units=10**6),
        ),
        (4, 4),
    )
    yield from _spellings()
    yield from _operands()
    yield from _packed()
    yield from _scratch()
    yield from of_config("models that call models", "calls its layers more than", _calls)
    yield from of_config("models with outputs without end", "layers have more than [0-9]+ outputs", _outputs)
    yield from of_config("one object of two sizes", "shares an object with another", _shared)


def _unrolled() -> Iterator[Animal]:
    """Yield layers that Keras calls for each step, and of which it makes as many."""
    often, one = "calls its layers step by step, more than [0-9]+ times", {"units": 1}
    yield from of_config(
        "a layer for each of too many steps",
        "^the layer 'odd' of class TimeDistributed is of a size that cannot be told: ValueError 1000000 steps",
        lambda dialect, trap: dialect.layer("TimeDistributed", layer=dialect.layer("Dense", "in", **one)),
        (10**6, 1),
    )
    yield from of_config(
        "layers one after the other for each step",
        often,
        lambda dialect, trap: dialect.layer(
            "TimeDistributed",
            layer=dialect.sequential(*(dialect.layer("Dense", f"in_{n}", **one) for n in range(20))),
        ),
        (1000, 1),
    )
    yield from of_config(
        "cells of each unrolled step",
        often,
        lambda dialect, trap: dialect.layer(
            "RNN",
            unroll=True,
            cell=dialect.layer(
                "StackedRNNCells", "all", cells=[dialect.layer("GRUCell", f"in_{n}", **one) for n in range(20)]
            ),
        ),
        (1000, 1),
    )
    yield from of_config(
        "many unrolled layers",
        often,
        lambda dialect, trap: dialect.sequential(
            *(dialect.layer("LSTM", f"in_{n}", units=1, unroll=True, return_sequences=True) for n in range(20)),
            name="odd",
        ),
        (1000, 1),
    )


def _spellings() -> Iterator[Animal]:
    """Yield layers that say what Keras understands in another way."""
    told = "^the layer 'odd' of class {} is of a size that cannot be told: ValueError {}"
    for spelling in ("CHANNELS_FIRST", "Channels_First", "channels_first "):
        yield from of_config(
            f"channels that are {spelling!r}",
            told.format("GlobalAveragePooling2D", f"data_format='{spelling}'"),
            lambda dialect, trap, spelling=spelling: dialect.sequential(
                dialect.input(2**15, 1, 1),
                dialect.layer("GlobalAveragePooling2D", data_format=spelling),
                dialect.layer("Dense", "big", units=2**14),
                name="model_in",
            ),
            (2**15, 1, 1),
        )
    yield from of_config(
        "padding in capitals",
        told.format("Conv2DTranspose", "padding='VALID'"),
        lambda dialect, trap: dialect.layer("Conv2DTranspose", filters=1, kernel_size=2**14, padding="VALID"),
        (4, 4, 1),
    )


def _packed() -> Iterator[Animal]:
    """Yield models whose weights the file would hold if what is packed counted as what it becomes."""
    weights = "^the model would have [0-9,]+ weights, and its file holds [0-9,]+ numbers"
    dialect = Dialect("keras")
    model = dialect.sequential(dialect.input(2**11), dialect.layer("Dense", "big", units=2**11))

    def packed(ending: str, method: int = zipfile.ZIP_STORED, **how: Any) -> bytes:
        nothing = np.zeros(2**21, "u1")
        nothing[::32] = np.random.default_rng(0).integers(0, 256, 2**16, "u1")
        data = with_hdf5(ending, lambda file: file.create_dataset("nothing", data=nothing, **how))
        if ending == "keras":
            return archived({**members(data), "config.json": json.dumps(model).encode()}, method)
        file = io.BytesIO(data)
        with h5py.File(file, "r+") as opened:
            opened.attrs["model_config"] = json.dumps(model)
        return file.getvalue()

    for ending in ENDINGS:
        yield Animal(
            "packed numbers",
            ending,
            weights,
            lambda trap, ending=ending: packed(ending, chunks=(2**21,), compression="gzip"),  # type: ignore[misc]
        )
    yield Animal("a packed archive", "keras", weights, lambda trap: packed("keras", zipfile.ZIP_DEFLATED))


def _operands() -> Iterator[Animal]:
    """Yield operations on numbers in the file, which stand where they are not looked for."""
    numbers = "^the model would hold [0-9,]+ numbers at a time"
    column = {"class_name": "__numpy__", "config": {"value": [[0.0]] * 50_000, "dtype": "float32"}}

    def on_a_row(class_name: str, *arguments: Any, module: str = "keras.src.ops.numpy", **named: Any) -> Any:
        """Return a model that calls something; in its arguments, "x" stands for a row of 8192."""
        dialect = Dialect("keras")
        operation = dialect.part(class_name, {"name": "odd"}, module, registered_name=class_name)
        model = dialect.graph((dialect.input(1, 8192), [], []), (operation, ["in"], []))
        (node,) = model["config"]["layers"][1]["inbound_nodes"]
        (tensor,) = node["args"]
        text = json.dumps({"args": arguments, "kwargs": named}).replace('"x"', json.dumps(tensor))
        model["config"]["layers"][1]["inbound_nodes"] = [json.loads(text)]
        return model

    for name, make in {
        "first": lambda: on_a_row("Matmul", column, "x"),
        "second by its name": lambda: on_a_row("Matmul", x2="x", x1=column),
        "in a list": lambda: on_a_row("Add", [[column, "x"]], module="keras.layers"),
        "as a list": lambda: on_a_row("Add", [[0.0]] * 50_000, "x"),
        "as a mask": lambda: on_a_row("Softmax", "x", column, module="keras.layers"),
        "as a bound": lambda: on_a_row("Maximum", "x", x2=column),
    }.items():
        for depth in (0, DEEP):

            def build(trap: Trap, make: Any = make, depth: int = depth) -> bytes:
                return with_config("keras", Dialect("keras").deep(make(), depth, 1, 8192) if depth else make())

            yield Animal(f"numbers that are {name}, {depth} deep", "keras", numbers, build)

    def older(trap: Trap) -> bytes:
        model = on_a_row("Add")
        model["config"]["layers"][1]["inbound_nodes"] = [[["in", 0, 0, {"x2": [[0.0]] * 50_000}]]]
        return with_config("keras", model)

    yield Animal("numbers that are in an older node", "keras", numbers, older)


def _scratch() -> Iterator[Animal]:
    """Yield layers that take much only while they work, for few weights and a small answer."""
    numbers = "^the model would hold [0-9,]+ numbers at a time"
    wide = {"dilation_rate": [9000, 9000]}
    for name, shape, config in (
        ("Resizing", (128, 128, 1), {"height": 50_000, "width": 1, "pad_to_aspect_ratio": True}),
        ("Resizing", (1, 10**4, 1), {"height": 10**4, "width": 1, "antialias": True}),
        ("ContrastLimitedAdaptiveHistogramEqualization", (1600, 1600, 1), {}),
        ("DepthwiseConv2D", (16, 16, 1), {"kernel_size": [3, 3], **wide, "padding": "same"}),
        ("DepthwiseConv2D", (16, 16, 1), {"kernel_size": [1, 1], **wide}),
        ("SeparableConv2D", (16, 16, 1), {"filters": 1, "kernel_size": [3, 3], **wide, "padding": "same"}),
        ("ConvLSTM2D", (1, 16, 16, 1), {"filters": 1, "kernel_size": [3, 3], **wide, "padding": "same"}),
        ("Conv1D", (16, 1), {"filters": 1, "kernel_size": [3], "dilation_rate": [10**8], "padding": "causal"}),
        ("Conv2DTranspose", (300, 300, 1), {"filters": 1, "kernel_size": [50, 50]}),
        ("AdaptiveAveragePooling2D", (10**4, 1, 1), {"output_size": [1, 10**4]}),
    ):  # fmt: skip
        yield from of_config(
            f"{name} {' '.join(config)}",
            numbers,
            lambda dialect, trap, name=name, config=config: dialect.layer(name, **config),
            shape,
        )
    yield from of_config(
        "attention that adds",
        numbers,
        lambda dialect, trap: dialect.graph(
            (dialect.input(3000, 32), [], []),
            (dialect.layer("Attention", score_mode="concat", dropout=0.0), ["in", "in"], []),
        ),
        (3000, 32),
    )
    yield from of_config(
        "a crop that is none",
        numbers,
        lambda dialect, trap: dialect.sequential(
            dialect.input(4000, 4000, 1),
            dialect.layer("RandomCrop", height=1, width=1),
            dialect.layer("UpSampling2D", "up", size=[3, 3]),
            name="model_in",
        ),
        (4000, 4000, 1),
    )


def _calls(dialect: Dialect, trap: Trap) -> Any:
    part = dialect.layer("Dense", "dense", units=4)
    for level in range(DEEP):
        part = dialect.graph((dialect.input(4), [], []), (part, ["in"], []))
        part["config"]["name"] = f"level_of_{level}"
        part["config"]["layers"][1]["inbound_nodes"] *= 20
    return part


def _outputs(dialect: Dialect, trap: Trap) -> Any:
    inner = dialect.graph((dialect.input(4), [], []), (dialect.layer("ReLU"), ["in"], []))
    inner["config"]["output_layers"] *= 30_000
    return dialect.graph((dialect.input(4), [], []), (inner, ["in"], []))


def _shared(dialect: Dialect, trap: Trap) -> Any:
    layers = [
        {**dialect.layer("Dense", name, units=units), "shared_object_id": 7}
        for name, units in (("a", 10**6), ("b", 1))
    ]
    return dialect.sequential(dialect.input(4), *layers, name="odd")


def texts() -> Iterator[Animal]:
    """Yield configurations that are too much to read."""
    deep = '{"class_name":"Sequential","config":{"name":"m","layers":' + "[" * 90_000 + "]" * 90_000 + "}}"
    many = '{"class_name":"Sequential","config":{"name":"m","layers":[' + "[]," * 1_300_000 + "[]]}}"
    wide = '{"class_name":"Sequential","config":{"name":"m","layers":[' + "[]," * 2_000_000 + "[]]}}"
    twice = '{"class_name":"Sequential","class_name":"Lambda","config":{}}'
    digits = '{"class_name":"Sequential","config":{"name":"m","layers":[' + "9" * 6000 + "]}}"
    for name, text, reason in (
        ("deep", deep, "lists and mappings deep"),
        ("fairly deep", deep.replace("[" * 89_800, "").replace("]" * 89_800, ""), "lists and mappings deep"),
        ("wide", wide, "has [0-9]+ bytes; the most is"),
        ("of many items", many, "has more than 250000 items"),
        ("said twice", twice, "says one thing twice"),
        ("digits", digits, "is not JSON"),
        ("a list", "[]", "^not a Keras model"),
        ("not JSON", "{", "is not JSON"),
    ):
        for ending in ENDINGS:
            yield Animal(
                f"a configuration: {name}",
                ending,
                reason,
                lambda trap, ending=ending, text=text: with_text(ending, text),  # type: ignore[misc]
            )
