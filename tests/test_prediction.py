"""The two ways to ask about a song, on a real server."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import itsdangerous
import numpy as np
import pytest

from spectrogram_predictor import answers
from spectrogram_predictor.errors import BadRequest
from spectrogram_predictor.handlers import base, prediction
from spectrogram_predictor.signing import Keys
from spectrogram_predictor.tokens import Tokens
from tests.conftest import TOKEN, b64, sha256, wav
from tests.live import Live, wait_until

KEYS = Keys(TOKEN)
DIGEST = "a" * 64


def token(method: str, path: str, secret: str = TOKEN) -> str:
    return Tokens(Keys(secret), None).make(method, path)  # type: ignore[arg-type]  # what is made is not stored


def ask(live: Live, digest: str, song: bytes, shown: str | None = None) -> httpx.Response:
    """Send a song as it is."""
    path = f"/models/{digest}/predict"
    bearer = shown or token("POST", path)
    return live.http.post(live.url + path, content=song, headers={"Authorization": f"Bearer {bearer}"})


@pytest.fixture(scope="module")
def digest(live: Live, picture_model: Path) -> str:
    """A model of three labels that is served."""
    with live.client() as client:
        client.publish(picture_model, labels=["a", "b", "c"])
    return sha256(picture_model)


def test_a_song_as_it_is_has_the_document_s_answer(live: Live, digest: str, song: bytes) -> None:
    """To the last bit, with labels and digests, and to the client too."""
    question = {"model_hash": digest, "ext": "wav", "data": b64(song)}
    array = live.post_signed("/prediction", question).json()["array"]
    answer = ask(live, digest, song)
    assert answer.status_code == 200
    assert answer.json() == {"array": array, "labels": ["a", "b", "c"], "model": digest, "recipe": None}
    assert answer.headers["X-Model-Digest"] == digest
    with live.client() as client:
        assert client.predict(song, digest) == array


def test_a_song_needs_a_token_made_for_it(live: Live, digest: str, song: bytes) -> None:
    """Not one of another path or method, nor none."""
    path = f"/models/{digest}/predict"
    assert live.http.post(live.url + path, content=song).status_code == 401
    for shown in (token("GET", path), token("POST", f"/models/{DIGEST}/predict")):
        assert ask(live, digest, song, shown).status_code == 403
    assert ask(live, digest, song, token("POST", path, "another")).status_code == 403


def test_what_is_wrong_with_a_song_is_said(live: Live, digest: str, song: bytes) -> None:
    """As by the document's route."""
    assert ask(live, DIGEST, song).json()["code"] == "model_not_found"
    assert ask(live, "none", song).json()["code"] == "bad_request"
    assert ask(live, digest, b"no song").json()["code"] == "unsupported_media"
    assert ask(live, digest, b"").json()["code"] == "unsupported_media"


def parse(fields: str | dict[str, Any]) -> prediction.Question:
    text = fields if isinstance(fields, str) else itsdangerous.Serializer(TOKEN).serializer.dumps(fields)
    signed = itsdangerous.Serializer(TOKEN).make_signer().sign(text)
    return prediction.parse(KEYS, signed if isinstance(signed, bytes) else signed.encode())


HEAD = f'"model_hash":"{DIGEST}","ext":"wav"'


@pytest.mark.parametrize(
    ("fields", "song"),
    [
        (f'{{{HEAD},"data":"c29uZw=="}}', b"song"),
        (f'{{"data" : "c29uZw==", {HEAD}}}', b"song"),
        (f'{{{HEAD},"data":"PDw\\/Pz8\\/"}}', b"<<????"),
        (f'{{{HEAD},"data":"c29u\\nZw=="}}', b"song"),
        (f'{{{HEAD},"data":"Zmlyc3Q=","data":"c2Vjb25k"}}', b"second"),
        (f'{{{HEAD},"other":{{"data":"Zmlyc3Q="}},"data":"c2Vjb25k"}}', b"second"),
        (f'{{"other":"data",{HEAD},"data":"c29uZw=="}}', b"song"),
        (f'{{"other":"\\"data\\":\\"Zmlyc3Q=\\"",{HEAD},"data":"c29uZw=="}}', b"song"),
        (f'{{"other\\"data":"Zmlyc3Q=",{HEAD},"data":"c29uZw=="}}', b"song"),
        (f'{{{HEAD},"data":""}}', b""),
    ],
)
def test_a_song_is_found_wherever_json_says_it_is(fields: str, song: bytes) -> None:
    """Cut out, it is the song that a parser of the whole body finds."""
    assert parse(fields).song == song


