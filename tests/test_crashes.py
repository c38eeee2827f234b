"""kill -9 anywhere: what was acknowledged is there after a restart."""

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import b64, csv_row, padded, sha256
from tests.live import Live, wait_until


@pytest.mark.parametrize("killed_after", ["register", "upload", "promote"])
def test_a_kill_between_any_two_steps_loses_nothing(
    make_live: Callable[..., Live], two_input_model: Path, song: bytes, killed_after: str
) -> None:
    """With a kill -9 between two steps, the restarted server promotes by itself and answers."""
    digest = sha256(two_input_model)
    live = make_live(promotion__interval_s=3600.0)

    def restart_after(step: str) -> Live:
        if step != killed_after:
            return live
        live.kill()
        return make_live(promotion__interval_s=0.5)

    assert live.post_signed("/registermodelhash", {"hash": digest}).status_code == 200
    live = restart_after("register")
    assert live.upload(two_input_model.read_bytes()).status_code == 200
    live = restart_after("upload")
    if killed_after != "upload":
        live.http.get(f"{live.url}/hashmodels")
    wait_until(lambda: live.files("models") == [f"models/{digest}.h5"])
    live = restart_after("promote")
    question = {"model_hash": digest, "ext": "wav", "data": b64(song), "csv": b64(csv_row())}
    assert live.post_signed("/prediction", question).status_code == 200
    assert live.files("temp") == live.files("incoming") == live.files("rejected") == []


def test_a_kill_at_any_moment_loses_nothing(
    make_live: Callable[..., Live],
    two_input_model: Path,
    song: bytes,
    tmp_path: Path,
    say: Callable[[str], None],
) -> None:
    """However far the clients are: what was acknowledged is promoted by the next server, nothing else is left."""
    moments = random.Random(4)
    owed: list[str] = []
    steps: list[str] = []

    def tell(live: Live, model: bytes) -> None:
        question = {"model_hash": sha256(model), "ext": "wav", "data": b64(song), "csv": b64(csv_row())}
        with contextlib.suppress(httpx.TransportError):
            steps.append("register")
            live.post_signed("/registermodelhash", {"hash": sha256(model)})
            steps.append("upload")
            if live.upload(model).status_code == 200:
                owed.append(sha256(model))
            steps.append("sweep")
            live.http.get(f"{live.url}/hashmodels")
            steps.append("predict")
            live.post_signed("/prediction", question)

    def serve() -> Live:
        return make_live(promotion__interval_s=0.2, promotion__incoming_ttl_s=1.0)

    def kill_somewhere(live: Live, model: bytes) -> None:
        wait_until(lambda: live.http.get(f"{live.url}/readyz").status_code == 200)
        client = threading.Thread(target=tell, args=(live, model))
        client.start()
        time.sleep(moments.expovariate(4))
        live.kill()
        client.join()

    killed_at = []
    for number in range(4):
        model = padded(two_input_model, tmp_path / f"{number}.h5")
        kill_somewhere(serve(), model.read_bytes())
        killed_at.append(steps[-1])
    live = serve()
    wait_until(lambda: {f"models/{digest}.h5" for digest in owed} <= set(live.files("models")))
    wait_until(lambda: live.files("incoming") == live.files("temp") == [])
    assert all(sha256(live.storage / name) == Path(name).stem for name in live.files("models"))
    with live.client() as asking:
        assert all(asking.predict(song, digest, csv_row().decode()) for digest in owed)
    say(f"kill -9 of a live server at {', '.join(killed_at)}: {len(owed)} uploads acknowledged, all served")


def test_a_kill_in_the_middle_of_an_upload_leaves_only_what_expires(
    make_live: Callable[..., Live], two_input_model: Path
) -> None:
    """Half an upload is nobody's model: it is removed once nothing has moved in it for long."""
    live = make_live()
    body = iter([b'--b\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\n', b"x" * 2**20])

    def kill_when_received() -> bytes:
        wait_until(lambda: any((live.storage / name).stat().st_size for name in live.files("incoming")))
        live.kill()
        return b""

    def stream() -> Iterator[bytes]:
        yield from body
        yield kill_when_received()

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with pytest.raises(Exception, match=r"disconnected|reset|closed|EOF|Broken"):
        live.http.post(f"{live.upload_url}/nodemodeluploads", content=stream(), headers=headers)
    assert len(live.files("incoming")) == 1
    old = time.time() - 10
    for name in live.files("incoming"):
        os.utime(live.storage / name, (old, old))
    live = make_live(promotion__incoming_ttl_s=1.0, promotion__interval_s=0.5)
    wait_until(lambda: live.files("incoming") == live.files("temp") == [])


