"""What an upload that can be gone on with was begun for, and how far it is."""

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Info:
    """What an upload was begun for.

    Parameters
    ----------
    upload_id : str
        Cannot be guessed: who knows it may send.
    length : int > 0
        Bytes in all.
    sha256 : str
        What they must hash to.
    metadata : str
        As the client sent it.
    done : bool
        All bytes are here, and they are the right ones.
    """

    upload_id: str
    length: int
    sha256: str
    metadata: str = ""
    done: bool = False

    def to_json(self) -> bytes:
        """Return the stored form."""
        return json.dumps(asdict(self), separators=(",", ":")).encode()


@dataclass(frozen=True)
class Status:
    """How far an upload is.

    Parameters
    ----------
    info : Info
        What it was begun for.
    offset : int
        What comes next; all before is durable.
    expires : float
        When it goes if nothing comes, by the store's clock [s since 1970].
    kept : bool
        Not yet taken by a sweep, which promotes it or not.
    """

    info: Info
    offset: int
    expires: float
    kept: bool = True
