"""Songs and rows that no golden names: of a registration that another has replaced, or that never came."""

import logging
from collections.abc import Sequence

from spectrogram_predictor import storage
from spectrogram_predictor.errors import Damaged
from spectrogram_predictor.registry import Registry
from spectrogram_predictor.storage import Backend, Entry

logger = logging.getLogger(__name__)


class Collection:
    """Remove them from one storage.

    Parameters
    ----------
    backend : Backend
        The storage.
    registry : Registry
        Knows what is named.
    """

    def __init__(self, backend: Backend, registry: Registry) -> None:
        self._backend = backend
        self._registry = registry
        self._looked_at: tuple[list[Entry], list[Entry]] | None = None

    async def collect(self, age_s: float) -> None:
        """Remove those that are older than this [s]: what names them is written after them, and soon."""
        oldest = await self._backend.now() - age_s
        # Listed before the registrations are: whatever is named, was there before it was.
        stale = [entry for entry in await self._backend.list(storage.GOLDEN) if entry.modified < oldest]
        if not stale:
            return
        registered = await self._backend.list(storage.REGISTERED)
        if (stale, registered) == self._looked_at:
            return
        named = await self._named(registered)
        if named is None:
            return
        for entry in stale:
            # Unless it has been put there anew.
            if storage.digest_of(entry.key) not in named and await self._backend.stat(entry.key) == entry:
                logger.info("deleting %s: no registration names it", entry.key)
                await self._backend.delete(entry.key)
        self._looked_at = (stale, registered)

    async def _named(self, registered: Sequence[Entry]) -> set[str] | None:
        """Return the digests that goldens name; None if a registration cannot be read, and may name any."""
        named: set[str] = set()
        for entry in registered:
            try:
                registration = await self._registry.get(storage.digest_of(entry.key))
            except Damaged as error:
                logger.debug("all goldens stay: %s", error)
                return None
            goldens = registration.golden if registration else ()
            named.update(digest for golden in goldens for digest in golden.objects)
        return named
