"""Signatures made from SIGNING_TOKEN.

The formats are itsdangerous's own: ``Signer`` for uploads and ``Serializer`` for JSON bodies, with default
settings, as clients have always made them. This module never sees where bytes come from or go to.
"""

import functools
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import itsdangerous
import orjson
from itsdangerous.encoding import base64_encode

from spectrogram_predictor.errors import BadRequest, BadSignature, ConfigError, NotSigned

SHORT_TOKEN = 16
"""A SIGNING_TOKEN with fewer characters is accepted with a warning."""


@dataclass(frozen=True)
class Keys:
    """The secret that signs, and the older ones that still verify.

    Parameters
    ----------
    current : str
        SIGNING_TOKEN; signs and verifies.
    previous : tuple of str
        SIGNING_TOKEN_PREVIOUS, oldest first; verify only.
    """

    current: str = field(repr=False)
    previous: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read SIGNING_TOKEN, and SIGNING_TOKEN_PREVIOUS (separated by commas).

        Raises
        ------
        ConfigError
            SIGNING_TOKEN is missing or empty.
        """
        current = environ.get("SIGNING_TOKEN", "")
        if not current.strip():
            raise ConfigError(
                "SIGNING_TOKEN is not set: everything is signed with it. "
                'Set it in the environment, for instance export SIGNING_TOKEN="$(openssl rand -hex 32)"'
            )
        previous = environ.get("SIGNING_TOKEN_PREVIOUS", "").split(",")
        return cls(current, tuple(key.strip() for key in previous if key.strip()))

    def signer(self) -> itsdangerous.Signer:
        """Return the signer of uploads."""
        return itsdangerous.Signer([*self.previous, self.current])

    def serializer(self) -> itsdangerous.Serializer[str]:
        """Return the serializer of signed JSON bodies."""
        return itsdangerous.Serializer([*self.previous, self.current])

    def loads(self, body: bytes) -> dict[str, Any]:
        """Verify a signed JSON body and return its object.

        Raises
        ------
        NotSigned
            There is no signature.
        BadSignature
            The signature is not one of ours.
        BadRequest
            What was signed is not a JSON object.
        """
        return parse_object(self.unsign(body))

    def unsign(self, body: bytes) -> memoryview:
        """Verify a body that `serializer` signed, without copying it; return what was signed.

        Raises
        ------
        NotSigned, BadSignature
            The signature is missing, or is not one of ours.
        """
        end = body.rfind(b".")
        if end < 0:
            raise NotSigned("the body is not signed: send itsdangerous.Serializer(token).dumps({...})")
        payload = memoryview(body)[:end]
        # Typed for text and bytes, but takes whatever hmac does.
        if not self._body_signer.verify_signature(payload, body[end + 1 :]):  # type: ignore[arg-type]
            raise BadSignature("the signature does not match")
        return payload

    @functools.cached_property
    def _body_signer(self) -> itsdangerous.Signer:
        return self.serializer().make_signer()


def parse_object(payload: bytes | memoryview) -> dict[str, Any]:
    """Return the JSON object that was signed.

    Raises
    ------
    BadRequest
        It is not one.
    """
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        # Python writes what JSON does not know.
        text = bytes(payload)
        named = next((f": {name.decode()} is no number" for name in (b"NaN", b"Infinity") if name in text), "")
        raise BadRequest(f"the signed body is not JSON{named}") from error
    if not isinstance(value, dict):
        raise BadRequest(f"the signed body must be a JSON object, not {type(value).__name__}")
    return value


class SignedStream:
    """Verify ``Signer.sign(payload)`` as it streams by, in constant memory.

    Every byte that `update` returns is payload, but only a return of `finish` without error says that it was
    signed: until then, do not believe it.

    Parameters
    ----------
    keys : Keys
        Any of them may have signed.
    """

    def __init__(self, keys: Keys) -> None:
        signer = keys.signer()
        algorithm = signer.algorithm
        assert isinstance(algorithm, itsdangerous.HMACAlgorithm)
        self._macs = [
            hmac.new(signer.derive_key(key), digestmod=algorithm.digest_method) for key in signer.secret_keys
        ]
        self._separator = signer.sep
        self._trailer = len(signer.sep) + len(base64_encode(self._macs[0].digest()))
        self._held = b""

    def update(self, chunk: bytes) -> bytes:
        """Take the next bytes; return those that cannot belong to the signature."""
        data = self._held + chunk
        payload, self._held = data[: -self._trailer], data[-self._trailer :]
        for mac in self._macs:
            mac.update(payload)
        return payload

    def finish(self) -> None:
        """Check the signature that ended the stream.

        Raises
        ------
        NotSigned
            The stream does not end with a signature.
        BadSignature
            The signature does not match.
        """
        if len(self._held) < self._trailer or not self._held.startswith(self._separator):
            raise NotSigned("the model is not signed: send itsdangerous.Signer(token).sign(model)")
        signature = self._held[len(self._separator) :]
        matches = [hmac.compare_digest(base64_encode(mac.digest()), signature) for mac in self._macs]
        if not any(matches):
            raise BadSignature("the model's signature does not match")
