"""Models with random weights: ``python -m benchmarks.model PATH two|picture|small|slow``, or ``huge|many SIZE``.

The document's, of features and a picture, or of a picture only; others take more to load or to run. SIZE is in
bytes, or how many (of pictures) are saved in the folder PATH.
"""

import sys
from pathlib import Path

import keras
from keras import layers


def save(path: Path, inputs: str) -> None:
    """Save one that takes features and a picture, or a picture only; the ending chooses Keras' format."""
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
    keras.Sequential([layers.Input((24, 32, 1)), layers.Flatten(), layers.Dense(10, "softmax")]).save(path)


def save_slow(path: Path) -> None:
    """Save one that takes a processor a tenth of a second."""
    convolutions = [layers.Conv2D(64, 3, activation="relu") for _ in range(24)]
    ending = [layers.GlobalAveragePooling2D(), layers.Dense(10, "softmax")]
    keras.Sequential([layers.Input((128, 128, 1)), *convolutions, *ending]).save(path)


def save_huge(path: Path, size: int) -> None:
    """Save one of so many bytes."""
    units = round((size / 4) ** 0.5)
    dense = [layers.Dense(units), layers.Dense(units), layers.Dense(10, "softmax")]
    keras.Sequential([layers.Input((24, 32, 1)), layers.Flatten(), *dense]).save(path)


def main(path: Path, what: str, size: int) -> None:
    """Save what is asked for."""
    if what == "small":
        save_small(path)
    elif what == "slow":
        save_slow(path)
    elif what == "huge":
        save_huge(path, size)
    elif what == "many":
        for number in range(size):
            save(path / f"{number:03}.keras", "picture")
    else:
        save(path, what)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int("".join(sys.argv[3:]) or 0))
