"""Whether a file is a .keras archive of which every reader says the same: its members, where they begin and end.

Reads the directory and the headers, and decompresses what is compressed, counting; never writes a file.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import BinaryIO

from spectrogram_predictor.errors import UnsupportedMedia
from spectrogram_predictor.worker import spare

MEMBERS = ("metadata.json", "config.json", "model.weights.h5")

MAX_EXPANSION = 20
"""How many times its size a compressed member may hold; Keras compresses none."""

MAX_METADATA_BYTES = 2**16

_MAGIC = b"PK\x03\x04"
_END = struct.Struct("<4s4H2LH")
_LOCAL = struct.Struct("<4s5H3L2H")
_END_MAGIC = b"PK\x05\x06"
_END64 = struct.Struct("<4sQ2H2L4Q4sLQL")
"""The larger end, and what says where that is."""

_MAX_DIRECTORY_BYTES = 2**16
_ENCRYPTED = 0x1 | 0x20 | 0x40 | 0x2000
_DESCRIPTOR = 0x8
_DESCRIPTOR_MAGIC = b"PK\x07\x08"
_LARGE = 0xFFFFFFFF
_ZIP64 = 0x0001
_EXTRAS = {_ZIP64: "zip64", 0x5455: "times", 0x7875: "owner"}
_DOS_FOLDER = 0x10
_COMPRESSION = {zipfile.ZIP_STORED: "none", zipfile.ZIP_DEFLATED: "deflate"}
_BLOCK = 2**20


class Archive:
    """The members of a .keras file, of which every reader says the same.

    Parameters
    ----------
    file : binary file
        The whole archive; seekable.

    Raises
    ------
    UnsupportedMedia
        It has other members than Keras writes, or bytes that belong to none, or is made to look different to
        different readers.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, 2)
        if _read(file, 0, 4) != _MAGIC:
            raise UnsupportedMedia("not a .keras archive: it does not begin with a member")
        count = self._check_end()
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise UnsupportedMedia(f"not a .keras archive: {error}") from error
        infos = archive.infolist()
        if len(infos) != count:
            raise UnsupportedMedia(f"the archive has {len(infos)} members and says that it has {count}")
        _check_names([info.orig_filename for info in infos])
        for info in infos:
            _check_kind(info)
        self._begins = self._lay_out(infos, archive.start_dir)
        self._infos = {info.filename: info for info in infos}

    def read(self, name: str, max_bytes: int) -> bytes:
        """Return a member that is no longer than so many bytes."""
        size = self._infos[name].file_size
        if size > max_bytes:
            raise UnsupportedMedia(f"{name} of the archive has {size} bytes; the most is {max_bytes}")
        with self.open(name) as file:
            return file.read()

    def stored_bytes(self, name: str) -> int:
        """Return how many bytes of the archive a member takes."""
        return self._infos[name].compress_size

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Yield a member as a file; what is compressed is decompressed into one without a name first."""
        info = self._infos[name]
        begin = self._begins[name]
        if info.compress_type == zipfile.ZIP_STORED:
            with BufferedReader(_Part(self._file, begin, info.file_size)) as part:
                yield part
            return
        with spare.borrowed() as whole:
            _inflate(self._file, begin, info, whole)
            whole.seek(0)
            yield whole

    def _check_end(self) -> int:
        """Check that the file ends with the record that ends an archive; return how many members that counts."""
        if self._size < _END.size:
            raise UnsupportedMedia("not a .keras archive: it is cut short")
        record = _read(self._file, self._size - _END.size, _END.size)
        magic, disk, disk_of_directory, here, count, length, _, comment = _END.unpack(record)
        if magic != _END_MAGIC or comment:
            raise UnsupportedMedia("not a .keras archive: it is cut short, or something follows its end")
        if disk or disk_of_directory or here != count:
            raise UnsupportedMedia("not a .keras archive: it is one part of several")
        if length > _MAX_DIRECTORY_BYTES:
            raise UnsupportedMedia(f"the archive has a directory of {length} bytes: Keras writes three members")
        return int(count)

    def _lay_out(self, infos: list[zipfile.ZipInfo], directory: int) -> dict[str, int]:
        """Return where the members' data begin, having checked that nothing is between them, before or after."""
        begins, end = {}, 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset != end:
                raise UnsupportedMedia(
                    f"the archive has bytes before {info.filename} that belong to no member, or to two"
                )
            begins[info.filename] = self._check_local(info)
            end = begins[info.filename] + info.compress_size
            end += self._descriptor_bytes(info, end, infos, directory)
        length = sum(46 + len(info.orig_filename.encode()) + len(info.extra) + len(info.comment) for info in infos)
        rest = self._size - _END.size - directory - length
        if end != directory or rest not in (0, _END64.size):
            raise UnsupportedMedia("the archive has bytes around its directory that belong to nothing")
        if rest:
            self._check_larger_end(len(infos), directory, length)
        return begins

    def _check_larger_end(self, count: int, directory: int, length: int) -> None:
        """Check that the end which large archives have says the same as the other."""
        behind = directory + length
        found = _END64.unpack(_read(self._file, behind, _END64.size))
        expected = (b"PK\x06\x06", 44, 0, 0, count, count, length, directory, b"PK\x06\x07", 0, behind, 1)
        # Between the first two are the versions of who wrote it.
        if (*found[:2], *found[4:]) != expected:
            raise UnsupportedMedia("the archive has two ends, and each says something else")

    def _check_local(self, info: zipfile.ZipInfo) -> int:
        """Check what stands before a member against the directory; return where its data begin."""
        header = _read(self._file, info.header_offset, _LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(_MAGIC):
            raise UnsupportedMedia(f"the archive has no {info.filename} where its directory says it is")
        _, _, flags, method, _, _, crc, stored, size, name_bytes, extra_bytes = _LOCAL.unpack(header)
        rest = _read(self._file, info.header_offset + _LOCAL.size, name_bytes + extra_bytes)
        name, extra = rest[:name_bytes], rest[name_bytes:]
        same = (name, flags, method) == (info.orig_filename.encode(), info.flag_bits, info.compress_type)
        # What is said behind a member may be left out before it.
        left_out = (0,) if flags & _DESCRIPTOR else ()
        same = same and crc in (info.CRC, *left_out)
        same = same and stored in (info.compress_size, _LARGE, *left_out)
        same = same and size in (info.file_size, _LARGE, *left_out)
        sizes = (info.file_size, info.compress_size)
        larger = _larger(info.filename, extra)
        same = same and larger in ((), sizes, *((0, 0) for _ in left_out))
        same = same and bool(larger or _LARGE not in (stored, size))
        if not same or not _is_within(_larger(info.filename, info.extra), (*sizes, info.header_offset)):
            raise UnsupportedMedia(
                f"the archive says one thing of {info.filename} before it, and another at its end"
            )
        begin: int = info.header_offset + _LOCAL.size + name_bytes + extra_bytes
        return begin

    def _descriptor_bytes(
        self, info: zipfile.ZipInfo, end: int, infos: list[zipfile.ZipInfo], directory: int
    ) -> int:
        """Return how long the record behind a streamed member is."""
        if not info.flag_bits & _DESCRIPTOR:
            return 0
        following = min((one.header_offset for one in infos if one.header_offset >= end), default=directory)
        said = info.CRC, info.compress_size, info.file_size
        record = _read(self._file, end, min(following - end, 24))
        known = [struct.pack(form, *said) for form in ("<3L", "<L2Q")]
        if len(record) != following - end or record.removeprefix(_DESCRIPTOR_MAGIC) not in known:
            raise UnsupportedMedia(
                f"the archive has bytes behind {info.filename} that belong to no member or say something else"
            )
        return len(record)


class _Part(RawIOBase):
    """A stretch of a file, as a file."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self._file = file
        self._begin = begin
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = (0, self._position, self._size)[whence] + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._begin + self._position)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open a file as an `Archive`."""
    with path.open("rb") as file:
        yield Archive(file)


def _check_names(names: list[str]) -> None:
    for name in names:
        if name not in MEMBERS:
            raise UnsupportedMedia(f"the archive has the member {name[:80]!r}, {_what_of(name)}")
        if names.count(name) > 1:
            raise UnsupportedMedia(f"the archive has {names.count(name)} members of the name {name}")
    for name in MEMBERS:
        if name not in names:
            raise UnsupportedMedia(f"not a .keras archive: it has no {name}")


def _what_of(name: str) -> str:
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
        return "which leads out of it"
    if name.startswith("assets/"):
        return "a file that a layer reads: layers with files of their own are not served"
    return f"which is none of Keras's: {', '.join(MEMBERS)}"


def _check_kind(info: zipfile.ZipInfo) -> None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise UnsupportedMedia(f"{info.filename} of the archive is a link")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG) or info.external_attr & _DOS_FOLDER:
        raise UnsupportedMedia(f"{info.filename} of the archive is no regular file")
    if info.volume:
        raise UnsupportedMedia(f"{info.filename} of the archive is in another part of it")
    if info.flag_bits & _ENCRYPTED:
        raise UnsupportedMedia(f"{info.filename} of the archive is encrypted")
    if info.compress_type not in _COMPRESSION:
        raise UnsupportedMedia(f"{info.filename} of the archive is compressed in an unknown way")
    if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
        raise UnsupportedMedia(f"{info.filename} of the archive is said to have two sizes")
    if info.file_size > MAX_EXPANSION * max(info.compress_size, 64):
        raise UnsupportedMedia(
            f"{info.filename} of the archive becomes {info.file_size} bytes from {info.compress_size}:"
            f" at most {MAX_EXPANSION} times as many are decompressed"
        )


