"""Any fsspec filesystem: the contract, and what it says of itself."""

import uuid
from pathlib import Path

import pytest

from backends.conformance import Conformance
from backends.generic import GenericBackend
from spectrogram_predictor.errors import ConfigError


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def backend(url: str, tmp_path: Path) -> GenericBackend:
    return GenericBackend(url, {"cache": str(tmp_path / "cache")})


class TestMemory(Conformance):
    """fsspec's memory keeps the contract, as far as memory can."""


class TestFiles(Conformance):
    """So do its files."""

    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"file://{tmp_path}/storage"


@pytest.mark.gen_test
async def test_it_says_what_it_lacks(url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At the start, in words that say what to expect."""
    backend = GenericBackend(url, {"cache": str(tmp_path)})
    await backend.open()
    await backend.close()
    assert "moves by copying" in caplog.text
    assert "durable" in caplog.text
    assert "exclusively" not in caplog.text
    caplog.clear()


@pytest.mark.gen_test
async def test_a_filesystem_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    """With the key's name."""
    (tmp_path / "file").write_bytes(b"")
    for url in ("nonsense://x", f"file://{tmp_path}/file"):
        with pytest.raises(ConfigError, match=r"storage\.url"):
            await GenericBackend(url, {}).open()
