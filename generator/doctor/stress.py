"""What only much traffic shows, and what could refuse or disconnect others for a moment: with `--stress` alone."""

import json
import resource
import time
from contextlib import ExitStack
from typing import NamedTuple

from generator.config.schema import Deploy
from generator.doctor.checks import Verdict, check, failed, look, ok
from generator.doctor.of_the_protocol import INSTALL, credentials, own_address
from generator.doctor.patient import Patient, Unseen
from generator.doctor.wire import Client, ask, client, connected
from generator.program import AS_ROOT

MOST = 5000
_SPARE_FILES = 200
_FLOOD_BYTES = 64 * 1024 * 1024
_CHUNK = 32 * 1024
# Who has not had a refusal by then opens connections more slowly than they may be opened.
_LONG_ENOUGH_S = 10.0


class Burst(NamedTuple):
    """After how many handshakes of one address the first was refused, within how many seconds."""

    let_in: int
    seconds: float


@look(takes=lambda deploy: 1 + deploy.limits.handshake_burst / 200, stress=True)
def a_burst(patient: Patient) -> Burst:
    patient.must_answer()
    patient.must_come_through_nginx()
    at_once, per_second = patient.deploy.limits.handshake_burst, patient.deploy.limits.handshakes_per_second
    if at_once > MOST:
        raise Unseen(f"more than {MOST} handshakes would be needed")
    most = at_once + per_second * 60
    began = time.monotonic()
    for number in range(most):
        refused = ask(connected(patient.endpoint), patient.endpoint.path, patient.endpoint.domain).status == 429
        seconds = time.monotonic() - began
        if refused:
            return Burst(number, seconds)
        if seconds > _LONG_ENOUGH_S and at_once < number < at_once + per_second * seconds:
            raise Unseen(f"{number / seconds:.0f} handshakes a second are all that can be made from here")
    return Burst(most, time.monotonic() - began)


def _fits(deploy: Deploy, seen: Burst) -> bool:
    limits = deploy.limits
    earned = limits.handshakes_per_second * (seen.seconds + 1) + 2
    return limits.handshake_burst - 2 <= seen.let_in <= limits.handshake_burst + earned


@check(
    "limits.handshake_burst", see=a_burst, expects=lambda deploy: f"429 after {deploy.limits.handshake_burst} at once"
)
def burst(deploy: Deploy, seen: Burst) -> Verdict:
    """nginx refuses one address that opens more connections at once."""
    said = f"429 after {seen.let_in} in {seen.seconds:.1f} s"
    return ok(said) if _fits(deploy, seen) else failed(said, INSTALL)


@check(
    "limits.handshakes_per_second",
    see=a_burst,
    expects=lambda deploy: f"{deploy.limits.handshakes_per_second} a second beyond the burst",
)
def rate(deploy: Deploy, seen: Burst) -> Verdict:
    """nginx lets one address open so many connections per second, beyond the burst."""
    earned = max(0, seen.let_in - deploy.limits.handshake_burst)
    said = f"{earned} beyond the burst in {seen.seconds:.1f} s"
    return ok(said) if _fits(deploy, seen) else failed(said, INSTALL)


def _pace(deploy: Deploy) -> float:
    """So many seconds between two connections nginx refuses none, whatever used up the burst before."""
    return 1.1 / deploy.limits.handshakes_per_second


@look(takes=lambda deploy: deploy.limits.connections_per_address * _pace(deploy), stress=True)
def many_of_one_address(patient: Patient) -> int:
    """How many connections one address got."""
    patient.must_answer()
    most = patient.deploy.limits.connections_per_address
    if most > MOST:
        raise Unseen(f"more than {MOST} connections would be needed")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + _SPARE_FILES
    if resource.RLIM_INFINITY != soft < wanted:  # it is never lowered: the rest of the process has it, too
        wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    with ExitStack() as stack:
        for number in range(most + 1):
            time.sleep(_pace(patient.deploy))
            there = stack.enter_context(client(patient.endpoint, **credentials(patient)))
            if there.status != 101:
                return number
    return most + 1


@check(
    "connections-per-address",
    "limits.connections_per_address",
    see=many_of_one_address,
    expects=lambda deploy: f"{deploy.limits.connections_per_address}, one more gets 429",
)
def per_address(deploy: Deploy, seen: int) -> Verdict:
    """One address gets so many connections; one more is refused."""
    limit, said = deploy.limits.connections_per_address, f"{seen} were let in"
    if seen > limit:
        return failed(said, INSTALL)
    # Other clients of the same address count as well.
    fix = f"other clients hold the rest, or nginx has another limit: {AS_ROOT} install"
    return ok(said) if seen >= limit // 2 else failed(said, fix)


class Flood(NamedTuple):
    """How much was sent to a client that does not read, in bytes, and whether the service closed it with 4101."""

    sent: int
    is_closed: bool


@look(takes=lambda _: 60.0, stress=True)
def a_slow_reader(patient: Patient) -> Flood:
    if patient.deploy.auth == "token":
        raise Unseen("with `auth: token` the doctor may write to nobody")
    patient.must_answer()
    address, before = own_address(), _closed(patient)
    time.sleep(2 * _pace(patient.deploy))
    with client(patient.endpoint) as slow, client(patient.endpoint) as fast:
        slow.text()
        slow.take_little()
        slow.say(recipient_uuid=address, message="connected")
        slow.say(recipient_uuid=address, message="here")
        slow.text()
        fast.text()
        size = min(_CHUNK, patient.deploy.limits.message_size)
        text = json.dumps({"recipient_uuid": address, "message": ""})
        message = text.replace('""', f'"{"x" * (size - len(text))}"')
        sent = _flooded(patient, fast, message, before)
        ends = time.monotonic() + 30  # what was sent has not all been read yet
        while _closed(patient) == before and time.monotonic() < ends:
            time.sleep(0.2)
        is_closed, has_timed_out = (now > then for now, then in zip(_closed(patient), before, strict=True))
        if has_timed_out and not is_closed:
            raise Unseen("a client that does not read answers no ping, and timed out before its queue was full")
        return Flood(sent, is_closed)


def _flooded(patient: Patient, sender: Client, message: str, before: tuple[int, int]) -> int:
    """How many bytes could be sent until somebody was closed. Raises: Unseen: too few ever will be."""
    sent = 0
    try:
        while sent < patient.deploy.limits.queue + _FLOOD_BYTES:
            sender.send(message)
            sent += len(message)
            if sent // len(message) % 32 == 0 and _closed(patient) != before:
                break
    except TimeoutError:
        raise Unseen("limits.bytes_per_second lets through too little to fill a queue soon") from None
    except ConnectionError:
        pass  # it reads nothing while it waits to send, and so answers no ping either
    return sent


def _closed(patient: Patient) -> tuple[int, int]:
    """How many clients were closed so far because they do not read, and because they answered no ping."""
    closed = patient.count()["connections_closed"]
    return closed["4101"], closed["1011"]


@check("slow-reader", "limits.queue", see=a_slow_reader, expects="4101 when the queue is full")
def slow_reader(_: Deploy, seen: Flood) -> Verdict:
    """A client that does not read is closed with 4101, and does not fill the memory."""
    said = f"{seen.sent // 1024} KiB were sent to it"
    return ok(f"closed when {said}") if seen.is_closed else failed(f"not closed, though {said}", INSTALL)
