"""Where bytes are kept: the contract of every backend, and every key there is.

    registered/<sha256>.json     one registration
    golden/<sha256>              a song or a row of features that a registration's goldens name; hashes to its name
    incoming/<upload-id>/data    bytes being received
    incoming/<upload-id>/info    what an upload that can be gone on with was begun for
    incoming/<upload-id>/claim   who may go on with it
    incoming/<upload-id>/<offset>  its bytes from there, where they are kept as pieces
    temp/<upload-id>.upload      a whole file, received by a server, waiting for the sweep
    temp/<any other name>        a file that somebody put there by hand
    inspected/<sha256>.json      what loading the model showed: format, inputs, outputs
    models/<sha256>.h5|.keras    promoted; immutable; content always hashes to its name
    rejected/<sha256>.json       why a registered file was refused
    nonces/<nonce>               of a request token that has been used to change something
    quarantine/<name>.<sha256>   was promoted under that name, but has that digest

Keys are relative, with forward slashes. No other module builds or takes apart a key.
"""

import abc
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrogram_predictor import plugins

TEMP = "temp/"
INCOMING = "incoming/"
REGISTERED = "registered/"
MODELS = "models/"
REJECTED = "rejected/"
INSPECTED = "inspected/"
GOLDEN = "golden/"
QUARANTINE = "quarantine/"
NONCES = "nonces/"

PREFIXES = (REGISTERED, INCOMING, TEMP, INSPECTED, MODELS, REJECTED, GOLDEN, QUARANTINE, NONCES)
"""Where all of it is."""

FETCHED = (MODELS, GOLDEN, TEMP)
"""Where what `Backend.fetch` returns is."""

FORMATS = ("h5", "keras")
"""Model formats, which are also the file endings."""

NOT_EXCLUSIVE = (
    "does not create objects exclusively, so with several servers: of two registrations at the same time, either "
    "may win; a request may be replayed at another server at the same moment; and of two that go on with an "
    "upload at the same time, the older may still add to it"
)
"""What a backend says of a store where two may both be told that their exclusive `put` was the first."""

_MODEL = re.compile(r"models/[0-9a-f]{64}\.(h5|keras)")
_RECEIVED = re.compile(r"temp/[0-9a-f]{32}\.upload")


def registered_key(sha256: str) -> str:
    """Return the key of a registration."""
    return f"{REGISTERED}{sha256}.json"


def golden_key(sha256: str) -> str:
    """Return the key of what a golden names by its digest."""
    return f"{GOLDEN}{sha256}"


def nonce_key(nonce: str) -> str:
    """Return the key of a request token's nonce."""
    return f"{NONCES}{nonce}"


def inspected_key(sha256: str) -> str:
    """Return the key of what is known of a promoted model."""
    return f"{INSPECTED}{sha256}.json"


def rejected_key(sha256: str) -> str:
    """Return the key of a rejection."""
    return f"{REJECTED}{sha256}.json"


def model_key(sha256: str, format: str) -> str:  # noqa: A002
    """Return the key of a promoted model."""
    return f"{MODELS}{sha256}.{format}"


def is_model(key: str) -> bool:
    """Tell whether this is the name of a promoted model."""
    return _MODEL.fullmatch(key) is not None


def quarantined_key(key: str, sha256: str) -> str:
    """Return where a promoted model goes that has this digest in place of its name's."""
    return f"{QUARANTINE}{key.removeprefix(MODELS)}.{sha256}"


def incoming_key(upload_id: str) -> str:
    """Return the key of the bytes of an upload under way."""
    return f"{INCOMING}{upload_id}/data"


def info_key(upload_id: str) -> str:
    """Return the key of what an upload was begun for."""
    return f"{INCOMING}{upload_id}/info"


def claim_key(upload_id: str) -> str:
    """Return the key that names the only writer of an upload."""
    return f"{INCOMING}{upload_id}/claim"


def piece_key(upload_id: str, offset: int) -> str:
    """Return the key of an upload's bytes from an offset on."""
    return f"{INCOMING}{upload_id}/{offset:020d}"


