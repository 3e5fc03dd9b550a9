"""What plain HTTP is answered."""

import json

import pytest

from service.plain_http import FULL, answer


def test_health_is_the_guides_json() -> None:
    response = answer("GET", "/health", 7)
    assert response.status == 200
    assert response.body == b'{"status": "healthy", "connections": 7}'
    assert json.loads(response.body) == {"status": "healthy", "connections": 7}
    assert dict(response.headers)["content-type"] == "application/json"


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/Health"), ("POST", "/health"), ("BREW", "/")])
def test_anything_else_is_not_found(method: str, path: str) -> None:
    response = answer(method, path, 7)
    assert (response.status, response.body) == (404, b"WebSocket endpoint only")
    assert dict(response.headers) == {"content-type": "text/plain; charset=utf-8", "content-length": "23"}


@pytest.mark.parametrize("path", ["/", "/health"])
def test_head_is_get_without_the_body(path: str) -> None:
    assert answer("HEAD", path, 7) == answer("GET", path, 7)._replace(body=b"")


def test_one_client_too_many_is_told_when_to_come_back() -> None:
    assert FULL.status == 503
    assert dict(FULL.headers)["retry-after"] == "5"
