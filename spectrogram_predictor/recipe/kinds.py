"""The kinds of a model's inputs: what can be said of each in a recipe.

Names, and what the numbers mean, are librosa's, PIL's and matplotlib's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from spectrogram_predictor.recipe.scaling import Float32, MinMax, Standard, ZScore
from spectrogram_predictor.recipe.schema import Document, Length, Within
from spectrogram_predictor.sound.columns import GTZAN_COLUMNS

Shape = tuple[int | None, ...]

MAX_VALUES = 2**26
"""Most numbers that a song's arrays may be, together: 268 MB as float32."""

MAX_TRANSFORMED = 2**32
"""Most samples that a song's spectrograms transform together, frames × n_fft: half a minute of a processor."""

MAX_CANVAS = 2**22
"""Most pixels of a canvas."""

MAX_PIXELS = 2**13

Pixels = Annotated[int, Within(1, MAX_PIXELS)]
Colours = Literal["Greys", "gray", "gray_r", "inferno", "magma", "plasma", "viridis"]
Reference = Annotated[float, Within(1e-18, 1e18)]
"""Its square is a number in single precision."""

Column = Annotated[str, Length(1, 200)]


@dataclass(frozen=True, kw_only=True)
class _Input(Document):
    """What all inputs have.

    Parameters
    ----------
    name : str or None
        Of the model's input. Inputs without a name are matched by their shape, and then by their order.
    channels : 0, 1 or 3
        Size of a last axis; 0 for none. More than one repeat a single one.
    scaling : Standard, MinMax, ZScore or None
        Of the numbers, last of all.
    dtype : str
        Of the array; a model's inputs are cast to its own.
    """

    name: Annotated[str, Length(1, 200)] | None = None
    channels: Literal[0, 1, 3] = 0
    scaling: Standard | MinMax | ZScore | None = None
    dtype: Literal["float16", "float32", "float64"] = "float32"

    def _faults_of_scaling(self, bins: int) -> Iterator[tuple[str, str]]:
        if isinstance(self.scaling, Standard) and self.scaling.size not in (1, bins):
            yield "scaling", f"must be for one number or {bins}, not for {self.scaling.size}"


@dataclass(frozen=True, kw_only=True)
class Spectral(_Input):
    """A mel spectrogram.

    Parameters
    ----------
    n_fft, hop_length, n_mels, fmin, fmax, power, pad_mode
        As in ``librosa.feature.melspectrogram``, which continued a song by reflection before 0.9, and does with
        zeros since.
    db : "power", "amplitude" or None
        ``power_to_db``, ``amplitude_to_db``, or no decibels.
    ref : float > 0 or "max"
        What is 0 dB.
    top_db : float > 0 [dB] or None
        Nothing is further below the maximum.
    """

    n_fft: Annotated[int, Within(16, 2**16)] = 2048
    hop_length: Annotated[int, Within(1, 2**16)] = 512
    n_mels: Annotated[int, Within(1, 512)] = 128
    fmin: Annotated[float, Within(0, 96_000)] = 0.0
    fmax: Annotated[float, Within(1, 96_000)] | None = None
    power: Literal[1, 2] = 2
    pad_mode: Literal["constant", "reflect"] = "constant"
    db: Literal["power", "amplitude"] | None = "power"
    ref: Reference | Literal["max"] = 1.0
    top_db: Annotated[float, Within(1e-3, 1e3)] | None = 80.0

    def count_frames(self, samples: int) -> int:
        """Return how many frames a waveform of so many samples has."""
        return 1 + (samples - self.n_fft % 2) // self.hop_length

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        if self.fmax is not None and self.fmax <= self.fmin:
            yield "fmax", f"must be above fmin, {self.fmin:g}, not {self.fmax:g}"


@dataclass(frozen=True, kw_only=True)
class Framed(Spectral):
    """A spectrogram as an array.

    Parameters
    ----------
    layout : "frequency-major" or "time-major"
        Bins and frames, as librosa has it, or frames and bins.
    frames : int > 0 or None
        How many: the first of them, or all and then ``fill``; None for as many as there are.
    fill : float
        What follows the last frame.
    statistics : sequence of "mean", "std", "var", "min", "max"
        What of each bin over time is used in place of the frames, one statistic after the other.
    """

    layout: Literal["frequency-major", "time-major"] = "frequency-major"
    frames: Annotated[int, Within(1, 2**20)] | None = None
    fill: Float32 = 0.0
    statistics: Annotated[tuple[Literal["mean", "std", "var", "min", "max"], ...], Length(0, 5)] = ()

    @property
    def bins(self) -> int:
        """How many numbers a frame has."""
        return self.n_mels

    def shape(self, frames: int | None) -> Shape:
        """Return an array's shape; `frames` are those of the sound, if known."""
        frames = self.frames or frames
        sides: Shape = (self.bins, frames) if self.layout == "frequency-major" else (frames, self.bins)
        if self.statistics:
            sides = (self.bins * len(self.statistics),)
        return (*sides, self.channels) if self.channels else sides

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        yield from super().faults()
        yield from self._faults_of_scaling(self.bins * (len(self.statistics) or 1))


@dataclass(frozen=True, kw_only=True)
class Mel(Framed):
    """A mel spectrogram; by default in decibels."""

    kind: Literal["mel"] = "mel"


