"""Load a Keras model file and call it: the only module that imports TensorFlow.

Imported by workers, never by the server process.
"""

import errno
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spectrogram_predictor import answers
from spectrogram_predictor.errors import (
    ModelNotFound,
    SpectrogramPredictorError,
    StorageUnavailable,
    Unavailable,
    Unprocessable,
    UnsupportedMedia,
)
from spectrogram_predictor.worker import allowance, compatibility, gate

Shape = tuple[int | None, ...]

_RECURRENT = ("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")

LEGACY_ARGUMENTS: dict[str, dict[str, Any]] = {
    **{name: {"time_major": False} for name in _RECURRENT},
    "DepthwiseConv2D": {"groups": 1},
    "DepthwiseConv1D": {"groups": 1},
    "Conv2DTranspose": {"groups": 1},
    "Conv1DTranspose": {"groups": 1},
    "Conv3DTranspose": {"groups": 1},
    "SeparableConv1D": {"groups": 1},
    "SeparableConv2D": {"groups": 1},
}
"""Arguments that Keras 2 wrote and Keras 3 refuses, with the value at which leaving them out changes nothing."""


_PASSING = {
    errno.EACCES,
    errno.EAGAIN,
    errno.EDQUOT,
    errno.EINTR,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOSPC,
    errno.EROFS,
    errno.ESTALE,
    errno.ETIMEDOUT,
}
"""What the operating system says of itself; of a damaged file, HDF5 and zipfile give no number, or EINVAL."""


_NO_MEMORY = (MemoryError, tf.errors.ResourceExhaustedError)


class OutOfMemory(Unavailable):
    """What a model needs is more than this process may take, at least beside what else it holds now."""


