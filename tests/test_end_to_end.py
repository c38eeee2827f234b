"""Register, upload, promote, predict: a real server, real ports, real TLS, real models."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.backends.s3 import S3Server
from tests.conftest import TOKEN, b64, build_model, csv_row, sha256
from tests.live import Live, LiveOnBucket, wait_until


@pytest.fixture(scope="module")
def live_on_bucket(tmp_path_factory: pytest.TempPathFactory, certs: Path, s3_server: S3Server) -> Iterator[Live]:
    server = LiveOnBucket(tmp_path_factory.mktemp("live"), certs, TOKEN, s3_server)
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["live", "live_on_bucket"])
def live(request: pytest.FixtureRequest) -> Live:
    """A server on a folder, and one on a bucket."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Live)
    return found


def publish(live: Live, model: Path) -> str:
    """Bring a model in the way the document does; return its digest."""
    digest = sha256(model)
    assert wait_until(lambda: live.http.get(f"{live.url}/readyz").status_code == 200)
    assert live.post_signed("/registermodelhash", {"hash": digest}).content == b'{"msg":"model hash stored"}'
    answer = live.upload(model.read_bytes())
    assert answer.content == b'{"message":"file uploaded!","uploaded":true}'
    live.promote(digest)
    return digest


def test_a_registered_upload_is_promoted_and_answers(live: Live, two_input_model: Path, song: bytes) -> None:
    """The whole path: what was registered and uploaded answers with its probabilities."""
    digest = publish(live, two_input_model)
    question = {"model_hash": digest, "ext": "wav", "data": b64(song), "csv": b64(csv_row())}
    answer = live.post_signed("/prediction", question)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    array = json.loads(answer.content)["array"]
    assert answer.content == json.dumps({"array": array}, separators=(",", ":")).encode()
    assert np.shape(array) == (1, 10)
    assert np.sum(array) == pytest.approx(1, abs=1e-5)
    assert f"models/{digest}.h5" in live.files("models")
    assert live.files("temp") == live.files("incoming") == []


def golden(song: bytes, expected: Any, **fields: Any) -> dict[str, Any]:
    return {"song": b64(song), "ext": "wav", "expected": expected, **fields}


Asked = tuple[dict[str, Any], Any]


@pytest.fixture
def asked(live: Live, two_input_model: Path, song: bytes) -> Iterator[Asked]:
    """A question to a model, and its answer; the model's registration is as it was afterwards."""
    digest = sha256(two_input_model)
    with live.client() as client:
        client.publish(two_input_model)
    question = {"model_hash": digest, "ext": "wav", "data": b64(song), "csv": b64(csv_row())}
    yield question, live.post_signed("/prediction", question).json()["array"]
    assert live.post_signed("/registermodelhash", {"hash": digest, "labels": [], "golden": []}).is_success


def test_an_answer_says_what_gave_it(live: Live, asked: Asked) -> None:
    """In headers always, in the body when asked; the plain body stays as it was."""
    question, array = asked
    digest = question["model_hash"]
    labels = [f"label {number}" for number in range(10)]
    assert live.post_signed("/registermodelhash", {"hash": digest, "labels": labels}).status_code == 200
    for plain in (question, {**question, "detail": False}):
        answer = live.post_signed("/prediction", plain)
        assert answer.content == json.dumps({"array": array}, separators=(",", ":")).encode()
        assert answer.headers["X-Model-Digest"] == digest
        assert "X-Recipe-Digest" not in answer.headers
    answer = live.post_signed("/prediction", {**question, "detail": True})
    assert answer.json() == {"array": array, "labels": labels, "model": digest, "recipe": None}
    for wrong in ("yes", 1, None):
        assert live.post_signed("/prediction", {**question, "detail": wrong}).status_code == 400


def test_a_golden_keeps_a_model_out(live: Live, tmp_path: Path, song: bytes, asked: Asked) -> None:
    """A model that does not answer as it must is rejected, with the difference; as it must, it is promoted."""
    question, array = asked
    build_model(["features", "picture"]).save(tmp_path / "same.keras")
    model = (tmp_path / "same.keras").read_bytes()
    question["model_hash"] = digest = sha256(model)
    off = [[array[0][0] + 0.12, *array[0][1:]]]
    goldens = [golden(song, array, csv=question["csv"]), golden(song, off, csv=question["csv"])]
    assert live.post_signed("/registermodelhash", {"hash": digest, "golden": goldens}).status_code == 200
    assert live.upload(model).status_code == 200
    assert live.http.get(f"{live.url}/hashmodels").json() == {"hashes": []}
    with live.client() as client:
        wait_until(lambda: client.model(digest)["state"] == "rejected")
        state = client.model(digest)
        assert state["golden"] == 2
        assert re.match(r"golden 2: largest difference 0\.12, tolerance 0\.001", state["reason"])
        assert live.post_signed("/registermodelhash", {"hash": digest, "golden": goldens[:1]}).status_code == 200
        live.upload(model)
        live.promote(digest)
        assert client.model(digest)["golden"] == 1
    assert live.post_signed("/prediction", question).json()["array"] == array


def test_a_served_model_goes_on_when_a_new_registration_does_not_pass(
    live: Live, asked: Asked, song: bytes
) -> None:
    """The reason is the answer; one that passes holds at once."""
    question, array = asked
    digest = question["model_hash"]
    off = [array[0][0] - 0.12, *array[0][1:]]
    for goldens, status in ((off, 422), (array[0][1:], 422), (array, 200)):
        fields = {"hash": digest, "golden": [golden(song, goldens, csv=question["csv"])]}
        answer = live.post_signed("/registermodelhash", fields)
        assert answer.status_code == status, answer.content
        if status != 200:
            assert answer.json()["msg"].startswith("the model is served as it was registered before: golden 1: ")
            assert "golden" not in stored(live, digest)
        assert live.post_signed("/prediction", question).json()["array"] == array
    assert len(stored(live, digest)["golden"]) == 1


def stored(live: Live, digest: str) -> dict[str, Any]:
    """Return a registration as the storage has it."""
    fields: dict[str, Any] = json.loads(live.read(f"registered/{digest}.json"))
    return fields


def test_a_worker_whose_model_answers_otherwise_does_not_answer(live: Live, asked: Asked, song: bytes) -> None:
    """503, and an error in the log; registered anew, it is served again."""
    question, array = asked
    digest = question["model_hash"]
    fields = {"hash": digest, "golden": [golden(song, array, csv=question["csv"])]}
    assert live.post_signed("/registermodelhash", fields).status_code == 200
    good = stored(live, digest)
    bad = json.loads(json.dumps(good))
    bad["golden"][0]["expected"][0][0] += 0.12
    began = len(live.log)
    live.write(f"registered/{digest}.json", json.dumps(bad).encode())
    for _ in range(2):
        answer = live.post_signed("/prediction", question)
        assert (answer.status_code, answer.json()["code"]) == (503, "out_of_service")
        assert "golden 1: largest difference 0.12" in answer.json()["msg"]
        assert answer.headers["Retry-After"]

    def errors() -> list[str]:
        return [line for line in live.log[began:].splitlines() if '"level": "error"' in line]

    # The worker says it, and what it says comes beside its answers.
    assert len(wait_until(errors)) == 1
    assert digest in errors()[0]
    assert live.post_signed("/registermodelhash", fields).status_code == 200
    assert stored(live, digest) == good
    assert live.post_signed("/prediction", question).json()["array"] == array
    assert len(errors()) == 1
