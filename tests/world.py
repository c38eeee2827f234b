"""One storage, the servers on it, what their clients were told, and whether it was true.

The invariants that are checked:

    I1  every object in models/ hashes to its name
    I2  registered and fully received: promoted in the end, and served
    I3  what nobody registered is gone after the sweep, and what is left of a dead server after its time
    I4  what was acknowledged is there, whole
    I5  no source is gone before its destination stands: at every moment, what is owed is there
    I6  an upload that is still moving is never collected
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from spectrogram_predictor import storage
from spectrogram_predictor.config import PromotionSettings, UploadSettings
from spectrogram_predictor.errors import DigestMismatch, ModelNotFound, SpectrogramPredictorError, UploadGone
from spectrogram_predictor.promotion import Promoter
from spectrogram_predictor.registration import Registration
from spectrogram_predictor.registry import Registry
from spectrogram_predictor.storage import Backend
from spectrogram_predictor.uploads import Upload, Uploads

FOLDERS = ("registered/", "incoming/", "temp/", "inspected/", "models/", "rejected/")

LONG_S = 3600.0
OVER_S = -5.0
"""An age that everything has reached, however coarse the store's clock is."""

Snapshot = dict[str, str]
"""SHA-256 of every object's content, by key."""


Contents = Callable[[], Awaitable[dict[str, bytes]]]


class Violation(AssertionError):
    """An invariant does not hold; its name comes first."""


class InlineLane:
    """A lane without threads, so that tests can be repeated step by step."""

    async def put(self, function: Callable[..., object], *args: Any) -> None:
        """Do it now."""
        function(*args)

    async def join(self) -> None:
        """Nothing waits."""

    async def drop(self) -> None:
        """Nothing waits."""


class InlineLanes:
    """Any number of them."""

    def lane(self) -> InlineLane:
        """Return a lane."""
        return InlineLane()


class Server:
    """What one server process has besides its ports and workers.

    Parameters
    ----------
    backend : Backend
        Its own way to the storage.
    incoming_ttl_s : float
        As in the settings, and beyond what they allow.
    promoter : type
        To try another one.
    """

    def __init__(self, backend: Backend, incoming_ttl_s: float = LONG_S, promoter: Any = Promoter) -> None:
        self.backend = backend
        self.registry = Registry(backend)
        self.uploads = Uploads(backend, UploadSettings())
        self.uploads.lanes.close()
        self.uploads.lanes = self.uploads.partials.lanes = InlineLanes()  # type: ignore[assignment]
        self.uploads.partials.grace_s = incoming_ttl_s
        settings = PromotionSettings(incoming_ttl_s=incoming_ttl_s, temp_grace_s=0)
        self.promoter = promoter(backend, self.registry, self.uploads, self._inspect, settings)

    async def predict(self, sha256: str) -> str:
        """Fetch a promoted model as a prediction does; return the digest of what a worker would load."""
        key = await self.registry.find_model(sha256)
        path = await self.backend.fetch(key, sha256) if key else None
        if path is None:
            raise ModelNotFound("not promoted")
        return _sha256(path.read_bytes())

    async def _inspect(self, key: str, registration: Registration, format_: str) -> dict[str, Any]:
        sha256 = registration.sha256
        path = await self.backend.fetch(key, sha256)
        if path is None:
            raise ModelNotFound("gone")
        assert _sha256(path.read_bytes()) == sha256
        return {"format": format_, "inputs": [], "outputs": [{"shape": [3]}]}


@dataclass
class Sending:
    """What the client of an upload that can be gone on with knows.

    Attributes
    ----------
    registered : bytes
        What was registered.
    data : bytes
        What it sends.
    acknowledged : int
        The largest offset that it was told.
    over : bool
        It was told that none of it is kept, or asked for that.
    """

    registered: bytes
    data: bytes
    acknowledged: int = 0
    over: bool = False


