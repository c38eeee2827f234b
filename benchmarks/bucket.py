"""A large upload into a bucket: beside boto3's ``upload_file`` of as much, and its memory."""

import json
import multiprocessing
import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import servers
from benchmarks.table import Row
from benchmarks.upload import MIB, send

TOOL = Path(__file__).resolve().parents[2] / "shared" / "tools" / "s3-swift"

_BUCKET = "benchmark"


def compare(folder: Path, certs: Path, size: int, rounds: int) -> list[Row]:
    """Compare throughput, in turn, and look at the server's memory meanwhile."""
    what = f"upload of {size // MIB} MiB into a bucket"
    name, memory = f"{what} [MiB/s]", f"{what}: memory above idle [MiB]"
    targets = "at least 0.7", "at most 128"
    if not TOOL.exists():
        missing = f"skipped, there is no {TOOL.name}"
        return [Row(name, "", missing, None, targets[0]), Row(memory, "", missing, None, targets[1], " MiB")]
    with _swift(folder / "swift") as store:
        _client(store).create_bucket(Bucket=_BUCKET)
        options = {**store, "cache": str(folder / "cache")}
        inline = ", ".join(f'{key} = "{value}"' for key, value in options.items())
        settings = {
            "storage__backend": "s3",
            "storage__url": f"s3://{_BUCKET}",
            "storage__options": f"{{{inline}}}",
        }
        ours, theirs = [], []
        with servers.ours(folder, certs, prediction__workers=1, **settings) as server:
            idle = server.peak_bytes()
            for _ in range(rounds):
                ours.append(size / MIB / send(server.urls[1], size))
                theirs.append(size / MIB / _upload_file(store, folder / "file", size))
                _empty(store)
            above = (server.peak_bytes() - idle) / MIB
    us, them = statistics.median(ours), statistics.median(theirs)
    return [
        Row(name, f"{us:.0f}, over TLS", f"boto3 upload_file: {them:.0f}", us / them, targets[0]),
        Row(memory, f"{above + idle / MIB:.0f}", f"idle: {idle / MIB:.0f}", above, targets[1], " MiB"),
    ]


def _upload_file(store: dict[str, str], path: Path, size: int) -> float:
    """Upload a file from a process of its own; return the seconds."""
    if not path.exists():
        with path.open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
    os.sync()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_boto3, (store, path))


def _boto3(store: dict[str, str], path: Path) -> float:
    client = _client(store)
    began = time.monotonic()
    client.upload_file(str(path), _BUCKET, "file")
    return time.monotonic() - began


def _client(store: dict[str, str]) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=store["endpoint_url"],
        aws_access_key_id=store["key"],
        aws_secret_access_key=store["secret"],
        region_name=store["region"],
    )


def _empty(store: dict[str, str]) -> None:
    client = _client(store)
    for item in client.list_objects_v2(Bucket=_BUCKET).get("Contents", ()):
        client.delete_object(Bucket=_BUCKET, Key=item["Key"])


@contextmanager
def _swift(folder: Path) -> Iterator[dict[str, str]]:
    done = subprocess.run([TOOL, "start", folder, "0"], check=True, capture_output=True)
    found = json.loads(done.stdout)
    try:
        yield {
            "endpoint_url": found["endpoint_url"],
            "key": found["access_key"],
            "secret": found["secret_key"],
            "region": found["region"],
        }
    finally:
        subprocess.run([TOOL, "stop", folder], check=True, capture_output=True)
