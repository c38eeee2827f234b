"""A model of the document's two-input architecture, with random weights: ``python -m benchmarks.model PATH``."""

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


if __name__ == "__main__":
    save(Path(sys.argv[1]))
