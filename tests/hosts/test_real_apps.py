"""Applications as people have them, from the package index, over TLS; and such as break, each of which is named."""

import contextlib
import http.client
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.hosts.console import DOMAIN, NAME, PATIENCE_S, Console
from tests.hosts.test_own_site import CERTIFICATE, ask, trusting

RUNNER = "uvicorn==0.37.0\nwebsockets==15.0.1\n"

EVENTS = """
import asyncio
from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

async def health(request):
    return JSONResponse({"version": VERSION, "https": request.url.scheme == "https"})

async def events(request):
    async def numbers():
        for number in range(1000):
            yield {"event": VERSION, "data": str(number)}
            await asyncio.sleep(0.1)
    return EventSourceResponse(numbers())

app = Starlette(routes=[Route("/healthz", health), Route("/events", events)])
"""

SOCKET_IO = """
import socketio

server = socketio.AsyncServer(async_mode="asgi")

@server.event
async def connect(sid, environ, auth):
    await server.emit("welcome", {"version": VERSION, "from": environ.get("HTTP_X_FORWARDED_FOR")}, to=sid)

@server.event
async def shout(sid, text):
    await server.emit("heard", text)
    return len(text)

app = socketio.ASGIApp(server, static_files={"/healthz": {"content_type": "text/plain", "filename": "healthz"}})
"""
TALK = f"""
import queue, ssl, sys
import socketio

heard = queue.Queue()
client = socketio.Client(ssl_verify=False, reconnection=False)
client.on("welcome", lambda seen: print(seen["version"], flush=True))
client.on("heard", heard.put)
client.connect("https://{DOMAIN}", transports=sys.argv[1:] or None, wait_timeout=30)
print(client.call("shout", "hello", timeout=30), heard.get(timeout=30), client.transport())
client.disconnect()
"""

# Each breaks in its own way once it is asked to.
PLAIN = """
import asyncio, contextlib, os, signal, threading, time
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def home(request):
    return PlainTextResponse(VERSION)

@contextlib.asynccontextmanager
async def lifespan(app):
    BREAK
    yield

app = Starlette(lifespan=lifespan, routes=[Route("/", home)])
"""
SOUND = "pass"
SLOW = "await asyncio.sleep(600)"
# Seldom enough that systemd does not give it up.
DIES = "asyncio.get_running_loop().call_later(8, os._exit, 3)"
DEAF = """signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=time.sleep, args=(600,)).start()"""
LEAKS = """async def leak():
        while True:
            open("/dev/null").fileno(); kept.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(100))
            await asyncio.sleep(0.1)
    kept = []
    app.state.leak = asyncio.create_task(leak())"""

# What is refused without a need, each in the words in which Python says so.
TRIES = f"""
import ctypes, os, shutil, socket
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

def write(): open("/srv/uploads/a.png", "w")
def network(): socket.create_connection(("127.0.0.1", 80), 2)
def metrics(): open("/proc/meminfo")
def devices(): open("/dev/ttyUSB0")
def chown():
    open("/var/lib/{NAME}/own", "w")
    os.chown("/var/lib/{NAME}/own", os.getuid(), os.getgid())
def library():
    import _ssl
    ctypes.CDLL(shutil.copy(_ssl.__file__, "/var/lib/{NAME}/own.so"))

async def home(request):
    return PlainTextResponse("one")

async def attempt(request):
    globals()[request.path_params["what"]]()
    return PlainTextResponse("allowed")

app = Starlette(routes=[Route("/", home), Route("/try/{{what}}", attempt)])
"""
NEEDED = {
    "write": "needs.write: [/srv/uploads]",
    "network": "needs.network",
    "metrics": "needs.host_metrics: true",
    "devices": "needs.devices: [/dev/ttyUSB0]",
    "chown": "needs.chown: true",
    "library": "needs.exec: true",
}


class App:
    """The project of a person, behind a certificate of theirs."""

    def __init__(self, console: Console, **app: object) -> None:
        self.console = console
        self.home = f"{console.host.home}/project"
        self.settings: dict[str, Any] = {
            "socket": f"/run/{NAME}/app.sock",
            "tls": "files",
            "certificate": {"file": "/root/file.pem", "key": "/root/key.pem"},
            "drain": {"timeout": 4, "window": 1},
            "app": {"callable": "main:app", "path": self.home, **app},
        }
        console.run("sh", "-e", "-c", f"{CERTIFICATE}\necho 127.0.0.1 {DOMAIN} >>/etc/hosts")

    def write(self, path: str, text: str) -> None:
        self.console.write(f"{self.home}/{path}", text)

    def install(self, code: int = 0, **settings: object) -> str:
        return self.console.install(code=code, **{**self.settings, **settings})

    def taken_back_and_removed(self, first: Callable[[], object]) -> None:
        """`first` is what only the first generation does."""
        self.console.wsbundle("rollback")
        first()
        self.console.wsbundle("uninstall", "--purge")
        assert self.console.current() == ""


