"""The two ways to ask about a song: signed JSON with everything in base64, or the song as it is."""

import asyncio
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import pybase64

from spectrogram_predictor import answers
from spectrogram_predictor.errors import BadRequest
from spectrogram_predictor.fields import base64, check_extension
from spectrogram_predictor.handlers.base import SignedBodyHandler, dumps
from spectrogram_predictor.predictor import Answer
from spectrogram_predictor.registration import parse_sha256
from spectrogram_predictor.signing import Keys, parse_object

_AT_ONCE_BYTES = 2**21
_AT_ONCE_NUMBERS = 2**12

_SONG = re.compile(rb'[{,\s]"data"\s*:\s*"')
_HERE = secrets.token_hex(16).encode()
"""What stands for a song that was cut out: nothing that somebody sends."""


@dataclass(frozen=True)
class Question:
    """A prediction request, decoded."""

    sha256: str
    song: bytes
    csv: bytes | None
    detail: bool


class PredictingHandler(SignedBodyHandler):
    """What both ways to ask share."""

    _task: asyncio.Task[Answer] | None = None
    _gone = False

    async def begin(self) -> None:
        """Refuse before the body what would be refused after it."""
        self.services.predictor.check_room()

    def on_connection_close(self) -> None:
        """Do not compute for a client that has gone."""
        super().on_connection_close()
        self._gone = True
        if self._task:
            self._task.cancel()

    async def ask(self, sha256: str, song: bytes, csv: bytes | None, detail: bool) -> None:
        """Answer what the model says of the song."""
        if self._gone:
            # While the body was verified.
            return
        self._task = asyncio.create_task(self.services.predictor.predict(sha256, song, csv))
        try:
            await self._answer(await self._task, detail)
        except asyncio.CancelledError:
            if not self._task.cancelled():
                raise

    async def _answer(self, answer: Answer, detail: bool) -> None:
        self.set_header("X-Model-Digest", answer.model)
        if answer.recipe:
            self.set_header("X-Recipe-Digest", answer.recipe)
        more = {"labels": answer.labels, "model": answer.model, "recipe": answer.recipe} if detail else {}
        if answers.count(answer.array) > _AT_ONCE_NUMBERS:
            array = await self.in_thread(_encoded, answer.array)
        else:
            array = dumps(answer.array)
        self.answer_json(b'{"array":' + array + (b"," + dumps(more)[1:] if more else b"}"))


class PredictionHandler(PredictingHandler):
    """POST /prediction, signed."""

    async def post(self) -> None:
        """Verify, decode, answer."""
        body = self.take_body()
        # A thread costs more than it saves, if the event loop does not wait for long.
        question = (
            parse(self.services.keys, body)
            if len(body) < _AT_ONCE_BYTES
            else await self.in_thread(parse, self.services.keys, body)
        )
        await self.ask(question.sha256, question.song, question.csv, question.detail)


class SongHandler(PredictingHandler):
    """POST /models/<sha256>/predict, with a token: the body is the song."""

    async def post(self, sha256: str) -> None:
        """Answer with labels and digests."""
        await self.ask(parse_sha256(sha256), self.take_body(), None, detail=True)


def parse(keys: Keys, body: bytes) -> Question:
    """Verify and decode a request body.

    Raises
    ------
    NotSigned, BadSignature
        The signature is missing or wrong.
    BadRequest
        A field is missing, of the wrong type, or not base64.
    """
    payload = keys.unsign(body)
    fields = _without_song(body, len(payload)) or parse_object(payload)
    sha256 = parse_sha256(_field(fields, "model_hash"), "model_hash")
    check_extension(_field(fields, "ext"), "the field ext")
    csv = base64(fields["csv"], "the field csv") if fields.get("csv") is not None else None
    detail = fields.get("detail", False)
    if not isinstance(detail, bool):
        raise BadRequest("the field detail must be true or false")
    song = _field(fields, "data")
    return Question(sha256, song if isinstance(song, bytes) else base64(song, "the field data"), csv, detail)


def _encoded(array: list[Any]) -> bytes:
    """Encode as `dumps` does, in pieces: while it encodes, no other thread has its turn."""
    each = max(1, answers.count(array) // len(array))
    step = max(1, _AT_ONCE_NUMBERS // each)
    if each > _AT_ONCE_NUMBERS:
        pieces = [_encoded(row) for row in array]
    else:
        pieces = [dumps(array[start : start + step])[1:-1] for start in range(0, len(array), step)]
    return b"[" + b",".join(pieces) + b"]"


def _without_song(body: bytes, end: int) -> dict[str, Any] | None:
    """Read JSON with the song cut out, which is decoded where it stands; None where it is not that simple.

    Most of a body is the song: made a string by a JSON parser first, it costs five times what decoding it does.
    """
    at = body.find(b'"data"', 0, end)
    begin = _SONG.match(body, at - 1, min(at + 99, end)) if at > 0 else None
    if begin is None:
        return None
    start, stop = begin.end(), body.find(b'"', begin.end(), end)
    if stop < start:
        return None
    try:
        song = pybase64.b64decode(memoryview(body)[start:stop], validate=True)
        fields = orjson.loads(body[:start] + _HERE + body[stop:end])
    except ValueError:
        return None
    # A key data of something inside is another's.
    return {**fields, "data": song} if isinstance(fields, dict) and fields.get("data") == _HERE.decode() else None


def _field(fields: Mapping[str, Any], name: str) -> object:
    if name not in fields:
        raise BadRequest(f"the field {name} is missing")
    return fields[name]
