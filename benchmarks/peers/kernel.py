"""What every peer does with a song: decode, picture, model call."""

import io
import os
from collections.abc import Callable
from typing import Any

MODEL, WHICH = "PEER_MODEL", "PEER_KERNEL"
"""Environment variables: the model's file, and ``librosa`` or ``ours``."""


def load() -> Callable[[bytes], list[Any]]:
    """Load the model; return a function from a song's file to the answer."""
    return _ours() if os.environ[WHICH] == "ours" else _librosa()


def _ours() -> Callable[[bytes], list[Any]]:
    from pathlib import Path

    from spectrogram_predictor.recipe import default
    from spectrogram_predictor.worker import models

    models.configure(1)
    path = Path(os.environ[MODEL])
    model = models.load(path, path.suffix.removeprefix("."))
    return lambda song: model(default.inputs(model.shapes, song, None)).tolist()


def _librosa() -> Callable[[bytes], list[Any]]:
    """Librosa as it comes, Pillow, and a compiled call of the model: what a careful user writes."""
    import keras
    import librosa
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = keras.models.load_model(os.environ[MODEL], compile=False)
    height, width = model.input_shape[1:3]
    call = tf.function(lambda x: model(x, training=False))

    def predict(song: bytes) -> list[Any]:
        y, sr = librosa.load(io.BytesIO(song))
        S = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=sr, n_fft=2048, hop_length=1024))
        drawn = 255 - ((S - S.min()) / (S.max() - S.min()) * 255).astype(np.uint8)[::-1]
        picture = np.asarray(Image.fromarray(drawn).resize((width, height)), np.float32)
        answer: list[Any] = call(tf.constant(picture[np.newaxis, ..., np.newaxis])).numpy().tolist()
        return answer

    return predict