def piece_offset(key: str) -> int | None:
    """Return where a piece begins; None if it is none."""
    name = key.rpartition("/")[2]
    return int(name) if name.isdecimal() and key.startswith(INCOMING) else None


def received_key(upload_id: str) -> str:
    """Return the key of an upload that is whole."""
    return f"{TEMP}{upload_id}.upload"


def is_received(key: str) -> bool:
    """Tell whether a server put this file into temp/, so that it is whole and will not change."""
    return _RECEIVED.fullmatch(key) is not None


def digest_of(key: str) -> str:
    """Return the SHA-256 in the key of a registration, model, rejection or golden."""
    return key.rpartition("/")[2].partition(".")[0]


@dataclass(frozen=True)
class Entry:
    """One object of a listing.

    Parameters
    ----------
    key : str
        Its key.
    size : int
        In bytes.
    modified : float
        When it last changed, by the store's clock [s since 1970].
    version : str
        Differs whenever the content may differ.
    """

    key: str
    size: int
    modified: float
    version: str


class Writer(abc.ABC):
    """Bytes on their way into an object that nobody sees until `commit`."""

    @abc.abstractmethod
    async def write(self, data: bytes) -> None:
        """Append; may return before it is done, and raise what went wrong with it at a later call."""

    @abc.abstractmethod
    async def commit(self) -> None:
        """Make all of it durable, and let it appear under the key."""

    @abc.abstractmethod
    async def cancel(self) -> None:
        """Leave nothing behind; harmless after `commit` or twice."""


class Partial(abc.ABC):
    """The bytes of an upload that can be gone on with, in the hands of its only writer.

    Attributes
    ----------
    stored : int
        Bytes that can be read back by now; never fewer than were synced.
    """

    stored: int

    @abc.abstractmethod
    async def write(self, data: bytes) -> None:
        """Append; may return before it is done, and raise what went wrong with it at a later call.

        Raises
        ------
        Superseded
            Somebody has resumed it since.
        OffsetMismatch
            The last bytes of whoever wrote before arrived late, and are where these should go.
        """

    @abc.abstractmethod
    async def sync(self) -> int:
        """Make all of it durable; return how much that is, which may be acknowledged.

        Raises
        ------
        Superseded, OffsetMismatch
            As for `write`: nothing may be acknowledged any more.
        """

    @abc.abstractmethod
    async def finish(self, key: str) -> None:
        """Let all of it appear under a key, in one step, and no longer here; again after a crash is fine."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go; keep what was written as far as that is possible; harmless twice, or after `finish`."""