def test_starlette_sends_events_over_tls_and_a_change_ends_them_in_time(empty: Console) -> None:
    project = App(empty, health="/healthz")
    project.write("requirements.txt", f"starlette==0.48.0\nsse-starlette==3.0.2\n{RUNNER}")
    project.write("main.py", EVENTS.replace("VERSION", "'one'"))
    project.install(workers=2)
    assert json.loads(ask(empty, "/healthz")[1]) == {"version": "one", "https": True}
    assert by_http2(empty, "/healthz") == ('{"version":"one","https":true}', "200 2")
    assert "[warn]" not in empty.run("nginx", "-t")

    def streamed() -> Iterator[str]:
        connection = http.client.HTTPSConnection(empty.host.address, timeout=PATIENCE_S, context=trusting())
        with contextlib.closing(connection):
            connection.request("GET", "/events", headers={"Host": DOMAIN})
            for line in connection.getresponse():
                yield line.decode().strip()

    stream = streamed()
    assert [next(stream) for _ in range(3)] == ["event: one", "data: 0", ""]  # at once, not when all are there
    project.write("main.py", EVENTS.replace("VERSION", "'two'"))
    project.install(workers=2)
    with contextlib.suppress(http.client.HTTPException):  # it was cut after `drain.timeout`
        assert "data: 999" not in list(stream)
    assert next(streamed()) == "event: two"

    def first() -> None:
        assert next(streamed()) == "event: one"

    project.taken_back_and_removed(first)


def by_http2(console: Console, path: str) -> tuple[str, str]:
    """The body, and status and version of HTTP."""
    resolve, url = f"{DOMAIN}:443:{console.host.address}", f"https://{DOMAIN}{path}"
    words = ("curl", "-sk", "--http2", "--resolve", resolve, "-w", "\n%{http_code} %{http_version}", url)
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    body, _, outcome = said.rpartition("\n")
    return body, outcome


def test_socket_io_is_spoken_by_its_own_client_by_polling_and_by_websocket(empty: Console) -> None:
    project = App(empty, health="/healthz")
    project.write("requirements.txt", f"python-socketio[client]==5.14.1\n{RUNNER}")
    project.write("healthz", "ok")
    project.write("main.py", SOCKET_IO.replace("VERSION", "'one'"))
    project.install()
    empty.write("/root/talk.py", TALK)
    python = f"/opt/{NAME}/current/venv/bin/python"

    def talk(*transports: str) -> list[str]:
        return empty.run(python, "-W", "ignore", "/root/talk.py", *transports).splitlines()

    assert talk("polling") == ["one", "5 hello polling"]
    assert talk("websocket") == ["one", "5 hello websocket"]
    project.write("main.py", SOCKET_IO.replace("VERSION", "'two'"))
    project.install(workers=2)
    assert talk("websocket") == ["two", "5 hello websocket"]

    def first() -> None:
        assert talk()[0] == "one"

    project.taken_back_and_removed(first)


@pytest.fixture
def plain(empty: Console) -> App:
    """A sound application that is installed."""
    project = App(empty)
    project.write("requirements.txt", f"starlette==0.48.0\n{RUNNER}")
    becomes(project, "one", SOUND)
    project.install()
    return project


def becomes(project: App, version: str, broken: str) -> None:
    project.write("main.py", PLAIN.replace("VERSION", repr(version)).replace("BREAK", broken))


def findings(console: Console, code: int) -> dict[str, str]:
    said = json.loads(console.wsbundle("doctor", "--only", "name", "--format", "json", code=code))["checks"]
    return {each["check"]: each["seen"] for each in said}


def test_what_breaks_is_undone_or_named(plain: App) -> None:
    console = plain.console
    assert ask(console, "/")[1] == "one"

    # It never begins to serve: undone.
    becomes(plain, "slow", SLOW)
    said = plain.install(code=1, app={**plain.settings["app"], "start": 3})
    assert "the application does not serve after 3 s (app.start), and is ended" in said
    assert "generation 1 runs again" in said
    assert ask(console, "/")[1] == "one"

    # It stops for nobody: the next one takes its place all the same, and the log says what it does.
    becomes(plain, "deaf", DEAF)
    plain.install()
    becomes(plain, "dies", DIES)
    plain.install()
    log = console.run("journalctl", "-o", "cat", "-u", f"{NAME}.service")
    assert "the application has not stopped within 6 s, and is ended: it ignores that its tasks are cancelled" in log

    # It dies after a while, again and again: it is started again, and named.
    wait_for(lambda: findings(console, 3)["name"].startswith("it was started again "))

    # It leaks: it is started again before nothing works any more, and named.
    becomes(plain, "leaks", LEAKS)
    plain.install()
    wait_for(lambda: "opens more than it closes" in findings(console, 3).get("journal", ""))
    plain.console.wsbundle("uninstall", "--purge")


def test_what_an_application_was_refused_is_named_with_the_need_that_allows_it(empty: Console) -> None:
    empty.run("mkdir", "/srv/uploads")
    project = App(empty)
    project.write("requirements.txt", f"starlette==0.48.0\n{RUNNER}")
    project.write("main.py", TRIES)
    project.install()
    assert {what: ask(empty, f"/try/{what}")[0] for what in NEEDED} == dict.fromkeys(NEEDED, 500)
    said = empty.wsbundle("doctor", "--only", "needs", "--format", "json", code=3)
    fixes = {each["check"]: each["fix"] for each in json.loads(said)["checks"]}
    assert [need for need in NEEDED.values() if need not in fixes["refused-needs"]] == []
    needs = {"write": ["/srv/uploads"], "network": ["127.0.0.1"], "exec": True, "host_metrics": True, "chown": True}
    empty.run("chown", NAME, "/srv/uploads")
    project.install(needs=needs)
    allowed = [what for what in NEEDED if ask(empty, f"/try/{what}")[1] == "allowed"]
    assert allowed == [what for what in NEEDED if what != "devices"]  # there is no such one


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 2 * PATIENCE_S
    while True:
        try:
            assert condition()
            return
        except AssertionError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)
