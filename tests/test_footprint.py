"""Weights and shapes from a configuration alone are those that Keras builds."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectrogram_predictor.config import PredictionSettings
from spectrogram_predictor.errors import Unprocessable
from spectrogram_predictor.pool import WorkerPool
from spectrogram_predictor.worker import catalog, footprint, gate, layers, operations, shapes
from tests import gauge
from tests.live import wait_until

# Keras warns of what is not built, and of HDF5.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PICTURE, STEPS, SOLID, SOUND, ROW = (8, 12, 3), (10, 4), (6, 6, 6, 2), (16_000,), (7,)

Case = tuple[str, tuple[int, ...], dict[str, Any]]

GIVEN: dict[str, dict[str, Any]] = {
    "Activation": {"activation": "relu"},
    "GroupNormalization": {"groups": 3},
    "RandomRotation": {"factor": 0.1},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
    "Rescaling": {"scale": 0.1},
    "RandomPosterization": {"factor": 4},
    **{name: {"rate": 0.1} for name in ("AlphaDropout", "Dropout", "GaussianDropout", "SpatialDropout2D")},
    **{
        f"Random{name}": {"factor": 0.1}
        for name in ("Brightness", "Contrast", "Hue", "ColorDegeneration", "Saturation", "Sharpness")
    },
    "GaussianNoise": {"stddev": 0.1},
}
PLAIN = """
Activation ActivityRegularization AlphaDropout AugMix AutoContrast BatchNormalization
ContrastLimitedAdaptiveHistogramEqualization Dropout ELU Flatten GaussianDropout GaussianNoise
GlobalAveragePooling2D GlobalMaxPooling2D GroupNormalization Identity LayerNormalization LeakyReLU Masking
MaxPooling2D Normalization PReLU RMSNormalization RandAugment RandomBrightness RandomColorDegeneration
RandomColorJitter RandomContrast RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur
RandomGrayscale RandomHue RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
RandomSharpness RandomShear RandomTranslation RandomZoom ReLU Rescaling Softmax Solarization SpatialDropout2D
UnitNormalization UpSampling2D ZeroPadding2D Cropping2D
"""
CASES: list[Case] = [
    *((name, PICTURE, GIVEN.get(name, {})) for name in PLAIN.split()),
    ("AdaptiveAveragePooling1D", STEPS, {"output_size": 2}),
    ("AdaptiveAveragePooling2D", PICTURE, {"output_size": (2, 3)}),
    ("AdaptiveAveragePooling3D", SOLID, {"output_size": 2}),
    ("AdaptiveMaxPooling1D", STEPS, {"output_size": 2}),
    ("AdaptiveMaxPooling2D", PICTURE, {"output_size": 2}),
    ("AdaptiveMaxPooling3D", SOLID, {"output_size": 2}),
    ("AveragePooling1D", STEPS, {"pool_size": 3}),
    ("AveragePooling2D", PICTURE, {"pool_size": 3, "strides": 2}),
    ("AveragePooling3D", SOLID, {"pool_size": 2}),
    ("BatchNormalization", PICTURE, {"axis": 1}),
    ("CategoryEncoding", (1,), {"num_tokens": 9, "output_mode": "one_hot"}),
    ("CategoryEncoding", (5,), {"num_tokens": 9}),
    ("CenterCrop", PICTURE, {"height": 5, "width": 6}),
    ("Conv1D", STEPS, {"filters": 6, "kernel_size": 3, "padding": "causal", "strides": 2}),
    ("Conv1DTranspose", STEPS, {"filters": 6, "kernel_size": 3}),
    ("Conv2D", PICTURE, {"filters": 6, "kernel_size": (3, 2), "dilation_rate": 2}),
    ("Conv2D", PICTURE, {"filters": 6, "kernel_size": 3, "groups": 3}),
    ("Conv2D", PICTURE, {"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ("Conv2DTranspose", PICTURE, {"filters": 6, "kernel_size": 3, "strides": 2}),
    ("Conv2DTranspose", PICTURE, {"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same"}),
    ("Conv3D", SOLID, {"filters": 3, "kernel_size": 2}),
    ("Conv3DTranspose", SOLID, {"filters": 3, "kernel_size": 2}),
    ("ConvLSTM1D", (4, 8, 2), {"filters": 3, "kernel_size": 3}),
    ("ConvLSTM2D", (4, 8, 9, 2), {"filters": 3, "kernel_size": 3, "return_sequences": True}),
    ("ConvLSTM3D", (4, 5, 6, 7, 2), {"filters": 3, "kernel_size": 3}),
    ("Cropping1D", STEPS, {}),
    ("Cropping2D", PICTURE, {"cropping": ((1, 2), (3, 4))}),
    ("Cropping3D", SOLID, {}),
    ("Dense", STEPS, {"units": 7}),
    ("DepthwiseConv1D", STEPS, {"kernel_size": 3}),
    ("DepthwiseConv2D", PICTURE, {"kernel_size": 3, "depth_multiplier": 2}),
    ("Discretization", (5,), {"bin_boundaries": [0.0, 1.0]}),
    ("EinsumDense", STEPS, {"equation": "...x,xy->...y", "output_shape": 64}),
    ("Embedding", (9,), {"input_dim": 50, "output_dim": 4}),
    ("GRU", STEPS, {"units": 5}),
    ("GRU", STEPS, {"units": 5, "reset_after": False}),
    ("GlobalAveragePooling1D", STEPS, {}),
    ("GlobalAveragePooling3D", SOLID, {}),
    ("GlobalMaxPooling1D", STEPS, {}),
    ("GlobalMaxPooling2D", PICTURE, {"keepdims": True}),
    ("GlobalMaxPooling3D", SOLID, {}),
    ("Hashing", (5,), {"num_bins": 9}),
    ("LSTM", STEPS, {"units": 5, "return_sequences": True}),
    ("LayerNormalization", PICTURE, {"axis": [1, 2, 3]}),
    ("MaxPooling1D", STEPS, {}),
    ("MaxPooling2D", PICTURE, {"strides": 1, "padding": "same"}),
    ("MaxPooling3D", SOLID, {}),
    ("MelSpectrogram", SOUND, {}),
    ("Normalization", PICTURE, {"axis": None, "mean": 0.0, "variance": 1.0}),
    ("PReLU", PICTURE, {"shared_axes": [1, 2]}),
    ("Permute", PICTURE, {"dims": (2, 1, 3)}),
    ("RandomCrop", PICTURE, {"height": 10, "width": 12}),
    ("RepeatVector", ROW, {"n": 3}),
    ("Reshape", PICTURE, {"target_shape": (-1, 6)}),
    ("Rescaling", PICTURE, {"scale": [0.1, 0.2, 0.3], "offset": (1.0, 2.0, 3.0)}),
    ("Resizing", PICTURE, {"height": 5, "width": 6}),
    ("ReversibleEmbedding", (9,), {"input_dim": 50, "output_dim": 4, "tie_weights": False}),
    ("STFTSpectrogram", (16_000, 1), {"frame_length": 200, "frame_step": 100}),
    ("STFTSpectrogram", (16_000, 2), {"frame_length": 200, "frame_step": 100, "expand_dims": True}),
    ("SeparableConv1D", STEPS, {"filters": 6, "kernel_size": 3}),
    ("SeparableConv2D", PICTURE, {"filters": 6, "kernel_size": 3, "depth_multiplier": 2}),
    ("SimpleRNN", STEPS, {"units": 5}),
    ("SpatialDropout1D", STEPS, {"rate": 0.1}),
    ("SpatialDropout3D", SOLID, {"rate": 0.1}),
    ("UpSampling1D", STEPS, {}),
    ("UpSampling2D", PICTURE, {"size": (2, 3)}),
    ("UpSampling3D", SOLID, {}),
    ("ZeroPadding1D", STEPS, {"padding": (1, 3)}),
    ("ZeroPadding2D", PICTURE, {"padding": ((1, 2), (3, 4))}),
    ("ZeroPadding3D", SOLID, {}),
]  # fmt: skip

NOT_IN_HDF5 = {
    *("RandomBrightness", "RandomColorDegeneration", "RandomPosterization", "RandomSaturation"),
    *("RandomSharpness", "Solarization"),
}
"""Keras cannot write these there."""

MERGING = ("Add", "Average", "Maximum", "Minimum", "Multiply", "Subtract", "Concatenate")
OTHERS: dict[str, tuple[tuple[int, ...], Callable[[Any, Any], Any]]] = {
    **{name: (STEPS, lambda k, x, name=name: getattr(k, name)()([x, x])) for name in MERGING},  # type: ignore[misc]
    "Dot": (STEPS, lambda k, x: k.Dot(2)([x, x])),
    "Dot of rows": (ROW, lambda k, x: k.Dot(1)([x, x])),
    "Attention": (STEPS, lambda k, x: k.Attention()([x, x])),
    "AdditiveAttention": (STEPS, lambda k, x: k.AdditiveAttention()([x, x])),
    "MultiHeadAttention": (STEPS, lambda k, x: k.MultiHeadAttention(2, 3)(x, x)),
    "MultiHeadAttention of its own sizes": (
        STEPS, lambda k, x: k.MultiHeadAttention(2, 3, value_dim=5, output_shape=9)(x, value=x)),
    "GroupQueryAttention": (STEPS, lambda k, x: k.GroupQueryAttention(3, 4, 2)(x, x)),
    "HashedCrossing": ((1,), lambda k, x: k.HashedCrossing(9, output_mode="one_hot")([x, x])),
    "LSTM with its states": (STEPS, lambda k, x: k.Concatenate()(k.LSTM(5, return_state=True)(x))),
    "Bidirectional": (STEPS, lambda k, x: k.Bidirectional(k.LSTM(5))(x)),
    "Bidirectional sums": (STEPS, lambda k, x: k.Bidirectional(k.GRU(5), merge_mode="sum")(x)),
    "Bidirectional with states": (
        STEPS, lambda k, x: k.Concatenate()(k.Bidirectional(k.LSTM(5, return_state=True))(x))),
    "TimeDistributed": (STEPS, lambda k, x: k.TimeDistributed(k.Dense(7))(x)),
    "RNN": (STEPS, lambda k, x: k.RNN(k.LSTMCell(5))(x)),
    "RNN of several": (STEPS, lambda k, x: k.RNN(k.StackedRNNCells([k.GRUCell(5), k.SimpleRNNCell(6)]))(x)),
    "SpectralNormalization": (PICTURE, lambda k, x: k.SpectralNormalization(k.Conv2D(4, 3))(x)),
    "Pipeline": (PICTURE, lambda k, x: k.Pipeline([k.Rescaling(2), k.Resizing(4, 4)])(x)),
}  # fmt: skip

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "Mean": lambda o, x: o.mean(x, axis=1),
    "Mean that keeps": lambda o, x: o.mean(x, axis=(1, 2), keepdims=True),
    "Multiply Add": lambda o, x: x * 2 + x,
    "Add what is written": lambda o, x: x + o.convert_to_tensor([1.0, 2.0, 3.0, 4.0]),
    "GetItem": lambda o, x: x[:, 1:5:2, ..., 0],
    "GetItem with a new axis": lambda o, x: x[:, None, 3],
    "Reshape": lambda o, x: o.reshape(x, (-1, 20, 2)),
    "Transpose": lambda o, x: o.transpose(x, (0, 2, 1)),
    "ExpandDims Squeeze": lambda o, x: o.squeeze(o.expand_dims(x, 2), 2),
    "Concatenate": lambda o, x: o.concatenate([x, x], axis=1),
    "Stack": lambda o, x: o.stack([x, x], axis=-1),
    "Split": lambda o, x: o.split(x, 2, axis=2)[1],
    "Matmul": lambda o, x: o.matmul(x, o.transpose(x, (0, 2, 1))),
    "Swapaxes": lambda o, x: o.swapaxes(x, 1, 2),
    "Moveaxis": lambda o, x: o.moveaxis(x, 1, 2),
    "Softmax": lambda o, x: o.softmax(x),
    "Log": lambda o, x: o.log(x + 1e-6),
    "ConvertToTensor": lambda o, x: o.convert_to_tensor(x, dtype="float16"),
    "Where": lambda o, x: o.where(x > 0, x, 0.0),
}


def check(model: Any, folder: Path, endings: tuple[str, ...] = ("keras", "h5")) -> None:
    """Check that a model gets through, with the shapes and about the weights that it has."""
    weights = sum(math.prod(one.shape) for one in model.weights)
    shapes = [tuple(1 if n is None else n for n in tensor.shape) for tensor in model.outputs]
    for ending in endings:
        path = folder / f"model.{ending}"
        model.save(path)
        gate.check(path, ending)
        config, numbers = gate._from_hdf5(path) if ending == "h5" else gate._from_archive(path)
        ran = footprint._Run().call(config, [])
        assert ran.outputs == shapes
        # Where it is not exact: never below, and well within what is spared.
        assert weights <= ran.weights <= 1.5 * weights + 10
        assert weights <= numbers


@pytest.mark.parametrize(("name", "shape", "config"), CASES, ids=lambda value: str(value)[:40])
def test_a_layer_is_measured_as_keras_builds_it(
    tmp_path: Path, name: str, shape: tuple[int, ...], config: dict[str, Any]
) -> None:
    """From what either format says of it."""
    import keras

    given = keras.layers.Input(shape)
    model = keras.Model(given, getattr(keras.layers, name)(**config)(given))
    check(model, tmp_path, ("keras",) if name in NOT_IN_HDF5 else ("keras", "h5"))


@pytest.mark.parametrize("name", OTHERS)
def test_layers_of_several_inputs_and_of_layers_are_measured(tmp_path: Path, name: str) -> None:
    """Whatever they are called with, and whatever is in them."""
    import keras

    shape, make = OTHERS[name]
    given = keras.layers.Input(shape)
    check(keras.Model(given, make(keras.layers, given)), tmp_path)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_measured_as_keras_does_it(tmp_path: Path, name: str) -> None:
    """Between layers, with what is written beside."""
    import keras

    given = keras.layers.Input(STEPS)
    check(keras.Model(given, OPERATIONS[name](keras.ops, given)), tmp_path, ("keras",))


def test_models_in_models_and_layers_that_are_called_twice_are_measured(tmp_path: Path) -> None:
    """Each weight once, each call for itself."""
    import keras

    layers = keras.layers
    given = layers.Input((16, 12, 1))
    inner = keras.Sequential([layers.Input((16, 12, 1)), layers.Conv2D(4, 3), layers.ReLU()])
    left, right = inner(given), inner(layers.Rescaling(2.0)(given))
    graph = keras.Model(given, layers.Add()([left, right]))
    check(keras.Sequential([layers.Input((16, 12, 1)), graph, layers.Flatten(), layers.Dense(3)]), tmp_path)


WORKING: list[Case] = [
    ("AdaptiveMaxPooling2D", (1500, 1500, 1), {"output_size": 1300}),
    ("AutoContrast", (1600, 1600, 3), {}),
    ("CategoryEncoding", (2000,), {"num_tokens": 9000}),
    ("ContrastLimitedAdaptiveHistogramEqualization", (240, 240, 1), {}),
    ("Conv1D", (16, 1), {"filters": 1, "kernel_size": 3, "dilation_rate": 2 * 10**6, "padding": "causal"}),
    ("Conv2D", (4, 800, 800), {"filters": 4, "kernel_size": 3, "groups": 2, "data_format": "channels_first"}),
    ("Conv2DTranspose", (300, 300, 1), {"filters": 2, "kernel_size": 12}),
    ("ConvLSTM2D", (3, 200, 200, 3), {"filters": 32, "kernel_size": 3}),
    ("DepthwiseConv2D", (16, 16, 1), {"kernel_size": 3, "dilation_rate": 1100, "padding": "same"}),
    ("GRU", (60_000, 32), {"units": 32, "return_sequences": True}),
    ("GroupNormalization", (1500, 1500, 3), {"groups": 3}),
    ("Hashing", (2**21,), {"num_bins": 9}),
    ("LSTM", (60_000, 32), {"units": 32}),
    ("LayerNormalization", (1700, 1700, 3), {}),
    ("MelSpectrogram", (10**6,), {}),
    ("Resizing", (128, 128, 1), {"height": 2600, "width": 4, "pad_to_aspect_ratio": True}),
    ("Resizing", (4, 3600, 1), {"height": 3600, "width": 4, "antialias": True}),
    ("STFTSpectrogram", (10**6, 1), {"frame_length": 200, "frame_step": 50}),
    ("SeparableConv2D", (16, 16, 1), {"filters": 1, "kernel_size": 3, "dilation_rate": 1200, "padding": "same"}),
    ("Softmax", (1800, 1800, 3), {}),
    ("UpSampling2D", (300, 300, 3), {"size": 8}),
]  # fmt: skip
"""Layers that hold much while they work, some of them without being given or making it."""

SLACK_BYTES = 64 * 2**20
FACTOR = 4


def test_a_worker_takes_about_the_memory_that_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real one, for what a layer holds while it works: the least first, as what was taken once is kept."""
    import keras

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    found: list[tuple[int, str, Path]] = []
    for number, (name, shape, config) in enumerate(WORKING):
        given = keras.layers.Input(shape)
        path = tmp_path / f"{number}.keras"
        made = getattr(keras.layers, name)(**config)(given)
        # An answer of that size would not be taken.
        keras.Model(given, keras.ops.max(made, axis=list(range(1, made.ndim)), keepdims=True)).save(path)
        found.append((footprint.measure(gate._from_archive(path)[0]).peak * 4, name, path))
    pool = WorkerPool(PredictionSettings(workers=1, timeout_s=60), "tests.gauge:start", [tmp_path])
    try:
        wait_until(lambda: pool.pids)
        (pid,) = pool.pids
        memory, taken_bytes = gauge.Memory(pid), 0
        for peak_bytes, name, path in sorted(found):
            pool.submit(gauge.call, path).result(60)
            taken_bytes = max(taken_bytes, memory.growth_bytes)
            assert taken_bytes <= FACTOR * peak_bytes + SLACK_BYTES, name
        assert taken_bytes > max(found)[0] / FACTOR, "nothing was measured"
    finally:
        pool.shutdown(cancel_futures=True)