class Model:
    """A loaded model, called through a compiled function.

    Parameters
    ----------
    model : keras.Model
        As loaded, not compiled for training.

    Attributes
    ----------
    inputs, outputs : list of dict
        ``name``, ``shape`` without the batch (None where any size will do) and ``dtype`` of each.
    """

    def __init__(self, model: Any) -> None:
        self.inputs = [_describe(tensor) for tensor in model.inputs]
        self.outputs = [_describe(tensor) for tensor in model.outputs]
        signature = [tf.TensorSpec([None, *item["shape"]], item["dtype"]) for item in self.inputs]

        def call(*tensors: Any) -> Any:
            sequential = isinstance(model, keras.Sequential)
            packed = tensors[0] if sequential else keras.tree.pack_sequence_as(model.input, list(tensors))
            return keras.tree.flatten(model(packed, training=False))[0]

        # Looking for the function that fits takes longer than to compute a small model.
        # Nothing in `call` depends on values; AutoGraph would write its source to a file.
        self._function = tf.function(call, signature, autograph=False).get_concrete_function()
        allowance.check_graph(self._function, gate.MAX_PEAK)

    @property
    def shapes(self) -> list[Shape]:
        """The inputs' shapes without the batch."""
        return [tuple(item["shape"]) for item in self.inputs]

    def __call__(self, inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Call the model.

        Parameters
        ----------
        inputs : sequence of np.ndarray
            One an input, in the order of `inputs`, each with a batch axis.

        Returns
        -------
        output : np.ndarray [shape=(batch, ...)]
            The model's first output.

        Raises
        ------
        Unprocessable
            The model cannot be called on these, its answer is not a number, or not of its output's shape, or it
            is more than `answers.MAX_PARTS`.
        OutOfMemory
            It takes more memory for these than there is.
        """
        try:
            tensors = [tf.constant(array, item["dtype"]) for array, item in zip(inputs, self.inputs, strict=True)]
            output: NDArray[Any] = self._function(*tensors).numpy()
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, TypeError, ValueError) as error:
            raise Unprocessable(f"the model cannot be called on these inputs: {public(error)}") from error
        except _NO_MEMORY as error:
            raise OutOfMemory("there is no memory for the model's answer now") from error
        if not np.isfinite(output).all():
            raise Unprocessable("the model's answer is not a number")
        known = self.outputs[0]["shape"]
        if not output.ndim or not answers.fits(output.shape[1:], known):
            raise Unprocessable(f"the model's answer has the shape {output.shape[1:]}, its output {tuple(known)}")
        _check_size(output.shape[1:])
        return output


def configure(threads: int) -> None:
    """Set TensorFlow up for this process; call once, before anything else.

    Parameters
    ----------
    threads : int > 0
        Threads for one operation.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    # Its records go to the log as everybody's do, and not a second time past it.
    tf.get_logger().handlers.clear()


def load(path: Path, format: str, *, allow_custom: bool = False) -> Model:  # noqa: A002
    """Load a model file, if it is one that may be given to Keras.

    Parameters
    ----------
    path : Path
        The file; its name does not matter.
    format : str
        ``"h5"`` or ``"keras"``.
    allow_custom : bool
        Whether its layers of class Lambda may run the Python code in them.

    Raises
    ------
    UnsupportedMedia
        The gate refuses it, or Keras cannot load it; where a layer is why, the message names it.
    Unprocessable
        It is too large for its file; or it loads, but has several outputs, or one of more than
        `answers.MAX_PARTS`, its shapes are not known, or its inputs and output are not numbers.
    ModelNotFound, Unavailable
        There is no file, or this machine cannot read or hold it now; nothing is known of its content.
    """
    if not path.exists():
        raise ModelNotFound("the model's file is gone")
    try:
        with allowance.of_weights(gate.check(path, format, allow_custom=allow_custom)):
            model = _load(path, format, allow_custom)
            _check_sides(model)
            return Model(model)
    except SpectrogramPredictorError:
        raise
    except Exception as error:
        raise_if_passing(error)
        # Keras raises every kind of exception at a file that is not what it expects.
        raise UnsupportedMedia(_explain(path, format, error)) from error


def _load(path: Path, format: str, allow_custom: bool) -> Any:  # noqa: A002
    with tempfile.TemporaryDirectory(prefix="model-") as folder:
        # Keras chooses the format by the name's ending.
        link = Path(folder) / f"model.{format}"
        link.symlink_to(path.absolute())
        return keras.models.load_model(link, compile=False, safe_mode=not allow_custom)


def _explain(path: Path, format: str, error: Exception) -> str:  # noqa: A002
    try:
        found = compatibility.explain(_config(path, format), error)
    except Exception:
        # The file is what is wrong: what it says of itself may be too.
        found = None
    return found or f"not a Keras model that can be loaded: {public(error)}"


def _config(path: Path, format: str) -> Any:  # noqa: A002
    if format == "h5":
        with h5py.File(path, "r") as file:
            return json.loads(file.attrs["model_config"])
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def _check_sides(model: Any) -> None:
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise Unprocessable("the model does not say the shapes of its inputs")
    if len(model.outputs) != 1:
        raise Unprocessable(f"the model has {len(model.outputs)} outputs; one is needed")
    for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
        for tensor in tensors:
            _check_numeric(kind, tensor)
    _check_size([size or 1 for size in model.outputs[0].shape[1:]])


def _check_numeric(kind: str, tensor: Any) -> None:
    dtype = tf.as_dtype(tensor.dtype)
    if not (dtype.is_floating or dtype.is_integer or dtype.is_bool):
        raise Unprocessable(f"the model's {kind} {tensor.name!r} is of type {dtype.name}; numbers are needed")


def _check_size(shape: Sequence[int]) -> None:
    parts = answers.parts((1, *shape))
    if parts > answers.MAX_PARTS:
        raise Unprocessable(f"the model's answer is {parts} numbers and lists; the most is {answers.MAX_PARTS}")


def raise_if_passing(error: BaseException) -> None:
    """Raise `Unavailable` if at the bottom of an error is a fault of this machine, which may pass."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _PASSING:
            raise StorageUnavailable(f"the model cannot be read now: {os.strerror(cause.errno)}") from error
        if isinstance(cause, _NO_MEMORY):
            raise OutOfMemory("there is no memory for the model now") from error
        cause = cause.__cause__ or cause.__context__


def _accept_legacy_arguments() -> None:
    for name, neutral in LEGACY_ARGUMENTS.items():
        if layer := getattr(keras.layers, name, None):
            layer.from_config = classmethod(_dropping(neutral, layer.from_config.__func__))


def _dropping(neutral: dict[str, Any], from_config: Callable[..., Any]) -> Callable[..., Any]:
    def tolerant_from_config(cls: type, config: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        kept = {key: value for key, value in config.items() if neutral.get(key, ...) != value}
        return from_config(cls, kept, *args, **kwargs)

    return tolerant_from_config


def _describe(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "shape": list(tensor.shape[1:]), "dtype": str(tensor.dtype)}


def public(error: Exception) -> str:
    """Return the first line of an error, without paths; of Keras's errors around others, the one inside."""
    lines = next(compatibility.messages(error), str(error)).strip().splitlines() or [type(error).__name__]
    return re.sub(r"\S*/\S+", "…", lines[0])[:300]


def _compile_nothing(model: Any, config: Any) -> None:
    """Leave out what a model in another was trained with: a metric may take any amount of memory."""
    del model, config


# Not custom_objects: Keras looks there for HDF5 files only. This process loads models and does nothing else.
_accept_legacy_arguments()
keras.Model.compile_from_config = _compile_nothing
