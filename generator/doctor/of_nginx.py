"""nginx as clients and others of the network meet it: who is let in, whom it believes, and how much it carries."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from uuid import uuid4

from msgspec.structs import replace

from generator.config.addresses import LOOPBACK
from generator.config.listening import clients_path, prefix
from generator.config.schema import Deploy, serves_app
from generator.doctor.checks import Verdict, check, failed, look, ok, warning
from generator.doctor.of_the_protocol import a_message, message
from generator.doctor.patient import Patient, Unseen, needs_root
from generator.doctor.wire import AGENT, ask, connected
from generator.host import facts, own_site
from generator.program import AS_ROOT
from generator.readers.nginx import HOST
from generator.readers.nginx_sites import servers

RELOAD = "sudo nginx -t && sudo systemctl reload nginx"
LOGS = "var/log/nginx"
# What may stand in the access log of ten minutes without being read as a whole.
_TAIL_BYTES = 8 * 1024 * 1024
RECENTLY_S = 600
_REFUSALS = {
    401: "no valid token",
    403: "an origin that is not in `origins`",
    429: "too many from one address",
    431: "a head that is too long",
    502: "the service was down",
    503: "the service was full, or stopping",
    504: "the service did not answer in time",
}
_FORGED = "192.0.2.66"  # of nobody: RFC 5737


class Reached(NamedTuple):
    """Which addresses of `nginx.listen` take a connection, on each port that clients use."""

    open: tuple[str, ...]
    closed: tuple[str, ...]


@look()
def the_addresses(patient: Patient) -> Reached:
    reached: dict[bool, list[str]] = {True: [], False: []}
    any_of = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    for host in patient.deploy.nginx.listen:
        for encrypted in {False, patient.endpoint.encrypted}:
            try:
                connected(patient.endpoint, any_of.get(host, host), encrypted).close()
                is_open = True
            except OSError:
                is_open = False
            reached[is_open].append(f"{host} port {patient.endpoint.ports[encrypted]}")
    return Reached(tuple(reached[True]), tuple(reached[False]))


@check("nginx.listen", see=the_addresses, expects=lambda deploy: f"nginx answers on {', '.join(deploy.nginx.listen)}")
def listen(_: Deploy, seen: Reached) -> Verdict:
    """nginx takes connections on each of these addresses."""
    fix = f"is nginx running, and is the address this host's? systemctl status nginx; {RELOAD}"
    return failed(f"no answer on {', '.join(seen.closed)}", fix) if seen.closed else ok(", ".join(seen.open))


@look()
def the_sites_that_include(patient: Patient) -> list[str]:
    if not patient.deploy.nginx.include:
        raise Unseen("the site is ours")
    return [each.where for each in own_site.including(patient.deploy.name, servers(HOST / "nginx.conf"))]


@check("nginx.include", see=the_sites_that_include, expects="a site of this host includes the locations")
def include(deploy: Deploy, seen: list[str]) -> Verdict:
    """A site of this host includes the locations."""
    return ok(", ".join(seen)) if seen else failed("no site does", own_site.fix(deploy.name))


@check("nginx.path", see=a_message, expects=lambda deploy: f"clients get through at {clients_path(deploy)}")
def path(deploy: Deploy, seen: str | float) -> Verdict:
    """Clients get through at this path."""
    return message(deploy, seen)


class Ports(NamedTuple):
    """Where nginx answers without TLS and with it, 0 for nowhere; and whether it does without the PROXY protocol."""

    http: int
    https: int
    answers_all: bool


@look()
def the_ports(patient: Patient) -> Ports:
    endpoint = patient.endpoint
    found = [
        port if ask(connected(endpoint, encrypted=encrypted), "/", endpoint.domain).status else 0
        for encrypted, port in zip((False, True), endpoint.ports, strict=True)
        if endpoint.encrypted or not encrypted
    ]
    bare = connected(replace(endpoint, proxy_protocol=False), encrypted=False)
    return Ports(found[0], found[-1] if endpoint.encrypted else 0, ask(bare, "/doctor", endpoint.domain).status != 0)


@check("nginx.http_port", see=the_ports, expects=lambda deploy: f"nginx answers on {deploy.nginx.http_port}")
def http_port(deploy: Deploy, seen: Ports) -> Verdict:
    """nginx answers without TLS where it should."""
    return _on(deploy.nginx.http_port, seen.http)


@check(
    "nginx.https_port",
    see=the_ports,
    expects=lambda deploy: "no TLS" if deploy.tls == "off" else f"nginx answers on {deploy.nginx.https_port}",
)
def https_port(deploy: Deploy, seen: Ports) -> Verdict:
    """nginx answers with TLS where it should."""
    return ok("tls is off") if deploy.tls == "off" else _on(deploy.nginx.https_port, seen.https)


def _on(expected: int, seen: int) -> Verdict:
    said = f"it answers on {seen}" if seen else "no answer"
    return ok(said) if seen == expected else failed(said, f"{AS_ROOT} install; {RELOAD}")


@check(
    "nginx.proxy_protocol",
    see=the_ports,
    expects=lambda deploy: "who does not begin with it gets no answer" if deploy.nginx.proxy_protocol else "not needed",
)
def proxy_protocol(deploy: Deploy, seen: Ports) -> Verdict:
    """Where the PROXY protocol is spoken, nobody gets through without it."""
    said = f"who does not begin with it gets {'an' if seen.answers_all else 'no'} answer"
    return ok(said) if seen.answers_all != deploy.nginx.proxy_protocol else failed(said, f"{AS_ROOT} install; {RELOAD}")


class Unknown(NamedTuple):
    """The status that a request for a name of no site got, 0 for no answer."""

    status: int


@look()
def an_unknown_site(patient: Patient) -> Unknown:
    return Unknown(ask(connected(patient.endpoint, encrypted=False), "/", "doctor.invalid").status)


@check(
    "nginx.default_server",
    see=an_unknown_site,
    expects=lambda deploy: "no answer to another name" if deploy.nginx.default_server else "another site's, or none",
)
def default_server(deploy: Deploy, seen: Unknown) -> Verdict:
    """A request for a name that is nobody's gets no answer where that is asked for."""
    said = f"{seen.status or 'no answer'} to a name that is no site's"
    if not deploy.nginx.default_server or seen.status == 0:
        return ok(said)
    return failed(said, f"another site is the default: sudo nginx -T | grep default_server; {AS_ROOT} install")


