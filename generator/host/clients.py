"""Whom a switch sends away: how many connections there are, and how they end."""

import re

from generator.host.store import Store
from generator.host.switch import Switch


def farewell(store: Store, todo: Switch) -> tuple[str, str]:
    """The number of live connections of what runs, and what becomes of them; only for a switch that ends them."""
    number = connections(store)
    each = "those of each worker in its turn, " if todo.reloads_service else ""
    return number, f"{number} live connections end with it, {each}within {_drain_window(store)} s, and come back."


def connections(store: Store) -> str:
    """The number that /health tells, of all workers, asked where nginx asks."""
    import http.client
    import json
    import socket

    number = store.current
    if number is None:
        return "0"
    listener = store.generation(number).listener
    connection = http.client.HTTPConnection("localhost", timeout=5)
    try:
        if listener.startswith("unix:"):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(listener.removeprefix("unix:"))
        else:
            host, _, port = listener.rpartition(":")
            connection.sock = socket.create_connection((host.strip("[]"), int(port)), timeout=5)
        connection.request("GET", "/health")
        return str(json.loads(connection.getresponse().read())["connections"])
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return "unknown"
    finally:
        connection.close()


def _drain_window(store: Store) -> str:
    """Over how many seconds what runs sends its clients away when it stops."""
    number = store.current
    text = "" if number is None else store.pristine(number, f"etc/{store.name}/.env").read_text(encoding="utf-8")
    found = re.search(r"(?m)^WEBSOCKET_DRAIN_WINDOW='(\d+)'", text)
    return found[1] if found else "a few"
