"""What of a song is looked at, as a waveform of which rate, and in which windows: what a recipe says of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from spectrogram_predictor.recipe.schema import Document, Within

MAX_SECONDS = 3600.0

MAX_WINDOWS = 10_000
"""Most windows of one song."""


@dataclass(frozen=True, kw_only=True)
class Sound(Document):
    """How a file becomes a waveform.

    Parameters
    ----------
    sr : int [Hz]
        Rate that it is brought to.
    channels : "mean" or "first"
        How it is made mono.
    res_type : str
        The resampler, as ``librosa.load`` names it.
    """

    sr: Annotated[int, Within(1000, 192_000)] = 22050
    channels: Literal["mean", "first"] = "mean"
    res_type: Literal["soxr_vhq", "soxr_hq", "soxr_mq", "soxr_lq", "soxr_qq"] = "soxr_hq"


@dataclass(frozen=True, kw_only=True)
class Segment(Document):
    """Which part of a song is looked at.

    Parameters
    ----------
    part : "whole", "first" or "middle"
        The whole song, or so many of its seconds, if it has as many.
    seconds : float > 0 [s] or None
        How many; None for the whole song.
    pad : bool
        Whether a shorter song is continued with silence.
    """

    part: Literal["whole", "first", "middle"] = "whole"
    seconds: Annotated[float, Within(0.001, MAX_SECONDS)] | None = None
    pad: bool = False

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        if (self.part == "whole") != (self.seconds is None):
            yield (
                "seconds",
                f"must {'not be given' if self.part == 'whole' else 'be given'} for part {self.part!r}",
            )
        if self.pad and self.seconds is None:
            yield "pad", "needs seconds"


@dataclass(frozen=True, kw_only=True)
class Windows(Document):
    """Windows of the part, each a prediction of its own, and how these become one.

    Parameters
    ----------
    length, hop : float > 0
        Of a window, and from the beginning of one to that of the next.
    unit : "seconds" or "frames"
        What is cut: the sound, or the spectrogram of all of it.
    most : int > 0 or None
        The first so many are used.
    pad : bool
        Whether the last window, if incomplete, is continued with silence, or with a spectrogram's ``fill``, in
        place of being dropped.
    combine : "mean", "max", "vote" or "first"
        Mean or maximum of each output; the share of windows in which it is the largest; the first window's.
    """

    length: Annotated[float, Within(0.001, MAX_SECONDS * 1000)]
    hop: Annotated[float, Within(0.001, MAX_SECONDS * 1000)]
    unit: Literal["seconds", "frames"] = "seconds"
    most: Annotated[int, Within(1, 100_000)] | None = None
    pad: bool = False
    combine: Literal["mean", "max", "vote", "first"] = "mean"

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        for key in ("length", "hop"):
            value = getattr(self, key)
            if self.unit == "frames" and not value.is_integer():
                yield key, f"must be a whole number of frames, not {value}"
            if self.unit == "seconds" and value > MAX_SECONDS:
                yield key, f"must be at most {MAX_SECONDS:g} seconds, not {value:g}"

    def sizes(self, sr: int) -> tuple[int, int]:
        """Return length and hop in samples, or in frames."""
        unit = sr if self.unit == "seconds" else 1
        return round(self.length * unit), max(round(self.hop * unit), 1)

    def count(self, size: int, length: int, hop: int) -> int:
        """Return how many there are in so many samples or frames."""
        whole = 1 + (size - length) // hop if size >= length else 0
        covered = (whole - 1) * hop + length if whole else 0
        count = whole + (self.pad and max(covered, whole * hop) < size)
        return min(count, self.most or count)
