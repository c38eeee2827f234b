"""HDF5 files with more in them than numbers, or less than they say."""

import ctypes
import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

from spectrogram_predictor.worker.heaps import _lookup3
from tests.zoo.making import (
    DEEP,
    ENDINGS,
    Animal,
    Trap,
    archived,
    harmless,
    members,
    with_hdf5,
)


def _at(file: h5py.File, deep: bool) -> h5py.Group:
    return file.require_group("model_weights/a/b/c" if deep else "/")


def _external(file: h5py.File, deep: bool) -> None:
    _at(file, deep).create_dataset("kernel", (4,), "u1", external=[("/etc/hostname", 0, 4)])


def _virtual(file: h5py.File, deep: bool) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "kernel", (4,))
    _at(file, deep).create_virtual_dataset("kernel", layout)


def _declared(file: h5py.File, deep: bool) -> None:
    _at(file, deep).create_dataset("kernel", (2**40,), "f4", chunks=(2**20,), compression="gzip")


def _never_written(file: h5py.File, deep: bool) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_LATE)
    space = h5py.h5s.create_simple((2**38,))
    h5py.h5d.create(_at(file, deep).id, b"kernel", h5py.h5t.NATIVE_FLOAT, space, plist)


def _chunk_bomb(file: h5py.File, deep: bool) -> None:
    dataset = _at(file, deep).create_dataset("kernel", (4,), "f4", chunks=(4,), compression="gzip")
    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(2**26), 9))


def _short_chunk(file: h5py.File, deep: bool) -> None:
    dataset = _at(file, deep).create_dataset("kernel", (2**18,), "f4", chunks=(2**18,), compression="gzip")
    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(2**20 - 4)))


def _short_edge(file: h5py.File, deep: bool) -> None:
    """Only the last chunk, which the dataset has a part of, is shorter than all: HDF5 takes it whole."""
    dataset = _at(file, deep).create_dataset("kernel", (6,), "f4", chunks=(4,), compression="gzip")
    dataset.id.write_direct_chunk((0,), zlib.compress(bytes(16)))
    dataset.id.write_direct_chunk((4,), zlib.compress(bytes(8)))


def _short_plain_chunk(file: h5py.File, deep: bool) -> None:
    """What is not compressed, but could be, may have any size too."""
    dataset = _at(file, deep).create_dataset("kernel", (64,), "f4", chunks=(64,), compression="gzip")
    dataset.id.write_direct_chunk((0,), bytes(8), filter_mask=1)


def _checked_short_chunk(file: h5py.File, deep: bool) -> None:
    dataset = _at(file, deep).create_dataset("kernel", (64,), "f4", chunks=(64,), fletcher32=True)
    dataset.id.write_direct_chunk((0,), bytes(256))


def _without_end(file: h5py.File, deep: bool) -> None:
    dataset = _at(file, deep).create_dataset("kernel", (64,), "f4", chunks=(64,), compression="gzip")
    packed = zlib.compressobj()
    data = packed.compress(bytes(256)) + packed.flush(zlib.Z_SYNC_FLUSH)
    dataset.id.write_direct_chunk((0,), data)


