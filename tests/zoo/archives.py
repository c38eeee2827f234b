"""Archives that are not what they look like."""

import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.zoo.making import (
    Animal,
    Trap,
    archived,
    harmless,
    members,
)


def zipped(*entries: tuple[zipfile.ZipInfo | str, bytes], comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, data in entries:
            opened.writestr(name, data)
        opened.comment = comment
    return file.getvalue()


def _with(name: str, data: bytes = b"x", **fields: Any) -> bytes:
    """Return the harmless archive with one more member."""
    info = zipfile.ZipInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return zipped(*members(harmless("keras")).items(), (info, data))


def _instead(name: str, data: bytes, **fields: Any) -> bytes:
    """Return the harmless archive with one member in the place of another."""
    entries = []
    for one, content in members(harmless("keras")).items():
        info = zipfile.ZipInfo(one)
        for field, value in fields.items() if one == name else ():
            setattr(info, field, value)
        entries.append((info, data if one == name else content))
    return zipped(*entries)


def _lying(name: str, field: str, value: int) -> bytes:
    """Return the harmless archive whose directory says something else of a member."""
    data = bytearray(harmless("keras"))
    at = data.rindex(b"PK\x01\x02", 0, data.rindex(name.encode()))
    offset, form = {"flags": (8, "<H"), "method": (10, "<H"), "size": (24, "<L"), "begin": (42, "<L")}[field]
    struct.pack_into(form, data, at + offset, value)
    return bytes(data)


def _gap() -> bytes:
    """Return the harmless archive with another archive between its last member and its directory."""
    data = harmless("keras")
    at = struct.unpack_from("<L", data, len(data) - 6)[0]
    hidden = archived({"config.json": b"{}"})
    moved = bytearray(data[:at] + hidden + data[at:])
    struct.pack_into("<L", moved, len(moved) - 6, at + len(hidden))
    return bytes(moved)


def _renamed_before() -> bytes:
    """Return the harmless archive in which a member's own header has another name than the directory."""
    data = bytearray(harmless("keras"))
    at = data.index(b"config.json")
    data[at : at + 11] = b"cOnfig.json"
    return bytes(data)


def _streamed() -> bytes:
    """Return the harmless archive as one writes it who cannot go back, with what is known at last behind."""

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise OSError

    file = Pipe()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, data in members(harmless("keras")).items():
            opened.writestr(name, data)
    return file.getvalue()


def _large() -> bytes:
    """Return the harmless archive as one writes it who does not know how large it will be."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, data in members(harmless("keras")).items():
            with opened.open(name, "w", force_zip64=True) as member:
                member.write(data)
    return file.getvalue()


def sound() -> Iterator[bytes]:
    """Yield the harmless archive in other ways that are right."""
    yield _streamed()
    yield _large()


def _another_descriptor() -> bytes:
    data = bytearray(_streamed())
    at = data.index(b"PK\x07\x08")
    struct.pack_into("<L", data, at + 8, 7)
    return bytes(data)


def _larger_before() -> bytes:
    data = bytearray(_large())
    struct.pack_into("<2Q", data, data.index(b"config.json") + len("config.json") + 4, 2**40, 2**40)
    return bytes(data)


def _other_part() -> bytes:
    data = bytearray(harmless("keras"))
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 34, 7)
    return bytes(data)


def _another_end() -> bytes:
    """Return the harmless archive with the end of large ones, which leads to another directory."""
    data = harmless("keras")
    *_, count, length, begin, _ = struct.unpack("<4s4H2LH", data[-22:])
    larger = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, begin)
    moved = larger.replace(struct.pack("<Q", 44), struct.pack("<Q", 45))
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, begin + length, 1)
    return data[:-22] + moved + locator + data[-22:]


def _bomb(size: int) -> bytes:
    """Return the harmless archive with weights that are zeros, compressed a thousand times."""
    data = bytes(size)
    return _instead("model.weights.h5", data, compress_type=zipfile.ZIP_DEFLATED)


def _lying_bomb() -> bytes:
    """Return an archive with a member that is said to become a little, and becomes much."""
    data = bytearray(_instead("config.json", bytes(2**26), compress_type=zipfile.ZIP_DEFLATED))
    for magic, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(magic, data.index(b"PK\x01\x02") - 0 if magic == b"PK\x01\x02" else 0)
        while b"config.json" not in data[at : at + 60]:
            at = data.index(magic, at + 4)
        struct.pack_into("<L", data, at + offset, 1000)
    return bytes(data)


def archives() -> Iterator[Animal]:
    """Yield archives that are not what they look like."""
    link = 0o120777 << 16
    field = struct.pack("<HHBL", 0x7075, 5, 1, 0)
    animals: dict[str, tuple[str, Callable[[], bytes]]] = {
        "a way out": ("'../../evil', which leads out of it", lambda: _with("../../evil")),
        "an absolute name": ("'/tmp/evil', which leads out of it", lambda: _with("/tmp/evil")),
        "a name of Windows": ("which leads out of it", lambda: _with("..\\evil")),
        "files of a layer": ("files of their own are not served", lambda: _with("assets/a/vocabulary")),
        "one more member": ("'evil.py', which is none of Keras's", lambda: _with("evil.py")),
        "a folder": ("which is none of Keras's", lambda: _with("model.weights.h5/")),
        "a link": ("^model.weights.h5 of the archive is a link", lambda: _instead(
            "model.weights.h5", b"/etc/hostname", external_attr=link, create_system=3)),
        "a device": ("is no regular file", lambda: _instead(
            "config.json", b"", external_attr=0o020666 << 16, create_system=3)),
        "a member that is missing": ("it has no config.json", lambda: archived(
            {name: data for name, data in members(harmless("keras")).items() if name != "config.json"})),
        "many members": ("a directory of [0-9]+ bytes", lambda: archived({f"{n}": b"" for n in range(5000)})),
        "encrypted": ("config.json of the archive is encrypted", lambda: _lying("config.json", "flags", 1)),
        "compressed in another way": ("compressed in an unknown way", lambda: archived(
            members(harmless("keras")), zipfile.ZIP_LZMA)),
        "another name before": ("says one thing of config.json before it", _renamed_before),
        "another size": ("is said to have two sizes", lambda: _lying("config.json", "size", 7)),
        "another beginning": ("belong to no member, or to two", lambda: _lying("model.weights.h5", "begin", 0)),
        "another name beside": ("what not every reader knows", lambda: _instead(
            "config.json", members(harmless("keras"))["config.json"], extra=field)),
        "a program before": ("it does not begin with a member", lambda: b"#!/bin/sh\n" + harmless("keras")),
        "HDF5 before": ("it does not begin with a member", lambda: harmless("h5") + harmless("keras")),
        "an archive before": ("belong to no member", lambda: archived({"x": b""}) + harmless("keras")),
        "an archive between": ("around its directory|belong to no member", _gap),
        "something behind": ("something follows its end", lambda: harmless("keras") + b"\x00"),
        "HDF5 behind": ("something follows its end", lambda: harmless("keras") + harmless("h5")),
        "a comment": ("something follows its end", lambda: zipped(
            *members(harmless("keras")).items(), comment=b"PK")),
        "another size behind": ("behind metadata.json that .* say something else", _another_descriptor),
        "a larger size before": ("says one thing of config.json before it", _larger_before),
        "another part": ("metadata.json of the archive is in another part", _other_part),
        "another end": ("has two ends", _another_end),
        "a bomb": ("becomes [0-9]+ bytes from [0-9]+", lambda: _bomb(2**28)),
        "a bomb that lies": ("config.json of the archive is not what is said of it", _lying_bomb),
    }  # fmt: skip
    for name, (reason, make) in animals.items():
        yield Animal(f"an archive: {name}", "keras", reason, lambda trap, make=make: make())  # type: ignore[misc]

    def twice(trap: Trap) -> bytes:
        contents = members(harmless("keras"))
        padded = {**contents, "metadatA.json": contents["metadata.json"]}
        return archived(padded).replace(b"metadatA.json", b"metadata.json")

    yield Animal("an archive: one member twice", "keras", "has 2 members of the name metadata.json", twice)
