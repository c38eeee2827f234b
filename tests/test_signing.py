"""Signatures are itsdangerous's own, verified over a stream as over a whole."""

import math

import itsdangerous
import pytest

from spectrogram_predictor.errors import BadRequest, BadSignature, ConfigError, NotSigned
from spectrogram_predictor.signing import Keys, SignedStream

KEYS = Keys("the current token", ("older", "old"))


def run_stream(signed: bytes, step: int, keys: Keys = KEYS) -> bytes:
    stream = SignedStream(keys)
    payload = b"".join(stream.update(signed[at : at + step]) for at in range(0, len(signed), step))
    stream.finish()
    return payload


def test_numbers_that_are_none_in_json_are_named() -> None:
    """Python's json writes them all the same."""
    for value in (math.nan, -math.inf):
        body = itsdangerous.Serializer(KEYS.current).dumps({"expected": [value]})
        with pytest.raises(BadRequest, match=r"not JSON: (NaN|Infinity) is no number"):
            KEYS.loads(body.encode())


@pytest.mark.parametrize("step", [1, 7, 27, 28, 29, 1000, 10**6])
@pytest.mark.parametrize("payload", [b"x", b"a.b.c" * 99, bytes(range(256)) * 40])
def test_a_stream_is_verified_in_pieces_of_any_size(payload: bytes, step: int) -> None:
    """The payload comes out as it went into Signer.sign, however it was cut."""
    assert run_stream(itsdangerous.Signer("the current token").sign(payload), step) == payload


@pytest.mark.parametrize("token", ["the current token", "old", "older"])
def test_previous_keys_still_verify(token: str) -> None:
    """What was signed before a rotation is accepted, in both forms."""
    assert run_stream(itsdangerous.Signer(token).sign(b"model"), 4) == b"model"
    assert KEYS.loads(itsdangerous.Serializer(token).dumps({"a": 1}).encode()) == {"a": 1}


def test_previous_keys_never_sign() -> None:
    """New signatures are the current key's."""
    current = Keys("the current token")
    assert KEYS.signer().sign(b"x") == current.signer().sign(b"x")
    assert KEYS.serializer().dumps({}) == current.serializer().dumps({})


def test_a_flipped_bit_anywhere_is_refused() -> None:
    """No byte of payload or signature can change."""
    signed = itsdangerous.Signer("the current token").sign(b"model")
    for at in range(len(signed)):
        broken = signed[:at] + bytes([signed[at] ^ 1]) + signed[at + 1 :]
        with pytest.raises(BadSignature):
            run_stream(broken, 3)


@pytest.mark.parametrize("body", [b"", b"short", b"x" * 200])
def test_an_unsigned_stream_says_so(body: bytes) -> None:
    """Nothing, too little, and no signature at the end are 401, not 403."""
    with pytest.raises(NotSigned):
        run_stream(body, 10)


def test_signed_json_must_be_an_object() -> None:
    """A good signature over something else is the client's mistake."""
    serializer = KEYS.serializer()
    for value in ([], "text", 1, None, True):
        with pytest.raises(BadRequest):
            KEYS.loads(serializer.dumps(value).encode())
    with pytest.raises(BadRequest):
        KEYS.loads(serializer.make_signer(serializer.salt).sign(b"garbage"))
    with pytest.raises(BadRequest):
        KEYS.loads(serializer.make_signer(serializer.salt).sign(b"[" * 100_000))


@pytest.mark.parametrize("environ", [{}, {"SIGNING_TOKEN": ""}, {"SIGNING_TOKEN": "  "}])
def test_there_is_no_start_without_a_token(environ: dict[str, str]) -> None:
    """Missing and empty are refused by name."""
    with pytest.raises(ConfigError, match="SIGNING_TOKEN"):
        Keys.from_environment(environ)


def test_keys_do_not_print() -> None:
    """A repr in a log shows no secret."""
    keys = Keys.from_environment({"SIGNING_TOKEN": "hush", "SIGNING_TOKEN_PREVIOUS": "older one, old,"})
    assert keys.previous == ("older one", "old")
    assert "hush" not in repr(keys)
    assert "old" not in repr(keys)
