"""Crowds, churn and a stuck reader on a real server: `make soak ARGS="[idle] [churn] [stuck] [--quick]"`."""

import argparse
import json
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.service.shells import COMMANDS, Peer, Shell, running, wait_until
from tests.soak.crowd import Crowd, CrowdError, die_one_by_one

SERVER = "-m tests.soak.soak_server"
ADMIT_ALL = {
    "WORKERS": "1",
    "WEBSOCKET_MAX_CONNECTIONS": "50000",
    "WEBSOCKET_MAX_BYTES_PER_SECOND": str(2**30),
    "WEBSOCKET_MAX_MESSAGE_SIZE": "200000",
}
PING_INTERVAL_S = 5

MOST_KIB_PER_CONNECTION = 12.0
# What a stuck reader may cost: its queue, what the kernel has of the sender's, and room to breathe.
MOST_STUCK_KIB = 8 * 1024
# From the middle of a churn to its end nothing may grow; allocators keep a little.
MOST_CHURN_KIB = 1024
MOST_CHURN_OBJECTS = 200


class Plan(NamedTuple):
    """How much of everything."""

    idle: int
    rest_s: float
    warm_up: int
    mortals: int
    batches: int


FULL = Plan(idle=10_000, rest_s=60, warm_up=500, mortals=3000, batches=10)
QUICK = Plan(idle=5000, rest_s=12, warm_up=500, mortals=800, batches=6)


class SoakError(AssertionError):
    """A bound was passed; the message says by how much."""


def expect(holds: bool, what: str) -> None:
    """Say what has been found; it must hold."""
    if not holds:
        raise SoakError(what)
    print(f"  {what}", flush=True)


def resident_kib(shell: Shell) -> int:
    """The resident memory of a server of one process."""
    status = Path(f"/proc/{shell.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])


def kept(shell: Shell) -> dict[str, int]:
    """What `soak_server` says."""
    before = shell.log().count('"remembered"')
    shell.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: shell.connections() >= 0 and shell.log().count('"remembered"') > before)
    found: dict[str, int] = json.loads([line for line in shell.log().splitlines() if '"remembered"' in line][-1])
    return found


def accepted(shell: Shell) -> int:
    """How many handshakes it has accepted."""
    metrics = shell.get("/metrics").body.decode()
    counted = re.findall(r"^wsbundle_connections_accepted_total\{.*\} (\S+)$", metrics, re.MULTILINE)
    return int(sum(map(float, counted)))


@contextmanager
def serving(command: str, **variables: str) -> Iterator[Shell]:
    """A server that lets everybody in."""
    with running(command, **ADMIT_ALL, **variables) as shell:
        yield shell
        if "Traceback" in shell.log():
            raise SoakError(shell.log()[-2000:])


def idle(plan: Plan) -> None:
    """Registered clients that do nothing but answer pings: none is lost, and each costs little memory."""
    with serving(SERVER, WEBSOCKET_PING_INTERVAL=str(PING_INTERVAL_S), WEBSOCKET_PING_TIMEOUT="10") as shell:
        with Crowd(shell.port) as crowd:
            _stay(shell, crowd, plan)
        wait_until(lambda: shell.connections() == 0)
        remembered = kept(shell)["remembered"]
        expect(remembered == 0, f"{remembered} things are remembered of those who have left")


def _stay(shell: Shell, crowd: Crowd, plan: Plan) -> None:
    crowd.grow(plan.warm_up)
    before = resident_kib(shell)
    crowd.grow(plan.warm_up + plan.idle)
    crowd.rest(1)
    each = (resident_kib(shell) - before) / plan.idle
    expect(each <= MOST_KIB_PER_CONNECTION, f"{plan.idle} connections: {each:.1f} KiB each")
    pings = dict(crowd.pings)
    crowd.rest(plan.rest_s)
    fewest = min(crowd.pings[number] - pings[number] for number in pings)
    least = int(plan.rest_s / (PING_INTERVAL_S * 1.5))
    expect(fewest >= least, f"each was pinged {fewest} times or more in {plan.rest_s:.0f} s, and answered")
    expect(shell.connections() == len(pings), "all are still connected")
    each = (resident_kib(shell) - before) / plan.idle
    expect(each <= MOST_KIB_PER_CONNECTION, f"{each:.1f} KiB each at the end")
    _reach(shell, crowd, range(0, len(pings), 100))


