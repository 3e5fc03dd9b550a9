"""What a client can rely on, whichever way the service was started."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from uuid import UUID

import pytest
from websockets.exceptions import ConnectionClosed

from tests.service.shells import (
    BINARY,
    COMMANDS,
    CONTINUATION,
    DEADLINE_S,
    HANDSHAKE,
    PING,
    ROOT,
    TEXT,
    Client,
    Peer,
    Shell,
    running,
    wait_until,
)

HOSTILE = {
    "empty": "",
    "no_object": "[1]",
    "null": "null",
    "depth": "[" * 65_000,
    "depth_inside_the_message": '{"recipient_uuid": "a", "message": ' + "[" * 30_000 + "]" * 30_000 + "}",
    "width": '{"recipient_uuid": "a", "message": [' + "[]," * 20_000 + "[]]}",
    "recipient_is_a_list": '{"recipient_uuid": ["a"], "message": "x"}',
    "recipient_is_empty": '{"recipient_uuid": "", "message": "x"}',
    "recipient_is_huge": '{"recipient_uuid": "%s", "message": "connected"}' % ("u" * 60_000),
    "recipient_is_a_lone_surrogate": r'{"recipient_uuid": "\ud800", "message": "x"}',
    "message_is_a_lone_surrogate": r'{"recipient_uuid": "a", "message": "\ud800"}',
    "message_is_missing": '{"recipient_uuid": "a"}',
    "not_a_number": '{"recipient_uuid": "a", "message": NaN}',
    "many_digits": '{"recipient_uuid": "a", "message": %s}' % ("9" * 5000),
    "same_key_twice": '{"recipient_uuid": "a", "recipient_uuid": ["b"], "message": "x"}',
    "byte_order_mark": '\ufeff{"recipient_uuid": "a", "message": "connected"}',
    "truncated": '{"recipient_uuid": "a", "mess',
    "control_characters": "\x00\x1b[2J\r\n\u2028",
    "braces_of_a_format_string": "{uuid} {0.__class__} %s %(x)s",
    "binary_empty": b"",
    "binary_not_utf8": b"\xff\xfe\x00",
    "binary_lone_surrogate": b'{"recipient_uuid": "a", "message": "\xed\xa0\x80"}',
}

UNREADABLE = {
    "too_many_fields": b"X: y\r\n" * 129,
    "a_field_too_long": b"X: " + b"y" * 17_000 + b"\r\n",
    "a_body": b"Content-Length: 5\r\n",
    "a_body_in_chunks": b"Transfer-Encoding: chunked\r\n",
}


@pytest.fixture(scope="module", params=COMMANDS)
def running_shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    with running(COMMANDS[request.param], WEBSOCKET_PING_INTERVAL="1", WEBSOCKET_PING_TIMEOUT="1") as shell:
        yield shell
        assert "Traceback" not in shell.log()


@pytest.fixture
def shell(running_shell: Shell) -> Shell:
    """A service that nobody is connected to."""
    wait_until(lambda: running_shell.connections() == 0)
    return running_shell


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> str:
    """How to start a service of one's own."""
    return COMMANDS[request.param]


def test_the_first_text_welcomes_the_client_and_names_its_temporary_uuid(shell: Shell) -> None:
    with shell.client() as client:
        assert client.welcome == f"Welcome! Your temporary UUID is {UUID(client.temporary_uuid)}"


def test_two_clients_have_two_temporary_uuids(shell: Shell) -> None:
    with shell.client() as alice, shell.client() as bob:
        assert alice.temporary_uuid != bob.temporary_uuid


def test_a_client_is_reached_under_its_temporary_uuid(shell: Shell) -> None:
    with shell.client() as alice, shell.client() as bob:
        bob.send_to(alice.temporary_uuid, "hello")
        assert json.loads(alice.receive())["message"] == "hello"


