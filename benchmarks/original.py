"""One prediction the way the 2020 system did it: load the model, draw with matplotlib, ``model.predict``."""

import io
from pathlib import Path
from typing import Any

import keras
import librosa
import matplotlib as mpl
import numpy as np
import pandas as pd
from PIL import Image

mpl.use("Agg")

from matplotlib import pyplot as plt  # after choosing the backend


def predict(model_path: Path, song: bytes, csv: bytes) -> list[Any]:
    """Answer what the model says of the song."""
    model = keras.models.load_model(model_path, compile=False)
    height, width = next(tensor.shape[1:3] for tensor in model.inputs if len(tensor.shape) == 4)
    y, sr = librosa.load(io.BytesIO(song))
    S = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=sr, n_fft=2048, hop_length=1024))
    pixels = draw(S, height, width)
    row = pd.read_csv(io.BytesIO(csv), index_col=0).to_numpy(np.float32)
    answer: list[Any] = model.predict([row, pixels], verbose=0).tolist()
    return answer


def draw(S: Any, height: int, width: int) -> Any:
    """Draw a spectrogram in decibels as the model's input [shape=(1, height, width, 1)]."""
    levels = ((S - S.min()) / (S.max() - S.min()) * 255).astype(np.uint8)
    drawn = 255 - np.flip(levels, axis=0)
    figure = plt.figure(frameon=False, figsize=(6.4, 4.8), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.imshow(drawn, aspect="auto", cmap="Greys")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    plt.close(figure)
    picture = Image.open(file).convert("L").crop((55, 50, 390, 250)).resize((width, height))
    return np.asarray(picture, np.float32)[np.newaxis, ..., np.newaxis]