class Asked(NamedTuple):
    """The status that each of these addresses of this host got when it asked nginx."""

    statuses: dict[str, int]


@look()
def who_gets_health(patient: Patient) -> Asked:
    if serves_app(patient.deploy):
        raise Unseen("whoever comes to an application of one's own may ask for its health")
    return Asked(dict(_asked_from_here(patient, f"{prefix(patient.deploy)}/health")))


@look()
def who_gets_metrics(patient: Patient) -> Asked:
    return Asked(dict(_asked_from_here(patient, f"{prefix(patient.deploy)}/metrics")))


def _asked_from_here(patient: Patient, path: str) -> Iterator[tuple[str, int]]:
    """A connection to one of one's own addresses comes from that address."""
    patient.must_come_through_nginx()
    for address in (*LOOPBACK, *facts.addresses()):
        with suppress(OSError):  # nginx need not listen there: `nginx.listen` has a check of its own
            yield address, ask(connected(patient.endpoint, address), path, patient.endpoint.domain).status


def _who_may_ask(seen: Asked, allowed: tuple[str, ...], otherwise: int) -> Verdict:
    said = ", ".join(f"{address} gets {status}" for address, status in seen.statuses.items())
    for address, status in seen.statuses.items():
        may = any(ip_address(address) in ip_network(network) for network in allowed)
        if status != (200 if may else otherwise):
            return failed(said, f"nginx has other rules: {AS_ROOT} install, and {RELOAD}")
    return ok(said) if seen.statuses else warning("nobody could ask", "see `nginx.listen`")


@check(
    "nginx.health_from",
    see=who_gets_health,
    expects=lambda deploy: f"200 to {', '.join(deploy.nginx.health_from)} alone",
)
def health_from(deploy: Deploy, seen: Asked) -> Verdict:
    """These addresses get /health through nginx, and this host's others get 403."""
    return _who_may_ask(seen, deploy.nginx.health_from, 403)


