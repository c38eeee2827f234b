"""Goldens: what a request may ask for, and which answers match."""

import base64
from typing import Any

import numpy as np
import pytest

from spectrogram_predictor import golden
from spectrogram_predictor.errors import BadRequest, Unprocessable
from spectrogram_predictor.golden import Golden
from tests.conftest import b64, sha256

SONG = b"a song"


def fields(**changes: Any) -> dict[str, Any]:
    """Return a good golden with some fields replaced; ``...`` leaves one out."""
    good = {"song": b64(SONG), "ext": "wav", "expected": [[0.25, 0.75]]}
    return {key: value for key, value in {**good, **changes}.items() if value is not ...}


def test_a_golden_is_kept_by_digest() -> None:
    """Its song and its row of features apart from it, each once."""
    goldens, objects = golden.parse([fields(csv=b64(b"a,b"), tolerance=0), fields(ext=...)])
    assert goldens == (
        Golden(sha256(SONG), [[0.25, 0.75]], 0.0, sha256(b"a,b")),
        Golden(sha256(SONG), [[0.25, 0.75]], golden.TOLERANCE),
    )
    assert objects == {sha256(SONG): SONG, sha256(b"a,b"): b"a,b"}
    assert [one.objects for one in goldens] == [(sha256(SONG), sha256(b"a,b")), (sha256(SONG),)]


def test_base64_may_have_line_breaks() -> None:
    """As in a question about a song."""
    content = bytes(range(256))
    lines = base64.encodebytes(content).decode()
    assert lines.count("\n") > 1
    _, objects = golden.parse([fields(song=lines, csv=lines.replace("\n", "\r\n"))])
    assert objects == {sha256(content): content}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "golden"),
        ({}, "golden"),
        (["x"], "golden"),
        ([fields()] * (golden.MAX_GOLDENS + 1), "at most 32"),
        ([fields(expected=[0.0] * (golden.MAX_NUMBERS // 2)), fields(expected=[0.0] * 40_000)], "65536 numbers"),
        ([fields(), fields(surprise=1)], r"golden\[1\].surprise"),
        ([fields(song=...)], r"golden\[0\].song"),
        ([fields(expected=...)], r"golden\[0\].expected"),
        ([fields(song=1)], r"golden\[0\].song"),
        ([fields(song="not base64")], r"golden\[0\].song"),
        ([fields(csv=["a"])], r"golden\[0\].csv"),
        ([fields(ext="../x")], r"golden\[0\].ext"),
        ([fields(ext=1)], r"golden\[0\].ext"),
        *(
            ([fields(expected=expected)], r"golden\[0\].expected")
            for expected in (
                None,
                "rock",
                [],
                [[]],
                ["0.5"],
                [True],
                [[1], [1, 2]],
                [float("nan")],
                [float("inf")],
                [10**400],
                {},
                [[[[None]]]],
            )
        ),
        *(
            ([fields(tolerance=tolerance)], r"golden\[0\].tolerance")
            for tolerance in (-1e-9, "0.1", None, True, float("nan"), float("inf"), 10**400)
        ),
    ],
)
def test_what_is_no_golden_is_named(value: object, named: str) -> None:
    """By its place in the list and its key."""
    with pytest.raises(BadRequest, match=named):
        golden.parse(value)


def test_songs_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same song twice counts once: it is kept once."""
    monkeypatch.setattr(golden, "MAX_BYTES", 10)
    golden.parse([fields(song=b64(b"x" * 10))] * 2)
    with pytest.raises(BadRequest, match="10 bytes"):
        golden.parse([fields(song=b64(b"x" * 6)), fields(song=b64(b"y" * 5))])


@pytest.mark.parametrize(
    ("expected", "answered"),
    [
        ([0.25, 0.75], [[0.25, 0.75]]),
        ([[0.25, 0.75]], [[0.25, 0.75]]),
        ([0.25, 0.75], [[0.2509, 0.7491]]),
        ([[1.0], [2.0]], [[[1.0], [2.0]]]),
        (3.0, [3.0]),
        ([3.0], [[3.0]]),
        ([[[3.0]]], [[[3.0]]]),
    ],
)
def test_an_answer_within_tolerance_matches(expected: Any, answered: Any) -> None:
    """With the batch of one or without."""
    Golden("", expected).check(np.array(answered, np.float32))


@pytest.mark.parametrize(
    ("expected", "answered", "message"),
    [
        (
            [0.25, 0.75],
            [[0.2, 0.87]],
            "largest difference 0.12, tolerance 0.001 (rock: expected 0.75, answered 0.87)",
        ),
        ([[0.25, 0.75]], [[0.251001, 0.75]], "largest difference 0.001001, tolerance 0.001 (pop: "),
        ([0.5, 0.5, 0.0], [[0.5, 0.5, 1.0]], "largest difference 1, tolerance 0.001 (output 2: "),
        ([[1, 2], [3, 4]], [[[1, 2], [9, 4]]], "largest difference 6, tolerance 0.001 (output 1, 0: "),
        (3.0, [4.0], "largest difference 1, tolerance 0.001 (output: "),
        ([0.5], [[0.5, 0.5]], "the expected answer has the shape [1], the model's [2]"),
        ([[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5]], "the expected answer has the shape [2, 2], the model's [2]"),
        ([0.5], [[]], "the expected answer has the shape [1], the model's [0]"),
    ],
)
def test_a_mismatch_says_by_how_much(expected: Any, answered: Any, message: str) -> None:
    """The largest difference, and where it is."""
    with pytest.raises(Unprocessable) as refused:
        Golden("", expected).check(np.array(answered, np.float32), ("pop", "rock"))
    assert refused.value.message.startswith(message)
