"""Talk to a server from Python.

    ClientError
    ├── NoAnswer    the server could not be reached, or the connection broke
    └── Refused     the server said no: status, code and message

Imports nothing of the server, and nothing heavy.
"""

import base64
import hashlib
import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx
import itsdangerous

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and the bytes in all."""

URL = "https://localhost:8443"
UPLOAD_URL = "https://localhost:4443"

_REQUEST_SALT = b"spectrogram-predictor.request"
_POLL_S = 1.0


class ClientError(Exception):
    """Root of what a `Client` raises."""


class NoAnswer(ClientError):
    """The server could not be reached, or the connection broke before it answered."""


class Refused(ClientError):
    """The server answered with an error.

    Parameters
    ----------
    status : int
        HTTP status.
    code : str
        The server's stable code, such as ``model_not_found``.
    message : str
        The server's message.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message


class Client:
    """A connection to a server; a context manager.

    Parameters
    ----------
    url, upload_url : str
        The server's two ports.
    token : str, optional
        SIGNING_TOKEN; by default from the environment.
    verify : bool or path
        Check the server's certificate against the system's authorities (True), against this file, or not (False).
    timeout_s : float > 0
        How long to wait for an answer, or for the next bytes to be taken.

    Raises
    ------
    ValueError
        There is no token.
    """

    def __init__(
        self,
        url: str = URL,
        upload_url: str = UPLOAD_URL,
        token: str | None = None,
        *,
        verify: bool | str | Path = True,
        timeout_s: float = 120.0,
    ) -> None:
        self._token = token if token is not None else os.environ.get("SIGNING_TOKEN", "")
        if not self._token.strip():
            raise ValueError("there is no token: pass it, or set SIGNING_TOKEN in the environment")
        checked = ssl.create_default_context(cafile=verify) if isinstance(verify, str | Path) else verify
        self._url = url.rstrip("/")
        self._upload_url = upload_url.rstrip("/")
        self._http = httpx.Client(verify=checked, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def register(self, model: Path | str, labels: Sequence[str] = ()) -> str:
        """Register a model file, or a digest; return the digest.

        Parameters
        ----------
        model : path or str
            The file, or its SHA-256 in 64 hexadecimal digits.
        labels : sequence of str
            Names of the model's outputs, in order.
        """
        sha256 = model if isinstance(model, str) and is_sha256(model) else digest(Path(model))
        body: dict[str, Any] = {"hash": sha256}
        if labels:
            body["labels"] = list(labels)
        self._signed("/registermodelhash", body)
        return sha256

    def upload(self, model: Path | str, progress: Progress | None = None) -> None:
        """Send a registered model file to the upload port, streaming."""
        path = Path(model)
        with path.open("rb") as file:
            watched = _Watched(file, path.stat().st_size, progress)
            files = {"model": (path.name, watched, "application/octet-stream")}
            self._request("POST", f"{self._upload_url}/nodemodeluploads", files=files)

    def sweep(self) -> list[str]:
        """Let the server sweep now; return the digests that it promoted in this sweep."""
        hashes: list[str] = self._request("GET", f"{self._url}/hashmodels")["hashes"]
        return hashes

    def publish(
        self,
        model: Path | str,
        labels: Sequence[str] = (),
        *,
        progress: Progress | None = None,
        timeout_s: float = 300.0,
    ) -> dict[str, Any]:
        """Register, upload and wait until the model is served; return its state.

        What the server has already is not sent again.

        Raises
        ------
        Refused
            With code ``rejected`` if the server does not want the file, with its reason.
        NoAnswer
            It was not promoted within `timeout_s`.
        """
        sha256 = self.register(model, labels)
        state = self.model(sha256)
        if state["state"] != "promoted":
            self.upload(model, progress)
        deadline = time.monotonic() + timeout_s
        while state["state"] == "registered":
            self.sweep()
            state = self.model(sha256)
            if state["state"] == "registered":
                if time.monotonic() > deadline:
                    raise NoAnswer(f"{sha256} was sent, but not promoted within {timeout_s:g} s")
                time.sleep(_POLL_S)
        if state["state"] == "rejected":
            raise Refused(415, "rejected", state["reason"])
        return state

    def predict(self, song: Path | str | bytes, model: str, csv: bytes | str | None = None) -> list[list[float]]:
        """Ask a model about a song.

        Parameters
        ----------
        song : path or bytes
            The song's file.
        model : str
            The model's SHA-256.
        csv : bytes or str, optional
            A line of names and a row of numbers, for models that take features.

        Returns
        -------
        array : list of list of float
            The model's output, one row.
        """
        data = song if isinstance(song, bytes) else Path(song).read_bytes()
        extension = "" if isinstance(song, bytes) else Path(song).suffix.removeprefix(".")
        body = {"model_hash": model, "ext": extension, "data": base64.b64encode(data).decode()}
        if csv is not None:
            encoded = csv.encode() if isinstance(csv, str) else csv
            body["csv"] = base64.b64encode(encoded).decode()
        array: list[list[float]] = self._signed("/prediction", body)["array"]
        return array

    def models(self) -> list[dict[str, Any]]:
        """Return the state of every model that the server knows."""
        models: list[dict[str, Any]] = self._with_token("/models")["models"]
        return models

    def model(self, sha256: str) -> dict[str, Any]:
        """Return the state of one model."""
        return self._with_token(f"/models/{sha256}")

    def _signed(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        content = itsdangerous.Serializer(self._token).dumps(body)
        return self._request("POST", self._url + path, content=content)

    def _with_token(self, path: str) -> dict[str, Any]:
        serializer = itsdangerous.URLSafeTimedSerializer(
            self._token, salt=_REQUEST_SALT, signer_kwargs={"digest_method": hashlib.sha256}
        )
        token = serializer.dumps({"method": "GET", "path": path})
        return self._request("GET", self._url + path, headers={"Authorization": f"Bearer {token}"})

    def _request(self, method: str, url: str, **kwargs: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, url, **kwargs)
        except httpx.TransportError as error:
            raise NoAnswer(f"no answer from {url}: {error}") from error
        try:
            answer = response.json()
        except ValueError:
            answer = {}
        if response.is_error or not isinstance(answer, dict):
            message = answer.get("msg") if isinstance(answer, dict) else None
            code = answer.get("code") if isinstance(answer, dict) else None
            raise Refused(response.status_code, code or "unknown", message or response.reason_phrase)
        return answer


class _Watched:
    """A file whose reading is watched."""

    def __init__(self, file: BinaryIO, size: int, progress: Progress | None) -> None:
        self._file = file
        self._size = size
        self._progress = progress
        self.fileno = file.fileno
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        if self._progress:
            self._progress(self._file.tell(), self._size)
        return data


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_sha256(text: str) -> bool:
    """Tell whether a text is a SHA-256 in hexadecimal."""
    return len(text) == 64 and set(text.lower()) <= set("0123456789abcdef")
