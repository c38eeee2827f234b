"""Answers that were given before, by everything that they depend on: the song, its features, the model's terms."""

import hashlib
from typing import Any

from spectrogram_predictor import answers

_MOST_NUMBERS = 10_000


class Memo:
    """Keep the latest answers.

    Parameters
    ----------
    most : int >= 0
        How many; the one that was asked for least recently goes. 0 keeps none, and hashes nothing.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[str, list[Any]] = {}

    def name(self, terms: str, song: bytes, csv: bytes | None) -> str | None:
        """Return what an answer is kept under, or None if none is.

        Parameters
        ----------
        terms : str
            Names the model and all that it is served under: see `registration.Terms`.
        song : bytes
            The song's file.
        csv : bytes or None
            Its row of features.
        """
        if not self._most:
            return None
        parts = [hashlib.sha256(part).hexdigest() for part in (song, csv) if part is not None]
        return " ".join([terms, *parts])

    def get(self, name: str | None) -> list[Any] | None:
        """Return the answer of that name, if it is here."""
        if name is None or (array := self._kept.pop(name, None)) is None:
            return None
        self._kept[name] = array
        return array

    def put(self, name: str | None, array: list[Any]) -> None:
        """Keep an answer, if it is not very large."""
        if name is None or answers.count(array) > _MOST_NUMBERS:
            return
        while len(self._kept) >= self._most:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = array
