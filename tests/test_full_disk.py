"""A real disk that is full: no upload is half there, what was acknowledged stays, predictions go on."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import b64, csv_row, padded, sha256
from tests.live import Live, wait_until
from tests.tus import Tus, checksum

MIB = 2**20


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """Make a small file system."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    with mounted(tmp_path / "storage", "8m") as folder:
        yield folder


@pytest.fixture
def live(small_disk: Path, certs: Path, tmp_path: Path) -> Iterator[Live]:
    server = Live(tmp_path, certs, "a token of a small server")
    server.start()
    yield server
    server.stop()


def fill(folder: Path) -> Path:
    """Take all the room; return what took it."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def test_a_full_disk_costs_nothing_that_was_acknowledged(
    live: Live, small_disk: Path, two_input_model: Path, models_folder: Path, song: bytes
) -> None:
    """507 for what has no room; the rest stays, is served, and is promoted as soon as there is some."""
    first, second = two_input_model.read_bytes(), padded(two_input_model, models_folder / "second.h5").read_bytes()
    question = {"model_hash": sha256(first), "ext": "wav", "data": b64(song), "csv": b64(csv_row())}

    def predict() -> Any:
        return live.post_signed("/prediction", question)

    for model in (first, second):
        assert live.post_signed("/registermodelhash", {"hash": sha256(model)}).status_code == 200
    assert live.upload(first).status_code == 200
    wait_until(lambda: live.http.get(f"{live.url}/readyz").status_code == 200)
    live.http.get(f"{live.url}/hashmodels")
    answered = wait_until(lambda: predict().json().get("array"))

    refused = live.upload(bytes(16 * MIB))
    assert (refused.status_code, refused.json()["code"]) == (507, "insufficient_storage")
    wait_until(lambda: live.files("incoming") == live.files("temp") == [])
    assert predict().json()["array"] == answered

    assert live.upload(second).status_code == 200
    ballast = fill(small_disk)
    assert live.upload(second).status_code == 507
    assert live.post_signed("/registermodelhash", {"hash": "a" * 64}).status_code == 507
    assert live.http.get(f"{live.url}/hashmodels").status_code == 200
    wait_until(lambda: "stays for the next sweep" in live.log)
    assert predict().json()["array"] == answered
    assert len(live.files("temp")) == 1
    assert sha256(live.storage / live.files("temp")[0]) == sha256(second)

    ballast.unlink()
    live.promote(sha256(second))
    assert live.files("models") == sorted(f"models/{sha256(model)}.h5" for model in (first, second))
    assert live.files("temp") == live.files("incoming") == live.files("rejected") == []


def test_a_chunk_that_cannot_be_checked_for_lack_of_room_is_refused(certs: Path, tmp_path: Path) -> None:
    """507, and nothing of it stays in the temporary folder; smaller ones are taken."""
    data = bytes(range(256)) * 2**16
    with mounted(tmp_path / "temporary", "12m") as folder:
        server = Live(tmp_path, certs, "a token of a small server")
        server.environ["TMPDIR"] = str(folder)
        server.start()
        try:
            tus = Tus(server)
            path = tus.create(data)
            answer = tus.patch(path, 0, data, Upload_Checksum=checksum("sha1", data))
            assert (answer.status_code, answer.json()["code"]) == (507, "insufficient_storage")
            assert tus.offset(path) == 0
            wait_until(lambda: shutil.disk_usage(folder).free > 11 * MIB)
            part = data[: 10 * MIB]
            assert tus.patch(path, 0, part, Upload_Checksum=checksum("sha1", part)).status_code == 204
            assert tus.offset(path) == len(part)
        finally:
            server.stop()
    assert "cannot be kept until it is checked: [Errno 28]" in server.log
