"""What the arguments of a layer may be: an object of one kind, sizes in a list, or a single value.

Keras looks at few of them, and takes what can be called for a function, and what can be added for a number: an
activation may be a whole model then, and the slope of one a table that each number is multiplied by.
"""

from collections.abc import Mapping
from typing import Any

from spectrogram_predictor.worker import catalog, operations
from spectrogram_predictor.worker.shapes import Config

_OBJECTS: Mapping[str, frozenset[str]] = {
    "activation": frozenset(["Activation", "ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax", "function"]),
    "initializer": catalog.CLASSES["keras.initializers"],
    "regularizer": catalog.CLASSES["keras.regularizers"],
    "constraint": catalog.CLASSES["keras.constraints"],
}
"""By the end of an argument's name: what it may be an object of."""

_LAYERS = frozenset(["", "backward_layer", "cell", "cells", "forward_layer", "layer", "layers"])
"""Where layers and models may be."""

# fmt: off
_LISTS = frozenset({
    "addition_factor", "attention_axes", "axes", "axis", "batch_input_shape", "batch_shape", "bias_axes",
    "bin_boundaries", "brightness_factor", "build_input_shape", "cells", "contrast_factor", "cropping",
    "dilation_rate", "dims", "factor", "fill_value", "height_factor", "hue_factor", "idf_weights",
    "input_shape", "kernel_size", "layers", "mean", "mean_factor", "multiplication_factor", "noise_shape",
    "offset", "output_padding", "output_shape", "output_size", "padding", "pool_size", "saturation_factor",
    "scale", "shape", "shared_axes", "shear_factor", "sigma", "size", "strides", "target_shape",
    "threshold_factor", "tile_grid_size", "value_range", "variance", "width_factor", "x_factor", "y_factor",
})
# fmt: on
"""Which may be lists; what is in those of layers that compute with it is measured."""

_LISTED = ("__numpy__", "__tensor__", "__tuple__")


def is_in_place(argument: str, class_name: str) -> bool:
    """Tell whether an argument may be an object of a class."""
    for ending, known in _OBJECTS.items():
        if argument.endswith(ending):
            return class_name in known
    return argument in _LAYERS or class_name not in catalog.LAYERS | catalog.MODELS | catalog.OPERATIONS


def strange(config: Config) -> str | None:
    """Return the name of a layer's argument that is a list or an array and must not be, if there is one."""
    return next((name for name, value in config.items() if _is_listed(value) and not _may_be(name)), None)


def _may_be(argument: str) -> bool:
    # What is in place of an object is looked at there.
    return argument in _LISTS or argument.endswith(tuple(_OBJECTS))


def _is_listed(value: Any) -> bool:
    if isinstance(value, Mapping):
        name = value.get("class_name")
        return name is None or (name in _LISTED and operations.constant(value) != ())
    return isinstance(value, list)