def _larger(name: str, extra: bytes) -> tuple[int, ...]:
    """Return the sizes beside a header, having looked that nothing else there gives the member another name."""
    sizes: tuple[int, ...] = ()
    while extra:
        if len(extra) < 4:
            raise UnsupportedMedia(f"the archive says of {name} what cannot be read")
        kind, length = struct.unpack("<2H", extra[:4])
        if kind not in _EXTRAS or len(extra) < 4 + length or (kind == _ZIP64 and (sizes or length % 8)):
            raise UnsupportedMedia(f"the archive says of {name} what not every reader knows (field {kind:#06x})")
        if kind == _ZIP64:
            sizes = struct.unpack(f"<{length // 8}Q", extra[4 : 4 + length])
        extra = extra[4 + length :]
    return sizes


def _is_within(some: Sequence[int], all_: Sequence[int]) -> bool:
    """Tell whether some are among all, in their order."""
    rest = iter(all_)
    return all(one in rest for one in some)


def _inflate(file: BinaryIO, begin: int, info: zipfile.ZipInfo, target: BinaryIO) -> None:
    """Decompress a member, and no more than it is said to hold."""
    decompressor, crc, size, left = zlib.decompressobj(-15), 0, 0, info.compress_size
    file.seek(begin)
    pending = b""
    while not decompressor.eof and size <= info.file_size:
        if not pending:
            pending = file.read(min(_BLOCK, left))
            left -= len(pending)
        try:
            data = decompressor.decompress(pending, _BLOCK)
        except zlib.error as error:
            raise UnsupportedMedia(f"{info.filename} of the archive is damaged") from error
        if not data and not decompressor.unconsumed_tail and not left:
            break
        pending = decompressor.unconsumed_tail
        size, crc = size + len(data), zlib.crc32(data, crc)
        target.write(data)
    if not decompressor.eof or left or decompressor.unused_data or (size, crc) != (info.file_size, info.CRC):
        raise UnsupportedMedia(f"{info.filename} of the archive is not what is said of it")


def _read(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)
