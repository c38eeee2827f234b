"""The form of what comes back from a worker; that others are refused by a real pool, `test_box` shows."""

from typing import Any

import pytest

from spectrogram_predictor import answers

TENSOR = {"name": "x", "shape": [None, 3], "dtype": "float32"}
DESCRIPTION = {"format": "h5", "inputs": [TENSOR, TENSOR], "outputs": [TENSOR]}


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1.0


@pytest.mark.parametrize(
    "value",
    [
        [],
        [[]],
        [[0.5, 1.0]],
        [[1, 2], [3, 4]],
        [[[True]], [[False]]],
        [[1e300, -0.0]],
        nested(32),
        [[0.5] * 2**17],
    ],
    ids=lambda value: repr(value)[:40],
)
def test_arrays_pass(value: Any) -> None:
    """Whatever numpy makes lists of."""
    answers.check_array(value)


@pytest.mark.parametrize(
    "value",
    [
        *[None, 1.0, "x", {}, [None], [["0.5"]], [[1.0], 2.0], [float("nan")], [[float("inf")]], [{}], nested(33)],
        *[[[1.0, 2.0], [3.0]], [[], [1.0]], [[1.0, 2]], [[True, 1]], [[0.5] * 2**18], [[[0.5]] * 2**17]],
    ],
    ids=lambda value: repr(value)[:40],
)
def test_no_other_value_is_a_prediction(value: Any) -> None:
    """Texts, nulls, objects, numbers that are none, lists of several kinds or lengths, and too much of it."""
    with pytest.raises(ValueError, match="a prediction"):
        answers.check_array(value)


@pytest.mark.parametrize(
    ("value", "shape", "dtype"),
    [
        ([[0.5, 1.0]], [2], "float32"),
        ([[0.5, 1.0], [2.0, 3.0]], [None], "bfloat16"),
        ([[1, 2]], [2], "uint8"),
        ([[1.5, 2.0]], [2], "int64"),
        ([[True]], [1], "bool"),
        ([[[0.5], [1.5]]], [None, 1], "float16"),
        ([1.0], [], "float32"),
    ],
)
def test_an_answer_of_the_model_s_shape_passes(value: Any, shape: list[int | None], dtype: str) -> None:
    """Where a size is known, and as numpy writes the type, or the mean over windows."""
    answers.check_array(value, {"shape": shape, "dtype": dtype})


@pytest.mark.parametrize(
    ("value", "shape", "dtype"),
    [
        ([], [3], "float32"),
        ([True], [3], "float32"),
        ([[0.5] * 4], [3], "float32"),
        ([[[0.5] * 3]], [3], "float32"),
        ([[1, 2, 3]], [3], "float32"),
        ([[True]], [1], "bfloat16"),
        ([[1]], [1], "bool"),
        ([[True]], [1], "int32"),
        ([[[0.5, 1.5]]], [None, 1], "float32"),
    ],
)
def test_no_other_is_the_model_s(value: Any, shape: list[int | None], dtype: str) -> None:
    """Of another rank, size or kind."""
    with pytest.raises(ValueError, match="a prediction"):
        answers.check_array(value, {"shape": shape, "dtype": dtype})


def test_numbers_are_counted() -> None:
    """And the lists that they are in."""
    assert answers.count([[[1.0, 2.0], [3.0, 4.0]]]) == 4
    assert answers.count([[]]) == 0
    assert answers.parts([1, 2, 2]) == 1 + 2 + 4


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
        {"outputs": []},
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
