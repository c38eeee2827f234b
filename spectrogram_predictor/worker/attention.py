"""What attention makes of shapes, how many weights it has, and what it holds beside while it works."""

from spectrogram_predictor.worker.shapes import Config, Made, Shape, broadcast, size


def attention(config: Config, shapes: list[Shape]) -> Made:
    """Return what becomes of query, value and key where each is multiplied by each, or added to it."""
    if config.get("score_mode", "dot") != "dot":
        return adding(config, shapes)
    columns, made, scores = _each(shapes)
    return Made([made, scores], columns, size(scores) * 2)


def adding(config: Config, shapes: list[Shape]) -> Made:
    """Return what becomes of them where each is added to each, in all of its numbers."""
    del config
    columns, made, scores = _each(shapes)
    return Made([made, scores], columns, size(scores) * 2 * columns)


def _each(shapes: list[Shape]) -> tuple[int, Shape, Shape]:
    """Return how many numbers one has, and the shapes of the answer and of what is found for each and each."""
    query, value, key = shapes[0], shapes[1], shapes[2 if len(shapes) > 2 else 1]
    # Keras does not look whether they fit before it multiplies: so whichever is larger.
    steps, columns = max(value[-2], key[-2]), max(query[-1], key[-1])
    scores = (*broadcast([query[:-2], key[:-2]]), query[-2], steps)
    return columns, (*broadcast([query[:-2], value[:-2]]), query[-2], value[-1]), scores


def multi_head_attention(config: Config, shapes: list[Shape]) -> Made:
    query, value = shapes[0], shapes[1 % len(shapes)]
    key = shapes[2] if len(shapes) > 2 else value
    heads = int(config.get("num_heads") or config["num_query_heads"])
    width = int(config.get("key_dim") or config["head_dim"])
    depth = int(config.get("value_dim") or width)
    target = config.get("output_shape")
    last = (target if isinstance(target, list) else [target]) if target else [query[-1]]
    made = size([int(n) for n in last])
    inner = heads * (2 * width + depth)
    weights = heads * width * (query[-1] + key[-1]) + heads * depth * (value[-1] + made) + inner + made
    steps = size(query[:-1]), size(value[1:-1])
    scores = (query[0], heads, steps[0], steps[1])
    scratch = inner * (steps[0] + value[0] * steps[1]) + 2 * size(scores)
    return Made([(*query[:-1], *map(int, last)), scores], weights, scratch)
