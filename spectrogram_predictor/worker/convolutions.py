"""What convolutions make of shapes, how many weights they have, and what they hold beside while they work."""

from spectrogram_predictor.worker.shapes import (
    Config,
    Made,
    Shape,
    adapted,
    is_channels_first,
    is_padded,
    many,
    size,
    spatial,
    windowed,
)


def convolution(config: Config, shapes: list[Shape]) -> Made:
    sizes, channels, together = spatial(config, shapes[0])
    filters = int(config["filters"])
    kernel = size(many(config["kernel_size"], len(sizes))) * channels
    grouped = kernel // max(1, int(config.get("groups") or 1))
    weights = grouped * filters + filters + adapted(config, grouped, filters)
    windows = windowed(sizes, config, "kernel_size", config.get("strides", 1))
    outputs = [together(windows, filters)]
    return Made(outputs, weights, spread(config, shapes[0]) + _copied(config, shapes[0], outputs[0]))


def transposed(config: Config, shapes: list[Shape]) -> Made:
    sizes, channels, together = spatial(config, shapes[0])
    filters, rank = int(config["filters"]), len(sizes)
    widths, steps = many(config["kernel_size"], rank), many(config.get("strides", 1), rank)
    gaps = many(config.get("dilation_rate", 1), rank)
    beyond = not is_padded(config)
    grown = [
        n * step + (max(gap * (width - 1) + 1 - step, 0) if beyond else 0)
        for n, width, step, gap in zip(sizes, widths, steps, gaps, strict=True)
    ]
    extra = config.get("output_padding")
    if extra is not None:
        grown = [n + more for n, more in zip(grown, many(extra, rank), strict=True)]
    # What each number that is given becomes, before it is added up.
    columns = size(shapes[0][:1]) * size(sizes) * size(widths) * filters
    return Made([together(grown, filters)], size(widths) * channels * filters + filters, columns)


def depthwise(config: Config, shapes: list[Shape]) -> Made:
    sizes, channels, together = spatial(config, shapes[0])
    made = channels * int(config.get("depth_multiplier", 1))
    windows = windowed(sizes, config, "kernel_size", config.get("strides", 1))
    weights = size(many(config["kernel_size"], len(sizes))) * made + made
    return Made([together(windows, made)], weights, spread(config, shapes[0]))


def separable(config: Config, shapes: list[Shape]) -> Made:
    sizes, channels, together = spatial(config, shapes[0])
    made, filters = channels * int(config.get("depth_multiplier", 1)), int(config["filters"])
    windows = windowed(sizes, config, "kernel_size", config.get("strides", 1))
    weights = size(many(config["kernel_size"], len(sizes))) * made + made * filters + filters
    scratch = shapes[0][0] * size(windows) * made + spread(config, shapes[0])
    return Made([together(windows, filters)], weights, scratch)


def _copied(config: Config, given: Shape, made: Shape) -> int:
    """Return how many numbers are in another order than the processor takes them, and are copied for that."""
    compiled = int(config.get("groups") or 1) > 1 or (is_channels_first(config) and len(given) == 5)
    copies = 4 if compiled else 1 if is_channels_first(config) else 0
    return copies * (size(given) + size(made))


def spread(config: Config, shape: Shape) -> int:
    """Return how many numbers there are with what a convolution puts around and between those that it is given."""
    sizes, channels, _ = spatial(config, shape)
    gaps, widths = many(config.get("dilation_rate", 1), len(sizes)), many(config["kernel_size"], len(sizes))
    if max(gaps) == 1 and config.get("padding") != "causal":
        return 0
    padded = [n + gap * width for n, gap, width in zip(sizes, gaps, widths, strict=True)]
    return 2 * shape[0] * size(padded) * channels
