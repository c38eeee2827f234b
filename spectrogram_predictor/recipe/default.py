"""What a model takes that was registered without a recipe: what the shapes of its inputs say.

An input of rank 1, or of rank 2 with one channel, takes the features of the
client's CSV as they are; without a CSV, those of the public GTZAN table, if it takes 58. An input of rank 2 or 3
takes the picture at its own height and width, with grey levels 0..255. Rank and shape decide, never order or name:
[features, picture] and [picture, features] are the same.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrogram_predictor.errors import BadRequest, Unprocessable
from spectrogram_predictor.recipe.kinds import MAX_VALUES, Shape
from spectrogram_predictor.sound import audio, features, pictures, spectra
from spectrogram_predictor.sound.columns import GTZAN_COLUMNS
from spectrogram_predictor.sound.spectra import N_MELS

HOP_LENGTH = 1024

_LONGEST = 1 + int(audio.MAX_DURATION_S * audio.SR) // HOP_LENGTH


def takes_features(shape: Shape) -> bool:
    """Tell whether an input of this shape, without the batch, takes a row of features."""
    return len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)


def takes_picture(shape: Shape) -> bool:
    """Tell whether an input of this shape, without the batch, takes a picture."""
    if takes_features(shape) or any(size is not None and size <= 0 for size in shape):
        return False
    return len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3, 4))


def check_shapes(shapes: Sequence[Shape]) -> None:
    """Accept a model whose inputs can be filled.

    Raises
    ------
    Unprocessable
        An input is neither a picture nor a row of features, or the pictures have more than `MAX_VALUES`.
    """
    for shape in shapes:
        if not takes_features(shape) and not takes_picture(shape):
            raise Unprocessable(f"an input of shape {list(shape)} is neither a picture nor a row of features")
    values = sum(_most_values(shape) for shape in shapes if takes_picture(shape))
    if values > MAX_VALUES:
        raise Unprocessable(f"the model takes pictures of up to {values} values; the most is {MAX_VALUES}")


def _most_values(shape: Shape) -> int:
    """Count the values of a picture of this shape; where a size is free, that of the longest song.

    Resizing holds more of a long and thin one, so no side counts as less than a spectrogram's.
    """
    height, width, *channels = shape
    sides = (height or N_MELS, width or _LONGEST)
    return math.prod([*(max(side, N_MELS) for side in sides), *(size or 1 for size in channels)])


def inputs(shapes: Sequence[Shape], song: bytes, csv: bytes | None) -> list[NDArray[Any]]:
    """Make a model's inputs from a song and its row of features.

    Parameters
    ----------
    shapes : sequence of tuple
        Shape of each input without the batch; None where any size will do.
    song : bytes
        The file.
    csv : bytes or None
        See `features.parse_csv`. Without it, or if it is empty, the features are computed from the song, for a
        model that takes the 58 of the public GTZAN table.

    Returns
    -------
    inputs : list of np.ndarray
        One array an input, each with a batch of one.

    Raises
    ------
    BadRequest
        The model takes features, there is no csv, and they are not those that can be computed.
    Unprocessable, UnsupportedMedia, TooLarge
        The song or the csv cannot be used.
    """
    check_shapes(shapes)
    y = audio.decode(song)
    return [
        (_features(shape, csv, y) if takes_features(shape) else _picture(shape, y))[np.newaxis] for shape in shapes
    ]


def _features(shape: Shape, csv: bytes | None, y: audio.Waveform) -> NDArray[np.float32]:
    if csv:
        return features.as_input(features.parse_csv(csv), shape)
    if shape[0] != len(GTZAN_COLUMNS):
        number = "any number of" if shape[0] is None else shape[0]
        raise BadRequest(f"this model takes {number} features: send them as csv")
    return features.as_input(features.compute(y), shape)


def _picture(shape: Shape, y: audio.Waveform) -> NDArray[np.float32]:
    height, width, *channels = shape
    drawn = picture(y, height, width).astype(np.float32)
    return np.repeat(drawn[..., np.newaxis], channels[0] or 1, axis=2) if channels else drawn


def picture(y: audio.Waveform, height: int | None = None, width: int | None = None) -> pictures.Picture:
    """Draw a song: one pixel a mel band and frame, loud is dark, low frequencies at the bottom.

    Parameters
    ----------
    y : np.ndarray [shape=(n,), dtype=float32]
        Waveform at `audio.SR`.
    height, width : int > 0 [pixels], optional
        Size to which that is resized.

    Returns
    -------
    picture : np.ndarray [shape=(height, width), dtype=uint8]
        Grey levels.

    Raises
    ------
    Unprocessable
        The waveform is shorter than one window, or silent: there is no range to scale to grey levels.
    """
    return draw(spectrogram(y), height, width)


def spectrogram(y: audio.Waveform) -> spectra.Spectrogram:
    """Compute the mel spectrogram in decibels [shape=(N_MELS, t)] that is drawn."""
    return spectra.decibels(spectra.mel(y, hop_length=HOP_LENGTH, dtype=np.float32))


def draw(S: spectra.Spectrogram, height: int | None = None, width: int | None = None) -> pictures.Picture:
    """Draw a spectrogram; see `picture`."""
    low, high = S.min(), S.max()
    if low == high:
        raise Unprocessable("the song is silent: its spectrogram has no range")
    drawn: pictures.Picture = 255 - ((S - low) * (255 / (high - low))).astype(np.uint8)[::-1]
    return pictures.resize(drawn, height or drawn.shape[0], width or drawn.shape[1])
