"""Everything that should not be sent: a real server says no, stays up, and keeps nothing of it."""

import contextlib
import functools
import hashlib
import http.client
import io
import json
import pickle
import random
import re
import signal
import socket
import ssl
import struct
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import itsdangerous
import numpy as np
import pytest
import soundfile

from spectrogram_predictor.client import Client, Refused
from tests.conftest import TOKEN, b64, build_model, csv_row, sha256, wav
from tests.live import Live, wait_until

MiB = 2**20
HUGE_BYTES = 300 * MiB
UNKNOWN = sha256(b"nobody has registered this")
SIGNED_ROUTES = ["/prediction", "/registermodelhash"]
UPLOADS = "/nodemodeluploads"
UPLOADED = b'{"message":"file uploaded!","uploaded":true}'
REQUEST_SALT = b"spectrogram-predictor.request"
BOUNDARY = "frontier"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"

keeps_nothing = pytest.mark.usefixtures("_keeps_nothing")
"""The storage is afterwards as it was."""


@pytest.fixture(scope="module")
def server(live: Live) -> Iterator[Live]:
    """The shared server; what this module brought into its storage is gone afterwards."""
    before = set(live.files())
    yield live
    for name in set(live.files()) - before:
        (live.storage / name).unlink()


@pytest.fixture(scope="module")
def log_start(server: Live) -> int:
    """Where this module's part of the server's log begins."""
    return len(server.log)


