"""An application of one's own on a host: installed, used through nginx, changed under load, broken, taken back."""

import contextlib
import http.client
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from zipfile import ZipFile

import pytest
from websockets.sync.client import connect

from tests.hosts.console import DOMAIN, NAME, PATIENCE_S, Console
from tests.run.stage import wait_until

# Of FastAPI's own documentation, more or less.
SHOP = """
import asyncio
import time
from pathlib import Path

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

app = FastAPI()
counted = Path("/var/lib/queue-websocket/counted")


@app.get("/")
async def home(request: Request):
    return {"version": VERSION, "from": request.client.host, "url": str(request.url)}


@app.get("/healthz")
async def health():
    return {"ok": True}


@app.get("/fail")
async def fail():
    raise RuntimeError("no luck")


@app.post("/count")
async def count(request: Request, background: BackgroundTasks):
    body = await request.body()
    background.add_task(count_later)
    return {"bytes": len(body)}


def count_later():
    time.sleep(0.05)
    with counted.open("a") as file:
        file.write(".")


@app.get("/events")
async def events():
    async def numbers():
        for number in range(3):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(0.2)
    return StreamingResponse(numbers(), media_type="text/event-stream")


@app.websocket("/ws")
async def echo(websocket: WebSocket):
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)
"""
REQUIREMENTS = "fastapi==0.118.0\nuvicorn[standard]==0.37.0\n"
WHEEL = "dist/prices-1-py3-none-any.whl"
IN_THE_WHEEL = {
    "prices.py": "",
    "prices-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: prices\nVersion: 1\n",
    "prices-1.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "prices-1.dist-info/RECORD": "prices.py,,\n",
}


class Shop:
    """The project of a person, and those who use it from another machine."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.home = f"{console.host.home}/shop"
        self.settings: dict[str, Any] = {
            "workers": 2,
            "socket": f"/run/{NAME}/ws.sock",
            "app": {
                "callable": "shop.main:app",
                "path": self.home,
                "health": "/healthz",
                "static": {"/static/": "static"},
            },
        }
        self.write("requirements.txt", f"{REQUIREMENTS}./{WHEEL}\n")
        self.write(WHEEL, "")
        with ZipFile(console.host.root / self.home[1:] / WHEEL, "w") as wheel:
            for name, text in IN_THE_WHEEL.items():
                wheel.writestr(name, text)
        self.write("static/hello.txt", "hello\n")
        self.write("secret.txt", "secret\n")
        self.write("shop/__init__.py", "")
        self.version("one")

    def write(self, path: str, text: str) -> None:
        self.console.write(f"{self.home}/{path}", text)

    def version(self, name: str, code: str = SHOP) -> None:
        self.write("shop/main.py", code.replace("VERSION", repr(name)) + "\nimport prices\n")

    def install(self, code: int = 0, **app: object) -> str:
        return self.console.install(code=code, **{**self.settings, "app": {**self.settings["app"], **app}})

    def ask(self, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        """A request of its own connection, by way of nginx."""
        connection = http.client.HTTPConnection(self.console.host.address, 80, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Host": DOMAIN})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def runs(self) -> str:
        """The version that answers."""
        status, body = self.ask("/")
        assert status == 200, body
        return str(json.loads(body)["version"])

    @contextlib.contextmanager
    def under_load(self) -> Iterator[Counter[object]]:
        """Requests one after another meanwhile; how each ended."""
        ended: Counter[object] = Counter()
        stopped = threading.Event()

        def go_on() -> None:
            while not stopped.is_set():
                try:
                    ended[self.ask("/count", "POST", b"x")[0]] += 1
                except (OSError, http.client.HTTPException) as error:
                    ended[repr(error)] += 1

        threads = [threading.Thread(target=go_on) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            yield ended
        finally:
            stopped.set()
            for thread in threads:
                thread.join()


@pytest.fixture
def shop(empty: Console) -> Shop:
    return Shop(empty)


def test_an_application_is_installed_used_changed_broken_and_taken_back(shop: Shop) -> None:
    said = shop.install()
    assert f"Generation 1 of {NAME} runs: http://{DOMAIN}/" in said
    status, body = shop.ask("/")
    assert (status, json.loads(body)["version"], json.loads(body)["url"]) == (200, "one", f"http://{DOMAIN}/")
    assert json.loads(body)["from"] != "127.0.0.1"
    assert shop.ask("/static/hello.txt") == (200, b"hello\n")
    assert shop.ask("/count", "POST", b"x" * 1_000_000) == (200, b'{"bytes":1000000}')
    assert shop.ask("/count", "POST", b"x" * 1_048_577)[0] == 413
    assert shop.ask("/events") == (200, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
    assert Counter(shop.ask("/fail")[0] for _ in range(100)) == {500: 100}  # whose connections are closed at once
    with connect(f"ws://{DOMAIN}/ws", address=(shop.console.host.address, 80), proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=PATIENCE_S) == "hello"
    assert "running, uvicorn under systemd" in shop.console.status()
    assert "Nothing to do" in shop.install()

    # Changed under load: the main process stays, and no request fails.
    before = shop.console.main_pids()[f"{NAME}.service"]
    shop.version("two")
    assert "the application: " in shop.console.wsbundle("plan", code=3)
    began = time.monotonic()
    with shop.under_load() as ended:
        shop.install()
        seconds = time.monotonic() - began
    print(f"changed in {seconds:.1f} s, {dict(ended)}")
    assert set(ended) == {200}
    assert shop.runs() == "two"
    assert shop.console.main_pids()[f"{NAME}.service"] == before
    # What is done once a request has been answered is done, too, by a worker that was about to go.
    counted = f"/var/lib/{NAME}/counted"
    wait_until(lambda: len(shop.console.run("cat", counted)) == 1 + ended[200], "every request was counted")
    # Root's own, for its user to read; whatever its modes were, nobody else can.
    secret = f"/opt/{NAME}/current/app/secret.txt"
    assert shop.console.run("stat", "-c", "%a %U:%G", secret).strip() == f"640 root:{NAME}"
    assert "Permission denied" in shop.console.run("runuser", "-u", "nobody", "--", "cat", secret, check=False)

    # Broken in each of these ways: the host serves what it served.
    shop.version("three", f"import nowhere\n{SHOP}")
    said = shop.install(code=1)
    assert "shop/main.py:1: ModuleNotFoundError: No module named 'nowhere'" in said
    assert "The deployment was not touched" in said
    shop.version("three", SHOP.replace('return {"ok": True}', 'raise RuntimeError("no database")'))
    said = shop.install(code=1)
    assert "GET /healthz is answered with 500" in said, said
    assert "generation 2 runs again" in said
    assert shop.runs() == "two"

    shop.console.wsbundle("rollback")
    assert shop.runs() == "one"
    shop.console.host.reboot()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            assert shop.runs() == "one"
            break
        except (OSError, AssertionError):
            assert time.monotonic() < deadline
    shop.console.wsbundle("uninstall", "--purge")
    assert shop.console.current() == ""


DJANGO = {
    "requirements.txt": """
