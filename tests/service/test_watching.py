"""What the service tells over HTTP about itself."""

import asyncio
import json
import time
from collections.abc import Callable

import msgspec
import pytest

from service.core.bus import PATIENCE_S
from service.core.plain_http import NOT_FOUND, Answer
from service.core.standing import Standing
from service.core.tally import Tally
from service.web.watching import Watching
from tests.service.centers import World
from tests.service.shells import ROOT


def answered(watching: Watching, method: str, path: str, passed_on: bool) -> Answer:
    return asyncio.run(watching.answer(method, path, passed_on))


def test_health_is_the_guides_json() -> None:
    world = World()
    world.v0()
    response = answered(Watching(world.center), "GET", "/health", passed_on=True)
    assert response.status == 200
    assert response.body == b'{"status": "healthy", "connections": 1}'
    assert json.loads(response.body) == {"status": "healthy", "connections": 1}
    assert dict(response.headers)["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/Health"), ("POST", "/health"), ("POST", "/metrics"), ("GET", "/metrics/"), ("BREW", "/")],
)
def test_anything_else_is_not_found(method: str, path: str) -> None:
    assert answered(Watching(World().center), method, path, passed_on=False) == NOT_FOUND


PAGE = ["/page/", "/page/page.css", "/page/page.js", "/js/client.js"]


@pytest.mark.parametrize("path", PAGE)
def test_the_page_is_shown_where_make_run_names_it_and_never_through_a_proxy(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = Watching(World().center)
    assert answered(watching, "GET", path, passed_on=False) == NOT_FOUND
    monkeypatch.setenv("WEBSOCKET_PAGE", str(ROOT / "clients"))
    shown = answered(watching, "GET", path, passed_on=False)
    assert (shown.status, len(shown.body) > 1000) == (200, True)
    assert answered(watching, "GET", path, passed_on=True) == NOT_FOUND
    assert answered(watching, "GET", "/page/../../LICENSE", passed_on=False) == NOT_FOUND


def test_the_service_is_ready_until_it_drains_and_alive_all_the_while() -> None:
    world = World()
    watching = Watching(world.center)
    ready = answered(watching, "GET", "/readyz", passed_on=False)
    assert (ready.status, ready.body) == (200, b"ready")
    world.center.draining = True
    ready = answered(watching, "GET", "/readyz", passed_on=False)
    assert (ready.status, dict(ready.headers)["retry-after"]) == (503, "1")
    alive = answered(watching, "GET", "/livez", passed_on=False)
    assert (alive.status, alive.body) == (200, b"alive")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/stats", "/status"])
def test_what_came_through_a_proxy_learns_nothing_internal(path: str) -> None:
    watching = Watching(World().center)
    assert answered(watching, "GET", path, passed_on=False).status == 200
    assert answered(watching, "GET", path, passed_on=True) == NOT_FOUND


@pytest.mark.parametrize("path", ["/", "/health", "/livez", "/readyz"])
def test_head_is_get_without_the_body(path: str) -> None:
    watching = Watching(World().center)
    head, get = (answered(watching, method, path, passed_on=False) for method in ("HEAD", "GET"))
    assert head == get._replace(body=b"")


class Others:
    """A bus with three other workers, each with what it answers: nothing when it has gone, None when it is stuck.

    `known` is what they have said before.
    """

    connections = 0
    abroad = None
    elsewhere = ()

    def __init__(self, *answers: bytes | None, **known: bytes) -> None:
        self.answers = dict(zip(("one", "two", "three"), answers, strict=True))
        self.known = known

    @property
    def others(self) -> list[str]:
        return list(self.answers)

    @property
    def heard_at(self) -> dict[str, float]:
        return dict.fromkeys(self.known, 1_700_000_000.0)

    def ask_all(self, answer: Callable[[str, bytes], None], *, abroad: bool = False) -> int:
        asked = dict(self.answers)
        for number, counts in asked.items():
            if counts is not None:
                answer(number, counts)
            if counts:
                self.known[number] = counts
            elif counts == b"":
                del self.answers[number]
        return len(asked)

    def tell_standing(self, ours: Standing) -> None: ...


def standing(routed: int) -> bytes:
    """The answer of another worker that has counted this."""
    return msgspec.msgpack.encode(
        Standing(
            host="here",
            pid=2_000_000_000,
            version="0.1.0",
            server="uvicorn",
            since=1.0,
            connections=0,
            queue_bytes=0,
            loop_lag_s=0.0,
            memory_bytes=0,
            tally=Tally(routed=routed),
            inherited=Tally(),
        )
    )


def told(world: World, others: Others) -> set[str]:
    world.center.hub.bus = others  # type: ignore[assignment]
    body = answered(Watching(world.center), "GET", "/metrics", passed_on=False).body.decode()
    return {line for line in body.splitlines() if line.startswith(("wsbundle_workers", "wsbundle_messages_ro"))}


@pytest.mark.parametrize(("last", "workers", "routed"), [(40, 4, 47), (None, 3, 7)])
def test_the_figures_are_those_of_all_workers_that_tell_them(last: int | None, workers: int, routed: int) -> None:
    """The last one has gone before it could answer, and another one goes on with what it had counted."""
    world = World()
    world.center.hub.tally.routed = 1
    assert told(world, Others(standing(2), standing(4), standing(last) if last else b"")) == {
        f"wsbundle_workers {workers}.0",
        f"wsbundle_workers_counted {workers}.0",
        f"wsbundle_messages_routed_total {routed}.0",
    }


def test_a_worker_that_is_stuck_is_not_waited_for_and_no_count_falls() -> None:
    began = time.monotonic()
    assert told(World(), Others(standing(2), standing(4), None, three=standing(40))) == {
        "wsbundle_workers 4.0",
        "wsbundle_workers_counted 3.0",
        "wsbundle_messages_routed_total 46.0",
    }
    assert time.monotonic() - began >= PATIENCE_S


def test_what_was_known_of_a_worker_that_is_stuck_is_shown_as_of_then() -> None:
    world = World()
    world.center.hub.bus = Others(standing(2), standing(4), None, three=standing(40))  # type: ignore[assignment]
    workers = json.loads(answered(Watching(world.center), "GET", "/stats", passed_on=False).body)["workers"]
    assert [(each["messages_routed"], each.get("stale_since")) for each in workers] == [
        (0, None),
        (2, None),
        (4, None),
        (40, 1_700_000_000.0),
    ]