@pytest.fixture(scope="module")
def client(server: Live) -> Iterator[Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def seven_model(models_folder: Path) -> Path:
    """A model in HDF5, whatever its name says, that takes seven features."""
    path = models_folder / "seven.h5"
    build_model(["features"], features=7).save(path)
    return path.rename(models_folder / "seven.keras")


@pytest.fixture(scope="module")
def ready(server: Live, seven_model: Path, two_input_model: Path, picture_model: Path) -> Live:
    """The server with a worker up; the models were made while it started."""
    wait_until(lambda: server.http.get(f"{server.url}/readyz").status_code == 200)
    return server


@pytest.fixture(scope="module")
def two_inputs(ready: Live, client: Client, two_input_model: Path) -> str:
    """Digest of a promoted model that takes features and a picture."""
    assert client.publish(two_input_model)["state"] == "promoted"
    return sha256(two_input_model)


@pytest.fixture(scope="module")
def picture(ready: Live, client: Client, picture_model: Path) -> str:
    """Digest of a promoted model that takes a picture."""
    assert client.publish(picture_model)["state"] == "promoted"
    return sha256(picture_model)


@pytest.fixture(scope="module")
def seven(ready: Live, client: Client, seven_model: Path) -> str:
    """Digest of a promoted model that takes seven features."""
    assert client.publish(seven_model)["state"] == "promoted"
    return sha256(seven_model)


@pytest.fixture(autouse=True)
def _alive(server: Live, log_start: int) -> Iterator[None]:
    """After every test, both ports answer, and nothing went wrong inside."""
    begin = len(server.log)
    yield
    for url in (server.url, server.upload_url):
        assert server.http.get(f"{url}/test").content == b'{"msg":"server up"}'
    assert "Traceback" not in server.log[begin:]


@pytest.fixture
def _keeps_nothing(server: Live) -> Iterator[None]:
    before = set(server.files())
    yield
    wait_until(lambda: is_as_it_was(server, before), 10)


def is_as_it_was(server: Live, before: set[str]) -> bool:
    """Tell whether nothing is new, and nothing gone but what another test was answered before it was cleared."""
    now = set(server.files())
    return now <= before and all(name.startswith(("incoming/", "temp/")) for name in before - now)


def refused(response: httpx.Response, status: int, code: str) -> str:
    """Check that an answer is an error of the contract; return its message."""
    assert (response.status_code, response.headers.get("Content-Type")) == (
        status,
        "application/json; charset=UTF-8",
    ), response.content[:500]
    body = response.json()
    assert list(body) == ["msg", "code"]
    assert body["code"] == code
    assert response.content == json.dumps(body, separators=(",", ":")).encode()
    message: str = body["msg"]
    assert message
    assert len(message) < 600
    assert_discreet(message)
    return message


def assert_discreet(message: str) -> None:
    """Check that a text has no path, stack trace or secret."""
    assert not re.search(r"""(^|[\s'"(=:])(/|[A-Za-z]:\\)\w""", message), message
    assert not re.search(r"Traceback|File \"|line \d+, in|\.py\b|\n", message), message
    assert TOKEN not in message


def chunks(size: int) -> Iterator[bytes]:
    """Yield a body of this size."""
    piece = b"A" * 2**16
    while size > 0:
        yield piece[:size]
        size -= len(piece)


def head(method: str, path: str, **headers: str | int) -> bytes:
    """Return the lines before the body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


def read_answer(connection: socket.socket) -> httpx.Response:
    """Read one answer from a raw connection."""
    with http.client.HTTPResponse(connection) as response:
        response.begin()
        return httpx.Response(response.status, headers=response.getheaders(), content=response.read())


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server ends the connection, in whatever way."""
    received = b""
    try:
        while data := connection.recv(2**16):
            received += data
    except (ConnectionError, ssl.SSLEOFError):
        pass
    return received


def finish(connection: socket.socket) -> None:
    """End a connection with FIN, without TLS's goodbye, and wait for the server to end it too."""
    connection.shutdown(socket.SHUT_WR)
    read_to_end(connection)
    connection.close()


def reset(connection: socket.socket) -> None:
    """End a connection with RST in place of FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def part(data: bytes, field: str = "model", name: str = "model") -> bytes:
    """Return one part of a multipart body."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    """Return a whole multipart body."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def post_form(live: Live, body: Any, content_type: str | None = MULTIPART, url: str = "") -> httpx.Response:
    """POST a multipart body, good or bad, to the upload port."""
    headers = {"Content-Type": content_type} if content_type is not None else {}
    return live.http.post((url or live.upload_url) + UPLOADS, content=body, headers=headers)


def noise(size: int, seed: int = 1) -> bytes:
    """Return bytes that are no model."""
    return random.Random(seed).randbytes(size)


# --- what is signed, and what is not ---------------------------------------------------------------------------


def sign(payload: bytes, token: str = TOKEN) -> bytes:
    """Sign as the Serializer does, whatever the payload is."""
    return itsdangerous.Signer(token, salt=b"itsdangerous").sign(payload)


@keeps_nothing
@pytest.mark.parametrize("path", SIGNED_ROUTES)
@pytest.mark.parametrize(
    "body",
    [b"", b"{}", json.dumps({"hash": UNKNOWN}).encode(), b"\0\xff" * 100],
    ids=["empty", "object", "registration", "binary"],
)
def test_a_body_without_a_signature_is_401(server: Live, path: str, body: bytes) -> None:
    """What nobody signed has no credentials."""
    refused(server.http.post(server.url + path, content=body), 401, "bad_signature")


@keeps_nothing
@pytest.mark.parametrize("path", SIGNED_ROUTES)
@pytest.mark.parametrize(
    "body",
    [
        sign(b'{"hash":"%b"}' % UNKNOWN.encode(), "another token"),
        sign(b'{"hash":"%b"}' % UNKNOWN.encode()).replace(b'"hash"', b'"hasH"'),
        sign(b'{"hash":"%b"}' % UNKNOWN.encode())[:-1],
        itsdangerous.Signer(TOKEN).sign(b'{"hash":"%b"}' % UNKNOWN.encode()),
        itsdangerous.Serializer(TOKEN, salt=b"other").dumps({"hash": UNKNOWN}).encode(),
        b".",
        b"{}.\xff\xfe",
    ],
    ids=["key", "tampered", "cut", "signer", "salt", "dot", "binary"],
)
def test_a_wrong_signature_is_403(server: Live, path: str, body: bytes) -> None:
    """A signature by another key, of other bytes, or of another kind does not match."""
    refused(server.http.post(server.url + path, content=body), 403, "bad_signature")


@keeps_nothing
@pytest.mark.parametrize("path", SIGNED_ROUTES)
@pytest.mark.parametrize(
    "payload",
    [
        b"garbage",
        b"",
        b"\xff\xfe\0",
        b'{"hash":',
        b"[" * 200_000,
        b'{"hash":' * 100_000,
        b"9" * 5000,
        b"[]",
        b"[1,2]",
        b"1",
        b"1.5",
        b'"text"',
        b"null",
        b"true",
        b"NaN",
        b"{}",
        b'{"hash":"\\ud800"}',
        b'{"model_hash":"\\ud800","ext":"wav","data":""}',
    ],
    ids=lambda payload: payload[:12].decode("latin-1"),
)
def test_what_is_signed_but_no_request_is_400(server: Live, path: str, payload: bytes) -> None:
    """A good signature does not make a request of garbage, or of JSON in another shape."""
    refused(server.http.post(server.url + path, content=sign(payload)), 400, "bad_request")


NOT_HASHES = [
    "",
    "a" * 63,
    "a" * 65,
    "g" * 64,
    "a" * 64 + "\n",
    "１" * 64,
    "../" * 21 + "a",
    1,
    None,
    True,
    [],
    {},
    ["a" * 64],
]


@keeps_nothing
@pytest.mark.parametrize("value", NOT_HASHES, ids=repr)
def test_only_a_sha256_can_be_registered(server: Live, value: object) -> None:
    """A hash is 64 hexadecimal digits."""
    refused(server.post_signed("/registermodelhash", {"hash": value}), 400, "bad_request")


@keeps_nothing
@pytest.mark.parametrize(
    "fields",
    [
        {"model_hash": UNKNOWN},
        {"hash": UNKNOWN, "surprise": 1},
        {"hash": UNKNOWN, "x" * 100_000: 1},
        {"hash": UNKNOWN, "labels": "rock"},
        {"hash": UNKNOWN, "labels": None},
        {"hash": UNKNOWN, "labels": [1, 2]},
        {"hash": UNKNOWN, "labels": {"rock": 1}},
        {"hash": UNKNOWN, "labels": ["x" * 100_000]},
        {"hash": UNKNOWN, "labels": ["x"] * 100_000},
        {"hash": UNKNOWN, "recipe": "../server.key"},
        {"hash": UNKNOWN, "recipe": "x" * 100_000},
        {"hash": UNKNOWN, "recipe": 1},
        {"hash": UNKNOWN, "recipe": {}},
        {"hash": UNKNOWN, "recipe": {"inputs": [{"kind": "mel"}] * 1000}},
        {"hash": UNKNOWN, "recipe": {"inputs": [{"kind": "x" * 100_000}]}},
        {"hash": UNKNOWN, "recipe": {"inputs": [{"kind": "mel", "fmin": float("nan")}]}},
        {"hash": UNKNOWN, "golden": {}},
        {"hash": UNKNOWN, "golden": [{}] * 100_000},
        {"hash": UNKNOWN, "golden": [{"song": "", "expected": [1], "x" * 100_000: 1}]},
        {"hash": UNKNOWN, "golden": [{"song": "???", "expected": [1]}]},
        {"hash": UNKNOWN, "golden": [{"song": "", "expected": [float("nan")]}]},
        {"hash": UNKNOWN, "golden": [{"song": "", "expected": [0] * 100_000}]},
        {"hash": UNKNOWN, "golden": [{"song": "", "expected": [10**400]}]},
        {"hash": UNKNOWN, "golden": [{"song": "", "expected": [[[[[]]]]]}]},
    ],
    ids=lambda fields: repr(fields)[66:100],
)
def test_a_registration_of_another_shape_is_400(server: Live, fields: dict[str, Any]) -> None:
    """A registration has a hash, perhaps labels, a recipe and goldens, and nothing else."""
    refused(server.post_signed("/registermodelhash", fields), 400, "bad_request")


# --- questions -------------------------------------------------------------------------------------------------


def question(model: str, **fields: Any) -> dict[str, Any]:
    """Return a good question with some fields replaced; ``...`` leaves one out."""
    good = {"model_hash": model, "ext": "wav", "data": b64(wav()), "csv": b64(csv_row())}
    return {key: value for key, value in {**good, **fields}.items() if value is not ...}


def ask(live: Live, model: str, **fields: Any) -> httpx.Response:
    """POST a question."""
    return live.post_signed("/prediction", question(model, **fields))


def array_of(response: httpx.Response) -> Any:
    """Check that an answer is one row of ten probabilities, and return it."""
    assert response.status_code == 200, response.content
    array = np.array(response.json()["array"])
    assert array.shape == (1, 10)
    assert array.sum() == pytest.approx(1, abs=1e-5)
    return array


@keeps_nothing
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("model_hash", value) for value in NOT_HASHES),
        *((field, value) for field in ("model_hash", "ext", "data") for value in (..., None, 1, True, [], {})),
        *(("csv", value) for value in (1, False, [], {})),
        *(("ext", value) for value in ("../../etc/x", "/etc/passwd", "wav\0", "wav\n", "a b", "x" * 17, "ẅav")),
        *(
            (field, value)
            for field in ("data", "csv")
            for value in ("%%%%", "UklG!", "Ukl", "é", "Ukl\n", "\ud800")
        ),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_question_with_a_wrong_field_is_400(server: Live, two_inputs: str, field: str, value: object) -> None:
    """Every field must be there, of its type, and readable, before anybody looks at the song."""
    refused(ask(server, two_inputs, **{field: value}), 400, "bad_request")


