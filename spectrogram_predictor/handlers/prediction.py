"""The document's way to ask about a song: signed JSON with everything in base64."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spectrogram_predictor.errors import BadRequest
from spectrogram_predictor.fields import base64, check_extension
from spectrogram_predictor.handlers.base import SignedBodyHandler
from spectrogram_predictor.predictor import Answer
from spectrogram_predictor.registry import parse_sha256
from spectrogram_predictor.signing import Keys


@dataclass(frozen=True)
class Question:
    """A prediction request, decoded."""

    sha256: str
    song: bytes
    csv: bytes | None
    detail: bool


class PredictionHandler(SignedBodyHandler):
    """POST /prediction, signed."""

    _task: asyncio.Task[Answer] | None = None

    async def post(self) -> None:
        """Answer what the model says of the song."""
        question = await self.in_thread(parse, self.services.keys, self.take_body())
        self._task = asyncio.create_task(
            self.services.predictor.predict(question.sha256, question.song, question.csv)
        )
        try:
            self._answer(await self._task, question.detail)
        except asyncio.CancelledError:
            if not self._task.cancelled():
                raise

    def on_connection_close(self) -> None:
        """Do not compute for a client that has gone."""
        super().on_connection_close()
        if self._task:
            self._task.cancel()

    def _answer(self, answer: Answer, detail: bool) -> None:
        self.set_header("X-Model-Digest", answer.model)
        if answer.recipe:
            self.set_header("X-Recipe-Digest", answer.recipe)
        more = {"labels": answer.labels, "model": answer.model, "recipe": answer.recipe} if detail else {}
        self.answer({"array": answer.array, **more})


def parse(keys: Keys, body: bytes) -> Question:
    """Verify and decode a request body.

    Raises
    ------
    NotSigned, BadSignature
        The signature is missing or wrong.
    BadRequest
        A field is missing, of the wrong type, or not base64.
    """
    fields = keys.loads(body)
    sha256 = parse_sha256(_field(fields, "model_hash"), "model_hash")
    check_extension(_field(fields, "ext"), "the field ext")
    csv = base64(fields["csv"], "the field csv") if fields.get("csv") is not None else None
    detail = fields.get("detail", False)
    if not isinstance(detail, bool):
        raise BadRequest("the field detail must be true or false")
    return Question(sha256, base64(_field(fields, "data"), "the field data"), csv, detail)


def _field(fields: Mapping[str, Any], name: str) -> object:
    if name not in fields:
        raise BadRequest(f"the field {name} is missing")
    return fields[name]
