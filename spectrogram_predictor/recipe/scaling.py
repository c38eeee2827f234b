"""How the numbers of a model's input are scaled: what can be said of it in a recipe."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from spectrogram_predictor.recipe.schema import Document, Length, Within

MAX_BINS = 2**16

Positive = Annotated[float, Within(1e-300, 1e300)]
Float32 = Annotated[float, Within(-3e38, 3e38)]
Numbers = Float32 | Annotated[tuple[Float32, ...], Length(1, MAX_BINS)]
Scales = Positive | Annotated[tuple[Positive, ...], Length(1, MAX_BINS)]


@dataclass(frozen=True, kw_only=True)
class Standard(Document):
    """Scale by numbers of the training set: ``(x - mean) / scale``, as scikit-learn's StandardScaler.

    Parameters
    ----------
    mean, scale : float or sequence of float
        One for all, or one for each feature or frequency bin. Pixels are divided by 255 with ``scale=255``.
    """

    kind: Literal["standard"] = "standard"
    mean: Numbers = 0.0
    scale: Scales = 1.0

    @property
    def size(self) -> int:
        """How many bins it is for; 1 for any number."""
        return max(len(values) if isinstance(values, tuple) else 1 for values in (self.mean, self.scale))

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        for key, values in (("mean", self.mean), ("scale", self.scale)):
            if isinstance(values, tuple) and len(values) != self.size:
                yield key, f"must have {self.size} numbers, not {len(values)}"


@dataclass(frozen=True, kw_only=True)
class MinMax(Document):
    """Scale each window by its own range.

    Parameters
    ----------
    low, high : float
        What its minimum becomes, and its maximum. A window of silence, in a song with others, becomes ``low``.
    """

    kind: Literal["minmax"] = "minmax"
    low: Float32 = 0.0
    high: Float32 = 1.0

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        # As the numbers that they become.
        if struct.pack("f", self.low) == struct.pack("f", self.high):
            yield "high", f"must be another number than low, {self.low:g}: all songs would be the same"


@dataclass(frozen=True, kw_only=True)
class ZScore(Document):
    """Scale each window by its own mean and standard deviation: ``(x - x.mean()) / x.std()``.

    A window of silence, in a song with others, becomes zeros.
    """

    kind: Literal["zscore"] = "zscore"
