"""What becomes of a connection's first request, and of those after it."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import time
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.app import create_app
from service.fast.front import MAX_PIPELINED, Front, Reception
from service.fast.handshake import MAX_HEAD_BYTES
from service.settings import Limits, Settings
from tests.service.centers import identity
from tests.service.shells import COMMANDS, DEADLINE_S, HANDSHAKE, Peer, Shell, running, wait_until
from tests.service.transports import (
    PEER,
    FakeTransport,
    frame,
    frames_in,
    in_a_loop,
    until,
    waits_for_nobody_who_has_the_last_answer,
)

PLAIN = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
H2C = PLAIN[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
CHUNKED = b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
OURS = [COMMANDS["runner"], COMMANDS["gunicorn"]]


class House:
    """A reception, and what uvicorn gives it. To be made in a loop."""

    def __init__(self, believed: str = "127.0.0.1", **settings: Any) -> None:
        self.app = create_app(Settings(**settings))
        self.config = uvicorn.Config(self.app, log_config=None, forwarded_allow_ips=believed)
        self.config.load()
        self.state = ServerState()
        self.reception = Reception()

    @property
    def connections(self) -> set[Any]:
        return set(self.state.connections)

    def knock(self, peer: object = PEER) -> FakeTransport:
        """A connection that has been accepted."""
        transport = FakeTransport(peer)
        front = self.reception(self.config, self.state, {})
        transport.set_protocol(front)
        front.connection_made(transport)
        return transport

    def addresses(self) -> dict[str, int]:
        """Connections by client address."""
        return self.app.center.connections_of


def status(transport: FakeTransport) -> int:
    return int(b"".join(transport.writes).split()[1])


@in_a_loop
async def test_a_handshake_makes_a_websocket() -> None:
    house = House()
    transport = house.knock()
    assert house.connections == {transport.protocol}
    transport.deliver(HANDSHAKE + b"\r\n")
    assert status(transport) == 101
    assert [payload[:8] for _, payload in transport.frames()] == [b"Welcome!"]
    assert house.app.center.connections == len(house.connections) == 1
    assert not any(isinstance(connection, Front) for connection in house.connections)


@in_a_loop
async def test_a_handshake_may_come_byte_by_byte_and_with_what_follows() -> None:
    transport = House().knock()
    for byte in HANDSHAKE:
        transport.deliver(bytes([byte]))
    transport.deliver(b"\r\n" + frame(9, b"early"))
    await asyncio.sleep(0)
    assert (10, b"early") in transport.frames()


@in_a_loop
async def test_an_empty_line_before_a_handshake_is_ignored_however_it_comes() -> None:
    for pieces in (
        [b"\r\n" + HANDSHAKE + b"\r\n"],
        [b"\r", b"\n", HANDSHAKE, b"\r\n"],
        [b"\r\n\r\n", HANDSHAKE + b"\r\n"],
    ):
        transport = House().knock()
        for piece in pieces:
            transport.deliver(piece)
        assert status(transport) == 101


@in_a_loop
async def test_all_else_is_uvicorns_with_every_byte_of_it() -> None:
    house = House()
    transport = house.knock()
    transport.deliver(PLAIN[:10])
    transport.deliver(PLAIN[10:])
    await until(lambda: transport.writes)
    assert status(transport) == 200
    transport.deliver(PLAIN * 2)
    await until(lambda: b"".join(transport.writes).count(b"HTTP/1.1 200") == 3)
    assert house.connections == {transport.protocol}
    transport.protocol.connection_lost(None)
    assert house.connections == set()


@in_a_loop
async def test_a_handshake_after_other_requests_makes_a_websocket() -> None:
    house = House()
    transport = house.knock()
    transport.deliver(PLAIN)
    await asyncio.sleep(0.01)
    transport.writes.clear()
    transport.deliver(HANDSHAKE + b"\r\n")
    assert status(transport) == 101
    assert house.app.center.connections == len(house.connections) == 1
    transport.deliver(frame(9, b"?"))
    await asyncio.sleep(0)
    assert (10, b"?") in transport.frames()


@in_a_loop
async def test_a_handshake_waits_until_the_requests_before_it_are_answered() -> None:
    house = House()
    transport = house.knock()
    transport.deliver(PLAIN * 3 + HANDSHAKE + b"\r\n" + frame(9, b"early"))
    front, before = transport.protocol, len(transport.done)
    assert transport.done[-1] == "pause_reading"
    await until(lambda: house.app.center.connections)
    heard = b"".join(transport.writes)
    assert re.findall(rb"HTTP/1.1 (\d+) ", heard) == [b"200", b"200", b"200", b"101"]
    assert transport.done[before:] == ["pause_reading", "resume_reading"]  # when it is handed back
    assert front._deadline is front.timeout_keep_alive_task is None
    del transport.writes[: transport.writes.index(next(each for each in transport.writes if b" 101 " in each))]
    await asyncio.sleep(0)
    assert (10, b"early") in transport.frames()
    assert not transport.is_closing()


@in_a_loop
async def test_a_handshake_after_the_last_request_of_a_connection_is_not_read() -> None:
    house = House()
    transport = house.knock()
    transport.deliver(PLAIN[:-2] + b"Connection: close\r\n\r\n" + HANDSHAKE + b"\r\n")
    await until(lambda: "write_eof" in transport.done)
    assert re.findall(rb"HTTP/1.1 (\d+) ", b"".join(transport.writes)) == [b"200"]
    assert transport.done[-1] == "write_eof"
    assert house.app.center.connections == 0


@in_a_loop
async def test_a_handshake_waits_until_the_answers_before_it_are_taken() -> None:
    house = House()
    transport = house.knock()
    transport.buffered = 1  # as after a write that the system does not take
    transport.deliver(PLAIN + HANDSHAKE + b"\r\n" + frame(9, b"early"))
    http = transport.protocol
    await until(lambda: http.cycle.response_complete)
    assert transport.most == 0
    assert house.app.center.connections == 0
    transport.buffered = 0
    http.resume_writing()
    assert house.app.center.connections == 1
    assert transport.most == house.app.center.settings.limits.queue
    await until(lambda: (10, b"early") in [*frames_in(b"".join(transport.writes).rpartition(b"\r\n\r\n")[2])])


@in_a_loop
async def test_a_connection_is_not_kept_for_ever_whose_request_ends_behind_the_answer() -> None:
    transport = House().knock()
    transport.deliver(b"POST /publish/alice HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n")
    await until(lambda: transport.protocol.timeout_keep_alive_task)
    assert status(transport) == 401
    transport.deliver(b"he")
    http = transport.protocol
    assert http.timeout_keep_alive_task is None
    transport.deliver(b"llo")
    assert http.timeout_keep_alive_task is not None
    transport.protocol.timeout_keep_alive_handler()
    assert transport.done[-1] == "close"
    transport.protocol.connection_lost(None)


@in_a_loop
async def test_trailers_are_no_fields_of_the_head() -> None:
    transport = House().knock()
    transport.deliver(CHUNKED.replace(b"POST /elsewhere", b"GET /livez") + b"0\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
    await until(lambda: transport.writes)
    assert status(transport) == 200
    transport.protocol.connection_lost(None)


@pytest.mark.parametrize(("version", "answers"), [(b"1.1", [b"100", b"202"]), (b"1.0", [b"202"])])
@in_a_loop
async def test_who_speaks_http_1_0_is_not_told_to_continue(version: bytes, answers: list[bytes]) -> None:
    house = House()
    house.app.center.verify = lambda token: identity("the-script", "*")
    transport = house.knock()
    transport.deliver(
        b"POST /publish/alice HTTP/%b\r\nHost: x\r\nAuthorization: Bearer K\r\n" % version
        + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    )
    await until(lambda: house.state.tasks)
    await asyncio.sleep(0)
    transport.deliver(b"hi")
    await until(lambda: b" 202 " in b"".join(transport.writes))
    assert re.findall(rb"HTTP/1.1 (\d+) ", b"".join(transport.writes)) == answers
    transport.protocol.connection_lost(None)


@in_a_loop
async def test_who_leaves_is_not_answered_however_many_requests_are_under_way() -> None:
    house = House()
    transport = house.knock()
    transport.deliver(PLAIN * 3)
    transport.protocol.connection_lost(ConnectionResetError())
    await until(lambda: not house.state.tasks)
    assert transport.writes == []  # which raises with uvloop


@in_a_loop
async def test_who_takes_no_last_answer_is_not_waited_for() -> None:
    house = House()
    transport = house.knock()
    transport.deliver(PLAIN)
    http = transport.protocol
    await until(lambda: http.timeout_keep_alive_task)
    transport.buffered = 1
    http.timeout_keep_alive_handler()
    http.timeout_keep_alive_handler()
    assert transport.done[-1] == "write_eof"
    assert house.connections == {http}
    transport.protocol._timer._run()
    assert transport.done[-1] == "abort"
    transport.protocol.connection_lost(None)
    assert house.connections == set()


@in_a_loop
async def test_a_stop_ends_a_connection_at_once_that_waits_for_nothing() -> None:
    transport = House().knock()
    transport.deliver(PLAIN)
    await until(lambda: transport.protocol.timeout_keep_alive_task)
    transport.protocol.shutdown()
    assert transport.done[-1] == "close"
    transport.protocol.connection_lost(None)


@in_a_loop
async def test_a_stop_waits_for_nobody_who_has_the_last_answer() -> None:
    transport = House().knock()
    transport.deliver(PLAIN[:-2] + b"Connection: close\r\n\r\n")
    http = transport.protocol
    await until(lambda: transport.done[-1] == "write_eof")
    waits_for_nobody_who_has_the_last_answer(transport, http.shutdown)


@in_a_loop
async def test_too_many_requests_are_no_refused_handshake_whatever_they_offer() -> None:
    house = House()
    transport = house.knock()
    transport.deliver(H2C * 40)
    await until(lambda: "write_eof" in transport.done)
    assert b"".join(transport.writes).count(b"HTTP/1.1 200 ") == MAX_PIPELINED + 1
    assert house.app.center.hub.tally.refused == {}
    transport.protocol.connection_lost(None)


@pytest.mark.parametrize(
    ("bad", "answers"),
    [
        (HANDSHAKE.replace(b"13", b"12") + b"\r\n", [b"200"]),
        (b"\xff\r\n\r\n", [b"200"]),
        (CHUNKED + b"zz\r\n", [b"200", b"400"]),
    ],
    ids=["handshake", "head", "body"],
)
@in_a_loop
async def test_a_request_is_answered_whatever_is_wrong_with_the_next_one(bad: bytes, answers: list[bytes]) -> None:
    transport = House().knock()
    transport.deliver(PLAIN + bad)
    await until(lambda: "write_eof" in transport.done)
    assert re.findall(rb"HTTP/1.1 (\d+) ", b"".join(transport.writes)) == answers
    assert transport.done[-1] == "write_eof"


@pytest.mark.parametrize(
    ("half", "answers"),
    [(b"GET / HT", [b"200"]), (CHUNKED, [b"200", b"408"])],
    ids=["head", "body"],
)
@in_a_loop
async def test_a_request_is_answered_however_long_the_next_one_takes(half: bytes, answers: list[bytes]) -> None:
    transport = House().knock()
    transport.deliver(PLAIN)
    transport.deliver(half)
    transport.protocol._deadline._run()
    await until(lambda: "write_eof" in transport.done)
    assert re.findall(rb"HTTP/1.1 (\d+) ", b"".join(transport.writes)) == answers
    assert transport.done[-1] == "write_eof"


@in_a_loop
async def test_the_time_for_a_body_begins_anew_when_it_is_the_turn_of_its_request() -> None:
    transport = House().knock()
    transport.deliver(PLAIN + CHUNKED)
    http = transport.protocol
    before = http._deadline
    await until(lambda: b" 200 " in b"".join(transport.writes))
    assert before.cancelled()
    assert http._deadline.when() > before.when()
    http.connection_lost(None)


@in_a_loop
async def test_another_upgrade_is_ignored_without_a_word_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    transport = House().knock()
    transport.deliver(H2C)
    await until(lambda: transport.writes)
    assert status(transport) == 200
    assert caplog.text == ""


@in_a_loop
async def test_a_refusal_says_why_and_that_the_connection_ends() -> None:
    house = House()
    house.state.default_headers = [(b"date", b"today")]
    transport = house.knock()
    transport.deliver(HANDSHAKE.replace(b"13", b"12") + b"\r\n")
    assert b"".join(transport.writes) == (
        b"HTTP/1.1 426 Upgrade Required\r\ndate: today\r\ncontent-type: text/plain; charset=utf-8\r\n"
        b"content-length: 32\r\nsec-websocket-version: 13\r\nconnection: close\r\n\r\nSec-WebSocket-Version must be 13"
    )
    assert transport.done == ["resume_reading", "write_eof"]
    assert len(house.connections) == 1
    transport.protocol.connection_lost(None)
    assert house.connections == set()


@in_a_loop
async def test_one_client_too_many_is_refused() -> None:
    house = House(limits=Limits(connections=1))
    for expected in (101, 503):
        transport = house.knock()
        transport.deliver(HANDSHAKE + b"\r\n")
        assert status(transport) == expected


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nX: ", b""])
@in_a_loop
async def test_a_head_that_is_too_long_is_refused_with_431_before_it_ends(start: bytes) -> None:
    transport = House().knock()
    transport.deliver(start + b"y" * MAX_HEAD_BYTES)
    transport.deliver(b"y")
    assert status(transport) == 431


@in_a_loop
async def test_a_head_that_is_too_long_and_complete_is_refused_with_431() -> None:
    transport = House().knock()
    transport.deliver(b"GET / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD_BYTES + b"\r\n\r\n")
    assert status(transport) == 431


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET / HTTP/1.1\r\n", b"X: y\r\n" * 100),
        (b"GET / HTTP/1.1\r\nX: ", b"y" * 500),
        (b"GET /", b"y" * 500),
        (CHUNKED + b"0\r\n", b"X: y\r\n" * 100),
        (CHUNKED + b"1;", b"y" * 500),
    ],
    ids=["fields", "a_field", "a_path", "trailers", "an_extension"],
)
@in_a_loop
async def test_a_later_request_may_not_be_endless_either(begin: bytes, piece: bytes) -> None:
    transport = House().knock()
    transport.deliver(PLAIN)
    transport.deliver(begin)
    await asyncio.sleep(0.01)
    transport.writes.clear()
    sent = 0
    while "write_eof" not in transport.done:
        transport.deliver(piece)
        sent += len(piece)
        assert sent < MAX_HEAD_BYTES + 2000
    assert b"HTTP/1.1 431 " in b"".join(transport.writes)
    transport.protocol.connection_lost(None)


@in_a_loop
async def test_a_few_requests_may_come_before_the_first_is_answered() -> None:
    transport = House().knock()
    transport.deliver(PLAIN * MAX_PIPELINED)
    assert not transport.is_closing()
    for _ in range(10 * MAX_PIPELINED):
        await asyncio.sleep(0)
    assert b"".join(transport.writes).count(b"HTTP/1.1 200 ") == MAX_PIPELINED
    transport.protocol.connection_lost(None)


@in_a_loop
async def test_who_asks_without_end_and_waits_for_no_answer_is_cut_off() -> None:
    house = House()
    transport = house.knock()
    transport.deliver(PLAIN)
    transport.deliver(PLAIN * 1000)
    assert len(transport.protocol.pipeline) == MAX_PIPELINED
    transport.deliver(PLAIN * 1000)
    for _ in range(20 * MAX_PIPELINED):
        await asyncio.sleep(0)
    assert b"".join(transport.writes).count(b"HTTP/1.1 200 ") == MAX_PIPELINED + 1
    assert transport.done[-1] == "write_eof"
    assert house.app.center.hub.tally.refused == {}  # no handshake, and no sign of too many connections
    transport.protocol.connection_lost(None)


@in_a_loop
async def test_who_reads_no_answer_is_cut_off_in_the_end() -> None:
    transport = House(limits=Limits(header_timeout=1)).knock()
    transport.deliver(PLAIN)
    transport.protocol.pause_writing()
    transport.protocol.resume_writing()
    transport.protocol.pause_writing()
    timer = transport.protocol._patience
    assert 0 < timer.when() - asyncio.get_running_loop().time() <= 1
    assert not transport.is_closing()
    timer._run()
    assert transport.is_closing()
    transport.protocol.connection_lost(None)


@in_a_loop
async def test_a_body_may_be_longer_than_a_head() -> None:
    transport = House().knock()
    transport.deliver(PLAIN)
    transport.deliver(b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n")
    for _ in range(60):
        transport.deliver(b"x" * 1000)
    assert not transport.is_closing()
    transport.protocol.connection_lost(None)


@in_a_loop
async def test_uvicorn_stopping_ends_a_request_that_has_not_come() -> None:
    transport = House().knock()
    transport.protocol.shutdown()
    assert transport.done == ["abort"]


@in_a_loop
async def test_a_client_that_leaves_before_it_asks_is_forgotten() -> None:
    house = House()
    house.knock().protocol.connection_lost(None)
    assert house.connections == set()


# Where a client comes from


@pytest.mark.parametrize(
    ("believed", "peer", "forwarded", "address"),
    [
        ("127.0.0.1", ("127.0.0.1", 1), ["198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ("127.0.0.1", 1), ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ("127.0.0.1", 1), ["198.51.100.7", "6.6.6.6 ,\t198.51.100.8"], "198.51.100.8"),
        ("127.0.0.1", ("127.0.0.1", 1), [], None),
        ("127.0.0.1", PEER, ["198.51.100.7"], PEER[0]),
        ("127.0.0.1", PEER, [], PEER[0]),
        # A Unix socket, whoever is believed on TCP; there only a peer that has gone has no address.
        ("127.0.0.1", "", ["198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", "", ["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", "", [], None),
        ("127.0.0.1", None, ["198.51.100.7"], None),
        ("*", PEER, ["198.51.100.7"], "198.51.100.7"),
    ],
)
@in_a_loop
async def test_an_address_is_the_peers_or_what_the_last_believed_proxy_says(
    believed: str, peer: object, forwarded: list[str], address: str | None
) -> None:
    house = House(believed)
    fields = "".join(f"X-Forwarded-For: {value}\r\n" for value in forwarded)
    house.knock(peer).deliver(HANDSHAKE + fields.encode() + b"\r\n")
    assert house.app.center.connections == 1
    assert house.addresses() == ({} if address is None else {address: 1})


# Time


@pytest.fixture
def quick() -> dict[str, str]:
    return {"WEBSOCKET_HEADER_TIMEOUT": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("command", OURS)
@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"HTTP/1.1 408 "),
        (HANDSHAKE, b"HTTP/1.1 408 "),
        (b"POST /elsewhere HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n", b"HTTP/1.1 404 "),
        (PLAIN + b"GET / HT", b"HTTP/1.1 200 "),
    ],
    ids=["nothing", "half_a_request", "half_a_handshake", "no_body", "half_a_second_request"],
)
def test_who_never_finishes_a_request_is_closed(
    command: str, said: bytes, answer: bytes, quick: dict[str, str]
) -> None:
    with running(command, **quick) as shell:
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", shell.port), timeout=DEADLINE_S) as client:
            client.sendall(said)
            heard = read_to_the_end(client)
        assert heard.startswith(answer)
        assert bool(heard) == bool(answer)
        assert time.monotonic() - begin > 0.8


@pytest.mark.slow
def test_a_byte_now_and_then_does_not_make_the_time_longer(quick: dict[str, str]) -> None:
    with running(COMMANDS["runner"], **quick) as shell:
        begin = time.monotonic()
        with socket.create_connection(("127.0.0.1", shell.port), timeout=DEADLINE_S) as client:
            client.sendall(PLAIN + b"GET / HTTP/1.1\r\nX: ")
            with contextlib.suppress(ConnectionError):
                while time.monotonic() - begin < DEADLINE_S:
                    client.sendall(b"y")
                    time.sleep(0.2)
        assert time.monotonic() - begin < DEADLINE_S


@pytest.mark.slow
def test_a_websocket_is_not_closed_by_the_deadline_of_its_handshake(quick: dict[str, str]) -> None:
    with running(COMMANDS["runner"], **quick) as shell, shell.client() as client:
        later = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > later)
        client.hears_nothing_but_itself()


def test_a_refusal_arrives_though_the_client_is_still_sending() -> None:
    with running(COMMANDS["runner"]) as shell:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", shell.port), timeout=DEADLINE_S) as client:
                client.sendall(HANDSHAKE + b"Content-Length: 200000\r\n\r\n" + b"x" * 200_000)
                assert read_to_the_end(client).startswith(b"HTTP/1.1 400 ")


def test_an_answer_arrives_that_ends_the_connection_though_the_client_is_still_sending() -> None:
    length = 5_000_000
    with running(COMMANDS["runner"]) as shell:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", shell.port), timeout=DEADLINE_S) as client:
                client.sendall(PLAIN[:-2] + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % length + bytes(length))
                assert read_to_the_end(client).startswith(b"HTTP/1.1 200 ")


def read_to_the_end(client: socket.socket) -> bytes:
    heard = b""
    with contextlib.suppress(ConnectionResetError):
        while data := client.recv(65_536):
            heard += data
    return heard


# Both kinds of servers


@pytest.mark.parametrize("command", OURS)
def test_only_the_subprotocol_is_sent_back_and_never_a_token(command: str) -> None:
    with running(command) as shell, socket.create_connection(("127.0.0.1", shell.port), timeout=DEADLINE_S) as client:
        client.sendall(HANDSHAKE + b"Sec-WebSocket-Protocol: bearer.SECRET, nc.v1\r\n\r\n")
        answer = client.recv(4096)
    assert b"\r\nSec-WebSocket-Protocol: nc.v1\r\n" in answer
    assert b"SECRET" not in answer


def test_many_long_messages_to_one_that_does_not_read_cost_no_more_than_its_queue() -> None:
    unlimited = {"WEBSOCKET_MAX_MESSAGE_SIZE": "200000", "WEBSOCKET_MAX_BYTES_PER_SECOND": str(2**30)}
    with running(COMMANDS["runner"], **unlimited) as shell, shell.client() as sender:
        with Peer(shell.port, receive_buffer=4096) as stuck:
            uuid = stuck.wait_for(1).decode().split()[-1]
            before = resident_kib(shell)
            text = json.dumps({"recipient_uuid": uuid, "message": "x" * 100_000})
            for _ in range(2000):
                sender.send(text)
            sender.hears_nothing_but_itself()
            assert resident_kib(shell) - before < 8 * 1024
        sender.hears_nothing_but_itself()


def test_a_flood_of_pings_that_reads_no_pong_costs_no_more_than_its_queue() -> None:
    hasty = {"WEBSOCKET_MAX_MESSAGES_PER_SECOND": "1000000"}
    with running(COMMANDS["runner"], **hasty) as shell, Peer(shell.port, receive_buffer=4096) as mallory:
        before = resident_kib(shell)
        pings = frame(9, b"x" * 125) * 500
        with contextlib.suppress(ConnectionError, TimeoutError):
            mallory._socket.settimeout(2)
            for _ in range(300):
                mallory._socket.sendall(pings)
        assert resident_kib(shell) - before < 8 * 1024
        wait_until(lambda: shell.connections() == 0)


def resident_kib(shell: Shell) -> int:
    with open(f"/proc/{shell.process.pid}/status") as status_file:
        (line,) = [line for line in status_file if line.startswith("VmRSS")]
    return int(line.split()[1])


def test_a_stop_ends_connections_that_have_not_asked_for_anything() -> None:
    with running(COMMANDS["runner"]) as shell, socket.create_connection(("127.0.0.1", shell.port)):
        shell.process.send_signal(signal.SIGTERM)
        assert shell.process.wait(DEADLINE_S) == 0
