"""Registrations: what signed requests said about a model that may come, as documents.

    signed body ──> Request ──applied to the earlier──> Registration ──with the goldens' files──> Terms

A `Registration` is what is kept, `Terms` are what a worker gets. Where they are kept is the `registry`'s business.
"""

import functools
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from spectrogram_predictor import fields as requested
from spectrogram_predictor import golden
from spectrogram_predictor import recipe as recipes
from spectrogram_predictor.errors import BadRequest, Damaged, Unprocessable
from spectrogram_predictor.golden import Golden
from spectrogram_predictor.recipe import Recipe

MAX_LABELS = 10_000
MAX_LABEL_LENGTH = 200

_KEYS = {"hash", "labels", "recipe", "golden", "allow_custom"}
SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def parse_sha256(value: object, field_name: str = "hash") -> str:
    """Return a SHA-256 in lower-case hex.

    Raises
    ------
    BadRequest
        It is not 64 hexadecimal digits.
    """
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise BadRequest(f"{field_name} must be a SHA-256 in 64 hexadecimal digits")
    return value.lower()


@dataclass(frozen=True)
class Registration:
    """What signed requests said about a model that may come.

    Parameters
    ----------
    sha256 : str
        Digest of the model file, 64 hexadecimal digits.
    labels : tuple of str
        Names of the model's outputs in order, where the recipe does not say; may be empty.
    recipe : Recipe or None
        How a song becomes the model's inputs.
    golden : tuple of Golden
        Songs whose answers are known.
    allow_custom : bool
        Whether the model's layers of class Lambda may run the Python code in them.
    """

    sha256: str
    labels: tuple[str, ...] = ()
    recipe: Recipe | None = None
    golden: tuple[Golden, ...] = ()
    allow_custom: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model's outputs in order, from wherever they are known."""
        return self.labels or (self.recipe.labels if self.recipe else ())

    def check_labels(self, outputs: Sequence[Any]) -> None:
        """Check that a model with these outputs answers as many numbers as there are labels; recipes check theirs.

        Raises
        ------
        Unprocessable
            There are more, or fewer.
        """
        size = outputs[0]["shape"][-1] if outputs and outputs[0]["shape"] else None
        if self.labels and size is not None and len(self.labels) != size:
            raise Unprocessable(f"{len(self.labels)} labels were registered, but the model answers {size} numbers")

    def to_json(self) -> bytes:
        """Return the stored form."""
        fields: dict[str, Any] = {"sha256": self.sha256, "labels": self.labels}
        if self.recipe:
            fields["recipe"] = self.recipe.to_mapping()
        if self.golden:
            fields["golden"] = [asdict(one) for one in self.golden]
        if self.allow_custom:
            fields["allow_custom"] = True
        return dumps(fields)

    @classmethod
    def from_json(cls, data: bytes, sha256: str) -> Self:
        """Read the stored form.

        Raises
        ------
        Damaged
            It is not a registration of this digest.
        """
        try:
            fields = json.loads(data)
            registration = cls(
                parse_sha256(fields["sha256"]),
                _parse_labels(fields["labels"]),
                Recipe.from_json(fields["recipe"]) if "recipe" in fields else None,
                tuple(Golden.from_json(one) for one in fields.get("golden", ())),
                fields.get("allow_custom") is True,
            )
        except (ValueError, KeyError, TypeError, BadRequest) as error:
            raise Damaged(f"the registration of {sha256} is damaged: register it again") from error
        if registration.sha256 != sha256:
            raise Damaged(f"the registration of {sha256} is another model's: register it again")
        return registration


@dataclass(frozen=True)
class Request:
    """A request to register: what it mentions, and nothing of what it does not.

    Parameters
    ----------
    sha256 : str
        Digest of the model file.
    changes : mapping
        Fields of the registration.
    objects : mapping of str to bytes
        What its goldens name, by SHA-256.
    """

    sha256: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    objects: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> Self:
        """Check a request body ``{"hash": ..., "labels": [...], "recipe": {...}, "golden": [...]}``.

        A recipe is an object, the name of one that is shipped, or null for none; ``allow_custom`` is a boolean.

        Raises
        ------
        BadRequest
            A key is missing, unknown or of the wrong type.
        """
        unknown = sorted(set(body) - _KEYS)
        if unknown:
            known = ", ".join(sorted(_KEYS))
            raise BadRequest(f"unknown key {unknown[0][:40]!r} in the registration; it takes {known}")
        if "hash" not in body:
            raise BadRequest("the registration has no hash")
        sha256 = parse_sha256(body["hash"])
        changes: dict[str, Any] = {}
        objects: dict[str, bytes] = {}
        if "labels" in body:
            changes["labels"] = _parse_labels(body["labels"])
        if "recipe" in body:
            changes["recipe"] = _parse_recipe(body["recipe"])
        if "golden" in body:
            changes["golden"], objects = golden.parse(body["golden"])
        if "allow_custom" in body:
            changes["allow_custom"] = requested.flag(body["allow_custom"], "allow_custom")
        return cls(sha256, changes, objects)

    def applied_to(self, earlier: Registration | None) -> Registration:
        """Return the registration that it makes of an earlier one: what it does not mention stays.

        Raises
        ------
        BadRequest
            The outputs have other names in the recipe than in the labels.
        """
        registration = replace(earlier or Registration(self.sha256), **self.changes)
        recipe, labels = registration.recipe, registration.labels
        if recipe and recipe.labels and labels and recipe.labels != labels:
            raise BadRequest("recipe.labels must be the labels that are registered, or be left out")
        return registration


@dataclass(frozen=True)
class Terms:
    """What a model is served under, as a worker gets it.

    Parameters
    ----------
    registration : bytes
        The stored form.
    files : mapping of str to Path
        What its goldens name, by SHA-256.
    """

    registration: bytes
    files: Mapping[str, Path] = field(default_factory=dict)

    @functools.cached_property
    def name(self) -> str:
        """What differs between registrations that differ: the model's digest, and theirs."""
        digest = hashlib.sha256(self.registration).hexdigest()
        return f"{json.loads(self.registration)['sha256']}-{digest[:16]}"


def _parse_labels(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise BadRequest("labels must be a list of strings")
    if len(value) > MAX_LABELS or any(len(label) > MAX_LABEL_LENGTH for label in value):
        raise BadRequest(f"labels: at most {MAX_LABELS} of at most {MAX_LABEL_LENGTH} characters")
    if len(set(value)) < len(value):
        [(twice, _)] = Counter(value).most_common(1)
        raise BadRequest(f"labels: {twice!r} is there twice")
    return tuple(value)


def _parse_recipe(value: object) -> Recipe | None:
    if isinstance(value, str):
        return recipes.named(value)
    if value is None or isinstance(value, dict):
        return None if value is None else Recipe.from_json(value)
    raise BadRequest("recipe must be an object, or the name of one that is shipped")


def dumps(value: object) -> bytes:
    """Encode what is stored: the same bytes for the same value."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