def test_a_client_is_reached_under_the_uuid_that_it_registered(shell: Shell) -> None:
    with shell.client() as alice, shell.client() as bob:
        alice.register("alice")
        bob.send_to("alice", "hello")
        assert json.loads(alice.receive()) == {"recipient_uuid": "alice", "message": "hello"}


def test_a_message_arrives_to_the_letter(shell: Shell) -> None:
    text = '{ "message":{"é\U0001f600":[1e400,null]},\t"more": 1, "recipient_uuid":"alice" }'
    with shell.client() as alice, shell.client() as bob:
        alice.register("alice")
        bob.send(text)
        assert alice.receive() == text


def test_messages_of_one_client_keep_their_order(shell: Shell) -> None:
    with shell.client() as alice, shell.client() as bob:
        alice.register("alice")
        for number in range(500):
            bob.send_to("alice", number)
        assert [json.loads(alice.receive())["message"] for _ in range(500)] == list(range(500))


def test_registering_is_answered_with_nothing(shell: Shell) -> None:
    with shell.client() as alice:
        alice.send_to("alice", "connected")
        alice.hears_nothing_but_itself()


def test_a_uuid_belongs_to_the_first_client_that_registers_it_while_that_client_is_alive(shell: Shell) -> None:
    with shell.client() as alice, shell.client() as mallory, shell.client() as bob:
        alice.register("alice")
        mallory.send_to("alice", "connected")
        with ThreadPoolExecutor() as threads:
            answers_pings = threads.submit(alice.receive)
            assert mallory.close_code() == 4009
            bob.send_to("alice", "hello")
            assert json.loads(answers_pings.result(DEADLINE_S))["message"] == "hello"


@pytest.mark.slow
def test_the_uuid_of_a_client_that_answers_no_more_goes_to_the_next_that_registers_it(
    command: str,
) -> None:
    if command == COMMANDS["uvicorn"]:
        pytest.skip("an ASGI application cannot ping")
    with running(command) as shell, Peer(shell.port) as dead, shell.client() as back, shell.client() as bob:
        dead.send_frame(TEXT, b'{"recipient_uuid": "alice", "message": "connected"}')
        bob.hears_nothing_but_itself()
        back.send_to("alice", "connected")
        wait_until(lambda: shell.connections() == 2)
        bob.send_to("alice", "hello")
        assert json.loads(back.receive())["message"] == "hello"


def test_a_message_for_nobody_goes_nowhere(shell: Shell) -> None:
    with shell.client() as alice, shell.client() as bob:
        bob.send_to("nobody", "hello")
        bob.hears_nothing_but_itself()
        alice.hears_nothing_but_itself()


def test_plain_text_goes_nowhere(shell: Shell) -> None:
    with shell.client() as alice, shell.client() as bob:
        bob.send("hello everybody")
        bob.hears_nothing_but_itself()
        alice.hears_nothing_but_itself()


def test_a_binary_message_arrives_as_the_text_that_it_is(shell: Shell) -> None:
    with shell.client() as alice, shell.client() as bob:
        alice.register("alice")
        bob.send('{"recipient_uuid": "alice", "message": "é"}'.encode())
        assert alice.receive() == '{"recipient_uuid": "alice", "message": "é"}'


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_client_sends_it_and_the_others_are_served_on(shell: Shell, frame: str | bytes) -> None:
    with shell.client() as mallory, shell.client() as alice:
        mallory.send(frame)
        mallory.hears_nothing_but_itself()
        mallory.send_to(alice.temporary_uuid, "hello")
        assert json.loads(alice.receive())["message"] == "hello"


def test_text_that_is_not_utf8_closes_with_1007(shell: Shell, request: pytest.FixtureRequest) -> None:
    if "[uvicorn]" in request.node.name:
        pytest.skip("plain uvicorn does so too, but logs a traceback")
    with Peer(shell.port) as mallory:
        mallory.send_frame(TEXT, b"\xff")
        assert mallory.close_code() == 1007


def test_a_message_of_the_greatest_length_is_accepted(shell: Shell) -> None:
    with shell.client() as client:
        client.send("x" * 65_536)
        client.hears_nothing_but_itself()


