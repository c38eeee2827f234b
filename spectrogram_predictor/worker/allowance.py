"""What Keras and TensorFlow make of a model that has passed the gate, counted before they take the memory for it.

The gate goes by formulas. Where Keras does otherwise, it is found here: at each of its variables, and in the graph
of operations that it has made and nobody has called yet.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from spectrogram_predictor.errors import Unprocessable

_left: int | None = None


@contextmanager
def of_weights(most: int) -> Iterator[None]:
    """Let Keras make so many weights and no more.

    Raises
    ------
    Unprocessable
        It tried to, whatever it made of being stopped.
    """
    global _left
    _left = most
    try:
        yield
    except Exception as error:
        if _left < 0:
            raise _too_many(most) from error
        raise
    finally:
        exceeded, _left = _left < 0, None
    if exceeded:
        raise _too_many(most)


def check_graph(function: Any, most: int) -> None:
    """Check that no operation in a traced function makes more numbers, of one window, than a model may hold.

    Weights may be more: the file has as many. They are read, and turned into what they are computed with.

    Raises
    ------
    Unprocessable
        One does.
    """
    most = max([most, *(math.prod(variable.shape) for variable in function.variables)])
    graph = function.graph.as_graph_def(add_shapes=True)
    for nodes in (graph.node, *(one.node_def for one in graph.library.function)):
        for node in nodes:
            for shape in node.attr["_output_shapes"].list.shape:
                # What is open is one at the least.
                numbers = math.prod(max(1, axis.size) for axis in shape.dim)
                if numbers > most:
                    raise Unprocessable(
                        f"the model would hold {numbers:,} numbers at a time for one window of a song, in"
                        f" {node.name.rpartition('/')[2][:80]}; the most is {most:,}"
                    )


def _too_many(most: int) -> Unprocessable:
    return Unprocessable(f"the model would have more than the {most:,} weights that its file has numbers for")


def _counting(make: Any) -> Any:
    def counted(self: Any, initializer: Any, shape: Any = None, *args: Any, **kwargs: Any) -> None:
        global _left
        if _left is not None and isinstance(shape, list | tuple):
            _left -= math.prod(n for n in shape if isinstance(n, int))
            if _left < 0:
                raise Unprocessable("too many weights")
        make(self, initializer, shape, *args, **kwargs)

    return counted


keras.Variable.__init__ = _counting(keras.Variable.__init__)