def test_every_layer_that_is_accepted_has_a_rule() -> None:
    """And every operation; so nothing is accepted that is not measured."""
    known = layers.RULES.keys() | footprint._WRAPPERS.keys() | {"InputLayer", "Pipeline"}
    assert known >= catalog.LAYERS
    assert all(operations.rule_of(name) for name in catalog.OPERATIONS)


def test_all_of_keras_s_layers_are_sorted() -> None:
    """A new one is neither accepted nor refused by accident."""
    import keras

    names = {name for name, value in vars(keras.layers).items() if isinstance(value, type)}
    assert names <= catalog.LAYERS | catalog.REFUSED.keys()
    assert not catalog.LAYERS & catalog.REFUSED.keys()


def model_of(*layers: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    made = [
        {"class_name": name, "config": {"name": f"{name}_{n}", **config}}
        for n, (name, config) in enumerate(layers)
    ]
    return {"class_name": "Sequential", "config": {"name": "model", "layers": made}}


def test_the_most_that_is_held_at_a_time_counts() -> None:
    """What goes into a layer, what comes out, and what it needs beside; not what is gone by then."""
    shape = ("InputLayer", {"batch_shape": [None, 4, 4, 2]})
    model = model_of(shape, ("UpSampling2D", {"size": [2, 2]}), ("Flatten", {}), ("Dense", {"units": 5}))
    found = footprint.measure(model)
    assert found == footprint.Footprint(weights=128 * 5 + 5, peak=128 + 128)


def test_what_is_open_has_a_size_too() -> None:
    """A song decides it; until then, something does."""
    model = model_of(("InputLayer", {"batch_shape": [None, None, 2]}), ("Dense", {"units": 5}))
    assert footprint.measure(model).peak == shapes.OPEN * 7


@pytest.mark.parametrize("steps", [130, 1300])
def test_layers_for_each_frame_of_a_window_get_through(steps: int) -> None:
    """As many as there are in a small network, for each of as many frames as in half a minute."""
    inner = model_of(*[("Dense", {"units": 4})] * 10)
    model = model_of(("InputLayer", {"batch_shape": [None, steps, 4]}), ("TimeDistributed", {"layer": inner}))
    assert footprint.measure(model).weights == 10 * 20


@pytest.mark.parametrize("config", [{}, {"layers": 3}, {"layers": [None]}, {"layers": [{"class_name": "Dense"}]}])
def test_what_cannot_be_followed_is_refused(config: dict[str, Any]) -> None:
    """Keras may know what to do with it; it is not tried."""
    with pytest.raises(Unprocessable):
        footprint.measure({"class_name": "Sequential", "config": config})


def test_layers_that_pass_a_mask_on_get_through(tmp_path: Path) -> None:
    """With the operations between them that Keras writes down for it."""
    import keras

    layers = keras.layers
    given = layers.Input((20, 4))
    steps = layers.LSTM(5, return_sequences=True)(layers.Masking()(given))
    weights = layers.Softmax(axis=1)(layers.Dense(1)(steps))
    path = tmp_path / "model.keras"
    keras.Model(given, layers.Flatten()(layers.Dot(1)([weights, steps]))).save(path)
    gate.check(path, "keras")


def test_a_deep_network_for_pictures_of_any_size_gets_through(tmp_path: Path) -> None:
    """What it is built for says nothing of how large its pictures still are so far down."""
    import keras

    given = x = keras.layers.Input((None, None, 1))
    for channels in (16, 64, 256, 600):
        x = keras.layers.Conv2D(channels, 3, strides=2, padding="same")(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    check(keras.Model(given, keras.layers.GlobalAveragePooling2D()(x)), tmp_path)
