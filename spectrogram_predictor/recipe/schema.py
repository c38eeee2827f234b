"""Frozen dataclasses as JSON documents: strict types, bounds, every fault named by its key.

A field's annotation is all there is to say about it: bool, int, float, str, ``Literal``, None, tuples, unions,
documents, and `Within`, `Length` and `Matching` in ``Annotated``. Documents in a union are told apart by
their ``kind``. Nothing here knows what a document is about.
"""

import dataclasses
import functools
import inspect
import json
import math
import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin, get_type_hints

_KINDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a string"}
_MAX_SHOWN = 60
_PARAMETERS = "Parameters\n----------\n"


class Fault(ValueError):
    """A value that cannot be, and the key at which it is."""

    def __init__(self, key: str, said: str) -> None:
        super().__init__(f"{key} {said}" if key else said)
        self.key, self.said = key, said

    def under(self, key: str) -> "Fault":
        """Return the same fault as the whole document sees it."""
        joint = "." if self.key and not self.key.startswith("[") else ""
        return Fault(f"{key}{joint}{self.key}", self.said)


@dataclasses.dataclass(frozen=True)
class Within:
    """A number from the lowest to the highest, both included."""

    lowest: float
    highest: float

    def check(self, value: float) -> None:
        """Raise `Fault` if it is not."""
        if not self.lowest <= value <= self.highest:
            raise Fault("", f"must be from {self.lowest:g} to {self.highest:g}, not {_shown(value)}")


@dataclasses.dataclass(frozen=True)
class Length:
    """A text or a list of so many characters or items."""

    least: int
    most: int

    def check(self, value: Any) -> None:
        """Raise `Fault` if it is not."""
        if not self.least <= len(value) <= self.most:
            raise Fault("", f"must have from {self.least} to {self.most} items, not {len(value)}")


@dataclasses.dataclass(frozen=True)
class Matching:
    """A text like the pattern, which the words explain."""

    pattern: str
    words: str

    def check(self, value: str) -> None:
        """Raise `Fault` if it is not."""
        if not re.fullmatch(self.pattern, value):
            raise Fault("", f"must be {self.words}, not {_shown(value)}")


@dataclasses.dataclass(frozen=True)
class Document:
    """A frozen dataclass whose values are checked, and made what they are annotated as, when it is made.

    A field's ``metadata["key"]`` is its name in JSON, where that is not its own. The docstring of a class explains
    the fields of those that it extends as well: ``help`` shows it alone.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.__doc__ = _explained(cls)

    def __post_init__(self) -> None:
        for key, name, hint in self._fields():
            object.__setattr__(self, name, _at(key, hint, getattr(self, name)))
        for key, said in self.faults():
            raise Fault(key, said)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield the keys of values that do not go together, and why."""
        yield from ()

    @classmethod
    def from_mapping(cls, value: Mapping[str, Any]) -> Self:
        """Build it from decoded JSON.

        Raises
        ------
        Fault
            A key is unknown or missing, or its value cannot be.
        """
        names = {key: name for key, name, _ in cls._fields()}
        unknown = sorted(str(key) for key in value if key not in names)
        if unknown:
            raise Fault(_shown(unknown[0], quoted=False), f"is not a key here; there are {', '.join(names)}")
        for item in dataclasses.fields(cls):
            if item.default is item.default_factory is dataclasses.MISSING and _key(item) not in value:
                raise Fault(_key(item), "is missing")
        return cls(**{names[key]: item for key, item in value.items()})

    @classmethod
    @functools.cache
    def _fields(cls) -> list[tuple[str, str, Any]]:
        """Return key, name and annotation of each field."""
        hints = get_type_hints(cls, include_extras=True)
        return [(_key(item), item.name, hints[item.name]) for item in dataclasses.fields(cls)]

    def to_mapping(self) -> dict[str, Any]:
        """Return all of it as what JSON can say."""
        return {key: _plain(getattr(self, name)) for key, name, _ in self._fields()}

    def to_json(self) -> bytes:
        """Return its canonical JSON: every key, sorted, compact, ASCII."""
        return json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def loads(text: bytes | str) -> Any:
    """Decode JSON that says each key once, and no number that is not one.

    Raises
    ------
    Fault
        It is not such JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except Fault:
        raise
    except (ValueError, RecursionError) as error:
        raise Fault("", f"is not JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise Fault("", f"has the key {_shown(twice)} twice")
    return found


def _no_constant(name: str) -> None:
    raise Fault("", f"has a value {name}, which is not a number")


def _explained(cls: type) -> str:
    """Return a class's docstring with the fields of those that it extends among its own, theirs first."""
    said, _, own = inspect.cleandoc(cls.__doc__ or "").partition(_PARAMETERS)
    inherited = [inspect.cleandoc(base.__doc__ or "").partition(_PARAMETERS)[2] for base in cls.__bases__]
    explained = [text.rstrip() for text in (*inherited, own) if text]
    return "\n".join([said.rstrip(), "", _PARAMETERS.rstrip(), *explained, ""]) if explained else said


