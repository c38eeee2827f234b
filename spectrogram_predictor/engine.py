"""What a worker process does: keep models loaded, turn a song into inputs, call the model.

Module-level state is this process's: one engine a worker, set up by `start`.
"""

import functools
import gc
import hashlib
import logging
import time
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from spectrogram_predictor import default, models
from spectrogram_predictor.errors import ModelNotFound, StorageUnavailable
from spectrogram_predictor.recipe import Recipe

logger = logging.getLogger(__name__)

_cached_models = 1
_models: dict[str, models.Model] = {}
"""By digest, the least recently used one first."""


def start(threads: int, cached_models: int) -> None:
    """Set up this process.

    Parameters
    ----------
    threads : int > 0
        TensorFlow's threads for one operation.
    cached_models : int > 0
        Models that stay loaded; the least recently used one leaves.
    """
    global _cached_models
    _cached_models = cached_models
    models.configure(threads)
    # The 400,000 objects of the libraries stay: without them, a collection takes 8 ms in place of 230.
    gc.collect()
    gc.freeze()


def inspect(path: Path, sha256: str, format: str, recipe: bytes | None = None) -> dict[str, Any]:  # noqa: A002
    """Load a model and say what it is.

    Parameters
    ----------
    path, sha256, format
        The model's file.
    recipe : bytes or None
        The JSON of its recipe; without one, see `default`.

    Returns
    -------
    description : dict
        ``format``, and ``inputs`` and ``outputs`` as in `models.Model`.

    Raises
    ------
    UnsupportedMedia, Unprocessable
        It cannot be served, or does not take what the recipe makes.
    ModelNotFound, Unavailable
        It cannot be read now.
    """
    try:
        return _describe(path, sha256, format, recipe)
    finally:
        gc.collect()


def predict(
    path: Path,
    sha256: str,
    format: str,  # noqa: A002
    song: bytes,
    csv: bytes | None,
    recipe: bytes | None = None,
) -> list[Any]:
    """Ask a model about a song.

    Parameters
    ----------
    path, sha256, format
        The promoted model's file.
    song : bytes
        The song's file.
    csv : bytes or None
        Its row of features.
    recipe : bytes or None
        The JSON of the model's recipe; without one, see `default`.

    Returns
    -------
    array : list
        The model's output, with the batch of one.
    """
    model = _cached(path, sha256, format)
    array: list[Any] = _answer(model, song, csv, recipe).tolist()
    return array


def _answer(model: models.Model, song: bytes, csv: bytes | None, recipe: bytes | None) -> NDArray[Any]:
    if recipe is None:
        return model(default.inputs(model.shapes, song, csv))
    given = _recipe(recipe)
    return given.combine(model(given.arrange(given.inputs(song, csv), model.inputs)))


_recipe = functools.lru_cache(maxsize=64)(Recipe.from_json)
"""Recipes by their JSON."""


def _describe(path: Path, sha256: str, format: str, recipe: bytes | None) -> dict[str, Any]:  # noqa: A002
    model = models.load(_verified(path, sha256), format)
    if recipe is None:
        default.check_shapes(model.shapes)
    else:
        _recipe(recipe).check_model(model.inputs, model.outputs)
    return {"format": format, "inputs": model.inputs, "outputs": model.outputs}


def _cached(path: Path, sha256: str, format: str) -> models.Model:  # noqa: A002
    model = _models.pop(sha256, None) or _load(_verified(path, sha256), sha256, format)
    _models[sha256] = model
    return model


def _load(path: Path, sha256: str, format: str) -> models.Model:  # noqa: A002
    began = time.monotonic()
    while len(_models) >= _cached_models:
        del _models[next(iter(_models))]
    # A Keras model is full of cycles: its weights would stay until Python next looks, after hundreds of loads.
    gc.collect()
    model = models.load(path, format)
    logger.info("loaded %s in %.2f s", sha256, time.monotonic() - began)
    return model


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
