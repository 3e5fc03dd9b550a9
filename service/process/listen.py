"""The sockets the service listens on: handed over by systemd, or bound here.

nginx connects to a Unix socket, which it alone may open, and programs of the host to a TCP port.

Source: sd_listen_fds(3), unix(7), ip(7).
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from service.process.descriptor_store import PREFIX
from service.process.unix_sockets import GROUP_AS_WELL, open_to
from service.settings import Settings

# Connections that the kernel keeps until they are accepted: as many as it lets us (net.core.somaxconn). A restart makes
# all clients come back at once, and a Unix socket whose queue is full refuses them.
BACKLOG = 4096

# By which `service.workers.manager` hands a worker its sockets.
FDS_VARIABLE = "WEBSOCKET_LISTEN_FDS"
# And what was stored: `NAME:FD NAME:FD`.
STORED_VARIABLE = "WEBSOCKET_STORED_FDS"

# The first descriptor that systemd passes (SD_LISTEN_FDS_START).
_FIRST_FD = 3


class ListenError(Exception):
    """There is nothing to listen on; the message says where, what, and the fix."""

    def __init__(self, where: str, what: str, fix: str) -> None:
        super().__init__(f"cannot listen on {where}: {what}; {fix}")


def listening_sockets(settings: Settings, environ: MutableMapping[str, str]) -> list[socket.socket]:
    """The sockets that systemd has passed, or else those that the settings ask for; what was stored is none of them.

    The variables about passed sockets are taken out of `environ`: they are meant for this process and no child of it.

    Raises:
        ListenError
    """
    if handed := environ.pop(FDS_VARIABLE, ""):
        return [_passed_socket(int(fd)) for fd in handed.split()]
    passed = _passed_sockets(environ)
    if passed:
        return passed
    return _own_sockets(settings)


def name_of(listener: socket.socket) -> str:
    """The address of a listening socket, as the log shows it."""
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if listener.family == socket.AF_INET6 else f"{host}:{port}"


def stored_descriptors(environ: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """What a process before this one had systemd keep, by name. To be asked before `listening_sockets`."""
    if handed := environ.pop(STORED_VARIABLE, ""):
        return [(name, int(fd)) for name, _, fd in (each.partition(":") for each in handed.split())]
    return [(name, fd) for name, fd in _passed(environ) if name.startswith(PREFIX)]


def _own_sockets(settings: Settings) -> list[socket.socket]:
    listeners = []
    try:
        if settings.port != "none":
            listeners.append(_tcp_socket(settings.host, settings.port))
        if settings.socket is not None:
            listeners.append(_unix_socket(Path(settings.socket)))
    except ListenError:
        for each in listeners:
            each.close()
        raise
    if not listeners:
        raise ListenError("anything", "WEBSOCKET_PORT is none, and WEBSOCKET_SOCKET is not set", "set one of them")
    return listeners


def _passed_sockets(environ: MutableMapping[str, str]) -> list[socket.socket]:
    passed = _passed(environ)
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        environ.pop(variable, None)
    return [_passed_socket(fd) for name, fd in passed if not name.startswith(PREFIX)]


def _passed(environ: Mapping[str, str]) -> list[tuple[str, int]]:
    """The descriptors, by name; without names they are listeners, as systemd before 227 passed them."""
    number = _number_passed(environ)
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    return [(names[at] if at < len(names) else "", _FIRST_FD + at) for at in range(number)]


def _number_passed(environ: Mapping[str, str]) -> int:
    # Another process's sockets: the variables were inherited through a program that did not know them.
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return 0
    number = environ.get("LISTEN_FDS", "")
    return int(number) if number.isascii() and number.isdigit() else 0


def _passed_socket(fd: int) -> socket.socket:
    fix = "give the .socket unit ListenStream= lines only, and Accept=no"
    try:
        listener = socket.socket(fileno=fd)
        listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ListenError(f"descriptor {fd}", error.strerror or str(error), fix) from None
    if not listening or listener.type != socket.SOCK_STREAM:
        listener.detach()
        raise ListenError(f"descriptor {fd}", "it is not a listening stream socket", fix)
    os.set_inheritable(fd, False)
    return listener


def _tcp_socket(host: str, port: int) -> socket.socket:
    where = f"{host}:{port}"
    # asyncio sets TCP_NODELAY only where the protocol is named; else the second of two frames waits 40 ms.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    # A restart must not wait for the last connections' TIME_WAIT. Two servers on one port remain impossible:
    # that would take SO_REUSEPORT, with which a second copy starts silently and gets half of the clients.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            fix = f"stop what listens there (ss -ltnp 'sport = :{port}'), or choose another port"
            raise ListenError(where, "the port is in use", fix) from None
        raise ListenError(where, error.strerror or str(error), "use an address of this host") from None
    return listener


def _unix_socket(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        # The service believes what this socket's user says about the client.
        with open_to(GROUP_AS_WELL):
            listener.bind(str(path))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        fix = "make its directory, and let the service's user write there"
        raise ListenError(str(path), error.strerror or str(error), fix) from None
    except ListenError:
        listener.close()
        raise
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket file that a killed process has left behind."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ListenError(str(path), "it is not a socket", "choose another path, or remove it")
    except FileNotFoundError:
        return
    if _is_alive(path):
        raise ListenError(str(path), "the socket is in use", "stop the process that listens there (ss -lxp)")
    path.unlink()


def _is_alive(path: Path) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:
        # Must not wait: a process that is alive but stuck has a full backlog, and is alive all the same (EAGAIN).
        probe.setblocking(False)
        return probe.connect_ex(str(path)) != errno.ECONNREFUSED