def _reach(shell: Shell, crowd: Crowd, numbers: Sequence[int]) -> None:
    with shell.client() as sender:
        for number in numbers:
            sender.send_to(f"idle-{number}", number)
        sender.hears_nothing_but_itself()
    crowd.rest(1)
    reached = sum(len(crowd.heard.get(number, ())) == 1 for number in numbers)
    expect(reached == len(numbers), f"{reached} of {len(numbers)} are reached under their address")


def churn(plan: Plan) -> None:
    """Clients that come, register, send and die at any byte: nothing grows."""
    with serving(SERVER, WEBSOCKET_HEADER_TIMEOUT="2", WEBSOCKET_HELLO_TIMEOUT="2") as shell:
        memory, objects = [], []
        for batch in range(plan.batches):
            first = batch * plan.mortals
            for _ in die_one_by_one(shell.port, range(first, first + plan.mortals), seed=batch):
                pass
            wait_until(lambda: shell.connections() == 0)
            _let_deadlines_pass()
            state = kept(shell)
            if state["remembered"]:
                raise SoakError(f"{state['remembered']} things are remembered of those who have left")
            memory.append(resident_kib(shell))
            objects.append(state["objects"])
        lived, all_of_them = accepted(shell), plan.mortals * plan.batches
        expect(all_of_them // 2 < lived < all_of_them, f"{lived} of {all_of_them} got in before they died")
        middle = plan.batches // 2
        died = plan.mortals * (plan.batches - middle)
        grown, more = memory[-1] - memory[middle - 1], objects[-1] - objects[middle - 1]
        expect(grown <= MOST_CHURN_KIB, f"{died} more clients have died: {grown} KiB more, of {memory}")
        expect(more <= MOST_CHURN_OBJECTS, f"{more} objects more, of {objects}")


def _let_deadlines_pass() -> None:
    time.sleep(3.5)  # of handshakes that never came, and of farewells


def stuck(plan: Plan) -> None:
    """2,000 messages of 100 kB to a client that reads none of them cost no more than its queue."""
    for name in ("runner", "standalone"):
        with serving(COMMANDS[name]) as shell, shell.client() as sender:
            with Peer(shell.port, receive_buffer=4096) as reader:
                uuid = reader.wait_for(1).decode().split()[-1]
                before = most = resident_kib(shell)
                for number in range(2000):
                    sender.send_to(uuid, "x" * 100_000)
                    if number % 50 == 0:
                        most = max(most, resident_kib(shell))
                sender.hears_nothing_but_itself()
                most = max(most, resident_kib(shell)) - before
                expect(most <= MOST_STUCK_KIB, f"{name}: {most} KiB more at most")
            wait_until(lambda: shell.connections() == 1)


PARTS: dict[str, Callable[[Plan], None]] = {"idle": idle, "churn": churn, "stuck": stuck}


def main(arguments: list[str]) -> int:
    """Run the parts; 1 when a bound is passed."""
    options = _parser().parse_args(arguments)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plan = QUICK if options.quick else FULL
    failed = False
    for name in options.parts or PARTS:
        print(f"{name}: {' '.join((PARTS[name].__doc__ or '').split())}", flush=True)
        began = time.monotonic()
        try:
            PARTS[name](plan)
        except (SoakError, CrowdError) as error:
            failed = True
            print(f"  FAILED: {error}", flush=True)
        print(f"  in {time.monotonic() - began:.0f} s", flush=True)
    return int(failed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make soak", description="What many clients leave behind.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}; or all")
    parser.add_argument("--quick", action="store_true", help="a minute and a half instead of four")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
