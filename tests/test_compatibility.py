"""A model that Keras does not load is refused with a sentence that names the layer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spectrogram_predictor import compatibility, models
from spectrogram_predictor.errors import UnsupportedMedia
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


@pytest.mark.parametrize(
    "config",
    [
        None,
        [],
        {"class_name": "Sequential"},
        {"class_name": "Sequential", "config": {"layers": [{"class_name": "Dense", "config": {"name": "dense"}}]}},
        {"class_name": "Dense", "config": {"dtype": {"class_name": "Policy", "config": {"name": "p"}}}},
        {"class_name": "Dense", "config": {"name": 1, "kernel_initializer": {"class_name": "Own", "config": {}}}},
    ],
    ids=repr,
)
def test_nothing_is_said_of_what_keras_has(config: object) -> None:
    """Then Keras's own message is what there is."""
    error = ValueError("Unrecognized keyword arguments passed to LSTM: {'x': 1}")
    assert compatibility.explain(config, error, lambda name: name == "Dense") is None


def test_a_long_name_is_shortened() -> None:
    """What a file says of itself does not fill the log."""
    config = {"class_name": "X" * 10_000, "config": {"name": "y" * 10_000}}
    found = compatibility.explain(config, ValueError(), lambda name: False)
    assert found
    assert len(found) < 300


def test_a_deep_config_is_no_harm() -> None:
    """However deep lists lie in each other."""
    config: Any = {"class_name": "Own", "config": {"name": "deep"}}
    for _ in range(100_000):
        config = [config]
    found = compatibility.explain(config, ValueError(), lambda name: False)
    while isinstance(config, list):
        config = config[0]
    assert found
    assert found.startswith("the layer 'deep' of class Own")
