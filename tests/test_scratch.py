"""Scratch folders, without a worker."""

import math
import os
import time
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
    assert 2**20 <= folder.used(os.getpid()) < 2**20 + 2**16
    with (folder.path / "gone").open("wb") as file:
        (folder.path / "gone").unlink()
        file.write(bytes(2**20))
        file.flush()
        assert 2**21 <= folder.used(os.getpid()) < 2**21 + 2**16
    (folder.path / "many").mkdir()
    for number in range(10_001):
        (folder.path / "many" / str(number)).touch()
    assert folder.used(os.getpid()) == math.inf
    folder.remove()
    assert folder.used(os.getpid()) == 0
