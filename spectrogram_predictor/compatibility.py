"""Why Keras does not load a model, as a sentence that names the layer.

Reads the model's own description of its layers, which both file formats keep as JSON; never the file, and never
TensorFlow.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

_MODELS = ("Functional", "Model", "Sequential")
_SHOWN = 80
_WHY = "the server runs no Python code of a model; build it from Keras's layers"
_ARGUMENT = re.compile(r"Unrecognized keyword arguments? passed to (\w+): (\{.*\})")


def explain(config: Any, error: BaseException, is_layer: Callable[[str], bool]) -> str | None:
    """Return what in a model keeps Keras from loading it, or None if that cannot be told.

    Parameters
    ----------
    config : object
        The model's configuration, as its file has it.
    error : BaseException
        What Keras raised.
    is_layer : callable
        Whether Keras has a layer of this class name.
    """
    parts = list(_parts(config))
    for part, owner in parts:
        if found := _foreign(part, owner, is_layer):
            return found
    for text in messages(error):
        if match := _ARGUMENT.search(text):
            return _unknown_argument(match[1], match[2], [part for part, _ in parts])
    return None


def messages(error: BaseException) -> Iterator[str]:
    """Yield the message of an error, and of those that led to it, the last one first."""
    cause: BaseException | None = error
    while cause is not None:
        yield str(cause)
        cause = cause.__cause__ or cause.__context__


def _parts(config: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Yield whatever has a class, in the file's order, each with the layer that it belongs to."""
    pending: list[tuple[Any, dict[str, Any] | None]] = [(config, None)]
    while pending:
        value, owner = pending.pop()
        if isinstance(value, list):
            pending.extend((item, owner) for item in reversed(value))
        elif isinstance(value, dict):
            if isinstance(value.get("class_name"), str) and "config" in value:
                yield value, owner
                owner = value if _name(value) or owner is None else owner
            # A type may have a class and a name, and is no layer.
            pending.extend((value[key], owner) for key in reversed(value) if key != "dtype")


def _foreign(part: dict[str, Any], owner: dict[str, Any] | None, is_layer: Callable[[str], bool]) -> str | None:
    if part["class_name"] == "Lambda":
        return f"{_called(part)} holds Python code, which the server does not run; use another of Keras's"
    if not _is_foreign(part, owner, is_layer):
        return None
    if owner is None or _name(part):
        return f"{_called(part)} is not one of Keras's own: {_WHY}"
    used = part["config"] if part["class_name"] == "function" else part["class_name"]
    return f"{_called(owner)} uses {_short(used)}, which is not one of Keras's own: {_WHY}"


def _is_foreign(part: dict[str, Any], owner: dict[str, Any] | None, is_layer: Callable[[str], bool]) -> bool:
    known = part["class_name"] in _MODELS or is_layer(part["class_name"])
    if "module" not in part:
        # Keras 2's description, which says nothing of where initializers and their like are from.
        return not known and (owner is None or bool(_name(part)))
    module = str(part["module"])
    if part["class_name"].startswith("__"):
        return False
    return not known if module == "keras.layers" else module.partition(".")[0] != "keras"


def _unknown_argument(class_name: str, arguments: str, parts: list[dict[str, Any]]) -> str | None:
    for part in parts:
        config = part["config"]
        if part["class_name"] == class_name and isinstance(config, dict):
            for name, value in config.items():
                if f"{name!r}: {value!r}" in arguments:
                    return f"{_called(part)} has the argument {name}={_short(value)}, which Keras 3 does not know"
    return None


def _called(part: dict[str, Any]) -> str:
    class_name = _short(part["class_name"].rpartition(">")[2]).strip("'\"")
    name = _name(part)
    return f"the layer {_short(name)} of class {class_name}" if name else f"the model's class {class_name}"


def _name(part: dict[str, Any]) -> str | None:
    name = part["config"].get("name") if isinstance(part["config"], dict) else None
    return name if isinstance(name, str) else None


def _short(value: object) -> str:
    return repr(value)[:_SHOWN]
