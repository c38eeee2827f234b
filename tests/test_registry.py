"""Registrations: what is kept of a request, and what a later one changes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from backends.local import LocalBackend
from spectrogram_predictor.errors import BadRequest, Damaged
from spectrogram_predictor.golden import Golden
from spectrogram_predictor.registry import Registration, Registry, Request
from tests.conftest import b64, sha256

DIGEST = "a" * 64
SONG = b"a song"
GOLDEN = Golden(sha256(SONG), [0.5, 0.5])


@pytest.fixture
def registry(io_loop: IOLoop, tmp_path: Path) -> Iterator[Registry]:
    backend = LocalBackend(str(tmp_path), {})
    io_loop.run_sync(backend.open)
    yield Registry(backend)
    io_loop.run_sync(backend.close)


def request(**fields: Any) -> Request:
    return Request.parse({"hash": DIGEST, **fields})


def test_what_is_stored_of_a_plain_registration_is_what_it_always_was() -> None:
    """Byte for byte, and what was stored before there were goldens is read."""
    stored = f'{{"labels":["a","b"],"sha256":"{DIGEST}"}}'.encode()
    assert request(labels=["a", "b"]).applied_to(None).to_json() == stored
    assert Registration.from_json(stored, DIGEST) == Registration(DIGEST, ("a", "b"))


def test_what_is_stored_is_read_again() -> None:
    """With all that it may have."""
    registration = Registration(
        DIGEST, ("a", "b"), golden=(GOLDEN, Golden(sha256(SONG), [[1.0, 0.0]], 0.1, sha256(b"csv")))
    )
    assert Registration.from_json(registration.to_json(), DIGEST) == registration


@pytest.mark.parametrize(
    "golden",
    ["1", '"x"', "[1]", "[{}]", '[{"song":"x","csv":null,"expected":[1],"tolerance":0}]']
    + [f'[{{"song":"{DIGEST}","csv":null,"expected":{value},"tolerance":0}}]' for value in ("[]", '"x"')],
)
def test_stored_goldens_that_are_none_are_damage(golden: str) -> None:
    """Whatever it is that is wrong with them."""
    with pytest.raises(Damaged, match="register it again"):
        Registration.from_json(f'{{"golden":{golden},"labels":[],"sha256":"{DIGEST}"}}'.encode(), DIGEST)


def test_a_request_changes_what_it_mentions() -> None:
    """Whoever sends a bare hash again, as scripts of old do, takes nothing away; an empty list does."""
    earlier = Registration(DIGEST, ("a", "b"), golden=(GOLDEN,))
    assert request().applied_to(earlier) == earlier
    assert request().applied_to(None) == Registration(DIGEST)
    assert request(labels=["c", "d"]).applied_to(earlier) == Registration(DIGEST, ("c", "d"), golden=(GOLDEN,))
    assert request(golden=[]).applied_to(earlier) == Registration(DIGEST, ("a", "b"))
    assert request(labels=[]).applied_to(earlier) == Registration(DIGEST, golden=(GOLDEN,))
    changed = request(golden=[{"song": b64(SONG), "expected": [0.5, 0.5]}])
    assert changed.applied_to(Registration(DIGEST)) == Registration(DIGEST, golden=(GOLDEN,))
    assert changed.objects == {sha256(SONG): SONG}


@pytest.mark.parametrize("fields", [{"surprise": 1}, {"golden": None}, {"golden": [{}]}, {"labels": None}])
def test_a_request_of_another_shape_is_refused(fields: dict[str, Any]) -> None:
    """By the key that is wrong."""
    with pytest.raises(BadRequest, match=next(iter(fields))):
        request(**fields)


@pytest.mark.gen_test
async def test_terms_have_what_goldens_name(registry: Registry) -> None:
    """As files, for workers to read; without it there are no terms."""
    registration = Registration(DIGEST, golden=(GOLDEN, GOLDEN))
    with pytest.raises(Damaged, match="golden 1"):
        await registry.terms(registration)
    await registry.keep({sha256(SONG): SONG})
    terms = await registry.terms(registration)
    assert terms.registration == registration.to_json()
    assert {digest: path.read_bytes() for digest, path in terms.files.items()} == {sha256(SONG): SONG}


@pytest.mark.gen_test
async def test_the_version_tells_of_another_registration(registry: Registry) -> None:
    """And stays while it is the same."""
    assert await registry.version(DIGEST) is None
    await registry.register(Registration(DIGEST))
    first = await registry.version(DIGEST)
    await registry.register(Registration(DIGEST))
    assert await registry.version(DIGEST) == first
    await registry.register(Registration(DIGEST, ("x",)))
    assert first != await registry.version(DIGEST) is not None


@pytest.mark.gen_test
async def test_a_state_says_how_many_goldens_there_are(registry: Registry) -> None:
    """If there are any."""
    await registry.register(Registration(DIGEST))
    state = await registry.state(DIGEST)
    assert state
    assert state.golden is None
    await registry.register(Registration(DIGEST, golden=(GOLDEN, GOLDEN)))
    state = await registry.state(DIGEST)
    assert state
    assert state.golden == 2
