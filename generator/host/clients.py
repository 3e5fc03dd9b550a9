"""Whom a switch sends away: how many connections there are, and how they end."""

import re
import socket
from pathlib import Path

from generator.host.facts import drop_ins, is_free
from generator.host.store import Store
from generator.host.switch import Switch
from generator.paths import Paths
from generator.program import AS_ROOT
from service.declaration import Fault


def farewell(store: Store, todo: Switch) -> str:
    """What happens to live connections; only for a switch that replaces the processes that have them."""
    if not todo.disconnects:
        number = connections(store)
        all_of_them = "the" if number is None else f"{number}"
        return f"0 of {all_of_them} live connections end with it."
    window = drain_window(store)
    each = "those of each worker in its turn, " if todo.reloads_service else ""
    how_long = "a few seconds" if window is None else f"{window} s"
    if store.current is not None and store.generation(store.current).app:
        return (
            f"Requests under way are answered. WebSockets are closed with 1012, {each}within {how_long}, and come back."
        )
    number = connections(store)
    how_many = "an unknown number of" if number is None else number
    return f"{how_many} live connections end with it, {each}within {how_long}, and come back."


def connections(store: Store) -> int | None:
    """The number of connections of all workers; None if there is no answer."""
    if store.current is None:
        return 0
    told = health(store).get("connections")
    return told if isinstance(told, int) else None


def health(store: Store) -> dict[str, object]:
    """What the service says at /health, asked as nginx does; nothing if it does not answer, or is an application."""
    import http.client
    import json

    number = store.current
    if number is None or store.generation(number).app:
        return {}
    connection = http.client.HTTPConnection("localhost")
    try:
        connection.sock = listener(store.generation(number).listener)
        connection.request("GET", "/health")
        told = json.loads(connection.getresponse().read())
        return told if isinstance(told, dict) else {}
    except (OSError, ValueError, RecursionError, http.client.HTTPException):  # or another program answers
        return {}
    finally:
        connection.close()


def listener(address: str, within_s: float = 5) -> socket.socket:
    """A connection to the service itself, at `unix:PATH` or `HOST:PORT`. Raises: OSError"""
    if not address.startswith("unix:"):
        host, _, port = address.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=within_s)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(within_s)
    try:
        connection.connect(address.removeprefix("unix:"))
    except BaseException:
        connection.close()
        raise
    return connection


def deaf(store: Store, address: str) -> Fault | None:
    """Why programs of this host do not reach a service that runs at its `HOST:PORT`, if they do not."""
    host, _, port = address.rpartition(":")
    if address.startswith("unix:") or not is_free(host.strip("[]"), int(port)):
        return None
    if changed := changed_by(store):
        what = f"nothing listens on {address}: {', '.join(changed)} changes that, and is not ours"
        return Fault(what, f"remove it, then `{AS_ROOT} install`")
    return Fault(f"nothing listens on {address}", f"`{AS_ROOT} install`")


def changed_by(store: Store) -> list[str]:
    """The operator's files that change on what the service listens: an installation leaves them as they are.

    They may be for all sockets, or for all whose names begin alike. Source: systemd.unit(5).
    """
    return [path for path in drop_ins(f"{store.name}.socket") if _replaces_ours(Path(path))]


def _replaces_ours(drop_in: Path) -> bool:
    try:
        # Without a value: what only adds one leaves ours. Source: systemd.socket(5).
        return re.search(r"(?m)^\s*Listen\w+\s*=[ \t]*$", drop_in.read_text(errors="replace")) is not None
    except OSError:  # systemd still names one that is gone, until it is told
        return False


def drain_window(store: Store) -> int | None:
    """Over how many seconds what runs sends its clients away when it stops; None where only root may know."""
    window = variable(store, "WEBSOCKET_DRAIN_WINDOW")
    return None if window is None else int(window)


def variable(store: Store, name: str) -> str | None:
    """A variable of the running service, from its .env; None if it is not there, or only root may read it."""
    number = store.current
    if number is None:
        return None
    try:
        text = store.pristine(number, Paths(store.name).env).read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(rf"(?m)^{name}='([^']*)'", text)
    return found[1] if found else None
