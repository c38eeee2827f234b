"""HDF5 files with more in them than numbers, or less than they say."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import numpy as np

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


def _long_texts(file: h5py.File, deep: bool) -> None:
    """Give an attribute many texts which are one and the same long text in the file."""
    # With a few: their place in the file is then copied over that of the others.
    _at(file, deep).attrs.create("names", ["x" * 2**20] + ["y"] * 3000, dtype=h5py.string_dtype())


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
    "packed twice": ("packed in a way that Keras never does", _packed_twice),
    "large chunks": ("has chunks of 1073741824 bytes, and needs 16", _large_chunks),
    "a cycle": ("leads to what has another name already", _cycle),
    "two names": ("leads to what has another name already", _two_names),
    "deep": ("groups more than 64 deep", _deep_groups),
    "many": ("has more than 50000 ", _many_groups),
    "long texts": ("the attribute 'names' of .* may take [0-9]+ bytes", _long_texts),
    "structures": ("does not hold numbers", _compound),
    "a datatype": ("is neither a group nor a dataset", _datatype),
    "texts": ("does not hold numbers", lambda file, deep: _at(file, deep).__setitem__("kernel", ["a", "b"])),
    "LZF": ("packed in a way that Keras never does", lambda file, deep: _at(file, deep).create_dataset(
        "kernel", (999,), "f4", compression="lzf") and None),
    "a soft link": ("is a soft link", lambda file, deep: _at(file, deep).__setitem__(
        "kernel", h5py.SoftLink("/model_weights"))),
    "a link into another file": ("is a link into another file", lambda file, deep: _at(file, deep).__setitem__(
        "kernel", h5py.ExternalLink("/etc/other.h5", "/kernel"))),
    "a reference": ("is neither a text nor a number", lambda file, deep: _at(file, deep).attrs.__setitem__(
        "other", file.ref)),
}  # fmt: skip


def _endless(data: bytes) -> bytes:
    """Return the file with a heap of texts that HDF5 reads for ever."""
    at = data.index(b"GCOL") + 16
    # What is free is said to have no size, not even that of its own head.
    return data[:at] + bytes(16) + data[at + 16 :]


def objects() -> Iterator[Animal]:
    for name, (reason, change) in _OBJECTS.items():
        for ending in ENDINGS:
            for deep in (False, True):

                def build(trap: Trap, ending: str = ending, deep: bool = deep, change: Any = change) -> bytes:
                    return with_hdf5(ending, lambda file: change(file, deep))

                yield Animal(f"HDF5: {name}, {DEEP if deep else 0} deep", ending, reason, build)
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
