"""Send a file over links that break, and through restarts of either side: tus, from where the server is.

    ClientError
    ├── NoAnswer    the server could not be reached, or the connection broke
    └── Refused     the server said no: status, code and message

Where an upload is, the server knows; what it is called there is noted in a small file of the user's, so that
another run goes on with it.
"""

import base64
import contextlib
import hashlib
import importlib.util
import json
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urljoin

import httpx

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with the bytes sent so far and the bytes in all."""

_CHUNK = 2**20
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
_PASSING = {423, 429, 500, 502, 503, 504}
"""Statuses that say: not now."""


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
    retry_after_s : float, optional
        When the server says to come back.
    """

    def __init__(self, status: int, code: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(f"{message} ({status} {code})")
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Any, ...]:
        """Let it through to another process, such as that which a pool of processes belongs to."""
        return type(self), (self.status, self.code, self.message, self.retry_after_s)


def checked(response: httpx.Response) -> httpx.Response:
    """Return an answer that is none of refusal; raise `Refused` otherwise."""
    if not response.is_error:
        return response
    try:
        answer = response.json()
    except ValueError:
        answer = {}
    said: Mapping[str, str] = answer if isinstance(answer, dict) else {}
    after = response.headers.get("Retry-After", "")
    raise Refused(
        response.status_code,
        said.get("code") or "unknown",
        said.get("msg") or response.reason_phrase,
        float(after) if after.isdecimal() else None,
    )


class Patience:
    """Try again while there is hope: with pauses that double, and differ between clients.

    Parameters
    ----------
    seconds : float >= 0
        How long to go on without any progress.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.renew()

    def renew(self) -> None:
        """Begin anew: there was progress."""
        self._failures = 0

    def pause(self, error: ClientError) -> None:
        """Wait before the next try; raise the error if it is not one that passes, or there was enough of it."""
        if isinstance(error, Refused) and error.status not in _PASSING:
            raise error
        if not self._failures:
            # Not before: a request that fails may have made progress for hours.
            self._deadline = time.monotonic() + self._seconds
        longest = min(_FIRST_PAUSE_S * 2**self._failures, _LONGEST_PAUSE_S)
        pause_s = max(longest * random.uniform(0.5, 1.0), getattr(error, "retry_after_s", None) or 0.0)  # noqa: S311
        if time.monotonic() + pause_s > self._deadline:
            raise error
        self._failures += 1
        time.sleep(pause_s)

    def insist(self, call: Callable[[], T]) -> T:
        """Call until it succeeds."""
        while True:
            try:
                answer = call()
            except ClientError as error:
                self.pause(error)
            else:
                self.renew()
                return answer


class Notes:
    """Where uploads are that were begun: one small file each, in the user's state folder.

    Parameters
    ----------
    server : str
        The upload port, as the user names it.
    """

    def __init__(self, server: str) -> None:
        base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        self._folder = Path(base) / "spectrogram-predictor" / "uploads"
        self._server = server

    def get(self, sha256: str) -> str | None:
        """Return the URL of the upload of a file, if one was begun."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            url = json.loads(self._path(sha256).read_bytes())["url"]
            return url if re.fullmatch(rf"{re.escape(self._server)}/uploads/[0-9a-f]{{32}}", url) else None
        return None

    def set(self, sha256: str, url: str) -> None:
        """Note it; who cannot, sends all of it again another time."""
        path = self._path(sha256)
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Whoever knows the URL may send.
            descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w") as file:
                json.dump({"server": self._server, "sha256": sha256, "url": url}, file)
            scratch.replace(path)

    def drop(self, sha256: str) -> None:
        """Forget it."""
        with contextlib.suppress(OSError):
            self._path(sha256).unlink()

    def _path(self, sha256: str) -> Path:
        name = hashlib.sha256(f"{self._server} {sha256}".encode()).hexdigest()
        return self._folder / f"{name}.json"


@dataclass
class _Upload:
    """One file on its way, as far as this run knows.

    Attributes
    ----------
    path : Path
        The file.
    size : int
        Its bytes.
    sha256 : str
        Its digest.
    url : str or None
        What it is called at the server, if it is there.
    offset : int
        Bytes that are there.
    lost : bool
        The server had lost it once.
    state : str
        What the server says has become of it.
    noted : bool
        Another run has noted that, and this one has sent nothing yet.
    unsure : bool
        The server is to be asked how much is there.
    """

    path: Path
    size: int
    sha256: str
    url: str | None
    offset: int = 0
    lost: bool = False
    state: str = ""

    def __post_init__(self) -> None:
        """Believe a note of another run's only once the server has been asked."""
        self.noted = self.unsure = self.url is not None

    @property
    def complete(self) -> bool:
        """Whether all of it is there."""
        return self.url is not None and self.offset >= self.size

    def forget(self) -> None:
        """Begin anew."""
        self.url, self.offset, self.unsure = None, 0, False


