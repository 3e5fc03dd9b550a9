"""An application of the operator's own: that it is the one that was installed, and may do what it needs and no more."""

import os
import re
import shlex
import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

from generator.config.app_rules import ANY
from generator.config.listening import prefix
from generator.config.schema import Deploy
from generator.doctor.checks import Verdict, check, failed, look, ok, unseen, warning
from generator.doctor.of_the_protocol import a_message, message
from generator.doctor.patient import Patient, Unseen, needs_root
from generator.doctor.wire import ask, connected
from generator.host import facts
from generator.host.programs import run
from generator.program import AS_ROOT
from generator.rendering.render import has_http2

INSTALL = f"{AS_ROOT} install"


@check("app.health", see=a_message, expects=lambda deploy: f"GET {deploy.app.health or '/'} through nginx is answered")
def health(deploy: Deploy, seen: str | float) -> Verdict:
    """The application answers through nginx that it works."""
    return message(deploy, seen)


class Code(NamedTuple):
    """The directory that a process has its application from, and the one that was installed last."""

    runs: str
    installed: str


@look()
def the_code(patient: Patient) -> Code:
    runs = patient.process.environ.get("WEBSOCKET_APP_DIRECTORY", "")
    return Code(os.path.realpath(runs) if runs else "", os.path.realpath(patient.store.home / "current/app"))


@check("app.path", see=the_code, expects="the files that were installed last")
def path(_: Deploy, seen: Code) -> Verdict:
    """The application runs from the files that were installed last."""
    return ok(seen.runs) if seen.runs == seen.installed else failed(seen.runs or "nothing", INSTALL)


@look()
def http2_in_tls(patient: Patient) -> bool:
    """Whether a client that speaks HTTP/2 is taken at its word."""
    if not has_http2(patient.deploy):
        raise Unseen("browsers want TLS for it" if patient.deploy.tls == "off" else "it is your own site's")
    with connected(patient.endpoint, protocol="h2") as client:
        return isinstance(client, ssl.SSLSocket) and client.selected_alpn_protocol() == "h2"


@check("http2", "app", see=http2_in_tls, expects="HTTP/2 is offered")
def http2(_: Deploy, seen: bool) -> Verdict:
    """The site of an application offers HTTP/2."""
    return ok("it is") if seen else failed("it is not", INSTALL)


class Served(NamedTuple):
    """A file of each directory that nginx serves, by its URL, and the status that it is answered with."""

    statuses: dict[str, int]


@look()
def the_static_files(patient: Patient) -> Served:
    patient.must_come_through_nginx()
    urls = {}
    for url, directory in patient.deploy.app.static.items():
        top = patient.store.home / "current/app" / directory
        files = (file for file in sorted(top.rglob("*")) if file.is_file() and re.fullmatch(r"[\w./-]+", str(file)))
        if file := next(files, None):
            urls[url] = f"{prefix(patient.deploy)}{url}{file.relative_to(top)}"
    domain = patient.endpoint.domain
    return Served({url: ask(connected(patient.endpoint), one, domain).status for url, one in urls.items()})


@check(
    "app.static",
    see=the_static_files,
    expects=lambda deploy: f"nginx serves {', '.join(deploy.app.static) or 'none'}",
)
def static(deploy: Deploy, seen: Served) -> Verdict:
    """nginx answers with the files of each directory."""
    said = ", ".join(f"{url} {seen.statuses.get(url, 'has no file')}" for url in deploy.app.static) or "none"
    wrong = [url for url in deploy.app.static if seen.statuses.get(url) != 200]
    return failed(said, f"may nginx read them? {INSTALL}") if wrong else ok(said)


@look()
def too_long_a_body(patient: Patient) -> int:
    patient.must_come_through_nginx()
    # nginx refuses it for what it says of its length; none of it is sent.
    length = str(patient.deploy.app.body_size + 1)
    there = patient.endpoint
    return ask(connected(there), there.path, there.domain, "POST", Content_Length=length).status


@check("app.body_size", see=too_long_a_body, expects=lambda deploy: f"413 to more than {deploy.app.body_size} bytes")
def body_size(_: Deploy, status: int) -> Verdict:
    """A body of one byte more is refused."""
    return ok(status) if status == 413 else failed(status, f"nginx has another limit: {INSTALL}")


@look()
def the_confinement(patient: Patient) -> dict[str, str]:
    if patient.deploy.manager != "systemd":
        raise Unseen("supervisor confines nothing")
    shown = run("systemctl", "show", f"{patient.deploy.name}.service", "--property", ",".join(_PROPERTIES))
    return dict(line.split("=", 1) for line in shown.output.splitlines() if "=" in line)


