"""From a song to a model's inputs, as a recipe says: the one way, for notebooks and for the server."""

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrogram_predictor import budget
from spectrogram_predictor.errors import TooLarge, Unprocessable
from spectrogram_predictor.recipe import Recipe
from spectrogram_predictor.recipe.kinds import (
    MAX_TRANSFORMED,
    MAX_VALUES,
    Features,
    Framed,
    ImageCanvas,
    Input,
    Mfcc,
    Picture,
    Spectral,
)
from spectrogram_predictor.recipe.scaling import MinMax, Standard, ZScore
from spectrogram_predictor.recipe.segments import MAX_WINDOWS, Windows
from spectrogram_predictor.sound import audio, features, pictures, spectra
from spectrogram_predictor.sound.audio import Waveform
from spectrogram_predictor.sound.spectra import Spectrogram

Array = NDArray[Any]


def make(recipe: Recipe, song: bytes | str | PathLike[str], csv: bytes | None = None) -> list[Array]:
    """Make a model's inputs; see `Recipe.inputs`."""
    data = song if isinstance(song, bytes) else Path(song).read_bytes()
    waveforms = _cut_sound(_part(data, recipe), recipe.windows, recipe.sound.sr)
    _check_work(recipe, waveforms)
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        arrays = list(_arrays(recipe, waveforms, csv))
    counts = {len(array) for array in arrays}
    if len(counts) > 1:
        raise Unprocessable(f"recipe.windows: the inputs have different numbers of them, {sorted(counts)}")
    return arrays


def _check_work(recipe: Recipe, waveforms: list[Waveform]) -> None:
    spectral = [given for given in recipe.model_inputs if isinstance(given, Spectral)]
    transformed = sum(given.count_frames(len(y)) * given.n_fft for given in spectral for y in waveforms)
    if transformed > MAX_TRANSFORMED:
        raise TooLarge(
            f"the song's spectrograms are {transformed} samples to transform, frames × n_fft; "
            f"the most is {MAX_TRANSFORMED}"
        )


def _part(song: bytes, recipe: Recipe) -> Waveform:
    """Decode the part of a song that is looked at."""
    sound, segment = recipe.sound, recipe.segment
    samples = None if segment.seconds is None else round(segment.seconds * sound.sr)
    used, middle = samples, segment.part == "middle"
    windows = recipe.windows
    if windows and windows.unit == "seconds" and windows.most and not middle:
        length, hop = windows.sizes(sound.sr)
        covered = (windows.most - 1) * hop + length
        used = covered if samples is None else min(samples, covered)
    y = audio.decode(song, sound.sr, sound.channels, sound.res_type, used, middle)
    return np.pad(y, (0, max(samples - len(y), 0))) if samples and segment.pad else y


def _cut_sound(y: Waveform, windows: Windows | None, sr: int) -> list[Waveform]:
    if windows is None or windows.unit == "frames":
        return [y]
    return list(_cut(y, *windows.sizes(sr), windows, 0.0))


def _cut(values: Array, length: int, hop: int, windows: Windows, fill: float) -> Iterator[Array]:
    """Cut along the last axis."""
    count = windows.count(values.shape[-1], length, hop)
    if not count:
        raise Unprocessable(
            f"the song is too short: there is no window of {windows.length:g} {windows.unit} in it"
        )
    if count > MAX_WINDOWS:
        raise TooLarge(f"the song has {count} windows; the most is {MAX_WINDOWS}")
    for number in range(count):
        yield _fit(values[..., number * hop : number * hop + length], length, fill)


def _fit(values: Array, length: int, fill: float) -> Array:
    """Make the last axis so long."""
    missing = length - values.shape[-1]
    if missing <= 0:
        return values[..., :length]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, missing)], constant_values=fill)


def _arrays(recipe: Recipe, waveforms: list[Waveform], csv: bytes | None) -> Iterator[Array]:
    room = MAX_VALUES
    for given in recipe.model_inputs:
        array = _array(given, waveforms, recipe, csv, room)
        room -= array.size
        yield array


def _array(given: Input, waveforms: list[Waveform], recipe: Recipe, csv: bytes | None, room: int) -> Array:
    made: list[Array] = []
    for values in _values(given, waveforms, recipe, csv):
        budget.check()
        made.append(_finished(given, values))
        if len(made) * made[0].size > room:
            raise TooLarge(f"the song's windows are more than {MAX_VALUES} numbers")
    if isinstance(given.scaling, MinMax | ZScore) and not any(np.ptp(values) for values in made):
        raise Unprocessable("the song is silent: its numbers are all the same, and cannot be scaled")
    return np.stack(made)


def _values(given: Input, waveforms: list[Waveform], recipe: Recipe, csv: bytes | None) -> Iterator[Array]:
    """Yield the numbers of each window, with the frequencies or the rows of pixels first."""
    sr, windows = recipe.sound.sr, recipe.windows
    if isinstance(given, Features) and csv:
        yield from [features.select(csv, given.columns)] * len(waveforms)
    elif isinstance(given, Features):
        if given.unknown:
            names = ", ".join(map(repr, given.unknown[:5])) + (", ..." if len(given.unknown) > 5 else "")
            raise Unprocessable(f"send a csv: of recipe.inputs.columns, {names} cannot be computed from the song")
        yield from (features.compute(y, given.columns, given.convention) for y in waveforms)
    elif isinstance(given, Picture):
        if not any(y.any() for y in waveforms):
            raise Unprocessable("the song is silent: its spectrogram has no range")
        yield from (draw(given, y, sr) for y in waveforms)
    else:
        for y in waveforms:
            frames = _frames(given, y, sr)
            if windows and windows.unit == "frames":
                yield from _cut(frames, *windows.sizes(sr), windows, given.fill)
            else:
                yield frames


