"""Looking for damage: what is sound stays, what is not is set aside."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from backends.local import LocalBackend
from spectrogram_predictor import cli, scrub
from spectrogram_predictor.errors import StorageUnavailable
from spectrogram_predictor.storage import Backend, get_backend
from tests.backends.memory import MemoryBackend, Store
from tests.backends.s3 import S3Server

SOUND = b"\x89HDF\r\n\x1a\n a model"
DAMAGED = b"\x89HDF\r\n\x1a\n a modem"
SHA256 = hashlib.sha256(SOUND).hexdigest()
OTHER = hashlib.sha256(DAMAGED).hexdigest()


def run(storage: dict[str, Any], tmp_path: Path) -> int:
    """Run the command on a storage."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in storage.items() if key != "options"]
    lines += ["[storage.options]", *(f"{k} = {json.dumps(v)}" for k, v in storage.get("options", {}).items())]
    config = tmp_path / "config.toml"
    config.write_text("[storage]\n" + "\n".join(lines) + "\n")
    # It brings an event loop of its own, which does not go with the tests' in one thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(cli.main, ["verify", "--config", str(config)]).result()


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Settings of a storage."""
    if request.param == "local":
        return {"backend": "local", "url": str(tmp_path / "storage")}
    server: S3Server = request.getfixturevalue("s3_server")
    options = {**server.options, "cache": str(tmp_path / "cache")}
    return {"backend": "s3", "url": f"s3://{server.make_bucket()}/p", "options": options}


async def fill(storage: dict[str, Any], contents: dict[str, bytes]) -> dict[str, bytes]:
    """Put objects there; return all there are then."""
    backend = get_backend(storage["backend"], storage["url"], storage.get("options", {}))
    await backend.open()
    for key, data in contents.items():
        await backend.put(key, data)
    found = {}
    for folder in ("models/", "quarantine/"):
        for entry in await backend.list(folder):
            found[entry.key] = await backend.read(entry.key) or b""
    await backend.close()
    return found


def test_a_flipped_bit_is_found(
    io_loop: IOLoop,
    storage: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is moved aside under a name that says what it was and is; the next look finds nothing."""
    io_loop.run_sync(
        lambda: fill(storage, {f"models/{SHA256}.h5": SOUND, f"models/{SHA256}.keras": DAMAGED, "models/x": b""})
    )
    assert run(storage, tmp_path) == 1
    empty = hashlib.sha256(b"").hexdigest()
    quarantined = f"quarantine/{SHA256}.keras.{OTHER}"
    said = capsys.readouterr().out
    assert f"models/{SHA256}.keras has the SHA-256 {OTHER}: moved to {quarantined}" in said
    assert said.endswith("1 sound, 2 not\n")
    left = {f"models/{SHA256}.h5": SOUND, quarantined: DAMAGED, f"quarantine/x.{empty}": b""}
    assert io_loop.run_sync(lambda: fill(storage, {})) == left
    assert run(storage, tmp_path) == 0
    assert capsys.readouterr().out == "1 sound, 0 not\n"
    # moto lacks something, which is said at each start.
    warnings = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert all("does not check" in message for message in warnings)
    caplog.clear()


def test_a_storage_that_cannot_be_used_is_wrong_usage(tmp_path: Path) -> None:
    """As for the server."""
    (tmp_path / "file").write_bytes(b"")
    assert run({"backend": "local", "url": str(tmp_path / "file")}, tmp_path) == 2


async def verdicts(backend: Backend) -> list[scrub.Verdict]:
    """Return all of them."""
    return [verdict async for verdict in scrub.verify(backend)]


@pytest.mark.gen_test
async def test_what_is_promoted_anew_meanwhile_stays(tmp_path: Path) -> None:
    """Damage that was read a moment ago is no reason to set a sound copy aside."""
    store = Store(tmp_path)
    store.keep(f"models/{SHA256}.h5", DAMAGED)

    class Mended(MemoryBackend):
        async def chunks(self, key: str) -> Any:
            yield store.objects[key][0]
            store.keep(key, SOUND)

    assert [verdict.sound for verdict in await verdicts(Mended(store, {}))] == [True]
    assert list(store.objects) == [f"models/{SHA256}.h5"]


@pytest.mark.gen_test
async def test_what_is_promoted_anew_at_the_last_moment_comes_back(tmp_path: Path) -> None:
    """It was moved in place of what was damaged."""
    store = Store(tmp_path)
    store.keep(f"models/{SHA256}.h5", DAMAGED)

    class Late(MemoryBackend):
        async def move(self, source: str, destination: str) -> bool:
            if store.objects[source][0] == DAMAGED:
                store.keep(source, SOUND)
            return await super().move(source, destination)

    assert [verdict.sound for verdict in await verdicts(Late(store, {}))] == [True]
    assert list(store.objects) == [f"models/{SHA256}.h5"]


@pytest.mark.gen_test
async def test_what_cannot_be_read_now_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted as not sound, and where it was."""
    backend = LocalBackend(str(tmp_path), {})
    await backend.open()
    await backend.put(f"models/{SHA256}.h5", SOUND)

    async def away(key: str) -> Any:
        raise StorageUnavailable("away")
        yield b""

    monkeypatch.setattr(backend, "chunks", away)
    (verdict,) = await verdicts(backend)
    assert not verdict.sound
    assert verdict.quarantined is None
    assert await backend.stat(f"models/{SHA256}.h5")
    assert "cannot be read" in caplog.text
    caplog.clear()
    await backend.close()