def _unfiltered_edge(file: h5py.File, deep: bool) -> None:
    """Write a last chunk that is read as it is, and looks as if it were compressed."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((64,))
    plist.set_deflate(9)
    library = ctypes.CDLL(h5py.h5p.__file__)
    assert library.H5Pset_chunk_opts(ctypes.c_int64(plist.id), 2) >= 0
    space = h5py.h5s.create_simple((100,))
    dataset = h5py.h5d.create(_at(file, deep).id, b"kernel", h5py.h5t.NATIVE_FLOAT, space, plist)
    for place in (0, 64):
        dataset.write_direct_chunk((place,), zlib.compress(bytes(256)))


def _missing_chunks(file: h5py.File, deep: bool) -> None:
    for number in range(3):
        _at(file, deep).create_dataset(f"kernel_{number}", (2**16,), "f4", chunks=(2**14,), compression="gzip")


def _many_empty(file: h5py.File, deep: bool) -> None:
    """Datasets of nothing, each of which says that it has a little less than what one is forgiven."""
    for number in range(300):
        _at(file, deep).create_dataset(f"kernel_{number}", (2**20,), "u1", chunks=(2**20,))


def _packed_twice(file: h5py.File, deep: bool) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1024,))
    plist.set_deflate(9)
    plist.set_deflate(9)
    h5py.h5d.create(_at(file, deep).id, b"kernel", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((1024,)), plist)


def _large_chunks(file: h5py.File, deep: bool) -> None:
    _at(file, deep).create_dataset("kernel", (4,), "f4", maxshape=(None,), chunks=(2**28,))


def _cycle(file: h5py.File, deep: bool) -> None:
    group = _at(file, deep)
    group["again"] = group


def _two_names(file: h5py.File, deep: bool) -> None:
    group = _at(file, deep)
    group["one"] = np.zeros(3, "f4")
    group["two"] = group["one"]


def _deep_groups(file: h5py.File, deep: bool) -> None:
    group = _at(file, deep)
    for _ in range(100):
        group = group.create_group("g")


def _many_groups(file: h5py.File, deep: bool) -> None:
    group = _at(file, deep)
    for number in range(50_001):
        h5py.h5g.create(group.id, str(number).encode())


def _as_the_first(length: int, count: int) -> Callable[[bytes], bytes]:
    """Return what makes all texts of attributes the first, which is so long: it is told once, and referred to."""

    def change(data: bytes) -> bytes:
        made, at, said = bytearray(data), -1, length.to_bytes(4, "little")
        while (at := data.find(said, at + 1)) >= 0:
            place = int.from_bytes(data[at + 4 : at + 12], "little")
            if data[place : place + 4] == b"GCOL":
                made[at : at + 16 * count] = data[at : at + 16] * count
        assert bytes(made) != data
        return bytes(made)

    return change


def _long_texts(file: h5py.File, deep: bool) -> Callable[[bytes], bytes]:
    """Give an attribute many texts which are one and the same long text in the file."""
    _at(file, deep).attrs.create("names", ["x" * 2**20] + ["y"] * 3000, dtype=h5py.string_dtype())
    return _as_the_first(2**20, 3001)


def _many_texts(file: h5py.File, deep: bool) -> Callable[[bytes], bytes]:
    """Give many attributes texts, none of which is too much by itself: Keras reads them together."""
    for number in range(20):
        _at(file, deep).attrs.create(
            f"layer_names{number}", ["x" * 2**15] + ["y"] * 250, dtype=h5py.string_dtype()
        )
    return _as_the_first(2**15, 251)


def _packed_names(file: h5py.File, deep: bool) -> None:
    """Make a group whose members' names are compressed: HDF5 takes memory for them when they are listed."""
    plist = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    library, made = ctypes.CDLL(h5py.h5p.__file__), ctypes.c_int64(plist.id)
    assert library.H5Pset_link_phase_change(made, 0, 0) >= 0
    assert library.H5Pset_deflate(made, 9) >= 0
    group = h5py.h5g.create(_at(file, deep).id, b"packed", gcpl=plist)
    h5py.h5g.create(group, b"member")


def _compound(file: h5py.File, deep: bool) -> None:
    _at(file, deep)["kernel"] = np.zeros(3, [("a", "f4"), ("b", "i4")])


def _datatype(file: h5py.File, deep: bool) -> None:
    _at(file, deep)["kind"] = np.dtype("f4")


