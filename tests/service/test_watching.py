"""What the service tells over HTTP about itself."""

import json

import pytest
from centers import World

from service.plain_http import NOT_FOUND
from service.watching import Watching


def test_health_is_the_guides_json() -> None:
    world = World()
    world.v0()
    response = Watching(world.center).answer("GET", "/health", passed_on=True)
    assert response.status == 200
    assert response.body == b'{"status": "healthy", "connections": 1}'
    assert json.loads(response.body) == {"status": "healthy", "connections": 1}
    assert dict(response.headers)["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/Health"), ("POST", "/health"), ("POST", "/metrics"), ("GET", "/metrics/"), ("BREW", "/")],
)
def test_anything_else_is_not_found(method: str, path: str) -> None:
    assert Watching(World().center).answer(method, path, passed_on=False) == NOT_FOUND


def test_the_service_is_ready_until_it_drains_and_alive_all_the_while() -> None:
    world = World()
    watching = Watching(world.center)
    ready = watching.answer("GET", "/readyz", passed_on=False)
    assert (ready.status, ready.body) == (200, b"ready")
    world.center.draining = True
    ready = watching.answer("GET", "/readyz", passed_on=False)
    assert (ready.status, dict(ready.headers)["retry-after"]) == (503, "5")
    alive = watching.answer("GET", "/livez", passed_on=False)
    assert (alive.status, alive.body) == (200, b"alive")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
def test_what_came_through_a_proxy_learns_nothing_internal(path: str) -> None:
    watching = Watching(World().center)
    assert watching.answer("GET", path, passed_on=False).status == 200
    assert watching.answer("GET", path, passed_on=True) == NOT_FOUND


@pytest.mark.parametrize("path", ["/", "/health", "/livez", "/readyz"])
def test_head_is_get_without_the_body(path: str) -> None:
    watching = Watching(World().center)
    head, get = (watching.answer(method, path, passed_on=False) for method in ("HEAD", "GET"))
    assert head == get._replace(body=b"")
