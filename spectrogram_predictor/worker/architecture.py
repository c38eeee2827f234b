"""Whether a model's configuration names nothing but what `catalog` accepts: every mapping, list and text of it.

Follows both of Keras's dialects, with and without "module", wherever they are in each other. Never imports Keras.
"""

import json
import re
import sys
from collections.abc import Mapping
from typing import Any

from spectrogram_predictor.errors import UnsupportedMedia
from spectrogram_predictor.worker import arguments, catalog, nodes
from spectrogram_predictor.worker.compatibility import called, code, foreign, remembers, uses

MAX_BYTES = 4 * 2**20
MAX_ITEMS = 250_000
MAX_DEPTH = 120
"""Most lists and mappings in each other; a model in a model takes four or five."""

MAX_TEXT = 1_000
MAX_NUMBER = 2**64

_PATH = re.compile(r"[/\\]|^\.\.?$|^~|^[A-Za-z][A-Za-z0-9+.-]*:(?!\d+$)")
_QUANTIZED = re.compile(r"int[48]/(-1|[1-9]\d*)(_from_[a-z0-9_]+)?", re.ASCII)
"""What Keras writes of weights that are packed in blocks of so many: the one text with a slash that is no path."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FILES = {"asset", "assets", "filename", "file", "filepath", "fname", "origin", "path", "url", "vocabulary"}
_QUANTIZED_KEYS = {"dtype", "mode", "quantization_mode"}
_FUNCTIONS = {"deserialize", "serialize", "keras_export"}
"""In HDF5 files, Keras takes the functions of its layers' module that have these names for these texts."""