def test_a_longer_message_closes_with_1009(shell: Shell) -> None:
    with shell.client() as client:
        client.send("x" * 65_537)
        assert client.close_code() == 1009


def test_a_longer_message_in_fragments_closes_with_1009(shell: Shell) -> None:
    with Peer(shell.port) as mallory:
        mallory.send_frame(TEXT, b"x" * 40_000, fin=False)
        mallory.send_frame(CONTINUATION, b"x" * 40_000, fin=False)
        assert mallory.close_code() == 1009


def test_a_fragmented_message_is_one_message(shell: Shell) -> None:
    with shell.client() as alice, Peer(shell.port) as bob:
        alice.register("alice")
        bob.send_frame(BINARY, b'{"recipient_uuid": "al', fin=False)
        bob.send_frame(CONTINUATION, b'ice", "message": "x"}')
        assert alice.receive() == '{"recipient_uuid": "alice", "message": "x"}'


def test_a_message_of_endless_empty_fragments_closes_with_1009(shell: Shell, request: pytest.FixtureRequest) -> None:
    if "[uvicorn]" in request.node.name:
        pytest.skip("plain uvicorn has no bound: service.fast.fast has one")
    with Peer(shell.port) as mallory:
        mallory.send_frame(TEXT, b"", fin=False)
        with contextlib.suppress(ConnectionError):
            for _ in range(2000):
                mallory.send_frame(CONTINUATION, b"", fin=False)
        assert mallory.close_code() == 1009


def test_a_client_that_claims_ever_more_uuids_is_closed_with_4008(shell: Shell) -> None:
    with shell.client() as mallory:
        for number in range(9):
            mallory.send_to(f"uuid-{number}", "connected")
        assert mallory.close_code() == 4008


def test_compression_is_declined(shell: Shell) -> None:
    with Peer(shell.port, extensions="permessage-deflate") as peer:
        assert peer.status == 101
        assert "sec-websocket-extensions" not in peer.headers


@pytest.mark.parametrize("fields", UNREADABLE.values(), ids=UNREADABLE)
def test_a_handshake_that_cannot_be_read_is_refused_at_once(
    shell: Shell, fields: bytes, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["running_shell"] == "uvicorn":
        pytest.skip("plain uvicorn never answers: service.fast.front does")
    with socket.create_connection(("127.0.0.1", shell.port), timeout=60) as client:
        client.sendall(HANDSHAKE + fields + b"\r\n")
        with client.makefile("rb") as reader:
            answer = reader.read()
    assert answer.startswith(b"HTTP/1.1 4") or answer == b""  # the library alone ends some without a word


def test_health_tells_how_many_connections_are_open(shell: Shell) -> None:
    with shell.client(), shell.client():
        health = shell.get("/health")
    assert health.status == 200
    assert health.headers["content-type"] == "application/json"
    assert health.body == b'{"status": "healthy", "connections": 2}'


def test_anything_else_by_plain_http_is_not_found(shell: Shell) -> None:
    for path in ("/", "/healthy", "/health/", "/?path=/health", "/%00", "/index.html"):
        response = shell.get(path)
        assert (response.status, response.body) == (404, b"WebSocket endpoint only")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_health_is_found_with_a_query(shell: Shell) -> None:
    assert shell.get("/health?verbose").status == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [("http://x/health", 200), ("http://x/health?y", 200), ("/%68ealth", 200), ("//x/health", 404)],
)
def test_health_is_found_however_its_path_is_spelt(shell: Shell, target: str, status: int) -> None:
    connection = HTTPConnection("127.0.0.1", shell.port, timeout=DEADLINE_S)
    with contextlib.closing(connection):
        connection.request("GET", target)
        assert connection.getresponse().status == status