def _key(item: dataclasses.Field[Any]) -> str:
    key: str = item.metadata.get("key", item.name)
    return key


def _at(key: str, hint: Any, value: Any) -> Any:
    try:
        return _read(hint, value)
    except Fault as fault:
        raise fault.under(key) from None


def _read(hint: Any, value: Any) -> Any:
    """Return a value as what it is annotated as."""
    value = getattr(value, "tolist", lambda: value)()  # of NumPy
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _ruled(hint.__metadata__, _read(args[0], value))
    if origin is Literal:
        return _one_of(args, value)
    if origin in (Union, types.UnionType):
        return _read_union(args, value)
    if origin is tuple:
        return _read_tuple(args, value)
    if issubclass(hint, Document):
        return _read_document((hint,), value)
    return _read_scalar(hint, value)


def _ruled(rules: tuple[Any, ...], value: Any) -> Any:
    for rule in rules:
        rule.check(value)
    return value


def _one_of(args: tuple[Any, ...], value: Any) -> Any:
    # 2.0 is 2, but True is not 1.
    for arg in args:
        if value == arg and isinstance(value, bool) == isinstance(arg, bool):
            return arg
    expected = ", ".join(json.dumps(arg) for arg in args)
    raise Fault("", f"must be {'one of ' if len(args) > 1 else ''}{expected}, not {_shown(value)}")


def _read_union(args: tuple[Any, ...], value: Any) -> Any:
    if value is None and type(None) in args:
        return None
    members = [arg for arg in args if arg is not type(None)]
    documents = tuple(arg for arg in members if isinstance(arg, type) and issubclass(arg, Document))
    if documents and (isinstance(value, Mapping | Document) or len(documents) == len(members)):
        return _read_document(documents, value)
    fitting = [member for member in members if _fits(member, value)]
    return _read((fitting or members)[0], value)


def _fits(hint: Any, value: Any) -> bool:
    """Tell whether a value is of the right kind, whether or not it can be."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(args[0], value)
    if origin is Literal:
        return any(type(value) is type(arg) for arg in args)
    if origin is tuple:
        return isinstance(value, list | tuple)
    return isinstance(value, (int, float) if hint is float else hint)


def _read_tuple(args: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise Fault("", f"must be a list, not {_shown(value)}")
    if args[-1] is not ... and len(value) != len(args):
        raise Fault("", f"must be a list of {len(args)}, not of {len(value)}")
    hints = args if args[-1] is not ... else (args[0],) * len(value)
    return tuple(
        _at(f"[{number}]", hint, item) for number, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


def _read_document(classes: tuple[type[Document], ...], value: Any) -> Document:
    if isinstance(value, classes):
        return value
    if not isinstance(value, Mapping):
        raise Fault("", f"must be an object, not {_shown(value)}")
    if len(classes) == 1:
        return classes[0].from_mapping(value)
    kinds = {str(vars(cls)["kind"]): cls for cls in classes}
    if "kind" not in value:
        raise Fault("kind", f"is missing; it is one of {', '.join(kinds)}")
    kind = _at("kind", Literal[tuple(kinds)], value["kind"])
    return kinds[kind].from_mapping(value)


def _read_scalar(hint: type, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number and abs(value) < math.inf:
        try:
            return float(value) + 0.0  # -0.0 is 0.0
        except OverflowError:
            pass
    elif hint is not float and type(value) is hint:
        return value
    raise Fault("", f"must be {_KINDS[hint]}, not {_shown(value)}")


def _plain(value: Any) -> Any:
    if isinstance(value, Document):
        return value.to_mapping()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _shown(value: Any, quoted: bool = True) -> str:
    try:
        text = json.dumps(value) if quoted else str(value)
    except (TypeError, ValueError):
        text = type(value).__name__
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
