"""Whom a switch sends away: how many connections there are, and how they end."""

import re

from generator.host.store import Store
from generator.host.switch import Switch
from generator.paths import Paths


def farewell(store: Store, todo: Switch) -> str:
    """What happens to the live connections of what runs; only for a switch that ends them."""
    number, window = connections(store), drain_window(store)
    each = "those of each worker in its turn, " if todo.reloads_service else ""
    how_many = "an unknown number of" if number is None else number
    how_long = "a few seconds" if window is None else f"{window} s"
    return f"{how_many} live connections end with it, {each}within {how_long}, and come back."


def connections(store: Store) -> int | None:
    """The number that /health tells, of all workers, asked where nginx asks; None where there is no answer."""
    import http.client
    import json
    import socket

    number = store.current
    if number is None:
        return 0
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
        return int(json.loads(connection.getresponse().read())["connections"])
    except (OSError, ValueError, KeyError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def drain_window(store: Store) -> int | None:
    """Over how many seconds what runs sends its clients away when it stops; None where only root may know."""
    number = store.current
    if number is None:
        return None
    try:
        text = store.pristine(number, Paths(store.name).env).read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"(?m)^WEBSOCKET_DRAIN_WINDOW='(\d+)'", text)
    return int(found[1]) if found else None
