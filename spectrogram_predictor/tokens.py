"""Request tokens: what shows that whoever sends a request has SIGNING_TOKEN, without sending it.

A token is signed JSON that names this service (``aud``), one ``method`` and ``path``, when it expires (``exp``, by
the client's clock) and a ``nonce`` of the client's, which makes it good for one request. What is remembered is the
nonce and not the token's bytes: the same signature can be written in several ways.
"""

import hmac
import re
import time
import uuid
from hashlib import sha256
from typing import Any

import itsdangerous

from spectrogram_predictor import storage
from spectrogram_predictor.errors import BadSignature, NotSigned, QueueFull
from spectrogram_predictor.signing import Keys
from spectrogram_predictor.storage import Backend

AUDIENCE = "spectrogram-predictor"

LIFETIME_S = 300
"""How far ahead a token's expiry may be [s]."""

SKEW_S = 120
"""How much the clocks of client and server may differ [s], either way."""

MAX_NONCES = 200_000
"""How many are remembered; if that is not enough for `LIFETIME_S`, requests are refused."""

_SALT = b"spectrogram-predictor.request"
_NONCE = re.compile(r"[A-Za-z0-9_-]{16,64}")
_SPENT = b"spent"


class Tokens:
    """Make tokens, and accept each of them once.

    Parameters
    ----------
    keys : Keys
        Make and verify them.
    backend : Backend
        Where servers tell each other of tokens that have been used to change something.
    """

    def __init__(self, keys: Keys, backend: Backend) -> None:
        self._keys = keys
        self._backend = backend
        self._used: dict[str, float] = {}

    def make(self, method: str, path: str) -> str:
        """Return a token for one request."""
        claims = {"aud": AUDIENCE, "method": method, "path": path}
        return self._serializer().dumps(
            {**claims, "exp": int(time.time()) + LIFETIME_S, "nonce": uuid.uuid4().hex}
        )

    def check(self, token: str, method: str, path: str, *, again: bool = False) -> str:
        """Accept a token for this request, which this server has not seen before; return its nonce.

        With `again` it may have seen it: that is for who claims the nonce to decide.

        Raises
        ------
        NotSigned
            The token cannot be read.
        BadSignature
            It is not one of ours, has expired, was made for another request, or has been used.
        QueueFull
            Too many tokens are in use to remember this one.
        """
        claims = self._claims(token)
        if (claims.get("aud"), claims.get("method"), claims.get("path")) != (AUDIENCE, method, path):
            raise BadSignature("the token was made for another request")
        expires, nonce, now = claims.get("exp"), claims.get("nonce"), time.time()
        if type(expires) is not int or not isinstance(nonce, str) or not _NONCE.fullmatch(nonce):
            raise BadSignature("a token has exp (whole seconds since 1970) and nonce (16 to 64 letters, digits)")
        if expires < now - SKEW_S:
            raise BadSignature(f"the token has expired, {now - expires:.0f} s ago by this server's clock")
        if expires > now + LIFETIME_S + SKEW_S:
            raise BadSignature(
                f"the token is good for too long: {LIFETIME_S} s is the most by this server's clock"
            )
        if not again:
            self._remember(nonce, expires, now)
        return nonce

    async def claim(self, nonce: str, request: str) -> bool:
        """Accept a nonce that no server has seen before, or with this very request only; tell if it is spent.

        A client whose answer got lost sends it again, and has to get the same answer.

        Raises
        ------
        BadSignature
            Its token has been used.
        """
        key, ours = storage.nonce_key(nonce), _digest(request)
        if await self._backend.put(key, ours, exclusive=True):
            return False
        kept = await self._backend.read(key)
        if kept not in (ours, ours + _SPENT):
            raise _used()
        return kept != ours

    async def spend(self, nonce: str, request: str) -> None:
        """Note that what a claimed nonce was for is done, and is not to be done again."""
        await self._backend.put(storage.nonce_key(nonce), _digest(request) + _SPENT)

    def name(self, nonce: str) -> str:
        """Return 128 bits in hexadecimal that only who has SIGNING_TOKEN can make of a nonce."""
        return hmac.digest(self._keys.current.encode(), _SALT + nonce.encode(), "sha256").hex()[:32]

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            claims = self._serializer().loads(token)
        except itsdangerous.BadData as error:
            if token.count(".") < 2:
                raise NotSigned("the token cannot be read") from error
            raise BadSignature("the token's signature does not match") from error
        return claims if isinstance(claims, dict) else {}

    def _remember(self, nonce: str, expires: int, now: float) -> None:
        if nonce in self._used:
            raise _used()
        if len(self._used) >= MAX_NONCES:
            self._used = {key: until for key, until in self._used.items() if until >= now - SKEW_S}
            if len(self._used) >= MAX_NONCES:
                raise QueueFull("too many tokens are in use, try again later")
        self._used[nonce] = expires

    def _serializer(self) -> itsdangerous.URLSafeTimedSerializer:
        return itsdangerous.URLSafeTimedSerializer(
            [*self._keys.previous, self._keys.current], salt=_SALT, signer_kwargs={"digest_method": sha256}
        )


async def forget(backend: Backend) -> None:
    """Remove the nonces of tokens that have expired at every server's clock."""
    oldest = await backend.now() - LIFETIME_S - 2 * SKEW_S
    for entry in await backend.list(storage.NONCES):
        if entry.modified < oldest:
            await backend.delete(entry.key)


def _digest(request: str) -> bytes:
    return sha256(request.encode()).digest()


def _used() -> BadSignature:
    return BadSignature("the token has been used: make one for each request")
