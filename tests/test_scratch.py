"""Scratch folders, without a worker."""

import contextlib
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from spectrogram_predictor import scratch
from spectrogram_predictor.scratch import Scratch


@pytest.fixture(autouse=True)
def _in_a_folder_of_the_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def age(path: Path) -> None:
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))


def test_what_a_killed_server_left_is_removed(tmp_path: Path) -> None:
    """Not what belongs to one that lives, nor what has only just been made, nor where a link leads."""
    alive, dead, young = (Scratch() for _ in range(3))
    (dead.path / "file").write_bytes(b"left")
    for one in (dead, young):
        os.close(one._lock)
    (tmp_path / "else").mkdir()
    link = tmp_path / "spectrogram-predictor-worker-link"
    link.symlink_to(tmp_path / "else")
    for path in (alive.path, dead.path, tmp_path / "else"):
        age(path)
    scratch.sweep()
    assert sorted(tmp_path.iterdir()) == sorted([alive.path, young.path, tmp_path / "else", link])
    alive.remove()
    alive.remove()
    assert not alive.path.exists()


def test_all_that_is_kept_is_counted() -> None:
    """In folders, and deleted but open; links count for themselves."""
    folder = Scratch()
    (folder.path / "a" / "b").mkdir(parents=True)
    (folder.path / "a" / "b" / "file").write_bytes(bytes(2**20))
    (folder.path / "link").symlink_to("/")
    before = folder.used(NOBODY)
    assert 2**20 <= before < 2**20 + 2**16
    with holding_a_deleted_file(folder.path / "gone", 2**20) as pid:
        assert folder.used(pid) == before + 2**20
    (folder.path / "left").mkdir()
    for number in range(1000):
        (folder.path / "left" / f"{number:0200}").touch()
    size = 512 * (folder.path / "left").stat().st_blocks
    with holding_a_deleted_folder(folder.path / "left") as pid:
        assert folder.used(pid) == before + size
    (folder.path / "many").mkdir()
    for number in range(10_001):
        (folder.path / "many" / str(number)).touch()
    assert folder.used(NOBODY) == math.inf
    folder.remove()
    assert folder.used(NOBODY) == 0


NOBODY = 2**22 + 1
"""Above the largest process number that Linux gives."""


@contextlib.contextmanager
def holding_a_deleted_file(path: Path, size: int) -> Iterator[int]:
    with holding(f"""import os
with open({str(path)!r}, "wb", 0) as file:
    os.unlink(file.name)
    file.write(bytes({size}))
    print(flush=True)
    input()""") as pid:
        yield pid


@contextlib.contextmanager
def holding_a_deleted_folder(path: Path) -> Iterator[int]:
    with holding(f"""import os, shutil
folder = os.open({str(path)!r}, os.O_RDONLY)
shutil.rmtree({str(path)!r})
print(flush=True)
input()""") as pid:
        yield pid


@contextlib.contextmanager
def holding(code: str) -> Iterator[int]:
    """Run a process of its own: this one may hold deleted files of the tests before."""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate(b"\n")


def test_nothing_is_left_where_no_file_can_be_opened(tmp_path: Path) -> None:
    """Neither of one that cannot be made, nor of one that nobody has used."""
    made = Scratch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                opened.append(os.open("/dev/null", os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            Scratch()
        made.remove()
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not list(tmp_path.iterdir())
