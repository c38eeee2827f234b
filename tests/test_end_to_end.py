"""Register, upload, promote, predict: a real server, real ports, real TLS, real models."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import b64, csv_row, sha256
from tests.live import Live


def publish(live: Live, model: Path) -> str:
    """Bring a model in the way the document does; return its digest."""
    digest = sha256(model)
    assert live.post_signed("/registermodelhash", {"hash": digest}).content == b'{"msg":"model hash stored"}'
    answer = live.upload(model.read_bytes())
    assert answer.content == b'{"message":"file uploaded!","uploaded":true}'
    assert live.http.get(f"{live.url}/hashmodels").json() == {"hashes": [digest]}
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
