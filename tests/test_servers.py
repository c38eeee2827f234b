"""Several servers on one storage: nobody minds which of them is asked, or dies."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backends.s3 import S3Server
from tests.conftest import b64, csv_row, padded, sha256
from tests.live import Live, wait_until


@contextlib.contextmanager
def two_on(s3_server: S3Server, certs: Path, folder: Path) -> Iterator[tuple[Live, Live]]:
    """Run two servers, as on two machines: they share a bucket only."""
    bucket = s3_server.make_bucket()
    servers: list[Live] = []
    stack = contextlib.ExitStack()
    for name in ("a", "b"):
        options = {"cache": str(folder / name / "cache"), **s3_server.options}
        inline = ", ".join(f'{key} = "{value}"' for key, value in options.items())
        settings: dict[str, Any] = {
            "storage__backend": "s3",
            "storage__url": f"s3://{bucket}/models",
            "storage__options": f"{{{inline}}}",
        }
        (folder / name).mkdir()
        servers.append(Live(folder / name, certs, "a token that is shared", settings))
        stack.callback(servers[-1].stop)
    with stack:
        for server in servers:
            server.start()
        yield servers[0], servers[1]


@pytest.fixture
def pair(s3_server: S3Server, certs: Path, tmp_path: Path) -> Iterator[tuple[Live, Live]]:
    """Two servers on a bucket of this test's own."""
    with two_on(s3_server, certs, tmp_path) as servers:
        yield servers


@pytest.fixture(scope="module")
def lasting(
    s3_server: S3Server, certs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Live, Live]]:
    """Two that several tests share, each with another model."""
    with two_on(s3_server, certs, tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@pytest.fixture
def mortal(lasting: tuple[Live, Live]) -> tuple[Live, Live]:
    """The same, both of them up, whatever the last test has done."""
    for server in lasting:
        if server.process.poll() is not None:
            server.start()
    return lasting


def ask(live: Live, digest: str, song: bytes) -> Any:
    """Return a server's answer to one question."""
    question = {"model_hash": digest, "ext": "wav", "data": b64(song), "csv": b64(csv_row())}
    return live.post_signed("/prediction", question)


def test_what_one_takes_in_both_serve(pair: tuple[Live, Live], two_input_model: Path, song: bytes) -> None:
    """Register at A, upload to B, promoted by A, predicted by both, with the same answer."""
    a, b = pair
    digest = sha256(two_input_model)
    assert a.post_signed("/registermodelhash", {"hash": digest}).status_code == 200
    assert b.upload(two_input_model.read_bytes()).status_code == 200
    wait_until(lambda: a.http.get(f"{a.url}/readyz").status_code == 200)
    a.promote(digest)
    answers = [ask(live, digest, song) for live in pair]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("after", ["registered", "uploaded", "promoted"])
def test_either_may_die_at_any_time(
    mortal: tuple[Live, Live], two_input_model: Path, tmp_path: Path, song: bytes, killed: int, after: str
) -> None:
    """The other goes on from where it was; so does the dead one when it is back."""
    model = padded(two_input_model, tmp_path / "model.h5")
    digest = sha256(model)
    dead, alive = mortal[killed], mortal[1 - killed]
    assert dead.post_signed("/registermodelhash", {"hash": digest}).status_code == 200
    if after == "registered":
        dead.kill()
    assert (alive if after == "registered" else dead).upload(model.read_bytes()).status_code == 200
    if after == "uploaded":
        dead.kill()
    (dead if after == "promoted" else alive).promote(digest)
    if after == "promoted":
        dead.kill()
    assert wait_until(lambda: ask(alive, digest, song).status_code == 200)
    dead.start()
    assert ask(dead, digest, song).content == ask(alive, digest, song).content


def test_a_cut_upload_leaves_nothing_in_the_bucket(pair: tuple[Live, Live], s3_server: S3Server) -> None:
    """No object, and no parts that cost money."""
    a, _ = pair
    body = os.urandom(30 * 2**20)
    head = (
        "POST /nodemodeluploads HTTP/1.1\r\nHost: here\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {2 * len(body)}\r\n\r\n--x\r\n"
        'Content-Disposition: form-data; name="model"; filename="model"\r\n\r\n'
    )
    bucket = a.setting("storage__url").removeprefix("s3://").partition("/")[0]
    s3 = s3_server.client()
    with a.connect(a.upload_url) as connection:
        connection.sendall(head.encode() + body)
        wait_until(lambda: s3.list_multipart_uploads(Bucket=bucket).get("Uploads"))
    wait_until(lambda: not s3.list_multipart_uploads(Bucket=bucket).get("Uploads"))
    assert not s3.list_objects_v2(Bucket=bucket, Prefix="models/temp/").get("Contents")
    a.process.send_signal(signal.SIGTERM)
    assert a.process.wait(30) == 0
