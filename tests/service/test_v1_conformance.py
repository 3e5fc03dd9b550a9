"""What a client of nc.v1 can rely on, whichever way the service was started.

Every rule by itself is shown in test_session_v1.
"""

import contextlib
import itertools
import json
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from service.core.bounds import READ_AHEAD_FRAMES
from tests.service.service_manager import Unit
from tests.service.shells import COMMANDS, DEADLINE_S, TEXT, Peer, Shell, running, wait_until


class Caller:
    """A client of nc.v1 that has said hello; `greeting` is the answer."""

    def __init__(self, shell: Shell | Unit, uuid: str | None = None, **hello: object) -> None:
        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(
            connect(shell.url, proxy=None, compression=None, close_timeout=1, subprotocols=[Subprotocol("nc.v1")])
        )
        assert self._socket.subprotocol == "nc.v1"
        self._ids = itertools.count(1)
        self._unread: list[Any] = []
        self.welcome = self._receive()
        self.greeting = self.ask("hello", **({} if uuid is None else {"uuid": uuid}), **hello)

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._open.close()

    def _receive(self) -> Any:
        return json.loads(self._socket.recv(timeout=DEADLINE_S))

    def ask(self, kind: str, **request: object) -> Any:
        """The answer to a request; what comes before it is kept for `hear`."""
        number = next(self._ids)
        self._socket.send(json.dumps({"type": kind, "id": number, **request}))
        while True:
            frame = self._receive()
            if frame.get("id") == number and frame["type"] in ("ok", "error", "pong"):
                return frame
            self._unread.append(frame)

    def tell(self, kind: str, **request: object) -> None:
        """Send a request that wants no answer."""
        self._socket.send(json.dumps({"type": kind, **request}))

    def hear(self) -> Any:
        """The next frame that answers no request."""
        return self._unread.pop(0) if self._unread else self._receive()

    def hears_nothing(self) -> bool:
        """Everything that was sent to it so far has been read."""
        self.ask("ping")
        return not self._unread

    def close_code(self) -> int:
        """Wait for the server to close, and tell why it did."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self._socket.recv(timeout=DEADLINE_S)
        assert self._socket.close_code is not None
        return self._socket.close_code


@pytest.fixture(scope="module", params=COMMANDS)
def running_shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    with running(COMMANDS[request.param], WEBSOCKET_HELLO_TIMEOUT="1") as shell:
        yield shell
        assert "Traceback" not in shell.log()


@pytest.fixture
def shell(running_shell: Shell) -> Shell:
    """A service that nobody is connected to."""
    wait_until(lambda: running_shell.connections() == 0)
    return running_shell


def test_the_client_is_welcomed_and_its_hello_answered(shell: Shell) -> None:
    with Caller(shell, "alice") as alice:
        assert (alice.welcome["type"], alice.welcome["protocol"]) == ("welcome", "nc.v1")
        assert (alice.greeting["type"], alice.greeting["uuid"]) == ("ok", "alice")


def test_a_message_is_acknowledged_delivered_and_confirmed(shell: Shell) -> None:
    with Caller(shell, "alice") as alice, Caller(shell, "bob") as bob:
        accepted = bob.ask("send", recipient_uuid="alice", message={"é": [1]}, ack="delivered")
        assert (accepted["online"], accepted["receipts"]) == (1, 1)
        heard = alice.hear()
        assert (heard["type"], heard["sender_uuid"], heard["message"]) == ("msg", "bob", {"é": [1]})
        alice.tell("ack", key=heard["key"])
        assert bob.hear() == {"type": "delivered", "id": accepted["id"], "recipient_uuid": "alice"}


@pytest.mark.slow
@pytest.mark.parametrize("command", [COMMANDS[name] for name in COMMANDS if name != "uvicorn"])
@pytest.mark.parametrize("reads", [True, False])
def test_a_message_is_acknowledged_when_it_has_left_and_not_before(command: str, reads: bool) -> None:
    # Not plain uvicorn: an ASGI application cannot see what its server still has.
    with (
        running(command, WEBSOCKET_MAX_QUEUE=str(16 * 1024 * 1024)) as shell,
        Peer(shell.port, receive_buffer=4096) as late,
        Caller(shell) as bob,
    ):
        uuid = late.wait_for(TEXT).decode().split()[-1]
        for _ in range(120):  # more than the kernel keeps for a client that does not read
            bob.tell("send", recipient_uuid=uuid, message="x" * 60_000)
        bob.tell("send", id="late", recipient_uuid=uuid, message="y")
        assert bob.hears_nothing()
        if reads:
            while b'"y"' not in late.wait_for(TEXT):
                pass
            assert bob.hear() == {"type": "ok", "id": "late", "online": 1}
        else:
            late.reset()
            assert bob.hear()["code"] == 116


def test_what_was_not_confirmed_is_told_lost_when_the_recipient_goes(shell: Shell) -> None:
    with Caller(shell, "bob") as bob:
        with Caller(shell, "alice"):
            accepted = bob.ask("send", recipient_uuid="alice", message=1, ack="delivered")
        assert bob.hear() == {"type": "lost", "id": accepted["id"], "recipient_uuid": "alice"}


def test_both_versions_talk_to_each_other(shell: Shell) -> None:
    with Caller(shell, "new") as new, shell.client() as old:
        old.register("old")
        old.send_to("new", "from v0")
        assert new.hear()["message"] == "from v0"
        assert new.ask("send", recipient_uuid="old", message="from v1")["online"] == 1
        assert json.loads(old.receive()) == {"recipient_uuid": "old", "message": "from v1"}


def test_groups_and_presence_work_across_connections(shell: Shell) -> None:
    with Caller(shell, "alice") as alice:
        assert alice.ask("presence", uuids=["bob", "carol"], watch=True)["online"] == []
        with Caller(shell, "bob") as bob:
            assert alice.hear() == {"type": "presence", "uuid": "bob", "state": "online"}
            for party in (alice, bob):
                party.ask("join", group="friends")
            assert alice.ask("send", group="friends", message="hi")["online"] == 1
            assert bob.hear()["group"] == "friends"
            assert alice.hears_nothing()
        assert alice.hear() == {"type": "presence", "uuid": "bob", "state": "offline"}


def test_an_address_cannot_be_taken_from_a_client_that_is_alive(shell: Shell) -> None:
    with Caller(shell, "alice") as alice, Caller(shell) as mallory, shell.client() as eve:
        # Its library answers pings by itself, in a thread of its own.
        assert mallory.ask("hello", uuid="alice")["code"] == 113
        eve.send_to("alice", "connected")
        assert eve.close_code() == 4009
        mallory.ask("send", recipient_uuid="alice", message="still yours")
        assert alice.hear()["message"] == "still yours"


def test_a_lost_connection_is_replaced_by_its_secret_at_once(shell: Shell) -> None:
    with Caller(shell, "alice") as old, Caller(shell, "alice", resume=old.greeting["resume"]) as new:
        assert new.greeting["uuid"] == "alice"
        assert old.close_code() == 4010


@pytest.mark.parametrize("command", [COMMANDS[name] for name in COMMANDS if name != "uvicorn"])
def test_the_address_of_a_dead_client_is_given_away(command: str) -> None:
    # Not plain uvicorn: ASGI has no pings that could be sent when they are needed.
    with running(command) as shell, Peer(shell.port) as dead, Caller(shell) as back:
        dead.send_frame(TEXT, b'{"recipient_uuid": "alice", "message": "connected"}')
        wait_until(lambda: back.ask("presence", uuids=["alice"])["online"] == ["alice"])
        assert back.ask("hello", uuid="alice")["type"] == "ok"


@pytest.mark.parametrize("command", [COMMANDS[name] for name in COMMANDS if name != "uvicorn"])
def test_what_a_client_that_has_gone_said_last_does_not_keep_its_address(command: str) -> None:
    with running(command, WEBSOCKET_MAX_MESSAGES_PER_SECOND="10") as shell, Caller(shell) as back:
        with Peer(shell.port) as gone:
            gone.send_frame(TEXT, b'{"recipient_uuid": "alice", "message": "connected"}')
            wait_until(lambda: back.ask("presence", uuids=["alice"])["online"] == ["alice"])
            for _ in range(200):
                gone.send_frame(TEXT, b"x")
        assert back.ask("hello", uuid="alice")["type"] == "ok"


@pytest.mark.parametrize("command", [COMMANDS[name] for name in COMMANDS if name != "uvicorn"])
def test_a_client_that_is_read_no_further_for_a_while_keeps_its_address(command: str) -> None:
    with (
        running(command, WEBSOCKET_MAX_MESSAGES_PER_SECOND="10") as shell,
        Caller(shell) as mallory,
        Peer(shell.port) as busy,
    ):
        busy.send_frame(TEXT, b'{"recipient_uuid": "alice", "message": "connected"}')
        wait_until(lambda: mallory.ask("presence", uuids=["alice"])["online"] == ["alice"])
        for _ in range(READ_AHEAD_FRAMES + 200):
            busy.send_frame(TEXT, b"x")
        assert mallory.ask("hello", uuid="alice")["code"] == 113


def test_who_says_no_hello_in_time_is_closed(shell: Shell) -> None:
    with connect(shell.url, proxy=None, subprotocols=[Subprotocol("nc.v1")]) as silent:
        with contextlib.suppress(ConnectionClosed):
            while True:
                silent.recv(timeout=DEADLINE_S)
        assert silent.close_code == 4000


def test_an_error_leaves_the_connection_open(shell: Shell) -> None:
    with Caller(shell) as alice:
        assert alice.ask("no such thing")["code"] == 104
        assert alice.ask("join")["code"] == 107
        assert alice.ask("ping")["type"] == "pong"


@pytest.mark.parametrize("command", [COMMANDS[name] for name in COMMANDS if name != "uvicorn"])
def test_before_a_stop_clients_are_told_when_to_come_back(command: str) -> None:
    # Not plain uvicorn: it closes all connections before it tells the application.
    with running(command) as shell, Caller(shell, "alice") as alice:
        shell.terminate()
        goaway = alice.hear()
        assert goaway["type"] == "goaway"
        assert 0 < goaway["reconnect_in_ms"] <= goaway["deadline_ms"]
        assert alice.close_code() == 1012
        assert shell.process.wait(DEADLINE_S) == 0
