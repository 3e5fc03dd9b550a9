"""What nobody can do, whichever way the service was started: the rows of docs/security.md that no other test shows."""

import contextlib
import json
import resource
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from service.mint import add_key, mint
from tests.service.shells import (
    BINARY,
    COMMANDS,
    CONTINUATION,
    DEADLINE_S,
    HANDSHAKE,
    TEXT,
    Peer,
    Shell,
    running,
    wait_until,
)
from tests.service.test_conformance import HOSTILE
from tests.service.test_v1_conformance import Caller

GOOD = "https://good.example"
PER_ADDRESS = 3


@pytest.fixture(scope="module", params=COMMANDS)
def running_shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    variables = {
        "WEBSOCKET_ORIGINS": GOOD,
        "WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS": str(PER_ADDRESS),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "info",
    }
    with running(COMMANDS[request.param], **variables) as shell:
        yield shell
        assert "Traceback" not in shell.log()


@pytest.fixture
def shell(running_shell: Shell) -> Shell:
    """A service that nobody is connected to."""
    wait_until(lambda: running_shell.connections() == 0)
    return running_shell


@pytest.fixture
def ours(shell: Shell, request: pytest.FixtureRequest) -> Shell:
    """The same where we have a say in how a handshake is read, and in what is logged."""
    if request.node.callspec.params["running_shell"] == "uvicorn":
        pytest.skip("plain uvicorn reads by itself, and never answers some: service.fast.front does")
    return shell


@contextlib.contextmanager
def asked(shell: Shell, head: bytes) -> Iterator[socket.socket]:
    """A connection on which this has been sent."""
    with socket.create_connection(("127.0.0.1", shell.port), timeout=DEADLINE_S) as client:
        client.sendall(head)
        yield client


def status(shell: Shell, *fields: str) -> int:
    """How a handshake with these fields is answered; 0 when it is not."""
    head = HANDSHAKE + "".join(f"{field}\r\n" for field in fields).encode() + b"\r\n"
    with asked(shell, head) as client:
        return answered(client)


def answered(client: socket.socket) -> int:
    """The status of a response; 0 when there is none."""
    with contextlib.suppress(ConnectionResetError, TimeoutError):
        line = client.recv(4096).partition(b"\r\n")[0]
        return int(line.split()[1]) if line else 0
    return 0


# Who comes in


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([f"Origin: {GOOD}"], 101),
        (["Origin: HTTPS://Good.Example"], 101),
        ([], 101),
        (["Origin: https://evil.example"], 403),
        (["Origin: null"], 403),
        (["Origin: https://good.example.evil"], 403),
        (["Origin: https://good.example:444"], 403),
        (["Origin: http://good.example"], 403),
    ],
    ids=["listed", "upper_case", "program", "foreign", "null", "suffix", "port", "scheme"],
)
def test_a_page_of_a_foreign_origin_is_refused_before_the_upgrade(
    shell: Shell, fields: list[str], expected: int
) -> None:
    assert status(shell, *fields) == expected


def test_a_listed_origin_beside_a_foreign_one_counts_for_nothing(ours: Shell) -> None:
    assert status(ours, f"Origin: {GOOD}", "Origin: https://evil.example") in (400, 403)


def test_one_client_address_holds_so_many_connections_whatever_it_says_of_itself(shell: Shell) -> None:
    with contextlib.ExitStack() as stack:
        for number in range(PER_ADDRESS):
            # What stands before the last one the client has written itself.
            fields = f"X-Forwarded-For: 198.51.100.{number}, 192.0.2.7\r\nForwarded: for=198.51.100.{number}\r\n\r\n"
            client = stack.enter_context(asked(shell, HANDSHAKE + fields.encode()))
            assert answered(client) == 101
        assert status(shell, "X-Forwarded-For: 198.51.100.9, 192.0.2.7") == 429
        assert status(shell, "X-Forwarded-For: 192.0.2.8") == 101


def test_it_listens_on_no_other_address_than_it_was_told(shell: Shell) -> None:
    with contextlib.closing(socket.socket()) as client:
        assert client.connect_ex(("127.0.0.2", shell.port)) != 0


SMUGGLED = {
    "two_upgrades": HANDSHAKE + b"Upgrade: websocket\r\n\r\n",
    "http_1_0": HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0") + b"\r\n",
    "a_body": HANDSHAKE + b"Content-Length: 4\r\n\r\nbody",
    "chunks": HANDSHAKE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two_lengths": HANDSHAKE + b"Content-Length: 0\r\nContent-Length: 4\r\n\r\nbody",
    "folded_field": HANDSHAKE + b"X: y\r\n z\r\n\r\n",
    "post": HANDSHAKE.replace(b"GET", b"POST") + b"\r\n",
    "two_keys": HANDSHAKE + b"Sec-WebSocket-Key: BBBBBBBBBBBBBBBBBBBBBB==\r\n\r\n",
    "two_hosts": HANDSHAKE + b"Host: elsewhere\r\n\r\n",
    "h2c": HANDSHAKE.replace(b"Upgrade: websocket", b"Upgrade: h2c") + b"\r\n",
    "line_feeds": HANDSHAKE.replace(b"\r\n", b"\n") + b"\n",
    "space_before_colon": HANDSHAKE + b"X : y\r\n\r\n",
}


