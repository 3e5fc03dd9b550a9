"""What a client meets on the wire: who is let in, what it may send, and when it is given up."""

import contextlib
import json
import time
from typing import Any, NamedTuple
from uuid import uuid4

from generator.config.schema import Deploy
from generator.doctor.checks import Verdict, check, failed, look, ok
from generator.doctor.patient import Patient, Unseen
from generator.doctor.wire import Client, Ended, client
from generator.host.clients import listener
from generator.program import AS_ROOT
from generator.rendering.render import local_address

V1 = "nc.v1"
FOREIGN = "https://doctor.invalid"
INSTALL = f"{AS_ROOT} install: what runs has another value"
# A busy host is late; an interval that is another one is further off.
_LATE_S = 3.0


def own_address(number: int = 0) -> str:
    """One that no client has, and that shows in the log whose it is."""
    return f"doctor-{uuid4()}-{number}"


def credentials(patient: Patient) -> dict[str, str]:
    """What a client of v0 sends to be let in. Raises: Unseen"""
    return {"Authorization": f"Bearer {patient.token}"} if patient.deploy.auth == "token" else {}


@look()
def a_message(patient: Patient) -> str | float:
    return patient.message


@check("message", "domain", see=a_message, expects="a message through nginx comes back")
def message(_: Deploy, seen: str | float) -> Verdict:
    """A message that a client sends to itself through nginx comes back."""
    if isinstance(seen, str):
        return failed(seen, f"{AS_ROOT} status says whether the service and nginx run; then docs/troubleshoot.md")
    return ok(f"after {seen * 1000:.0f} ms")


@look()
def a_greeting(patient: Patient) -> dict[str, Any]:
    patient.must_answer()
    with client(patient.endpoint, V1) as there:
        greeting: dict[str, Any] = json.loads(there.text())
        return greeting


@check("welcome", see=a_greeting, expects=lambda deploy: deploy.welcome)
def welcome(deploy: Deploy, greeting: dict[str, Any]) -> Verdict:
    """The first text that a client gets is the welcome."""
    said = str(greeting.get("message"))
    is_ours = said == deploy.welcome.replace("{uuid}", str(greeting.get("uuid")))
    return ok(said) if is_ours else failed(said, INSTALL)


class Silence(NamedTuple):
    """What a client saw that never answered: when the ping came, when the end and with which code; in seconds."""

    pinged_after: float
    ended_after: float
    code: int


@look(takes=lambda deploy: deploy.ping.interval + deploy.ping.timeout + _LATE_S)
def a_silent_client(patient: Patient) -> Silence:
    patient.must_answer()
    ping = patient.deploy.ping
    with client(patient.endpoint, **credentials(patient)) as there:
        there.text()
        began = time.monotonic()
        there.answers = False
        there.read_until(lambda: there.pinged_at, ping.interval + ping.timeout + _LATE_S)
        code = there.read_to_end(ping.timeout * 2 + _LATE_S)
        return Silence(there.pinged_at[0] - began, time.monotonic() - there.pinged_at[0], code)


@check("ping.interval", see=a_silent_client, expects=lambda deploy: f"a ping after {deploy.ping.interval:g} s")
def ping_interval(deploy: Deploy, seen: Silence) -> Verdict:
    """A client that is silent gets a ping when the interval is over."""
    interval, after = deploy.ping.interval, seen.pinged_after
    said = f"a ping after {after:.1f} s"
    return ok(said) if interval - 1 <= after <= interval * 1.1 + _LATE_S else failed(said, INSTALL)


@check(
    "ping.timeout",
    see=a_silent_client,
    expects=lambda deploy: f"1011, {deploy.ping.timeout:g} s after a ping without an answer",
)
def ping_timeout(deploy: Deploy, seen: Silence) -> Verdict:
    """A client that answers no ping is closed with 1011 when the timeout is over, by the service and not by nginx."""
    timeout, after = deploy.ping.timeout, seen.ended_after
    said = f"{seen.code} after {after:.1f} s"
    if seen.code != 1011:
        return failed(said, "something between cuts the connection first: see its idle limit, and nginx.idle_limit")
    return ok(said) if timeout - 1 <= after <= timeout * 1.1 + _LATE_S else failed(said, INSTALL)


