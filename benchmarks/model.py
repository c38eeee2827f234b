"""Models with random weights, as in the document or small: ``python -m benchmarks.model PATH [small]``."""

import sys
from pathlib import Path

import keras


def save(path: Path) -> None:
    """Save it; the ending chooses Keras' format."""
    layers = keras.layers
    features, picture = layers.Input((58,)), layers.Input((235, 335, 1))
    drawn = layers.Flatten()(layers.MaxPooling2D(4)(layers.Conv2D(32, 5, activation="relu")(picture)))
    told = layers.Dense(64, "relu")(layers.Dense(128, "relu")(layers.Dense(256, "relu")(features)))
    answer = layers.Dense(10, "softmax")(layers.Concatenate()([drawn, told]))
    keras.Model([features, picture], answer).save(path)


def save_small(path: Path) -> None:
    """Save one that takes no time."""
    layers = keras.layers
    model = keras.Sequential([layers.Input((24, 32, 1)), layers.Flatten(), layers.Dense(10, "softmax")])
    model.save(path)


if __name__ == "__main__":
    (save_small if sys.argv[2:] == ["small"] else save)(Path(sys.argv[1]))
