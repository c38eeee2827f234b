"""What a worker process does: keep models loaded, turn a song into inputs, call the model.

Module-level state is this process's: one engine a worker, set up by `start`.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrogram_predictor import budget, memory
from spectrogram_predictor.errors import (
    BadRequest,
    ModelNotFound,
    OutOfService,
    SpectrogramPredictorError,
    StorageUnavailable,
    TooLarge,
    Unavailable,
    Unprocessable,
    UnsupportedMedia,
)
from spectrogram_predictor.recipe import Recipe, default
from spectrogram_predictor.registration import Registration, Terms
from spectrogram_predictor.worker import models, warmth

logger = logging.getLogger(__name__)

MAX_GOLDEN_S = 20.0
"""Most of a processor's time that the goldens of a model may take to be promoted: they delay its every load."""

_UNFIT = (BadRequest, TooLarge, Unprocessable, UnsupportedMedia)

_FILE_SHARE = 3
_IN_USE_S = 60.0
_LARGE_BYTES = 2**24

MAX_BATCH = 64
"""Most windows of a song that a model is called on at a time."""


@dataclass
class _Served:
    """A loaded model, and the terms under which it has proved itself."""

    model: models.Model
    file_bytes: int
    runs_code: bool
    terms: Terms | None = None
    recipe: Recipe | None = None
    used: float = field(default_factory=time.monotonic)


class _Failed(Unavailable):
    """A golden could not be predicted, for a reason that is nobody's fault that is known."""


_cached_models = 1
_memory_bytes = 2**31
_models: dict[str, _Served] = {}
"""By digest, the least recently used one first."""

_withdrawn: dict[str, tuple[bytes, str]] = {}
"""By digest, those out of service: under which registration, and why."""


def start(threads: int, cached_models: int, memory_bytes: int) -> Callable[[], list[str]]:
    """Set up this process.

    Parameters
    ----------
    threads : int > 0
        TensorFlow's threads for one operation.
    cached_models : int > 0
        Models that stay loaded; the least recently used one leaves.
    memory_bytes : int > 0
        What this process should take at most: the files of the models that stay loaded are a third of that, or
        there is only one.

    Returns
    -------
    held : callable
        Returns the `Terms.name` of what is loaded and has proved itself.
    """
    global _cached_models, _memory_bytes
    _cached_models, _memory_bytes = cached_models, memory_bytes
    models.configure(threads)
    warmth.warm_libraries()
    # The 400,000 objects of the libraries.
    memory.settle()
    return _held


def hold(path: Path, sha256: str, format: str, terms: Terms) -> None:  # noqa: A002
    """Load a model that may be asked about soon, if there is room; those that are asked about now go first.

    Raises
    ------
    OutOfService
        It does not answer its goldens as it must.
    """

    if sha256 in _models or warmth.patiently(_make_room, path, _IN_USE_S):
        warmth.patiently(_proven, path, sha256, format, terms)


def _held() -> list[str]:
    return [served.terms.name for served in _models.values() if served.terms]


def inspect(path: Path, sha256: str, format: str, terms: Terms) -> dict[str, Any]:  # noqa: A002
    """Check a model's file, load it, predict its goldens, and say what it is.

    Returns
    -------
    description : dict
        ``format``, and ``inputs`` and ``outputs`` as in `models.Model`.

    Raises
    ------
    UnsupportedMedia, Unprocessable
        It cannot be served, or does not answer its goldens as it must.
    ModelNotFound, Unavailable
        It cannot be read now, or a golden fails in a way that nobody foresaw.
    """
    with _letting_go(sha256):
        return warmth.patiently(_describe, path, sha256, format, terms)


def predict(path: Path, sha256: str, format: str, terms: Terms, song: bytes, csv: bytes | None) -> list[Any]:  # noqa: A002
    """Ask a model about a song.

    Parameters
    ----------
    path, sha256, format
        The promoted model's file.
    terms : Terms
        What it is served under.
    song : bytes
        The song's file.
    csv : bytes or None
        Its row of features.

    Returns
    -------
    array : list
        The model's output, with the batch of one.

    Raises
    ------
    OutOfService
        In this worker, it does not answer its goldens as it must.
    Unavailable
        There is no memory for the song or the model now.
    """
    with _letting_go(sha256):
        served = _proven(path, sha256, format, terms)
        array: list[Any] = _answer(served.model, served.recipe, song, csv).tolist()
    return array


def _answer(model: models.Model, recipe: Recipe | None, song: bytes, csv: bytes | None) -> NDArray[Any]:
    if recipe is None:
        return model(default.inputs(model.shapes, song, csv))
    arrays = recipe.arrange(recipe.inputs(song, csv), model.inputs)
    outputs = []
    for start in range(0, len(arrays[0]), MAX_BATCH):
        outputs.append(model([array[start : start + MAX_BATCH] for array in arrays]))
        budget.check()
    return recipe.combine(np.concatenate(outputs))


def _describe(path: Path, sha256: str, format: str, terms: Terms) -> dict[str, Any]:  # noqa: A002
    served, keep = _take(sha256, terms), True
    if served is None:
        keep = _make_room(_verified(path, sha256), _IN_USE_S)
        served = _load(path, sha256, format, terms)
    try:
        with budget.limited(
            MAX_GOLDEN_S, f"the goldens take longer than {MAX_GOLDEN_S:g} s: send fewer, or shorter songs"
        ):
            served.recipe = _prove(served.model, sha256, terms)
        served.terms = terms
        if keep:
            # It is going to be asked.
            _models[sha256] = served
            _withdrawn.pop(sha256, None)
        return {"format": format, "inputs": served.model.inputs, "outputs": served.model.outputs}
    finally:
        del served
        memory.give_back()


