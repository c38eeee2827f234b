"""The form of what comes back from a worker; that others are refused by a real pool, `test_box` shows."""

from typing import Any

import pytest

from spectrogram_predictor import answers

TENSOR = {"name": "x", "shape": [None, 3], "dtype": "float32"}
DESCRIPTION = {"format": "h5", "inputs": [TENSOR, TENSOR], "outputs": [TENSOR]}


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1.0


@pytest.mark.parametrize("value", [[], [[0.5, 1]], [[[True]], [[2.5]]], [[1e300, -0.0]], nested(32)])
def test_arrays_pass(value: Any) -> None:
    """Whatever numpy makes lists of."""
    answers.check_array(value)


@pytest.mark.parametrize(
    "value",
    [None, 1.0, "x", {}, [None], [["0.5"]], [[1.0], 2.0], [float("nan")], [[float("inf")]], [{}], nested(33)],
    ids=repr,
)
def test_no_other_value_is_a_prediction(value: Any) -> None:
    """Texts, nulls, objects, numbers that are none, and lists of both kinds."""
    with pytest.raises(ValueError, match="a prediction"):
        answers.check_array(value)


def test_a_description_passes() -> None:
    """As the engine gives it."""
    answers.check_description(DESCRIPTION, "h5")


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "keras"},
        {"format": ["h5"]},
        {"more": 1},
        {"inputs": None},
        {"inputs": [None]},
        {"outputs": [TENSOR] * 1001},
        {"inputs": [{**TENSOR, "name": 1}]},
        {"inputs": [{**TENSOR, "name": "x" * 1001}]},
        {"inputs": [{**TENSOR, "shape": [1.5]}]},
        {"inputs": [{**TENSOR, "shape": [True]}]},
        {"inputs": [{**TENSOR, "shape": [-1]}]},
        {"inputs": [{**TENSOR, "shape": [1] * 33}]},
        {"inputs": [{**TENSOR, "more": 1}]},
    ],
    ids=lambda changes: repr(changes)[:40],
)
def test_no_other_description_passes(changes: dict[str, Any]) -> None:
    """Keys, types, lengths and sizes are those of a model."""
    with pytest.raises(ValueError, match="description"):
        answers.check_description({**DESCRIPTION, **changes}, "h5")
