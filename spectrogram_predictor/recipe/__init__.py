"""How a song becomes a model's inputs, said so that a notebook and the server do the same.

A `Recipe` is a frozen description; `Recipe.inputs` follows it, by `spectrogram_predictor.recipe.inputs`. Names,
and what the numbers mean, are librosa's, PIL's and matplotlib's.
"""

import functools
import hashlib
import importlib.resources
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from spectrogram_predictor.errors import BadRequest, Unprocessable
from spectrogram_predictor.recipe import schema
from spectrogram_predictor.recipe.kinds import (
    MAX_TRANSFORMED,
    MAX_VALUES,
    Features,
    Framed,
    Input,
    Picture,
    Shape,
    Spectral,
)
from spectrogram_predictor.recipe.schema import Document, Fault, Length, Matching
from spectrogram_predictor.recipe.segments import MAX_WINDOWS, Segment, Sound, Windows
from spectrogram_predictor.sound.columns import MIN_SAMPLES

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Recipe(Document):
    """How a song becomes a model's inputs, and what its outputs are called.

    Parameters
    ----------
    model_inputs : sequence of Picture, Mel, Mfcc or Features
        What each of the model's inputs takes; ``inputs`` in JSON.
    sound : Sound
        How a file becomes a waveform.
    segment : Segment
        Which part of it is looked at.
    windows : Windows or None
        What that is cut into.
    labels : sequence of str
        Names of the outputs in order; may be empty.
    made_with : sequence of str
        Libraries of the notebook, like ``"librosa==0.11.0"``, for people to read.
    version : 1
        Of what the keys mean.

    Raises
    ------
    ValueError
        A value cannot be; the message begins with its key.
    """

    model_inputs: Annotated[tuple[Input, ...], Length(1, 6)] = field(metadata={"key": "inputs"})
    sound: Sound = field(default_factory=Sound)
    segment: Segment = field(default_factory=Segment)
    windows: Windows | None = None
    labels: Annotated[tuple[Annotated[str, Length(0, 200)], ...], Length(0, 10_000)] = ()
    made_with: Annotated[
        tuple[Annotated[str, Matching(r"[\w.-]{1,100}==[\w.+!-]{1,100}", "like librosa==0.11.0")], ...],
        Length(0, 100),
    ] = ()
    version: Literal[1] = 1

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield what does not go together."""
        yield from self._faults_of_windows()
        yield from self._faults_of_amounts()
        first = {label: number for number, label in reversed(list(enumerate(self.labels)))}
        for number, label in enumerate(self.labels):
            if first[label] < number:
                yield f"labels[{number}]", f"must be another than labels[{first[label]}]"
        names = [given.name for given in self.model_inputs]
        for number, given in enumerate(self.model_inputs):
            if given.name is not None and given.name in names[:number]:
                yield f"inputs[{number}].name", f"must be another than that of inputs[{names.index(given.name)}]"
            for key, said in self._faults_of_input(given):
                yield f"inputs[{number}].{key}", said

    def _faults_of_windows(self) -> Iterator[tuple[str, str]]:
        windows, seconds = self.windows, self.segment.seconds
        if windows is None or windows.pad or seconds is None:
            return
        if windows.unit == "seconds" and windows.length > seconds:
            yield "windows.length", f"must be at most segment.seconds, {seconds:g}, not {windows.length:g}"
        for number, given in enumerate(self.model_inputs):
            frames = self._most_frames(given)
            if windows.unit == "frames" and frames is not None and windows.length > frames:
                yield "windows.length", f"must be at most the frames of inputs[{number}], {frames}"

    def _faults_of_amounts(self) -> Iterator[tuple[str, str]]:
        """Look at how much there is together, as far as that is known before there is a song."""
        if self._least_windows > MAX_WINDOWS:
            yield "windows.hop", f"makes {self._least_windows} windows; the most is {MAX_WINDOWS}"
        values = transformed = 0
        for number, (given, shape) in enumerate(zip(self.model_inputs, self.shapes, strict=True)):
            values += self._least_windows * math.prod(size or 1 for size in shape)
            if values > MAX_VALUES:
                said = f"must be at most {MAX_VALUES} numbers, with those before it"
                yield f"inputs[{number}]", f"{said}; it is of shape {list(shape)}"
            if isinstance(given, Spectral) and self._samples is not None and (self.windows or self.segment.pad):
                transformed += self._least_windows * given.count_frames(self._samples) * given.n_fft
                if transformed > MAX_TRANSFORMED:
                    said = f"with n_fft makes {transformed} samples to transform; the most is {MAX_TRANSFORMED}"
                    yield f"inputs[{number}].hop_length", said

    def _faults_of_input(self, given: Input) -> Iterator[tuple[str, str]]:
        if isinstance(given, Spectral):
            yield from self._faults_of_spectrum(given)
        if isinstance(given, Picture) and given.crop and not given.canvas:
            frames = self._most_frames(given)
            if frames is not None and given.crop[2] > frames:
                yield "crop", f"must end inside of the picture, which has {frames} frames, not at {given.crop[2]}"
        in_frames = self.windows is not None and self.windows.unit == "frames"
        if in_frames and (not isinstance(given, Framed) or given.statistics):
            yield "kind", "cannot be cut into windows of frames: it has none"
        if in_frames and getattr(given, "frames", None):
            yield "frames", "must not be given where windows are cut in frames"
        if isinstance(given, Features) and not given.unknown:
            yield from self._faults_of_features()

    def _faults_of_spectrum(self, given: Spectral) -> Iterator[tuple[str, str]]:
        highest = self.sound.sr / 2
        if given.fmax is not None and given.fmax > highest:
            yield "fmax", f"must be at most half of sound.sr, {highest:g}, not {given.fmax:g}"
        if given.fmin >= highest:
            yield "fmin", f"must be below half of sound.sr, {highest:g}, not {given.fmin:g}"
        elif _first_bin_above(given.fmin, self.sound.sr, given.n_fft) >= (given.fmax or highest):
            yield "fmin", f"must leave a bin of the spectrum below {given.fmax or highest:g}, not {given.fmin:g}"
        if self._samples is not None and given.n_fft > self._samples:
            yield "n_fft", f"must be at most what is looked at, {self._samples} samples, not {given.n_fft}"

    def _faults_of_features(self) -> Iterator[tuple[str, str]]:
        if self.sound.sr != 22050:
            yield "kind", f"features are computed at a sound.sr of 22050 Hz, not {self.sound.sr}"
        if self._samples is not None and self._samples < MIN_SAMPLES:
            yield "columns", f"are computed from {MIN_SAMPLES} samples or more; {self._samples} are looked at"

    @classmethod
    def from_json(cls, value: bytes | str | Mapping[str, Any]) -> Self:
        """Read a recipe; what is left out has its default.

        Raises
        ------
        BadRequest
            It is no recipe; the message begins with the key at fault, ``recipe.inputs[0].n_mels`` for instance.
        """
        try:
            decoded = schema.loads(value) if isinstance(value, bytes | str) else value
            if not isinstance(decoded, Mapping):
                raise Fault("", "must be an object")
            return cls.from_mapping(decoded)
        except Fault as fault:
            raise BadRequest(str(fault.under("recipe"))) from fault

    @property
    def sha256(self) -> str:
        """Digest of the canonical JSON."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def inputs(self, song: bytes | str | PathLike[str], csv: bytes | None = None) -> "list[NDArray[Any]]":
        """Make a model's inputs from a song: what a notebook trains on, and the server predicts from.

        Parameters
        ----------
        song : bytes or path
            The file, or where it is.
        csv : bytes or None
            One row of numbers under their names, for `Features`; without it they are computed.

        Returns
        -------
        arrays : list of np.ndarray [shape=(windows, ...)]
            One an input, in the recipe's order.

        Raises
        ------
        Unprocessable, UnsupportedMedia, TooLarge
            The song or the csv cannot be used.
        """
        from spectrogram_predictor.recipe import inputs  # where the libraries are: a server only reads recipes

        return inputs.make(self, song, csv)

    @property
    def shapes(self) -> list[Shape]:
        """The arrays' shapes, without that of the windows; None where the song decides."""
        return [given.shape(self._frames(given)) for given in self.model_inputs]

    def _frames(self, given: Input) -> int | None:
        if self.windows and self.windows.unit == "frames":
            return int(self.windows.length)
        # A part may be shorter than it should be, a window is not.
        if self._samples is None or not (self.windows or self.segment.pad) or not isinstance(given, Spectral):
            return None
        return given.count_frames(self._samples)

    def _most_frames(self, given: Input) -> int | None:
        """How many frames there are, if the song is as long as what is looked at, or longer."""
        if self._samples is None or not isinstance(given, Spectral):
            return None
        return given.count_frames(self._samples)

    @property
    def _least_windows(self) -> int:
        """How many there are at least."""
        windows, seconds = self.windows, self.segment.seconds
        if windows is None or windows.unit == "frames" or seconds is None or not self.segment.pad:
            return 1
        return windows.count(round(seconds * self.sound.sr), *windows.sizes(self.sound.sr))

    @property
    def _samples(self) -> int | None:
        """How many samples are looked at together, at most."""
        in_seconds = self.windows and self.windows.unit == "seconds"
        seconds = self.windows.length if self.windows and in_seconds else self.segment.seconds
        return None if seconds is None else round(seconds * self.sound.sr)

    def check_model(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Accept a model that takes what this recipe makes.

        Parameters
        ----------
        inputs, outputs : sequence of mapping
            As in `models.Model`.

        Raises
        ------
        Unprocessable
            It takes something else, or answers another number than there are labels; the message has the key.
        """
        self._order(self.shapes, inputs)
        size = outputs[0]["shape"][-1] if outputs and outputs[0]["shape"] else None
        if self.labels and size not in (None, len(self.labels)):
            raise Unprocessable(
                f"recipe.labels: there are {len(self.labels)}, but the model answers {size} numbers"
            )

    def arrange(
        self, arrays: "Sequence[NDArray[Any]]", inputs: Sequence[Mapping[str, Any]]
    ) -> "list[NDArray[Any]]":
        """Return the recipe's arrays in the order of a model's inputs.

        Raises
        ------
        Unprocessable
            The model takes something else.
        """
        return [arrays[number] for number in self._order([array.shape[1:] for array in arrays], inputs)]

    def _order(self, shapes: Sequence[Shape], inputs: Sequence[Mapping[str, Any]]) -> tuple[int, ...]:
        """Find which of the recipe's inputs goes into each of the model's."""
        takes = ", ".join(f"{item['name']} {list(item['shape'])}" for item in inputs)
        if len(shapes) != len(inputs):
            raise Unprocessable(f"recipe.inputs: there are {len(shapes)}, the model takes {len(inputs)}: {takes}")
        names = [given.name for given in self.model_inputs]
        for number, (name, shape) in enumerate(zip(names, shapes, strict=True)):
            if not any(_fits(name, shape, item) for item in inputs):
                called = f" for {name!r}" if name else ""
                raise Unprocessable(
                    f"recipe.inputs[{number}]: it makes {list(shape)}{called}, the model takes {takes}"
                )
        for order in itertools.permutations(range(len(shapes))):
            if all(_fits(names[at], shapes[at], item) for at, item in zip(order, inputs, strict=True)):
                return order
        raise Unprocessable(
            f"recipe.inputs: they make {[list(shape) for shape in shapes]}, the model takes {takes}"
        )

    def combine(self, output: "NDArray[Any]") -> "NDArray[Any]":
        """Make one answer of those to the windows.

        Parameters
        ----------
        output : np.ndarray [shape=(windows, ...)]
            The model's.

        Returns
        -------
        output : np.ndarray [shape=(1, ...)]
        """
        how = self.windows.combine if self.windows else "first"
        if how == "first":
            return output[:1]
        if how == "vote":
            largest = (output == output.max(axis=-1, keepdims=True)).astype(output.dtype)
            output = largest / largest.sum(axis=-1, keepdims=True)
        combined: NDArray[Any] = (output.max if how == "max" else output.mean)(axis=0, keepdims=True)
        return combined


def _first_bin_above(hz: float, sr: int, n_fft: int) -> float:
    """Return the frequency of a spectrum's first bin above another [Hz]; what no filter reaches is silence."""
    width = sr / n_fft
    return (hz // width + 1) * width


def _fits(name: str | None, shape: Shape, item: Mapping[str, Any]) -> bool:
    """Tell whether an array can be what a model's input takes; None fits any size."""
    if name not in (None, item["name"]) or len(shape) != len(item["shape"]):
        return False
    return all(None in pair or pair[0] == pair[1] for pair in zip(shape, item["shape"], strict=True))


@functools.cache
def named(name: str) -> Recipe:
    """Return a recipe that comes with this package.

    Parameters
    ----------
    name : str
        ``"genreml-2020"``: the picture of the 2020 system. ``"gtzan-pictures"``: that of the public GTZAN set.
        ``"gtzan-features"``: the 58 columns of its table.

    Raises
    ------
    BadRequest
        There is none of this name.
    """
    if name not in names():
        raise BadRequest(f"recipe: there is no {name[:40]!r}; there are {', '.join(names())}")
    return Recipe.from_json((_shipped() / f"{name}.json").read_bytes())


def names() -> list[str]:
    """Return the names of the recipes that come with this package."""
    return sorted(path.name.removesuffix(".json") for path in _shipped().iterdir() if path.name.endswith(".json"))


def _shipped() -> Any:
    return importlib.resources.files(__package__) / "shipped"