def _proven(path: Path, sha256: str, format: str, terms: Terms) -> _Served:  # noqa: A002
    """Return a loaded model that has answered the goldens of these terms as it must."""
    under, message = _withdrawn.get(sha256, (b"", ""))
    if under == terms.registration:
        raise OutOfService(message)
    served = _take(sha256, terms)
    if served is None:
        _make_room(_verified(path, sha256))
        try:
            served = _load(path, sha256, format, terms)
        except _Failed as error:
            raise _withdraw(sha256, terms, error.message) from error
    served.used = time.monotonic()
    # Kept before it has proved itself: what it needs for that may be away now.
    _models[sha256] = served
    if served.terms is None or served.terms.registration != terms.registration:
        try:
            served.recipe = _prove(served.model, sha256, terms)
        except (Unprocessable, _Failed) as error:
            raise _withdraw(sha256, terms, error.message) from error
        served.terms = terms
        _withdrawn.pop(sha256, None)
    return served


@contextmanager
def _foreseen(sha256: str, otherwise: str) -> Iterator[None]:
    """Let pass what is foreseen, and turn any other error into one that may be this worker's alone."""
    try:
        yield
    except SpectrogramPredictorError:
        raise
    except Exception as error:
        models.raise_if_passing(error)
        logger.exception("%s: %s", sha256, otherwise)
        raise _Failed(f"{otherwise}: {models.public(error)}") from error


@contextmanager
def _letting_go(sha256: str) -> Iterator[None]:
    """Let other models go if there is not enough memory beside them: there may be at the next try."""
    try:
        yield
    except (MemoryError, models.OutOfMemory) as error:
        for other in [one for one in _models if one != sha256]:
            del _models[other]
        memory.give_back()
        if isinstance(error, models.OutOfMemory):
            raise
        raise models.OutOfMemory("there is no memory for this song now") from error


def _withdraw(sha256: str, terms: Terms, reason: str) -> OutOfService:
    _models.pop(sha256, None)
    message = f"the model is out of service in this worker: {reason}"
    _withdrawn[sha256] = (terms.registration, message)
    logger.error("%s: %s", sha256, message)
    return OutOfService(message)


def _prove(model: models.Model, sha256: str, terms: Terms) -> Recipe | None:
    """Check that a model can be served under these terms, and return their recipe.

    The model's first calls, which are slow, are made here.
    """
    registration = Registration.from_json(terms.registration, sha256)
    recipe = registration.recipe
    if recipe is None:
        default.check_shapes(model.shapes)
    else:
        recipe.check_model(model.inputs, model.outputs)
    for number, golden in enumerate(registration.golden, 1):
        song = _content(terms, golden.song)
        csv = _content(terms, golden.csv) if golden.csv else None
        try:
            with _foreseen(sha256, f"golden {number} cannot be predicted"):
                golden.check(_answer(model, recipe, song, csv), registration.names)
            budget.check()
        except _UNFIT as error:
            raise Unprocessable(f"golden {number}: {error.message}") from error
    return recipe


def _load(path: Path, sha256: str, format: str, terms: Terms) -> _Served:  # noqa: A002
    began = time.monotonic()
    # At every load: what was promoted before there was this gate, or under another, has not been through it.
    allow_custom = _allows_code(sha256, terms)
    model = models.load(path, format, allow_custom=allow_custom)
    with _foreseen(sha256, "it cannot be called"):
        warmth.warm_model(model)
    if path.stat().st_size > _LARGE_BYTES:
        # Keras reads and builds as much again as it keeps.
        memory.give_back()
    logger.info("loaded %s in %.2f s", sha256, time.monotonic() - began)
    return _Served(model, path.stat().st_size, allow_custom)


def _take(sha256: str, terms: Terms) -> _Served | None:
    """Take a loaded model out, unless it was let past the gate by a permission that these terms do not give."""
    served = _models.pop(sha256, None)
    return served if served and (not served.runs_code or _allows_code(sha256, terms)) else None


def _allows_code(sha256: str, terms: Terms) -> bool:
    return Registration.from_json(terms.registration, sha256).allow_custom


def _make_room(path: Path, unused_s: float = 0.0) -> bool:
    """Let models go that were not asked for so long, until there is room for another; tell whether there is."""
    try:
        most_bytes = _memory_bytes // _FILE_SHARE - path.stat().st_size
    except FileNotFoundError as error:
        raise ModelNotFound("the model's file is gone") from error
    while _models and (
        len(_models) >= _cached_models or sum(served.file_bytes for served in _models.values()) > most_bytes
    ):
        oldest = next(iter(_models))
        if time.monotonic() - _models[oldest].used < unused_s:
            return False
        del _models[oldest]
    memory.give_back()
    return True


def _content(terms: Terms, sha256: str) -> bytes:
    try:
        content = terms.files[sha256].read_bytes()
    except OSError as error:
        raise StorageUnavailable(f"a golden cannot be read now: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise StorageUnavailable("a stored golden is damaged: register the model again")
    return content


def _verified(path: Path, sha256: str) -> Path:
    # A flipped bit in an HDF5 file loads without an error: only the digest tells.
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ModelNotFound("the model's file is gone") from error
    except OSError as error:
        raise StorageUnavailable(f"the model cannot be read now: {error.strerror}") from error
    if digest != sha256:
        raise StorageUnavailable("the stored model is damaged: its digest is not its name")
    return path
