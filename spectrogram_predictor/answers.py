"""What comes back from a worker: held to its form before anybody uses it.

A model file may have taken the worker over. Then its numbers may be any, but they are numbers, and there is a
bound to how many.
"""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any

import orjson

MAX_PARTS = 2**18
"""Numbers and lists of one prediction: for each frame of 30 s of sound a hundred numbers, and more."""

MAX_BYTES = 2**23
"""Of a message: so many numbers, each in full."""

MAX_DEPTH = 32
"""As numpy's."""

_MAX_VALUES = MAX_PARTS + 2**15

_MAX_TENSORS = 1000
_MAX_NAME = 1000
_MAX_SIZE = 2**62
_FORMS = ({"result", "held"}, {"error", "message", "held"}, {"bug", "held"})
_TENSOR = {"name", "shape", "dtype"}


def parse(data: bytes) -> dict[str, Any]:
    """Read a message from a worker.

    Returns
    -------
    answer : dict
        ``held``, a list of texts, and ``result``; or ``error`` and ``message``, texts; or ``bug``, a text.

    Raises
    ------
    ValueError
        It is none of these, or would take much more memory than its bytes.
    """
    if data.count(b",") > _MAX_VALUES or data.count(b"[") + data.count(b"{") > _MAX_VALUES:
        raise ValueError("a worker's answer has too many parts")
    answer = orjson.loads(data)
    if not isinstance(answer, dict) or set(answer) not in _FORMS:
        raise ValueError("a worker's answer is none")
    held = answer["held"]
    if not isinstance(held, list) or not all(map(_is_name, held)):
        raise ValueError("a worker holds what is no model")
    texts = [answer[key] for key in ("error", "message", "bug") if key in answer]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a worker's error is not a text")
    return answer


def check_array(value: Any, output: Mapping[str, Any] | None = None) -> None:
    """Check that a prediction is what numpy makes of an array: lists of one length, and in them finite numbers.

    Parameters
    ----------
    value : object
        What is said to be a prediction.
    output : mapping, optional
        What is known of the model's output: its ``shape`` without the batch, and ``dtype``.

    Raises
    ------
    ValueError
        It is not, or not of this shape and type.
    """
    shape, numbers = _taken_apart(value)
    if parts(shape) > MAX_PARTS:
        raise ValueError("a prediction has too many numbers")
    kinds = set(map(type, numbers))
    if len(kinds) > 1 or not kinds <= {float, int, bool} or not all(map(math.isfinite, numbers)):
        raise ValueError("a prediction has parts that are no numbers, or of several kinds")
    if output is None:
        return
    if not fits(shape[1:], output["shape"]):
        raise ValueError(f"a prediction has the shape {shape}, the model's output {output['shape']}")
    # The mean of the answers to several windows is a float whatever they are.
    if not kinds <= {float, _kind(output["dtype"])}:
        raise ValueError(f"a prediction is not {output['dtype']}")


def parts(shape: Iterable[int]) -> int:
    """Return how many numbers and lists are in a prediction of this shape."""
    return sum(accumulate(shape, operator.mul))


def fits(shape: Sequence[int], known: Sequence[int | None]) -> bool:
    """Tell whether a shape is one of which so much is known; None is any size."""
    return len(shape) == len(known) and all(
        size in (None, found) for found, size in zip(shape, known, strict=True)
    )


def count(array: Any) -> int:
    """Return how many numbers a prediction has."""
    numbers = 1
    while isinstance(array, list):
        numbers *= len(array)
        array = array[0] if array else None
    return numbers


def _kind(dtype: str) -> type:
    if dtype == "bool":
        return bool
    return int if dtype.startswith(("int", "uint")) else float


def _taken_apart(value: Any) -> tuple[list[int], list[Any]]:
    """Return the lengths of lists in lists, and all that is in the innermost."""
    shape: list[int] = []
    level = [value]
    while set(map(type, level)) == {list}:
        lengths = set(map(len, level))
        if len(lengths) > 1 or len(shape) == MAX_DEPTH:
            raise ValueError("a prediction is not an array")
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    if not shape:
        raise ValueError("a prediction is not an array")
    return shape, level


def check_description(value: Any, format: str) -> None:  # noqa: A002
    """Check that what was said of a model has the form that `engine.inspect` gives it.

    Raises
    ------
    ValueError
        It has not.
    """
    if not isinstance(value, dict) or set(value) != {"format", "inputs", "outputs"} or value["format"] != format:
        raise ValueError("a model's description has other keys")
    if not is_described(value["inputs"]) or not is_described(value["outputs"]):
        raise ValueError("a model's description has no list of tensors")


def is_described(tensors: Any) -> bool:
    """Tell whether this describes inputs or outputs of a model: at least one."""
    return isinstance(tensors, list) and 0 < len(tensors) <= _MAX_TENSORS and all(map(_is_tensor, tensors))


def _is_tensor(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == _TENSOR
        and _is_name(value["name"])
        and _is_name(value["dtype"])
        and isinstance(value["shape"], list)
        and len(value["shape"]) <= MAX_DEPTH
        and all(size is None or (type(size) is int and 0 <= size <= _MAX_SIZE) for size in value["shape"])
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_NAME
