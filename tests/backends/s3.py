"""S3 servers for the tests, on real sockets."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config


@dataclass(frozen=True)
class S3Server:
    """Where one is, and how to log in."""

    endpoint_url: str
    key: str = "test"
    secret: str = "test"
    region: str = "us-east-1"

    @property
    def options(self) -> dict[str, str]:
        """Return the backend's options."""
        return {
            "endpoint_url": self.endpoint_url,
            "key": self.key,
            "secret": self.secret,
            "region": self.region,
        }

    def client(self) -> Any:
        """Return boto3's client, to look at a bucket from outside."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required"),
        )

    def make_bucket(self) -> str:
        """Make a bucket of its own for a test; return its name."""
        name = f"bucket-{uuid.uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        return name


@contextmanager
def moto() -> Iterator[S3Server]:
    """Run moto in a thread."""
    from moto import backends  # not for tests that need none
    from moto.server import ThreadedMotoServer

    # It would look through its folders at every request.
    names = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: names
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


def contents(bucket: str, prefix: str) -> dict[str, bytes]:
    """Return what moto, in this process, has in a bucket, without a request."""
    from moto.s3.models import s3_backends

    (found,) = (
        account["aws"].buckets[bucket] for account in s3_backends.values() if bucket in account["aws"].buckets
    )
    return {key.removeprefix(prefix): found.keys[key].value for key in found.keys if key.startswith(prefix)}


@contextmanager
def swift(tool: Path, folder: Path) -> Iterator[S3Server]:
    """Run OpenStack Swift, with the tool that starts it; it takes parts of a few bytes."""
    environ = {**os.environ, "S3_SWIFT_MIN_PART": "1"}
    done = subprocess.run([tool, "start", folder, "0"], check=True, capture_output=True, env=environ)
    found = json.loads(done.stdout)
    try:
        yield S3Server(found["endpoint_url"], found["access_key"], found["secret_key"], found["region"])
    finally:
        subprocess.run([tool, "stop", folder], check=True, capture_output=True)
