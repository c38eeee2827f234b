"""Models with arguments that are more than Keras takes them for, and with layers that are called together."""

from collections.abc import Iterator
from typing import Any

from tests.zoo.making import ENDINGS, Animal, Dialect, Trap, dense, of_config, with_config


def arguments() -> Iterator[Animal]:
    """Yield layers of which an argument is more than it should be: a layer, a table."""
    for argument in ("activation", "recurrent_activation"):
        yield from of_config(
            f"an {argument} that is a layer",
            f"^the layer 'odd' of class LSTM has {argument} of class RepeatVector, which is of another kind",
            lambda dialect, trap, argument=argument: dialect.layer(
                "LSTM", units=1, **{argument: dialect.layer("RepeatVector", "in", n=10**9)}
            ),
            (4, 4),
        )
    yield from of_config(
        "an activation that is a model",
        "^the layer 'odd' of class Dense has activation of class Sequential, which is of another kind",
        dense(activation={"class_name": "Sequential", "config": {"name": "in", "layers": []}}),
    )
    for name, argument in (
        ("ELU", "alpha"), ("LayerNormalization", "epsilon"), ("GroupNormalization", "epsilon"),
        ("Masking", "mask_value"),
    ):  # fmt: skip
        yield from of_config(
            f"{argument} of {name} that is a table",
            f"^the layer 'odd' of class {name} has several numbers for {argument}, which is one",
            lambda dialect, trap, name=name, argument=argument: dialect.layer(
                name, **{argument: [[0.0]] * 20_000}
            ),
            (20_000,),
        )
    yield from of_config(
        "a mask that is an array",
        "^the layer 'odd' of class Masking has several numbers for mask_value, which is one",
        lambda dialect, trap: dialect.layer(
            "Masking",
            mask_value={"class_name": "__numpy__", "config": {"value": [[0.0]] * 20_000, "dtype": "float32"}},
        ),
        (20_000,),
    )
    for name, config in (
        ("CategoryEncoding", {"num_tokens": 1000}),
        ("Discretization", {"bin_boundaries": [float(n) for n in range(1000)]}),
    ):
        yield from of_config(
            f"a row for each number, of {name}",
            "^the model would have [0-9,]+ weights, and its file holds [0-9,]+ numbers",
            lambda dialect, trap, name=name, config=config: dialect.sequential(
                dialect.input(1000),
                dialect.layer(name, output_mode="one_hot", **config),
                dialect.layer("Flatten", "flat"),
                dialect.layer("Dense", "big", units=1000),
                name="model_in",
            ),
            (1000,),
        )
    yield from of_config(
        "windows that end the process",
        "^the layer 'odd' of class AdaptiveMaxPooling1D is of a size that cannot be told: .* ends the process",
        lambda dialect, trap: dialect.layer("AdaptiveMaxPooling1D", output_size=1),
        (10, 4),
    )
    yield from of_config(
        "what can be normalized anew",
        "^the model would have [0-9,]+ weights, and its file holds [0-9,]+ numbers",
        lambda dialect, trap: dialect.layer("BatchNormalization", renorm=True),
        (2**18,),
    )


def branches() -> Iterator[Animal]:
    """Yield models whose layers could be worked off one by one, and are not."""
    numbers = "^the model would hold [0-9,]+ numbers at a time"

    def beside(dialect: Dialect, trap: Trap) -> Any:
        ends, layers = [], []
        for n in range(60):
            layers += [
                (dialect.layer("UpSampling1D", f"much_{n}", size=2**22), ["in"], []),
                (dialect.layer("GlobalMaxPooling1D", f"little_{n}"), [f"much_{n}"], []),
            ]
            ends.append(f"little_{n}")
        return dialect.graph((dialect.input(1, 1), [], []), *layers, (dialect.layer("Add", "all"), ends, []))

    yield from of_config("branches side by side", numbers, beside, (1, 1))
    for name in ("Attention", "AdditiveAttention"):
        for ending in ENDINGS:

            def build(trap: Trap, name: str = name, ending: str = ending) -> bytes:
                dialect = Dialect(ending)
                shapes = {"query": (700, 1), "value": (700, 1), "key": (700, 4096)}
                if name == "Attention":
                    shapes = {"query": (20_000, 1), "value": (1, 1), "key": (20_000, 1)}
                given = [
                    (dialect.layer("InputLayer", one, batch_shape=[None, *shape], dtype="float32"), [], [])
                    for one, shape in shapes.items()
                ]
                model = dialect.graph(*given, (dialect.layer(name), list(shapes), []))
                model["config"]["input_layers"] = [[one, 0, 0] for one in shapes]
                return with_config(ending, model)

            yield Animal(f"a key of another size, for {name}", ending, numbers, build)
