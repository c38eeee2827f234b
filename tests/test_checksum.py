"""A chunk that says what it hashes to, without HTTP: what is kept of it until all of it has been seen."""

import hashlib
import logging
import resource
from collections.abc import Iterator

import pytest

from spectrogram_predictor.errors import InsufficientStorage
from spectrogram_predictor.handlers.checksum import Checksum

MIB = 2**20
DATA = bytes(range(256)) * 2**12


@pytest.fixture
def nine_mebibytes() -> Iterator[None]:
    """The room that a file has, in place of a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9 * MIB, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("nine_mebibytes")
def test_the_last_bytes_may_have_no_room_either(caplog: pytest.LogCaptureFixture) -> None:
    """Python writes them when the chunk is read again, or closed: the first is said, the second does no harm."""
    chunk = Checksum("sha1", hashlib.sha1(DATA * 9 + b"the end").digest())
    for _ in range(9):
        chunk.take(DATA)
    chunk.take(b"the end")
    with pytest.raises(InsufficientStorage):
        chunk.verify()
    chunk.close()
    assert caplog.record_tuples == [
        (
            "spectrogram_predictor.handlers.checksum",
            logging.WARNING,
            "a chunk with a checksum cannot be kept until it is checked: [Errno 27] File too large",
        )
    ]
    caplog.clear()


@pytest.mark.parametrize("times", [1, 9])
def test_what_is_closed_ends(times: int) -> None:
    """Though it is being read: its client has left meanwhile."""
    chunk = Checksum("sha256", hashlib.sha256(DATA * times + b"the end").digest())
    for _ in range(times):
        chunk.take(DATA)
    chunk.take(b"the end")
    chunk.verify()
    assert chunk.read() == DATA[:MIB]
    chunk.close()
    assert chunk.read() == b""
    chunk.close()
