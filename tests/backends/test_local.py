"""The local backend: the contract, and what only folders have."""

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from backends.local import LocalBackend
from spectrogram_predictor.errors import ConfigError, InsufficientStorage
from spectrogram_predictor.storage import get_backend
from tests.backends.conformance import Conformance


@pytest.fixture
def backend(io_loop: IOLoop, tmp_path: Path) -> Iterator[LocalBackend]:
    backend = LocalBackend(str(tmp_path / "storage"), {})
    io_loop.run_sync(backend.open)
    yield backend
    io_loop.run_sync(backend.close)


class TestLocalBackend(Conformance):
    """The contract."""


@pytest.mark.gen_test
async def test_what_is_no_regular_file_cannot_be_read(backend: LocalBackend, tmp_path: Path) -> None:
    """A link out of the folder and a pipe are listed, not followed, and can be deleted."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    temp = tmp_path / "storage" / "temp"
    (temp / "link").symlink_to(secret)
    os.mkfifo(temp / "pipe")
    assert [entry.key for entry in await backend.list("temp/")] == ["temp/link", "temp/pipe"]
    for key in ("temp/link", "temp/pipe"):
        assert await backend.read(key) is None
        await backend.delete(key)
    assert await backend.list("temp/") == []
    assert secret.exists()


@pytest.mark.gen_test
async def test_a_full_disk_is_said_so(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No room gives InsufficientStorage, and the object is as it was."""
    await backend.put("registered/a.json", b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InsufficientStorage):
        await backend.put("registered/a.json", b"new")
    assert await backend.read("registered/a.json") == b"old"
    assert list((tmp_path / "storage" / ".scratch").iterdir()) == []


@pytest.mark.gen_test
async def test_the_scratch_of_a_crash_is_swept_at_start(tmp_path: Path) -> None:
    """What a killed server left half-written is removed once it is surely nobody's."""
    scratch = tmp_path / ".scratch"
    scratch.mkdir()
    for name, age_s in (("old", 7200), ("young", 0)):
        (scratch / name).write_bytes(b"half")
        os.utime(scratch / name, (time.time() - age_s,) * 2)
    backend = get_backend("local", str(tmp_path), {})
    await backend.open()
    assert [path.name for path in scratch.iterdir()] == ["young"]
    await backend.close()


@pytest.mark.gen_test
async def test_a_folder_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    """A file in the way is a ConfigError that names the key."""
    (tmp_path / "file").write_bytes(b"")
    backend = LocalBackend(str(tmp_path / "file"), {})
    with pytest.raises(ConfigError, match=r"storage\.url"):
        await backend.open()
    await backend.close()


def test_unknown_backends_and_options_are_refused(tmp_path: Path) -> None:
    """The message lists what there is."""
    with pytest.raises(ConfigError, match="local"):
        get_backend("nonsense", str(tmp_path), {})
    with pytest.raises(ConfigError, match=r"storage\.options"):
        get_backend("local", str(tmp_path), {"key": 1})
