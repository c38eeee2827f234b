"""tus 1.0.0 at the upload port: each rule of the protocol, and of ours."""

import contextlib
import email.utils
import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import itsdangerous
import pytest

from spectrogram_predictor.partials import HANDOVER_S
from tests.conftest import padded, sha256
from tests.live import Live, wait_until
from tests.tus import MEDIA_TYPE, Tus, bearer, checksum, metadata

MIB = 2**20


@pytest.fixture
def tus(live: Live) -> Tus:
    return Tus(live)


def noise(size: int = 3 * MIB) -> bytes:
    """Bytes that no other test sends."""
    return random.Random(os.urandom(8)).randbytes(size)


def test_options_tell_what_can_be_done(tus: Tus) -> None:
    """Version, extensions, the largest size and the checksums; without being asked for a version."""
    for path in ("/uploads", f"/uploads/{'0' * 32}"):
        answer = tus.request("OPTIONS", path, Tus_Resumable=None)
        assert answer.status_code == 204
        assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
        assert set(answer.headers["Tus-Extension"].split(",")) == {
            "creation",
            "creation-with-upload",
            "expiration",
            "checksum",
            "termination",
        }
        assert answer.headers["Tus-Max-Size"] == str(16 * 2**30)
        assert answer.headers["Tus-Checksum-Algorithm"] == "sha1,sha256"


def test_a_model_is_promoted_with_its_last_byte(tus: Tus, two_input_model: Path, tmp_path: Path) -> None:
    """In any pieces; the last answer says the state and the digest, and so does HEAD later."""
    data = padded(two_input_model, tmp_path / "model.h5").read_bytes()
    path = tus.create(data)
    assert tus.offset(path) == 0
    for start in range(0, len(data), 20_000):
        answer = tus.patch(path, start, data[start : start + 20_000])
        assert answer.status_code == 204
        assert answer.headers["Upload-Offset"] == str(min(start + 20_000, len(data)))
        expires = email.utils.parsedate_to_datetime(answer.headers["Upload-Expires"]).timestamp()
        assert 86400 - 60 < expires - time.time() < 86400 + 60
    for told in (answer, tus.request("HEAD", path)):
        assert told.headers["X-Model-State"] == "promoted"
        assert told.headers["X-Model-Digest"] == sha256(data)
    assert told.headers["Upload-Offset"] == told.headers["Upload-Length"] == str(len(data))
    assert told.headers["Cache-Control"] == "no-store"
    assert f"models/{sha256(data)}.h5" in tus.live.files("models")
    assert [name.rpartition("/")[2] for name in tus.live.files(path.replace("/uploads", "incoming"))] == ["info"]


def test_a_model_comes_with_its_registration_and_its_bytes_in_one_request(
    tus: Tus, two_input_model: Path, tmp_path: Path
) -> None:
    """The metadata has the signed registration, the body all of the model."""
    data = padded(two_input_model, tmp_path / "model.h5").read_bytes()
    registration = itsdangerous.Serializer(tus.live.token).dumps(
        {"hash": sha256(data), "labels": list("abcdefghij")}
    )
    answer = tus.post(data, data, Upload_Metadata=metadata(registration=registration))
    assert answer.status_code == 201
    assert answer.headers["Upload-Offset"] == str(len(data))
    assert answer.headers["X-Model-State"] == "promoted"
    with tus.live.client() as client:
        assert client.model(sha256(data))["labels"] == list("abcdefghij")


def test_a_creation_that_is_sent_again_is_the_same(tus: Tus) -> None:
    """Its answer may have got lost, and the client cannot sign another; for anything else the token is used."""
    data = noise(1000)
    tus.live.post_signed("/registermodelhash", {"hash": hashlib.sha256(data).hexdigest()})
    once = {"Authorization": bearer(tus.live.token, "POST", "/uploads")}
    path = tus.post(data, **once).headers["Location"]
    assert tus.patch(path, 0, data[:400]).status_code == 204
    again = tus.post(data, **once)
    assert (again.status_code, again.headers["Location"]) == (201, path)
    assert tus.offset(path) == 400
    assert tus.post(data, **once, Upload_Length="999").status_code == 403
    assert tus.post(data, **once, Upload_Metadata=metadata(sha256="0" * 64)).status_code == 403
    assert tus.request("DELETE", path).status_code == 204
    # Once it has ended: a client that begins it again and again would send all of a wrong file each time.
    assert tus.post(data, **once).status_code == 410
    assert tus.live.files(path.replace("/uploads", "incoming")) == []