def test_head_is_answered_like_get_without_the_body(shell: Shell, request: pytest.FixtureRequest) -> None:
    if "[standalone]" in request.node.name and sys.version_info < (3, 11):
        pytest.skip("websockets 16 reads GET only")
    response = shell.get("/health", method="HEAD")
    assert (response.status, response.body) == (200, b"")
    assert response.headers["content-length"] == str(len(shell.get("/health").body))


def test_the_server_does_not_tell_what_it_is_made_of(shell: Shell, request: pytest.FixtureRequest) -> None:
    if "[uvicorn]" in request.node.name:
        pytest.skip("plain uvicorn tells, unless it is started with --no-server-header")
    with Peer(shell.port) as peer:
        assert "server" not in peer.headers
    assert "server" not in shell.get("/health").headers


def test_a_client_that_closes_is_forgotten(shell: Shell) -> None:
    with shell.client() as alice:
        alice.register("alice")
    wait_until(lambda: shell.connections() == 0)


def test_a_client_that_resets_its_connection_is_forgotten(shell: Shell) -> None:
    with shell.client() as alice:
        alice.register("alice")
        alice.reset()
    wait_until(lambda: shell.connections() == 0)


def test_a_client_that_is_killed_is_forgotten(shell: Shell) -> None:
    connect = (
        f"from tests.service.shells import Peer; peer = Peer({shell.port}); print(peer.status, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", connect],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"101\n"
        assert shell.connections() == 1
        client.kill()
    wait_until(lambda: shell.connections() == 0)


@pytest.mark.slow
def test_a_silent_client_is_pinged_closed_with_1011_and_forgotten(shell: Shell) -> None:
    begin = time.monotonic()  # before it can be connected, so that no time is missed
    with Peer(shell.port) as peer:
        peer.wait_for(PING)
        pinged = time.monotonic() - begin
        code = peer.close_code()
        closed = time.monotonic() - begin
    assert code == 1011
    assert 0.9 < pinged < 20  # by default it is a minute
    assert 1.9 < closed < 40
    wait_until(lambda: shell.connections() == 0)


@pytest.mark.slow
def test_a_client_that_answers_pings_stays(shell: Shell) -> None:
    with shell.client() as client:
        end = time.monotonic() + 2.5
        wait_until(lambda: time.monotonic() > end)
        client.hears_nothing_but_itself()


def test_one_client_too_many_is_refused_until_another_leaves(command: str) -> None:
    with running(command, WEBSOCKET_MAX_CONNECTIONS="1") as shell:
        with shell.client(), Peer(shell.port) as refused:
            assert refused.status == 503
            assert refused.headers["retry-after"] == "5"
            assert shell.connections() == 1
        wait_until(lambda: shell.connections() == 0)
        with shell.client() as client:
            client.hears_nothing_but_itself()


@pytest.mark.parametrize("stop", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_closes_every_client_with_1012_and_ends_in_time(command: str, stop: signal.Signals) -> None:
    with running(command) as shell, shell.client() as alice, shell.client() as bob:
        begin = time.monotonic()
        shell.process.send_signal(stop)
        assert (alice.close_code(), bob.close_code()) == (1012, 1012)
        status = shell.process.wait(timeout=DEADLINE_S)
        assert time.monotonic() - begin < 8  # less than the drain timeout
        assert status == 0 or command == COMMANDS["uvicorn"]  # which, started plainly, dies of the signal


def test_a_stop_closes_even_clients_that_never_stop_sending_with_1012(command: str) -> None:
    if command == COMMANDS["uvicorn"]:
        pytest.skip("plain uvicorn stops reading at once, and the close frame is often lost")
    with running(command) as shell, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(shell.client()) for _ in range(8)]
        with ThreadPoolExecutor(len(clients)) as threads:
            floods = [threads.submit(flood, client) for client in clients]
            wait_until(lambda: all(client.sent > 20 for client in clients))
            shell.terminate()
            assert [client.close_code() for client in clients] == [1012] * len(clients)
            for sender in floods:
                sender.result(DEADLINE_S)


def flood(client: Client) -> None:
    """Send until the connection ends."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.send_to("nobody", "x" * 20_000)
