"""What one client may do is taken when it is done, whichever way the service was started; what it owes hides no end."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.service.shells import COMMANDS, HANDSHAKE, Client, Shell, reset, running, wait_until
from tests.service.transports import frame

CLOSE, TEXT, PING = 8, 1, 9
MESSAGES_PER_SECOND = 50


@pytest.fixture(scope="module", params=COMMANDS)
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    with running(COMMANDS[request.param], WEBSOCKET_MAX_MESSAGES_PER_SECOND=str(MESSAGES_PER_SECOND)) as shell:
        yield shell


@contextlib.contextmanager
def speaker(shell: Shell, subprotocol: str = "") -> Iterator[socket.socket]:
    """A connection that takes frames as they are, and never reads."""
    with socket.create_connection(("127.0.0.1", shell.port)) as connection:
        connection.sendall(HANDSHAKE + subprotocol.encode() + b"\r\n")
        assert b" 101 " in connection.recv(1000)
        yield connection


V1 = "Sec-WebSocket-Protocol: nc.v1\r\n"


def say(**request: object) -> bytes:
    return frame(TEXT, json.dumps(request).encode())


def test_of_many_messages_to_a_group_in_one_write_a_budget_is_carried_out_and_others_do_not_wait(shell: Shell) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            member = stack.enter_context(speaker(shell, V1))
            member.sendall(say(type="hello", id=1) + say(type="join", id=2, group="g"))
        witness, other = stack.enter_context(shell.client()), stack.enter_context(shell.client())
        mallory = stack.enter_context(speaker(shell, V1))
        to_witness = say(recipient_uuid=witness.temporary_uuid, message="one more")
        # A message to the witness after each to the group: 11 are taken for both.
        mallory.sendall(say(type="hello", id=1) + 300 * (say(group="g", message=0) + to_witness))
        begun = time.monotonic()
        witness.receive()
        other.hears_nothing_but_itself()
        heard = 1
        while heard < 8:
            witness.receive()
            heard += 1
        # Five at once, and one for which it owes; by its limit it may go on only then.
        assert time.monotonic() - begun > (heard - 6 - 1) * 11 / MESSAGES_PER_SECOND


@pytest.mark.parametrize("bulk", [b"x" * 10, b"x" * 10_000], ids=["a_little", "more_than_is_kept"])
@pytest.mark.parametrize("end", ["close_frame", "end_of_stream", "reset"])
def test_a_client_that_owes_and_goes_is_gone_at_once(shell: Shell, end: str, bulk: bytes) -> None:
    is_plain_uvicorn = "--ws-max-size" in str(shell.process.args)
    if len(bulk) > 1000 and (end == "close_frame" or is_plain_uvicorn):
        pytest.skip("a close frame is behind all that was sent before; ASGI shows no end that is")
    wait_until(lambda: shell.connections() == 0)  # those of the test before
    with speaker(shell) as mallory:
        mallory.sendall(MESSAGES_PER_SECOND * 10 * frame(TEXT, bulk[:10]) + 30 * frame(TEXT, bulk))
        if end == "close_frame":
            mallory.sendall(frame(CLOSE, b"\x03\xe8"))
            mallory.settimeout(5.0)
            while b"\x88\x02\x03\xe8" not in mallory.recv(1000):
                pass
            mallory.close()
        elif end == "end_of_stream":
            mallory.close()
        else:
            wait_until(lambda: shell.connections() == 1)
            reset(mallory)
        # It owes ten seconds.
        wait_until(lambda: shell.connections() == 0, 5.0)


def test_what_a_client_had_sent_before_it_closed_arrives_in_order(shell: Shell) -> None:
    with shell.client() as alice:
        with Client(shell.url) as bob:
            for number in range(MESSAGES_PER_SECOND + 30):
                bob.send_to(alice.temporary_uuid, number)
        heard = [json.loads(alice.receive())["message"] for _ in range(MESSAGES_PER_SECOND + 30)]
        assert heard == list(range(MESSAGES_PER_SECOND + 30))


def test_of_a_client_that_keeps_to_its_limits_and_goes_without_a_word_nothing_is_lost() -> None:
    with running(COMMANDS["runner"]) as shell, shell.client() as alice:
        for _ in range(3):
            with speaker(shell) as bob:
                # More frames than are kept.
                bob.sendall(b"".join(say(recipient_uuid=alice.temporary_uuid, message=n) for n in range(900)))
            heard = [json.loads(alice.receive())["message"] for _ in range(900)]
            assert heard == list(range(900))