_NUMBERS = {
    *("bool", "bfloat16", "float16", "float32", "float64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (4, 8, 16, 32, 64)),
}
_DATA = {"__ellipsis__", "__keras_tensor__", "__slice__", "__tuple__", "TensorShape"}
_TRAINING = ("compile_config", "training_config")
_PARTS = {"class_name", "config", "module", "registered_name"}


def parse(text: bytes) -> Any:
    """Read a configuration, as Keras will.

    Raises
    ------
    UnsupportedMedia
        It is not JSON, or too large, or too deep, or says something twice.
    """
    if len(text) > MAX_BYTES:
        raise UnsupportedMedia(f"the model's configuration has {len(text)} bytes; the most is {MAX_BYTES}")
    if sum(text.count(mark) for mark in (b",", b"[", b"{")) > MAX_ITEMS:
        raise UnsupportedMedia(f"the model's configuration has more than {MAX_ITEMS} items")
    try:
        return json.loads(text.decode(), object_pairs_hook=_mapping)
    except RecursionError as error:
        raise UnsupportedMedia(
            f"the model's configuration is more than {MAX_DEPTH} lists and mappings deep"
        ) from error
    except ValueError as error:
        raise UnsupportedMedia(f"the model's configuration is not JSON: {error}") from error


def check(model: Any, *, allow_custom: bool = False) -> None:
    """Check everything that a configuration names.

    Parameters
    ----------
    model : object
        As `parse` returns it.
    allow_custom : bool
        Whether layers of class Lambda may hold Python code.

    Raises
    ------
    UnsupportedMedia
        It names what is not accepted; the message says which layer.
    """
    name = model.get("class_name") if isinstance(model, Mapping) else None
    if not isinstance(name, str) or name not in catalog.MODELS:
        raise UnsupportedMedia(_no_model(model))
    _Walk(allow_custom).check(model)


def check_training(config: Any) -> None:
    """Check what an HDF5 file says of a model's training, which is not loaded."""
    _Walk(False).check({"compile_config": config})


class _Walk:
    """One way through a configuration, without recursion."""

    def __init__(self, allow_custom: bool) -> None:
        self._allow_custom = allow_custom
        self._pending: list[tuple[str, Any, Mapping[str, Any], int, bool]] = []
        self._shared: dict[Any, tuple[Any, Any]] = {}

    def check(self, model: Mapping[str, Any]) -> None:
        self._pending.append(("", model, model, 0, False))
        while self._pending:
            key, value, owner, depth, idle = self._pending.pop()
            if depth > MAX_DEPTH:
                raise UnsupportedMedia(
                    f"the model's configuration is more than {MAX_DEPTH} lists and mappings deep"
                )
            if key == "stateful" and value and not idle:
                raise UnsupportedMedia(remembers(owner))
            if isinstance(value, Mapping):
                self._check_mapping(key, value, owner, depth, idle)
            elif isinstance(value, list):
                self._pending += [(key, one, owner, depth + 1, idle) for one in reversed(value)]
            elif isinstance(value, str):
                _check_text(key, value, owner)
            elif isinstance(value, int) and abs(value) > MAX_NUMBER:
                raise UnsupportedMedia(
                    f"{called(owner)} has {key[:80]}={str(value)[:30]}, which is too large a number"
                )

    def _check_mapping(
        self, key: str, value: Mapping[str, Any], owner: Mapping[str, Any], depth: int, idle: bool
    ) -> None:
        for name in value:
            _check_text("a key", name, owner)
        if "class_name" in value:
            if value["class_name"] == "Lambda" and self._allow_custom and not idle:
                # What is in it is code, whatever it looks like.
                value = {"name": value.get("name"), "inbound_nodes": value.get("inbound_nodes")}
            else:
                _check_class(value, owner, idle)
                if not idle:
                    _check_arguments(key, value, owner)
                self._check_shared(value, owner)
                owner = value if isinstance(value.get("config"), Mapping) and "name" in value["config"] else owner
        if key == "config" and "activation" in value:
            _check_activation(value, owner)
        for name, one in reversed([*value.items()]):
            if name in _PARTS and isinstance(one, str | None) and "class_name" in value:
                continue
            # Only of the outermost model, Keras leaves its training out.
            unused = idle or (name in _TRAINING and depth == 0)
            self._pending.append((name, one, owner, depth + 1, unused))

    def _check_shared(self, part: Mapping[str, Any], owner: Mapping[str, Any]) -> None:
        """Check that what is one object for Keras is one in the file: the first would be taken for all."""
        if "shared_object_id" in part:
            shared, said = part["shared_object_id"], (part["class_name"], part.get("config"))
            if not isinstance(shared, int) or self._shared.setdefault(shared, said) != said:
                raise UnsupportedMedia(
                    f"{called(owner)} shares an object with another, and each says something else of it"
                )


def _check_class(part: Mapping[str, Any], owner: Mapping[str, Any], idle: bool) -> None:
    """Check what Keras would make an object of."""
    name, module, registered = part["class_name"], part.get("module"), part.get("registered_name")
    if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
        raise UnsupportedMedia(f"{called(owner)} has a class whose name is no text")
    if name in _DATA:
        return
    if name in ("__numpy__", "__tensor__"):
        _check_numbers(part, owner)
    elif name == "function":
        _check_function(part, owner, idle)
    elif name == "__lambda__" and idle:
        raise UnsupportedMedia("what the model was trained with holds Python code: save the model without it")
    elif name == "__lambda__" or name in catalog.REFUSED:
        raise UnsupportedMedia(_why_refused(name, part, owner))
    elif not _is_accepted(name, module, catalog.CLASSES, catalog.PLAIN_CLASSES) and not (
        idle and _is_somebody_s_own(module)
    ):
        raise UnsupportedMedia(_foreign(part, owner))
    elif registered not in (None, name) and not idle:
        raise UnsupportedMedia(
            f"{called(part)} is registered as {registered[:80]!r}, which Keras would take in its place"
        )


def _check_arguments(key: str, part: Mapping[str, Any], owner: Mapping[str, Any]) -> None:
    """Check that something is where Keras looks for something like it, and that its arguments are as well."""
    name, config = part["class_name"], part.get("config")
    if not arguments.is_in_place(key, name):
        raise UnsupportedMedia(f"{called(owner)} has {key[:80]} of class {name}, which is of another kind")
    # Where operations have numbers, they are measured.
    if name in catalog.LAYERS and isinstance(config, Mapping) and not nodes.is_operation(part):
        strange = arguments.strange(config)
        if strange is not None:
            raise UnsupportedMedia(f"{called(part)} has several numbers for {strange[:80]}, which is one")


def _check_function(part: Mapping[str, Any], owner: Mapping[str, Any], idle: bool) -> None:
    name, module, registered = part.get("config"), part.get("module"), part.get("registered_name")
    if not isinstance(name, str):
        raise UnsupportedMedia(f"{called(owner)} has a function whose name is no text")
    known = catalog.FUNCTIONS.get(module or "builtins", frozenset())
    if idle and _is_somebody_s_own(module):
        return
    if name not in known or registered not in (None, name, "function"):
        raise UnsupportedMedia(uses(owner, f"{module}.{name}" if module not in (None, "builtins") else name))


def _check_numbers(part: Mapping[str, Any], owner: Mapping[str, Any]) -> None:
    config = part.get("config")
    dtype = config.get("dtype") if isinstance(config, Mapping) else None
    if not isinstance(dtype, str) or dtype not in _NUMBERS:
        raise UnsupportedMedia(f"{called(owner)} has an array that does not hold numbers")


def _check_activation(config: Mapping[str, Any], owner: Mapping[str, Any]) -> None:
    for key in ("activation", "recurrent_activation"):
        name = config.get(key)
        # In HDF5 files, Keras takes any of its functions that has this name.
        if isinstance(name, str) and name not in catalog.ACTIVATIONS:
            raise UnsupportedMedia(uses(owner, name))


def _check_text(key: str, text: str, owner: Mapping[str, Any]) -> None:
    if len(text) > MAX_TEXT:
        raise UnsupportedMedia(f"{called(owner)} has a text of {len(text)} characters as {key[:80]}")
    quantized = key in _QUANTIZED_KEYS and _QUANTIZED.fullmatch(text)
    if (_PATH.search(text) and not quantized) or (key in _FILES and text):
        raise UnsupportedMedia(
            f"{called(owner)} has {key[:80]}={text[:80]!r}, which looks like a path or an address"
        )
    if text in _FUNCTIONS and key != "name":
        raise UnsupportedMedia(uses(owner, text))
    if _CONTROL.search(text.rstrip("\n")):
        raise UnsupportedMedia(f"{called(owner)} has {key[:80]}={text[:80]!r}, which has control characters")


def _is_accepted(
    name: str, module: str | None, by_module: Mapping[str, frozenset[str]], plain: frozenset[str]
) -> bool:
    return name in plain if module is None else name in by_module.get(module, ())


def _is_somebody_s_own(module: str | None) -> bool:
    """Tell whether a name may be a notebook's own: not Keras's, nor of what comes with Python or TensorFlow."""
    package = (module or "builtins").partition(".")[0]
    return package == "builtins" or not (
        package in sys.stdlib_module_names or package in ("keras", "tensorflow", "numpy")
    )


def _why_refused(name: str, part: Mapping[str, Any], owner: Mapping[str, Any]) -> str:
    if name == "__lambda__":
        return code(owner)
    if name == "Lambda":
        return code(part)
    return f"{called(part)} {catalog.REFUSED[name]}: the server serves models without"


def _foreign(part: Mapping[str, Any], owner: Mapping[str, Any]) -> str:
    name, module = part["class_name"], part.get("module")
    named = part is owner or (isinstance(part.get("config"), Mapping) and "name" in part["config"])
    if isinstance(module, str) and module.partition(".")[0] == "keras":
        full = f"{module}.{name}"[:120]
        return f"{called(part if named else owner)} needs {full!r}, which the server does not accept"
    return foreign(part) if named else uses(owner, name)


def _no_model(model: Any) -> str:
    if isinstance(model, Mapping) and isinstance(model.get("class_name"), str):
        return foreign(model) if isinstance(model.get("config"), Mapping) else "the model has no configuration"
    return "not a Keras model: its configuration is not that of a model"


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise UnsupportedMedia("the model's configuration says one thing twice in a mapping")
    return made
