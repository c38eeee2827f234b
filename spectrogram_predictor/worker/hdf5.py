"""Whether an HDF5 file holds numbers only, all of them in itself, and no more than it has bytes for.

Looks at every object and attribute before anything of them is read. Never follows a link that is not a hard one.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z

from spectrogram_predictor.errors import UnsupportedMedia

MAX_OBJECTS = 50_000
MAX_DEPTH = 64
MAX_ATTRIBUTES = 1_000
"""Of one group or dataset."""

MAX_CHUNKS = 50_000
"""Of one dataset."""

MAX_ATTRIBUTE_BYTES = 2**28
"""Most that an attribute may take in memory."""

MAX_EXPANSION = 100
"""How many times its size a compressed dataset may hold, beyond a MiB."""

_MAGIC = b"\x89HDF\r\n\x1a\n"
_HEAP = b"GCOL\x01\x00\x00\x00"
_HEAP_HEAD = 16
_OBJECT = struct.Struct("<HH4xQ")
_SLACK_BYTES = 2**20
_UNDEFINED = 0xFFFFFFFFFFFFFFFF
_FILTERS = {h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_SHUFFLE: "shuffle", h5z.FILTER_FLETCHER32: "fletcher32"}
_NUMBERS = (h5t.INTEGER, h5t.FLOAT)
_HALF_WIDTH = 2


@dataclass(frozen=True)
class Contents:
    """What is in a file.

    Parameters
    ----------
    numbers : int
        How many numbers all datasets hold together.
    config, training : bytes or None
        The attributes ``model_config`` and ``training_config``, as they are.
    """

    numbers: int
    config: bytes | None
    training: bytes | None


def check(file: BinaryIO) -> Contents:
    """Look at everything in an HDF5 file.

    Parameters
    ----------
    file : binary file
        The whole of it; seekable.

    Raises
    ------
    UnsupportedMedia
        It is not HDF5, or has what a model has no need of: links, parts of other files, other things than numbers,
        sizes beyond its own.
    """
    size = file.seek(0, io.SEEK_END)
    _check_superblock(file, size)
    try:
        with h5py.File(file, "r") as opened:
            survey = _Survey(size, _largest_string(file, size))
            survey.visit(opened)
            return Contents(survey.numbers, _text(opened, "model_config"), _text(opened, "training_config"))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        # HDF5 raises one or another of these at whatever is damaged.
        raise UnsupportedMedia(f"not an HDF5 file that can be read: {_first_line(error)}") from error


class _Survey:
    """Everything that has been seen in one file."""

    def __init__(self, size: int, longest: int) -> None:
        self._size = size
        self._longest = longest
        self._seen: set[int] = set()
        self._stored = 0
        self.numbers = 0

    def visit(self, file: Any) -> None:
        pending: list[tuple[str, Any, int]] = [("/", h5o.open(file.id, b"/"), 0)]
        while pending:
            name, thing, depth = pending.pop()
            self._check_new(name, thing)
            self._check_attributes(name, thing)
            if isinstance(thing, h5g.GroupID):
                pending += [(path, child, depth + 1) for path, child in self._children(name, thing, depth)]
            elif isinstance(thing, h5d.DatasetID):
                self._check_dataset(name, thing)
            else:
                raise UnsupportedMedia(f"{name} of the HDF5 file is neither a group nor a dataset")

    def _check_new(self, name: str, thing: Any) -> None:
        address = h5o.get_info(thing).addr
        if address in self._seen:
            raise UnsupportedMedia(f"{name} of the HDF5 file leads to what has another name already")
        self._seen.add(address)
        if len(self._seen) > MAX_OBJECTS:
            raise UnsupportedMedia(f"the HDF5 file has more than {MAX_OBJECTS} groups and datasets")

    def _children(self, name: str, group: Any, depth: int) -> Iterator[tuple[str, Any]]:
        if depth >= MAX_DEPTH:
            raise UnsupportedMedia(f"the HDF5 file has groups more than {MAX_DEPTH} deep")
        if group.get_num_objs() > MAX_OBJECTS:
            raise UnsupportedMedia(f"{name[:80]} of the HDF5 file has more than {MAX_OBJECTS} members")
        for key in group:
            path = f"{name.rstrip('/')}/{key.decode(errors='replace')}"
            kind = group.links.get_info(key).type
            if kind != h5l.TYPE_HARD:
                raise UnsupportedMedia(
                    f"{path[:120]} of the HDF5 file is {_link(kind)}: the file must hold all itself"
                )
            yield path, h5o.open(group, key)

    def _check_attributes(self, name: str, thing: Any) -> None:
        count = h5a.get_num_attrs(thing)
        if count > MAX_ATTRIBUTES:
            raise UnsupportedMedia(f"{name[:80]} of the HDF5 file has more than {MAX_ATTRIBUTES} attributes")
        for index in range(count):
            attribute = h5a.open(thing, index=index)
            said = (
                f"the attribute {attribute.name.decode(errors='replace')[:80]!r} of {name[:80]} of the HDF5 file"
            )
            size = self._attribute_size(said, attribute)
            if size > MAX_ATTRIBUTE_BYTES:
                raise UnsupportedMedia(f"{said} may take {size} bytes: that is too much")

    def _attribute_size(self, said: str, attribute: Any) -> int:
        """Return how much memory an attribute may take, at the most."""
        kind, count = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
        if isinstance(kind, h5t.TypeStringID) and kind.is_variable_str():
            return int(count * self._longest)
        if not isinstance(kind, h5t.TypeStringID) and not _is_numeric(kind):
            raise UnsupportedMedia(f"{said} is neither a text nor a number")
        return int(count * kind.get_size())

    def _check_dataset(self, name: str, dataset: Any) -> None:
        said = f"the dataset {name[:120]} of the HDF5 file"
        kind, plist = dataset.get_type(), dataset.get_create_plist()
        if not _is_numeric(kind):
            raise UnsupportedMedia(f"{said} does not hold numbers")
        layout = plist.get_layout()
        if layout == h5d.VIRTUAL:
            raise UnsupportedMedia(f"{said} is virtual: its numbers are in other files")
        if plist.get_external_count():
            raise UnsupportedMedia(f"{said} is external: its numbers are in another file")
        space = dataset.get_space()
        if space.get_simple_extent_type() == h5s.NULL:
            return
        count, stored = space.get_simple_extent_npoints(), dataset.get_storage_size()
        declared = count * kind.get_size()
        self._stored += stored
        self.numbers += count
        if self._stored > self._size:
            raise UnsupportedMedia(f"{said} has more bytes than the file has left for it")
        if layout == h5d.CHUNKED:
            _check_chunks(said, dataset, plist, declared, stored)
        elif declared > stored:
            raise UnsupportedMedia(_too_large(said, declared, stored))


def _check_chunks(said: str, dataset: Any, plist: Any, declared: int, stored: int) -> None:
    filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
    for one in filters:
        if one not in _FILTERS or filters.count(one) > 1:
            raise UnsupportedMedia(
                f"{said} is packed in a way that Keras never does (filter {one});"
                f" {', '.join(_FILTERS.values())} are accepted, each once"
            )
    chunk = int(np.prod([int(n) for n in plist.get_chunk()], dtype=object)) * dataset.get_type().get_size()
    if chunk > declared + _SLACK_BYTES or chunk > 2**32:
        raise UnsupportedMedia(f"{said} has chunks of {chunk} bytes, and needs {declared}")
    expands = h5z.FILTER_DEFLATE in filters
    if declared > (MAX_EXPANSION if expands else 1) * stored + _SLACK_BYTES:
        raise UnsupportedMedia(_too_large(said, declared, stored))
    infos: list[Any] = []
    if expands and dataset.get_num_chunks() <= MAX_CHUNKS:
        dataset.chunk_iter(infos.append)
    elif expands:
        raise UnsupportedMedia(f"{said} has more than {MAX_CHUNKS} chunks")
    for info in infos:
        _check_chunk(said, dataset, info, filters, chunk)


def _check_chunk(said: str, dataset: Any, info: Any, filters: list[int], size: int) -> None:
    """Decompress a chunk, counting: HDF5 takes the memory for whatever comes out."""
    if info.size > size + _SLACK_BYTES:
        raise UnsupportedMedia(f"{said} has a chunk of {info.size} bytes for {size}")
    mask, data = dataset.read_direct_chunk(info.chunk_offset)
    if mask & 1 << filters.index(h5z.FILTER_DEFLATE):
        return
    decompressor = zlib.decompressobj()
    try:
        found = len(decompressor.decompress(data, size + _SLACK_BYTES))
    except zlib.error as error:
        raise UnsupportedMedia(f"{said} is damaged: {error}") from error
    if found > size + 4:
        raise UnsupportedMedia(f"{said} has a chunk that becomes more than the {size} bytes that it should")


def _is_numeric(kind: Any) -> bool:
    if isinstance(kind, h5t.TypeEnumID):
        # Booleans.
        return bool(kind.get_size() == 1)
    if isinstance(kind, h5t.TypeOpaqueID):
        # What NumPy has no type for: bfloat16, float8.
        return bool(kind.get_size() <= _HALF_WIDTH)
    return kind.get_class() in _NUMBERS and kind.get_size() <= 16


def _check_superblock(file: BinaryIO, size: int) -> None:
    """Check that the file begins and ends where HDF5 thinks, and that it is in one piece."""
    file.seek(0)
    head = file.read(64)
    if not head.startswith(_MAGIC):
        raise UnsupportedMedia("not an HDF5 file: it does not begin as one")
    version = head[8]
    offset = {0: 24, 1: 28, 2: 12, 3: 12}.get(version)
    if offset is None or len(head) < 64:
        raise UnsupportedMedia("not an HDF5 file that can be read: it is cut short, or of an unknown version")
    if head[13 if version < 2 else 9] != 8:
        raise UnsupportedMedia("not an HDF5 file that can be read: its addresses have not eight bytes")
    base, _, end = struct.unpack_from("<3Q", head, offset)
    driver = struct.unpack_from("<Q", head, offset + 24)[0] if version < 2 else _UNDEFINED
    if base:
        raise UnsupportedMedia("the HDF5 file has something before its beginning")
    if driver != _UNDEFINED:
        raise UnsupportedMedia("the HDF5 file is one part of several")
    if end > size:
        raise UnsupportedMedia(f"not an HDF5 file that can be read: it is cut short, at {size} bytes of {end}")
    if end < size:
        raise UnsupportedMedia(f"the HDF5 file has {size - end} bytes behind its end")


def _largest_string(file: BinaryIO, size: int) -> int:
    """Return a size that no text of variable length in the file exceeds.

    They lie in heaps, and any number of attributes may have one and the same: without looking there, nothing says
    how much memory an attribute takes. Some heaps that are damaged, HDF5 reads for ever.
    """
    largest = total = 0
    for at in _heaps(file):
        file.seek(at + len(_HEAP))
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        total += length
        if not _HEAP_HEAD <= length <= size - at or total > size:
            raise UnsupportedMedia("not an HDF5 file that can be read: a heap of texts is damaged")
        largest = max(largest, _largest_in(file.read(length - _HEAP_HEAD)))
    return largest


def _largest_in(heap: bytes) -> int:
    """Return the size of the largest object in a heap, having gone through all of it."""
    at = largest = 0
    while at + _OBJECT.size <= len(heap):
        index, _, length = _OBJECT.unpack_from(heap, at)
        # What is free is one object with the number 0, its head included.
        step = _OBJECT.size + -(-length // 8) * 8 if index else length
        if step < _OBJECT.size or step > len(heap) - at:
            raise UnsupportedMedia("not an HDF5 file that can be read: a heap of texts is damaged")
        at, largest = at + step, max(largest, length if index else 0)
    return largest


def _heaps(file: BinaryIO) -> list[int]:
    """Return wherever a heap may begin."""
    found, position, held = [], 0, b""
    file.seek(0)
    while block := file.read(2**22):
        data = held + block
        found += [position - len(held) + at for at in _positions(data, _HEAP)]
        position += len(block)
        held = data[1 - len(_HEAP) :]
    return found


def _positions(data: bytes, wanted: bytes) -> Iterator[int]:
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)


def _text(file: Any, name: str) -> bytes | None:
    value = file.attrs.get(name)
    if isinstance(value, str):
        return value.encode()
    return bytes(value) if isinstance(value, bytes) else None


def _link(kind: int) -> str:
    return {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link into another file"}.get(
        kind, "an unknown link"
    )


def _too_large(said: str, declared: int, stored: int) -> str:
    return f"{said} is said to have {declared} bytes, of which the file holds {stored}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
