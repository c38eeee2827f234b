"""Real servers over real TLS: no 500, no worker lost, no file, descriptor or memory left behind."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import itsdangerous
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import TOKEN, b64, csv_row, sha256, wav
from tests.fuzz.mutations import BATCH, changed, for_a_while, json_values, mutated
from tests.live import Live, wait_until

SHARE = 0.105
MAX_GROWTH = 64 * 2**20
NEVER = {500, 501, 502, 503, 504, 507}
CONTAINERS = [
    ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("AIFF", "PCM_24"), ("AU", "ULAW"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"),
    ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"), ("CAF", "PCM_16"), ("W64", "PCM_16"),
]  # fmt: skip


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, certs: Path) -> Iterator[Live]:
    """A server of its own: what is sent to it is nobody else's to see."""
    limits = {"server__client_requests_per_s": 0, "server__requests_per_s": 0, "prediction__cached_models": 1}
    server = Live(tmp_path_factory.mktemp("fuzz"), certs, TOKEN, limits)
    server.start()
    wait_until(lambda: server.http.get(f"{server.url}/readyz").is_success)
    yield server
    assert server.stop() == 0


@pytest.fixture(autouse=True)
def _nothing_left(live: Live) -> Iterator[None]:
    """The same processes as before, with no more open, and no more kept."""
    live.http.get(f"{live.url}/test")
    before = measured(live)
    yield
    live.http.get(f"{live.url}/hashmodels", timeout=60)
    # What is told of an upload that is over stays for its client to ask.
    wait_until(lambda: live.files("temp") == [])
    assert [name for name in live.files("incoming") if not name.endswith("/info")] == []
    after = measured(live)
    assert after["pids"] == before["pids"]
    assert after["descriptors"] <= before["descriptors"] + 8
    assert after["memory"] <= before["memory"] + MAX_GROWTH
    assert "Traceback" not in live.log


def measured(live: Live) -> dict[str, Any]:
    process = Path(f"/proc/{live.process.pid}")
    pages = int((process / "statm").read_text().split()[1])
    return {
        "pids": [live.process.pid, *live.worker_pids()],
        "descriptors": len(list((process / "fd").iterdir())),
        "memory": pages * 4096,
    }


def sound(answer: httpx.Response) -> None:
    """The answer is one of the contract's, and no fault of the server's."""
    assert answer.status_code not in NEVER, answer.text
    assert answer.headers["Content-Type"].startswith("application/json")
    if not answer.is_success:
        assert set(answer.json()) == {"msg", "code"}


def test_signed_json(live: Live) -> None:
    """Whatever somebody with the secret says."""
    question = {"model_hash": "a" * 64, "ext": "wav", "data": b64(wav(0.1)), "csv": b64(csv_row()), "detail": True}
    registration = {"hash": "a" * 64, "labels": ["a"], "recipe": "gtzan-features", "golden": []}
    paths = st.sampled_from(["/prediction", "/registermodelhash"])

    @BATCH
    @given(paths, changed([question, registration]) | json_values)
    def property_(path: str, value: Any) -> None:
        sound(live.post_signed(path, value))

    for_a_while(property_, SHARE)


def test_authorization(live: Live) -> None:
    """Whatever is shown in place of a token."""
    with live.client() as client:
        header = client._bearer("GET", "/models")["Authorization"].encode()

    @BATCH
    @given(mutated([header]))
    def property_(value: bytes) -> None:
        clean = printable(value)
        answer = live.http.get(f"{live.url}/models", headers={b"Authorization": clean})
        sound(answer)
        assert answer.status_code in (401, 403) or clean == header

    for_a_while(property_, SHARE / 2)


