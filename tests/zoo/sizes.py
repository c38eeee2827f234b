"""Models of a hundred bytes that would take a terabyte, and configurations that are too much to read."""

from collections.abc import Iterator
from typing import Any

from tests.zoo.making import (
    DEEP,
    ENDINGS,
    Animal,
    Dialect,
    Trap,
    dense,
    of_config,
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
    yield from of_config("steps", numbers, lambda dialect, trap: dialect.layer("RepeatVector", n=10**12))
    yield from of_config(
        "unrolled steps",
        told.format("LSTM"),
        lambda dialect, trap: dialect.layer("LSTM", units=1, unroll=True),
        (10**6, 1),
    )
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
    yield from of_config("models that call models", "calls its layers more than", _calls)
    yield from of_config("one object of two sizes", "shares an object with another", _shared)


def _calls(dialect: Dialect, trap: Trap) -> Any:
    part = dialect.layer("Dense", "dense", units=4)
    for level in range(DEEP):
        part = dialect.graph((dialect.input(4), [], []), (part, ["in"], []))
        part["config"]["name"] = f"level_of_{level}"
        part["config"]["layers"][1]["inbound_nodes"] *= 20
    return part


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
