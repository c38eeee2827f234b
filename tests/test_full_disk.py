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

MIB = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "storage"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


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
    assert predict().json()["array"] == answered
    assert len(live.files("temp")) == 1
    assert sha256(live.storage / live.files("temp")[0]) == sha256(second)

    ballast.unlink()
    assert live.http.get(f"{live.url}/hashmodels").json() == {"hashes": [sha256(second)]}
    assert live.files("models") == sorted(f"models/{sha256(model)}.h5" for model in (first, second))
    assert live.files("temp") == live.files("incoming") == live.files("rejected") == []