class Backend(abc.ABC):
    """A store of objects.

    Every method may raise `StorageUnavailable`, and those that write `InsufficientStorage`. None of them blocks
    the event loop. Objects appear whole or not at all, and what has been acknowledged survives a crash of the
    process and of the machine.

    Parameters
    ----------
    url : str
        ``storage.url``.
    options : mapping
        ``storage.options``.
    """

    @abc.abstractmethod
    def __init__(self, url: str, options: Mapping[str, Any]) -> None: ...

    @property
    def local_folders(self) -> Sequence[Path]:
        """Folders that the files of `fetch` are in, once the backend is open: workers can read no other files."""
        return (Path("/"),)

    @abc.abstractmethod
    async def open(self) -> None:
        """Make ready; raise ConfigError if this store cannot be used."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Let go of connections and threads."""

    @abc.abstractmethod
    async def check(self) -> None:
        """Raise StorageUnavailable if objects cannot be read and written now."""

    async def free_bytes(self) -> int | None:
        """Return how much more can be stored; None if nobody knows."""
        return None

    @abc.abstractmethod
    async def now(self) -> float:
        """Return the store's clock [s since 1970], to compare with `Entry.modified`."""

    @abc.abstractmethod
    async def list(self, prefix: str) -> list[Entry]:
        """Return every object below a prefix that ends with a slash, sorted by key."""

    @abc.abstractmethod
    async def stat(self, key: str) -> Entry | None:
        """Return one object's entry, or None."""

    @abc.abstractmethod
    async def read(self, key: str, size: int = -1) -> bytes | None:
        """Return the object's content, or its first `size` bytes; None if there is no such object."""

    @abc.abstractmethod
    def chunks(self, key: str) -> AsyncIterator[bytes]:
        """Yield the object's content; raise StorageUnavailable if it goes away meanwhile."""

    @abc.abstractmethod
    async def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        """Write a small object whole; with `exclusive`, only if there is none (False if there was)."""

    @abc.abstractmethod
    async def writer(self, key: str, staging: str) -> Writer:
        """Begin a large object; until it is committed, its bytes may be kept under the key `staging`."""

    @abc.abstractmethod
    async def expire(self, age_s: float) -> Sequence[str]:
        """Remove what a writer began and nobody has added to for so long; return the keys."""

    @abc.abstractmethod
    async def move(self, source: str, destination: str) -> bool:
        """Move in one step, replacing what is there; False if the source is gone.

        Where that is a copy and a removal, what has been put in the source's place meanwhile stays there.
        """

    @abc.abstractmethod
    async def delete(self, key: str) -> None:
        """Remove; nothing to remove is fine."""

    @abc.abstractmethod
    async def fetch(self, key: str, sha256: str) -> Path | None:
        """Return a local file with the object's content, for a worker to read; None if there is no such object.

        Parameters
        ----------
        key : str
            The object. One in temp/ is to be looked at itself, not at what is known of others with its digest.
        sha256 : str
            Digest that its content should have. A backend that copies it here checks; the worker does in any case.
        """

    async def distrust(self, sha256: str) -> None:  # noqa: B027  # without copies there is nothing to check
        """Check the copies with this digest that are here once more, before `fetch` returns one again."""

    # Uploads that can be gone on with. A backend need not do anything for them: kept as pieces, they are as safe
    # as its `put`, and as well fenced as that is exclusive. One that can append or copy by itself does it better.

    def piece_size(self, offset: int) -> int:
        """Return how large the piece at this offset should be [bytes]; two of them are in memory.

        They grow, as S3 makes no object of more than 10,000: up to 2 GiB they have 8 MiB, up to 16 GiB at most 64,
        and those of 5 TiB at most 640.
        """
        return min(max(8 * 2**20, offset // 256), 640 * 2**20)

    async def begin(self, upload_id: str) -> None:  # noqa: B027  # pieces need nothing
        """Make room for an upload of which nothing has come."""

    async def resume(self, upload_id: str) -> Partial | None:
        """Become an upload's only writer, after all that is stored; None if there is no such upload.

        Whoever was it before can neither add to it nor acknowledge anything from now on, in this process or any
        other.

        Raises
        ------
        UploadLocked
            Whoever was it before does not let go.
        """
        from spectrogram_predictor.pieces import Pieces

        return await Pieces.resume(self, upload_id)

    async def stored(self, upload_id: str) -> int | None:
        """Return how many bytes of an upload are durable, and disturb nobody; None if there is no such upload."""
        from spectrogram_predictor import pieces

        return pieces.end_of(await pieces.find(self, upload_id))

    def stored_chunks(self, upload_id: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield bytes of an upload that are stored."""
        from spectrogram_predictor import pieces

        return pieces.chunks(self, upload_id, start, end)

    async def join(self, parts: Sequence[Entry], key: str, staging: str) -> None:
        """Make one object of several, in this order; it appears in one step, and they stay."""
        writer = await self.writer(key, staging)
        try:
            for part in parts:
                async for chunk in self.chunks(part.key):
                    await writer.write(chunk)
            await writer.commit()
        finally:
            await writer.cancel()


def partials(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Return what there is in incoming/ of each upload that can be gone on with.

    Parameters
    ----------
    entries : iterable of Entry
        A listing of incoming/.
    """
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.key.split("/")[1], []).append(entry)
    return {name: those for name, those in found.items() if any(not one.key.endswith("/data") for one in those)}


def get_backend(name: str, url: str, options: Mapping[str, Any]) -> Backend:
    """Return the backend of that entry-point name, not yet opened.

    Raises
    ------
    ConfigError
        It is not installed.
    """
    backend = plugins.load("backends", name)(url, options)
    assert isinstance(backend, Backend)
    return backend
