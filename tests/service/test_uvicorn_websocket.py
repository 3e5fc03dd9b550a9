"""Connections under uvicorn that are hard to end."""

import asyncio
import json
import time

import pytest
from shells import COMMANDS, TEXT, Peer, Shell, running, wait_until

from service.uvicorn_websocket import LingeringTransport, WebSocketProtocol

EVICTING = [command for name, command in COMMANDS.items() if name != "uvicorn"]

# Bigger than what the kernel buffers for a connection whose client has a small receive buffer.
MEGABYTES = 6
SOON = {"WEBSOCKET_PING_INTERVAL": "1", "WEBSOCKET_PING_TIMEOUT": "1"}
# A queue that takes all of that: 16 of the longest messages.
ROOMY = {"WEBSOCKET_MAX_MESSAGE_SIZE": str(1024 * 1024)}


@pytest.mark.slow
@pytest.mark.parametrize("command", EVICTING)
def test_a_client_that_stops_reading_is_gone_after_the_ping_timeout(command: str) -> None:
    """Little enough waits for it to fit into its queue: only the ping tells that it is stuck."""
    with (
        running(command, **SOON, **ROOMY) as shell,
        Peer(shell.port, receive_buffer=4096) as stuck,
        shell.client() as alice,
    ):
        fill(shell, stuck, MEGABYTES)
        wait_until(lambda: shell.connections() == 1, deadline_s=4)
        alice.hears_nothing_but_itself()


@pytest.mark.slow
@pytest.mark.parametrize("command", EVICTING)
def test_a_client_for_whom_too_much_waits_is_gone_long_before_the_ping_timeout(command: str) -> None:
    with running(command) as shell, shell.client() as alice:
        before = shell.descriptors()
        with Peer(shell.port, receive_buffer=4096) as stuck:
            fill(shell, stuck, 3 * MEGABYTES)
            wait_until(lambda: shell.connections() == 1, deadline_s=10)
            wait_until(lambda: shell.descriptors() <= before, deadline_s=5)
        alice.hears_nothing_but_itself()


@pytest.mark.slow
@pytest.mark.parametrize("command", EVICTING)
def test_a_client_that_reads_again_in_time_stays(command: str) -> None:
    with running(command, **SOON, **ROOMY) as shell, shell.client() as alice, shell.client() as bob:
        for number in range(100):
            bob.send_to(alice.temporary_uuid, f"{number} {'x' * 60_000}")
        bob.hears_nothing_but_itself()
        assert [int(json.loads(alice.receive())["message"].split()[0]) for _ in range(100)] == list(range(100))
        later = time.monotonic() + 2.5
        wait_until(lambda: time.monotonic() > later)
        alice.hears_nothing_but_itself()


@pytest.mark.slow
@pytest.mark.parametrize("command", EVICTING)
def test_a_client_that_does_not_read_cannot_hold_up_the_stop(command: str) -> None:
    hasty = {"WEBSOCKET_DRAIN_TIMEOUT": "1"}
    with running(command, **hasty, **ROOMY) as shell, Peer(shell.port, receive_buffer=4096) as stuck:
        fill(shell, stuck, MEGABYTES)
        shell.terminate()
        assert shell.process.wait(3) == 0


def fill(shell: Shell, stuck: Peer, megabytes: int) -> None:
    """Send so much to a client that does not read."""
    uuid = stuck.wait_for(TEXT).decode().split()[-1]
    with shell.client() as sender:
        text = json.dumps({"recipient_uuid": uuid, "message": "x" * 60_000})
        for _ in range(megabytes * 1024 * 1024 // len(text)):
            sender.send(text)
        sender.hears_nothing_but_itself()


class FakeTransport(asyncio.Transport):
    """Notes what is done to it."""

    def __init__(self, half_closes: bool) -> None:
        super().__init__()
        self.half_closes = half_closes
        self.done: list[object] = []
        self.aborted = asyncio.Event()

    def can_write_eof(self) -> bool:
        return self.half_closes

    def is_closing(self) -> bool:
        return "close" in self.done

    def write(self, data: object) -> None:
        self.done.append(data)

    def write_eof(self) -> None:
        self.done.append("write_eof")

    def close(self) -> None:
        self.done.append("close")

    def abort(self) -> None:
        self.done.append("abort")
        self.aborted.set()

    def pause_reading(self) -> None:
        self.done.append("pause_reading")

    def resume_reading(self) -> None:
        self.done.append("resume_reading")


def close(half_closes: bool, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What a transport goes through when it is closed, and used as if it were not."""
    monkeypatch.setattr("service.uvicorn_websocket.CLOSE_GRACE_S", 0.01)
    transport = FakeTransport(half_closes)

    async def play() -> None:
        lingering = LingeringTransport(transport)
        lingering.write(b"last words")
        lingering.close()
        assert lingering.is_closing()
        lingering.write(b"too late")
        lingering.pause_reading()
        lingering.close()
        await asyncio.wait_for(transport.aborted.wait(), 5)

    asyncio.run(play())
    return transport.done


def test_what_a_client_sends_after_the_close_is_not_even_parsed() -> None:
    connection = WebSocketProtocol.__new__(WebSocketProtocol)  # it has no parser
    connection.transport = FakeTransport(half_closes=False)
    connection.transport.close()
    connection.data_received(b"too late")


def test_a_closed_transport_says_that_nothing_follows_and_reads_on_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    assert close(True, monkeypatch) == [b"last words", "write_eof", "resume_reading", "abort"]


def test_a_transport_that_cannot_be_half_closed_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert close(False, monkeypatch) == [b"last words", "close", "abort"]