def test_a_creation_with_bytes_that_is_sent_again_goes_on(tus: Tus) -> None:
    """What came of them, or of others since, is not taken twice; the answer says how far it is."""
    data = noise(1000)
    registration = itsdangerous.Serializer(tus.live.token).dumps({"hash": hashlib.sha256(data).hexdigest()})
    once = {"Authorization": bearer(tus.live.token, "POST", "/uploads")}
    once["Upload_Metadata"] = metadata(registration=registration)
    first = tus.post(data, data[:400], **once)
    assert (first.status_code, first.headers["Upload-Offset"]) == (201, "400")
    for sent, offset in ((300, 400), (600, 600), (1000, 1000), (1000, 1000)):
        again = tus.post(data, data[:sent], **once)
        assert (again.status_code, again.headers["Upload-Offset"]) == (201, str(offset))
        assert again.headers["Location"] == first.headers["Location"]
        # Not registered anew by that, which would allow another try.
        assert again.headers.get("X-Model-State") == ("rejected" if sent == 1000 else None)


def test_a_creation_that_is_refused_for_its_bytes_leaves_nothing(tus: Tus) -> None:
    """More than was said, or a checksum that cannot be read: nobody would be told where it is."""
    data = noise(1000)
    tus.live.post_signed("/registermodelhash", {"hash": hashlib.sha256(data).hexdigest()})
    before = tus.live.files("incoming")
    assert tus.post(data, data + b"x").status_code == 413
    assert tus.post(data, data, Upload_Checksum="md5 AAAA").status_code == 400
    assert tus.live.files("incoming") == before


@pytest.mark.parametrize("name", ["Upload_Concat", "Upload_Defer_Length"])
def test_extensions_that_are_not_offered_are_refused(tus: Tus, name: str) -> None:
    """400: what the client goes on to do would not be understood."""
    data = noise(100)
    tus.create(data)
    assert tus.post(data, **{name: "1"}).status_code == 400


@pytest.mark.parametrize("method", ["OPTIONS", "HEAD", "DELETE"])
def test_what_needs_no_body_takes_none(tus: Tus, method: str) -> None:
    """Only what is sent for an upload may be large."""
    path = tus.create(noise(1000))
    assert tus.request(method, path, iter([noise(2**18)])).status_code == 413
    assert tus.offset(path) == 0


def test_a_method_is_overridden_by_any_of_the_route(tus: Tus) -> None:
    """Also by HEAD, whose answers have no body; others are 405, and what is no GET or POST stays what it is."""
    path = tus.create(noise(1000))
    for upload, status in ((path, 200), (f"/uploads/{'0' * 32}", 410)):
        answer = tus.request("POST", upload, X_HTTP_Method_Override="HEAD")
        assert (answer.status_code, answer.content) == (status, b"")
    assert tus.request("GET", "/uploads", X_HTTP_Method_Override="OPTIONS").headers["Tus-Extension"]
    assert tus.request("POST", path, X_HTTP_Method_Override="GET").json()["code"] == "method_not_allowed"
    assert tus.request("HEAD", path, X_HTTP_Method_Override="DELETE").status_code == 200


def test_what_is_no_model_is_said_to_be_rejected(tus: Tus) -> None:
    """All bytes came, and they are the right ones; the state says that they are no model."""
    data = noise()
    path = tus.create(data)
    answer = tus.patch(path, 0, data)
    assert (answer.status_code, answer.headers["X-Model-State"]) == (204, "rejected")
    # Until it is registered anew: then it may come again, from its first byte.
    assert tus.request("HEAD", path).headers["X-Model-State"] == "rejected"
    assert tus.live.post_signed("/registermodelhash", {"hash": hashlib.sha256(data).hexdigest()}).is_success
    assert tus.request("HEAD", path).status_code == 410


def test_a_wrong_digest_keeps_nothing(tus: Tus) -> None:
    """409, and the upload is gone."""
    data = noise()
    path = tus.create(data)
    assert tus.patch(path, 0, data[:MIB]).status_code == 204
    answer = tus.patch(path, MIB, data[MIB:-1] + bytes([data[-1] ^ 1]))
    assert (answer.status_code, answer.json()["code"]) == (409, "digest_mismatch")
    assert tus.request("HEAD", path).status_code == 410
    assert tus.live.files(path.replace("/uploads", "incoming")) == []
    assert tus.live.files("temp") == []


