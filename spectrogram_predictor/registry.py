"""The registry: which digest may become a model, and what has become of it.

A registration is one object; it survives restarts and is shared by every server on the same storage. This module
never touches a model's bytes.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrogram_predictor import answers, storage
from spectrogram_predictor.errors import Damaged
from spectrogram_predictor.registration import SHA256, Registration, Terms, dumps
from spectrogram_predictor.storage import Backend

logger = logging.getLogger(__name__)

_SETTLE_S = 0.2


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

    async def register(self, registration: Registration) -> bool:
        """Keep a registration; the same one again changes nothing, another one for the digest replaces it.

        False if another server has replaced it at the same moment: it is to be made again, of what is there now.

        What its goldens name is kept before, see `keep`. An earlier rejection of the digest is forgotten: the file
        may be sent again.
        """
        key = storage.registered_key(registration.sha256)
        data = registration.to_json()
        if not await self._backend.put(key, data, exclusive=True) and await self._backend.read(key) != data:
            await self._backend.put(key, data)
            # Whoever read what was there before has written by then, and finds this one or is found here.
            await asyncio.sleep(_SETTLE_S)
            if await self._backend.read(key) != data:
                return False
        await self._backend.delete(storage.rejected_key(registration.sha256))
        return True

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

    async def output(self, sha256: str) -> Mapping[str, Any] | None:
        """Return what a model's output was found to be, its ``shape`` and ``dtype``, if that is known."""
        inspected = await self._read_json(storage.inspected_key(sha256))
        outputs: Any = inspected.get("outputs")
        return outputs[0] if answers.is_described(outputs) else None

    async def had_recipe(self, sha256: str) -> bool:
        """Tell whether a model was last tried under a recipe."""
        return "recipe" in await self._read_json(storage.inspected_key(sha256))

    async def reject(self, sha256: str, reason: str) -> None:
        """Note why a registered file was refused."""
        await self._backend.put(storage.rejected_key(sha256), dumps({"sha256": sha256, "reason": reason}))

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
        found = [await self.state(digest) for digest in sorted(digests) if SHA256.fullmatch(digest)]
        return [state for state in found if state]

    async def _read_json(self, key: str) -> dict[str, Any]:
        """Return what can be done without: nothing, if it is damaged."""
        try:
            value = json.loads(await self._backend.read(key) or b"{}")
        except ValueError:
            logger.warning("%s is damaged", key)
            value = {}
        return value if isinstance(value, dict) else {}
