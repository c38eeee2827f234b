"""GET /openapi.json: the table of routes, for tools to read."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from spectrogram_predictor.handlers.base import BaseHandler
from spectrogram_predictor.handlers.policy import Access, Operation, Route
from spectrogram_predictor.version import __version__

_ERROR = {
    "type": "object",
    "properties": {"msg": {"type": "string"}, "code": {"type": "string"}},
    "required": ["msg", "code"],
    "additionalProperties": False,
}
_ERROR_REFERENCE = {"$ref": "#/components/schemas/Error"}
_ERRORS = {"4XX": "what is wrong with the request", "5XX": "why it cannot be answered now"}


class OpenApiHandler(BaseHandler):
    """GET /openapi.json."""

    def get(self) -> None:
        """Answer with what this port serves."""
        self.answer(document(self.application.settings["routes"]))


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of one port.

    Parameters
    ----------
    routes : sequence of Route
        What it serves.
    """
    return {
        "openapi": "3.1.0",
        "info": {"title": "spectrogram-predictor", "version": __version__},
        "paths": {route.path: _path(route) for route in routes},
        "components": {
            "schemas": {"Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _path(route: Route) -> dict[str, Any]:
    item: dict[str, Any] = {
        method.lower(): _operation(operation) for method, operation in route.operations.items()
    }
    if names := re.findall(r"{(\w+)}", route.path):
        item["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return item


def _operation(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "description": f"Access: {operation.access.value}.",
        "responses": {
            **_successes(operation),
            **{status: _response(text, _ERROR_REFERENCE) for status, text in _ERRORS.items()},
        },
    }
    if operation.access is Access.TOKEN:
        described["security"] = [{"token": []}]
    if operation.body:
        content = {operation.body.media_type: {"schema": operation.body.schema}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _successes(operation: Operation) -> dict[str, Any]:
    if operation.answer:
        return {"200": _response("done", operation.answer)}
    return {"2XX": {"description": "done; the headers say more"}}


def _response(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