def test_only_the_next_byte_is_taken(tus: Tus) -> None:
    """Any other offset is 409, and nothing of that request is kept."""
    data = noise()
    path = tus.create(data)
    assert tus.patch(path, 0, data[:1000]).status_code == 204
    for offset in (0, 999, 1001, len(data) - 1, len(data)):
        answer = tus.patch(path, offset, data[:10])
        assert (answer.status_code, answer.json()["code"]) == (409, "offset_mismatch")
    assert tus.offset(path) == 1000


def test_no_more_is_taken_than_was_said(tus: Tus) -> None:
    """413, whether the request says how long it is or not."""
    data = noise(1000)
    path = tus.create(data)
    assert tus.patch(path, 0, data + b"x").status_code == 413
    assert tus.patch(path, 0, iter([data, b"x"])).status_code == 413
    assert tus.offset(path) <= 999


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_chunk_with_a_wrong_checksum_is_discarded(tus: Tus, algorithm: str) -> None:
    """460, and the offset is as it was; the same chunk with the right one is taken."""
    data = noise(20 * MIB)
    path = tus.create(data)
    assert tus.patch(path, 0, data[:MIB], Upload_Checksum=checksum(algorithm, data[:MIB])).status_code == 204
    rest = data[MIB:]
    answer = tus.patch(path, MIB, rest[:-1] + bytes([rest[-1] ^ 1]), Upload_Checksum=checksum(algorithm, rest))
    assert (answer.status_code, answer.json()["code"]) == (460, "checksum_mismatch")
    assert tus.offset(path) == MIB
    answer = tus.patch(path, MIB, rest, Upload_Checksum=checksum(algorithm, rest))
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, str(len(data)))


def test_a_chunk_with_a_checksum_counts_whole_or_not_at_all(tus: Tus) -> None:
    """While it arrives, and when it is cut, the offset is as it was."""
    data = noise()
    path = tus.create(data)
    with sending(tus, path, 0, data, Upload_Checksum=checksum("sha1", data)):
        assert tus.offset(path) == 0
    assert tus.offset(path) == 0


@pytest.mark.parametrize("value", ["md5 AAAA", "sha1 !", "sha1"])
def test_a_checksum_that_cannot_be_read_is_refused(tus: Tus, value: str) -> None:
    """400 for another algorithm, and for what is not base64; a checksum that is missing is a wrong one."""
    data = noise(100)
    answer = tus.patch(tus.create(data), 0, data, Upload_Checksum=value)
    assert answer.status_code == (460 if value == "sha1" else 400)


def test_an_upload_can_be_ended(tus: Tus) -> None:
    """204; then there is no such upload, and no file of it."""
    data = noise()
    path = tus.create(data)
    tus.patch(path, 0, data[:MIB])
    assert tus.request("DELETE", path).status_code == 204
    for answer in (tus.request("HEAD", path), tus.patch(path, MIB, data[MIB:]), tus.request("DELETE", path)):
        assert answer.status_code == 410
        assert answer.headers["Tus-Resumable"] == "1.0.0"
    assert tus.live.files(path.replace("/uploads", "incoming")) == []


@pytest.mark.parametrize("name", ["0" * 32, "a", "..%2Fmodels", "0" * 31 + "/"])
def test_an_upload_that_never_was_is_gone(tus: Tus, name: str) -> None:
    """410, or no route."""
    assert tus.request("HEAD", f"/uploads/{name}").status_code in (404, 410)


def test_to_begin_takes_the_token(tus: Tus) -> None:
    """401 without one, 403 with one for something else; going on takes none."""
    data = noise(100)
    assert tus.post(data, Authorization=None).status_code == 401
    assert tus.post(data, Authorization=bearer("another token", "POST", "/uploads")).status_code == 403
    assert tus.post(data, Authorization=bearer(tus.live.token, "GET", "/models")).status_code == 403


