"""Shapes of arrays that are never made, and what can be said of them.

Sizes are Python's integers, however large a model says that they are.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Shape = tuple[int, ...]
"""With the batch; sizes that are open have been given a value."""

OPEN = 256
"""What stands for a size that the model leaves open; what a song makes of it is bounded elsewhere."""

Config = Mapping[str, Any]

Part = Mapping[str, Any]
"""Whatever has a ``class_name`` and a ``config``."""


@dataclass(frozen=True)
class Made:
    """What one call of a layer makes.

    Parameters
    ----------
    outputs : list of Shape
        Of each output.
    weights : int
        Numbers that the layer keeps.
    scratch : int
        Numbers that it holds beside inputs and outputs while it works.
    """

    outputs: list[Shape]
    weights: int = 0
    scratch: int = 0


Rule = Callable[[Config, list[Shape]], Made]


def size(shape: Sequence[int]) -> int:
    """Return how many numbers a shape has."""
    return math.prod(shape)


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Return the shape of what is computed number by number from several."""
    rank = max(map(len, shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + tuple(shape) for shape in shapes]
    return tuple(max(sizes) for sizes in zip(*padded, strict=True))


def concatenate(shapes: Sequence[Shape], axis: int) -> Shape:
    """Return the shape of several arrays behind one another."""
    first = list(shapes[0])
    first[axis] = sum(shape[axis] for shape in shapes)
    return tuple(first)


def reshaped(shape: Shape, target: Sequence[int]) -> Shape:
    """Return a target shape with its one open size filled in."""
    known = math.prod(n for n in target if n != -1)
    return tuple(n if n != -1 else math.ceil(size(shape) / max(known, 1)) for n in target)


def many(value: Any, rank: int) -> list[int]:
    """Return as many sizes as there are axes, of one for all or one each."""
    values = [int(n) for n in value] if isinstance(value, list) else [int(value)] * rank
    if len(values) != rank:
        raise ValueError(f"{len(values)} sizes for {rank} axes")
    return values


def is_channels_first(config: Config) -> bool:
    """Tell where the channels are; Keras would take other spellings too."""
    given = config.get("data_format")
    if given not in (None, "channels_first", "channels_last"):
        raise ValueError(f"data_format={given!r}")
    return bool(given == "channels_first")


def is_padded(config: Config) -> bool:
    """Tell whether there are as many windows as places; Keras would take other spellings too."""
    given = config.get("padding", "valid")
    if given not in ("valid", "same", "causal"):
        raise ValueError(f"padding={given!r}")
    return bool(given != "valid")


def spatial(config: Config, shape: Shape) -> tuple[list[int], int, Callable[[Sequence[int], int], Shape]]:
    """Return sizes, channels, and what puts both together again."""
    batch, *rest = shape
    if is_channels_first(config):
        channels, *sizes = rest
        return sizes, channels, lambda sizes, channels: (batch, channels, *sizes)
    *sizes, channels = rest
    return sizes, channels, lambda sizes, channels: (batch, *sizes, channels)


def windowed(sizes: Sequence[int], config: Config, window: str, strides: Any) -> list[int]:
    """Return how many windows there are along each axis."""
    widths, steps = many(config[window], len(sizes)), many(strides, len(sizes))
    gaps = many(config.get("dilation_rate", 1), len(sizes))
    if is_padded(config):
        return [math.ceil(n / step) for n, step in zip(sizes, steps, strict=True)]
    return [
        max(0, (n - gap * (width - 1) - 1) // step + 1)
        for n, width, step, gap in zip(sizes, widths, steps, gaps, strict=True)
    ]


def adapted(config: Config, rows: int, columns: int) -> int:
    """Return the weights that fine-tuning of low rank adds to a matrix."""
    rank = config.get("lora_rank")
    return int(rank) * (rows + columns) if rank else 0
