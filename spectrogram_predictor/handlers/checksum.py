"""A chunk that says what it hashes to: kept beside the upload until all of it has been seen.

In memory while it is small, else in the temporary folder. Not in the storage: what is stored counts, and may have
been told to somebody by the time it turns out to be wrong.
"""

import base64
import binascii
import contextlib
import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Self

from spectrogram_predictor.errors import BadRequest, ChecksumMismatch, InsufficientStorage

logger = logging.getLogger(__name__)

CHECKSUMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}

_IN_MEMORY = 8 * 2**20
_PIECE = 2**20


class Checksum:
    """A chunk that is not believed until all of it has been seen; for its owner to close.

    Parameters
    ----------
    algorithm : str
        One of `CHECKSUMS`.
    expected : bytes
        The digest that the chunk is said to have.
    """

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # closed by its owner
        self._expected = expected
        self._digest = CHECKSUMS[algorithm]()

    @classmethod
    def parse(cls, header: str | None) -> Self | None:
        """Read ``Upload-Checksum``.

        Raises
        ------
        BadRequest
            It is of an algorithm that is not supported, or not base64.
        """
        if header is None:
            return None
        algorithm, _, value = header.partition(" ")
        if algorithm not in CHECKSUMS:
            raise BadRequest(f"Upload-Checksum takes {' and '.join(CHECKSUMS)}")
        return cls(algorithm, decoded(value))

    def take(self, chunk: bytes) -> None:
        """Keep the next bytes.

        Raises
        ------
        InsufficientStorage
            There is no room for them.
        """
        self._digest.update(chunk)
        with _room():
            self._file.write(chunk)

    def verify(self) -> None:
        """Believe it, or not.

        Raises
        ------
        ChecksumMismatch
            What came is not what was sent.
        InsufficientStorage
            There is no room for the last of it.
        """
        if self._digest.digest() != self._expected:
            raise ChecksumMismatch("the chunk does not have this checksum: send it again")
        with _room():
            self._file.seek(0)

    def read(self) -> bytes:
        """Return the next piece of what was verified; nothing at its end, or once it is closed."""
        # Its client may have left while this waited for a thread.
        with contextlib.suppress(ValueError):
            return self._file.read(_PIECE)
        return b""

    def close(self) -> None:
        """Keep nothing of it; harmless twice."""
        # What waits to be written has no room now either.
        with contextlib.suppress(OSError):
            self._file.close()


def decoded(value: str) -> bytes:
    """Return what a header says in base64.

    Raises
    ------
    BadRequest
        It is not base64.
    """
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("the header is not base64") from error


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        logger.warning("a chunk with a checksum cannot be kept until it is checked: %s", error)
        raise InsufficientStorage("there is no room to check the chunk: send smaller ones") from error
