"""What reads something of a client's raises one of our errors, or takes it: nothing else, whatever it is."""

import json
from collections.abc import Callable
from typing import Any

import itsdangerous
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrogram_predictor.errors import SpectrogramPredictorError
from spectrogram_predictor.handlers.prediction import parse
from spectrogram_predictor.recipe import Recipe, named, names
from spectrogram_predictor.registration import Request
from spectrogram_predictor.signing import Keys, SignedStream
from spectrogram_predictor.sound import features
from tests.conftest import b64, csv_row, wav
from tests.fuzz.mutations import BATCH, changed, for_a_while, json_values, mutated

KEYS = Keys("a token for the tests")
SHARE = 0.0425
DIGEST = "a" * 64
RECIPES = [json.loads(named(name).to_json()) for name in names()] + [
    {
        "inputs": [{"kind": "mel", "channels": 1, "scaling": {"kind": "zscore"}}],
        "windows": {"length": 3, "hop": 1},
    },
    {"inputs": [{"kind": "mfcc", "frames": 130, "layout": "time-major"}], "labels": ["a", "b"]},
]
REGISTRATIONS = [
    {"hash": DIGEST, "labels": ["a", "b"], "recipe": RECIPES[0]},
    {"hash": DIGEST, "golden": [{"song": b64(b"RIFF"), "ext": "wav", "expected": [0.5, 0.5], "tolerance": 0.1}]},
]
QUESTION = {"model_hash": DIGEST, "ext": "wav", "data": b64(wav(0.1)), "csv": b64(csv_row()), "detail": True}


def status(call: Callable[[], object]) -> int:
    """Return the status of the error that it raises, 200 if it does not; other errors are nobody's to raise."""
    try:
        call()
    except SpectrogramPredictorError as error:
        return error.status
    return 200


def test_recipes() -> None:
    """What is taken is the same when it is written and read again."""

    @BATCH
    @given(changed(RECIPES) | json_values)
    def property_(value: Any) -> None:
        text = json.dumps(value)
        answered = status(lambda: Recipe.from_json(text))
        assert answered in (200, 400, 422)
        if answered == 200:
            recipe = Recipe.from_json(text)
            assert Recipe.from_json(recipe.to_json()).sha256 == recipe.sha256

    for_a_while(property_, SHARE)


def test_registrations() -> None:
    """Whatever a signed body says."""

    @BATCH
    @given(changed(REGISTRATIONS))
    def property_(value: dict[str, Any]) -> None:
        assert status(lambda: Request.parse(value)) in (200, 400, 422)

    for_a_while(property_, SHARE)


def test_questions() -> None:
    """Signed, or nearly."""
    signed = itsdangerous.Serializer(KEYS.current).dumps

    @BATCH
    @given(
        st.builds(lambda value: signed(value).encode(), changed([QUESTION])) | mutated([signed(QUESTION).encode()])
    )
    def property_(body: bytes) -> None:
        assert status(lambda: parse(KEYS, body)) in (200, 400, 401, 403)

    for_a_while(property_, SHARE)


def test_rows_of_features() -> None:
    """CSV, as spreadsheets, pandas and nobody write it."""
    rows = [csv_row(), csv_row(index=False), b'"a;b",c\r\n1,2\r\n', "\ufeffä,b\n1e308,-0\n".encode()]

    @BATCH
    @given(mutated(rows) | st.binary(max_size=200))
    def property_(data: bytes) -> None:
        assert status(lambda: features.parse_csv(data)) in (200, 400, 422)

    for_a_while(property_, SHARE)


@pytest.mark.parametrize("cut", [1, 50, 10_000])
def test_signed_streams(cut: int) -> None:
    """Only what was signed is believed, in pieces of any size."""
    payload = bytes(range(256)) * 4
    signed = itsdangerous.Signer(KEYS.current).sign(payload)

    @BATCH
    @given(mutated([signed]))
    def property_(data: bytes) -> None:
        stream = SignedStream(KEYS)
        out = b"".join(stream.update(data[at : at + cut]) for at in range(0, len(data), cut))
        answered = status(stream.finish)
        assert answered in (401, 403) or (data, out) == (signed, payload)

    for_a_while(property_, SHARE / 3)
