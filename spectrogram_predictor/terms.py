"""What a model is registered under, as a client sends it.

Imports nothing of the server, and nothing heavy.
"""

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Golden(NamedTuple):
    """A song whose answer is known.

    Attributes
    ----------
    song : path or bytes
        The song's file.
    expected : array-like
        What the model must answer to it, with or without its batch of one.
    csv : bytes or str, optional
        The row of features that belongs to it, for models that take one.
    tolerance : float >= 0, optional
        The largest difference of one number that is no mismatch; the server's is 0.001.
    """

    song: Path | str | bytes
    expected: Any
    csv: bytes | str | None = None
    tolerance: float | None = None


def terms_of(
    recipe: Any, golden: Iterable[tuple[Any, ...]] | None, labels: Sequence[str] | None, allow_custom: bool | None
) -> dict[str, Any]:
    """Return the keys that are said; see `Client.register` for their meaning.

    Raises
    ------
    ValueError
        A recipe's file is not JSON, or says a key twice; labels are one string, goldens one pair; or an expected
        number is not finite.
    """
    terms: dict[str, Any] = {}
    if labels is not None:
        terms["labels"] = _labels(labels)
    if recipe is not None:
        terms["recipe"] = _recipe(recipe)
    if golden is not None:
        terms["golden"] = [_golden(one) for one in golden]
    if allow_custom is not None:
        terms["allow_custom"] = allow_custom
    return terms


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_sha256(text: str) -> bool:
    """Tell whether a text is a SHA-256 in hexadecimal."""
    return len(text) == 64 and set(text.lower()) <= set("0123456789abcdef")


def base64_of(content: Path | str | bytes) -> str:
    """Return a file's content, or bytes, as base64."""
    return base64.b64encode(content_of(content)).decode()


def content_of(song: Path | str | bytes) -> bytes:
    """Return a file's content, or bytes as they are."""
    return song if isinstance(song, bytes) else Path(song).read_bytes()


def extension_of(song: Path | str | bytes) -> str:
    """Return a file's extension without its dot, "" for bytes."""
    return "" if isinstance(song, bytes) else Path(song).suffix.removeprefix(".")


def _recipe(recipe: Any) -> Any:
    if hasattr(recipe, "to_json"):
        return json.loads(recipe.to_json())
    if isinstance(recipe, Mapping):
        return dict(recipe) or None
    if (
        isinstance(recipe, str)
        and not Path(recipe).is_file()
        and Path(recipe).name == recipe.removesuffix(".json")
    ):
        return recipe
    recipe = Path(recipe)
    try:
        return json.loads(recipe.read_bytes(), object_pairs_hook=_once, parse_constant=_no_number)
    except ValueError as error:
        raise ValueError(f"{recipe} is not JSON: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a mapping of what is said once: of two values, the server would be sent the second."""
    for key, number in Counter(key for key, _ in pairs).items():
        if number > 1:
            raise ValueError(f"it has the key {key!r} {number} times")
    return dict(pairs)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _labels(labels: Iterable[str]) -> list[str]:
    if isinstance(labels, str):
        raise ValueError(f"labels are a list of names, not one: {labels[:40]!r}")
    return list(labels)


def _golden(one: tuple[Any, ...]) -> dict[str, Any]:
    if isinstance(one, str | bytes | Path):
        raise ValueError("goldens are a list of pairs of a song and its answer, not one pair")
    golden = Golden(*one)
    song = {"song": base64_of(golden.song), "ext": extension_of(golden.song)}
    fields = {**song, "expected": _numbers(golden.expected)}
    if golden.csv is not None:
        fields["csv"] = base64_of(golden.csv.encode() if isinstance(golden.csv, str) else golden.csv)
    if golden.tolerance is not None:
        fields["tolerance"] = float(golden.tolerance)
    return fields


def _numbers(value: Any) -> Any:
    """Return an array, whatever library it is of, as lists of numbers."""
    if value is None or isinstance(value, str):
        raise ValueError(f"an expected answer is made of numbers, not of {repr(value)[:40]}")
    try:
        items = iter(value)
    except TypeError:
        if not math.isfinite(value):
            raise ValueError(f"an expected answer is made of finite numbers, not of {value}") from None
        return float(value)
    return [_numbers(item) for item in items]
