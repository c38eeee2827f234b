"""Look at everything promoted, byte by byte, and set aside what is not what its name says.

A flipped bit in an HDF5 file loads without an error: only the digest tells.
"""

import hashlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass

from spectrogram_predictor import storage
from spectrogram_predictor.errors import StorageUnavailable
from spectrogram_predictor.lanes import Lanes
from spectrogram_predictor.storage import Backend, Entry

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """What was found of one promoted model.

    Parameters
    ----------
    key : str
        Its key.
    sha256 : str or None
        Digest of its content; None if that cannot be read.
    quarantined : str or None
        The key that a damaged one was moved to.
    """

    key: str
    sha256: str | None
    quarantined: str | None = None

    @property
    def sound(self) -> bool:
        """Whether the content hashes to the name."""
        return (
            self.sha256 is not None and storage.is_model(self.key) and storage.digest_of(self.key) == self.sha256
        )


async def verify(backend: Backend) -> AsyncIterator[Verdict]:
    """Hash everything in models/; move what does not match its name to quarantine/.

    Servers may go on meanwhile: a model that was sound a moment ago is answered 404 once it is set aside, and is
    promoted again when it is uploaded again.

    Yields
    ------
    verdict : Verdict
        One for each model, in the order of their keys.
    """
    lanes = Lanes(1, "scrub")
    try:
        for entry in await backend.list(storage.MODELS):
            if verdict := await _look(backend, entry, lanes):
                yield verdict
    finally:
        lanes.close()


async def _look(backend: Backend, entry: Entry, lanes: Lanes) -> Verdict | None:
    try:
        verdict = Verdict(entry.key, await _digest(backend, entry.key, lanes))
    except StorageUnavailable as error:
        # One that cannot be read is not set aside: the next look may find it sound.
        logger.warning("%s cannot be read: %s", entry.key, error)
        verdict = Verdict(entry.key, None)
    if verdict.sound or verdict.sha256 is None:
        return verdict if verdict.sound or await backend.stat(entry.key) else None
    if await backend.stat(entry.key) != entry:
        # Promoted anew under our hands: what was read is not what is there.
        return await _look_again(backend, entry.key, lanes)
    destination = storage.quarantined_key(entry.key, verdict.sha256)
    if not await backend.move(entry.key, destination):
        return None
    if await _digest(backend, destination, lanes) == storage.digest_of(entry.key):
        # Promoted anew at that very moment.
        await backend.move(destination, entry.key)
        return await _look_again(backend, entry.key, lanes)
    return Verdict(entry.key, verdict.sha256, destination)


async def _look_again(backend: Backend, key: str, lanes: Lanes) -> Verdict | None:
    entry = await backend.stat(key)
    return await _look(backend, entry, lanes) if entry else None


async def _digest(backend: Backend, key: str, lanes: Lanes) -> str:
    digest, lane = hashlib.sha256(), lanes.lane()
    try:
        async for chunk in backend.chunks(key):
            await lane.put(digest.update, chunk)
        await lane.join()
    finally:
        await lane.drop()
    return digest.hexdigest()