_OBJECTS: dict[str, tuple[str, Callable[[h5py.File, bool], None]]] = {
    "CVE-2026-1669 external": ("^the dataset /.*kernel of the HDF5 file is external", _external),
    "CVE-2026-12480 virtual": ("^the dataset /.*kernel of the HDF5 file is virtual", _virtual),
    "CVE-2026-0897 declared": ("is said to have 4398046511104 bytes, of which the file holds 0", _declared),
    "never written": ("is said to have 1099511627776 bytes, of which the file holds 0", _never_written),
    "a chunk that becomes more": ("has a chunk that becomes more than the 16 bytes", _chunk_bomb),
    "a chunk that becomes less": ("has a chunk that does not become the 1048576 bytes", _short_chunk),
    "a chunk at the edge that becomes less": ("has a chunk that does not become the 16 bytes", _short_edge),
    "a chunk that is short as it is": ("has a chunk that does not become the 256 bytes", _short_plain_chunk),
    "a chunk whose sum is not there": ("has a chunk that does not become the 256 bytes", _checked_short_chunk),
    "a chunk without an end": ("has a chunk that does not become the 256 bytes", _without_end),
    "chunks that are packed where they are full": ("packed in a way that Keras never does", _unfiltered_edge),
    "chunks that are missing": ("has other chunks than it needs", _missing_chunks),
    "many that are empty": ("is said to have 1048576 bytes, of which the file holds 0", _many_empty),
    "packed twice": ("packed in a way that Keras never does", _packed_twice),
    "large chunks": ("has chunks of 1073741824 bytes, and needs 16", _large_chunks),
    "a cycle": ("leads to what has another name already", _cycle),
    "two names": ("leads to what has another name already", _two_names),
    "deep": ("groups more than 64 deep", _deep_groups),
    "many": ("has more than 50000 ", _many_groups),
    "long texts": ("the attribute 'names' of .* may take [0-9]+ bytes", _long_texts),
    "many texts": ("the attribute 'layer_names[0-9]+' of .* with those before it [0-9]+", _many_texts),
    "packed names": ("has names or attributes that are packed", _packed_names),
    "structures": ("does not hold numbers", _compound),
    "a datatype": ("is neither a group nor a dataset", _datatype),
    "texts": ("does not hold numbers", lambda file, deep: _at(file, deep).__setitem__("kernel", ["a", "b"])),
    "LZF": ("packed in a way that Keras never does", lambda file, deep: _at(file, deep).create_dataset(
        "kernel", (999,), "f4", compression="lzf") and None),
    "a soft link": ("is a soft link", lambda file, deep: _at(file, deep).__setitem__(
        "kernel", h5py.SoftLink("/model_weights"))),
    "a link into another file": ("is a link into another file", lambda file, deep: _at(file, deep).__setitem__(
        "kernel", h5py.ExternalLink("/etc/other.h5", "/kernel"))),
    "a name that steers a terminal": ("is a soft link", lambda file, deep: _at(file, deep).__setitem__(
        "evil\n12:00 ERROR promoted \x1b[2J", h5py.SoftLink("/x"))),
    "a reference": ("is neither a text nor a number", lambda file, deep: _at(file, deep).attrs.__setitem__(
        "other", file.ref)),
}  # fmt: skip


def _endless(data: bytes) -> bytes:
    """Return the file with a heap of texts that HDF5 reads for ever."""
    at = data.index(b"GCOL") + 16
    # What is free is said to have no size, not even that of its own head.
    return data[:at] + bytes(16) + data[at + 16 :]


def _packed_attributes() -> bytes:
    """Return a file with attributes in a heap which says that it is packed."""
    file = io.BytesIO()
    with h5py.File(file, "w", libver="latest") as made:
        for number in range(20):
            made.attrs[f"attribute_{number}"] = np.zeros(100)
    data = bytearray(file.getvalue())
    at = data.index(b"FRHP")
    data[at + 7] = 64
    # With what such a header has besides: so much packed, by so many filters.
    end = at + 142 + 8 + 4 + 64
    data[end : end + 4] = _lookup3(bytes(data[at:end])).to_bytes(4, "little")
    return bytes(data)


def _extended() -> bytes:
    """Return a file that has settings of its own, as those that share what is said of their objects."""
    file = io.BytesIO()
    with h5py.File(file, "w", fs_strategy="page", fs_persist=True) as made:
        made.attrs["model_config"] = "{}"
    return file.getvalue()


def objects() -> Iterator[Animal]:
    for name, (reason, change) in _OBJECTS.items():
        for ending in ENDINGS:
            for deep in (False, True):

                def build(trap: Trap, ending: str = ending, deep: bool = deep, change: Any = change) -> bytes:
                    return with_hdf5(ending, lambda file: change(file, deep))

                yield Animal(f"HDF5: {name}, {DEEP if deep else 0} deep", ending, reason, build)
    yield Animal("HDF5: packed attributes", "h5", "attributes that are packed", lambda trap: _packed_attributes())
    yield Animal("HDF5: settings", "h5", "has settings of its own", lambda trap: _extended())
    shapes: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
        "something behind": ("has 9 bytes behind its end", lambda data: data + b"PK and so"),
        "an archive behind": ("bytes behind its end", lambda data: data + harmless("keras")),
        "cut short": ("it is cut short", lambda data: data[:-1]),
        "a block before": ("it does not begin as one", lambda data: bytes(512) + data),
        "texts without end": ("a heap of texts is damaged", _endless),
        "an unknown version": ("of an unknown version", lambda data: data[:8] + b"\x09" + data[9:]),
    }
    for name, (reason, change_bytes) in shapes.items():
        yield Animal(
            f"HDF5: {name}",
            "h5",
            reason,
            lambda trap, change=change_bytes: change(harmless("h5")),  # type: ignore[misc]
        )
        yield Animal(
            f"HDF5: {name}", "keras", reason,
            lambda trap, change=change_bytes: archived(  # type: ignore[misc]
                {**members(harmless("keras")), "model.weights.h5": change(
                    members(harmless("keras"))["model.weights.h5"])}
            ),
        )  # fmt: skip