@check(
    "nginx.idle_limit",
    see=a_silent_client,
    expects=lambda deploy: f"a ping within {deploy.nginx.idle_limit} s" if deploy.nginx.idle_limit else "no limit",
)
def idle_limit(deploy: Deploy, seen: Silence) -> Verdict:
    """A ping comes before a load balancer in front would cut the connection."""
    said = f"a ping after {seen.pinged_after:.1f} s"
    if deploy.nginx.idle_limit is None or seen.pinged_after < deploy.nginx.idle_limit:
        return ok(said)
    return failed(said, f"lower ping.interval, then {AS_ROOT} install")


class Sizes(NamedTuple):
    """Whether the longest message was taken, and the code with which one more byte closed the connection."""

    longest_is_taken: bool
    code: int


@look()
def the_longest_message(patient: Patient) -> Sizes:
    patient.must_answer()
    longest = '{"type":"ping","id":"doctor"}'.ljust(patient.deploy.limits.message_size)
    with client(patient.endpoint, V1) as there:
        there.text()
        try:
            there.send(longest)
            is_taken = json.loads(there.text(15)) == {"type": "pong", "id": "doctor"}
        except (Ended, OSError):
            return Sizes(False, there.close_code or 1006)
        with contextlib.suppress(OSError):  # it may be closed while we still send
            there.send(f"{longest} ")
        return Sizes(is_taken, there.read_to_end(15))


@check(
    "limits.message_size",
    see=the_longest_message,
    expects=lambda deploy: f"{deploy.limits.message_size} bytes are taken, one more is closed with 1009",
)
def message_size(_: Deploy, seen: Sizes) -> Verdict:
    """A message of this size is taken; one byte more closes the connection with 1009."""
    if not seen.longest_is_taken:
        return failed(f"it is closed with {seen.code} already", INSTALL)
    said = f"one more is closed with {seen.code}"
    return ok(said) if seen.code == 1009 else failed(said, INSTALL)


class Doors(NamedTuple):
    """Status of a handshake without a token and with a forged one; what `hello` without one got: `ok`, or a code."""

    without: int
    forged: int
    hello: str


@look()
def the_doors(patient: Patient) -> Doors:
    patient.must_answer()
    with client(patient.endpoint) as there:
        without = there.status
    with client(patient.endpoint, Authorization="Bearer e30.e30.doctor") as there:
        forged = there.status
    with client(patient.endpoint, V1) as there:
        there.text()
        return Doors(without, forged, _hello(there, own_address()))


def _hello(there: Client, address: str) -> str:
    """`ok`, the name of the error, or the close code."""
    there.say(type="hello", id=address, uuid=address)
    try:
        answer = json.loads(there.text())
    except Ended:
        return str(there.close_code)
    return "ok" if answer["type"] == "ok" else str(answer.get("code", answer["type"]))


@check(
    "auth",
    see=the_doors,
    expects=lambda deploy: "401, 401 and 4001 without a token" if deploy.auth == "token" else "anybody is let in",
)
def auth(deploy: Deploy, seen: Doors) -> Verdict:
    """With `token`, nobody gets in without a token or with a forged one; with `none`, anybody does."""
    said = f"without a token {seen.without}, with a forged one {seen.forged}, hello without one {seen.hello}"
    wanted = Doors(401, 401, "4001") if deploy.auth == "token" else Doors(101, 101, "ok")
    return ok(said) if seen == wanted else failed(said, INSTALL)


