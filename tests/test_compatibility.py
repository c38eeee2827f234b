"""A model that Keras does not load is refused with a sentence that names the layer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from spectrogram_predictor.errors import UnsupportedMedia
from spectrogram_predictor.worker import compatibility, models
from tests.test_models import lstm, make_legacy

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def double(x: Any) -> Any:
    return 2 * x


def custom(name: str, package: str | None = None) -> Any:
    """A layer of a class that only this test knows."""
    import keras

    class Gate(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return x

    Gate.__module__ = "__main__"
    if package:
        # As when the decorator has run where the model was saved, and not where it is loaded.
        keras.saving.register_keras_serializable(package)(Gate)
        keras.saving.get_custom_objects().pop(f"{package}>Gate")
    return Gate(name=name)


def small(package: str | None = None) -> Any:
    """A regularizer of a class that only this test knows."""
    import keras

    class Small(keras.regularizers.Regularizer):
        def __call__(self, x: Any) -> Any:
            return keras.ops.sum(x)

        def get_config(self) -> dict[str, Any]:
            return {}

    Small.__module__ = "__main__"
    if package:
        keras.saving.register_keras_serializable(package)(Small)
        keras.saving.get_custom_objects().pop(f"{package}>Small")
    return Small()


def inside(layer: Any) -> Any:
    import keras

    return keras.Sequential([keras.layers.Input((4,)), layer], name="outer")


def make(kind: str) -> Any:
    """A part of a model that Keras cannot load again."""
    import keras

    layers = keras.layers
    made: dict[str, Callable[[], Any]] = {
        "custom": lambda: custom("att"),
        "registered": lambda: custom("att", "mine"),
        "nested": lambda: inside(custom("att")),
        "wrapped": lambda: layers.TimeDistributed(custom("att"), name="each"),
        "lambda": lambda: layers.Lambda(lambda x: 2 * x, name="twice"),
        "function": lambda: layers.Lambda(double, name="twice"),
        "regularizer": lambda: layers.Dense(3, kernel_regularizer=small(), name="regd"),
        "own regularizer": lambda: layers.Dense(3, kernel_regularizer=small("mine"), name="regd"),
        "activation": lambda: layers.Dense(3, activation=double, name="bent"),
    }
    return made[kind]()


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("custom", "the layer 'att' of class Gate is not one of Keras's own: "),
        ("registered", "the layer 'att' of class Gate is not one of Keras's own: "),
        ("nested", "the layer 'att' of class Gate is not one of Keras's own: "),
        ("wrapped", "the layer 'att' of class Gate is not one of Keras's own: "),
        ("lambda", "the layer 'twice' of class Lambda holds Python code"),
        ("function", "the layer 'twice' of class Lambda holds Python code"),
        ("regularizer", "the layer 'regd' of class Dense uses 'Small', which is not one of Keras's own: "),
        (
            "own regularizer",
            "the layer 'regd' of class Dense uses 'Small', which is not one of Keras's own: ",
        ),
        ("activation", "the layer 'bent' of class Dense uses 'double', which is not one of Keras's own: "),
    ],
)
def test_the_layer_is_named(tmp_path: Path, ending: str, kind: str, message: str) -> None:
    """Wherever it is in the model, and whatever it is that Keras does not have."""
    import keras

    shape = (4, 4) if kind == "wrapped" else (4,)
    path = tmp_path / f"model.{ending}"
    keras.Sequential([keras.layers.Input(shape), keras.layers.Dense(4), make(kind)]).save(path)
    with pytest.raises(UnsupportedMedia) as refused:
        models.load(path, ending)
    assert refused.value.message.startswith(message)


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_a_model_of_its_own_class_is_named(tmp_path: Path, ending: str) -> None:
    """It has no layer to blame."""
    import keras

    class Net(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    Net.__module__ = "__main__"
    model = Net()
    model.build((None, 4))
    model.save(tmp_path / f"model.{ending}")
    with pytest.raises(UnsupportedMedia, match="the model's class Net is not one of Keras's own"):
        models.load(tmp_path / f"model.{ending}", ending)


@pytest.mark.parametrize("ending", ["h5", "keras"])
def test_an_argument_of_old_is_named_with_its_layer(tmp_path: Path, ending: str) -> None:
    """With its value, where that would make it another model."""
    path = lstm(tmp_path / f"model.{ending}")
    make_legacy(path, True)
    with pytest.raises(UnsupportedMedia, match=r"^the layer 'lstm\w*' of class LSTM has .* time_major=True"):
        models.load(path, ending)


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_layer_that_remembers_is_named(tmp_path: Path, ending: str, wrapped: bool) -> None:
    """The same song would be answered otherwise after another one."""
    import keras

    inner = keras.layers.GRU(2, stateful=True, name="memory")
    outer = keras.layers.Bidirectional(inner) if wrapped else inner
    path = tmp_path / f"model.{ending}"
    keras.Sequential([keras.layers.Input(batch_shape=(1, 4, 3)), outer]).save(path)
    with pytest.raises(UnsupportedMedia, match=r"^the layer '(forward_)?memory' of class GRU is stateful: "):
        models.load(path, ending)


@pytest.mark.parametrize("ending", ["h5", "keras"])
@pytest.mark.parametrize(("layers", "name"), [(1, "the layer 'unrolled0'"), (2, "a layer")])
def test_a_layer_that_cannot_be_called_is_named(tmp_path: Path, ending: str, layers: int, name: str) -> None:
    """If it is known which of its class it is, with Keras's reason."""
    import keras

    unrolled = [
        keras.layers.LSTM(2, unroll=True, return_sequences=True, name=f"unrolled{number}")
        for number in range(layers)
    ]
    path = tmp_path / f"model.{ending}"
    keras.Sequential([keras.layers.Input((None, 3)), *unrolled]).save(path)
    with pytest.raises(UnsupportedMedia, match=rf"^{name} of class LSTM cannot be called: Cannot unroll a RNN"):
        models.load(path, ending)