def spectrogram(given: Spectral, y: Waveform, sr: int) -> Spectrogram:
    """Compute a mel spectrogram, in decibels if the recipe says so.

    Parameters
    ----------
    given : Spectral
        What the recipe says.
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform.
    sr : int > 0 [Hz]
        Its rate.

    Returns
    -------
    S : np.ndarray [shape=(n_mels, 1 + n // hop_length), dtype=float32]
    """
    values = given.n_mels * (1 + len(y) // given.hop_length)
    if values > MAX_VALUES:
        raise TooLarge(f"the song's spectrogram is {values} numbers; the most is {MAX_VALUES}")
    S = spectra.mel(
        y, sr, given.n_fft, given.hop_length, given.n_mels, given.fmin, given.fmax, given.power, given.pad_mode
    )
    if given.db == "amplitude":
        np.square(S, out=S)
    if not np.isfinite(S).all():
        raise Unprocessable("the song is too loud: its spectrogram is not finite")
    if given.db is None:
        return S
    ref = float(S.max()) if given.ref == "max" else given.ref ** (2 if given.db == "amplitude" else 1)
    return spectra.decibels(S, ref, given.top_db)


def _frames(given: Framed, y: Waveform, sr: int) -> Array:
    S = spectrogram(given, y, sr)
    frames: Array = spectra.mfcc(S, given.n_mfcc) if isinstance(given, Mfcc) else S
    if given.frames:
        frames = _fit(frames, given.frames, given.fill)
    if given.statistics:
        return np.concatenate([getattr(frames, statistic)(axis=-1) for statistic in given.statistics])
    return frames


def draw(given: Picture, y: Waveform, sr: int) -> pictures.Picture:
    """Draw a picture.

    Parameters
    ----------
    given : Picture
        What the recipe says.
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform.
    sr : int > 0 [Hz]
        Its rate.

    Returns
    -------
    picture : np.ndarray [shape=(height, width) or (height, width, 3), dtype=uint8]

    Raises
    ------
    Unprocessable
        The waveform is shorter than one window.
    """
    S = spectrogram(given, y, sr)
    low, high = S.min(), S.max()
    if low == high:
        # A window of silence, in a song with others.
        high = low + 1
    # Colour maps have 256 levels; who makes an image of a spectrogram casts 255 times it.
    levels = pictures.levels(S, low, high, 256 if given.canvas and given.canvas.kind == "mesh" else 255)
    levels = levels[::-1] if given.flip else levels
    drawn = _on_canvas(given, 255 - levels if given.invert else levels)
    if given.mode == "L" and drawn.ndim == 3:
        drawn = pictures.grey(drawn)
    return pictures.resize(drawn, given.height or drawn.shape[0], given.width or drawn.shape[1], given.resample)


def _on_canvas(given: Picture, levels: pictures.Levels) -> pictures.Picture:
    """Draw what is inside the crop."""
    canvas = given.canvas
    if isinstance(canvas, ImageCanvas):
        size = (canvas.height, canvas.width)
        return pictures.image(levels, *size, canvas.cmap, given.crop, canvas.matplotlib)
    if canvas:
        size = (canvas.height, canvas.width)
        levels = pictures.axes(levels, *size, canvas.box, canvas.cmap, canvas.snap, canvas.frame)
    if not given.crop:
        return levels
    if given.crop[2] > levels.shape[1]:
        raise Unprocessable(f"the song is too short: recipe.inputs.crop ends at {given.crop[2]} frames")
    return pictures.crop(levels, given.crop)


def _finished(given: Input, values: Array) -> Array:
    """Scale the numbers, and lay them out."""
    values = _scaled(given, values).astype(given.dtype)
    if not np.isfinite(values).all():
        raise Unprocessable(f"the song is too loud: its numbers are not finite as {given.dtype}")
    if isinstance(given, Framed) and given.layout == "time-major":
        values = values.T
    if given.channels and values.ndim < len(given.shape(None)):
        values = np.repeat(values[..., np.newaxis], given.channels, axis=-1)
    return values


def _scaled(given: Input, values: Array) -> Array:
    scaling = given.scaling
    if scaling is None:
        return values
    values = values.astype(np.float64)
    if isinstance(scaling, Standard):
        mean, scale = (_column(numbers, values.ndim) for numbers in (scaling.mean, scaling.scale))
        return (values - mean) / scale
    low, spread = (values.min(), np.ptp(values)) if isinstance(scaling, MinMax) else (values.mean(), values.std())
    values = (values - low) / (spread or 1)
    return values * (scaling.high - scaling.low) + scaling.low if isinstance(scaling, MinMax) else values


def _column(numbers: float | tuple[float, ...], ndim: int) -> Array:
    """Return numbers of bins so that they are met by arrays whose first axis is the bins."""
    return np.reshape(numbers, (-1, *(1,) * (ndim - 1)))
