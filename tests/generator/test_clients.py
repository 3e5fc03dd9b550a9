"""How many connections a switch ends, and in what way, as it is told before."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from generator.config.load import load_text
from generator.host import clients
from generator.host.clients import connections, deaf, farewell, health
from generator.host.store import Generation, Store
from generator.host.switch import Side, plan
from generator.program import AS_ROOT
from generator.rendering.render import render

NAME = "queue-websocket"


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"connections": 12, "mailbox": "failing"}' if self.path == "/health" else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def port() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def installed(root: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("shutil.chown", lambda *_: None)  # only root may give files away
    store = Store(NAME, root)
    bundle = render(load_text("domain: a.org\ndrain: {window: 6}\n", "deploy.yaml").deploy)
    (store.home / "runtimes/r1").mkdir(parents=True)
    store.add(bundle, Generation(1, "r1", 0.0, "uvicorn", "systemd", f"127.0.0.1:{port}", "a.org", "off"))
    store.make_current(1)
    return store


def test_a_restart_sends_all_away_within_the_window(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store, side = installed(tmp_path, port, monkeypatch), Side(NAME, "systemd", "r1")
    told = "12 live connections end with it, within 6 s, and come back."
    assert farewell(store, plan(side, Side(NAME, "systemd", "r2"))) == told


def test_a_reload_sends_those_of_each_worker_away_in_its_turn(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = installed(tmp_path, port, monkeypatch)
    before, after = (Side(NAME, "systemd", runtime, replaces_workers=True) for runtime in ("r1", "r2"))
    told = "12 live connections end with it, those of each worker in its turn, within 6 s, and come back."
    assert farewell(store, plan(before, after)) == told


@pytest.mark.parametrize("reloads", [False, True])
def test_what_keeps_clients_ends_none(
    reloads: bool, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = installed(tmp_path, port, monkeypatch)
    before, after = (Side(NAME, "systemd", each, replaces_workers=reloads, keeps="1") for each in ("r1", "r2"))
    assert farewell(store, plan(before, after)) == "0 of 12 live connections end with it."


def test_where_nobody_answers_or_nothing_is_installed_nobody_can_be_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert connections(Store("other", tmp_path)) == 0
    assert connections(installed(tmp_path, 1, monkeypatch)) is None


def test_the_service_is_asked_whether_it_can_store_what_is_sent_to_mailboxes(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert health(installed(tmp_path, port, monkeypatch))["mailbox"] == "failing"
    assert health(Store("other", tmp_path)) == {}


def test_a_port_on_which_nothing_listens_is_told_with_what_has_changed_the_listener(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, others, store = tmp_path / "own.conf", tmp_path / "others.conf", Store("chat", tmp_path)
    own.write_text("[Socket]\nListenStream=\n")
    others.write_text("[Socket]\nBacklog=10\n")
    monkeypatch.setattr(clients, "drop_ins", lambda _: [str(others), str(own)])
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        assert deaf(store, address) is None
    what = f"nothing listens on {address}"
    assert str(deaf(store, address)).startswith(f"{what}: {own} changes that, and is not ours; remove it, then `")
    for harmless in ("[Socket]\nListenStream=127.0.0.1:9555\n", None):
        own.unlink() if harmless is None else own.write_text(harmless)
        assert str(deaf(store, address)) == f"{what}; `{AS_ROOT} install`"
    assert deaf(store, "unix:/run/chat/ws.sock") is None
    assert deaf(store, "203.0.113.9:8765") is None  # an address that comes later