@pytest.mark.parametrize("head", SMUGGLED.values(), ids=SMUGGLED)
def test_a_request_that_two_programs_may_read_differently_opens_no_websocket(ours: Shell, head: bytes) -> None:
    with asked(ours, head) as client:
        client.settimeout(1)  # the rest of some is waited for
        assert answered(client) in (0, 400, 404, 405, 426)
    wait_until(lambda: ours.connections() == 0)


def test_two_upgrades_in_a_list_that_proxies_send_are_sound(shell: Shell) -> None:
    with asked(shell, HANDSHAKE.replace(b"Connection: ", b"Connection: keep-alive, ") + b"\r\n") as client:
        assert answered(client) == 101


# What a client sends


def test_a_length_that_was_only_declared_costs_nothing(shell: Shell) -> None:
    with Peer(shell.port) as mallory:
        mallory._socket.sendall(b"\x81\xff" + struct.pack("!Q", 16 * 2**20) + bytes(4) + b"x")
        assert mallory.close_code() == 1009


def test_what_claims_to_be_compressed_is_not_unpacked(shell: Shell) -> None:
    with Peer(shell.port, extensions="permessage-deflate; client_max_window_bits") as mallory:
        assert "sec-websocket-extensions" not in mallory.headers
        mallory.send_frame(0x40 | TEXT, b"\xec\xc1\x01\x0d\x00")
        assert mallory.close_code() == 1002


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE)
def test_whatever_a_client_of_nc_v1_sends_is_answered_and_its_connection_lives(
    shell: Shell, frame: str | bytes
) -> None:
    with Caller(shell, "mallory") as mallory:
        mallory._socket.send(frame)
        assert mallory.ask("ping")["type"] == "pong"
        assert all((heard["type"], heard["code"]) == ("error", 107) for heard in mallory._unread)


def test_a_message_that_never_ends_keeps_nobody_from_going(shell: Shell) -> None:
    with Peer(shell.port) as mallory:
        for opcode in (BINARY, CONTINUATION):
            mallory.send_frame(opcode, b"x" * 1000, fin=False)
    wait_until(lambda: shell.connections() == 0)


def test_one_who_was_replaced_takes_nothing_along(shell: Shell) -> None:
    with Caller(shell, "bob") as bob:
        with Caller(shell, "alice") as old:
            new = Caller(shell, "alice", resume=old.greeting["resume"])
            assert old.close_code() == 4010
        wait_until(lambda: shell.connections() == 2)
        with new:
            assert bob.ask("send", recipient_uuid="alice", message="hello")["online"] == 1
            assert new.hear()["message"] == "hello"


def test_nothing_that_a_client_says_of_itself_writes_into_the_log(ours: Shell) -> None:
    forged = '\\u001b[2J\\n{"level":"critical","message":"forged"}'
    origin = "https://\u2028\x9b2J".encode() + b'"}{"level": "critical", "message": "forged"}'
    with asked(ours, HANDSHAKE + b"Origin: " + origin + b"\r\nUser-Agent: \xff\x1b\x00\r\n\r\n") as client:
        assert answered(client) != 101
    with asked(ours, HANDSHAKE + b"Origin: " + origin + b"\r\n\r\n") as client:
        assert answered(client) != 101
    with ours.client() as mallory:
        mallory.send('{"recipient_uuid": "' + forged.replace('"', '\\"') + '", "message": "connected"}')
        mallory.hears_nothing_but_itself()
    wait_until(lambda: '"closed"' in ours.log())
    lines = [line for line in ours.log().split("\n") if line.startswith("{")]
    assert not any(json.loads(line)["message"] == "forged" for line in lines)
    assert not set(ours.log()) & {chr(code) for code in (*range(10), *range(11, 32), 0x7F, *range(0x80, 0xA0), 0x2028)}


# With tokens


class Guarded(NamedTuple):
    """A running service that asks for tokens, and the file of its keys."""

    shell: Shell
    keys: str

    @contextlib.contextmanager
    def client(self, uuid: str, *may_send_to: str) -> Iterator[ClientConnection]:
        """A client of nc.v1 with a token, after its hello."""
        offered = [Subprotocol("nc.v1")]
        with connect(self.shell.url, proxy=None, compression=None, subprotocols=offered) as client:
            client.recv(timeout=DEADLINE_S)
            assert ask(client, type="hello", id=0, token=mint(self.keys, uuid, 60, may_send_to))["type"] == "ok"
            yield client

    def dropped(self, reason: str) -> float:
        """How many messages went nowhere for this reason."""
        name = f'wsbundle_messages_dropped_total{{reason="{reason}"}} '
        (line,) = [line for line in self.shell.get("/metrics").body.decode().splitlines() if line.startswith(name)]
        return float(line.removeprefix(name))