@functools.cache
def encoded(samples: str, sr: int = 22050, subtype: str = "FLOAT") -> bytes:
    """Return a WAV file of samples that are odd in one way."""
    y = np.random.default_rng(5).uniform(-0.5, 0.5, 2 * sr).astype(np.float32)
    match samples:
        case "nothing":
            y = y[:0]
        case "10 ms":
            y = y[: sr // 100]
        case "silence":
            y[:] = 0
        case "nan":
            y[sr] = np.nan
        case "far too loud":
            y[sr] = 3e37
        case "infinity":
            y[sr] = -np.inf
    file = io.BytesIO()
    soundfile.write(file, y, sr, format="WAV", subtype=subtype)
    return file.getvalue()


@keeps_nothing
@pytest.mark.parametrize("samples", ["nothing", "10 ms", "silence", "nan", "infinity", "far too loud"])
def test_a_song_that_cannot_be_drawn_is_422(server: Live, two_inputs: str, samples: str) -> None:
    """Too short, silent, or not numbers: it is sound, but no picture comes of it."""
    refused(ask(server, two_inputs, data=b64(encoded(samples))), 422, "unprocessable")


TEXT = b"These are words, and no music.\n" * 200


@keeps_nothing
@pytest.mark.parametrize(
    ("song", "ext"),
    [
        (b"", "wav"),
        (b"\0", "wav"),
        (b"RIFF", "wav"),
        (TEXT, "mp3"),
        (TEXT, "wav"),
        (noise(50_000), "flac"),
        (b"<html>no</html>", "ogg"),
        (wav(container="FLAC")[:10], "flac"),
        (wav(container="FLAC")[:100], "flac"),
        (wav(container="FLAC")[: len(wav(container="FLAC")) // 2], "flac"),
        (wav(container="FLAC")[:-1000], "flac"),
        (wav(container="OGG")[:60], "ogg"),
        (wav()[:30], "wav"),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{len(value)}-{value[:6].decode('latin-1')!r}",
)
def test_a_song_that_is_no_sound_is_415(server: Live, two_inputs: str, song: bytes, ext: str) -> None:
    """What cannot be decoded, or not to its end, is no song, whatever its name says."""
    refused(ask(server, two_inputs, data=b64(song), ext=ext), 415, "unsupported_media")


@keeps_nothing
@pytest.mark.parametrize("ext", ["wav", "mp3", "xyz", ".flac", ""])
@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "AU", "AIFF"])
def test_the_content_says_what_a_song_is(server: Live, two_inputs: str, container: str, ext: str) -> None:
    """Every format is accepted under every name, and the same sound gives the same answer."""
    subtype = "PCM_16" if container in ("WAV", "FLAC", "AU", "AIFF") else None
    array = array_of(ask(server, two_inputs, data=b64(wav(container=container, subtype=subtype)), ext=ext))
    reference = array_of(ask(server, two_inputs))
    np.testing.assert_allclose(array, reference, atol=1e-4 if subtype else 0.02)


@keeps_nothing
@pytest.mark.parametrize(
    "song",
    [wav(channels=2), wav(channels=8), wav(sr=8000), wav(sr=192_000), wav(seconds=0.2)],
    ids=["stereo", "8 channels", "8 kHz", "192 kHz", "200 ms"],
)
def test_a_song_may_have_any_rate_and_any_number_of_channels(server: Live, two_inputs: str, song: bytes) -> None:
    """Unusual sound is still sound."""
    array_of(ask(server, two_inputs, data=b64(song)))


@keeps_nothing
@pytest.mark.parametrize(
    "csv",
    [
        csv_row([0.5] * 57),
        csv_row([0.5] * 59),
        csv_row(["rock", *[0.5] * 57]),
        csv_row([*[0.5] * 57, "rock"]),
        csv_row([0.5] * 57 + [""]),
        csv_row([0.5] * 57 + ["nan"]),
        csv_row([0.5] * 57 + ["-inf"]),
        csv_row([0.5] * 57 + ["1e39"]),
        csv_row() + b"993" + b",0.5" * 58 + b"\n",
        csv_row().splitlines()[0],
        csv_row().splitlines()[1],
        csv_row(index=False).replace(b"0.5,", b"", 1),
        b"\n",
        b" ",
        b",\n,\n",
        b"\xff\xfe" + csv_row().decode().encode("utf-16-le"),
        b"\0" * 100,
        b'"never closed',
        noise(10_000),
    ],
    ids=[
        "57 columns",
        "59 columns",
        "text first",
        "text last",
        "missing value",
        "nan",
        "infinite",
        "infinite as float32",
        "two rows",
        "names only",
        "numbers only",
        "57 cells",
        "newline",
        "space",
        "no columns",
        "utf-16",
        "zeros",
        "quote",
        "noise",
    ],
)
def test_features_that_cannot_be_used_are_422(server: Live, two_inputs: str, csv: bytes) -> None:
    """The csv has one row, of as many finite numbers as the model takes."""
    refused(ask(server, two_inputs, csv=b64(csv)), 422, "unprocessable")


@keeps_nothing
def test_a_missing_csv_is_400_for_a_model_that_needs_it(server: Live, seven: str) -> None:
    """What cannot be computed from the song must be sent; sent, it is taken."""
    refused(ask(server, seven, csv=...), 400, "bad_request")
    refused(ask(server, seven, csv=None), 400, "bad_request")
    refused(ask(server, seven), 422, "unprocessable")
    array_of(ask(server, seven, csv=b64(csv_row([0.5] * 7))))


@keeps_nothing
@pytest.mark.parametrize("csv", [..., None, b64(TEXT)], ids=["missing", "null", "text"])
def test_a_model_without_features_looks_at_no_csv(server: Live, picture: str, csv: object) -> None:
    """A model that takes a picture only answers whatever the csv is."""
    assert np.shape(ask(server, picture, csv=csv).json()["array"]) == (1, 3)


@keeps_nothing
def test_an_unknown_model_is_404(server: Live, client: Client) -> None:
    """Nobody has heard of this hash."""
    refused(ask(server, UNKNOWN), 404, "model_not_found")
    with pytest.raises(Refused) as caught:
        client.model(UNKNOWN)
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")


def test_a_model_that_was_only_registered_is_404(server: Live, client: Client) -> None:
    """A promise of a file is no file."""
    digest = client.register(sha256(b"a model that never comes"))
    refused(ask(server, digest), 404, "model_not_found")
    assert client.model(digest)["state"] == "registered"


# --- bodies that are too large ---------------------------------------------------------------------------------


@keeps_nothing
@pytest.mark.parametrize("path", SIGNED_ROUTES)
def test_a_huge_body_is_413_and_the_client_reads_it(server: Live, path: str) -> None:
    """A client that sends all of it before it reads still gets the answer."""
    headers = {"Content-Length": str(HUGE_BYTES)}
    response = server.http.post(server.url + path, content=chunks(HUGE_BYTES), headers=headers)
    refused(response, 413, "too_large")


@keeps_nothing
def test_a_huge_body_of_unknown_length_is_413(server: Live) -> None:
    """What is sent in chunks is counted as it comes."""
    response = server.http.post(f"{server.url}/prediction", content=chunks(HUGE_BYTES))
    assert response.request.headers["Transfer-Encoding"] == "chunked"
    refused(response, 413, "too_large")


@keeps_nothing
def test_a_huge_body_over_a_raw_connection_is_413(server: Live) -> None:
    """Whoever writes everything first and reads then is not cut off."""
    with server.connect() as connection:
        connection.sendall(head("POST", "/prediction", Content_Length=HUGE_BYTES))
        for chunk in chunks(HUGE_BYTES):
            connection.sendall(chunk)
        refused(read_answer(connection), 413, "too_large")


@keeps_nothing
@pytest.mark.parametrize("path", SIGNED_ROUTES)
def test_a_client_that_asks_first_need_not_send_a_huge_body(server: Live, path: str) -> None:
    """With Expect: 100-continue the first thing that comes is the 413."""
    with server.connect() as connection:
        connection.sendall(head("POST", path, Content_Length=HUGE_BYTES, Expect="100-continue"))
        received = read_to_end(connection)
    lines, _, body = received.partition(b"\r\n\r\n")
    status, *headers = lines.decode().splitlines()
    assert status.startswith("HTTP/1.1 413 ")
    response = httpx.Response(413, headers=[tuple(header.split(": ", 1)) for header in headers], content=body)
    refused(response, 413, "too_large")


@keeps_nothing
def test_a_client_that_asks_first_may_send_a_good_body(server: Live) -> None:
    """With Expect: 100-continue a body within bounds is asked for."""
    body = sign(b"[]")
    with server.connect() as connection:
        connection.sendall(head("POST", "/prediction", Content_Length=len(body), Expect="100-continue"))
        assert connection.recv(2**16) == b"HTTP/1.1 100 (Continue)\r\n\r\n"
        connection.sendall(body)
        refused(read_answer(connection), 400, "bad_request")


@keeps_nothing
def test_a_body_beyond_all_measure_is_413_at_once(server: Live) -> None:
    """Nobody waits for a terabyte to be thrown away."""
    with server.connect() as connection:
        connection.sendall(head("POST", "/prediction", Content_Length=2**40))
        refused(read_answer(connection), 413, "too_large")


@keeps_nothing
@pytest.mark.parametrize("path", ["/nothing", "/test", "/hashmodels"])
def test_a_huge_body_to_a_route_that_takes_none_is_not_kept_in_memory(server: Live, path: str) -> None:
    """The server's memory does not follow what somebody sends."""
    peak_memory(server)
    before = peak_memory(server)
    headers = {"Content-Length": str(HUGE_BYTES)}
    try:
        response = server.http.post(server.url + path, content=chunks(HUGE_BYTES), headers=headers)
    except httpx.TransportError:
        pass  # cut, which is fair too
    else:
        assert response.status_code in (404, 405, 413)
    assert peak_memory(server) - before < HUGE_BYTES / 3


def peak_memory(live: Live) -> int:
    """Return the most memory that the server process has had since the last call, in bytes."""
    process = Path(f"/proc/{live.process.pid}")
    status = (process / "status").read_text()
    (process / "clear_refs").write_text("5")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


# --- models ----------------------------------------------------------------------------------------------------


class Exploit:
    """What a hostile pickle is: code that runs when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


def archive(**members: bytes) -> bytes:
    """Return a zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        for name, data in members.items():
            zipped.writestr(name.replace("_", ".", 1), data)
    return file.getvalue()


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + UNKNOWN.encode() + b"\nsize 12345678\n"


@pytest.fixture
def not_a_model(
    request: pytest.FixtureRequest, two_input_model: Path, picture_model: Path, tmp_path: Path
) -> bytes:
    """Bytes that somebody took for a model."""
    h5, keras = two_input_model.read_bytes(), picture_model.read_bytes()
    damaged = bytearray(keras)
    damaged[len(keras) // 2] ^= 1
    kinds: dict[str, bytes] = {
        "pointer": POINTER,
        "pickle": pickle.dumps(Exploit(tmp_path / "marker")),
        "truncated h5": h5[: len(h5) // 2],
        "h5 magic": h5[:8],
        "truncated keras": keras[: len(keras) // 2],
        "zip": archive(readme_txt=b"hello"),
        "empty zip": archive(),
        "zip with names": archive(config_json=b"{}", metadata_json=b"{}"),
        "zip of garbage": archive(config_json=b"\xff" * 100, metadata_json=b"[]"),
        "text": TEXT,
    }
    return kinds[request.param]


@pytest.mark.parametrize(
    "not_a_model",
    [
        "pointer",
        "pickle",
        "truncated h5",
        "h5 magic",
        "truncated keras",
        "zip",
        "empty zip",
        "zip with names",
        "zip of garbage",
    ],
    indirect=True,
)
def test_a_registered_file_that_is_no_model_is_rejected(
    ready: Live, client: Client, not_a_model: bytes, tmp_path: Path
) -> None:
    """The file is gone, and whoever asks is told why."""
    digest = client.register(sha256(not_a_model))
    before = ready.files()
    assert ready.upload(not_a_model).content == UPLOADED
    assert ready.http.get(f"{ready.url}/hashmodels").json() == {"hashes": []}
    # It is answered before its trial is over, if that takes long.
    wait_until(lambda: ready.files("temp") == [])
    state = client.model(digest)
    assert state["state"] == "rejected"
    assert state["reason"]
    assert_discreet(state["reason"])
    assert state["reason"] in refused(ask(ready, digest), 404, "model_not_found")
    assert set(ready.files()) - set(before) == {f"rejected/{digest}.json"}
    assert list(tmp_path.iterdir()) == []


def test_a_model_with_a_flipped_bit_is_deleted(ready: Live, client: Client, two_input_model: Path) -> None:
    """Only the very bytes that were registered will do; the registration goes on waiting for them."""
    model = bytearray(two_input_model.read_bytes() + b"a version of its own")
    digest = client.register(sha256(bytes(model)))
    before = ready.files()
    model[len(model) // 2] ^= 1
    assert ready.upload(bytes(model)).content == UPLOADED
    assert len(ready.files("temp")) == 1
    assert ready.http.get(f"{ready.url}/hashmodels").json() == {"hashes": []}
    assert ready.files() == before
    assert client.model(digest)["state"] == "registered"
    refused(ask(ready, digest), 404, "model_not_found")


@keeps_nothing
def test_an_upload_that_nobody_registered_is_deleted(ready: Live, client: Client, two_input_model: Path) -> None:
    """The sweep keeps what was registered, even from a real model."""
    model = two_input_model.read_bytes() + b"nobody registered this version"
    assert ready.upload(model).content == UPLOADED
    assert len(ready.files("temp")) == 1
    assert ready.http.get(f"{ready.url}/hashmodels").json() == {"hashes": []}
    refused(ask(ready, sha256(model)), 404, "model_not_found")


def test_the_first_bytes_decide_what_a_model_is(
    ready: Live, client: Client, seven: str, seven_model: Path
) -> None:
    """HDF5 that is called .keras is kept as .h5."""
    assert seven_model.suffix == ".keras"
    assert seven_model.read_bytes().startswith(b"\x89HDF")
    assert client.model(seven)["format"] == "h5"
    assert [name for name in ready.files("models") if seven in name] == [f"models/{seven}.h5"]


# --- signed models on the API port -----------------------------------------------------------------------------


@keeps_nothing
@pytest.mark.parametrize("path", [UPLOADS, "/uploadmodel"])
@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        (lambda model: model, 401, "bad_signature"),
        (lambda model: b"x", 401, "bad_signature"),
        (lambda model: itsdangerous.Signer(TOKEN).sign(model)[:-1], 401, "bad_signature"),
        (lambda model: itsdangerous.Signer(TOKEN).sign(model)[: len(model) // 2], 401, "bad_signature"),
        (lambda model: itsdangerous.Signer("another token").sign(model), 403, "bad_signature"),
        (lambda model: itsdangerous.Signer(TOKEN).sign(model)[1:], 403, "bad_signature"),
        (lambda model: sign(model), 403, "bad_signature"),
        (lambda model: itsdangerous.Signer(TOKEN).sign(b""), 400, "bad_request"),
        (lambda model: b"", 401, "bad_signature"),
    ],
    ids=["unsigned", "one byte", "cut", "half", "key", "beheaded", "salt", "empty and signed", "empty"],
)
def test_a_signed_upload_needs_its_signature(
    ready: Live, picture_model: Path, path: str, change: Callable[[bytes], bytes], status: int, code: str
) -> None:
    """Without the right signature of all of it, a model is neither kept nor registered."""
    files = {"model": ("model", change(picture_model.read_bytes()), "application/octet")}
    refused(ready.http.post(ready.url + path, files=files), status, code)


@keeps_nothing
def test_a_signed_upload_is_one_file(ready: Live, picture_model: Path) -> None:
    """Two signed models in one request are refused, both."""
    # Of bytes that nobody has registered.
    signed = itsdangerous.Signer(TOKEN).sign(picture_model.read_bytes() + b"twice")
    refused(post_form(ready, form(part(signed), part(signed)), url=ready.url), 400, "bad_request")


@pytest.mark.parametrize("not_a_model", ["text", "truncated h5", "zip"], indirect=True)
def test_a_signed_file_that_is_no_model_is_415(ready: Live, client: Client, not_a_model: bytes) -> None:
    """The right key does not make a model of it."""
    data = not_a_model + b"signed"
    before = ready.files()
    files = {"model": ("model", itsdangerous.Signer(TOKEN).sign(data), "application/octet")}
    refused(ready.http.post(ready.url + UPLOADS, files=files), 415, "unsupported_media")
    digest = sha256(data)
    assert client.model(digest)["state"] == "rejected"
    assert set(ready.files()) - set(before) == {f"registered/{digest}.json", f"rejected/{digest}.json"}


def test_a_signed_model_is_saved(ready: Live, client: Client, models_folder: Path) -> None:
    """The signature stands for the registration; the answer has the digest, and the model answers."""
    path = models_folder / "signed.keras"
    build_model(["features"], features=5).save(path)
    digest = sha256(path)
    files = {"model": ("model", itsdangerous.Signer(TOKEN).sign(path.read_bytes()), "application/octet")}
    answer = ready.http.post(ready.url + UPLOADS, files=files)
    assert answer.content == b'{"msg":"model saved","hash":"%b"}' % digest.encode()
    assert client.model(digest)["state"] == "promoted"
    array_of(ask(ready, digest, csv=b64(csv_row([0.5] * 5))))


# --- multipart -------------------------------------------------------------------------------------------------

DATA = noise(20_000)

BAD_FORMS: dict[str, tuple[Any, str | None]] = {
    "empty body": (b"", MULTIPART),
    "no parts": (form(), MULTIPART),
    "another field": (form(part(DATA, "other")), MULTIPART),
    "field without a name": (form(part(DATA).replace(b'name="model"; ', b"")), MULTIPART),
    "13 files": (form(*[part(DATA)] * 13), MULTIPART),
    "13 small files": (form(*[part(b"x")] * 13), MULTIPART),
    "empty file": (form(part(b"")), MULTIPART),
    "empty file after a good one": (form(part(DATA), part(b"")), MULTIPART),
    "cut in the last boundary": (form(part(DATA))[:-5], MULTIPART),
    "cut before the last boundary": (part(DATA), MULTIPART),
    "cut in the data": (part(DATA)[:-1000], MULTIPART),
    "cut in the second part": (part(DATA) + part(DATA)[:-1000], MULTIPART),
    "cut in a header": (part(DATA)[:40], MULTIPART),
    "cut after the first boundary": (part(DATA)[: len(BOUNDARY) + 4], MULTIPART),
    "cut in the first boundary": (part(DATA)[:5], MULTIPART),
    "no last boundary": (part(noise(3 * MiB)), MULTIPART),
    "almost boundaries": (part(b"\r\n--fronti\r\n--frontier" * 50_000), MULTIPART),
    "no first boundary": (noise(3 * MiB), MULTIPART),
    "no first boundary, small": (TEXT, MULTIPART),
    "endless returns": (b"\r" * MiB, MULTIPART),
    "another boundary": (form(part(DATA)).replace(b"frontier", b"frontera"), MULTIPART),
    "endless header": (part(DATA, "x" * MiB), MULTIPART),
    "endless headers": (part(DATA).replace(b"\r\n", b"\r\n" + b"X-A: b\r\n" * 100_000, 1), MULTIPART),
    "header that never ends": (part(DATA)[:40] + b"x" * MiB, MULTIPART),
    "header without a colon": (form(part(DATA).replace(b"Disposition:", b"Disposition", 1)), MULTIPART),
    "header that is not text": (form(part(DATA, "\xff").replace("ÿ".encode(), b"\xff")), MULTIPART),
    "wrong length of a part": (form(part(DATA).replace(b"\r\n", b"\r\nContent-Length: 5\r\n", 1)), MULTIPART),
    "length of a part that is no number": (
        form(part(DATA).replace(b"\r\n", b"\r\nContent-Length: -x\r\n", 1)),
        MULTIPART,
    ),
    "no boundary": (form(part(DATA)), "multipart/form-data"),
    "empty boundary": (form(part(DATA)), "multipart/form-data; boundary="),
    "endless boundary": (form(part(DATA)), "multipart/form-data; boundary=" + "x" * 5000),
    "boundary that is not text": (form(part(DATA)), "multipart/form-data; boundary=\xff\xfe"),
    "boundary in another encoding": (form(part(DATA)), "multipart/form-data; boundary*=utf-8''%0A"),
    "multipart of another kind": (form(part(DATA)), f"multipart/mixed; boundary={BOUNDARY}"),
    "json": (json.dumps({"model": b64(DATA)}).encode(), "application/json"),
    "urlencoded": (b"model=" + b"x" * 1000, "application/x-www-form-urlencoded"),
    "the file itself": (DATA, "application/octet-stream"),
    "no content type": (DATA, None),
    "garbage content type": (DATA, ';;="'),
}


def send_bad(live: Live, name: str, url: str = "") -> httpx.Response:
    """POST one of the bad forms."""
    body, content_type = BAD_FORMS[name]
    headers = [(b"Content-Type", content_type.encode("latin-1"))] if content_type is not None else []
    return live.http.post((url or live.upload_url) + UPLOADS, content=body, headers=headers)


@keeps_nothing
@pytest.mark.parametrize("name", BAD_FORMS)
def test_a_bad_form_is_400_on_the_upload_port(server: Live, name: str) -> None:
    """What is not multipart with whole files under the right name is refused, all of it."""
    refused(send_bad(server, name), 400, "bad_request")


@keeps_nothing
@pytest.mark.parametrize("name", [name for name in BAD_FORMS if "13" not in name])
def test_a_bad_form_is_refused_on_the_api_port(server: Live, name: str) -> None:
    """The API port is no more lenient; nothing in these forms is signed either."""
    response = send_bad(server, name, server.url)
    if response.status_code == 401:
        refused(response, 401, "bad_signature")
    else:
        refused(response, 400, "bad_request")


@keeps_nothing
def test_twelve_files_are_taken(server: Live) -> None:
    """As many as the document allows; nobody registered them, so the sweep takes them away."""
    assert post_form(server, form(*[part(DATA)] * 12)).content == UPLOADED
    assert len(server.files("temp")) == 12
    assert server.http.get(f"{server.url}/hashmodels").json() == {"hashes": []}


@keeps_nothing
@pytest.mark.parametrize("length", ["-5", "abc", "5, 6", "1e3", "0x10", "\xb2", "9" * 30])
@pytest.mark.parametrize("url", ["url", "upload_url"])
def test_a_length_that_is_no_length_leaves_nothing(server: Live, url: str, length: str) -> None:
    """A Content-Length that cannot be read is refused, or the connection ends."""
    request = head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=length)
    with server.connect(getattr(server, url)) as connection:
        connection.sendall(request + form(part(DATA)))
        assert re.match(rb"$|HTTP/1\.1 4\d\d ", read_to_end(connection))


@keeps_nothing
def test_a_body_shorter_than_its_length_leaves_nothing(server: Live) -> None:
    """When the client goes before the end, what it sent goes too."""
    body = form(part(DATA))
    with server.connect(server.upload_url) as connection:
        connection.sendall(head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=len(body) + 10) + body)
        wait_until(lambda: server.files("incoming"))


@keeps_nothing
@pytest.mark.parametrize("url", ["url", "upload_url"])
@pytest.mark.parametrize("end", [finish, reset], ids=["fin", "rst"])
def test_a_hundred_cut_uploads_leave_nothing(server: Live, url: str, end: Callable[[Any], None]) -> None:
    """Wherever a connection is cut, its bytes go, its place is free again, and the next upload works."""
    target = getattr(server, url)
    rng = random.Random(11)
    before = set(server.files())
    body = form(part(noise(150_000)), part(DATA))
    request = head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=len(body)) + body
    for _ in range(100):
        connection = server.connect(target)
        connection.sendall(request[: rng.randrange(len(request))])
        end(connection)
    wait_until(lambda: is_as_it_was(server, before), 10)
    assert server.upload(DATA).content == UPLOADED
    assert len(server.files("temp")) == 1
    assert server.http.get(f"{server.url}/hashmodels").json() == {"hashes": []}


def test_a_wrong_method_takes_no_place_among_the_uploads(make_live: Callable[..., Live]) -> None:
    """A request that is refused for its method does not count as an upload."""
    server = make_live(uploads__max_concurrent=1)
    for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS"):
        url, headers = server.upload_url + UPLOADS, {"Content-Type": MULTIPART}
        response = server.http.request(method, url, content=form(part(DATA)), headers=headers)
        refused(response, 405, "method_not_allowed")
        assert server.upload(DATA).content == UPLOADED, method
    assert server.files("incoming") == []


def test_a_file_that_is_too_large_is_413(make_live: Callable[..., Live]) -> None:
    """The largest file is taken, one byte more is not, and nor is a body that cannot be within bounds."""
    limit = 100_000
    server = make_live(uploads__max_bytes=limit)
    assert server.upload(noise(limit)).content == UPLOADED
    (kept,) = server.files()
    assert kept.startswith("temp/")
    for models in ([limit + 1], [limit, limit + 1], [2 * MiB], [5 * MiB], [limit] * 12 + [MiB]):
        refused(server.upload(*map(noise, models)), 413, "too_large")
    refused(post_form(server, chunks(5 * MiB)), 400, "bad_request")
    refused(post_form(server, iter([part(b"")[:-2], *chunks(5 * MiB)])), 413, "too_large")
    with server.connect(server.upload_url) as connection:
        lines = head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=5 * MiB, Expect="100-continue")
        connection.sendall(lines)
        refused(read_answer(connection), 413, "too_large")
    with server.connect(server.upload_url) as connection:
        connection.sendall(head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=5 * MiB) + b"cut")
    signed = itsdangerous.Signer(TOKEN).sign(noise(limit + 1))
    refused(post_form(server, form(part(signed)), url=server.url), 413, "too_large")
    assert server.files() == [kept]
    assert server.upload(noise(limit)).content == UPLOADED
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("path", "status"),
    [("/registermodelhash", 401), ("/prediction", 401), ("/nowhere", 404), ("/hashmodels", 405)],
)
def test_a_body_that_stalls_is_cut(make_live: Callable[..., Live], path: str, status: int) -> None:
    """On every route, refused or not; one that keeps coming is answered, and may take longer than a stall."""
    server = make_live(uploads__stall_timeout_s=2.5)
    with server.connect() as connection:
        connection.sendall(head("POST", path, Content_Length=10_000) + b"x" * 5000)
        connection.settimeout(10)
        assert read_to_end(connection) == b""
    with server.connect() as connection:
        connection.sendall(head("POST", path, Content_Length=10_000))
        for _ in range(10):
            connection.sendall(b"x" * 1000)
            time.sleep(0.3)
        assert read_answer(connection).status_code == status