def test_a_dead_worker_fails_one_request_at_most(
    make_live: Callable[..., Live], picture_model: Path, song: bytes
) -> None:
    """A worker is killed while it works: that request is answered 503, the next ones 200."""
    live = make_live(prediction__workers=1)
    digest = sha256(picture_model)
    with live.client() as client:
        client.publish(picture_model)
    (worker,) = live.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{worker}").exists() or worker not in live.worker_pids())
    question = {"model_hash": digest, "ext": "wav", "data": b64(song)}
    answers = [live.post_signed("/prediction", question) for _ in range(3)]
    assert [answer.status_code for answer in answers].count(200) >= 2
    assert all(answer.status_code in (200, 503) for answer in answers)
    assert worker not in live.worker_pids()


def test_sigterm_finishes_what_is_under_way(make_live: Callable[..., Live]) -> None:
    """An upload in the middle is taken to its end, and the exit code is 0."""
    live = make_live()

    def stream() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\n' + b"x" * 2**20
        wait_until(lambda: live.files("incoming"))
        live.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in live.log)
        yield b"\r\n--b--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = live.http.post(f"{live.upload_url}/nodemodeluploads", content=stream(), headers=headers)
    assert answer.content == b'{"message":"file uploaded!","uploaded":true}'
    assert live.process.wait(60) == 0
    assert [sha256(live.storage / name) for name in live.files("temp")] == [sha256(b"x" * 2**20)]


def test_the_end_of_the_drain_leaves_nothing_half_received(make_live: Callable[..., Live]) -> None:
    """An upload that stalls longer than SIGTERM waits is cut, and its bytes go."""
    live = make_live(server__drain_timeout_s=0.5)
    head = (
        "POST /nodemodeluploads HTTP/1.1\r\nHost: here\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        'Content-Length: 5000000\r\n\r\n--b\r\nContent-Disposition: form-data; name="model"; filename="m"\r\n\r\n'
    )
    with live.connect(live.upload_url) as one, live.connect(live.url) as other:
        for connection in (one, other):
            connection.sendall(head.encode() + b"x" * 2**20)
        wait_until(lambda: len(live.files("incoming")) == 2)
        assert live.stop() == 0
    assert live.files("incoming") == []
    assert "Traceback" not in live.log


def test_a_kill_between_a_golden_and_its_registration_leaves_nothing(
    make_live: Callable[..., Live], picture_model: Path, song: bytes
) -> None:
    """The song is kept before the registration that names it, which never comes: it is removed in time."""
    live = make_live()
    digest = sha256(picture_model)
    with live.client() as client:
        client.publish(picture_model)
    registration = live.storage / "registered" / f"{digest}.json"
    before = registration.read_bytes()
    (worker,) = live.worker_pids()
    # The model is served: the registration waits for a trial, and the trial for this worker.
    os.kill(worker, signal.SIGSTOP)
    fields = {"hash": digest, "golden": [{"song": b64(song), "expected": [0, 0, 0]}]}
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(live.post_signed, "/registermodelhash", fields)
        wait_until(lambda: live.files("golden"))
        live.kill()
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(httpx.TransportError):
            answer.result()
    assert live.files("golden") == [f"golden/{sha256(song)}"]
    assert registration.read_bytes() == before
    live = make_live(promotion__incoming_ttl_s=1.0, promotion__interval_s=0.5)
    wait_until(lambda: live.files("golden") == [])
    question = {"model_hash": digest, "ext": "wav", "data": b64(song)}
    assert live.post_signed("/prediction", question).status_code == 200
    assert registration.read_bytes() == before
