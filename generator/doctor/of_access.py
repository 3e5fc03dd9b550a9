"""Who may enter: what listens where, who may connect to sockets, and who may read keys and what is kept."""

import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

from generator.config.schema import Deploy, bus, keys_file, mailbox
from generator.config.schema import socket as socket_of
from generator.doctor.checks import Verdict, check, failed, look, ok
from generator.doctor.of_the_protocol import INSTALL
from generator.doctor.patient import Patient, Unseen, needs_root
from generator.host import facts
from generator.host.programs import run
from generator.program import AS_ROOT
from generator.rendering.render import service_user

_CONNECTING = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"


class Ends(NamedTuple):
    """What listens on the port: the local addresses."""

    addresses: tuple[str, ...]


@look()
def the_listener(patient: Patient) -> Ends:
    if patient.deploy.port == "none":
        raise Unseen("no port is open")
    shown = run("ss", "-Hltn", f"sport = :{patient.deploy.port}").output
    addresses = [line.split()[3].rpartition(":")[0].strip("[]") for line in shown.splitlines() if line.strip()]
    return Ends(tuple({"*": "::"}.get(address, address) for address in addresses))


@check("port", see=the_listener, expects=lambda deploy: f"something listens on port {deploy.port}")
def port(_: Deploy, seen: Ends) -> Verdict:
    """The service listens on this port for programs of the host."""
    return (
        ok("it listens") if seen.addresses else failed("nothing listens there", f"see `name`; then {AS_ROOT} install")
    )


@check("host", see=the_listener, expects=lambda deploy: deploy.host)
def host(deploy: Deploy, seen: Ends) -> Verdict:
    """The service listens on this address."""
    said = ", ".join(seen.addresses) or "none"
    return ok(said) if deploy.host in seen.addresses else failed(said, INSTALL)


@check("expose", see=the_listener, expects=lambda deploy: "others may come" if deploy.expose else "loopback alone")
def expose(deploy: Deploy, seen: Ends) -> Verdict:
    """Unless it is asked for, no other machine reaches the service past nginx."""
    outside = [address for address in seen.addresses if not address.startswith("127.") and address != "::1"]
    if outside and not deploy.expose:
        return failed(
            f"it also listens on {', '.join(outside)}", f"find out who does: sudo ss -ltnp 'sport = :{deploy.port}'"
        )
    return ok(", ".join(seen.addresses) or "none")


class Entry(NamedTuple):
    """Who may connect to a Unix socket: www-data, which nginx runs as, and a user of no rights."""

    nginx: bool
    anybody: bool


@look()
def who_may_connect(patient: Patient) -> Entry:
    needs_root()
    return Entry(*(_may_connect(user, socket_of(patient.deploy)) for user in ("www-data", "nobody")))


def _may_connect(user: str, path: str) -> bool:
    return run("runuser", "-u", user, "--", facts.PYTHON, "-c", _CONNECTING, path).succeeded


@check("socket", see=who_may_connect, expects="nginx may connect, others may not")
def socket(deploy: Deploy, seen: Entry) -> Verdict:
    """nginx can connect to the socket, and nobody else but root can."""
    if not seen.nginx:
        return failed("nginx cannot connect", f"see `name`; ls -l {socket_of(deploy)}; {AS_ROOT} install")
    fix = f"sudo chmod o= {socket_of(deploy)}, and {AS_ROOT} install"
    return failed("anybody of this host can connect, past nginx", fix) if seen.anybody else ok("nginx alone")


class Mode(NamedTuple):
    """Who owns a file or directory, what its mode allows, and for keys how many there are."""

    uid: int
    mode: int
    keys: int = 0


@look()
def the_bus(patient: Patient) -> Mode:
    needs_root()
    try:
        status = os.stat(bus(patient.deploy))
    except FileNotFoundError:
        raise Unseen("one worker alone needs none") from None
    return Mode(status.st_uid, stat.S_IMODE(status.st_mode))


@check("bus", see=the_bus, expects=lambda deploy: f"{bus(deploy)}, for {service_user(deploy)} alone")
def bus_is_closed(deploy: Deploy, seen: Mode) -> Verdict:
    """The workers meet where no other user can enter."""
    account, said = facts.account_of(service_user(deploy)), f"{seen.mode:04o} of uid {seen.uid}"
    is_closed = account is not None and seen.uid == account.uid and not seen.mode & 0o077
    return ok(said) if is_closed else failed(said, f"sudo systemctl restart {deploy.name}")


@look()
def the_keys(patient: Patient) -> Mode:
    if patient.deploy.auth == "none":
        raise Unseen("with `auth: none` no key is read")
    needs_root()
    path = Path(keys_file(patient.deploy))
    status = path.stat()
    try:
        keys = len(json.loads(path.read_bytes())["keys"])
    except (ValueError, KeyError, TypeError):
        keys = 0
    return Mode(status.st_uid, stat.S_IMODE(status.st_mode), keys)


@check("keys", see=the_keys, expects="at least one key, closed to others")
def keys(deploy: Deploy, seen: Mode) -> Verdict:
    """There are keys for tokens, which no other user can read or replace."""
    path = keys_file(deploy)
    if not seen.keys:
        return failed("no key in it", f"{AS_ROOT} token --new-key")
    if seen.mode & 0o007 or seen.mode & 0o020:
        return failed(
            f"{seen.mode:04o}: others can read it or write to it",
            f"sudo chmod 640 {path}; then new keys: docs/tokens.md",
        )
    return ok(f"{seen.keys} keys, {seen.mode:04o}")


@look()
def the_mailbox(patient: Patient) -> Mode:
    if patient.deploy.mailbox.keep != "disk":
        raise Unseen("no messages are kept on disk")
    needs_root()
    status = os.stat(str(mailbox(patient.deploy).directory))
    return Mode(status.st_uid, stat.S_IMODE(status.st_mode))


@check("mailbox-closed", "mailbox", see=the_mailbox, expects=lambda deploy: f"it is for {service_user(deploy)} alone")
def mailbox_is_closed(deploy: Deploy, seen: Mode) -> Verdict:
    """The messages that are kept can be read by the service alone."""
    account, said = facts.account_of(service_user(deploy)), f"{seen.mode:04o} of uid {seen.uid}"
    if account is not None and seen.uid == account.uid and not seen.mode & 0o007:
        return ok(said)
    directory = mailbox(deploy).directory
    return failed(said, f"sudo chown {service_user(deploy)} {directory}; sudo chmod 700 {directory}")