@look()
def origins_tried(patient: Patient) -> dict[str, int]:
    """The status that a handshake from each page gets: one of nobody's, and those that are listed."""
    patient.must_answer()
    found = {}
    for origin in (FOREIGN, *patient.deploy.origins):
        with client(patient.endpoint, Origin=origin, **credentials(patient)) as there:
            found[origin] = there.status
    return found


@check(
    "origins",
    see=origins_tried,
    expects=lambda deploy: "403 to other pages, 101 to these" if deploy.origins else "101 to any page",
)
def origins(deploy: Deploy, seen: dict[str, int]) -> Verdict:
    """A page that is listed may connect, and another one is refused with 403."""
    said = ", ".join(f"{origin} {status}" for origin, status in seen.items())
    wanted = dict.fromkeys(seen, 101) | ({FOREIGN: 403} if deploy.origins else {})
    return ok(said) if seen == wanted else failed(said, INSTALL)


@look()
def addresses_taken(patient: Patient) -> list[str]:
    """What each attempt to register one more address got, until one was refused."""
    if patient.deploy.auth == "token":
        raise Unseen("with `auth: token` a client may register the address of its token alone")
    patient.must_answer()
    got: list[str] = []
    with client(patient.endpoint, V1) as there:
        there.text()
        while len(got) <= patient.deploy.limits.registrations and got[-1:] in ([], ["ok"]):
            got.append(_hello(there, own_address(len(got))))
    return got


@check(
    "limits.registrations",
    see=addresses_taken,
    expects=lambda deploy: f"{deploy.limits.registrations} addresses, one more is refused",
)
def registrations(deploy: Deploy, seen: list[str]) -> Verdict:
    """A client may register so many addresses; one more is refused with error 106."""
    said = f"{seen.count('ok')} registered, then {seen[-1]}"
    wanted = ["ok"] * deploy.limits.registrations + ["106"]
    return ok(said) if seen == wanted else failed(said, INSTALL)


class End(NamedTuple):
    """How a connection ended, and after how many seconds."""

    code: int
    after: float


@look(takes=lambda deploy: deploy.limits.hello_timeout + _LATE_S)
def no_hello(patient: Patient) -> End:
    patient.must_answer()
    with client(patient.endpoint, V1) as there:
        began = time.monotonic()
        code = there.read_to_end(patient.deploy.limits.hello_timeout + 2 * _LATE_S)
        return End(code, time.monotonic() - began)


@check(
    "limits.hello_timeout",
    see=no_hello,
    expects=lambda deploy: f"4000 after {deploy.limits.hello_timeout} s without hello",
)
def hello_timeout(deploy: Deploy, seen: End) -> Verdict:
    """A client of nc.v1 that does not say hello is closed with 4000 when this time is over."""
    said, timeout = f"{seen.code} after {seen.after:.1f} s", deploy.limits.hello_timeout
    is_right = seen.code == 4000 and timeout - 1 <= seen.after <= timeout + _LATE_S
    return ok(said) if is_right else failed(said, INSTALL)


@look(takes=lambda deploy: deploy.limits.header_timeout + _LATE_S)
def half_a_request(patient: Patient) -> float:
    """After how many seconds the service gave up; asked directly: in nginx the default site's timeout counts."""
    patient.must_answer()
    with listener(local_address(patient.deploy)) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: doctor\r\n")
        raw.settimeout(patient.deploy.limits.header_timeout + 2 * _LATE_S)
        began = time.monotonic()
        while raw.recv(4096):
            pass
        return time.monotonic() - began


@check(
    "limits.header_timeout",
    see=half_a_request,
    expects=lambda deploy: f"half a request is given up after {deploy.limits.header_timeout} s",
)
def header_timeout(deploy: Deploy, after: float) -> Verdict:
    """The service waits so long for a whole request."""
    timeout, said = deploy.limits.header_timeout, f"given up after {after:.1f} s"
    return ok(said) if timeout - 1 <= after <= timeout + _LATE_S else failed(said, INSTALL)
