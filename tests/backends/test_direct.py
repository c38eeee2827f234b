"""Appending past the page cache: what is in the file is what was written, whatever the file system can do."""

import errno
import fcntl
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends import direct
from backends.direct import STAGED_BYTES, DirectFile

SIZES = (1, 511, 4095, 4096, 4097, 70_000, STAGED_BYTES - 1, STAGED_BYTES, STAGED_BYTES + 1, 3 * STAGED_BYTES)


class Disk(io.FileIO):
    """A file that remembers how it was written, and fails when it is told to."""

    def __init__(self, path: Path, allow: Callable[[int, bool], object] = lambda *_: None) -> None:
        super().__init__(path, "ab")
        self.written: list[tuple[int, bool]] = []
        self._allow = allow

    def write(self, data: Any) -> int:
        past_cache = bool(fcntl.fcntl(self, fcntl.F_GETFL) & os.O_DIRECT)
        self._allow(len(data), past_cache)
        count = super().write(data) or 0
        self.written.append((count, past_cache))
        return count


@pytest.fixture
def from_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the cache from the first byte."""
    monkeypatch.setattr(direct, "CACHED_BYTES", 0)


def knows_direct(path: Path) -> bool:
    """Tell whether the file system takes a block past its cache."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DIRECT))
    except OSError:
        return False
    return True


def pieces(seed: int, count: int = 40) -> list[bytes]:
    """Return pieces of all kinds of sizes, no two of them alike."""
    choose = random.Random(seed)
    return [choose.randbytes(choose.choice(SIZES)) for _ in range(count)]


@pytest.mark.usefixtures("from_the_start")
@pytest.mark.parametrize("seed", range(3))
def test_pieces_of_any_size_are_one_after_the_other(tmp_path: Path, seed: int) -> None:
    """The file is always the beginning of what was written, and after each flush all of it."""
    path, choose, data = tmp_path / "file", random.Random(seed), b""
    with Disk(path) as disk:
        file = DirectFile(disk)
        for piece in pieces(seed):
            file.write(piece)
            data += piece
            assert len(data) - STAGED_BYTES <= file.size <= len(data)
            if choose.random() < 0.3:
                file.flush()
                assert file.size == len(data)
            assert path.stat().st_size == file.size
        file.flush()
    assert path.read_bytes() == data


@pytest.mark.usefixtures("from_the_start")
def test_it_is_gone_on_with_where_it_ended(tmp_path: Path) -> None:
    """A file that ends in the middle of a block is filled up first."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    with Disk(path) as disk:
        file = DirectFile(disk)
        assert file.size == 5000
        file.write(b"y" * 2 * STAGED_BYTES)
        file.flush()
    assert path.read_bytes() == b"x" * 5000 + b"y" * 2 * STAGED_BYTES


def test_only_what_comes_after_the_beginning_goes_past_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whole blocks, a mebibyte at a time; the end, which is none, through the cache."""
    if not knows_direct(tmp_path / "probe"):
        pytest.skip("the file system has no O_DIRECT")
    monkeypatch.setattr(direct, "CACHED_BYTES", 10_000)
    with Disk(tmp_path / "file") as disk:
        file = DirectFile(disk)
        for _ in range(2):
            file.write(b"x" * 6000)
        file.write(b"x" * (STAGED_BYTES + 5000))
        file.flush()
    # 12,000 bytes end 288 before the end of a block.
    cached = [(6000, False), (6000, False), (288, False)]
    assert disk.written == [*cached, (STAGED_BYTES, True), (4096, True), (616, False)]


@pytest.mark.usefixtures("from_the_start")
def test_a_file_system_that_takes_no_such_block_gets_it_through_the_cache(tmp_path: Path) -> None:
    """It may say so only when it is given one."""

    def refuse(_: int, past_cache: bool) -> None:
        if past_cache:
            raise OSError(errno.EINVAL, "not aligned as it must be")

    path, written = tmp_path / "file", pieces(3)
    with Disk(path, refuse) as disk:
        file = DirectFile(disk)
        for piece in written:
            file.write(piece)
        file.flush()
    assert path.read_bytes() == b"".join(written)
    assert not any(past_cache for _, past_cache in disk.written)


@pytest.mark.usefixtures("from_the_start")
def test_a_file_system_without_it_is_written_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the flag cannot be set at all."""
    ask = fcntl.fcntl

    def refuse(file: Any, command: int, argument: int = 0) -> int:
        if command == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "unknown")
        return ask(file, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    path, written = tmp_path / "file", pieces(4)
    with Disk(path) as disk:
        file = DirectFile(disk)
        for piece in written:
            file.write(piece)
        file.flush()
    assert path.read_bytes() == b"".join(written)


@pytest.mark.usefixtures("from_the_start")
def test_nothing_follows_what_is_missing(tmp_path: Path) -> None:
    """When the disk is full the file is a beginning of what was written, and a later flush adds nothing."""
    path, left = tmp_path / "file", 2 * STAGED_BYTES

    def allow(count: int, _: bool) -> None:
        nonlocal left
        left -= count
        if left < 0:
            raise OSError(errno.ENOSPC, "full")

    data = random.Random(5).randbytes(4 * STAGED_BYTES + 100)
    with Disk(path, allow) as disk:
        file = DirectFile(disk)
        with pytest.raises(OSError, match="full"):
            file.write(data)
        left = 2**30
        file.flush()
        assert file.size == 2 * STAGED_BYTES
        assert not fcntl.fcntl(disk, fcntl.F_GETFL) & os.O_DIRECT
    assert path.read_bytes() == data[: 2 * STAGED_BYTES]


@pytest.mark.usefixtures("from_the_start")
def test_a_closed_file_can_be_flushed(tmp_path: Path) -> None:
    """Whoever gave way to somebody newer has closed it, after a last flush."""
    with Disk(tmp_path / "file") as disk:
        file = DirectFile(disk)
        file.write(b"x" * 5000)
        file.flush()
    file.flush()
    assert file.size == 5000