def layer(class_name: str = "Dense", **config: Any) -> dict[str, Any]:
    """A model of one layer, as Keras 2 describes it."""
    layers = [{"class_name": class_name, "config": {"name": "dense", "units": 1, **config}}]
    return {"class_name": "Sequential", "config": {"name": "model", "layers": layers}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            layer(activation="swoosh"),
            "the layer 'dense' of class Dense uses 'swoosh', which is not one of Keras's",
        ),
        (
            layer(kernel_initializer={"class_name": "Own", "config": {}}),
            "the layer 'dense' of class Dense uses 'Own', which is not one of Keras's own: ",
        ),
        (layer("TFOpLambda", name="x"), "the layer 'x' of class TFOpLambda is not one of Keras's own: "),
    ],
    ids=["activation", "initializer", "operation"],
)
def test_what_keras_2_wrote_is_named_too(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    """Its files say less of what they use, and hold what Keras 3 has no more."""
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(UnsupportedMedia) as refused:
        models.load(path, "h5")
    assert refused.value.message.startswith(message)


MISSING = (
    "Could not locate function 'swoosh'. Make sure it is registered. Full object config: {'class_name': 'Own'}"
)


@pytest.mark.parametrize("said", [MISSING, "Unknown layer: 'Own'", "Layer expects 2 variables", "", "{'x': 1}"])
@pytest.mark.parametrize(
    "config",
    [None, [], "x", {"class_name": "Sequential"}, layer(), layer(activation="relu")],
    ids=repr,
)
def test_nothing_is_said_of_what_is_not_there(config: object, said: str) -> None:
    """Then Keras's own message is what there is."""
    assert compatibility.explain(config, ValueError(said)) is None


def test_what_a_model_was_trained_with_is_not_blamed() -> None:
    """A loss of the notebook's own is not loaded, and is no hindrance."""
    loss = {"module": "builtins", "class_name": "function", "config": "swoosh"}
    assert compatibility.explain({**layer(), "compile_config": {"loss": loss}}, ValueError(MISSING)) is None


def test_the_error_underneath_counts() -> None:
    """What Keras raises around it names everything there is."""
    inner = TypeError("Unrecognized keyword arguments passed to Dense: {'groups': 2}")
    outer = TypeError("<class 'keras.src.models.Sequential'> could not be deserialized: 'Unknown layer: Dense'")
    outer.__cause__ = inner
    found = compatibility.explain(layer(groups=2), outer)
    assert found == "the layer 'dense' of class Dense has the argument groups=2, which Keras 3 does not know"
    assert list(compatibility.messages(outer)) == [str(inner)]


def test_a_long_name_is_shortened() -> None:
    """What a file says of itself does not fill the log."""
    config = {"class_name": "X" * 10_000, "config": {"name": "y" * 10_000}}
    found = compatibility.explain(config, ValueError(f"Unknown layer: '{'X' * 10_000}'"))
    assert found
    assert len(found) < 300


def test_a_deep_config_is_no_harm() -> None:
    """However deep lists lie in each other."""
    config: Any = {"class_name": "Own", "config": {"name": "deep"}}
    for _ in range(100_000):
        config = [config]
    found = compatibility.explain(config, ValueError("Unknown layer: 'Own'"))
    while isinstance(config, list):
        config = config[0]
    assert found
    assert found.startswith("the layer 'deep' of class Own")
