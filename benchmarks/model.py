"""Models with random weights, the document's or small: ``python -m benchmarks.model PATH two|picture|small``."""

import sys
from pathlib import Path

import keras


def save(path: Path, inputs: str) -> None:
    """Save one that takes features and a picture, or a picture only; the ending chooses Keras' format."""
    layers = keras.layers
    features, picture = layers.Input((58,)), layers.Input((235, 335, 1))
    drawn = layers.Flatten()(layers.MaxPooling2D(4)(layers.Conv2D(32, 5, activation="relu")(picture)))
    told = layers.Dense(64, "relu")(layers.Dense(128, "relu")(layers.Dense(256, "relu")(features)))
    both = layers.Concatenate()([drawn, told])
    if inputs == "two":
        model = keras.Model([features, picture], layers.Dense(10, "softmax")(both))
    else:
        model = keras.Model(picture, layers.Dense(10, "softmax")(drawn))
    model.save(path)


def save_small(path: Path) -> None:
    """Save one that takes no time."""
    layers = keras.layers
    model = keras.Sequential([layers.Input((24, 32, 1)), layers.Flatten(), layers.Dense(10, "softmax")])
    model.save(path)


if __name__ == "__main__":
    path, what = Path(sys.argv[1]), sys.argv[2]
    save_small(path) if what == "small" else save(path, what)
