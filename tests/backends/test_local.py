"""The local backend: the contract, and what only folders have."""

import errno
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tornado.ioloop import IOLoop

from backends import direct
from backends.conformance import Conformance
from backends.local import LocalBackend
from spectrogram_predictor.errors import ConfigError, InsufficientStorage, StorageUnavailable
from spectrogram_predictor.storage import get_backend


@pytest.fixture
def backend(io_loop: IOLoop, tmp_path: Path) -> Iterator[LocalBackend]:
    backend = LocalBackend(str(tmp_path / "storage"), {})
    io_loop.run_sync(backend.open)
    yield backend
    io_loop.run_sync(backend.close)


class TestLocalBackend(Conformance):
    """The contract."""

    @pytest.fixture
    def backend(self, tmp_path: Path) -> LocalBackend:
        return LocalBackend(str(tmp_path / "storage"), {})

    @pytest.fixture
    def other(self, tmp_path: Path) -> LocalBackend:
        return LocalBackend(str(tmp_path / "storage"), {})


class TestPastTheCache(TestLocalBackend):
    """The contract, with every byte of an upload written as those of a large one are."""

    @pytest.fixture(autouse=True)
    def past_the_cache(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(direct, "CACHED_BYTES", 0)


@pytest.mark.gen_test
async def test_a_cut_upload_keeps_what_waits_for_a_whole_block(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever goes on finds every byte that arrived before."""
    monkeypatch.setattr(direct, "CACHED_BYTES", 0)
    upload_id, data = "a" * 32, random.Random(0).randbytes(3 * 2**20 + 777)
    await backend.begin(upload_id)
    for end in (1000, 2**20 + 1, len(data)):
        partial = await backend.resume(upload_id)
        assert partial
        await partial.write(data[partial.stored : end])
        await partial.close()
        assert partial.stored == end
    assert b"".join([chunk async for chunk in backend.stored_chunks(upload_id, 0, len(data))]) == data


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
async def test_workers_are_let_into_what_they_are_given(backend: LocalBackend, tmp_path: Path) -> None:
    """From the start, and wherever a link leads; not into what is being received, nor what was registered."""
    inside = [folder.resolve() for folder in backend.local_folders]
    assert all(folder.is_dir() for folder in inside)
    for key in ("models/a.h5", "golden/a", "temp/a.upload", "incoming/a/data", "registered/a.json", "nonces/a"):
        await backend.put(key, b"content")
        given = key.startswith(("models/", "golden/", "temp/"))
        assert any(backend.path(key).resolve().is_relative_to(folder) for folder in inside) == given
        await backend.delete(key)
    assert all(folder.is_dir() for folder in inside)


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


@pytest.mark.gen_test
async def test_a_folder_that_goes_away_has_lost_nothing(tmp_path: Path) -> None:
    """A disk that is not mounted answers that it is away, not that something is not there."""
    backend = LocalBackend(str(tmp_path / "disk"), {})
    await backend.open()
    await backend.put("registered/a.json", b"content")
    (tmp_path / "disk").rename(tmp_path / "elsewhere")
    for ask in (
        lambda: backend.check(),
        lambda: backend.stat("models/a.h5"),
        lambda: backend.read("registered/a.json"),
        lambda: backend.list("temp/"),
        lambda: backend.put("registered/b.json", b""),
        lambda: backend.writer("temp/a", "incoming/a/data"),
        lambda: backend.move("temp/a", "models/a.h5"),
    ):
        with pytest.raises(StorageUnavailable):
            await ask()
    assert not (tmp_path / "disk").exists()
    (tmp_path / "elsewhere").rename(tmp_path / "disk")
    await backend.check()
    assert await backend.read("registered/a.json") == b"content"
    await backend.close()


@pytest.mark.gen_test
async def test_an_emptied_folder_is_filled_again(tmp_path: Path) -> None:
    """Somebody has removed everything in it, also what is ours."""
    backend = LocalBackend(str(tmp_path / "disk"), {})
    await backend.open()
    shutil.rmtree(tmp_path / "disk" / ".scratch")
    assert await backend.put("registered/a.json", b"content", exclusive=True)
    await backend.close()


@pytest.mark.gen_test
async def test_a_folder_that_cannot_be_written_to_is_not_ready(tmp_path: Path, read_only: Path) -> None:
    """As after the kernel has found the disk faulty."""
    backend = LocalBackend(str(read_only), {})
    with pytest.raises(StorageUnavailable):
        await backend.check()
    await backend.close()


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that takes no writes."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.gen_test
async def test_a_folder_that_cannot_be_listed_is_not_empty(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever took it for that would remove what it names; one that is gone is."""
    await backend.put("registered/a.json", b"")
    assert await backend.list("nothing/") == []

    def scandir(path: str) -> None:
        raise PermissionError(errno.EACCES, "not allowed", path)

    monkeypatch.setattr("os.scandir", scandir)
    with pytest.raises(StorageUnavailable):
        await backend.list("registered/")
