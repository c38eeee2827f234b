"""S3 servers for the tests, on real sockets."""

import asyncio
import functools
import json
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.loaders import JSONFileLoader
from tornado.concurrent import dummy_executor
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest, format_timestamp
from tornado.netutil import bind_sockets
from tornado.wsgi import WSGIContainer

_MOST_BYTES = 2**30

# The description of S3 is the same for every client, and long: it is read once.
_load = functools.cache(JSONFileLoader().load_file)
JSONFileLoader.load_file = lambda _, path: _load(path)


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


class KeptOpen(WSGIContainer):
    """Moto behind a server that keeps connections open, as stores do: moto's own makes one a request."""

    def __init__(self, moto: Any) -> None:
        def dated(environ: dict[str, Any], start_response: Any) -> Any:
            def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
                date = ("Date", format_timestamp(time.time()))
                return start_response(status, [*headers, date], *error)

            return moto(environ, start)

        super().__init__(dated, dummy_executor)

    def environ(self, request: HTTPServerRequest) -> dict[str, Any]:
        return {**super().environ(request), "RAW_URI": request.uri}

    def _log(self, status_code: int, request: HTTPServerRequest) -> None:
        """What a store refuses is for its client to say."""


@contextmanager
def moto() -> Iterator[S3Server]:
    """Run moto in a thread; it does one request after the other, so that each is done whole."""
    from moto.moto_server.werkzeug_app import create_backend_app  # not for tests that need none

    s3_only = create_backend_app("s3")
    s3_only.debug = False
    app = KeptOpen(s3_only)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()

    async def serve() -> None:
        server = HTTPServer(app, max_buffer_size=_MOST_BYTES)
        [listening] = bind_sockets(0, "127.0.0.1")
        server.add_socket(listening)
        ended = asyncio.Event()
        started.set_result((asyncio.get_running_loop(), ended, listening.getsockname()[1]))
        await ended.wait()
        server.stop()
        await server.close_all_connections()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="moto")
    thread.start()
    loop, ended, port = started.result(60)
    try:
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()


def contents(bucket: str, prefix: str) -> dict[str, bytes]:
    """Return what moto, in this process, has in a bucket, without a request."""
    keys = _keys(bucket)
    return {key.removeprefix(prefix): keys[key].value for key in keys if key.startswith(prefix)}


def forget(bucket: str, prefix: str) -> None:
    """Remove it, without a request."""
    keys = _keys(bucket)
    for key in [key for key in keys if key.startswith(prefix)]:
        del keys[key]


def _keys(bucket: str) -> Any:
    from moto.s3.models import s3_backends

    (found,) = (
        account["aws"].buckets[bucket] for account in s3_backends.values() if bucket in account["aws"].buckets
    )
    return found.keys


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
