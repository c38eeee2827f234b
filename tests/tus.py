"""The bare protocol, for tests that look at each answer."""

import base64
import hashlib
from typing import Any

import httpx

from spectrogram_predictor.client import Client
from tests.live import Live

MEDIA_TYPE = "application/offset+octet-stream"


def bearer(token: str, method: str, path: str) -> str:
    """Return the header of a request that takes a token."""
    with Client(token=token, verify=False) as client:
        return client._bearer(method, path)["Authorization"]


def metadata(**values: str | bytes) -> str:
    """Return ``Upload-Metadata``."""
    encoded = {key: value.encode() if isinstance(value, str) else value for key, value in values.items()}
    return ",".join(f"{key} {base64.b64encode(value).decode()}" for key, value in encoded.items())


def checksum(algorithm: str, data: bytes) -> str:
    """Return ``Upload-Checksum``."""
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


class Tus:
    """Requests to one server.

    Parameters
    ----------
    live : Live
        The server.
    """

    def __init__(self, live: Live) -> None:
        self.live = live

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """Send one; a header's underscores are dashes, and None leaves it out."""
        named = {"Tus-Resumable": "1.0.0", **{name.replace("_", "-"): value for name, value in headers.items()}}
        sent = {name: value for name, value in named.items() if value is not None}
        return self.live.http.request(method, self.live.upload_url + path, content=body, headers=sent)

    def post(self, data: bytes, body: bytes | None = None, **headers: Any) -> httpx.Response:
        """Begin an upload of this content."""
        fields = {
            "Authorization": bearer(self.live.token, "POST", "/uploads"),
            "Upload_Length": str(len(data)),
            "Upload_Metadata": metadata(sha256=hashlib.sha256(data).hexdigest(), filename="model.h5"),
            **({"Content_Type": MEDIA_TYPE} if body is not None else {}),
        }
        return self.request("POST", "/uploads", body, **{**fields, **headers})

    def create(self, data: bytes) -> str:
        """Register this content, and begin an upload of it; return its path."""
        assert self.live.post_signed("/registermodelhash", {"hash": hashlib.sha256(data).hexdigest()}).is_success
        answer = self.post(data)
        assert answer.status_code == 201
        return answer.headers["Location"]

    def patch(self, path: str, offset: int, body: Any, **headers: Any) -> httpx.Response:
        """Send bytes."""
        return self.request(
            "PATCH", path, body, **{"Content_Type": MEDIA_TYPE, "Upload_Offset": str(offset), **headers}
        )

    def offset(self, path: str) -> int:
        """Ask how far it is."""
        answer = self.request("HEAD", path)
        assert answer.status_code == 200, answer
        return int(answer.headers["Upload-Offset"])
