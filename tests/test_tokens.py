"""A request token is good for one request, whoever is asked."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import itsdangerous
import pytest
from tornado.ioloop import IOLoop

from backends.local import LocalBackend
from spectrogram_predictor import client, tokens
from spectrogram_predictor.errors import BadSignature, NotSigned, QueueFull
from spectrogram_predictor.signing import Keys
from spectrogram_predictor.tokens import AUDIENCE, LIFETIME_S, SKEW_S, Tokens

SECRET = "the current token"
GET = ("GET", "/models")


@pytest.fixture
def backend(io_loop: IOLoop, tmp_path: Path) -> Any:
    backend = LocalBackend(str(tmp_path), {})
    io_loop.run_sync(backend.open)
    yield backend
    io_loop.run_sync(backend.close)


@pytest.fixture
def make(backend: LocalBackend) -> Callable[..., Tokens]:
    """Make what one of several servers on the same storage has."""
    return lambda *keys: Tokens(Keys(*(keys or (SECRET,))), backend)


def signed(**claims: Any) -> str:
    """Return a token with these claims changed; None leaves one out."""
    whole = {"aud": AUDIENCE, "method": "GET", "path": "/models", "exp": int(time.time()) + 60, "nonce": "n" * 16}
    kept = {name: value for name, value in {**whole, **claims}.items() if value is not None}
    return Tokens(Keys(SECRET), None)._serializer().dumps(kept)  # type: ignore[arg-type]


def test_a_token_is_good_for_its_request(make: Callable[..., Tokens]) -> None:
    """Made by the server's code or by the client's, with this key or an older one."""
    make().check(make().make(*GET), *GET)
    with client.Client(token=SECRET) as asker:
        make("new", (SECRET,)).check(asker._bearer(*GET)["Authorization"].removeprefix("Bearer "), *GET)


@pytest.mark.parametrize(
    "claims",
    [
        {"method": "POST"},
        {"path": "/models/x"},
        {"aud": "another"},
        {"aud": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 1e300},
        {"nonce": None},
        {"nonce": "short"},
        {"nonce": "n" * 65},
        {"nonce": "../../../../etc/passwd"},
        {"nonce": ["n" * 16]},
    ],
    ids=str,
)
def test_a_token_that_says_something_else_is_refused(make: Callable[..., Tokens], claims: dict[str, Any]) -> None:
    """Each claim is there, of its type, and for this request."""
    make().check(signed(), *GET)
    with pytest.raises(BadSignature) as raised:
        make().check(signed(**claims), *GET)
    assert raised.value.status == 403


@pytest.mark.parametrize("value", [[], "text", None, 1], ids=str)
def test_a_token_over_something_else_is_refused(make: Callable[..., Tokens], value: Any) -> None:
    """A good signature over what is no object."""
    with pytest.raises(BadSignature):
        make().check(make()._serializer().dumps(value), *GET)


def test_what_is_not_ours_is_refused(make: Callable[..., Tokens]) -> None:
    """401 if it is no token, 403 if it is somebody else's or made for something else."""
    for text in ("", "garbage", "a.b"):
        with pytest.raises(NotSigned):
            make().check(text, *GET)
    with pytest.raises(BadSignature, match="does not match"):
        make("another").check(signed(), *GET)
    with pytest.raises(BadSignature, match="does not match"):
        make().check(itsdangerous.URLSafeTimedSerializer(SECRET).dumps({"method": "GET"}), *GET)


@pytest.mark.parametrize(
    ("ahead_s", "good"),
    [
        (LIFETIME_S, True),
        (LIFETIME_S + SKEW_S - 5, True),
        (LIFETIME_S + SKEW_S + 5, False),
        (-SKEW_S + 5, True),
        (-SKEW_S - 5, False),
    ],
)
def test_clocks_may_differ_either_way(make: Callable[..., Tokens], ahead_s: int, good: bool) -> None:
    """By two minutes, and no more."""
    token = signed(exp=int(time.time()) + ahead_s)
    if good:
        assert make().check(token, *GET) == "n" * 16
    else:
        with pytest.raises(BadSignature, match="this server's clock"):
            make().check(token, *GET)


def test_a_token_is_good_once(make: Callable[..., Tokens]) -> None:
    """The second request with it is refused, also if its signature is spelt otherwise."""
    server, token = make(), signed()
    server.check(token, *GET)
    for again in (token, token + "=", signed()):
        with pytest.raises(BadSignature, match="used"):
            server.check(again, *GET)


def test_what_changes_something_is_claimed_at_every_server(make: Callable[..., Tokens], io_loop: IOLoop) -> None:
    """A token that one server has taken is no good at another on the same storage, but for the same request."""
    one, other = make(), make()
    nonce = one.check(signed(), *GET, again=True)
    assert io_loop.run_sync(lambda: one.claim(nonce, "request")) is False
    for spent in (False, True):
        for server in (one, other):
            assert server.check(signed(), *GET, again=True) == nonce
            assert io_loop.run_sync(lambda server=server: server.claim(nonce, "request")) is spent
            with pytest.raises(BadSignature, match="used"):
                io_loop.run_sync(lambda server=server: server.claim(nonce, "another"))
        io_loop.run_sync(lambda: one.spend(nonce, "request"))


def test_a_name_tells_nothing_to_who_has_no_secret(backend: LocalBackend) -> None:
    """Servers that share it call the same nonce the same."""
    one, other, stranger = (Tokens(Keys(secret), backend) for secret in ("secret", "secret", "another"))
    assert one.name("n" * 16) == other.name("n" * 16) != stranger.name("n" * 16)
    assert one.name("n" * 16) != one.name("m" * 16)
    assert re.fullmatch("[0-9a-f]{32}", one.name("n" * 16))


def test_nonces_go_when_no_clock_takes_their_tokens_any_more(
    make: Callable[..., Tokens], backend: LocalBackend, io_loop: IOLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not before: until then a replay would be taken."""
    io_loop.run_sync(lambda: make().claim("n" * 16, "request"))
    began = io_loop.run_sync(backend.now)
    for age_s, left in ((LIFETIME_S + 2 * SKEW_S - 5, 1), (LIFETIME_S + 2 * SKEW_S + 5, 0)):

        async def now(at: float = began + age_s) -> float:
            return at

        monkeypatch.setattr(backend, "now", now)
        io_loop.run_sync(lambda: tokens.forget(backend))
        assert len(io_loop.run_sync(lambda: backend.list("nonces/"))) == left


def test_memory_of_tokens_is_bounded(make: Callable[..., Tokens], monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is full of tokens that are still good, others have to wait; those that have expired make room."""
    monkeypatch.setattr(tokens, "MAX_NONCES", 2)
    server = make()
    server.check(signed(nonce="a" * 16, exp=int(time.time()) - SKEW_S + 2), *GET)
    server.check(signed(nonce="b" * 16), *GET)
    with pytest.raises(QueueFull):
        server.check(signed(nonce="c" * 16), *GET)
    later = time.time() + 10
    monkeypatch.setattr(tokens.time, "time", lambda: later)
    server.check(signed(nonce="c" * 16), *GET)