@check(
    "nginx.metrics_from",
    see=who_gets_metrics,
    expects=lambda deploy: f"200 to {', '.join(deploy.nginx.metrics_from) or 'nobody'} alone",
)
def metrics_from(deploy: Deploy, seen: Asked) -> Verdict:
    """These addresses get /metrics through nginx, and this host's others do not."""
    return _who_may_ask(seen, deploy.nginx.metrics_from, 403 if deploy.nginx.metrics_from else 404)


class Claim(NamedTuple):
    """Whom nginx took a client for that claimed to be another one, and from which address it came."""

    taken_for: str
    came_from: str


@look()
def a_forged_address(patient: Patient) -> Claim:
    patient.must_answer()
    needs_root()
    agent = f"{AGENT} {uuid4()}"
    raw = connected(patient.endpoint, claim=f"TCP4 {_FORGED} {_FORGED} 50000 80")
    came_from = str(raw.getsockname()[0])
    ask(raw, "/", patient.endpoint.domain, User_Agent=agent, X_Forwarded_For=_FORGED)
    if (entry := logged(patient, agent)) is None:
        raise Unseen("the request is not in the access log")
    return Claim(str(entry["address"]), came_from)


@check(
    "nginx.trusted_proxies",
    see=a_forged_address,
    expects=lambda deploy: (
        ("the PROXY protocol" if deploy.nginx.proxy_protocol else "X-Forwarded-For")
        + f" is believed from {', '.join(deploy.nginx.trusted_proxies) or 'nobody'}"
    ),
)
def trusted_proxies(deploy: Deploy, seen: Claim) -> Verdict:
    """A client that is no trusted proxy cannot choose the address that it counts by."""
    is_trusted = any(ip_address(seen.came_from) in ip_network(each) for each in deploy.nginx.trusted_proxies)
    said = f"{seen.came_from}, which claimed to be {_FORGED}, is {seen.taken_for}"
    if seen.taken_for == (_FORGED if is_trusted else seen.came_from):
        return ok(said)
    return failed(said, f"look for other set_real_ip_from: sudo nginx -T | grep real_ip; {AS_ROOT} install")


def logged(patient: Patient, agent: str) -> dict[str, object] | None:
    """The entry of a request in the access log of this site, soon after its answer. Raises: OSError"""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for entry in recent(patient, 60):
            if entry.get("agent") == agent:
                return entry
        time.sleep(0.05)
    return None


def recent(patient: Patient, within_s: float) -> list[dict[str, object]]:
    """The entries of the access log of so many seconds, as far as they are in its last megabytes."""
    if patient.deploy.nginx.include:
        raise Unseen("your own site has the log of its requests")
    path = patient.store.root / LOGS / f"{patient.deploy.name}_access.log"
    try:
        with path.open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - _TAIL_BYTES))
            lines = log.read().splitlines()
    except FileNotFoundError:
        raise Unseen(f"{path} is not there: nginx makes it when it starts") from None
    since = time.time() - within_s
    found = []
    for line in reversed(lines):
        with suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            if when(entry["time"]) < since:
                break
            found.append(entry)
    return found


def when(text: str) -> float:
    """`$time_iso8601` in seconds since the epoch."""
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


@look()
def the_refused(patient: Patient) -> dict[int, int]:
    """How many handshakes got each status in the last ten minutes; those of the doctor do not count."""
    needs_root()
    entries, path = recent(patient, RECENTLY_S), patient.deploy.nginx.path
    return Counter(
        int(str(entry["status"]))
        for entry in entries
        if entry.get("path") == path and not str(entry.get("agent")).startswith(AGENT.partition("/")[0])
    )


@check("refusals", "origins", "auth", "limits", see=the_refused, expects="no client was refused in ten minutes")
def refusals(_: Deploy, seen: dict[int, int]) -> Verdict:
    """No client was refused in the last ten minutes."""
    found = [f"{seen[status]} times {status} ({meaning})" for status, meaning in _REFUSALS.items() if seen.get(status)]
    if not found:
        return ok(f"{sum(seen.values())} requests, none refused")
    return warning("; ".join(found), "docs/troubleshoot.md#clients-are-refused says what each means")
