"""Why Keras does not load a model, as a sentence that names the layer.

Keras says what it misses, and seldom where; the model's own description, which both file formats keep as JSON,
says where that is. Never reads the file, and never imports TensorFlow.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_WRAPPERS = ("<class 'keras", "Error when deserializing class")
_MISSING = re.compile(
    r"(?:Could not locate (?:class|function)|Unknown [\w ]+:|Could not interpret [\w ]+ identifier:"
    r"|Cannot deserialize object of type)"
    r" (?:\{'class_name': )?['`]?([^'`\s]+)"
)
_LAMBDA = re.compile(r"`?Lambda`? layer whose `?function`? is a Python lambda")
_ARGUMENT = re.compile(r"Unrecognized keyword arguments? passed to (\w+): (\{.*\})")
_CALL = re.compile(r"Exception encountered when calling (\w+)\.call\(\)\.\s*(?:\x1b\[1m)?(.*)")
_WHY = "the server runs no Python code of a model; build it from Keras's layers"
_SHOWN = 80
_LONGEST = 200

Part = Mapping[str, Any]
"""Whatever has a ``class_name`` and a ``config``: a model, a layer, an initializer, a function."""


def explain(config: Any, error: BaseException) -> str | None:
    """Return what in a model keeps Keras from loading it, or None if that cannot be told.

    Parameters
    ----------
    config : object
        The model's configuration, as its file has it.
    error : BaseException
        What Keras raised.
    """
    parts = list(_parts(config))
    for text in messages(error):
        # What follows is the configuration, in which everything is mentioned.
        said = text.partition("Full object config")[0]
        if _LAMBDA.search(said):
            return next((code(part) for part, _ in parts if part["class_name"] == "Lambda"), None)
        if match := _MISSING.search(said):
            return _missing(match[1], parts)
        if match := _ARGUMENT.search(said):
            return _unknown_argument(match[1], match[2], parts)
        if match := _CALL.match(said):
            return _not_callable(match[1], match[2], parts)
    return None


def messages(error: BaseException) -> Iterator[str]:
    """Yield what an error says, and those that led to it, without those that only pass on what another said."""
    cause: BaseException | None = error
    while cause is not None:
        if not str(cause).startswith(_WRAPPERS):
            yield str(cause)
        cause = cause.__cause__ or cause.__context__


def _parts(config: Any) -> Iterator[tuple[Part, Part | None]]:
    """Yield the parts in the file's order, each with the layer that it belongs to; the model belongs to none."""
    pending: list[tuple[Any, Part | None]] = [(config, None)]
    while pending:
        value, owner = pending.pop()
        if isinstance(value, list):
            pending.extend((item, owner) for item in reversed(value))
        elif isinstance(value, dict):
            if isinstance(value.get("class_name"), str) and "config" in value:
                yield value, owner
                owner = value if _name(value) or owner is None else owner
            # What a model was trained with is not loaded.
            pending.extend((value[key], owner) for key in reversed(value) if key != "compile_config")


def _missing(name: str, parts: list[tuple[Part, Part | None]]) -> str | None:
    for part, owner in parts:
        if name == part["class_name"] and (owner is None or _name(part)):
            return foreign(part)
        if name in (part["class_name"], part["config"]) and owner:
            return code(owner) if owner["class_name"] == "Lambda" else uses(owner, name)
    for part, _ in parts:
        if isinstance(part["config"], dict) and ("activation", name) in part["config"].items():
            return uses(part, name)
    return None


def _unknown_argument(class_name: str, arguments: str, parts: list[tuple[Part, Part | None]]) -> str | None:
    for part, _ in parts:
        config = part["config"]
        if part["class_name"] == class_name and isinstance(config, dict):
            for name, value in config.items():
                if f"{name!r}: {value!r}" in arguments:
                    return f"{called(part)} has the argument {name}={_short(value)}, which Keras 3 does not know"
    return None


def _not_callable(class_name: str, why: str, parts: list[tuple[Part, Part | None]]) -> str:
    named = [part for part, _ in parts if part["class_name"] == class_name and _name(part)]
    who = called(named[0]) if len(named) == 1 else f"a layer of class {class_name}"
    return f"{who} cannot be called: {why.strip()[:_LONGEST]}"


def foreign(part: Part) -> str:
    """Say that a layer or model is of a class that Keras does not have."""
    return f"{called(part)} is not one of Keras's own: {_WHY}"


def uses(part: Part, name: str) -> str:
    """Say that a layer uses what Keras does not have."""
    return f"{called(part)} uses {_short(name)}, which is not one of Keras's own: {_WHY}"


def code(part: Part) -> str:
    """Say that a layer holds code."""
    return f"{called(part)} holds Python code, which the server does not run; use another of Keras's"


def remembers(part: Part) -> str:
    """Say that a layer keeps its state from one call to the next."""
    return f"{called(part)} is stateful: its answer to a song would depend on those before; build it without"


def called(part: Part) -> str:
    """Return what a part of a model is called: the layer's name and class."""
    class_name = part.get("class_name")
    if not isinstance(class_name, str):
        return "the model"
    class_name = class_name.rpartition(">")[2][:_SHOWN]
    name = _name(part)
    return f"the layer {_short(name)} of class {class_name}" if name else f"the model's class {class_name}"


def _name(part: Part) -> str | None:
    config = part.get("config")
    name = config.get("name") if isinstance(config, dict) else None
    return name if isinstance(name, str) else None


def _short(value: object) -> str:
    return repr(value)[:_SHOWN]
