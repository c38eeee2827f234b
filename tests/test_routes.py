"""The table of routes says what there is, and who may have it."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tornado.web import RequestHandler

from spectrogram_predictor.handlers import routes
from spectrogram_predictor.handlers.openapi import document
from spectrogram_predictor.handlers.policy import Access, Route
from tests.live import Live

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ALL = [(port, route) for port, table in (("API", routes.API), ("UPLOAD", routes.UPLOAD)) for route in table]


@pytest.mark.parametrize(("port", "route"), ALL, ids=[f"{port} {route.path}" for port, route in ALL])
def test_every_method_of_a_handler_is_in_the_table(port: str, route: Route) -> None:
    """And the table has none that the handler does not: a new one is decided on, or this fails."""
    unimplemented = RequestHandler._unimplemented_method
    served = {name for name in METHODS if getattr(route.handler, name.lower()) is not unimplemented}
    assert served == set(route.operations)


def test_the_policy_is_this() -> None:
    """Who may call what, in one view: a change of it is a change here."""
    policy = {
        f"{method} {port} {route.path}": (operation.access, operation.once)
        for port, route in ALL
        for method, operation in route.operations.items()
        if operation.access is not Access.OPEN
    }
    assert policy == {
        "POST API /registermodelhash": (Access.SIGNED, False),
        "POST API /nodemodeluploads": (Access.SIGNED, False),
        "POST API /uploadmodel": (Access.SIGNED, False),
        "POST API /prediction": (Access.SIGNED, False),
        "GET API /models": (Access.TOKEN, False),
        "GET API /models/{sha256}": (Access.TOKEN, False),
        "POST API /models/{sha256}/predict": (Access.TOKEN, False),
        "POST UPLOAD /nodemodeluploads": (Access.REGISTERED, False),
        "POST UPLOAD /uploads": (Access.TOKEN, True),
        "HEAD UPLOAD /uploads/{upload}": (Access.URL, False),
        "PATCH UPLOAD /uploads/{upload}": (Access.URL, False),
        "DELETE UPLOAD /uploads/{upload}": (Access.URL, False),
    }
    opened = {route.path for _, route in ALL for one in route.operations.values() if one.access is Access.OPEN}
    assert opened == {
        "/test",
        "/livez",
        "/readyz",
        "/openapi.json",
        "/hashmodels",
        "/uploads",
        "/uploads/{upload}",
    }


def ask(live: Live, port: str, method: str, path: str, **kwargs: Any) -> httpx.Response:
    url = live.url if port == "API" else live.upload_url
    return live.http.request(method, url + path.replace("{sha256}", "0" * 64), **kwargs)


@pytest.mark.parametrize(("port", "route"), ALL, ids=[f"{port} {route.path}" for port, route in ALL])
def test_nobody_gets_in_without_what_the_table_asks_for(live: Live, port: str, route: Route) -> None:
    """No credentials 401, wrong ones 403; methods that are not in it 405."""
    for method in METHODS:
        operation = route.operations.get(method)
        answer = ask(live, port, method, route.path)
        if operation is None:
            assert answer.status_code == 405
            assert answer.headers["Allow"] == ", ".join(route.operations)
        elif operation.access is Access.TOKEN:
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            wrong = {"Authorization": "Bearer eyJhIjoxfQ.aaaaaa.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
            assert ask(live, port, method, route.path, headers=wrong).status_code == 403
        elif operation.access is Access.SIGNED:
            files = {"model": b"model without a signature, but long enough for one"}
            multipart = operation.body is not None and operation.body.media_type.startswith("multipart")
            sent = {"files": files} if multipart else {"content": b"{}"}
            assert ask(live, port, method, route.path, **sent).status_code == 401


def test_a_token_is_taken_once(live: Live) -> None:
    """The same request sent twice is refused the second time."""
    with live.client() as client:
        headers = client._bearer("GET", "/models")
    assert ask(live, "API", "GET", "/models", headers=headers).status_code == 200
    assert ask(live, "API", "GET", "/models", headers=headers).status_code == 403


def test_every_answer_leaves_browsers_nothing_to_do(live: Live) -> None:
    """Nothing to load, to embed or to keep; also errors."""
    for path, status in (("/test", 200), ("/models", 401), ("/nowhere", 404)):
        answer = ask(live, "API", "GET", path)
        assert answer.status_code == status
        assert answer.headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_too_many_requests_are_told_when_to_come_back(make_live: Callable[..., Live]) -> None:
    """429 with Retry-After; a probe of the process is answered all the same."""
    live = make_live(server__client_requests_per_s=2)
    statuses = [ask(live, "API", "GET", "/test").status_code for _ in range(6)]
    assert statuses[:4] == [200] * 4
    refused = ask(live, "API", "GET", "/test")
    assert refused.status_code == 429
    assert refused.json()["code"] == "too_many_requests"
    assert int(refused.headers["Retry-After"]) >= 1
    assert ask(live, "API", "GET", "/livez").status_code == 200


@pytest.mark.parametrize("port", ["API", "UPLOAD"])
def test_what_is_no_route_is_asked_for_no_faster(port: str, make_live: Callable[..., Live]) -> None:
    """404 takes as much of the rate as any answer, by any method."""
    live = make_live(server__client_requests_per_s=2)
    statuses = [ask(live, port, method, "/nowhere").status_code for method in METHODS]
    assert statuses[:4] == [404] * 4
    assert 429 in statuses


def test_the_document_has_every_operation(live: Live) -> None:
    """What a port says that it serves is what its table has."""
    for port, table in (("API", routes.API), ("UPLOAD", routes.UPLOAD)):
        served = ask(live, port, "GET", "/openapi.json").json()
        assert served == document(table)
        described = {(path, method.upper()) for path, item in served["paths"].items() for method in item}
        assert described - {(path, "PARAMETERS") for path, _ in described} == {
            (route.path, method) for route in table for method in route.operations
        }
