"""Real clients, over links that break, to servers that are killed: the model arrives, and little of it twice.

Small by default. With LONG_UPLOADS=1 in the environment: 1 GiB, 50 cuts, 10 kills.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spectrogram_predictor.client import Client as OurClient
from spectrogram_predictor.client import Refused
from spectrogram_predictor.lanes import DEPTH
from spectrogram_predictor.tls import CHUNK_BYTES, CIPHERTEXT_BYTES
from tests.backends.s3 import S3Server
from tests.conftest import TOKEN, padded, sha256
from tests.link import Link, link
from tests.live import Live, wait_until
from tests.tus import bearer

MIB = 2**20
LONG = bool(os.environ.get("LONG_UPLOADS"))
SIZE = 1024 * MIB if LONG else 24 * MIB
CUTS = 50 if LONG else 8
KILLS = 10 if LONG else 3
PART = CHUNK_BYTES + CIPHERTEXT_BYTES
"""There are none in a folder. What a server has of one connection in its own hands when the client asks over
another how far it is: a chunk, and what follows it."""

KILLED_PART = PART + DEPTH * CHUNK_BYTES
"""What it has in its own hands when it is killed: also chunks on their way to the disk."""

S3_PART = 8 * MIB
TIMEOUT_S = 900 if LONG else 120
FOLDER = Path(__file__).parent / "clients"
CLIENTS = ("ours", "tuspy", "tus-js-client", "curl")


@dataclass
class Sent:
    """What a client said in the end."""

    code: int
    output: str


@dataclass
class Client:
    """A real client, as a process of its own."""

    name: str
    live: Live
    state: Path

    def start(
        self, url: str, path: Path, ours: str = "upload", digest: str | None = None
    ) -> "subprocess.Popen[str]":
        """Let it upload a registered file to the upload port at this URL, by default with its own digest."""
        cacert = str(Path(self.live.setting("server__certs")) / "server.crt")
        environ = {
            **self.live.environ,
            "CACERT": cacert,
            "REQUESTS_CA_BUNDLE": cacert,
            "NODE_EXTRA_CA_CERTS": cacert,
            "SPECTROGRAM_PREDICTOR_CACERT": cacert,
            "XDG_STATE_HOME": str(self.state),
        }
        name, _, during = self.name.partition(" ")
        if name == "ours":
            command = [sys.executable, "-m", "spectrogram_predictor", ours, str(path)]
            command += ["--url", self.live.url, "--upload-url", url]
        else:
            program = {
                "tuspy": [sys.executable, str(FOLDER / "with_tuspy.py")],
                "tus-js-client": ["node", str(FOLDER / "with_tus_js.mjs")],
                "curl": [str(FOLDER / "with_curl.sh")],
            }[name]
            authorization = bearer(self.live.token, "POST", "/uploads")
            command = [*program, f"{url}/uploads", str(path), digest or sha256(path), authorization, during]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ, bufsize=1
        )

    def send(self, url: str, path: Path) -> Sent:
        """Let it upload, and wait."""
        process = self.start(url, path)
        output, _ = process.communicate(timeout=TIMEOUT_S)
        return Sent(process.returncode, output)


@pytest.fixture
def make_client(tmp_path: Path) -> Callable[[str, Live], Client]:
    """Make a real client, if it is installed."""

    def make(name: str, live: Live) -> Client:
        if name.startswith("tus-js-client") and not (shutil.which("node") and (FOLDER / "node_modules").exists()):
            pytest.skip("there is no tus-js-client: npm install --prefix tests/clients")
        if name == "curl" and not shutil.which("curl"):
            pytest.skip("there is no curl")
        return Client(name, live, tmp_path / "state")

    return make


@pytest.fixture
def big_model(two_input_model: Path, tmp_path: Path) -> Path:
    """A real model, and a lot that no layer has a use for in its file."""
    return padded(two_input_model, tmp_path / "big.h5", SIZE)


@pytest.fixture
def linked(live: Live) -> Iterator[Link]:
    with link(live.upload_url) as laid:
        yield laid


def register(live: Live, path: Path) -> str:
    digest = sha256(path)
    assert live.post_signed("/registermodelhash", {"hash": digest}).is_success
    return digest


def served(live: Live, digest: str) -> dict[str, Any]:
    """Return the state of a model, once it is settled."""

    def settled() -> dict[str, Any] | None:
        # A server that has just begun may still be starting its worker: the next sweep tries again.
        client.sweep()
        state = client.model(digest)
        return None if state["state"] == "registered" else state

    with live.client() as client:
        return wait_until(settled, timeout_s=TIMEOUT_S)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_link_that_breaks_again_and_again(
    live: Live,
    linked: Link,
    make_client: Callable[[str, Live], Client],
    big_model: Path,
    name: str,
    say: Callable[[str], None],
) -> None:
    """The model arrives with its digest; what is sent again is less than 2 %, and a part for each cut."""
    client = make_client(name, live)
    digest = register(live, big_model)
    size = big_model.stat().st_size
    linked.break_at([random.Random(name + str(number)).randrange(size) for number in range(CUTS)])
    began = time.monotonic()
    sent = client.send(linked.url, big_model)
    assert sent.code == 0, sent.output
    assert linked.cuts == []
    assert served(live, digest)["state"] == "promoted"
    again = linked.sent - size
    assert again < 0.02 * size + CUTS * PART
    say(
        f"{name}: {size / 2**20:.0f} MiB over {CUTS} cuts in {time.monotonic() - began:.1f} s, "
        f"{again / 2**20:.2f} MiB more than once ({100 * again / size:.2f} %)"
    )


@pytest.mark.parametrize("name", CLIENTS)
def test_a_server_that_is_killed_again_and_again(
    make_live: Callable[..., Live],
    make_client: Callable[[str, Live], Client],
    big_model: Path,
    name: str,
    say: Callable[[str], None],
) -> None:
    """With -9, in the middle of the upload, and started again: what was there is not sent again."""
    live = make_live()
    client = make_client(name, live)
    digest = register(live, big_model)
    size = big_model.stat().st_size
    turns = random.Random(name)
    marks = sorted(turns.randrange(size // 20, size * 19 // 20) for _ in range(KILLS))
    began = time.monotonic()
    with link(live.upload_url) as linked:
        # Slow enough for the kills to come in between.
        linked.bytes_per_s = size / (30 if LONG else 6)
        process = client.start(linked.url, big_model)
        reader: list[str] = []
        reading = threading.Thread(target=lambda: reader.append(process.communicate()[0]))
        reading.start()
        for mark in marks:
            wait_until(lambda mark=mark: linked.sent >= mark or process.poll() is not None, timeout_s=TIMEOUT_S)
            with linked.held():
                live.kill()
                live.start()
                linked.target = live.upload_url
        reading.join(TIMEOUT_S)
        assert process.returncode == 0, reader
        assert served(live, digest)["state"] == "promoted"
        again = linked.sent - size
    assert again < 0.02 * size + KILLS * KILLED_PART
    say(
        f"{name}: {size / 2**20:.0f} MiB over {KILLS} kill -9 in {time.monotonic() - began:.1f} s, "
        f"{again / 2**20:.2f} MiB more than once ({100 * again / size:.2f} %)"
    )


@pytest.fixture
def pair(swift: S3Server, certs: Path, tmp_path: Path) -> Iterator[tuple[Live, Live]]:
    """Two servers, as on two machines: they share a bucket of a real store, and nothing else."""
    bucket = swift.make_bucket()
    with contextlib.ExitStack() as stack:
        servers = []
        for name in ("a", "b"):
            options = {"cache": str(tmp_path / name / "cache"), **swift.options}
            inline = ", ".join(f'{key} = "{value}"' for key, value in options.items())
            settings = {
                "storage__backend": "s3",
                "storage__url": f"s3://{bucket}/models",
                "storage__options": f"{{{inline}}}",
            }
            (tmp_path / name).mkdir()
            servers.append(Live(tmp_path / name, certs, TOKEN, settings))
            servers[-1].start()
            stack.callback(servers[-1].stop)
        yield servers[0], servers[1]


@pytest.mark.swift
@pytest.mark.parametrize("name", CLIENTS)
def test_two_servers_by_turns(
    pair: tuple[Live, Live],
    make_client: Callable[[str, Live], Client],
    big_model: Path,
    name: str,
    say: Callable[[str], None],
) -> None:
    """Each time the link breaks, the other one of two that share a bucket goes on."""
    a, b = pair
    client = make_client(name, a)
    digest = register(a, big_model)
    size = big_model.stat().st_size
    began = time.monotonic()
    with link(a.upload_url) as linked:
        linked.others = [b.upload_url]
        linked.break_at([random.Random(name + str(number)).randrange(size) for number in range(KILLS)])
        sent = client.send(linked.url, big_model)
        assert sent.code == 0, sent.output
        assert linked.cuts == []
        again = linked.sent - size
    for live in pair:
        state = served(live, digest)
        assert state["state"] == "promoted", state
        assert "goes on" in live.log
    assert again < 0.02 * size + KILLS * S3_PART
    say(
        f"{name}: {size / 2**20:.0f} MiB to two servers on one bucket, {KILLS} times the other one, in "
        f"{time.monotonic() - began:.1f} s, {again / 2**20:.2f} MiB more than once ({100 * again / size:.2f} %)"
    )


SLOW_S = 95 if LONG else 12
"""How long a slow upload takes. The small one has limits that are as much smaller."""


@pytest.mark.parametrize("route", ["tus", "multipart"])
def test_a_slow_link_may_take_its_time(
    make_live: Callable[..., Live], two_input_model: Path, tmp_path: Path, route: str, say: Callable[[str], None]
) -> None:
    """Longer than any limit there is, as long as something comes."""
    live = make_live(uploads__stall_timeout_s=60.0 if LONG else 3.0)
    path = padded(two_input_model, tmp_path / "model.h5", 2**17)
    digest = register(live, path)
    with link(live.upload_url) as linked:
        linked.piece_bytes = 1024
        linked.bytes_per_s = path.stat().st_size / SLOW_S
        began = time.monotonic()
        if route == "tus":
            with OurClient(live.url, linked.url, live.token, verify=live.cacert) as client:
                client.upload(path)
        else:
            files = [("model", ("model", path.read_bytes(), "application/octet"))]
            answer = live.http.post(f"{linked.url}/nodemodeluploads", files=files, timeout=2 * SLOW_S)
            assert answer.content == b'{"message":"file uploaded!","uploaded":true}'
        took_s = time.monotonic() - began
    assert took_s > SLOW_S - 1
    assert served(live, digest)["state"] == "promoted"
    say(f"a slow link: {path.stat().st_size / 1024:.0f} KiB by {route} in {took_s:.0f} s")


def test_a_long_way_costs_a_few_turns(live: Live, linked: Link, two_input_model: Path, tmp_path: Path) -> None:
    """However large the file: nothing waits for an answer but a handshake, a request, and whoever was cut."""
    path = padded(two_input_model, tmp_path / "model.h5", 4 * MIB)
    digest = register(live, path)
    linked.latency_s = 0.5
    linked.break_at([2 * MIB])
    began = time.monotonic()
    with OurClient(live.url, linked.url, live.token, verify=live.cacert) as client:
        client.upload(path)
    took_s = time.monotonic() - began
    assert linked.cuts == []
    assert served(live, digest)["state"] == "promoted"
    # Two handshakes, the creation, what was cut, the question, the rest, and what TLS says in between.
    assert 6 <= linked.turns <= 8
    assert took_s > 6 * linked.latency_s


def test_patience_begins_with_what_fails(live: Live, linked: Link, two_input_model: Path, tmp_path: Path) -> None:
    """A link may be slower than the client is patient, and break after that."""
    path = padded(two_input_model, tmp_path / "model.h5", MIB)
    digest = register(live, path)
    size = path.stat().st_size
    linked.bytes_per_s = size / 6
    linked.break_at([size * 3 // 4])
    with OurClient(live.url, linked.url, live.token, verify=live.cacert, patience_s=3.0) as client:
        client.upload(path)
    assert linked.cuts == []
    assert served(live, digest)["state"] == "promoted"


def test_an_answer_that_gets_lost_costs_nothing(live: Live, linked: Link, big_model: Path, tmp_path: Path) -> None:
    """Whatever it was: of a model that was rejected meanwhile, no byte is sent again either."""
    useless = tmp_path / "useless.h5"
    useless.write_bytes(b"\x89HDF\r\n\x1a\n" + random.Random(str(tmp_path)).randbytes(4 * MIB))
    for path in (big_model, useless):
        before, size = linked.sent, path.stat().st_size
        linked.break_at([size // 2], ["deaf"])
        with OurClient(live.url, linked.url, live.token, verify=live.cacert) as client:
            if path == big_model:
                assert client.publish(path)["state"] == "promoted"
            else:
                with pytest.raises(Refused, match="rejected"):
                    client.publish(path)
        assert linked.cuts == []
        assert linked.sent - before < 1.02 * size


@pytest.mark.parametrize("kind", ["fin", "rst", "deaf"])
def test_a_link_that_breaks_during_the_creation(
    live: Live, linked: Link, make_client: Callable[[str, Live], Client], big_model: Path, kind: str
) -> None:
    """With bytes in it, or their answer lost: the client knows of no upload, and yet there is one."""
    client = make_client("tus-js-client with the creation", live)
    digest = register(live, big_model)
    linked.break_at([big_model.stat().st_size // 2], [kind])
    sent = client.send(linked.url, big_model)
    assert sent.code == 0, sent.output
    assert linked.cuts == []
    assert served(live, digest)["state"] == "promoted"


def test_a_wrong_file_is_sent_once(
    live: Live, linked: Link, make_client: Callable[[str, Live], Client], big_model: Path, tmp_path: Path
) -> None:
    """Its client takes the 409 for a reason to begin anew: what it began has ended."""
    client = make_client("tus-js-client", live)
    wrong = tmp_path / "wrong.h5"
    right = big_model.read_bytes()
    wrong.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    digest = register(live, big_model)
    process = client.start(linked.url, wrong, digest=digest)
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, "upload_gone" in output) == (1, True), output
    assert linked.sent < 1.02 * big_model.stat().st_size


def test_what_waits_for_its_trial_is_not_sent_again(make_live: Callable[..., Live], big_model: Path) -> None:
    """The server has it, and cannot say yet what will become of it."""
    live = make_live(prediction__timeout_s=600.0)
    digest = register(live, big_model)
    wait_until(lambda: live.http.get(f"{live.url}/readyz").is_success, TIMEOUT_S)
    with contextlib.ExitStack() as stack, link(live.upload_url) as linked:
        for pid in live.worker_pids():
            os.kill(pid, signal.SIGSTOP)
            stack.callback(os.kill, pid, signal.SIGCONT)
        with OurClient(live.url, linked.url, live.token, verify=live.cacert, timeout_s=5.0) as client:
            client.upload(big_model)
            sent = linked.sent
            assert client.model(digest)["state"] == "registered"
            client.upload(big_model)
        assert linked.sent - sent < MIB
        assert len(live.files("temp")) == 1
    assert served(live, digest)["state"] == "promoted"


def test_a_connection_that_hangs_is_given_up_by_the_client(live: Live, linked: Link, big_model: Path) -> None:
    """Nothing comes back any more: after its time the client asks over another one, and goes on."""
    digest = register(live, big_model)
    linked.break_at([big_model.stat().st_size // 3, big_model.stat().st_size // 2], ["stall"])
    with OurClient(live.url, linked.url, live.token, verify=live.cacert, timeout_s=2.0) as client:
        client.upload(big_model)
    assert linked.cuts == []
    assert linked.connections >= 3
    assert served(live, digest)["state"] == "promoted"


def test_a_client_that_is_killed_goes_on_when_it_is_started_again(
    live: Live, linked: Link, make_client: Callable[[str, Live], Client], big_model: Path
) -> None:
    """Where it was; what it had sent is not sent again, and nothing is left of its note."""
    client = make_client("ours", live)
    digest = sha256(big_model)
    size = big_model.stat().st_size
    linked.bytes_per_s = size / 4
    process = client.start(linked.url, big_model, "publish")
    wait_until(lambda: linked.sent > size // 2)
    process.kill()
    process.communicate()
    (note,) = (client.state / "spectrogram-predictor" / "uploads").iterdir()
    assert note.stat().st_mode & 0o077 == 0
    process = client.start(linked.url, big_model, "publish")
    assert process.communicate(timeout=TIMEOUT_S)[0].endswith(f"{digest}\n")
    assert linked.sent < size * 1.02 + PART
    assert not note.exists()
    assert served(live, digest)["state"] == "promoted"
    before = linked.sent
    process = client.start(linked.url, big_model, "publish")
    process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, linked.sent) == (0, before)
