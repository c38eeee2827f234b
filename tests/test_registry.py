"""Registrations: what is kept of a request, and what a later one changes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tornado.ioloop import IOLoop

from backends.local import LocalBackend
from spectrogram_predictor.errors import BadRequest, Damaged
from spectrogram_predictor.golden import Golden
from spectrogram_predictor.recipe import Recipe, named
from spectrogram_predictor.registration import Registration, Request
from spectrogram_predictor.registry import Registry
from tests.conftest import b64, sha256

DIGEST = "a" * 64
SONG = b"a song"
GOLDEN = Golden(sha256(SONG), [0.5, 0.5])
RECIPE = {"inputs": [{"kind": "picture", "height": 24, "width": 32}]}


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
        DIGEST,
        ("a", "b"),
        Recipe.from_json(RECIPE),
        (GOLDEN, Golden(sha256(SONG), [[1.0, 0.0]], 0.1, sha256(b"csv"))),
    )
    assert Registration.from_json(registration.to_json(), DIGEST) == registration


def test_a_recipe_is_kept_whole_and_with_its_digest() -> None:
    """What a request leaves out is written down, so that it stays what it was."""
    registration = request(recipe=RECIPE).applied_to(None)
    recipe = Recipe.from_json(RECIPE)
    stored = json.loads(registration.to_json())
    assert stored["recipe"] == recipe.to_mapping()
    assert (
        registration.to_json() == b'{"labels":[],"recipe":' + recipe.to_json() + f',"sha256":"{DIGEST}"}}'.encode()
    )
    read = Registration.from_json(registration.to_json(), DIGEST).recipe
    assert read
    assert read.sha256 == recipe.sha256


@pytest.mark.parametrize(
    "recipe", ["1", "null", '"gtzan-features"', "{}", '{"inputs":[{"kind":"mel","n_mels":0}]}']
)
def test_a_stored_recipe_that_is_none_is_damage(recipe: str) -> None:
    """Nothing is served under what it might have been."""
    with pytest.raises(Damaged, match="register it again"):
        Registration.from_json(f'{{"labels":[],"recipe":{recipe},"sha256":"{DIGEST}"}}'.encode(), DIGEST)


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


def test_a_recipe_stays_until_it_is_taken_away() -> None:
    """By null; a shipped one is known by its name."""
    earlier = request(recipe=RECIPE).applied_to(None)
    for fields in ({}, {"labels": ["a", "b"]}, {"golden": []}):
        assert request(**fields).applied_to(earlier).recipe == earlier.recipe
    assert request(recipe=None).applied_to(earlier) == Registration(DIGEST)
    assert request(recipe="gtzan-features").applied_to(earlier).recipe == named("gtzan-features")


def test_the_recipe_s_labels_are_the_model_s() -> None:
    """Unless others are registered, which may not contradict it."""
    labelled = {**RECIPE, "labels": ["a", "b"]}
    for fields in ({"recipe": labelled}, {"recipe": labelled, "labels": ["a", "b"]}):
        assert request(**fields).applied_to(None).names == ("a", "b")
    assert request(recipe=RECIPE, labels=["c"]).applied_to(None).names == ("c",)
    with pytest.raises(BadRequest, match=r"recipe\.labels"):
        request(recipe=labelled, labels=["b", "a"]).applied_to(None)
    with pytest.raises(BadRequest, match=r"recipe\.labels"):
        request(labels=["b", "a"]).applied_to(request(recipe=labelled).applied_to(None))


@pytest.mark.parametrize(
    "fields",
    [
        {"surprise": 1},
        {"golden": None},
        {"golden": [{}]},
        {"labels": None},
        {"labels": ["a", "b", "a"]},
        {"recipe": 1},
        {"recipe": []},
        {"recipe": "nonsense"},
        {"recipe": {}},
        {"recipe": {"inputs": [{"kind": "mel", "hop_length": 0}]}},
    ],
)
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
async def test_a_state_says_what_a_model_is_held_to(registry: Registry) -> None:
    """Its recipe and the number of its goldens, if it has any."""
    await registry.register(Registration(DIGEST))
    state = await registry.state(DIGEST)
    assert state
    assert state.golden is state.recipe is None
    labelled = Recipe.from_json({**RECIPE, "labels": ["a", "b"]})
    await registry.register(Registration(DIGEST, (), labelled, (GOLDEN, GOLDEN)))
    state = await registry.state(DIGEST)
    assert state
    assert state.golden == 2
    assert state.recipe == labelled.to_mapping()
    assert state.labels == ("a", "b")


@pytest.mark.gen_test
async def test_a_lost_recipe_is_missed(registry: Registry) -> None:
    """A model that was tried with one is not asked without it."""
    assert await registry.held(DIGEST) == Registration(DIGEST)
    await registry.note(Registration(DIGEST), {"inputs": []})
    assert await registry.held(DIGEST) == Registration(DIGEST)
    await registry.note(request(recipe=RECIPE).applied_to(None), {"inputs": []})
    with pytest.raises(Damaged, match="its recipe"):
        await registry.held(DIGEST)
