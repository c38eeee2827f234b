"""Registrations: which digest may become a model, and what has become of it.

A registration is one signed request, kept as one object; it survives restarts and is shared by every server on the
same storage. This module never touches a model's bytes.
"""

import functools
import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from spectrogram_predictor import fields as requested
from spectrogram_predictor import golden, storage
from spectrogram_predictor import recipe as recipes
from spectrogram_predictor.errors import BadRequest, Damaged
from spectrogram_predictor.golden import Golden
from spectrogram_predictor.recipe import Recipe
from spectrogram_predictor.storage import Backend

logger = logging.getLogger(__name__)

MAX_LABELS = 10_000
MAX_LABEL_LENGTH = 200

_KEYS = {"hash", "labels", "recipe", "golden", "allow_custom"}
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


def parse_sha256(value: object, field_name: str = "hash") -> str:
    """Return a SHA-256 in lower-case hex.

    Raises
    ------
    BadRequest
        It is not 64 hexadecimal digits.
    """
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
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

    def to_json(self) -> bytes:
        """Return the stored form."""
        fields: dict[str, Any] = {"sha256": self.sha256, "labels": self.labels}
        if self.recipe:
            fields["recipe"] = self.recipe.to_mapping()
        if self.golden:
            fields["golden"] = [asdict(one) for one in self.golden]
        if self.allow_custom:
            fields["allow_custom"] = True
        return _dumps(fields)

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


@dataclass(frozen=True)
class ModelState:
    """Where a model stands.

    Parameters
    ----------
    sha256 : str
        Digest of the file.
    state : str
        ``registered``, ``promoted`` or ``rejected``.
    format : str or None
        ``h5`` or ``keras``, once promoted.
    size : int or None
        Bytes, once promoted.
    labels : tuple of str
        From the registration.
    inputs : tuple of dict
        Name and shape of each input (None for any length), once promoted.
    reason : str or None
        Why it was rejected.
    recipe : dict or None
        From the registration, if it has one.
    golden : int or None
        How many goldens it is held to, if there are any.
    allow_custom : bool or None
        True if its layers of class Lambda may run the Python code in them.
    """

    sha256: str
    state: str
    format: str | None = None
    size: int | None = None
    labels: tuple[str, ...] = ()
    inputs: tuple[Mapping[str, Any], ...] = field(default=())
    reason: str | None = None
    recipe: Mapping[str, Any] | None = None
    golden: int | None = None
    allow_custom: bool | None = None