@pytest.mark.parametrize(
    "fields",
    [
        f'{{{HEAD},"other":{{"data":"c29uZw=="}}}}',
        f'{{{HEAD},"data":null}}',
        f'{{{HEAD},"data":"%%%%"}}',
        f'{{{HEAD},"data":"c29uZw=="',
        f'{{{HEAD},"data":"c29uZw==',
        f'[{{{HEAD},"data":"c29uZw=="}}]',
    ],
)
def test_what_is_no_question_is_refused(fields: str) -> None:
    """A song that belongs to something else, or is none, or a body that ends early."""
    with pytest.raises(BadRequest):
        parse(fields)


@pytest.mark.parametrize("shape", [(1, 2**15), (1, 2, 2**13), (1, 2**13, 3), (2**13, 1, 1), (3, 5, 7, 1)])
def test_a_large_answer_is_written_in_pieces(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte as a small one is, and none of it keeps the event loop for long."""
    pieces: list[int] = []

    def dumps(value: Any) -> bytes:
        pieces.append(np.asarray(value).size)
        return base.dumps(value)

    monkeypatch.setattr(prediction, "dumps", dumps)
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32).tolist()
    assert prediction._encoded(array) == base.dumps(array)
    assert max(pieces) <= 2**12
    assert sum(pieces) == answers.count(array)


def test_as_many_numbers_as_there_may_be_are_answered(live: Live, tmp_path: Path) -> None:
    """Other requests are answered meanwhile; what would be more is refused when it is published."""
    import keras

    layers = keras.layers
    for size, status in ((2**18 - 1, 200), (2**18, 415)):
        path = tmp_path / f"{size}.keras"
        row = [layers.Input((2,)), layers.Dense(1), layers.RepeatVector(size), layers.Flatten()]
        keras.Sequential(row).save(path)
        signed = {"model": itsdangerous.Signer(TOKEN).sign(path.read_bytes())}
        assert live.http.post(f"{live.url}/uploadmodel", files=signed).status_code == status
    question = {"model_hash": sha256(tmp_path / f"{2**18 - 1}.keras"), "ext": "wav", "data": b64(wav(1.0))}
    answer = live.post_signed("/prediction", {**question, "csv": b64(b"a,b\n1,2\n")})
    assert answer.status_code == 200
    array = answer.json()["array"]
    assert len(array[0]) == 2**18 - 1
    assert answer.content == base.dumps({"array": array})


def test_a_full_queue_is_said_before_the_body(make_live: Callable[..., Live], picture_model: Path) -> None:
    """Whoever waits for a sign to send is told 429 at once, and when to come again; room made is used."""
    live = make_live(prediction__queue=1, prediction__workers=1)
    with live.client() as client:
        digest = client.publish(picture_model)["hash"]
    (worker,) = live.worker_pids()
    path = f"/models/{digest}/predict"

    def head() -> str:
        return f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('POST', path)}\r\n"

    with Stopped(worker), live.connect() as busy:
        busy.sendall(f"{head()}Content-Length: 4\r\n\r\nsong".encode())

        def shed() -> str:
            with live.connect() as late:
                late.sendall(f"{head()}Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n".encode())
                return late.recv(65536).decode()

        answer = wait_until(lambda: found if (found := shed()).startswith("HTTP/1.1 429") else None)
        assert int(answer.partition("Retry-After: ")[2].split()[0]) >= 1
    wait_until(lambda: ask(live, digest, b"no song").status_code == 415)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Stopped:
    """A process that does nothing meanwhile."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> None:
        os.kill(self._pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self._pid, signal.SIGCONT)


def test_what_nobody_waits_for_is_not_computed(make_live: Callable[..., Live], picture_model: Path) -> None:
    """A client that left while its song was in the queue takes no worker's time."""
    live = make_live(prediction__workers=1)
    with live.client() as client:
        digest = client.publish(picture_model)["hash"]
    (worker,) = live.worker_pids()
    path = f"/models/{digest}/predict"
    long = wav(600.0)
    lengths = f"Content-Length: {len(long)}\r\n\r\n"
    with Stopped(worker):
        clients = [live.connect() for _ in range(6)]
        for client in clients:
            head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('POST', path)}\r\n"
            client.sendall(f"{head}{lengths}".encode() + long)
        for client in clients:
            client.close()
    spent = cpu_s(worker)
    assert ask(live, digest, long).status_code == 200
    one = cpu_s(worker) - spent
    assert ask(live, digest, long).status_code == 200
    assert one < 4 * (cpu_s(worker) - spent - one)
