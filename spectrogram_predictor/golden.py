"""Goldens: songs with known answers, which a model must give again wherever it is loaded.

Owns what a golden is, in a request and in storage, and whether an answer matches it. Never runs a model, never
touches storage.
"""

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from spectrogram_predictor.errors import BadRequest, Unprocessable
from spectrogram_predictor.fields import base64, check_extension

TOLERANCE = 1e-3
"""The largest difference that is no mismatch, where a golden does not say."""

MAX_GOLDENS = 32
MAX_BYTES = 48 * 2**20
"""Of all songs and rows of features of one registration together."""

MAX_NUMBERS = 2**16
"""In the expected answers of one registration together."""

_KEYS = {"song", "ext", "csv", "expected", "tolerance"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Golden:
    """A song, and what the model must answer to it.

    Parameters
    ----------
    song : str
        SHA-256 of the song's file.
    expected : nested list of float
        The model's output, with or without its batch of one.
    tolerance : float >= 0
        The largest difference of one number that is no mismatch.
    csv : str or None
        SHA-256 of the row of features that is sent with the song, if there is one.
    """

    song: str
    expected: Any
    tolerance: float = TOLERANCE
    csv: str | None = None

    @property
    def objects(self) -> tuple[str, ...]:
        """The digests of the content that it needs."""
        return (self.song, self.csv) if self.csv else (self.song,)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Read the stored form.

        Raises
        ------
        BadRequest, KeyError, TypeError
            It is not one.
        """
        digests = [fields["song"], *([fields["csv"]] if fields["csv"] is not None else [])]
        if not all(_SHA256.fullmatch(digest) for digest in digests):
            raise BadRequest("a golden's song is no SHA-256")
        return cls(fields["song"], _expected(fields["expected"]), _tolerance(fields["tolerance"]), fields["csv"])

    def check(self, output: NDArray[Any], labels: Sequence[str] = ()) -> None:
        """Accept a model's output if it is the expected one.

        Parameters
        ----------
        output : np.ndarray [shape=(1, ...)]
            What the model answers to the song.
        labels : sequence of str
            The names of a row's numbers.

        Raises
        ------
        Unprocessable
            It is not; with the largest difference.
        """
        expected, answered = np.asarray(self.expected), np.asarray(output[0], np.float64)
        if expected.shape not in (output.shape, answered.shape):
            raise Unprocessable(
                f"the expected answer has the shape {list(expected.shape)}, the model's {list(answered.shape)}"
            )
        expected = expected.reshape(answered.shape)
        differences = np.abs(answered - expected)
        if differences.max() > self.tolerance:
            worst = np.unravel_index(int(differences.argmax()), answered.shape)
            raise Unprocessable(
                f"largest difference {differences[worst]:.4g}, tolerance {self.tolerance:g} ("
                f"{_name(worst, labels)}: expected {expected[worst]:.4g}, answered {answered[worst]:.4g})"
            )


def parse(value: object) -> tuple[tuple[Golden, ...], dict[str, bytes]]:
    """Check the ``golden`` of a registration, a list of ``{"song", "ext", "csv", "expected", "tolerance"}``.

    Returns
    -------
    goldens : tuple of Golden
        In the order of the list.
    objects : dict of str to bytes
        Songs and rows of features, by their SHA-256.

    Raises
    ------
    BadRequest
        A key is missing, unknown or of the wrong type, or there is too much of something.
    """
    if not isinstance(value, list) or not all(isinstance(fields, dict) for fields in value):
        raise BadRequest("golden must be a list of objects")
    if len(value) > MAX_GOLDENS:
        raise BadRequest(f"golden: at most {MAX_GOLDENS}, not {len(value)}")
    objects: dict[str, bytes] = {}
    goldens = tuple(_parse(f"golden[{index}]", fields, objects) for index, fields in enumerate(value))
    if sum(map(len, objects.values())) > MAX_BYTES:
        raise BadRequest(f"golden: the songs are larger than {MAX_BYTES} bytes together")
    if sum(np.size(golden.expected) for golden in goldens) > MAX_NUMBERS:
        raise BadRequest(f"golden: more than {MAX_NUMBERS} numbers are expected together")
    return goldens, objects


def _parse(where: str, fields: Mapping[str, Any], objects: dict[str, bytes]) -> Golden:
    unknown = sorted(set(fields) - _KEYS)
    if unknown:
        raise BadRequest(f"unknown key {where}.{unknown[0][:40]}; it takes {', '.join(sorted(_KEYS))}")
    missing = [key for key in ("song", "expected") if key not in fields]
    if missing:
        raise BadRequest(f"{where}.{missing[0]} is missing")
    check_extension(fields.get("ext", ""), f"{where}.ext")
    try:
        expected = _expected(fields["expected"])
        tolerance = _tolerance(fields.get("tolerance", TOLERANCE))
    except BadRequest as error:
        raise BadRequest(f"{where}.{error.message}") from error
    csv = fields.get("csv")
    return Golden(
        _keep(f"{where}.song", fields["song"], objects),
        expected,
        tolerance,
        _keep(f"{where}.csv", csv, objects) if csv is not None else None,
    )


def _keep(where: str, text: object, objects: dict[str, bytes]) -> str:
    content = base64(text, where)
    digest = hashlib.sha256(content).hexdigest()
    objects[digest] = content
    return digest


def _expected(value: object) -> Any:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise BadRequest("expected must be an array: its rows differ in length") from error
    if array.dtype.kind not in "iuf" or not array.size or not np.isfinite(array).all():
        raise BadRequest("expected must be an array of finite numbers")
    return array.astype(np.float64).tolist()


def _name(index: Sequence[Any], labels: Sequence[str]) -> str:
    if len(index) == 1 and index[0] < len(labels):
        return str(labels[index[0]])
    return f"output {', '.join(str(number) for number in index)}".strip()


def _tolerance(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise BadRequest("tolerance must be a number of 0 or more")
    return float(value)