def test_what_nobody_registered_is_refused_before_it_comes(tus: Tus) -> None:
    """403, and 400 for what is no digest."""
    data = noise(100)
    answer = tus.post(data)
    assert (answer.status_code, answer.json()["code"]) == (403, "not_registered")
    for wrong in ("", "sha256", metadata(sha256="abc"), "sha256 !", metadata(filename="x")):
        assert tus.post(data, Upload_Metadata=wrong).status_code == 400
    wrong = metadata(sha256=sha256(data), registration="not signed")
    assert tus.post(data, Upload_Metadata=wrong).status_code == 401
    another = itsdangerous.Serializer(tus.live.token).dumps({"hash": "0" * 64})
    assert tus.post(data, Upload_Metadata=metadata(sha256=sha256(data), registration=another)).status_code == 403


def test_the_size_is_said_at_the_beginning(tus: Tus) -> None:
    """400 without it, and for none; 413 for too much."""
    data = noise(100)
    tus.create(data)
    for length in (None, "0", "-1", "1e3", b"\xb2", ""):
        assert tus.post(data, Upload_Length=length).status_code == 400
    assert tus.post(data, Upload_Length=None, Upload_Defer_Length="1").status_code == 400
    assert tus.post(data, Upload_Length=str(16 * 2**30 + 1)).status_code == 413


def test_other_versions_and_media_types_are_refused(tus: Tus) -> None:
    """412 with the version that there is; 415."""
    data = noise(100)
    path = tus.create(data)
    for version in (None, "0.2.2"):
        answer = tus.patch(path, 0, data, Tus_Resumable=version)
        assert (answer.status_code, answer.headers["Tus-Version"]) == (412, "1.0.0")
    assert tus.patch(path, 0, data, Content_Type="application/octet-stream").status_code == 415
    assert tus.patch(path, 0, data, Upload_Offset=None).status_code == 400
    assert tus.request("GET", path).status_code == 405
    assert tus.offset(path) == 0


def test_a_client_that_knows_only_post_can_send(tus: Tus) -> None:
    """Another method in a header stands for it."""
    data = noise(1000)
    path = tus.create(data)
    headers = {"Content_Type": MEDIA_TYPE, "Upload_Offset": "0"}
    answer = tus.request("POST", path, data[:500], X_HTTP_Method_Override="PATCH", **headers)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "500")
    assert tus.request("POST", path, X_HTTP_Method_Override="DELETE").status_code == 204
    assert tus.request("HEAD", path).status_code == 410