def test_a_refused_upload_that_keeps_coming_is_answered(make_live: Callable[..., Live]) -> None:
    """Longer than a stall may last."""
    server = make_live(uploads__stall_timeout_s=2.5)
    body = form(*[part(DATA) for _ in range(13)]) + b"x" * 10_000
    with server.connect(server.upload_url) as connection:
        connection.sendall(head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=len(body)))
        connection.sendall(body[:-10_000])
        for _ in range(10):
            connection.sendall(b"x" * 1000)
            time.sleep(0.3)
        refused(read_answer(connection), 400, "bad_request")
    wait_until(lambda: server.files() == [])


def test_bodies_together_are_bounded(make_live: Callable[..., Live]) -> None:
    """However many clients send bodies at the same time; later ones are served."""
    server = make_live(server__max_body_bytes=4 * MiB)
    request = head("POST", "/registermodelhash", Content_Length=4 * MiB)
    # Enough for a refusal to be answered before it: who is refused does not hang on what is read first.
    rest = b"x" * 2**17
    turned_away: list[ssl.SSLSocket] = []
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(12)]
        for connection in connections:
            connection.sendall(request + b"x" * (4 * MiB - len(rest)))

        def read_refusals() -> bool:
            for connection in connections:
                connection.settimeout(0.05)
                if connection not in turned_away:
                    with contextlib.suppress(TimeoutError):
                        assert read_answer(connection).status_code == 429
                        turned_away.append(connection)
            return len(turned_away) >= 3

        wait_until(read_refusals)
        accepted = [connection for connection in connections if connection not in turned_away]
        answers = []
        for connection in accepted:
            connection.settimeout(60)
            connection.sendall(rest)
            answers.append(read_answer(connection).status_code)
        assert answers.count(401) >= 3
        assert set(answers) <= {401, 429}
    assert server.post_signed("/registermodelhash", {"hash": "a" * 64}).status_code == 200


