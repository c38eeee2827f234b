"""What comes back from a worker: held to its form before anybody uses it.

A model file may have taken the worker over. Then its numbers may be any, but they are numbers, and there is a
bound to how many.
"""

import math
from typing import Any

import orjson

MAX_VALUES = 2**22
MAX_LISTS = 2**18
MAX_DEPTH = 32
"""As numpy's."""

_MAX_TENSORS = 1000
_MAX_HELD = 10_000
_MAX_NAME = 1000
_MAX_SIZE = 2**62
_FORMS = ({"result", "held"}, {"error", "message", "held"}, {"bug", "held"})
_NUMBERS = {float, int, bool}
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
    if data.count(b",") > MAX_VALUES or data.count(b"[") + data.count(b"{") > MAX_LISTS:
        raise ValueError("a worker's answer has too many parts")
    answer = orjson.loads(data)
    if not isinstance(answer, dict) or set(answer) not in _FORMS:
        raise ValueError("a worker's answer is none")
    held = answer["held"]
    if not isinstance(held, list) or not all(map(_is_name, held)) or len(held) > _MAX_HELD:
        raise ValueError("a worker holds what is no model")
    texts = [answer[key] for key in ("error", "message", "bug") if key in answer]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("a worker's error is not a text")
    return answer


def check_array(value: Any, depth: int = 1) -> None:
    """Check that a prediction is a list, or lists of lists, of finite numbers.

    Raises
    ------
    ValueError
        It is not.
    """
    if not isinstance(value, list) or depth > MAX_DEPTH:
        raise ValueError("a prediction is not an array")
    kinds = set(map(type, value))
    if kinds == {list}:
        for item in value:
            check_array(item, depth + 1)
    elif not kinds <= _NUMBERS or not all(map(math.isfinite, value)):
        raise ValueError("a prediction has parts that are no numbers")


def check_description(value: Any, format: str) -> None:  # noqa: A002
    """Check that what was said of a model has the form that `engine.inspect` gives it.

    Raises
    ------
    ValueError
        It has not.
    """
    if not isinstance(value, dict) or set(value) != {"format", "inputs", "outputs"} or value["format"] != format:
        raise ValueError("a model's description has other keys")
    for tensors in (value["inputs"], value["outputs"]):
        if not isinstance(tensors, list) or len(tensors) > _MAX_TENSORS or not all(map(_is_tensor, tensors)):
            raise ValueError("a model's description has no list of tensors")


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
