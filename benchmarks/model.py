"""Models of the document's architecture with random weights: ``python -m benchmarks.model PATH two|picture``."""

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


if __name__ == "__main__":
    save(Path(sys.argv[1]), sys.argv[2])
