"""Any fsspec filesystem: the contract, and what it says of itself."""

import uuid
from pathlib import Path
from typing import Any

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
async def test_a_filesystem_that_looks_first_and_creates_then_is_said_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two servers may both be told that they created a file."""
    for url in (f"file://{tmp_path}/storage", f"dir:///storage::file://{tmp_path}"):
        backend = GenericBackend(url, {"cache": str(tmp_path / "cache")})
        await backend.open()
        await backend.close()
        assert "does not create objects exclusively" in caplog.text
        caplog.clear()


@pytest.mark.gen_test
async def test_what_a_dead_server_left_goes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its clock, and what it was about to put into place."""
    backend = GenericBackend(f"file://{tmp_path}/storage", {"cache": str(tmp_path / "cache")})
    await backend.open()
    await backend.put(".scratch/of-another", b"")
    await backend.expire(3600)
    assert await backend.stat(".scratch/of-another")
    assert await backend.expire(-5) == []
    assert await backend.list(".scratch") == []
    await backend.close()
    caplog.clear()


@pytest.mark.gen_test
async def test_a_cache_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    """With the key's name."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"storage\.options\.cache"):
        await GenericBackend("memory://x", {"cache": str(tmp_path / "file")}).open()


@pytest.mark.gen_test
@pytest.mark.parametrize(("inner", "copies"), [("memory", True), ("file", False)])
async def test_a_filesystem_in_front_of_another_moves_as_that_does(
    inner: str, copies: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is said, and done, is what the one behind can."""
    backend = GenericBackend(f"dir:///storage::{inner}://{tmp_path}", {"cache": str(tmp_path / "cache")})
    await backend.open()
    try:
        await backend.put("temp/a", b"content")
        assert await backend.move("temp/a", "models/a.h5")
        assert await backend.read("models/a.h5") == b"content"
    finally:
        await backend.close()
    assert ("moves by copying" in caplog.text) is copies
    caplog.clear()


@pytest.mark.parametrize("options", [{"cache": 5}, {"cache_bytes": "abc"}, {"cache_bytes": True}], ids=str)
def test_options_of_another_type_are_refused(options: dict[str, Any]) -> None:
    """With the key's name, before anything is begun."""
    with pytest.raises(ConfigError, match=rf"storage\.options\.{next(iter(options))} "):
        GenericBackend("memory://x", options)


@pytest.mark.gen_test
async def test_a_filesystem_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    """With the key's name."""
    (tmp_path / "file").write_bytes(b"")
    for url in ("nonsense://x", f"file://{tmp_path}/file"):
        with pytest.raises(ConfigError, match=r"storage\.url"):
            await GenericBackend(url, {}).open()
