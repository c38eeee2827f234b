"""What the document of routes promises, the server keeps: requests made up from it by Schemathesis."""

from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from spectrogram_predictor.client import Client
from spectrogram_predictor.handlers import routes
from spectrogram_predictor.handlers.openapi import document
from tests.live import Live, wait_until

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]


@schemathesis.serializer("application/offset+octet-stream")
def _bytes(context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


TABLES = {"url": routes.API, "upload_url": routes.UPLOAD}
OPERATIONS = [
    (port, route.path, method) for port, table in TABLES.items() for route in table for method in route.operations
]


@pytest.mark.parametrize(("port", "path", "method"), OPERATIONS, ids=[" ".join(one) for one in OPERATIONS])
def test_an_operation_answers_as_documented(
    live: Live, request: pytest.FixtureRequest, port: str, path: str, method: str
) -> None:
    """Whatever is sent that fits the document: never a 500, always JSON of the shape that is promised."""
    cacert = request.getfixturevalue("certs") / "server.crt"
    operation = schemathesis.openapi.from_dict(document(TABLES[port]))[path][method]
    statuses = set()
    wait_until(lambda: live.http.get(f"{live.url}/readyz").is_success)

    @settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy())
    def property_(case: Any) -> None:
        base = getattr(live, port)
        headers = dict(case.headers or {})
        if operation.definition.raw.get("security"):
            with live.client() as client:
                headers.update(bearer(client, method, case.as_transport_kwargs(base_url=base)["url"]))
        response = case.call(base_url=base, headers=headers, verify=str(cacert))
        case.validate_response(response, checks=CHECKS)
        statuses.add(response.status_code)

    property_()
    assert statuses


def bearer(client: Client, method: str, url: str) -> dict[str, str]:
    """Return the header for a request; its path is what goes over the wire."""
    return client._bearer(method, urlsplit(str(httpx.URL(url))).path)
