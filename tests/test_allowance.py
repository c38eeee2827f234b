"""What Keras makes beyond what the gate said is found before it takes the memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spectrogram_predictor.errors import Unprocessable, UnsupportedMedia
from spectrogram_predictor.worker import allowance, architecture, footprint, gate, models
from tests.zoo.making import Dialect, with_config

FEW = 100


def test_weights_beyond_the_allowance_are_not_made() -> None:
    """The variable that would be one too many, whichever layer asks for it."""
    import keras

    layer = keras.layers.Dense(FEW)
    with pytest.raises(Unprocessable, match="more than the 100 weights"), allowance.of_weights(FEW):
        layer.build((None, 10**9))
    assert not layer.weights
    keras.layers.Dense(FEW).build((None, 2 * FEW))


def test_weights_within_the_allowance_are_made() -> None:
    """To the last one."""
    import keras

    layer = keras.layers.Dense(FEW // 2)
    with allowance.of_weights(FEW):
        layer.build((None, 1))
    assert layer.count_params() == FEW


def test_who_ignores_that_it_was_stopped_is_refused_all_the_same() -> None:
    """Keras tries many things and goes on when they fail."""
    import keras

    def ignoring() -> None:
        with allowance.of_weights(FEW):
            try:
                keras.layers.Dense(FEW).build((None, FEW))
            except Unprocessable:
                return

    with pytest.raises(Unprocessable, match="more than the 100 weights"):
        ignoring()


def test_an_error_of_another_kind_is_passed_on() -> None:
    """If nothing was too much."""
    with pytest.raises(LookupError), allowance.of_weights(FEW):
        raise LookupError


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Any], Path]:
    """Write a model of a configuration."""

    def write(config: Any) -> Path:
        path = tmp_path / "model.keras"
        path.write_bytes(with_config("keras", config))
        return path

    return write


def test_a_layer_that_holds_more_than_its_formula_is_not_called(
    saved: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that each number is multiplied by: the graph of operations shows it, with no gate before."""
    dialect = Dialect("keras")
    slope = dialect.layer("ELU", alpha=[[0.0]] * 20_000)
    path = saved(dialect.sequential(dialect.input(20_000), slope))
    with pytest.raises(UnsupportedMedia, match="several numbers for alpha"):
        models.load(path, "keras")
    monkeypatch.setattr(architecture, "check", lambda model, allow_custom: None)
    with pytest.raises(Unprocessable, match=r"would hold 400,000,000 numbers at a time .* in "):
        models.load(path, "keras")


def test_weights_that_the_formula_does_not_know_of_are_not_made(
    saved: Callable[[Any], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a footprint that says nothing of any layer."""
    dialect = Dialect("keras")
    path = saved(dialect.sequential(dialect.input(4), dialect.layer("Dense", units=10**9)))
    monkeypatch.setattr(footprint, "measure", lambda model: footprint.Footprint(0, 0))
    with pytest.raises(Unprocessable, match=r"would have more than the [0-9,]+ weights that its file"):
        models.load(path, "keras")


def test_what_a_model_in_another_was_trained_with_is_not_made(saved: Callable[[Any], Path]) -> None:
    """A metric would take ten gigabytes."""
    dialect = Dialect("keras")
    metric = dialect.part("MeanIoU", {"name": "much", "num_classes": 50_000}, "keras.metrics")
    inner = dialect.graph((dialect.input(4), [], []), (dialect.layer("ReLU"), ["in"], []))
    trained = {"optimizer": "rmsprop", "loss": "mse", "metrics": [metric]}
    path = saved(dialect.sequential(dialect.input(4), {**inner, "compile_config": trained}))
    gate.check(path, "keras")
    model = models.load(path, "keras")
    assert model([np.ones((1, 4), np.float32)]).tolist() == [[1.0] * 4]


def test_a_model_that_cannot_be_called_is_refused_with_a_reason(saved: Callable[[Any], Path]) -> None:
    """Not as a fault of ours: a mask of another shape than what it is for."""
    dialect = Dialect("keras")
    odd = [dialect.layer("Masking", "mask"), dialect.layer("Softmax", "soft")]
    path = saved(dialect.sequential(dialect.input(20, 1), *odd))
    with pytest.raises(UnsupportedMedia, match=r"^the layer 'soft' of class Softmax cannot be called"):
        models.load(path, "keras")


@pytest.mark.parametrize(("times", "fits"), [(1, True), (60, False)])
def test_weights_may_be_more_than_what_is_held_for_a_window(
    monkeypatch: pytest.MonkeyPatch, times: int, fits: bool
) -> None:
    """They are read as a whole; what is made of a window may be as large, and no larger."""
    import keras

    monkeypatch.setattr(gate, "MAX_PEAK", 1000)
    layers = keras.layers
    ending = [layers.Flatten(), layers.RepeatVector(times), layers.Dense(50), layers.Flatten(), layers.Dense(10)]
    model = keras.Sequential([layers.Input((24, 32, 1)), *ending])
    if fits:
        assert models.Model(model)([np.zeros((1, 24, 32, 1), np.float32)]).shape == (1, 10)
    else:
        with pytest.raises(Unprocessable, match="would hold 46,080 numbers"):
            models.Model(model)
