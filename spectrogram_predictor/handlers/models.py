"""Registrations and what became of them."""

from dataclasses import asdict
from typing import Any

from spectrogram_predictor.errors import ModelNotFound
from spectrogram_predictor.handlers.base import BaseHandler, Services, SignedBodyHandler
from spectrogram_predictor.registration import Request, parse_sha256
from spectrogram_predictor.registry import ModelState
from spectrogram_predictor.signing import Keys

SWEEP_PATIENCE_S = 4.0
"""How long GET /hashmodels waits for the sweep; the document's clients give up after 5 s."""


class RegisterHandler(SignedBodyHandler):
    """POST /registermodelhash, signed."""

    async def post(self) -> None:
        """Keep the registration."""
        request = await self.in_thread(parse, self.services.keys, self.take_body())
        await self.services.promoter.register(request)
        self.services.predictor.forget(request.sha256)
        self.answer({"msg": "model hash stored"})


class SweepHandler(BaseHandler):
    """GET /hashmodels."""

    async def get(self) -> None:
        """Sweep now; answer what this sweep promoted, or nothing if it takes long."""
        self.answer({"hashes": await self.services.promoter.sweep(SWEEP_PATIENCE_S)})


class ModelsHandler(BaseHandler):
    """GET /models, with a token."""

    async def get(self) -> None:
        """Answer every model's state."""
        states = await self.services.registry.states()
        self.answer({"models": [_public(state, self.services) for state in states]})


class ModelHandler(BaseHandler):
    """GET /models/<sha256>, with a token."""

    async def get(self, sha256: str) -> None:
        """Answer one model's state."""
        state = await self.services.registry.state(parse_sha256(sha256))
        if state is None:
            raise ModelNotFound("there is no model with this hash")
        self.answer(_public(state, self.services))


def parse(keys: Keys, body: bytes) -> Request:
    """Verify and decode a request to register.

    Raises
    ------
    NotSigned, BadSignature
        The signature is missing or wrong.
    BadRequest
        See `Request.parse`.
    """
    return Request.parse(keys.loads(body))


def _public(state: ModelState, services: Services) -> dict[str, Any]:
    fields = {**asdict(state), "out_of_service": services.predictor.out_of_service(state.sha256)}
    return {
        "hash": fields.pop("sha256"),
        **{key: value for key, value in fields.items() if value is not None},
    }
