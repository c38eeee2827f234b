"""Which port serves what, to whom."""

import logging
import re
from collections.abc import Sequence
from typing import Any

from tornado.web import Application, RequestHandler

from spectrogram_predictor.handlers.base import NotFoundHandler, Services
from spectrogram_predictor.handlers.models import (
    ModelHandler,
    ModelsHandler,
    RegisterHandler,
    SweepHandler,
)
from spectrogram_predictor.handlers.openapi import OpenApiHandler
from spectrogram_predictor.handlers.policy import Access, Body, Operation, Route, Schema
from spectrogram_predictor.handlers.prediction import PredictionHandler, SongHandler
from spectrogram_predictor.handlers.resumable import CreationHandler, PartialHandler
from spectrogram_predictor.handlers.service import LivezHandler, ReadyzHandler, TestHandler
from spectrogram_predictor.handlers.uploads import SignedUploadHandler, UploadHandler

logger = logging.getLogger("spectrogram_predictor.access")


def _object(**properties: Any) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


_TEXT = {"type": "string"}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_MESSAGE = _object(msg=_TEXT)
_STATE = _object(hash=_SHA256, state={"enum": ["registered", "promoted", "rejected"]}, labels={"type": "array"})
_SIGNED_JSON = Body(
    "text/plain", {"type": "string", "description": "itsdangerous.Serializer(SIGNING_TOKEN).dumps({...})"}
)
_MODEL_FILES = Body(
    "multipart/form-data", {"type": "object", "properties": {"model": {"type": "string", "format": "binary"}}}
)

_SONG = Body("application/octet-stream", {"type": "string", "format": "binary"})
_ANSWER = _object(array={"type": "array"}, labels={"type": "array"}, model=_SHA256, recipe={})
_BYTES = Body("application/offset+octet-stream", {"type": "string", "format": "binary"})
_TUS_OPTIONS = Operation("Which version and extensions of tus?", Access.OPEN, {})
_SIGNED_UPLOAD = {
    "POST": Operation(
        "Upload a model whose bytes are signed",
        Access.SIGNED,
        _object(msg=_TEXT, hash=_SHA256),
        _MODEL_FILES,
    )
}

SHARED: Sequence[Route] = (
    Route("/test", TestHandler, {"GET": Operation("Is it up?", Access.OPEN, _MESSAGE)}),
    Route("/livez", LivezHandler, {"GET": Operation("Is the process alive?", Access.OPEN, _MESSAGE)}),
    Route("/readyz", ReadyzHandler, {"GET": Operation("Can it serve now?", Access.OPEN, _MESSAGE)}),
    Route(
        "/openapi.json",
        OpenApiHandler,
        {"GET": Operation("What this port serves", Access.OPEN, {"type": "object"})},
    ),
)
API: Sequence[Route] = (
    *SHARED,
    Route(
        "/registermodelhash",
        RegisterHandler,
        {"POST": Operation("Register a model's SHA-256", Access.SIGNED, _MESSAGE, _SIGNED_JSON)},
    ),
    Route(
        "/hashmodels",
        SweepHandler,
        {"GET": Operation("Sweep now", Access.OPEN, _object(hashes={"type": "array", "items": _SHA256}))},
    ),
    Route("/nodemodeluploads", SignedUploadHandler, _SIGNED_UPLOAD),
    Route("/uploadmodel", SignedUploadHandler, _SIGNED_UPLOAD),
    Route(
        "/prediction",
        PredictionHandler,
        {
            "POST": Operation(
                "Ask a model about a song", Access.SIGNED, _object(array={"type": "array"}), _SIGNED_JSON
            )
        },
    ),
    Route(
        "/models",
        ModelsHandler,
        {"GET": Operation("List the models", Access.TOKEN, _object(models={"type": "array", "items": _STATE}))},
    ),
    Route("/models/{sha256}", ModelHandler, {"GET": Operation("Look at one model", Access.TOKEN, _STATE)}),
    Route(
        "/models/{sha256}/predict",
        SongHandler,
        {"POST": Operation("Ask a model about a song, sent as it is", Access.TOKEN, _ANSWER, _SONG)},
    ),
)
UPLOAD: Sequence[Route] = (
    *SHARED,
    Route(
        "/nodemodeluploads",
        UploadHandler,
        {
            "POST": Operation(
                "Upload registered models",
                Access.REGISTERED,
                _object(message=_TEXT, uploaded={"const": True}),
                _MODEL_FILES,
            )
        },
    ),
    Route(
        "/uploads",
        CreationHandler,
        {
            "POST": Operation("Begin an upload that can be gone on with", Access.TOKEN, {}, _BYTES, once=True),
            "OPTIONS": _TUS_OPTIONS,
        },
    ),
    Route(
        "/uploads/{upload}",
        PartialHandler,
        {
            "HEAD": Operation("How far is it?", Access.URL, {}),
            "PATCH": Operation("Go on with it", Access.URL, {}, _BYTES),
            "DELETE": Operation("End it, and keep nothing", Access.URL, {}),
            "OPTIONS": _TUS_OPTIONS,
        },
    ),
)


def make_app(routes: Sequence[Route], services: Services) -> Application:
    """Return the application of one port."""
    return Application(
        [(_pattern(route.path), route.handler, {"services": services, "route": route}) for route in routes],
        default_handler_class=NotFoundHandler,
        default_handler_args={"services": services, "route": Route("", NotFoundHandler)},
        log_function=_log_request,
        routes=routes,
    )


def _pattern(path: str) -> str:
    return re.sub(r"{\w+}", "([^/]+)", path.replace(".", r"\."))


def _log_request(handler: RequestHandler) -> None:
    logger.info(
        "%s %s %d %.1f ms",
        handler.request.method,
        handler.request.path,
        handler.get_status(),
        1000 * handler.request.request_time(),
    )
