"""A bucket, or what is below a prefix of it: the connection, and objects one by one.

s3fs knows credentials, endpoints and retries; every request goes through `Bucket.call`.
"""

import asyncio
import base64
import contextlib
import copy
import email.utils
import hashlib
import math
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import s3fs
from botocore.exceptions import BotoCoreError, ClientError

from backends.s3.errors import Gone, Taken, translated
from spectrogram_predictor.errors import StorageUnavailable
from spectrogram_predictor.storage import Entry

TRIES = 3
PAUSE_S = 0.2

_CHUNK = 2**20
_READ_TIMEOUT_S = 60.0
_CLOCK_S = 60.0


class Bucket:
    """Objects of a bucket whose keys begin with a prefix, which is left out here.

    Parameters
    ----------
    name : str
        The bucket's.
    prefix : str
        Empty, or with a slash at its end.
    options : mapping
        Those of the backend that are about the connection.

    Attributes
    ----------
    exclusive : bool
        Whether the store can create an object only if there is none.
    moving : dict of str to float
        When something last came for a multipart upload of this process, by its id [s, monotonic].
    """

    def __init__(self, name: str, prefix: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self.prefix = prefix
        self.exclusive = True
        self.moving: dict[str, float] = {}
        self._options = options
        self._date, self._heard = "", -math.inf

    async def connect(self) -> None:
        """Make ready; no request is sent yet."""
        options = self._options
        self._fs = s3fs.S3FileSystem(
            asynchronous=True,
            skip_instance_cache=True,
            use_listings_cache=False,
            endpoint_url=options.get("endpoint_url"),
            key=options.get("key"),
            secret=options.get("secret"),
            profile=options.get("profile"),
            client_kwargs={"region_name": options["region"]} if "region" in options else {},
            config_kwargs={
                "connect_timeout": 5,
                "read_timeout": _READ_TIMEOUT_S,
                "retries": {"mode": "standard", "max_attempts": TRIES},
                "s3": {"addressing_style": "path" if options.get("path_style", True) else "auto"},
                # Ours are in the requests that carry bytes; not every store knows the others.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
        )
        # botocore tries again by itself.
        self._fs.retries = 1
        await self._fs.set_session()

    def trust_checksums(self) -> None:
        """Do not sign the bodies of parts any more.

        For a store that checks the SHA-256 that is sent beside a body, and signed: for the signature of the body
        itself it is hashed once more, here and there.
        """
        client = self._fs.s3
        config = copy.copy(client.meta.config)
        config.s3 = {**config.s3, "payload_signing_enabled": False}

        def leave(request: Any, **_: Any) -> None:
            request.context["client_config"] = config

        client.meta.events.register("before-sign.s3.UploadPart", leave)

    async def close(self) -> None:
        """Let go of the connections."""
        if client := getattr(self._fs, "_s3", None):
            self._fs._s3 = None
            await client.close()

    async def call(self, method: str, key: str | None = None, **arguments: Any) -> Any:
        """Call S3; errors are of our tree."""
        if key is not None:
            arguments["Key"] = self.prefix + key
        try:
            answer = await self._fs._call_s3(method, Bucket=self.name, **arguments)
        except (OSError, BotoCoreError, ClientError, TimeoutError) as error:
            raise translated(error) from error
        self._date, self._heard = answer["ResponseMetadata"]["HTTPHeaders"]["date"], time.monotonic()
        return answer

    async def page(self, prefix: str, size: int, **token: str) -> Any:
        """Return one answer to a listing."""
        return await self.call("list_objects_v2", Prefix=self.prefix + prefix, MaxKeys=size, **token)

    async def now(self) -> float:
        """Return the store's clock [s since 1970]."""
        # Every answer tells it; requests cost money.
        if time.monotonic() - self._heard > _CLOCK_S:
            await self.page("", 1)
        then = email.utils.parsedate_to_datetime(self._date).timestamp()
        return then + time.monotonic() - self._heard

    async def list(self, prefix: str) -> list[Entry]:
        """Return every object below a prefix, sorted."""
        found: list[Entry] = []
        token: dict[str, str] = {}
        while True:
            answer = await self.page(prefix, 1000, **token)
            found += [self._entry(item) for item in answer.get("Contents", ())]
            if not answer.get("IsTruncated"):
                return sorted(found, key=lambda entry: entry.key)
            token = {"ContinuationToken": answer["NextContinuationToken"]}

    async def stat(self, key: str) -> Entry | None:
        """Return one object's entry, or None."""
        # Not HEAD: its 404 does not say whether it is the object or the whole bucket that is away.
        answer = await self.page(key, 1)
        entries = [self._entry(item) for item in answer.get("Contents", ())]
        return next((entry for entry in entries if entry.key == key), None)

    async def chunks(self, key: str, content: range | None = None) -> AsyncIterator[bytes]:
        """Yield an object's content, or these of its bytes; raise Gone if there is none."""
        only = {"Range": f"bytes={content[0]}-{content[-1]}"} if content else {}
        answer = await self.call("get_object", key, **only)
        received = 0
        try:
            async with answer["Body"] as body:
                while chunk := await body.read(_CHUNK):
                    received += len(chunk)
                    yield chunk
        except (OSError, BotoCoreError, TimeoutError, aiohttp.ClientError) as error:
            raise StorageUnavailable("the storage stopped in the middle of an object") from error
        if received != answer["ContentLength"]:
            raise StorageUnavailable("the storage stopped in the middle of an object")

    async def put(self, key: str, data: bytes, *, exclusive: bool = False) -> bool:
        """Write an object in one request; False if there was one and `exclusive` is asked for."""
        if exclusive and not self.exclusive and await self.stat(key):
            return False
        condition = {"IfNoneMatch": "*"} if exclusive and self.exclusive else {}
        for _ in range(TRIES):
            try:
                await self.call("put_object", key, Body=data, ChecksumSHA256=checksum(data), **condition)
            except Taken:
                if exclusive and await self.stat(key):
                    return False
                # Somebody's write was under way, and came to nothing.
                await asyncio.sleep(PAUSE_S)
            else:
                return True
        raise StorageUnavailable("the storage does not answer as it should")

    async def copy(self, origin: str, destination: str) -> None:
        """Let the store copy an object, of at most 5 GiB."""
        await self.call("copy_object", destination, CopySource=self.origin(origin))

    def origin(self, key: str) -> dict[str, str]:
        """Return what S3 is told to copy from."""
        return {"Bucket": self.name, "Key": self.prefix + key}

    async def delete(self, key: str) -> None:
        """Remove an object; none is fine."""
        with contextlib.suppress(Gone):
            await self.call("delete_object", key)

    def _entry(self, item: Mapping[str, Any]) -> Entry:
        modified = item["LastModified"].timestamp()
        key = item["Key"].removeprefix(self.prefix)
        return Entry(key, item["Size"], modified, f"{item['ETag']}-{modified}")


def checksum(data: bytes | memoryview) -> str:
    """Return the SHA-256 as S3's headers have it."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
