"""Registrations and what became of them."""

from dataclasses import asdict
from typing import Any

from spectrogram_predictor.errors import ModelNotFound
from spectrogram_predictor.handlers.base import BaseHandler, SignedBodyHandler
from spectrogram_predictor.registry import ModelState, Registration, parse_sha256

SWEEP_PATIENCE_S = 4.0
"""How long GET /hashmodels waits for the sweep; the document's clients give up after 5 s."""


class RegisterHandler(SignedBodyHandler):
    """POST /registermodelhash, signed."""

    async def post(self) -> None:
        """Keep the registration."""
        body = await self.in_thread(self.services.keys.loads, self.take_body())
        await self.services.registry.register(Registration.parse(body))
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
        self.check_token()
        states = await self.services.registry.states()
        self.answer({"models": [_public(state) for state in states]})


class ModelHandler(BaseHandler):
    """GET /models/<sha256>, with a token."""

    async def get(self, sha256: str) -> None:
        """Answer one model's state."""
        self.check_token()
        state = await self.services.registry.state(parse_sha256(sha256))
        if state is None:
            raise ModelNotFound("there is no model with this hash")
        self.answer(_public(state))


def _public(state: ModelState) -> dict[str, Any]:
    fields = asdict(state)
    return {
        "hash": fields.pop("sha256"),
        **{key: value for key, value in fields.items() if value is not None},
    }
