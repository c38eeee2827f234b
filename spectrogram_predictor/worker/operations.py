"""What a single operation between layers makes of shapes: those that `catalog` accepts, and no others."""

from collections.abc import Mapping, Sequence
from typing import Any

from spectrogram_predictor.worker import catalog
from spectrogram_predictor.worker.shapes import (
    OPEN,
    Config,
    Made,
    Rule,
    Shape,
    broadcast,
    concatenate,
    reshaped,
    size,
)

_PLACES = ("axis", "axes", "shift")


def rule_of(class_name: str) -> Rule | None:
    """Return the rule of an operation; None for what is none."""
    if class_name in catalog.SAME_SHAPE_OPERATIONS:
        return _unchanged
    if class_name in catalog.BROADCASTING_OPERATIONS:
        return _broadcast
    return _reduced if class_name in catalog.REDUCING_OPERATIONS else _SHAPING.get(class_name)


def constant(value: Any) -> Shape | None:
    """Return the shape of numbers that a file holds among the arguments of a call; None if they are no numbers."""
    if isinstance(value, Mapping) and value.get("class_name") in ("__numpy__", "__tensor__"):
        value = value["config"]["value"]
    if isinstance(value, int | float):
        return ()
    if not isinstance(value, list) or not value:
        return None
    inner = {constant(one) if isinstance(one, int | float | list) else None for one in value}
    (first, *others) = inner
    return None if others or first is None else (len(value), *first)


def _unchanged(config: Config, shapes: list[Shape]) -> Made:
    # Bounds and weights may be arrays, and more of them than there are numbers.
    written = [
        shape for key, value in config.items() if key not in _PLACES and (shape := constant(value)) is not None
    ]
    return Made([broadcast([*shapes, *written])])


def _broadcast(config: Config, shapes: list[Shape]) -> Made:
    del config
    return Made([broadcast(shapes)])


def _reduced(config: Config, shapes: list[Shape]) -> Made:
    shape, axis, keeps = shapes[0], config.get("axis"), config.get("keepdims")
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, list) else [axis]
    gone = {int(one) % len(shape) for one in axes}
    kept = [1 if at in gone else n for at, n in enumerate(shape) if keeps or at not in gone]
    return Made([tuple(kept)])


def _reshape(config: Config, shapes: list[Shape]) -> Made:
    target = config.get("newshape")
    target = target if isinstance(target, list) else [target]
    return Made([reshaped(shapes[0], [-1 if n is None else int(n) for n in target])])


def _transpose(config: Config, shapes: list[Shape]) -> Made:
    axes = config.get("axes") or reversed(range(len(shapes[0])))
    return Made([tuple(shapes[0][int(axis)] for axis in axes)])


def _expand(config: Config, shapes: list[Shape]) -> Made:
    shape = list(shapes[0])
    axes = config["axis"] if isinstance(config["axis"], list) else [config["axis"]]
    for axis in sorted(int(one) % (len(shape) + len(axes)) for one in axes):
        shape.insert(axis, 1)
    return Made([tuple(shape)])


def _squeeze(config: Config, shapes: list[Shape]) -> Made:
    axis = config.get("axis")
    axes = range(1, len(shapes[0])) if axis is None else axis if isinstance(axis, list) else [axis]
    gone = {int(one) % len(shapes[0]) for one in axes}
    return Made([tuple(n for at, n in enumerate(shapes[0]) if at not in gone or n != 1)])


def _moved(config: Config, shapes: list[Shape]) -> Made:
    # Whatever the order is, there are as many numbers; a later layer's last axis may be any of them.
    pairs = [config.get(key) for key in ("source", "destination", "axis1", "axis2")]
    given = [int(one) for one in pairs if one is not None]
    shape = list(shapes[0])
    if "axis1" in config:
        shape[given[0]], shape[given[1]] = shape[given[1]], shape[given[0]]
    else:
        shape.insert(given[1] % len(shape), shape.pop(given[0]))
    return Made([tuple(shape)])


def _concatenate(config: Config, shapes: list[Shape]) -> Made:
    return Made([concatenate(shapes, int(config.get("axis", 0)))])


def _stack(config: Config, shapes: list[Shape]) -> Made:
    shape = list(broadcast(shapes))
    shape.insert(int(config.get("axis", 0)) % (len(shape) + 1), len(shapes))
    return Made([tuple(shape)])


def _split(config: Config, shapes: list[Shape]) -> Made:
    parts, axis = config["indices_or_sections"], int(config.get("axis", 0))
    number = len(parts) + 1 if isinstance(parts, list) else int(parts)
    if number > size(shapes[0]):
        raise ValueError(f"{number} parts")
    part = list(shapes[0])
    # One of unequal parts may be nearly the whole.
    part[axis] = part[axis] if isinstance(parts, list) else part[axis] // number
    return Made([tuple(part)] * number)


def _matmul(config: Config, shapes: list[Shape]) -> Made:
    del config
    left, right = shapes
    inner = {left[-1], right[-2] if len(right) > 1 else right[-1]}
    if len(inner) > 1 and OPEN not in inner:
        raise ValueError(f"{left} times {right}")
    lead = broadcast([left[:-2], right[:-2]])
    return Made([(*lead, *left[-2:-1], *right[-1:])])


def _get_item(config: Config, shapes: list[Shape]) -> Made:
    key = config.get("key")
    keys = key if isinstance(key, list) else [key]
    shape, made, at = shapes[0], [], 0
    after = sum(1 for one in keys if one is not None and not _is_ellipsis(one))
    for one in keys:
        if one is None:
            made.append(1)
        elif _is_ellipsis(one):
            made += shape[at : len(shape) - after + at]
            at = len(shape) - after + at
        else:
            made += _taken(one, shape[at])
            at += 1
    return Made([(*made, *shape[at:])])


def _taken(key: Any, n: int) -> Sequence[int]:
    if isinstance(key, Mapping) and key.get("class_name") == "__slice__":
        bounds = key["config"]
        return [len(range(n)[slice(bounds.get("start"), bounds.get("stop"), bounds.get("step"))])]
    if isinstance(key, int):
        return []
    raise ValueError("an index that is no number")


def _is_ellipsis(key: Any) -> bool:
    return isinstance(key, Mapping) and key.get("class_name") == "__ellipsis__"


_SHAPING: Mapping[str, Rule] = {
    "Concatenate": _concatenate,
    "ExpandDims": _expand,
    "GetItem": _get_item,
    "Matmul": _matmul,
    "Moveaxis": _moved,
    "Reshape": _reshape,
    "Split": _split,
    "Squeeze": _squeeze,
    "Stack": _stack,
    "Swapaxes": _moved,
    "Transpose": _transpose,
}
