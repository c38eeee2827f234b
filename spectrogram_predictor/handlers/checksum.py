"""A chunk that says what it hashes to: kept beside the upload until all of it has been seen.

In memory while it is small, else in the temporary folder. Not in the storage: what is stored counts, and may have
been told to somebody by the time it turns out to be wrong.
"""

import base64
import binascii
import hashlib
import tempfile
from typing import IO, Self

from spectrogram_predictor.errors import BadRequest, ChecksumMismatch

CHECKSUMS = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}

_IN_MEMORY = 8 * 2**20


class Checksum:
    """A chunk that is not believed until all of it has been seen.

    Attributes
    ----------
    file : IO
        What came so far; for its owner to close.
    """

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self.file: IO[bytes] = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # closed by its owner
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
        """Keep the next bytes."""
        self._digest.update(chunk)
        self.file.write(chunk)

    def verify(self) -> None:
        """Believe it, or not.

        Raises
        ------
        ChecksumMismatch
            What came is not what was sent.
        """
        if self._digest.digest() != self._expected:
            raise ChecksumMismatch("the chunk does not have this checksum: send it again")
        self.file.seek(0)


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