@contextlib.contextmanager
def sending(tus: Tus, path: str, offset: int, data: bytes, **headers: str) -> Iterator[Any]:
    """Send some bytes of an upload that says it has all of them, and keep the connection open."""
    lines = [f"PATCH {path} HTTP/1.1", "Host: here", "Tus-Resumable: 1.0.0", f"Content-Type: {MEDIA_TYPE}"]
    lines += [f"Upload-Offset: {offset}", f"Content-Length: {len(data)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    with tus.live.connect(tus.live.upload_url) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + data[: len(data) // 2])
        yield connection


def test_an_offset_is_told_at_once_though_a_dead_connection_hangs(tus: Tus) -> None:
    """What came over it counts, and whoever asked goes on from there; the old connection adds nothing."""
    data = noise(10 * MIB)
    path = tus.create(data)
    folder = tus.live.storage / path.replace("/uploads", "incoming")
    with sending(tus, path, 0, data) as dead:
        wait_until(lambda: (folder / "data").stat().st_size == len(data) // 2)
        began = time.monotonic()
        offset = tus.offset(path)
        assert time.monotonic() - began < HANDOVER_S
        assert offset == len(data) // 2
        dead.sendall(b"x" * 1000)
        assert tus.offset(path) == offset
        assert dead.recv(100).startswith(b"HTTP/1.1 409 ")
    answer = tus.patch(path, offset, data[offset:])
    assert (answer.status_code, answer.headers["X-Model-Digest"]) == (204, sha256(data))


def test_of_two_that_send_the_newer_one_wins(tus: Tus) -> None:
    """Each at its time; what the older one goes on to send is nowhere."""
    data = noise(10 * MIB)
    path = tus.create(data)
    folder = tus.live.storage / path.replace("/uploads", "incoming")
    with sending(tus, path, 0, data) as older:
        wait_until(lambda: (folder / "data").stat().st_size == len(data) // 2)
        with sending(tus, path, len(data) // 2, data[len(data) // 2 :]) as newer:
            wait_until(lambda: (folder / "data").stat().st_size == len(data) // 4 * 3)
            older.sendall(b"x" * 1000)
            assert older.recv(100).startswith(b"HTTP/1.1 409 ")
            newer.sendall(data[len(data) // 4 * 3 :])
            assert newer.recv(100).startswith(b"HTTP/1.1 204 ")
    assert tus.request("HEAD", path).headers["X-Model-Digest"] == sha256(data)


def test_what_came_before_a_cut_counts(tus: Tus) -> None:
    """It is told, durable, and need not come again."""
    data = noise(10 * MIB)
    path = tus.create(data)
    with sending(tus, path, 0, data):
        folder = tus.live.storage / path.replace("/uploads", "incoming")
        wait_until(lambda: (folder / "data").stat().st_size == len(data) // 2)
    assert tus.offset(path) == len(data) // 2
    assert tus.patch(path, len(data) // 2, data[len(data) // 2 :]).headers["X-Model-Digest"] == sha256(data)


def test_an_empty_request_changes_nothing(tus: Tus) -> None:
    """204 with the offset."""
    data = noise(1000)
    path = tus.create(data)
    answer = tus.patch(path, 0, b"")
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (204, "0")


def test_the_metadata_is_told_as_it_was_sent(tus: Tus) -> None:
    """Also what we have no use for."""
    data = noise(1000)
    told = tus.request("HEAD", tus.create(data)).headers["Upload-Metadata"]
    assert told == metadata(sha256=hashlib.sha256(data).hexdigest(), filename="model.h5")


def test_the_location_is_where_the_client_found_the_server(tus: Tus) -> None:
    """A path, for whatever name and port it has for it."""
    path = tus.create(noise(10))
    assert httpx.URL(path).is_relative_url


@pytest.fixture
def two(make_live: Callable[..., Live]) -> tuple[Tus, Tus]:
    """Two servers on one folder."""
    return Tus(make_live()), Tus(make_live())


def test_of_two_servers_the_one_that_was_asked_last_wins(two: tuple[Tus, Tus]) -> None:
    """While the other one's client still sends: it is told, and none of its bytes get between the newer ones."""
    a, b = two
    data = noise(10 * MIB)
    path = a.create(data)
    with sending(a, path, 0, data) as older:
        wait_until(lambda: b.offset(path) == len(data) // 2)
        assert b.patch(path, len(data) // 2, data[len(data) // 2 : -1000]).status_code == 204
        older.sendall(b"x" * 1000)
        assert older.recv(100).startswith(b"HTTP/1.1 409 ")
    assert a.offset(path) == b.offset(path) == len(data) - 1000
    assert a.patch(path, len(data) - 1000, data[-1000:]).headers["X-Model-Digest"] == sha256(data)
    assert b.offset(path) == len(data)


def test_who_is_refused_twice_is_answered_once(two: tuple[Tus, Tus]) -> None:
    """Another one comes while an upload is being opened: both that and the opening fail."""
    a, b = two
    data = noise(10 * MIB)
    path = a.create(data)
    claim = a.live.storage / path.replace("/uploads", "incoming") / "claim"
    with sending(a, path, 0, data):
        wait_until(claim.exists)
        claimed = claim.read_bytes()
        # Its lock stays, so that whoever comes next waits for it.
        os.kill(a.live.process.pid, signal.SIGSTOP)
        # As much as sockets take while nobody reads.
        with sending(b, path, 0, data[: MIB // 2]) as older:
            wait_until(lambda: claim.read_bytes() != claimed)
            assert b.patch(path, 0, data[:10]).status_code == 423
            assert older.recv(100).startswith(b"HTTP/1.1 409 ")
        a.live.kill()
    assert "a request failed" not in b.live.log


def test_a_server_that_hangs_keeps_its_uploads_until_it_is_gone(two: tuple[Tus, Tus]) -> None:
    """423 from the other one, which tells the offset all the same; once it is killed, the other one goes on."""
    a, b = two
    data = noise(10 * MIB)
    path = a.create(data)
    with sending(a, path, 0, data):
        wait_until(lambda: b.offset(path) == len(data) // 2)
        os.kill(a.live.process.pid, signal.SIGSTOP)
        answer = b.patch(path, len(data) // 2, data[len(data) // 2 :])
        assert (answer.status_code, answer.json()["code"]) == (423, "upload_locked")
        assert answer.headers["Retry-After"] == "1"
        assert b.offset(path) == len(data) // 2
        a.live.kill()
    answer = b.patch(path, len(data) // 2, data[len(data) // 2 :])
    assert (answer.status_code, answer.headers["X-Model-Digest"]) == (204, sha256(data))
