"""`Promoter.sweep`: hash what arrived, promote what is registered, delete what is not, expire what is stale.

Any number of servers may sweep one storage, and any of them may die anywhere: every step can be done again, and a
source is removed only after its destination stands. What a file is, its first bytes and a trial load decide, never
its name.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from spectrogram_predictor import storage, tokens
from spectrogram_predictor.collection import Collection
from spectrogram_predictor.config import PromotionSettings
from spectrogram_predictor.errors import (
    Damaged,
    DeadlineExceeded,
    InsufficientStorage,
    ModelNotFound,
    SpectrogramPredictorError,
    StorageUnavailable,
    TooSlow,
    Unprocessable,
    UnsupportedMedia,
)
from spectrogram_predictor.registration import Registration, Request
from spectrogram_predictor.registry import Registry
from spectrogram_predictor.storage import Backend, Entry
from spectrogram_predictor.uploads import Uploads

logger = logging.getLogger(__name__)

Inspect = Callable[[str, Registration, str], Awaitable[dict[str, Any]]]
"""Load the model at a storage key, under this registration, in this format; return what it is, or raise."""

Announce = Callable[[str], None]
"""Is told the digest of what was promoted."""

MAX_TRIAL_LOADS = 3
"""How often trying a file may take a worker down, memory, or too long, or fail in a way that nobody foresaw."""

TRIALS_AT_A_TIME = 2
"""Files that are tried beside each other: one that takes long does not hold up the next."""

_MAGIC = {"h5": b"\x89HDF\r\n\x1a\n", "keras": b"PK\x03\x04"}
_T = TypeVar("_T")
_REFUSALS = (UnsupportedMedia, Unprocessable)


class Promoter:
    """The sweep of one server.

    Parameters
    ----------
    backend : Backend
        The storage that is swept.
    registry : Registry
        Says who may stay.
    uploads : Uploads
        Takes in what was put into temp/ by hand.
    inspect : callable
        Loads a model in a worker, see `Inspect`.
    settings : PromotionSettings
        How long things may lie around.
    announce : callable, optional
        See `Announce`.
    """

    def __init__(
        self,
        backend: Backend,
        registry: Registry,
        uploads: Uploads,
        inspect: Inspect,
        settings: PromotionSettings,
        announce: Announce | None = None,
    ) -> None:
        self._backend = backend
        self._registry = registry
        self._uploads = uploads
        self._inspect = inspect
        self._settings = settings
        self._announce = announce
        self._lock = asyncio.Lock()
        self._registering: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._next: asyncio.Task[list[str]] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lanes = asyncio.Semaphore(TRIALS_AT_A_TIME)
        self._trying: dict[str, asyncio.Task[str | None]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._seen: dict[str, tuple[str, str]] = {}
        self._trials: dict[str, int] = {}
        self._collection = Collection(backend, registry)

    async def register(self, request: Request) -> None:
        """Keep what a signed request says of a model; what it does not mention stays as it was.

        For a model that is served already it holds once the model has passed a trial under it.

        Raises
        ------
        UnsupportedMedia, Unprocessable
            The model does not pass, and goes on under its earlier registration.
        """
        while not await self._register(request):
            logger.debug("%s was registered by somebody else meanwhile", request.sha256)

    async def _register(self, request: Request) -> bool:
        earlier = await self._earlier(request)
        registration = request.applied_to(earlier)
        # Before the registration that names them, or a crash in between would leave names of nothing.
        await self._registry.keep(request.objects)
        key = await self._registry.find_model(request.sha256) if registration != earlier else None
        inspected = await self._try_again(key, registration) if key else None
        async with self._terms_of(request.sha256):
            if await self._earlier(request) != earlier:
                return False
            if key is None and registration != earlier and await self._registry.find_model(request.sha256):
                return False
            if not await self._registry.register(registration):
                return False
            if inspected:
                await self._registry.note(registration, inspected)
        return True

    async def sweep(self, patience_s: float | None = None) -> list[str]:
        """Sweep the storage once; return the digests that were promoted, each once.

        While a server looks through the storage, calls wait for the next sweep, which sees everything that was
        there at the time of the call; all such calls share it. Files are tried after that, beside the sweeps that
        follow: these do not try them again, but wait for them as well.

        Parameters
        ----------
        patience_s : float > 0 [s], optional
            How long to wait for the sweep, which goes on without the caller; an empty list if that is too short.
        """
        if self._next is None:
            self._next = self._begin(self._sweep())
        sweeping = self._next
        await asyncio.wait([sweeping], timeout=patience_s)
        return sweeping.result() if sweeping.done() else []

    async def close(self) -> None:
        """Stop sweeping, wherever it is: what is left is for the next sweep of any server."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _sweep(self) -> list[str]:
        async with self._lock:
            self._next = None
            await self._recover()
            begun = await self._look_through()
            under_way = list(self._trying.values())
            await self._expire()
            await self._collection.collect(self._settings.incoming_ttl_s)
        await asyncio.gather(*under_way)
        return list(dict.fromkeys(digest for trial in begun if (digest := trial.result())))

    async def _look_through(self) -> list[asyncio.Task[str | None]]:
        """Settle what can be settled without a trial, and begin the others'."""
        received = list(self._uploads.digests)
        entries = await self._backend.list(storage.TEMP)
        self._forget_all_but(entries, received)
        found = []
        for entry in entries:
            if entry.key not in self._trying:
                async with self._staying(entry.key):
                    found.append(await self._settle(entry))
        # Those that have failed before come last: they may again.
        due = sorted(filter(None, found), key=lambda one: self._trials.get(one[1].sha256, 0))
        return [self._begin_trial(*one) for one in due]

    @asynccontextmanager
    async def _staying(self, key: str) -> AsyncIterator[None]:
        """Leave a file that cannot be settled now for the next sweep."""
        try:
            yield
        except SpectrogramPredictorError as error:
            # If it is gone, another server has settled it meanwhile.
            if await self._backend.stat(key):
                logger.warning("%s stays for the next sweep: %s", key, error)

    def _begin_trial(self, key: str, registration: Registration) -> asyncio.Task[str | None]:
        trial = self._trying[key] = self._begin(self._promote_in_turn(key, registration))
        trial.add_done_callback(lambda _: self._end_trial(key, trial))
        return trial

    def _end_trial(self, key: str, trial: asyncio.Task[str | None]) -> None:
        del self._trying[key]
        # A sweep that the storage has failed does not wait for its trials, nor for what they raise.
        if not trial.cancelled():
            trial.exception()

    async def _promote_in_turn(self, key: str, registration: Registration) -> str | None:
        # Several files of one content are one model.
        turn = self._turns.setdefault(registration.sha256, asyncio.Lock())
        async with turn, self._lanes, self._staying(key):
            return await self._promote(key, registration)
        return None

    def _forget_all_but(self, entries: Sequence[Entry], received: Sequence[str]) -> None:
        present = {entry.key for entry in entries}
        self._seen = {key: value for key, value in self._seen.items() if key in present}
        for key in received:
            if key not in present:
                # Another server has settled it. What was received since the listing is not forgotten.
                self._uploads.digests.pop(key, None)

    async def _settle(self, entry: Entry) -> tuple[str, Registration] | None:
        """Decide on one file in temp/; return key and registration if that takes a trial."""
        digest = await self._digest(entry)
        if digest is None:
            return None
        registration = await self._registry.get(digest)
        if registration is None:
            await self._drop(entry, digest)
            return None
        key: str | None = entry.key
        if not storage.is_received(entry.key):
            key = await self._take_in(entry, digest)
        return (key, registration) if key else None

    async def _digest(self, entry: Entry) -> str | None:
        if digest := self._uploads.digests.get(entry.key):
            return digest
        version, digest = self._seen.get(entry.key, ("", ""))
        if version == entry.version:
            return digest
        if await self._backend.read(entry.key, 1) is None:
            if await self._backend.stat(entry.key):
                logger.warning("deleting %r: it is not a regular file", entry.key)
                await self._backend.delete(entry.key)
            return None
        digest = await self._uploads.digest(self._backend.chunks(entry.key))
        self._seen[entry.key] = (entry.version, digest)
        return digest

    async def _drop(self, entry: Entry, digest: str) -> None:
        age_s = await self._backend.now() - entry.modified
        if not storage.is_received(entry.key) and age_s < self._settings.temp_grace_s:
            logger.debug("%r is not registered, but may still be arriving", entry.key)
            return
        logger.info("deleting %s: nobody registered it", digest)
        await self._delete_unchanged(entry)

    async def _take_in(self, entry: Entry, digest: str) -> str | None:
        """Copy a file that was put into temp/ by hand: whoever holds it open could still write to the original."""
        upload = await self._uploads.begin(registered=True)
        try:
            async for chunk in self._backend.chunks(entry.key):
                await upload.write(chunk)
            if await upload.sha256() != digest:
                return None
            key = await upload.commit()
        finally:
            await upload.cancel()
        await self._delete_unchanged(entry)
        return key

    async def _promote(self, key: str, registration: Registration) -> str | None:
        """Promote a file, if it passes its trial; return its digest."""
        digest = registration.sha256
        tried = await self._tried(key, registration)
        if tried is None:
            return None
        format_, inspected = tried
        # A registration that comes now finds a model to try, or is the one that the next sweep goes by.
        async with self._terms_of(digest):
            if not await self._holds(registration):
                return None
            await self._registry.note(registration, inspected)
            destination = storage.model_key(digest, format_)
            if not await self._backend.move(key, destination) and not await self._backend.stat(destination):
                return None
        self._uploads.digests.pop(key, None)
        self._trials.pop(digest, None)
        logger.info("promoted %s (%s)", digest, format_)
        if self._announce:
            self._announce(digest)
        return digest

    async def _tried(self, key: str, registration: Registration) -> tuple[str, dict[str, Any]] | None:
        """Return a file's format and what its trial told of it, or None if it did not pass, or is gone."""
        digest = registration.sha256
        try:
            format_ = await self._format(key)
            return format_, await self._try(key, registration, format_)
        except ModelNotFound:
            return None
        except _REFUSALS as error:
            await self._refuse(key, registration, error.message)
        except Damaged:
            # It, or one of its goldens, which can be mended.
            if await self._uploads.digest(self._backend.chunks(key)) == digest:
                raise
            await self._reject(key, digest, "it was damaged on its way into the storage: send it again")
        except SpectrogramPredictorError as error:
            if _is_no_fault_of_the_file(error):
                raise
            self._trials[digest] = self._trials.get(digest, 0) + 1
            if self._trials[digest] < MAX_TRIAL_LOADS:
                raise
            await self._refuse(key, registration, f"trying it failed {MAX_TRIAL_LOADS} times: {error.message}")
        return None

    def _terms_of(self, digest: str) -> asyncio.Lock:
        """Return what is held while a model's registration must not change; a large one takes long to move."""
        return self._registering.setdefault(digest, asyncio.Lock())

    async def _holds(self, registration: Registration) -> bool:
        """Tell whether it is still the one under which a file has been tried."""
        if await self._registry.get(registration.sha256) == registration:
            return True
        logger.info(
            "%s was registered anew while it was tried: the next sweep tries it again", registration.sha256
        )
        return False

    async def _refuse(self, key: str, registration: Registration, reason: str) -> None:
        """Reject what was tried, unless another server has promoted it meanwhile, or it is registered anew."""
        if await self._backend.stat(key) and await self._holds(registration):
            await self._reject(key, registration.sha256, reason)

    async def _earlier(self, request: Request) -> Registration | None:
        try:
            earlier = await self._registry.get(request.sha256)
        except Damaged:
            earlier = None
        if earlier is None and "recipe" not in request.changes and await self._registry.had_recipe(request.sha256):
            raise Unprocessable("the model's recipe is lost or damaged: send it again, or null for none")
        return earlier

    async def _try_again(self, key: str, registration: Registration) -> dict[str, Any]:
        try:
            return await self._try(key, registration, key.rpartition(".")[2])
        except _REFUSALS as error:
            raise type(error)(f"the model is served as it was registered before: {error.message}") from error

    async def _try(self, key: str, registration: Registration, format_: str) -> dict[str, Any]:
        inspected = await self._inspect(key, registration, format_)
        registration.check_labels(inspected["outputs"])
        return inspected

    async def _format(self, key: str) -> str:
        head = await self._backend.read(key, 8)
        if head is None:
            raise ModelNotFound("the file is gone")
        for format_, magic in _MAGIC.items():
            if head.startswith(magic):
                return format_
        raise UnsupportedMedia(f"not a Keras model: neither HDF5 nor a .keras archive, it starts with {head!r}")

    async def _reject(self, key: str, digest: str, reason: str) -> None:
        logger.warning("rejected %s: %s", digest, reason)
        await self._registry.reject(digest, reason)
        self._trials.pop(digest, None)
        await self._delete(key)

    async def _delete_unchanged(self, entry: Entry) -> None:
        """Delete what was hashed, unless somebody has put something else in its place."""
        if await self._backend.stat(entry.key) == entry:
            await self._delete(entry.key)

    async def _delete(self, key: str) -> None:
        await self._backend.delete(key)
        self._uploads.digests.pop(key, None)
        self._seen.pop(key, None)

    async def _expire(self) -> None:
        """Remove uploads in which nothing has moved for long: whoever sent them is gone."""
        ttl_s = self._settings.incoming_ttl_s
        for key in [*await self._backend.expire(ttl_s), *await self._uploads.partials.expire(ttl_s)]:
            logger.info("expired %s", key)
        await tokens.forget(self._backend)

    async def _recover(self) -> None:
        try:
            await self._uploads.partials.recover()
        except SpectrogramPredictorError as error:
            logger.warning("uploads that are whole stay for the next sweep: %s", error)


def _is_no_fault_of_the_file(error: SpectrogramPredictorError) -> bool:
    """Tell whether it is time in a queue, the storage, or room on this machine."""
    in_queue = isinstance(error, DeadlineExceeded) and not isinstance(error, TooSlow)
    return in_queue or isinstance(error, StorageUnavailable | InsufficientStorage)
