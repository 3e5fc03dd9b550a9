"""The service under an ASGI server that the test plays."""

import asyncio
from typing import Any

import pytest

import service.app
from service.app import Application, create_app
from service.core.addresses import Address
from service.core.admission import Admission, Handshake, admit
from service.core.identity import Identity
from service.core.plain_http import Answer
from service.core.session import SessionV0
from service.settings import Limits, Settings
from service.web.publish import NOT_LEFT_YET, Permit, Request
from tests.service.centers import FakeClient

Events = list[dict[str, Any]]

FULL = Settings(limits=Limits(connections=1))


def talk(app: Application, scope: dict[str, Any], *received: dict[str, Any]) -> Events:
    """Everything the application sends on a connection on which these events come, and then nothing more."""
    sent: Events = []

    async def play() -> None:
        events: asyncio.Queue[Any] = asyncio.Queue()
        for event in received:
            events.put_nowait(event)

        async def send(event: Any) -> None:
            sent.append(dict(event))

        await asyncio.wait_for(app(scope, events.get, send), 5)

    asyncio.run(play())
    return sent


def test_it_is_made_when_it_is_asked_for() -> None:
    assert service.app.app is service.app.app
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = service.app.other


CONNECT, DISCONNECT = {"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1005}
WEBSOCKET = {"type": "websocket", "path": "/", "headers": [], "extensions": {"websocket.http.response": {}}}


@pytest.mark.parametrize("stops", [False, True], ids=["", "because the service stops"])
def test_a_script_is_told_when_its_message_takes_too_long_to_leave(
    stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not stops:
        monkeypatch.setattr("service.app.PATIENCE_S", 0.01)
    answer: list[Answer] = []

    async def play() -> None:
        app = create_app(Settings())
        app.center.verify = lambda token: Identity(subject=Address("script"), may_send_to=frozenset("*"), expires=2e9)
        slow = FakeClient()
        slow.reads_slowly = True
        SessionV0(app.center, slow, None, None).receive(b'{"recipient_uuid": "alice", "message": "connected"}')
        permit = app._publisher.admit(Request("POST", "/publish/alice", {"authorization": ["Bearer K"]}))
        assert isinstance(permit, Permit)
        outcome = asyncio.ensure_future(app._outcome(permit, b"hello"))
        await asyncio.sleep(0)
        if stops:
            outcome.cancel()
        answer.append(await outcome)
        slow.leaving.pop()(True)  # too late

    asyncio.run(play())
    assert answer == [NOT_LEFT_YET]


def http(method: str, path: str) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": []}


def test_plain_http_is_answered() -> None:
    start, body = talk(create_app(Settings()), http("GET", "/health"))
    assert start["status"] == 200
    assert (b"content-type", b"application/json") in start["headers"]
    assert body == {"type": "http.response.body", "body": b'{"status": "healthy", "connections": 0}'}


def test_a_client_that_leaves_at_once_is_accepted_and_forgotten() -> None:
    app = create_app(Settings())
    assert talk(app, WEBSOCKET, CONNECT, DISCONNECT)[0] == {"type": "websocket.accept", "subprotocol": None}
    assert app.center.connections == 0


def test_a_client_that_left_before_it_was_accepted_gets_nothing() -> None:
    assert talk(create_app(Settings()), WEBSOCKET, DISCONNECT) == []


def test_text_and_bytes_are_both_understood() -> None:
    app = create_app(Settings())
    text = {"type": "websocket.receive", "text": "", "bytes": None}
    data = {"type": "websocket.receive", "bytes": b"\xff"}
    talk(app, WEBSOCKET, CONNECT, text, data, DISCONNECT)
    assert "2 dropped" in app.center.status()


@pytest.fixture
def full_app() -> Application:
    app = create_app(FULL)
    admission = admit(app.center, Handshake())
    assert isinstance(admission, Admission)
    admission.open(app.center, FakeClient())
    return app


def test_one_client_too_many_is_refused_with_503(full_app: Application) -> None:
    start, body = talk(full_app, WEBSOCKET, CONNECT)
    assert start["type"] == "websocket.http.response.start"
    assert start["status"] == 503
    assert (b"retry-after", b"5") in start["headers"]
    assert body == {"type": "websocket.http.response.body", "body": b"Too many connections"}


@pytest.mark.parametrize("extensions", [{}, {"extensions": None}, {"extensions": {}}])
def test_a_server_that_knows_no_such_response_is_told_to_close(
    full_app: Application, extensions: dict[str, Any]
) -> None:
    scope = {"type": "websocket", "path": "/", "headers": [], **extensions}
    close = {"type": "websocket.close", "code": 4100, "reason": "too many connections"}
    assert talk(full_app, scope, CONNECT) == [close]


def test_the_lifespan_is_answered() -> None:
    start, stop = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
    assert talk(create_app(Settings()), {"type": "lifespan"}, start, stop) == [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]


def test_a_kind_of_connection_that_asgi_has_yet_to_invent_is_left_alone() -> None:
    assert talk(create_app(Settings()), {"type": "carrier.pigeon"}) == []


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ("websocket.accept", OSError("gone")),
        ("websocket.send", OSError("gone")),
        ("websocket.send", RuntimeError("Unexpected ASGI message 'websocket.send', after sending 'websocket.close'.")),
    ],
)
def test_a_client_that_is_gone_when_it_is_sent_to_is_forgotten(event: str, error: Exception) -> None:
    app = create_app(Settings())

    async def play() -> None:
        events: asyncio.Queue[Any] = asyncio.Queue()
        events.put_nowait(CONNECT)

        async def send(sent: Any) -> None:
            if sent["type"] == event:
                raise error

        await asyncio.wait_for(app(WEBSOCKET, events.get, send), 5)

    asyncio.run(play())
    assert app.center.connections == 0
