"""What each call in a graph of layers is made on, in both of Keras's dialects: outputs of others, and numbers.

Keras takes arguments by their places and their names, and so the order in a file says nothing by itself.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spectrogram_predictor.worker import operations
from spectrogram_predictor.worker.shapes import Config, Part, Shape

Reference = tuple[str, int, int]
"""A layer's name, which of its calls, and which output of that."""

_QUERIES = ("query", "value", "key")
_NAMES = {
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention", "GroupedQueryAttention"), _QUERIES),
    "Matmul": ("x1", "x2"),
}
"""By class: the arguments on which sizes depend, where there are several and they differ."""


@dataclass(frozen=True)
class Constant:
    """Numbers that the file holds among the arguments of a call."""

    shape: Shape


Operand = Reference | Constant


@dataclass(frozen=True)
class Node:
    """One call of a layer in a graph.

    Parameters
    ----------
    layer : mapping
        As the file has it.
    operands : list of Operand
        What it is called on, in the order in which the layer takes them.
    beside : list of Operand
        What else it is given, such as masks and states.
    extra : mapping
        Arguments of the call that belong to the layer's configuration.
    """

    layer: Part
    operands: list[Operand]
    beside: list[Operand]
    extra: Config

    @property
    def references(self) -> list[Reference]:
        """The outputs of others among all of that."""
        return [one for one in [*self.operands, *self.beside] if not isinstance(one, Constant)]


def read(layer: Part, node: Any) -> Node:
    """Read a call of a layer.

    Parameters
    ----------
    layer : mapping
        As the file has it.
    node : object
        One of its ``inbound_nodes``.

    Raises
    ------
    ValueError
        What it is called on cannot be told.
    """
    # Keras 2: [name, call, output, further arguments] each.
    args, kwargs = _legacy(node) if isinstance(node, list) else (node.get("args", []), node.get("kwargs", {}))
    if layer["class_name"] == "GetItem":
        behind = [*args[1:], *kwargs.values()]
        beside = [one for one in _operands(behind) if not isinstance(one, Constant)]
        return Node(layer, list(_operands(args[:1])), list(beside), {"key": behind[0]})
    first, others = _sorted(layer, args, kwargs)
    return Node(layer, list(_operands(first)), list(_operands(others)), {})


def is_operation(layer: Part) -> bool:
    """Tell whether a layer is a single operation."""
    return str(layer.get("module")).startswith("keras.src.ops.")


def references(value: Any) -> list[Reference]:
    """Return the ends of a graph: one, or lists or mappings of them."""
    if _is_reference(value):
        return [(value[0], int(value[1]), int(value[2]))]
    values = value.values() if isinstance(value, Mapping) else value
    return [reference for one in values for reference in references(one)]


def _sorted(layer: Part, args: list[Any], kwargs: Config) -> tuple[list[Any], list[Any]]:
    """Return the arguments on which sizes depend in the order of the layer's own, and the others."""
    if names := _NAMES.get(layer["class_name"]):
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        return [given[name] for name in names if name in given], [
            *args[len(names) :],
            *(value for name, value in kwargs.items() if name not in names),
        ]
    if not args and sum(1 for one in kwargs.values() if any(_operands(one))) > 1:
        raise ValueError("it is called on several by their names")
    values = [*args, *kwargs.values()]
    # What a layer takes behind the first are masks and states.
    return (values, []) if is_operation(layer) or not args else (values[:1], values[1:])


def _legacy(node: list[Any]) -> tuple[list[Any], Config]:
    inputs = [(str(one[0]), int(one[1]), int(one[2])) for one in node]
    further = {
        name: value
        for one in node
        if len(one) > 3 and isinstance(one[3], Mapping)
        for name, value in one[3].items()
    }
    kwargs = {name: references(one)[0] if _is_reference(one) else one for name, one in further.items()}
    return [inputs], kwargs


def _is_reference(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and isinstance(value[0], str)


def _operands(value: Any) -> Iterator[Operand]:
    """Yield the tensors and the numbers in an argument, in their order."""
    if isinstance(value, tuple):
        yield value
    elif shape := operations.constant(value):
        yield Constant(shape)
    elif isinstance(value, list):
        for one in value:
            yield from _operands(one)
    elif isinstance(value, Mapping) and value.get("class_name") == "__keras_tensor__":
        name, call, index = value["config"]["keras_history"]
        yield str(name), int(call), int(index)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _operands(one)
