"""Shapes that a configuration states: of a model's inputs, of what a layer is built for, of what code makes."""

from collections.abc import Mapping
from typing import Any

from spectrogram_predictor.worker.shapes import OPEN, Config, Part, Shape


def built_for(part: Part) -> list[list[Shape]]:
    """Return the shapes that Keras builds a layer for before it is called, if it does."""
    found = []
    built = part.get("build_config")
    if isinstance(built, Mapping):
        found = [built.get("input_shape"), list((built.get("shapes_dict") or {}).values())]
    if isinstance(part["config"], Mapping):
        found.append(part["config"].get("build_input_shape"))
    return [shapes for one in found if (shapes := _shapes(one))]


def input_of(layer: Part, given: Shape | None) -> Shape | None:
    """Return the shape that a layer says it takes, its open sizes filled in from what it is given."""
    stated = _stated(layer)
    if not stated:
        if layer["class_name"] == "InputLayer" and given is None:
            raise ValueError("an input without a shape")
        return given if layer["class_name"] == "InputLayer" else None
    if given is None or len(given) != len(stated):
        return _shape(stated)
    filled = [n if known is None else int(known) for n, known in zip(given, stated, strict=True)]
    return (max(1, filled[0]), *filled[1:])


def by_code(config: Config, given: list[Shape | None]) -> Shape | None:
    """Return the shape that a layer's own code is said to make, which Keras builds the next ones for."""
    said = config.get("output_shape")
    said = said.get("items") if isinstance(said, Mapping) else said
    if not isinstance(said, list) or not all(isinstance(n, int | None) for n in said):
        return None
    return _shape([given[0][0] if given[0] else 1, *said])


def _stated(layer: Part) -> list[int | None]:
    config = layer["config"]
    inner = [config[key] for key in ("input_shape", "shape") if config.get(key)]
    if layer["class_name"] not in ("Embedding", "ReversibleEmbedding") and config.get("input_dim"):
        inner.append([config["input_dim"]])
    whole = [config[key] for key in ("batch_shape", "batch_input_shape") if config.get(key)]
    found = [*map(list, whole), *([config.get("batch_size"), *one] for one in inner)]
    if any(one[1:] != found[0][1:] for one in found):
        raise ValueError("two shapes of its input")
    return found[0] if found else []


def _shapes(value: Any) -> list[Shape]:
    """Return the shapes in a list or a mapping of them, or the one that it is."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list) or not value:
        return []
    if all(isinstance(n, int) or n is None for n in value):
        return [_shape(value)]
    return [shape for one in value for shape in _shapes(one)]


def _shape(value: Any) -> Shape:
    first, *rest = value
    # Whatever the file says of the batch: there is at least one window.
    return (max(1, int(first or 1)), *(OPEN if n is None else int(n) for n in rest))