class World:
    """One storage, and what clients of its servers know.

    Parameters
    ----------
    backend : Backend
        A sound way to the storage, to look at it.
    contents : callable, optional
        A faster one: returns every object's content by key.
    """

    def __init__(self, backend: Backend, contents: Contents | None = None) -> None:
        self.backend = backend
        self._contents = contents or self._read
        self.states: set[tuple[tuple[str, str], ...]] = set()
        self.asked: set[str] = set()
        self.registered: set[str] = set()
        self.owed: set[str] = set()
        self.partials: dict[str, Sending] = {}
        self.drops = 0

    async def register(self, server: Server, data: bytes) -> None:
        """Register a model at a server."""
        digest = _sha256(data)
        self.asked.add(digest)
        if await heard(server.registry.register(Registration(digest))):
            self.registered.add(digest)

    async def receive(self, server: Server, data: bytes, pieces: int = 2) -> None:
        """Upload a file, in pieces."""
        if upload := await self.begin(server):
            step = -(-len(data) // pieces)
            for start in range(0, len(data), step):
                if not await heard(upload.write(data[start : start + step])):
                    await heard(upload.cancel())
                    return
            await self.finish(upload, data)

    async def begin(self, server: Server) -> Upload | None:
        """Begin an upload, or hear why not."""
        try:
            return await server.uploads.begin()
        except SpectrogramPredictorError:
            return None

    async def finish(self, upload: Upload, data: bytes) -> bool:
        """Commit an upload of this content; tell whether that was acknowledged."""
        due = self._due(data)
        if await heard(upload.commit()):
            self.owed |= due
            return True
        await heard(upload.cancel())
        return False

    async def begin_partial(self, server: Server, data: bytes, sent: bytes | None = None) -> str | None:
        """Begin an upload that can be gone on with, or hear why not; return its id."""
        try:
            info = await server.uploads.partials.create(len(data), _sha256(data))
        except SpectrogramPredictorError:
            return None
        self.partials[info.upload_id] = Sending(data, data if sent is None else sent)
        return info.upload_id

    async def go_on(self, server: Server, upload_id: str, end: int) -> bool:
        """Ask how far an upload is, and send what comes then; tell whether that was acknowledged."""
        sending, partials = self.partials[upload_id], server.uploads.partials
        # Another client may hear of more, while this one is answered.
        known = sending.acknowledged
        try:
            offset = (await partials.status(upload_id, LONG_S)).offset
            self._acknowledge(sending, known, offset)
            if offset == len(sending.data):
                return True
            append = await partials.append(upload_id, offset)
            # Whatever of it is removed now, and whatever is heard of that.
            sending.over |= end >= len(sending.data) and sending.data != sending.registered
            try:
                await append.write(sending.data[offset : max(end, offset + 1)])
                due = self._due(sending.data)
                self._acknowledge(sending, offset, await append.end())
                if append.done:
                    self.owed |= due
            finally:
                await append.close()
        except (DigestMismatch, UploadGone) as error:
            _hold("I4", sending.over, f"{upload_id} was acknowledged up to {sending.acknowledged}: {error}")
        except SpectrogramPredictorError:
            return False
        return True

    def _acknowledge(self, sending: Sending, known: int, offset: int) -> None:
        _hold("I4", offset >= known, f"the offset went from {known} to {offset}")
        sending.acknowledged = max(offset, sending.acknowledged)

    async def terminate(self, server: Server, upload_id: str) -> None:
        """End an upload that can be gone on with."""
        self.partials[upload_id].over = True
        await heard(server.uploads.partials.terminate(upload_id))

    async def drop(self, data: bytes) -> None:
        """Put a file into temp/ by hand."""
        self.drops += 1
        due = self._due(data)
        await self.backend.put(f"{storage.TEMP}file {self.drops}", data)
        self.owed |= due

    async def predict(self, server: Server, data: bytes) -> None:
        """Ask for a prediction: no answer is fine, one of another model is not."""
        digest = _sha256(data)
        try:
            served = await server.predict(digest)
        except SpectrogramPredictorError:
            return
        _hold("I1", served == digest, f"a prediction with {served} in place of {digest}")

    async def check(self) -> Snapshot:
        """Check what holds at every moment."""
        found = await self.look()
        for key in _below(found, storage.MODELS):
            _hold("I1", storage.digest_of(key) == found[key], f"{key} holds {found[key]}")
        whole = {found[key] for folder in (storage.TEMP, storage.MODELS) for key in _below(found, folder)}
        _hold("I5", self.owed <= whole, f"{self.owed - whole} were acknowledged and are nowhere")
        for upload_id, sending in self.partials.items():
            if not sending.over and sending.acknowledged < len(sending.data):
                await self._check_partial(upload_id, sending)
        return found

    async def _check_partial(self, upload_id: str, sending: Sending) -> None:
        stored = await self.backend.stored(upload_id) or 0
        # It may have been received whole, and its client not been told.
        if stored or await self.backend.list(f"{storage.INCOMING}{upload_id}/") == []:
            _hold("I4", stored >= sending.acknowledged, f"{sending.acknowledged} acknowledged, {stored} stored")
        if stored:
            content = [chunk async for chunk in self.backend.stored_chunks(upload_id, 0, stored)]
            _hold("I4", sending.data.startswith(b"".join(content)), "bytes are mixed")

    async def settle(self, make: Callable[[float], Server]) -> None:
        """Let new servers sweep twice, after the time of everything unfinished, and check what holds then."""
        for sending in self.partials.values():
            sending.over = True
        for ttl_s in (OVER_S, OVER_S):
            await make(ttl_s).promoter.sweep()
            found = await self.check()
        promoted = {storage.digest_of(key) for key in _below(found, storage.MODELS)}
        _hold("I2", self.owed <= promoted, f"{self.owed - promoted} were received and are not promoted")
        for digest in sorted(self.owed):
            _hold("I2", await make(LONG_S).predict(digest) == digest, f"{digest} is not served")
        _hold("I3", promoted <= self.asked, f"{promoted - self.asked} were promoted and never registered")
        for folder in (storage.TEMP, storage.INCOMING):
            _hold("I3", not _below(found, folder), f"{_below(found, folder)} are left")
        _hold("I3", not await self.backend.expire(OVER_S), "unfinished writes are left")

    async def look(self) -> Snapshot:
        """Return what there is, and remember it."""
        found = {key: _sha256(content) for key, content in (await self._contents()).items()}
        # The names of uploads are random: what they hold is the state.
        names = {key: key.partition("/")[0] if _is_random(key) else key for key in found}
        self.states.add(tuple(sorted((names[key], digest) for key, digest in found.items())))
        return found

    async def _read(self) -> dict[str, bytes]:
        keys = [entry.key for folder in FOLDERS for entry in await self.backend.list(folder)]
        contents = [(key, await self.backend.read(key)) for key in keys]
        return {key: content for key, content in contents if content is not None}

    def _due(self, data: bytes) -> set[str]:
        digest = _sha256(data)
        is_model = data.startswith((b"\x89HDF", b"PK\x03\x04"))
        return {digest} if digest in self.registered and is_model else set()


async def swept(server: Server) -> None:
    """Sweep as the server does: what fails is for the next time."""
    await heard(server.promoter.sweep())


async def heard(work: Awaitable[Any]) -> bool:
    """Do as a client: tell whether it was acknowledged."""
    try:
        await work
    except SpectrogramPredictorError:
        return False
    return True


def _hold(name: str, holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(f"{name}: {otherwise}")


def _is_random(key: str) -> bool:
    return storage.is_received(key) or key.startswith(storage.INCOMING)


def _below(found: Snapshot, folder: str) -> list[str]:
    return [key for key in found if key.startswith(folder)]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