def _words(value: str) -> list[str]:
    """A list as `systemctl show` prints it: what has blanks is quoted, by some releases with \\x20."""
    return [word.replace("\0", " ") for word in shlex.split(value.replace("\\x20", "\0"))]


# Of each need: the property of the unit, and whether its value is what the need asks for.
_CONFINED: dict[str, tuple[str, Callable[[Deploy, str], bool]]] = {
    "needs.network": (
        "PrivateNetwork",
        lambda deploy, value: (value == "yes") == (not deploy.needs.network),
    ),
    "needs.write": (
        "ReadWritePaths",
        lambda deploy, value: set(_words(value)) == set(deploy.needs.write),
    ),
    "needs.devices": (
        "PrivateDevices",
        lambda deploy, value: (value == "yes") == (not deploy.needs.devices),
    ),
    "needs.exec": (
        "NoExecPaths",
        lambda deploy, value: bool(value) != deploy.needs.exec,
    ),
    "needs.jit": (
        "MemoryDenyWriteExecute",
        lambda deploy, value: (value == "yes") != deploy.needs.jit,
    ),
    "needs.host_metrics": (
        "ProcSubset",
        lambda deploy, value: (value == "pid") != deploy.needs.host_metrics,
    ),
    "needs.chown": (
        "SystemCallFilter",
        lambda deploy, value: ("fchownat" in value.split()) == deploy.needs.chown,
    ),
}
_PROPERTIES = [name for name, _ in _CONFINED.values()]


def _confined(key: str, name: str, fits: Callable[[Deploy, str], bool]) -> None:
    """Enter the check of a need."""

    def judge(deploy: Deploy, seen: dict[str, str]) -> Verdict:
        """The unit allows what is needed, and no more."""
        value = seen.get(name, "")
        said = f"{name}={value}" if len(value) < 100 else f"{name}= has {len(value.split())} entries"
        return ok(said) if fits(deploy, value) else failed(said, f"systemctl cat {deploy.name}; {INSTALL}")

    check(key, see=the_confinement, expects=lambda deploy: f"{name}= fits `{key}`")(judge)


for _key, (_name, _fits) in _CONFINED.items():
    _confined(_key, _name, _fits)

# What a program says that was refused something, and the need that would allow it. There is nothing else to go by: what
# systemd's filters refuse, the kernel logs nowhere.
_SAID = (
    (r"Read-only file system: '([^']+)/[^/']+'", "needs.write: [{}]"),
    (r"(?:No such file or directory|Operation not permitted): '(/dev/[^']+)'", "needs.devices: [{}]"),
    (r"failed to map segment from shared object", "needs.exec: true"),
    (r"Address family not supported|Network is unreachable|Temporary failure in name resolution", "needs.network"),
    (r"(/proc/(?:meminfo|stat|cpuinfo|net/dev|loadavg))", "needs.host_metrics: true"),
    (r"mprotect|write\+execute memory|executable memory", "needs.jit: true"),
    (r"Operation not permitted.*chown|chown.*Operation not permitted", "needs.chown: true"),
)

# What is sent to an address that needs.network leaves out is dropped without a word.
_NEVER_ANSWERED = r"(?i)\[Errno 110\]|Connect(?:ion)?_?Time(?:d )?out|connect(?:ion)? (?:timed out|timeout)"


@look()
def all_that_it_said(patient: Patient) -> list[str]:
    needs_root()
    if patient.deploy.manager != "systemd":
        raise Unseen("supervisor confines nothing")
    return facts.log_of(patient.store.units, patient.started, 1000).splitlines()


@check("refused-needs", "needs", see=all_that_it_said, expects="nothing that the application tried was refused")
def refused(deploy: Deploy, seen: list[str]) -> Verdict:
    """The application was not refused what it tried, as far as it says so in its log."""
    found = dict(_needs_behind(deploy, seen))
    if not found:
        return ok("none is in its log")
    return warning("; ".join(found.values()), f"if it is to be allowed, add {', '.join(found)} to deploy.yaml")


def _needs_behind(deploy: Deploy, lines: list[str]) -> Iterator[tuple[str, str]]:
    network = deploy.needs.network
    dropped = [(_NEVER_ANSWERED, "needs.network: [that address]")] if network and ANY not in network else []
    for line in lines:
        for pattern, need in (*_SAID, *dropped):
            if said := re.search(pattern, line):
                yield need.format(*said.groups()), line.rpartition("\\n")[2].strip()  # of a traceback its end


unseen("app.requirements", "the application was imported with them before it went live")
unseen("app.build", "its commands were run before it went live")
unseen("app.before", "its commands were run before it went live")
