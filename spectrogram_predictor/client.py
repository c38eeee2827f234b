"""Talk to a server from Python.

    ClientError
    ├── NoAnswer    the server could not be reached, or the connection broke
    └── Refused     the server said no: status, code and message

Imports nothing of the server, and nothing heavy.
"""

import hashlib
import os
import ssl
import tempfile
import time
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

import httpx
import itsdangerous

from spectrogram_predictor.terms import Golden as Golden
from spectrogram_predictor.terms import base64_of, content_of, digest, extension_of, is_sha256, terms_of
from spectrogram_predictor.transfer import ClientError as ClientError
from spectrogram_predictor.transfer import NoAnswer, Patience, Progress, Refused, Transfer, checked, shown

URL = "https://localhost:8443"
UPLOAD_URL = "https://localhost:4443"

_AUDIENCE = "spectrogram-predictor"
_TOKEN_SALT = b"spectrogram-predictor.request"
_TOKEN_LIFETIME_S = 300
_POLL_S = 1.0
_AWAY_S = 15.0


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
    patience_s : float >= 0
        How long an upload goes on without any progress, over connections that break or to a server that is away.

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
        patience_s: float = 600.0,
    ) -> None:
        self._token = token if token is not None else os.environ.get("SIGNING_TOKEN", "")
        if not self._token.strip():
            raise ValueError("there is no token: pass it, or set SIGNING_TOKEN in the environment")
        trust = ssl.create_default_context(cafile=verify) if isinstance(verify, str | Path) else verify
        self._url = url.rstrip("/")
        self._upload_url = upload_url.rstrip("/")
        self._patience_s = patience_s
        self._http = httpx.Client(verify=trust, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def register(
        self,
        model: Path | str,
        recipe: Any = None,
        golden: Iterable[tuple[Any, ...]] | None = None,
        labels: Sequence[str] | None = None,
        *,
        allow_custom: bool | None = None,
    ) -> str:
        """Register a model file, or a digest; return the digest.

        What is None stays as it was registered before, if it was; what is empty is taken away: ``{}`` for the
        recipe, ``[]`` for goldens or labels.

        Parameters
        ----------
        model : path or str
            The file, or its SHA-256 in 64 hexadecimal digits.
        recipe : Recipe, mapping, path or str, optional
            How a song becomes the model's inputs: a `Recipe`, its JSON as a mapping or in a file, or the name of
            one that is shipped, unless there is a file of that name.
        golden : iterable of tuple, optional
            Songs whose answers are known: pairs of a song and what the model must answer to it, or `Golden`.
        labels : sequence of str, optional
            Names of the model's outputs, in order.
        allow_custom : bool, optional
            Whether the Python code in its layers of class Lambda may run on the server: for your own files only.

        Raises
        ------
        Refused
            The server does not want it, or serves the model already and it does not pass under these terms.
        ValueError
            A recipe's file is not JSON, or says a key twice; labels are one string, goldens one pair; or an
            expected number is not finite.
        """
        sha256 = model if isinstance(model, str) and is_sha256(model) else digest(Path(model))
        terms = terms_of(recipe, golden, labels, allow_custom)
        self._signed("/registermodelhash", {"hash": sha256, **terms})
        return sha256

    def upload(self, model: Path | str, progress: Progress | bool = True) -> None:
        """Send a registered model file to the upload port, from where the server is with it.

        Connections that break and servers that restart are waited for; what the server has already is not sent. If
        it cannot be done, another call goes on with it, also in another process.

        Parameters
        ----------
        model : path or str
            The file.
        progress : callable or bool
            Watches; by default a bar on a terminal or in a notebook that has ipywidgets, and one line on stderr
            elsewhere. False for nothing.

        Raises
        ------
        Refused
            The server does not want it.
        NoAnswer
            There was no progress for `patience_s`.
        """
        path = Path(model)
        sha256 = digest(path)
        there = self._patience_at_first().insist(lambda: self._has(sha256))
        self._send(path, sha256, progress, there=there)

    def sweep(self) -> list[str]:
        """Let the server sweep now; return the digests that it promoted in this sweep."""
        hashes: list[str] = self._request("GET", f"{self._url}/hashmodels")["hashes"]
        return hashes

    def publish(
        self,
        model: Any,
        recipe: Any = None,
        golden: Iterable[tuple[Any, ...]] | None = None,
        labels: Sequence[str] | None = None,
        *,
        allow_custom: bool | None = None,
        progress: Progress | bool = True,
        timeout_s: float = 300.0,
    ) -> dict[str, Any]:
        """Register, upload and wait until the model is served; return its state.

        What the server has already is not sent again.

        Parameters
        ----------
        model : path, str or Keras model
            The file; or a live model, which is saved to a temporary one. As Keras writes the time into it, that is
            another file, and so another model, each time.
        recipe, golden, labels, allow_custom
            As for `register`.
        progress : callable or bool
            Watches the upload, as for `upload`.
        timeout_s : float > 0
            How long to wait.

        Raises
        ------
        Refused
            With code ``rejected`` if the server does not want the file, with its reason: a layer that is not one
            of Keras's own, a recipe that does not fit, a golden that the model does not answer as it must.
        NoAnswer
            It was not promoted within `timeout_s`.
        """
        terms = {"recipe": recipe, "golden": golden, "labels": labels, "allow_custom": allow_custom}
        if isinstance(model, str | Path):
            return self._publish(Path(model), terms, progress, timeout_s)
        if not hasattr(model, "save"):
            raise TypeError(f"a model is a file or has a method save; this is of type {type(model).__name__}")
        with tempfile.TemporaryDirectory(prefix="publish-") as folder:
            path = Path(folder) / "model.keras"
            model.save(path)
            return self._publish(path, terms, progress, timeout_s)

    @overload
    def predict(
        self,
        song: Path | str | bytes,
        model: str,
        csv: bytes | str | None = None,
        *,
        detail: Literal[False] = False,
    ) -> list[list[float]]: ...

    @overload
    def predict(
        self, song: Path | str | bytes, model: str, csv: bytes | str | None = None, *, detail: Literal[True]
    ) -> dict[str, Any]: ...

    def predict(
        self, song: Path | str | bytes, model: str, csv: bytes | str | None = None, *, detail: bool = False
    ) -> list[list[float]] | dict[str, Any]:
        """Ask a model about a song.

        Parameters
        ----------
        song : path or bytes
            The song's file.
        model : str
            The model's SHA-256.
        csv : bytes or str, optional
            A line of names and a row of numbers, for models that take features.
        detail : bool
            Ask for more than the numbers.

        Returns
        -------
        array : list of list of float
            The model's output, one row. With `detail` a dict: ``array``, ``labels``, and the SHA-256 of ``model``
            and ``recipe`` (None if there is none) under which it was answered.
        """
        if csv is None:
            # As it is: a quarter less to send than in base64, and nothing to sign but the token.
            path = f"/models/{model}/predict"
            answer = self._request(
                "POST", self._url + path, content=content_of(song), headers=self._bearer("POST", path)
            )
        else:
            body = {"model_hash": model, "ext": extension_of(song), "data": base64_of(song), "detail": True}
            body["csv"] = base64_of(csv.encode() if isinstance(csv, str) else csv)
            answer = self._signed("/prediction", body)
        if detail:
            return answer
        array: list[list[float]] = answer["array"]
        return array

    def models(self) -> list[dict[str, Any]]:
        """Return the state of every model that the server knows."""
        models: list[dict[str, Any]] = self._with_token("/models")["models"]
        return models

    def model(self, sha256: str) -> dict[str, Any]:
        """Return the state of one model."""
        return self._with_token(f"/models/{sha256}")

    def _publish(
        self, path: Path, terms: dict[str, Any], progress: Progress | bool, timeout_s: float
    ) -> dict[str, Any]:
        sha256 = self._patience_at_first().insist(lambda: self.register(path, **terms))
        # The server is there: from here on it is waited for.
        insist = Patience(self._patience_s).insist
        state = insist(lambda: self.model(sha256))
        if state["state"] != "promoted":
            self._send(path, sha256, progress)
            state = insist(lambda: self.model(sha256))
        deadline = time.monotonic() + timeout_s
        while state["state"] == "registered":
            insist(self.sweep)
            state = insist(lambda: self.model(sha256))
            if state["state"] == "registered":
                if time.monotonic() > deadline:
                    raise NoAnswer(f"{sha256} was sent, but not promoted within {timeout_s:g} s")
                time.sleep(_POLL_S)
        if state["state"] == "rejected":
            raise Refused(415, "rejected", state["reason"])
        return state

    def _patience_at_first(self) -> Patience:
        """Wait for a server that restarts, and not for long for one that was never there."""
        return Patience(min(self._patience_s, _AWAY_S))

    def _has(self, sha256: str) -> bool:
        try:
            return str(self.model(sha256)["state"]) == "promoted"
        except Refused as error:
            if error.status != 404:
                raise
            return False

    def _send(self, path: Path, sha256: str, progress: Progress | bool, *, there: bool = False) -> None:
        transfer = Transfer(self._http, self._upload_url, self._bearer, self._patience_s)
        if there:
            if callable(progress):
                progress(path.stat().st_size, path.stat().st_size)
            return
        with shown(progress, path.name) as watch:
            transfer.send(path, sha256, watch)

    def _signed(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        content = itsdangerous.Serializer(self._token).dumps(body)
        return self._request("POST", self._url + path, content=content)

    def _with_token(self, path: str) -> dict[str, Any]:
        return self._request("GET", self._url + path, headers=self._bearer("GET", path))

    def _bearer(self, method: str, path: str) -> dict[str, str]:
        """Return the header that one request shows."""
        serializer = itsdangerous.URLSafeTimedSerializer(
            self._token, salt=_TOKEN_SALT, signer_kwargs={"digest_method": hashlib.sha256}
        )
        claims = {"aud": _AUDIENCE, "method": method, "path": path, "nonce": uuid.uuid4().hex}
        token = serializer.dumps({**claims, "exp": int(time.time()) + _TOKEN_LIFETIME_S})
        return {"Authorization": f"Bearer {token}"}

    def _request(self, method: str, url: str, **kwargs: Any) -> dict[str, Any]:
        try:
            answer = checked(self._http.request(method, url, **kwargs))
        except httpx.TransportError as error:
            raise NoAnswer(f"no answer from {url}: {error}") from error
        try:
            fields = answer.json()
        except ValueError:
            fields = None
        if not isinstance(fields, dict):
            raise Refused(answer.status_code, "unknown", answer.reason_phrase)
        return fields