def test_an_upload_that_stalls_is_cut(make_live: Callable[..., Live]) -> None:
    """Whoever sends nothing for long, or nearly nothing, is cut, and its bytes go."""
    server = make_live(uploads__stall_timeout_s=1.0)
    body = form(part(DATA))
    request = head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=len(body)) + body
    with server.connect(server.upload_url) as connection:
        connection.sendall(request[: len(request) // 2])
        wait_until(lambda: server.files("incoming"))
        connection.settimeout(10)
        assert read_to_end(connection) == b""
    wait_until(lambda: server.files() == [], 10)
    with server.connect(server.upload_url) as connection:
        connection.sendall(request[:200])
        deadline = time.monotonic() + 15
        connection.settimeout(0.2)
        for number in range(200, len(request)):
            assert time.monotonic() < deadline, "one byte in 0.2 s was let through"
            try:
                connection.sendall(request[number : number + 1])
                if not connection.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    wait_until(lambda: server.files() == [], 10)
    assert server.upload(DATA).content == UPLOADED
    assert "Traceback" not in server.log


def test_too_many_uploads_at_a_time_are_429(make_live: Callable[..., Live]) -> None:
    """Who comes while all places are taken is told when to come again; a place is free whatever became of it."""
    server = make_live(uploads__max_concurrent=1)
    body = form(part(DATA))
    request = head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=len(body)) + body
    with server.connect(server.upload_url) as connection:
        connection.sendall(request[: len(request) // 2])
        wait_until(lambda: server.files("incoming"))
        response = server.upload(DATA)
        refused(response, 429, "queue_full")
        assert int(response.headers["Retry-After"]) > 0
        refused(post_form(server, body, url=server.url), 429, "queue_full")
        connection.sendall(request[len(request) // 2 :])
        assert read_answer(connection).content == UPLOADED
    for name in BAD_FORMS:
        refused(send_bad(server, name), 400, "bad_request")
    assert server.upload(DATA).content == UPLOADED
    assert server.files("incoming") == []
    assert len(server.files("temp")) == 2
    assert "Traceback" not in server.log


def test_a_server_that_is_going_down_takes_no_upload(make_live: Callable[..., Live]) -> None:
    """While it finishes what it has, it tells the others to come again."""
    server = make_live()
    body = form(part(DATA))
    request = head("POST", UPLOADS, Content_Type=MULTIPART, Content_Length=len(body)) + body
    with server.connect(server.upload_url) as first, server.connect(server.upload_url) as second:
        second.sendall(head("GET", "/test"))
        assert read_answer(second).status_code == 200
        first.sendall(request[: len(request) // 2])
        wait_until(lambda: server.files("incoming"))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.log)
        second.sendall(request)
        response = read_answer(second)
        refused(response, 503, "unavailable")
        assert int(response.headers["Retry-After"]) > 0
        first.sendall(request[len(request) // 2 :])
        assert read_answer(first).content == UPLOADED
    assert server.stop() == 0
    assert len(server.files()) == 1
    assert "Traceback" not in server.log


# --- routes, tokens, and what is no HTTP -----------------------------------------------------------------------


@keeps_nothing
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    "path", ["/nothing", "/test/", "/models/a/b", "//", "/..%2f..%2fetc%2fpasswd", "/%00", "/%ff%fe", "/static/x"]
)
@pytest.mark.parametrize("url", ["url", "upload_url"])
def test_an_unknown_route_is_404(server: Live, url: str, path: str, method: str) -> None:
    """What is no route is answered in JSON like every error."""
    refused(server.http.request(method, getattr(server, url) + path), 404, "not_found")


@keeps_nothing
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/registermodelhash"),
        ("GET", "/prediction"),
        ("GET", UPLOADS),
        ("GET", "/uploadmodel"),
        ("POST", "/test"),
        ("POST", "/hashmodels"),
        ("POST", "/models"),
        ("DELETE", "/models"),
        ("PUT", f"/models/{UNKNOWN}"),
        ("BREW", "/test"),
        ("OPTIONS", "/prediction"),
    ],
)
def test_a_wrong_method_is_405(server: Live, method: str, path: str) -> None:
    """A route that is there, asked in another way, says so."""
    refused(server.http.request(method, server.url + path), 405, "method_not_allowed")


@keeps_nothing
def test_a_method_that_is_none_ends_the_connection_and_says_so(server: Live) -> None:
    """Nobody sends the next request into a connection that is being closed."""
    with server.connect() as connection:
        connection.sendall(head("BREW", "/test"))
        response = read_answer(connection)
        refused(response, 405, "method_not_allowed")
        assert response.headers["Connection"] == "close"
        assert read_to_end(connection) == b""


@keeps_nothing
def test_the_upload_port_serves_only_uploads(server: Live) -> None:
    """What needs the API port is not on the other."""
    for path in ("/prediction", "/registermodelhash", "/hashmodels", "/models"):
        refused(server.http.get(server.upload_url + path), 404, "not_found")


def bearer(value: Any, token: str = TOKEN, salt: bytes = REQUEST_SALT) -> str:
    """Return an Authorization header."""
    kwargs = {"digest_method": hashlib.sha256}
    serializer = itsdangerous.URLSafeTimedSerializer(token, salt=salt, signer_kwargs=kwargs)
    return f"Bearer {serializer.dumps(value)}"


def get_models(**claims: Any) -> dict[str, Any]:
    """Return what a token says that is good for GET /models, with some of it changed."""
    right = {"aud": "spectrogram-predictor", "method": "GET", "path": "/models", "exp": int(time.time()) + 300}
    return {**right, "nonce": uuid.uuid4().hex, **claims}


@keeps_nothing
def test_a_good_token_is_let_in(server: Live) -> None:
    """The tokens of these tests are otherwise right."""
    headers = {"Authorization": bearer(get_models())}
    assert server.http.get(f"{server.url}/models", headers=headers).status_code == 200


@keeps_nothing
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer garbage", "Bearer ÿþ", "Basic dXNlcjpwYXNz", TOKEN, f"Bearer {TOKEN}"],
)
@pytest.mark.parametrize("path", ["/models", f"/models/{UNKNOWN}"])
def test_without_a_token_models_are_401(server: Live, path: str, header: str | None) -> None:
    """Who shows nothing that can be read is asked for a token."""
    headers = {"Authorization": header.encode("latin-1")} if header is not None else {}
    response = server.http.get(server.url + path, headers=headers)
    refused(response, 401, "bad_signature")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@keeps_nothing
@pytest.mark.parametrize(
    "header",
    [
        bearer(get_models(exp=int(time.time()) - 300)),
        bearer(get_models(exp=int(time.time()) + 3600)),
        bearer(get_models(), token="another token"),
        bearer(get_models(), salt=b"another salt"),
        bearer(get_models())[:-1],
        bearer(get_models(path=f"/models/{UNKNOWN}")),
        bearer(get_models(method="POST")),
        bearer({}),
        bearer(["GET", "/models"]),
        bearer(None),
        "Bearer a.b.c",
    ],
    ids=["expired", "early", "forged", "salt", "cut", "path", "method", "nothing", "list", "null", "dots"],
)
def test_with_a_wrong_token_models_are_403(server: Live, header: str) -> None:
    """A token is good for one method and path, for a while, and only if it is ours."""
    response = server.http.get(f"{server.url}/models", headers={"Authorization": header})
    refused(response, 403, "bad_signature")


@keeps_nothing
@pytest.mark.parametrize("name", ["x", "a" * 63, "%00" * 64, "..%2f..%2fetc%2fpasswd", "１" * 64])
def test_a_model_that_is_no_hash_is_400(server: Live, name: str) -> None:
    """Only a hash names a model."""
    path = httpx.URL(f"{server.url}/models/{name}").raw_path.decode()
    headers = {"Authorization": bearer(get_models(path=path))}
    refused(server.http.get(f"{server.url}/models/{name}", headers=headers), 400, "bad_request")


@keeps_nothing
@pytest.mark.parametrize("url", ["url", "upload_url"])
@pytest.mark.parametrize("end", [finish, reset], ids=["fin", "rst"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GET /test HTTP/1.1\r\nHost: localhost\r\n\r\n",
        noise(5000),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise(200),
        b"\0" * 100_000,
    ],
    ids=["nothing", "plain http", "noise", "broken hello", "zeros"],
)
def test_what_is_no_tls_is_no_harm(server: Live, url: str, end: Callable[[Any], None], data: bytes) -> None:
    """Whoever does not speak TLS is cut off."""
    target = httpx.URL(getattr(server, url))
    connection = socket.create_connection((target.host, target.port), timeout=10)
    try:
        connection.sendall(data)
        end(connection)
    except OSError:
        connection.close()  # the server was faster


@keeps_nothing
@pytest.mark.parametrize("url", ["url", "upload_url"])
@pytest.mark.parametrize(
    "data",
    [
        b"\0\xff\r\n\r\n",
        noise(5000) + b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /test\r\n\r\n",
        b"GET /test HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /test HTTP/1.1\r\n" + b"X-A: b\r\n" * 50_000 + b"\r\n",
        b"GET /test HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /test HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        head("POST", "/registermodelhash", Transfer_Encoding="chunked") + b"zz\r\nnothing\r\n0\r\n\r\n",
        head("POST", UPLOADS, Content_Type=MULTIPART, Transfer_Encoding="chunked") + b"zz\r\nx\r\n0\r\n\r\n",
        head("POST", UPLOADS, Content_Type=MULTIPART, Transfer_Encoding="chunked", Content_Length=5) + b"hello",
        head("POST", UPLOADS, Content_Type=MULTIPART, Transfer_Encoding="gzip") + b"hello",
    ],
    ids=[
        "zero",
        "noise",
        "method only",
        "no version",
        "version",
        "endless line",
        "endless headers",
        "no colon",
        "two hosts",
        "chunk size",
        "upload chunk size",
        "two lengths",
        "encoding",
    ],
)
def test_what_is_no_http_is_no_harm(server: Live, url: str, data: bytes) -> None:
    """Garbage over good TLS is refused, or the connection ends."""
    with server.connect(getattr(server, url)) as connection:
        try:
            connection.sendall(data)
        except (ConnectionError, ssl.SSLError):
            return  # cut in the middle of it
        assert re.match(rb"$|HTTP/1\.1 4\d\d ", read_to_end(connection))


def test_the_log_has_no_stack_trace_and_no_secret(server: Live, log_start: int) -> None:
    """After all of this the log is for people, and safe to show; this test comes last."""
    refused(server.http.post(f"{server.url}/prediction", content=b"{}"), 401, "bad_signature")
    said = server.log[log_start:]
    assert "POST /prediction" in said
    assert "Traceback" not in said
    assert TOKEN not in said
    assert "Bearer" not in said