Django==5.2.7
channels==4.3.1
psycopg[binary]==3.2.10
uvicorn==0.37.0
websockets==15.0.1
""",
    "manage.py": """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_of_notes.settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "site_of_notes/__init__.py": "",
    "site_of_notes/settings.py": f"""
import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["{DOMAIN}"]
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.admin",
                  "django.contrib.messages", "django.contrib.sessions", "django.contrib.staticfiles", "notes"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
ROOT_URLCONF = "site_of_notes.urls"
ASGI_APPLICATION = "site_of_notes.asgi.application"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.postgresql", "NAME": "notes", "HOST": "/run/postgresql"}}}}
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "collected"
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
TEMPLATES = []
SILENCED_SYSTEM_CHECKS = ["admin.E403", "admin.E408", "admin.E409", "admin.E410"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
""",
    "site_of_notes/urls.py": """
from django.http import HttpResponse, JsonResponse
from django.urls import path
from notes.models import Note

def notes(request):
    if request.method == "POST":
        Note.objects.create(text=request.body.decode())
    return JsonResponse({"notes": [note.text for note in Note.objects.order_by("id")], "https": request.is_secure()})

urlpatterns = [path("notes", notes), path("healthz", lambda request: HttpResponse("ok"))]
""",
    "site_of_notes/asgi.py": """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_of_notes.settings")
from channels.generic.websocket import WebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import path

class Echo(WebsocketConsumer):
    def receive(self, text_data=None, bytes_data=None):
        self.send(text_data)

application = ProtocolTypeRouter(
    {"http": get_asgi_application(), "websocket": URLRouter([path("ws", Echo.as_asgi())])}
)
""",
    "notes/__init__.py": "",
    "notes/models.py": """
from django.db import models

class Note(models.Model):
    text = models.TextField()
""",
    "notes/migrations/__init__.py": "",
    "notes/migrations/0001_initial.py": """
from django.db import migrations, models

class Migration(migrations.Migration):
    initial = True
    fields = [("id", models.BigAutoField(primary_key=True)), ("text", models.TextField())]
    operations = [migrations.CreateModel("Note", fields)]
""",
}
_SECOND_MIGRATION = """
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("notes", "0001_initial")]
    operations = [migrations.RunSQL("select 1 / 0")]
"""
_REACH = """
import socket, sys
try:
    socket.create_connection(("10.0.0.1", 80), 5)
except OSError as error:
    sys.exit(str(error))
"""
_DATABASE = f"""
echo "127.0.0.1 {DOMAIN}" >>/etc/hosts
apt-get -q -y install --no-install-recommends postgresql >/dev/null
systemctl start postgresql
runuser -u postgres -- createuser {NAME}
runuser -u postgres -- createdb --owner={NAME} notes
cd /root
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN=x \\
    -addext subjectAltName=DNS:{DOMAIN} -keyout key.pem -out file.pem
"""


