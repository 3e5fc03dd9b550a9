"""Clients that do not read, and are hard to end."""

import json
import time

import pytest

from tests.service.shells import COMMANDS, DEADLINE_S, TEXT, Peer, Shell, running, wait_until

EVICTING = [command for name, command in COMMANDS.items() if name != "uvicorn"]

# Bigger than what the kernel buffers for a connection whose client has a small receive buffer.
MEGABYTES = 6
SOON = {"WEBSOCKET_PING_INTERVAL": "1", "WEBSOCKET_PING_TIMEOUT": "1"}
# A queue that takes all of that.
ROOMY = {"WEBSOCKET_MAX_QUEUE": str(16 * 1024 * 1024)}


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
        wait_until(lambda: shell.connections() == 1, deadline_s=20)
        alice.hears_nothing_but_itself()
        assert b'wsbundle_connections_closed_total{code="1011"} 1.0\n' in shell.get("/metrics").body


@pytest.mark.slow
@pytest.mark.parametrize("command", EVICTING)
def test_a_client_for_whom_too_much_waits_is_gone_long_before_the_ping_timeout(command: str) -> None:
    with running(command) as shell, shell.client() as alice:
        before = shell.descriptors() + 1  # service.process.hangups makes its poller when it first needs one
        with Peer(shell.port, receive_buffer=4096) as stuck:
            fill(shell, stuck, 3 * MEGABYTES)
            wait_until(lambda: shell.connections() == 1, deadline_s=40)
            wait_until(lambda: shell.descriptors() <= before, deadline_s=20)
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
        assert shell.process.wait(DEADLINE_S) == 0


def fill(shell: Shell, stuck: Peer, megabytes: int) -> None:
    """Send so much to a client that does not read."""
    uuid = stuck.wait_for(TEXT).decode().split()[-1]
    with shell.client() as sender:
        text = json.dumps({"recipient_uuid": uuid, "message": "x" * 60_000})
        for _ in range(megabytes * 1024 * 1024 // len(text)):
            sender.send(text)
        sender.hears_nothing_but_itself()