def ask(client: ClientConnection, **frame: object) -> dict[str, Any]:
    """The answer to a frame."""
    client.send(json.dumps(frame))
    answer: dict[str, Any] = json.loads(client.recv(timeout=DEADLINE_S))
    return answer


@pytest.fixture(scope="module", params=COMMANDS)
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    keys = str(tmp_path_factory.mktemp("keys") / "keys.json")
    add_key(keys, "HS256")
    with running(COMMANDS[request.param], WEBSOCKET_AUTH="token", WEBSOCKET_KEYS=keys) as shell:
        yield Guarded(shell, keys)
        assert "Traceback" not in shell.log()


def test_what_a_token_does_not_allow_is_forbidden_counted_and_not_delivered(guarded: Guarded) -> None:
    before = guarded.dropped("forbidden")
    with guarded.client("alice") as alice, guarded.client("bob", "carol", "group:friends") as bob:
        for request in (
            {"type": "send", "recipient_uuid": "alice", "message": "x"},
            {"type": "send", "group": "others", "message": "x"},
            {"type": "join", "group": "others"},
            {"type": "presence", "uuids": ["alice"]},
        ):
            answer = ask(bob, id=1, **request)
            assert (answer["type"], answer["code"]) == ("error", 103)
        assert ask(alice, type="ping", id=2) == {"type": "pong", "id": 2}
    assert guarded.dropped("forbidden") == before + 4


def test_who_may_not_write_to_an_address_does_not_learn_whether_somebody_has_it(guarded: Guarded) -> None:
    with guarded.client("alice"), guarded.client("bob") as bob:
        for kind in ({"type": "presence", "uuids": ["%s"]}, {"type": "send", "recipient_uuid": "%s", "message": 1}):
            for_known, for_unknown = (
                ask(bob, id=1, **json.loads(json.dumps(kind) % name)) for name in ("alice", "nobody")
            )
            assert for_known == for_unknown


@pytest.mark.parametrize("length", [5_000, 60_000])
def test_a_token_that_is_too_long_opens_nothing(guarded: Guarded, length: int) -> None:
    with connect(guarded.shell.url, proxy=None, subprotocols=[Subprotocol("nc.v1")]) as mallory:
        mallory.recv(timeout=DEADLINE_S)
        answer = ask(mallory, type="hello", id=1, token="x" * length)
        assert (answer["type"], answer["code"]) == ("error", 101)
    assert status(guarded.shell, f"Authorization: Bearer {'x' * 5_000}") == 401


def test_who_shows_no_token_is_gone_in_time(guarded: Guarded) -> None:
    with connect(guarded.shell.url, proxy=None, subprotocols=[Subprotocol("nc.v1")]) as mallory:
        mallory.recv(timeout=DEADLINE_S)
        mallory.send('{"type": "hello", "id": 1}')
        with pytest.raises(ConnectionClosed):
            mallory.recv(timeout=DEADLINE_S)
        assert mallory.close_code == 4001


# Who is slow


@pytest.mark.slow
@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", HANDSHAKE], ids=["nothing", "half", "no_end"])
@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "uvicorn"])
def test_a_handshake_that_does_not_come_is_not_waited_for(command: str, said: bytes) -> None:
    # Not plain uvicorn, which waits for ever: service.fast.front does not.
    with running(COMMANDS[command], WEBSOCKET_HEADER_TIMEOUT="1") as shell:
        begin = time.monotonic()
        with asked(shell, said) as client:
            answered(client)
        assert 0.5 < time.monotonic() - begin < 8  # by default it is 10 s


# When nothing is left


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_flood_that_takes_all_descriptors_leaves_a_service_that_goes_on_and_a_short_log(command: str) -> None:
    with running(COMMANDS[command], WEBSOCKET_HEADER_TIMEOUT="1", WORKERS="1") as shell:
        assert shell.get("/livez").status == 200  # gunicorn listens before its worker is there
        pids = [shell.process.pid, *map(int, children(shell.process.pid))]
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (descriptors(pid) + 20, 1000))
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                stack.enter_context(socket.create_connection(("127.0.0.1", shell.port), timeout=DEADLINE_S))
            wait_until(
                lambda: any(descriptors(pid) >= resource.prlimit(pid, resource.RLIMIT_NOFILE)[0] for pid in pids)
            )
            later = time.monotonic() + 1.2
            wait_until(lambda: time.monotonic() > later)
        wait_until(lambda: is_served(shell))  # libuv ends what it has no descriptor for
        assert len(shell.log()) < 10_000


def is_served(shell: Shell) -> bool:
    with contextlib.suppress(OSError, WebSocketException), shell.client() as client:
        client.hears_nothing_but_itself()
        return True
    return False


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# At rest


def test_the_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    add_key(str(tmp_path / "keys.json"), "HS256")
    assert (tmp_path / "keys.json").stat().st_mode & 0o077 == 0
