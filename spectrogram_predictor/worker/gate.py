"""Whether a model file may be given to Keras: the container, every name in the configuration, every size.

What Keras makes of a file can run code, read other files and take any amount of memory; so what is not known to be
harmless is refused here, before Keras sees it. Never imports Keras.
"""

from pathlib import Path
from typing import Any

from spectrogram_predictor.errors import Unprocessable, UnsupportedMedia
from spectrogram_predictor.worker import architecture, archive, footprint, hdf5

MAX_PEAK = 2**26
"""Most numbers that a model may hold at a time for one window of a song, beside its weights: 256 MiB in single."""

SPARE_WEIGHTS = 2**20
"""Weights that a model may have beyond twice the numbers in its file: what is not kept, or counted too high."""


def check(path: Path, format: str, *, allow_custom: bool = False) -> int:  # noqa: A002
    """Check a model file, and return how many weights its model may have.

    Parameters
    ----------
    path : Path
        The file.
    format : str
        ``"h5"`` or ``"keras"``.
    allow_custom : bool
        Whether its layers of class Lambda may hold Python code. All else is checked as ever.

    Raises
    ------
    UnsupportedMedia, Unprocessable
        It may not; the message says what of it is why.
    """
    model, numbers = _from_hdf5(path) if format == "h5" else _from_archive(path)
    architecture.check(model, allow_custom=allow_custom)
    found, most = footprint.measure(model), 2 * numbers + SPARE_WEIGHTS
    if found.weights > most:
        raise Unprocessable(
            f"the model would have {found.weights:,} weights, and its file holds {numbers:,} numbers"
        )
    if found.peak > MAX_PEAK:
        raise Unprocessable(
            f"the model would hold {found.peak:,} numbers at a time for one window of a song;"
            f" the most is {MAX_PEAK:,}"
        )
    return most


def _from_hdf5(path: Path) -> tuple[Any, int]:
    with path.open("rb") as file:
        contents = hdf5.check(file)
    if contents.config is None:
        raise UnsupportedMedia("not a Keras model: an HDF5 file without a model in it")
    if contents.training is not None:
        architecture.check_training(architecture.parse(contents.training))
    return architecture.parse(contents.config), contents.numbers


def _from_archive(path: Path) -> tuple[Any, int]:
    with archive.opened(path) as opened:
        architecture.parse(opened.read("metadata.json", archive.MAX_METADATA_BYTES))
        model = architecture.parse(opened.read("config.json", architecture.MAX_BYTES))
        with opened.open("model.weights.h5") as weights:
            # What is compressed may become many times as much; weights do not.
            return model, min(hdf5.check(weights).numbers, opened.stored_bytes("model.weights.h5"))