class Registry:
    """Registrations and rejections in a storage.

    Parameters
    ----------
    backend : Backend
        Where they are kept.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def register(self, registration: Registration) -> None:
        """Keep a registration; the same one again changes nothing, another one for the digest replaces it.

        What its goldens name is kept before, see `keep`. An earlier rejection of the digest is forgotten: the file
        may be sent again.
        """
        key = storage.registered_key(registration.sha256)
        data = registration.to_json()
        if not await self._backend.put(key, data, exclusive=True) and await self._backend.read(key) != data:
            await self._backend.put(key, data)
        await self._backend.delete(storage.rejected_key(registration.sha256))

    async def keep(self, objects: Mapping[str, bytes]) -> None:
        """Keep what goldens name, by SHA-256; until a registration names it, it is on its way out."""
        for sha256, content in objects.items():
            await self._backend.put(storage.golden_key(sha256), content)

    async def terms(self, registration: Registration) -> Terms:
        """Return what workers need to serve a model.

        Raises
        ------
        Damaged
            What a golden names is not there.
        """
        files: dict[str, Path] = {}
        for number, one in enumerate(registration.golden, 1):
            for digest in one.objects:
                path = files.get(digest) or await self._backend.fetch(storage.golden_key(digest), digest)
                if path is None:
                    raise Damaged(f"golden {number} of {registration.sha256} is not there: register it again")
                files[digest] = path
        return Terms(registration.to_json(), files)

    async def version(self, sha256: str) -> str | None:
        """Return what differs whenever the registration of a digest may differ; None if there is none."""
        entry = await self._backend.stat(storage.registered_key(sha256))
        return entry.version if entry else None

    async def get(self, sha256: str) -> Registration | None:
        """Return the registration of a digest, if there is one.

        Raises
        ------
        Damaged
            There is one, but it cannot be read.
        """
        data = await self._backend.read(storage.registered_key(sha256))
        return Registration.from_json(data, sha256) if data is not None else None

    async def held(self, sha256: str) -> Registration:
        """Return what a promoted model is held to.

        Raises
        ------
        Damaged
            It had a recipe, which cannot be read: without it, the model would be asked about something else.
        """
        registration = await self.get(sha256)
        if registration is None and await self.had_recipe(sha256):
            raise Damaged(f"the registration of {sha256} is gone, and with it its recipe: register it again")
        return registration or Registration(sha256)

    async def note(self, registration: Registration, inspected: Mapping[str, Any]) -> None:
        """Note what the trial load of a model showed, and whether that was under a recipe."""
        recipe = {"recipe": registration.recipe.sha256} if registration.recipe else {}
        data = json.dumps({**inspected, **recipe}, sort_keys=True).encode()
        await self._backend.put(storage.inspected_key(registration.sha256), data)

    async def had_recipe(self, sha256: str) -> bool:
        """Tell whether a model was last tried under a recipe."""
        return "recipe" in await self._read_json(storage.inspected_key(sha256))

    async def reject(self, sha256: str, reason: str) -> None:
        """Note why a registered file was refused."""
        await self._backend.put(storage.rejected_key(sha256), _dumps({"sha256": sha256, "reason": reason}))

    async def find_model(self, sha256: str) -> str | None:
        """Return the storage key of a promoted model, if there is one."""
        for format_ in storage.FORMATS:
            key = storage.model_key(sha256, format_)
            if await self._backend.stat(key):
                return key
        return None

    async def state(self, sha256: str) -> ModelState | None:
        """Return where one model stands, or None if nobody has heard of it."""
        registration, damage = None, None
        try:
            registration = await self.get(sha256)
        except Damaged as error:
            damage = error.message
        said: dict[str, Any] = {}
        if registration:
            recipe = registration.recipe
            said = {
                "labels": registration.names,
                "recipe": recipe.to_mapping() if recipe else None,
                "golden": len(registration.golden) or None,
                "allow_custom": registration.allow_custom or None,
            }
        if key := await self.find_model(sha256):
            entry = await self._backend.stat(key)
            inspected = await self._read_json(storage.inspected_key(sha256))
            return ModelState(
                sha256,
                "promoted",
                format=key.rpartition(".")[2],
                size=entry.size if entry else None,
                inputs=tuple(inspected.get("inputs", ())),
                **said,
            )
        rejection = await self._read_json(storage.rejected_key(sha256))
        if reason := rejection.get("reason", damage):
            return ModelState(sha256, "rejected", reason=reason, **said)
        return ModelState(sha256, "registered", **said) if registration else None

    async def states(self) -> list[ModelState]:
        """Return every model that was registered, promoted or rejected, sorted by digest."""
        digests = {
            storage.digest_of(entry.key)
            for prefix in (storage.REGISTERED, storage.MODELS, storage.REJECTED)
            for entry in await self._backend.list(prefix)
        }
        found = [await self.state(digest) for digest in sorted(digests) if _SHA256.fullmatch(digest)]
        return [state for state in found if state]

    async def _read_json(self, key: str) -> dict[str, Any]:
        """Return what can be done without: nothing, if it is damaged."""
        try:
            value = json.loads(await self._backend.read(key) or b"{}")
        except ValueError:
            logger.warning("%s is damaged", key)
            value = {}
        return value if isinstance(value, dict) else {}


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


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