def test_tus(live: Live) -> None:
    """Headers of uploads that can be gone on with, for one that is there and for others."""
    digest, metadata = "b" * 64, b"sha256 " + b64(b"b" * 64).encode() + b",filename bQ=="
    assert live.post_signed("/registermodelhash", {"hash": digest}).is_success
    with live.client() as client:
        right = {"Tus-Resumable": "1.0.0", "Upload-Length": "100", "Upload-Metadata": metadata.decode()}
        made = live.http.post(
            f"{live.upload_url}/uploads", headers={**right, **client._bearer("POST", "/uploads")}
        )
    place = made.headers["Location"]
    values = mutated(
        [b"1.0.0", b"0", b"100", b"sha256 " + b64(bytes(32)).encode(), b"application/offset+octet-stream"]
    )
    names = [
        "Tus-Resumable",
        "Upload-Offset",
        "Upload-Length",
        "Upload-Checksum",
        "Content-Type",
        "Upload-Defer-Length",
    ]
    names += ["Upload-Metadata", "X-HTTP-Method-Override", "Upload-Concat"]

    @BATCH
    @given(
        st.sampled_from(["HEAD", "PATCH", "POST", "OPTIONS"]),
        st.sampled_from([place, "/uploads", "/uploads/x", place[:-1]]),
        st.dictionaries(st.sampled_from(names), values | mutated([metadata]), max_size=4),
        st.binary(max_size=20),
    )
    def property_(method: str, path: str, headers: dict[str, bytes], body: bytes) -> None:
        sent = {b"Tus-Resumable": b"1.0.0", b"Upload-Offset": b"0"}
        sent |= {name.encode(): printable(value) for name, value in headers.items()}
        answer = live.http.request(method, live.upload_url + path, headers=sent, content=body)
        assert answer.status_code not in NEVER, answer.text

    for_a_while(property_, SHARE / 2)
    live.http.delete(live.upload_url + place, headers={"Tus-Resumable": "1.0.0"})


def printable(value: bytes) -> bytes:
    """Return what of it can be in a header."""
    return bytes(byte for byte in value if byte >= 32 and byte != 127).strip()


def test_multipart(live: Live) -> None:
    """Uploads whose wrapping is broken: refused, or swept away."""
    request = httpx.Request("POST", "https://x", files={"model": ("m.h5", b"\x89HDF\r\n\x1a\n" * 30)})
    body, kind = request.read(), request.headers["Content-Type"]

    @BATCH
    @given(mutated([body]), mutated([kind.encode()]))
    def property_(data: bytes, content_type: bytes) -> None:
        clean = printable(content_type)
        url = f"{live.upload_url}/nodemodeluploads"
        sound(live.http.post(url, content=data, headers={b"Content-Type": clean}))

    for_a_while(property_, SHARE)


def test_songs(live: Live, picture_model: Path) -> None:
    """Broken sound of every container: an answer or a refusal, and the worker lives on."""
    with live.client() as client:
        digest = client.publish(picture_model)["hash"]
    seeds = [
        wav(0.4, 16000 if kind == "OPUS" else 22050, container=name, subtype=kind) for name, kind in CONTAINERS
    ]

    @BATCH
    @given(mutated(seeds))
    def property_(song: bytes) -> None:
        sound(live.post_signed("/prediction", {"model_hash": digest, "ext": "wav", "data": b64(song)}))

    for_a_while(property_, 2 * SHARE)


def test_rows(live: Live, two_input_model: Path) -> None:
    """Broken CSV beside a good song."""
    with live.client() as client:
        digest = client.publish(two_input_model)["hash"]

    @BATCH
    @given(mutated([csv_row(), csv_row(index=False)]))
    def property_(row: bytes) -> None:
        question = {"model_hash": digest, "ext": "wav", "data": b64(wav(0.3)), "csv": b64(row)}
        sound(live.post_signed("/prediction", question))

    for_a_while(property_, SHARE / 2)


def test_model_files(
    live: Live, picture_model: Path, two_input_model: Path, forget: Callable[[str], None]
) -> None:
    """Broken models, signed by somebody who has the secret: served or refused with a reason."""
    seeds = [picture_model.read_bytes(), two_input_model.read_bytes()]
    sign = itsdangerous.Signer(TOKEN).sign

    @BATCH
    @given(mutated(seeds))
    def property_(model: bytes) -> None:
        files = {"model": ("m", io.BytesIO(sign(model)))}
        answer = live.http.post(f"{live.url}/uploadmodel", files=files)
        sound(answer)
        if model not in seeds:
            forget(sha256(model))

    for_a_while(property_, 2 * SHARE)


@pytest.fixture
def forget(live: Live) -> Callable[[str], None]:
    """Remove what was stored of a model."""

    def remove(digest: str) -> None:
        for name in live.files():
            if digest in name:
                (live.storage / name).unlink(missing_ok=True)

    return remove