class Transfer:
    """Send one file.

    Parameters
    ----------
    http : httpx.Client
        Does the requests.
    server : str
        The upload port.
    bearer : callable
        Returns the header with a token for a method and a path.
    patience_s : float >= 0
        How long to go on without progress.
    """

    def __init__(
        self, http: httpx.Client, server: str, bearer: Callable[[str, str], dict[str, str]], patience_s: float
    ) -> None:
        self._http = http
        self._server = server
        self._bearer = bearer
        self._patience = Patience(patience_s)
        self._notes = Notes(server)

    def send(self, path: Path, sha256: str, progress: Progress | None = None) -> None:
        """Send a file until all of it is there, from wherever it is.

        Raises
        ------
        Refused
            The server does not want it.
        NoAnswer
            There was no progress for too long; another call, or another run, goes on.
        """
        upload = _Upload(path, path.stat().st_size, sha256, self._notes.get(sha256))
        while not upload.complete:
            try:
                if upload.url is None:
                    self._begin(upload)
                elif upload.unsure:
                    self._locate(upload, upload.url)
                else:
                    self._append(upload, upload.url, progress)
            except Refused as error:
                self._patience.pause(self._meaning(upload, error))
            except NoAnswer as error:
                self._patience.pause(error)
        if upload.state == "promoted":
            # Until then, another run need not send it again.
            self._notes.drop(sha256)
        if progress:
            progress(upload.size, upload.size)

    def _begin(self, upload: "_Upload") -> None:
        values = {"sha256": upload.sha256, "filename": upload.path.name}
        metadata = ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())
        headers = {
            "Upload-Length": str(upload.size),
            "Upload-Metadata": metadata,
            **self._bearer("POST", "/uploads"),
        }
        location = self._request("POST", f"{self._server}/uploads", headers=headers).headers["Location"]
        upload.url = urljoin(f"{self._server}/", location)
        self._notes.set(upload.sha256, upload.url)
        if not upload.lost:
            self._patience.renew()

    def _locate(self, upload: "_Upload", url: str) -> None:
        """Ask how much of it is there."""
        told = self._request("HEAD", url).headers
        upload.state, offset = told.get("X-Model-State", ""), int(told["Upload-Offset"])
        other = int(told.get("Upload-Length", upload.size)) != upload.size
        if upload.noted and (upload.state == "rejected" or other):
            # What another run sent did not help, or is another file.
            upload.forget()
            return
        if offset > upload.offset:
            self._patience.renew()
        upload.offset, upload.unsure = offset, False

    def _append(self, upload: "_Upload", url: str, progress: Progress | None) -> None:
        """Send all that is not there yet, in one request."""
        upload.unsure, upload.noted = True, False
        headers = {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(upload.size - upload.offset),
            "Upload-Offset": str(upload.offset),
        }
        told = self._request("PATCH", url, headers=headers, content=_read(upload, progress)).headers
        upload.state, upload.offset = told.get("X-Model-State", ""), int(told["Upload-Offset"])

    def _meaning(self, upload: "_Upload", error: Refused) -> ClientError:
        """Return what a refusal means: the server's no, or only that it and we do not agree on what is there."""
        if upload.unsure and error.status in (404, 410):
            # It has expired, or was lost.
            upload.forget()
            upload.lost = True
            self._notes.drop(upload.sha256)
        elif error.code != "offset_mismatch":
            return error
        return NoAnswer(f"the server does not know where the upload is: {error}")

    def _request(
        self, method: str, url: str, headers: dict[str, str] | None = None, content: Any = None
    ) -> httpx.Response:
        named = {"Tus-Resumable": "1.0.0", **(headers or {})}
        try:
            return checked(self._http.request(method, url, headers=named, content=content))
        except (httpx.TransportError, httpx.StreamError) as error:
            raise NoAnswer(f"no answer from {url}: {error}") from error


def _read(upload: _Upload, progress: Progress | None) -> Iterator[bytes]:
    offset = upload.offset
    with upload.path.open("rb") as file:
        file.seek(offset)
        while chunk := file.read(min(_CHUNK, upload.size - offset)):
            yield chunk
            offset += len(chunk)
            if progress:
                progress(offset, upload.size)


@contextmanager
def shown(progress: Progress | bool, name: str) -> Iterator[Progress | None]:
    """Show a bar where a person looks, and a line after all elsewhere, unless told otherwise."""
    if not isinstance(progress, bool) or not progress:
        yield progress or None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    # Without them rich shows nothing in a notebook.
    if not (importlib.util.find_spec("ipywidgets") if console.is_jupyter else console.is_terminal):
        yield None
        print(f"uploaded {name}", file=sys.stderr)
        return
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(TextColumn("{task.description}"), *columns, console=console) as bars:
        task = bars.add_task(name, total=None)
        yield lambda sent, total: bars.update(task, completed=sent, total=total)
