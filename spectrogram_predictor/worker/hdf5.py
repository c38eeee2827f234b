"""Whether an HDF5 file holds numbers only, all of them in itself, and no more than it has bytes for.

Looks at every object and attribute before anything of them is read. Never follows a link that is not a hard one.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t

from spectrogram_predictor.errors import UnsupportedMedia
from spectrogram_predictor.worker import chunks, heaps

MAX_OBJECTS = 50_000
MAX_DEPTH = 64
MAX_ATTRIBUTES = 1_000
"""Of one group or dataset."""

MAX_ATTRIBUTE_BYTES = 2**26
"""Most that all attributes together may take in memory."""

MAX_READ_BYTES = 2**33
"""Most that may be read to see how much the texts of all attributes are, one attribute after the other."""

MAX_EXPANSION = 100
"""How many times their size compressed datasets may hold, beyond a MiB for all of them."""

_MAGIC = b"\x89HDF\r\n\x1a\n"
_SLACK_BYTES = 2**20
_UNDEFINED = 0xFFFFFFFFFFFFFFFF
_NUMBERS = (h5t.INTEGER, h5t.FLOAT)
_HALF_WIDTH = 2
_TEXT_BYTES = 64
"""What a text takes in memory beside itself."""


@dataclass(frozen=True)
class Contents:
    """What is in a file.

    Parameters
    ----------
    numbers : int
        How many numbers all datasets hold together: at most one for each byte that is stored of them.
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
            survey = _Survey(size, heaps.check(file, size))
            survey.visit(opened)
            return Contents(survey.numbers, _text(opened, "model_config"), _text(opened, "training_config"))
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        # HDF5 raises one or another of these at whatever is damaged.
        raise UnsupportedMedia(f"not an HDF5 file that can be read: {_first_line(error)}") from error


class _Survey:
    """Everything that has been seen in one file."""

    def __init__(self, size: int, texts: heaps.Texts) -> None:
        self._size = size
        self._texts = texts
        self._seen: set[int] = set()
        self._stored = 0
        self._unpacked = 0
        self._attributes = 0
        self._read = 0
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
            # Keras reads many of them together.
            self._attributes += size
            if self._attributes > MAX_ATTRIBUTE_BYTES:
                raise UnsupportedMedia(
                    f"{said} may take {size} bytes, with those before it {self._attributes}: that is too much"
                )

    def _attribute_size(self, said: str, attribute: Any) -> int:
        """Return how much memory an attribute takes, having looked at most at what it may."""
        kind, count = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
        if isinstance(kind, h5t.TypeStringID) and kind.is_variable_str():
            most = int(count * _TEXT_BYTES + self._texts.most(count))
            self._read += most
            if most > MAX_ATTRIBUTE_BYTES or self._read > MAX_READ_BYTES:
                return max(most, MAX_ATTRIBUTE_BYTES + 1)
            # Each may be the model's whole configuration, and none but one is.
            return int(count * _TEXT_BYTES + _length(attribute, count))
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
        # What is compressed may become many times as much; weights do not.
        self.numbers += min(count, stored)
        if self._stored > self._size:
            raise UnsupportedMedia(f"{said} has more bytes than the file has left for it")
        if layout == h5d.CHUNKED:
            self._check_chunks(said, dataset, plist, declared)
        elif declared > stored:
            raise UnsupportedMedia(_too_large(said, declared, stored))

    def _check_chunks(self, said: str, dataset: Any, plist: Any, declared: int) -> None:
        stored = dataset.get_storage_size()
        filters, size = chunks.filters(said, plist), chunks.size(said, dataset, declared)
        if chunks.expands(filters):
            self._unpacked += max(declared, dataset.get_num_chunks() * size)
            too_large = self._unpacked > MAX_EXPANSION * self._stored + _SLACK_BYTES
        else:
            too_large = declared > stored
        if too_large:
            raise UnsupportedMedia(_too_large(said, declared, stored))
        chunks.check(said, dataset, filters, size)


def _length(attribute: Any, count: int) -> int:
    """Return how many bytes the texts of an attribute have together."""
    made = np.empty(attribute.shape, h5py.string_dtype())
    if count:
        attribute.read(made)
    return sum(len(one) for one in made.flat if one)


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
    base, extension, end = struct.unpack_from("<3Q", head, offset)
    driver = struct.unpack_from("<Q", head, offset + 24)[0] if version < 2 else _UNDEFINED
    if base:
        raise UnsupportedMedia("the HDF5 file has something before its beginning")
    if driver != _UNDEFINED:
        raise UnsupportedMedia("the HDF5 file is one part of several")
    if version >= 2 and extension != _UNDEFINED:
        # Messages that are shared, images of the cache, other ways to keep free space.
        raise UnsupportedMedia("the HDF5 file has settings of its own, which Keras never writes")
    if end > size:
        raise UnsupportedMedia(f"not an HDF5 file that can be read: it is cut short, at {size} bytes of {end}")
    if end < size:
        raise UnsupportedMedia(f"the HDF5 file has {size - end} bytes behind its end")


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
