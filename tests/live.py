"""A real server in a process of its own, with real ports and real TLS."""

import fcntl
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import itsdangerous

from spectrogram_predictor.client import Client
from spectrogram_predictor.handlers.models import SWEEP_PATIENCE_S
from tests.backends.s3 import S3Server

START_TIMEOUT_S = 60.0


class Live:
    """One ``spectrogram-predictor serve``, its storage and its log.

    Parameters
    ----------
    folder : Path
        Where storage and log are.
    certs : Path
        The certificate folder.
    token : str
        SIGNING_TOKEN.
    settings : dict, optional
        ``section__key`` to value.
    """

    def __init__(self, folder: Path, certs: Path, token: str, settings: dict[str, Any] | None = None) -> None:
        self.storage = folder / "storage"
        self.token = token
        self.environ = {**os.environ, "SIGNING_TOKEN": token}
        self.cacert = certs / "server.crt"
        self._log = folder / f"log-{time.monotonic_ns()}"
        self._settings = {
            "server__api_port": 0,
            "server__upload_port": 0,
            "server__certs": certs,
            "storage__url": self.storage,
            "prediction__workers": 1,
            # Tests sweep when they want to.
            "promotion__interval_s": 3600.0,
            **(settings or {}),
        }
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start, perhaps again, and wait until it listens."""
        if self._process:
            self._close()
        command = [sys.executable, "-m", "spectrogram_predictor", "serve"]
        for name, value in self._settings.items():
            command += ["--set", f"{name.replace('__', '.', 1)}={value}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=self.environ
            )
        lines = [self.process.stdout.readline() for _ in range(2)]  # type: ignore[union-attr]
        found = [re.search(r"https://\S+", line) for line in lines]
        assert all(found), self.log
        self.url, self.upload_url = (match[0] for match in found if match)
        self.http = httpx.Client(verify=_trusting(self.cacert), timeout=60)

    def setting(self, name: str) -> str:
        """Return one of the settings it was made with."""
        return str(self._settings[name])

    @property
    def process(self) -> "subprocess.Popen[str]":
        """The server's process."""
        assert self._process
        return self._process

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text()

    def stop(self) -> int:
        """End it with SIGTERM if it runs; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=60)
        self._close()
        return self.process.returncode

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def _close(self) -> None:
        if self.process.stdout:
            self.process.stdout.close()
        self.http.close()

    def client(self) -> Client:
        """Return a client that trusts it."""
        return Client(self.url, self.upload_url, self.token, verify=self.cacert)

    def promote(self, digest: str) -> None:
        """Let it sweep, and wait until this model is promoted: the answer names it, if the trial is that quick."""
        began = time.monotonic()
        hashes = self.http.get(f"{self.url}/hashmodels").json()["hashes"]
        assert hashes == [digest] or (hashes == [] and time.monotonic() - began >= SWEEP_PATIENCE_S)
        with self.client() as client:
            wait_until(lambda: client.model(digest)["state"] == "promoted")

    def post_signed(self, path: str, fields: Any, token: str | None = None) -> httpx.Response:
        """POST signed JSON to the API port."""
        return self.http.post(self.url + path, content=itsdangerous.Serializer(token or self.token).dumps(fields))

    def upload(self, *models: bytes, field: str = "model") -> httpx.Response:
        """POST models to the upload port."""
        files = [(field, ("model", model, "application/octet")) for model in models]
        return self.http.post(f"{self.upload_url}/nodemodeluploads", files=files)

    def connect(self, url: str | None = None) -> ssl.SSLSocket:
        """Open a TLS connection to a port, by default the API's, for what no HTTP client would send."""
        target = httpx.URL(url or self.url)
        connection = socket.create_connection((target.host, target.port), timeout=60)
        return _trusting(self.cacert).wrap_socket(connection, server_hostname=target.host)

    def files(self, folder: str = "") -> list[str]:
        """Return what the storage holds below a folder."""
        # Not rglob: it fails when a folder goes while it looks.
        found = [Path(top) / name for top, _, names in os.walk(self.storage / folder) for name in names]
        return sorted(path.relative_to(self.storage).as_posix() for path in found)

    def read(self, name: str) -> bytes:
        """Return what is in a file of the storage."""
        return (self.storage / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write one, past the server."""
        (self.storage / name).write_bytes(content)

    def worker_pids(self) -> list[int]:
        """Return the process ids of its workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        tasks = children.parent.parent.glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]


def is_first() -> bool:
    """Tell, in a worker, whether no other one has asked.

    They cannot write where others see it, but can hold a file: ``first``, in the last folder of PYTHONPATH.
    """
    token = os.open(Path(os.environ["PYTHONPATH"].rpartition(os.pathsep)[2], "first"), os.O_RDONLY)
    try:
        fcntl.flock(token, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_until(condition: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """Return the condition's value as soon as it is true; fail after a while."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.05)
    return value


def _trusting(cacert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=cacert)


class LiveOnBucket(Live):
    """The same, with its storage in a bucket of its own."""

    def __init__(self, folder: Path, certs: Path, token: str, s3: S3Server) -> None:
        self._s3 = s3
        self._bucket = s3.make_bucket()
        options = {"cache": str(folder / "cache"), **s3.options}
        inline = ", ".join(f'{key} = "{value}"' for key, value in options.items())
        settings = {
            "storage__backend": "s3",
            "storage__url": f"s3://{self._bucket}/models",
            "storage__options": f"{{{inline}}}",
        }
        super().__init__(folder, certs, token, settings)

    def files(self, prefix: str) -> list[str]:
        found = self._s3.client().list_objects_v2(Bucket=self._bucket, Prefix=f"models/{prefix}/")
        return sorted(item["Key"].removeprefix("models/") for item in found.get("Contents", ()))

    def read(self, name: str) -> bytes:
        answer = self._s3.client().get_object(Bucket=self._bucket, Key=f"models/{name}")
        return bytes(answer["Body"].read())

    def write(self, name: str, content: bytes) -> None:
        self._s3.client().put_object(Bucket=self._bucket, Key=f"models/{name}", Body=content)