@dataclass(frozen=True, kw_only=True)
class Mfcc(Framed):
    """Mel-frequency cepstral coefficients, as ``librosa.feature.mfcc``.

    Parameters
    ----------
    n_mfcc : int > 0
        How many of them, at most ``n_mels``.
    """

    kind: Literal["mfcc"] = "mfcc"
    n_mfcc: Annotated[int, Within(1, 512)] = 20

    @property
    def bins(self) -> int:
        """How many numbers a frame has."""
        return self.n_mfcc

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        yield from super().faults()
        if self.n_mfcc > self.n_mels:
            yield "n_mfcc", f"must be at most n_mels, {self.n_mels}, not {self.n_mfcc}"


@dataclass(frozen=True, kw_only=True)
class ImageCanvas(Document):
    """``imshow(levels, aspect="auto", cmap=...)`` over a whole canvas.

    Parameters
    ----------
    height, width : int > 0 [pixels]
        The canvas.
    cmap : str
        matplotlib's colour map.
    matplotlib : "3.3", "3.10" or "3.11"
        The release that it is drawn like; 3.3 stands for all up to 3.9.
    """

    kind: Literal["image"] = "image"
    height: Pixels = 480
    width: Pixels = 640
    cmap: Colours = "viridis"
    matplotlib: Literal["3.3", "3.10", "3.11"] = "3.10"

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        yield from _faults_of_canvas(self.height, self.width)


@dataclass(frozen=True, kw_only=True)
class MeshCanvas(Document):
    """``pcolormesh(levels, cmap=...)`` in axes on a white canvas, as ``librosa.display.specshow`` draws.

    Parameters
    ----------
    height, width : int > 0 [pixels]
        The canvas.
    box : tuple of float [pixels]
        The axes' left, top, right and bottom.
    cmap : str
        matplotlib's colour map.
    snap : bool
        Whether cells are moved to whole pixels: matplotlib's default since 3.4.
    frame : bool
        Whether the axes have a black frame.
    """

    kind: Literal["mesh"] = "mesh"
    height: Pixels
    width: Pixels
    box: tuple[float, float, float, float]
    cmap: Colours = "viridis"
    snap: bool = True
    frame: bool = True

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        yield from _faults_of_canvas(self.height, self.width)
        left, top, right, bottom = self.box
        # The frame is drawn on the pixels after the axes.
        if not (0 <= left < right <= self.width - self.frame and 0 <= top < bottom <= self.height - self.frame):
            yield "box", "must be left, top, right, bottom, inside of the canvas, with the frame if there is one"


@dataclass(frozen=True, kw_only=True)
class Picture(Spectral):
    """A spectrogram drawn in 256 levels between its minimum and its maximum.

    Parameters
    ----------
    flip, invert : bool
        Turn the levels over, so that low frequencies are at the bottom; make loud dark.
    canvas : ImageCanvas, MeshCanvas or None
        What it is drawn on; None for one pixel a bin and frame, in grey.
    mode : "L" or "RGB"
        Grey as PIL makes it, or colours, which need 3 channels.
    crop : tuple of int [pixels] or None
        Left, top, right, bottom of what is cut out.
    height, width : int > 0 [pixels] or None
        What that is resized to.
    resample : str
        PIL's filter for it.
    """

    kind: Literal["picture"] = "picture"
    channels: Literal[0, 1, 3] = 1
    flip: bool = True
    invert: bool = False
    canvas: ImageCanvas | MeshCanvas | None = None
    mode: Literal["L", "RGB"] = "L"
    crop: tuple[int, int, int, int] | None = None
    height: Pixels | None = None
    width: Pixels | None = None
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bicubic"

    def shape(self, frames: int | None) -> Shape:
        """Return an array's shape; `frames` are those of the sound, if known."""
        sides: Shape = (self.canvas.height, self.canvas.width) if self.canvas else (self.n_mels, frames)
        if self.crop:
            sides = (self.crop[3] - self.crop[1], self.crop[2] - self.crop[0])
        sides = (self.height or sides[0], self.width or sides[1])
        return (*sides, self.channels) if self.channels else sides

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        yield from super().faults()
        yield from self._faults_of_scaling(1)
        if self.mode == "RGB" and not (self.canvas and self.channels == 3):
            yield "mode", "'RGB' needs a canvas and 3 channels"
        if self.crop:
            left, top, right, bottom = self.crop
            width, height = (self.canvas.width, self.canvas.height) if self.canvas else (MAX_PIXELS, self.n_mels)
            if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                yield "crop", "must be left, top, right, bottom, inside of the picture"


@dataclass(frozen=True, kw_only=True)
class Features(_Input):
    """A row of numbers by name: of the client's CSV, or computed.

    Parameters
    ----------
    columns : sequence of str
        Names. Where all are the public GTZAN table's, they are computed from a song that comes without a CSV.
    convention : "table" or "librosa"
        Compute them as the table was made, with librosa before 0.9, or as librosa does since.
    """

    kind: Literal["features"] = "features"
    columns: Annotated[tuple[Column, ...], Length(1, 1000)] = GTZAN_COLUMNS
    convention: Literal["table", "librosa"] = "table"

    @property
    def unknown(self) -> tuple[str, ...]:
        """The columns that cannot be computed: a CSV must have them."""
        return tuple(column for column in self.columns if column not in GTZAN_COLUMNS)

    def shape(self, frames: int | None) -> Shape:  # noqa: ARG002  # there are none
        """Return an array's shape."""
        return (len(self.columns), self.channels) if self.channels else (len(self.columns),)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        yield from self._faults_of_scaling(len(self.columns))


def _faults_of_canvas(height: int, width: int) -> Iterator[tuple[str, str]]:
    if height * width > MAX_CANVAS:
        yield "height", f"and width must be at most {MAX_CANVAS} pixels together, not {height * width}"


Input = Picture | Mel | Mfcc | Features
