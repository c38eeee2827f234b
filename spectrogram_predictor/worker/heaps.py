"""What HDF5 keeps beside datasets, in heaps: found by their marks, before HDF5 reads one of them."""

import heapq
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from spectrogram_predictor.errors import UnsupportedMedia

_TEXTS = b"GCOL\x01\x00\x00\x00"
_TEXTS_HEAD = 16
_TEXTS_BYTES = 2**26
_OBJECT = struct.Struct("<HH4xQ")
_FRACTAL = b"FRHP\x00"
_FILTERS_AT = 7
_BLOCK = 2**22
_PLAIN_BYTES = 154
_MOST_SUSPECTS = 64
_MOST_LARGE = 3
_LARGE_BYTES = 2**12
_REFERENCE = struct.Struct("<QI")
_MASK = 2**32 - 1


@dataclass(frozen=True)
class Texts:
    """How large the texts of variable length are in a file.

    Parameters
    ----------
    large : tuple of (int, int)
        Of each of the few largest, its size [bytes], and how many places in the file may refer to it.
    longest : int
        A size that no other exceeds [bytes].
    """

    large: tuple[tuple[int, int], ...]
    longest: int

    def most(self, count: int) -> int:
        """Return a size that so many texts together do not exceed, however often one is referred to."""
        return count * self.longest + sum(min(count, places) * size for size, places in self.large)


def check(file: BinaryIO, size: int) -> Texts:
    """Check all heaps of an HDF5 file.

    Those of names, attributes and shared messages may be compressed, each as it says itself, and HDF5 takes the
    memory for whatever comes out. Those of texts lie apart, and any number of attributes may have one and the
    same: without looking there, nothing says how much memory an attribute takes. Some that are damaged, HDF5
    reads for ever.

    Parameters
    ----------
    file : binary file
        The whole of it; seekable. Its addresses and lengths have eight bytes.
    size : int
        Its size [bytes].

    Returns
    -------
    texts : Texts
        What bounds the size of any texts of variable length.

    Raises
    ------
    UnsupportedMedia
        One is packed, damaged, or larger than any attribute may be.
    """
    texts, fractal = _found(file)
    suspects = [at for at in fractal if _filters(file, at)]
    # Of a terabyte of weights, one may look like it.
    if len(suspects) > _MOST_SUSPECTS or any(_is_whole(file, at) for at in suspects):
        raise UnsupportedMedia("the HDF5 file has names or attributes that are packed, which Keras never does")
    return _measured(file, size, texts)


def _filters(file: BinaryIO, at: int) -> int:
    """Return how many bytes a heap's header has for filters."""
    file.seek(at + _FILTERS_AT)
    return int.from_bytes(file.read(2), "little")


def _is_whole(file: BinaryIO, at: int) -> bool:
    """Tell whether a heap's header has the checksum that HDF5 asks for: by chance, numbers look like its mark."""
    size = _PLAIN_BYTES + _filters(file, at)
    file.seek(at)
    header = file.read(size)
    return _lookup3(header) == int.from_bytes(file.read(4), "little")


def _lookup3(data: bytes) -> int:
    """Return Bob Jenkins' hash of 32 bits (lookup3.c, ``hashlittle``), which is HDF5's checksum."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    count = max(-(-len(data) // 12), 1)
    words: tuple[int, ...] = struct.unpack(f"<{3 * count}I", data.ljust(12 * count, b"\0"))
    for at in range(0, 3 * count - 3, 3):
        a, b, c = (a + words[at]) & _MASK, (b + words[at + 1]) & _MASK, (c + words[at + 2]) & _MASK
        for turn in (4, 6, 8, 16, 19, 4):
            a = ((a - c) & _MASK) ^ _turned(c, turn)
            a, b, c = b, (c + b) & _MASK, a
    a, b, c = (a + words[-3]) & _MASK, (b + words[-2]) & _MASK, (c + words[-1]) & _MASK
    for turn in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - _turned(b, turn)) & _MASK
        a, b, c = b, c, a
    return b


def _turned(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _MASK


def _measured(file: BinaryIO, size: int, texts: list[int]) -> Texts:
    largest: list[tuple[int, bytes]] = []
    total = 0
    for at in texts:
        file.seek(at + len(_TEXTS))
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        total += length
        if not _TEXTS_HEAD <= length <= size - at or total > size:
            raise UnsupportedMedia("not an HDF5 file that can be read: a heap of texts is damaged")
        # HDF5 makes one larger than 64 KiB for a single text only; and it is read whole here.
        if length > _TEXTS_BYTES:
            raise UnsupportedMedia(f"the HDF5 file has a text of more than {_TEXTS_BYTES} bytes")
        found = _objects(file.read(length - _TEXTS_HEAD))
        named = ((one, _REFERENCE.pack(at, index)) for index, one in found)
        largest = heapq.nlargest(_MOST_LARGE + 1, [*largest, *heapq.nlargest(_MOST_LARGE + 1, named)])
    large = [(one, name) for one, name in largest[:_MOST_LARGE] if one > _LARGE_BYTES]
    places = _places(file, {name for _, name in large}) if large else {}
    others = [one for one, _ in largest[len(large) :]]
    return Texts(tuple((one, places[name]) for one, name in large), max(others, default=0))


def _places(file: BinaryIO, wanted: set[bytes]) -> Counter[bytes]:
    """Return how often each of some references is in a file, whatever it stands for."""
    found: Counter[bytes] = Counter()
    held = b""
    file.seek(0)
    while block := file.read(_BLOCK):
        data = held + block
        for one in wanted:
            found[one] += sum(1 for _ in _positions(data, one))
        held = data[1 - _REFERENCE.size :]
    return found


def _objects(heap: bytes) -> Iterator[tuple[int, int]]:
    """Yield the number and the size of each object in a heap, having gone through all of it."""
    at = 0
    while at + _OBJECT.size <= len(heap):
        index, _, length = _OBJECT.unpack_from(heap, at)
        # What is free is one object with the number 0, its head included.
        step = _OBJECT.size + -(-length // 8) * 8 if index else length
        if step < _OBJECT.size or step > len(heap) - at:
            raise UnsupportedMedia("not an HDF5 file that can be read: a heap of texts is damaged")
        at += step
        # One that is free may be referred to like any other.
        yield index, length


def _found(file: BinaryIO) -> tuple[list[int], list[int]]:
    """Return wherever a heap of texts, or one of another kind, may begin."""
    texts: list[int] = []
    fractal: list[int] = []
    position, held = 0, b""
    file.seek(0)
    while block := file.read(_BLOCK):
        data, begin = held + block, position - len(held)
        texts += [begin + at for at in _positions(data, _TEXTS)]
        fractal += [begin + at for at in _positions(data, _FRACTAL)]
        position += len(block)
        # The shorter mark may be found twice.
        held = data[1 - len(_TEXTS) :]
    return texts, fractal


def _positions(data: bytes, wanted: bytes) -> Iterator[int]:
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)
