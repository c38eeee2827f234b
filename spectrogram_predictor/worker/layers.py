"""What a Keras layer makes of shapes, and how many weights it has, from its configuration alone.

Nothing is built: the numbers come from formulas.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from spectrogram_predictor.worker import operations
from spectrogram_predictor.worker.attention import adding, attention, multi_head_attention
from spectrogram_predictor.worker.convolutions import convolution, depthwise, separable, spread, transposed
from spectrogram_predictor.worker.shapes import (
    Config,
    Made,
    Rule,
    Shape,
    adapted,
    broadcast,
    concatenate,
    is_channels_first,
    many,
    reshaped,
    size,
    spatial,
    windowed,
)

_RENORMALIZING = 3

MAX_UNROLLED = 4096
"""Most steps of a recurrent layer that is built step by step."""


def same(config: Config, shapes: list[Shape]) -> Made:
    del config
    return Made(list(shapes))


def rescaled(config: Config, shapes: list[Shape]) -> Made:
    written = [operations.constant(_listed(config.get(key, 1))) for key in ("scale", "offset")]
    known = [one for one in written if one is not None]
    # Keras says that it is not so, and builds what comes next for that.
    if len(known) < len(written) or any(broadcast([shape, *known]) != shape for shape in shapes):
        raise ValueError("what is scaled by that would have another shape")
    return Made(list(shapes))


def _listed(value: Any) -> Any:
    """Return what is in a tuple, as Keras writes one; anything else as it is."""
    is_tuple = isinstance(value, Mapping) and value.get("class_name") == "__tuple__"
    return value.get("items") if is_tuple else value


def dense(config: Config, shapes: list[Shape]) -> Made:
    *rest, columns = shapes[0]
    units = int(config["units"])
    return Made([(*rest, units)], columns * units + units + adapted(config, columns, units))


def einsum_dense(config: Config, shapes: list[Shape]) -> Made:
    given, _, result = config["equation"].replace(" ", "").partition("->")
    first, second = given.replace("...", "").split(",")
    target = config["output_shape"]
    target = list(target) if isinstance(target, list) else [target]
    letters = result.replace("...", "")
    sizes = {one: int(n) for one, n in zip(reversed(letters), reversed(target), strict=False) if n is not None}
    sizes.update(zip(reversed(first), reversed(shapes[0]), strict=False))
    bias = size([sizes[letter] for letter in config.get("bias_axes") or ""])
    kernel = [sizes[letter] for letter in second]
    lead = shapes[0][: max(0, len(shapes[0]) - len(first))] if "..." in given else ()
    return Made(
        [(*lead, *(sizes[letter] for letter in letters))],
        size(kernel) + bias + adapted(config, size(kernel[:-1]), kernel[-1]),
    )


def embedding(config: Config, shapes: list[Shape]) -> Made:
    rows, columns = int(config["input_dim"]), int(config["output_dim"])
    extra = adapted(config, rows, columns)
    if "tie_weights" not in config:
        return Made([(*shapes[0], columns)], rows * columns + extra)
    # One that can be reversed may have a second matrix, and be called the other way.
    return Made([(*shapes[0], columns)], 2 * rows * columns + extra, size(shapes[0]) * rows)


def pooling(config: Config, shapes: list[Shape]) -> Made:
    sizes, channels, together = spatial(config, shapes[0])
    settings = {"pool_size": 2, **config}
    strides = settings.get("strides") or settings["pool_size"]
    return Made([together(windowed(sizes, settings, "pool_size", strides), channels)])


def adaptive_pooling(config: Config, shapes: list[Shape]) -> Made:
    sizes, channels, together = spatial(config, shapes[0])
    made = many(config["output_size"], len(sizes))
    # One axis after the other.
    between = size([max(one, other) for one, other in zip(sizes, made, strict=True)])
    return Made([together(made, channels)], 0, 2 * shapes[0][0] * between * channels)


def adaptive_max_pooling(config: Config, shapes: list[Shape]) -> Made:
    sizes, _, _ = spatial(config, shapes[0])
    for n, made in zip(sizes, many(config["output_size"], len(sizes)), strict=True):
        # Keras looks at windows of one more, too.
        if math.ceil(n / made) >= n:
            raise ValueError(f"of {n} it takes windows of {n + 1}, at which TensorFlow ends the process")
    return adaptive_pooling(config, shapes)


def global_pooling(config: Config, shapes: list[Shape]) -> Made:
    sizes, channels, together = spatial(config, shapes[0])
    if config.get("keepdims"):
        return Made([together([1] * len(sizes), channels)])
    return Made([(shapes[0][0], channels)])


def upsampling(config: Config, shapes: list[Shape]) -> Made:
    sizes, channels, together = spatial(config, shapes[0])
    factors = many(config.get("size", 2), len(sizes))
    return Made([together([n * factor for n, factor in zip(sizes, factors, strict=True)], channels)])


def padding(config: Config, shapes: list[Shape]) -> Made:
    return _bordered(config, "padding", shapes[0], 1)


def cropping(config: Config, shapes: list[Shape]) -> Made:
    return _bordered(config, "cropping", shapes[0], -1)


def _bordered(config: Config, key: str, shape: Shape, sign: int) -> Made:
    sizes, channels, together = spatial(config, shape)
    given = config[key]
    if len(sizes) == 1 and isinstance(given, list):
        given = [given]
    borders = given if isinstance(given, list) else [given] * len(sizes)
    widths = [sum(map(int, one)) if isinstance(one, list) else 2 * int(one) for one in borders]
    return Made([together([max(0, n + sign * width) for n, width in zip(sizes, widths, strict=True)], channels)])


def resized(config: Config, shapes: list[Shape]) -> Made:
    height, width, number, together = _picture(config, shapes[0])
    made = int(config["height"]), int(config["width"])
    if config.get("pad_to_aspect_ratio"):
        wide = width * max(height, width * made[0] // made[1])
        high = height * max(width, height * made[1] // made[0])
        # Two borders, as ones and as what they are filled with, and all of it.
        scratch = 3 * max(wide, high)
    elif config.get("antialias"):
        # Its rows or its columns first.
        scratch = max(made[0] * width, height * made[1])
    else:
        scratch = height * width
    return Made([together(*made)], 0, number * scratch)


def cropped(config: Config, shapes: list[Shape]) -> Made:
    """Return what becomes of a picture that is cropped by chance: nothing, but when a model is trained."""
    height, width, _, together = _picture(config, shapes[0])
    made = max(height, int(config["height"])), max(width, int(config["width"]))
    return Made([together(*made)])


def contrast(config: Config, shapes: list[Shape]) -> Made:
    """Return what becomes of a picture that is seen in tiles, of each number 256: one for each brightness."""
    height, width, number, _ = _picture(config, shapes[0])
    rows, columns = many(config.get("tile_grid_size", [8, 8]), 2)
    padded = math.ceil(height / rows) * rows * math.ceil(width / columns) * columns
    scratch = padded + padded // 8 + 12 * (rows + 2) * (columns + 2)
    return Made([shapes[0]], 0, number * 256 * scratch)


def _picture(config: Config, shape: Shape) -> tuple[int, int, int, Callable[[int, int], Shape]]:
    """Return the height and width of pictures, how many there are of one channel, and what puts them together."""
    *lead, first, second, third = shape
    if is_channels_first(config):
        return second, third, size(lead) * first, lambda height, width: (*lead, first, height, width)
    return first, second, size(lead) * third, lambda height, width: (*lead, height, width, third)


def flatten(config: Config, shapes: list[Shape]) -> Made:
    del config
    batch, *rest = shapes[0]
    return Made([(batch, size(rest))])


def reshape(config: Config, shapes: list[Shape]) -> Made:
    batch, *rest = shapes[0]
    target = [-1 if n is None else int(n) for n in config["target_shape"]]
    return Made([(batch, *reshaped(tuple(rest), target))])


def permute(config: Config, shapes: list[Shape]) -> Made:
    return Made([(shapes[0][0], *(shapes[0][int(axis)] for axis in config["dims"]))])


def repeat(config: Config, shapes: list[Shape]) -> Made:
    batch, *rest = shapes[0]
    return Made([(batch, int(config["n"]), *rest)])


def merge(config: Config, shapes: list[Shape]) -> Made:
    del config
    return Made([broadcast(shapes)])


def concatenation(config: Config, shapes: list[Shape]) -> Made:
    return Made([concatenate(shapes, int(config.get("axis", -1)))])


def dot(config: Config, shapes: list[Shape]) -> Made:
    axes = config["axes"]
    first, second = axes if isinstance(axes, list) else (axes, axes)
    left, right = list(shapes[0]), list(shapes[1])
    del left[int(first)], right[int(second)]
    return Made([(*left, *right[1:]) if len(left) + len(right) > 2 else (left[0], 1)])


def _axes(config: Config, shape: Shape) -> int:
    axis = config.get("axis", -1)
    # Keras 1 and 2 wrote a list, or nothing for all of it.
    axes = range(1, len(shape)) if axis is None else axis if isinstance(axis, list) else [axis]
    return size([shape[int(one)] for one in axes])


def normalization(number: int) -> Rule:
    """Return the rule of a layer that keeps so many numbers for each along its axes."""

    def rule(config: Config, shapes: list[Shape]) -> Made:
        kept = number + (_RENORMALIZING if config.get("renorm") else 0)
        return Made(list(shapes), kept * _axes(config, shapes[0]) + 1)

    return rule


def parametric(config: Config, shapes: list[Shape]) -> Made:
    shared = {int(axis) for axis in config.get("shared_axes") or ()}
    kept = [n for axis, n in enumerate(shapes[0]) if axis and axis not in shared]
    return Made([shapes[0]], size(kept))


def counted(config: Config, shapes: list[Shape]) -> Made:
    """Return what a layer makes that turns rows of numbers into rows of categories."""
    shape = broadcast(shapes)
    if config.get("output_mode", "int") == "int":
        return Made([shape])
    number = int(config["num_bins"])
    return Made([(*shape[:-1], number)], 0, size(shape) * number)


def encoded(config: Config, shapes: list[Shape]) -> Made:
    """Return what a layer makes that may turn each number into a row of categories."""
    shape, mode = shapes[0], config.get("output_mode", "multi_hot" if "num_tokens" in config else "int")
    if mode == "int":
        return Made([shape])
    if len(shape) > 2 and mode != "one_hot" and "num_tokens" not in config:
        raise ValueError("rows of rows, of which Keras takes one out")
    number = int(config.get("num_tokens") or config.get("num_bins") or len(config["bin_boundaries"]) + 1)
    # Where there is one number, it is the row; "one_hot" of more makes a row of each.
    kept = shape if mode == "one_hot" and shape[-1] != 1 else shape[:-1]
    return Made([(*kept, number)], 0, size(shape) * number)


def mel_spectrogram(config: Config, shapes: list[Shape]) -> Made:
    *lead, samples = shapes[0]
    step = int(config.get("sequence_stride") or 512)
    bins, fft = int(config.get("num_mel_bins") or 128), int(config.get("fft_length") or 2048)
    frames = samples // step + 1
    return Made([(*lead, bins, frames)], 0, 3 * size(lead) * frames * fft + bins * fft)


def stft(config: Config, shapes: list[Shape]) -> Made:
    batch, samples, *channels = shapes[0]
    length, step = int(config["frame_length"]), int(config["frame_step"])
    fft = int(config.get("fft_length") or 2 ** math.ceil(math.log2(max(1, length))))
    bins = fft // 2 + 1
    parts = math.prod(channels) * (2 if config.get("mode") in ("real_imag", "stft") else 1)
    frames = windowed([samples], {"width": length, "padding": config.get("padding", "valid")}, "width", step)
    last = [bins, parts] if config.get("expand_dims") else [bins * parts]
    return Made([(batch, *frames, *last)], 2 * length * bins, 2 * batch * size(frames) * size(last))


def gates(class_name: str) -> int:
    """Return how many times as many weights a recurrent layer has as one without gates."""
    return next((number for name, number in (("LSTM", 4), ("GRU", 3)) if name in class_name), 1)


def recurrent(class_name: str) -> Rule:
    """Return the rule of a recurrent layer."""
    states = 2 if "LSTM" in class_name else 1

    def rule(config: Config, shapes: list[Shape]) -> Made:
        batch, steps, columns = shapes[0]
        if config.get("unroll") and steps > MAX_UNROLLED:
            raise ValueError(f"{steps} steps are unrolled")
        units = int(config["units"])
        weights = gates(class_name) * units * (columns + units + 2)
        outputs = sequence(config, batch, steps, (units,), states)
        # All steps of what is given, in another order and one by one.
        return Made(outputs, weights, 2 * size(shapes[0]) + sum(map(size, outputs)))

    return rule


def cell(class_name: str) -> Rule:
    """Return the rule of one step of a recurrent layer."""

    def rule(config: Config, shapes: list[Shape]) -> Made:
        units = int(config["units"])
        weights = gates(class_name) * units * (shapes[0][-1] + units + 2)
        return Made([(shapes[0][0], units)], weights)

    return rule


def convolutional_recurrent(config: Config, shapes: list[Shape]) -> Made:
    batch, steps, *rest = shapes[0]
    sizes, channels, together = spatial(config, (batch, *rest))
    filters = int(config["filters"])
    windows = windowed(sizes, config, "kernel_size", config.get("strides", 1))
    weights = 4 * filters * (size(many(config["kernel_size"], len(sizes))) * (channels + filters) + 2)
    state = together(windows, filters)[1:]
    scratch = 8 * batch * size(state) + spread(config, (batch, *rest))
    return Made(sequence(config, batch, steps, state, 2), weights, scratch)


def sequence(config: Config, batch: int, steps: int, state: Sequence[int], states: int) -> list[Shape]:
    """Return the outputs of a recurrent layer: the last state or all, and the states if they are asked for."""
    last = (batch, *state)
    output = (batch, steps, *state) if config.get("return_sequences") else last
    return [output, *([last] * states if config.get("return_state") else [])]


def _named(rule: Rule, names: str) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


_POOLING = "MaxPool{0}D MaxPooling{0}D AveragePooling{0}D AvgPool{0}D"
_GLOBAL = "GlobalAveragePooling{0}D GlobalAvgPool{0}D GlobalMaxPool{0}D GlobalMaxPooling{0}D"


def _each(rule: Rule, names: str) -> dict[str, Rule]:
    return {name.format(rank): rule for name in names.split() for rank in (1, 2, 3)}


RULES: Mapping[str, Rule] = {
    **_each(convolution, "Conv{0}D Convolution{0}D"),
    **_each(transposed, "Conv{0}DTranspose Convolution{0}DTranspose"),
    **_each(depthwise, "DepthwiseConv{0}D"),
    **_each(separable, "SeparableConv{0}D SeparableConvolution{0}D"),
    **_each(pooling, _POOLING),
    **_each(adaptive_pooling, "AdaptiveAveragePooling{0}D"),
    **_each(adaptive_max_pooling, "AdaptiveMaxPooling{0}D"),
    **_each(global_pooling, _GLOBAL),
    **_each(upsampling, "UpSampling{0}D"),
    **_each(padding, "ZeroPadding{0}D"),
    **_each(cropping, "Cropping{0}D"),
    **_each(convolutional_recurrent, "ConvLSTM{0}D"),
    **{name: recurrent(name) for name in ("LSTM", "GRU", "SimpleRNN")},
    **{name: cell(name) for name in ("LSTMCell", "GRUCell", "SimpleRNNCell")},
    **_named(merge, "Add Average Maximum Minimum Multiply Subtract"),
    **_named(resized, "Resizing CenterCrop"),
    **_named(counted, "HashedCrossing Hashing"),
    **_named(encoded, "CategoryEncoding Discretization"),
    **_named(multi_head_attention, "MultiHeadAttention GroupQueryAttention GroupedQueryAttention"),
    **_named(embedding, "Embedding ReversibleEmbedding"),
    **_named(normalization(4), "BatchNormalization"),
    **_named(normalization(2), "LayerNormalization GroupNormalization Normalization"),
    **_named(normalization(1), "RMSNormalization"),
    "AdditiveAttention": adding,
    "Attention": attention,
    "Concatenate": concatenation,
    "ContrastLimitedAdaptiveHistogramEqualization": contrast,
    "Dense": dense,
    "Dot": dot,
    "EinsumDense": einsum_dense,
    "Flatten": flatten,
    "MelSpectrogram": mel_spectrogram,
    "PReLU": parametric,
    "Permute": permute,
    "RandomCrop": cropped,
    "RepeatVector": repeat,
    "Rescaling": rescaled,
    "Reshape": reshape,
    "STFTSpectrogram": stft,
    **_named(
        same,
        "Activation ActivityRegularization AlphaDropout AugMix AutoContrast"
        " CutMix Dropout ELU Equalization GaussianDropout"
        " GaussianNoise Identity LeakyReLU Masking MaxNumBoundingBoxes MixUp RandAugment RandomBrightness"
        " RandomColorDegeneration RandomColorJitter RandomContrast RandomElasticTransform RandomErasing"
        " RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective"
        " RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation"
        " RandomZoom ReLU Softmax Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D"
        " UnitNormalization",
    ),
}
"""By class. What is made of other layers is `footprint`'s business."""