def test_django_with_channels_migrates_postgresql_serves_static_files_and_is_taken_back(
    empty: Console,
) -> None:
    empty.run("sh", "-e", "-c", _DATABASE, DEBIAN_FRONTEND="noninteractive")
    home = f"{empty.host.home}/notes"
    for path, text in DJANGO.items():
        empty.write(f"{home}/{path}", text)
    settings: dict[str, Any] = {
        "tls": "files",
        "certificate": {"file": "/root/file.pem", "key": "/root/key.pem"},
        "env": {"SECRET_KEY": "for a test"},
        "app": {
            "callable": "site_of_notes.asgi:application",
            "path": home,
            "health": "/healthz",
            "build": ["python manage.py collectstatic --noinput"],
            "before": ["python manage.py migrate --noinput"],
            "static": {"/static/": "collected"},
        },
    }
    empty.install(**settings)
    trusts_all = ssl.create_default_context()
    trusts_all.check_hostname, trusts_all.verify_mode = False, ssl.CERT_NONE

    def ask(path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(empty.host.address, timeout=PATIENCE_S, context=trusts_all)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Host": DOMAIN})
            answer = connection.getresponse()
            return answer.status, answer.read()

    assert ask("/notes", "POST", b"one") == (200, b'{"notes": ["one"], "https": true}')
    status, css = ask("/static/admin/css/base.css")
    assert (status, b"DJANGO" in css.upper()) == (200, True)
    address = (empty.host.address, 443)
    with connect(f"wss://{DOMAIN}/ws", address=address, ssl=trusts_all, proxy=None, open_timeout=PATIENCE_S) as client:
        client.send("hello")
        assert client.recv(timeout=PATIENCE_S) == "hello"
    findings = json.loads(empty.wsbundle("doctor", "--format", "json", code=3))["checks"]
    assert [each["check"] for each in findings if each["state"] == "failed"] == []

    # A migration that fails changes nothing.
    empty.write(f"{home}/notes/migrations/0002_more.py", _SECOND_MIGRATION)
    said = empty.install(code=1, **settings)
    assert "division by zero" in said
    assert "The deployment was not touched" in said
    assert ask("/notes") == (200, b'{"notes": ["one"], "https": true}')
    # What it may not do without saying so: nothing of the network, and no file of its own code.
    empty.write(f"{home}/notes/migrations/0002_more.py", "")
    empty.write(f"{home}/reach.py", _REACH)
    refused = "python reach.py"
    said = empty.install(code=1, **{**settings, "app": {**settings["app"], "before": [refused]}})
    assert "Network is unreachable" in said or "Address family not supported" in said

    # What a migration has done stays done when code, requirements and settings are taken back, and when all is removed.
    update = _SECOND_MIGRATION.replace("select 1 / 0", "update notes_note set text = 'changed'")
    empty.write(f"{home}/notes/migrations/0002_more.py", update)
    views = "site_of_notes/urls.py"
    empty.write(f"{home}/{views}", DJANGO[views].replace('{"notes":', '{"all":'))
    empty.install(**settings)
    assert ask("/notes") == (200, b'{"all": ["changed"], "https": true}')
    empty.wsbundle("rollback")
    assert ask("/notes") == (200, b'{"notes": ["changed"], "https": true}')
    empty.wsbundle("uninstall", "--purge")
    assert empty.current() == ""
    stored = empty.run("runuser", "-u", "postgres", "--", "psql", "-tAc", "select text from notes_note", "notes")
    assert stored.splitlines()[-1] == "changed"


_LEAST = """
async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        await send({"type": (await receive())["type"] + ".complete"})
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})
"""
_LATE = """
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sleep 5
"""
_MOUNT = """
[Unit]
Requires=late.service
After=late.service
[Mount]
What=/var/media
Where=/srv/media
Type=none
Options=bind,nofail
[Install]
WantedBy=multi-user.target
"""


def test_a_directory_that_it_writes_to_is_waited_for_at_boot_and_missed_when_it_is_gone(empty: Console) -> None:
    home = f"{empty.host.home}/least"
    empty.write(f"{home}/main.py", _LEAST)
    empty.write("/etc/systemd/system/late.service", _LATE)
    empty.write("/etc/systemd/system/srv-media.mount", _MOUNT)
    empty.run("mkdir", "-p", "/var/media/uploads")
    empty.run("systemctl", "enable", "--now", "srv-media.mount")
    empty.install(
        app={"callable": "main:app", "path": home, "requirements": None}, needs={"write": ["/srv/media/uploads"]}
    )
    empty.host.reboot()
    wait_until(lambda: empty.is_active(NAME), "the service", PATIENCE_S)
    assert empty.run("systemctl", "show", "--property=NRestarts", "--value", NAME) == "0\n"
    empty.status()
    empty.run("rmdir", "/var/media/uploads")
    for words in ("status", "plan", "install"):
        assert "needs.write: there is no directory /srv/media/uploads" in empty.wsbundle(words, code=1)
