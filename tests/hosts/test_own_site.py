"""Below a path, in a site that the operator had already and keeps."""

import contextlib
import http.client
import json
import ssl
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.hosts.console import DOMAIN, NAME, PATIENCE_S, Console
from tests.hosts.test_app import REQUIREMENTS, SHOP

SITE = f"""
server {{
    listen 80;
    listen 443 ssl;
    server_name {DOMAIN};
    ssl_certificate /root/file.pem;
    ssl_certificate_key /root/key.pem;
    location / {{ return 200 mine; }}
}}
"""
LINE = f"include /etc/nginx/{NAME}/*.conf;"
WITH_LINE = SITE.replace("    location", f"    {LINE}\n    location")
CERTIFICATE = f"""
cd /root
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -subj /CN={DOMAIN} \\
    -addext subjectAltName=DNS:{DOMAIN} -keyout key.pem -out file.pem
"""


@pytest.fixture
def site(empty: Console) -> Console:
    """A host whose operator has a site."""
    empty.run("sh", "-e", "-c", CERTIFICATE)
    change(empty, SITE)
    return empty


def change(console: Console, text: str) -> None:
    console.write("/etc/nginx/sites-enabled/www", text)
    console.run("sh", "-e", "-c", "nginx -t && systemctl reload nginx")


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def ask(console: Console, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, str, str]:
    """Status, body and where it leads."""
    connection = http.client.HTTPSConnection(console.host.address, timeout=PATIENCE_S, context=trusting())
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Host": DOMAIN})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.getheader("Location", "")


def test_an_application_lives_in_a_site_of_the_operators_own(site: Console) -> None:
    home = f"{site.host.home}/shop"
    site.write(f"{home}/requirements.txt", REQUIREMENTS)
    site.write(f"{home}/main.py", SHOP.replace("VERSION", "str(request.url_for('health'))"))
    site.write(f"{home}/static/hello.txt", "hello\n")
    app = {"callable": "main:app", "path": home, "health": "/healthz", "static": {"/static/": "static"}}
    settings: dict[str, Any] = {
        "socket": f"/run/{NAME}/app.sock",
        "app": app,
        "nginx": {"path": "/shop", "include": True},
    }

    said = site.install(**settings)
    assert "ask for /shop/healthz past nginx" in said
    assert f"no client comes to it: write `{LINE}` into the `server {{ }}` of your site" in said
    assert ask(site, "/shop/")[:2] == (200, "mine")
    found = json.loads(site.wsbundle("doctor", "--format", "json", code=1))["checks"]
    assert [(each["check"], LINE in each["fix"]) for each in found if each["state"] == "failed"] == [
        ("nginx.include", True)
    ]

    change(site, WITH_LINE)
    assert "running, uvicorn under systemd" in site.status()
    assert "Nothing to do" in site.install(**settings)
    assert ask(site, "/")[:2] == (200, "mine")
    assert ask(site, "/shop?a=1") == (308, ask(site, "/shop?a=1")[1], "/shop/?a=1")
    assert json.loads(ask(site, "/shop/")[1])["version"] == f"https://{DOMAIN}/shop/healthz"
    assert ask(site, "/shop/static/hello.txt")[:2] == (200, "hello\n")
    assert ask(site, "/shop/count", "POST", b"x" * 1_000_000)[:2] == (200, '{"bytes":1000000}')
    assert ask(site, "/shop/count", "POST", b"x" * 1_048_577)[0] == 413
    address = (site.host.address, 443)
    with connect(f"wss://{DOMAIN}/shop/ws", address=address, ssl=trusting(), proxy=None) as client:
        client.send("hello")
        assert client.recv(timeout=PATIENCE_S) == "hello"
    findings = json.loads(site.wsbundle("doctor", "--format", "json", code=3))["checks"]
    assert [each["check"] for each in findings if each["state"] == "failed"] == []

    # A change is proven through the site, with its TLS; one that does not work is undone.
    said = site.install(**{**settings, "limits": {"connections": 500}})
    assert f"runs: https://{DOMAIN}/shop/" in said
    said = site.install(code=1, **{**settings, "nginx": {"path": "/", "include": True}})
    assert "duplicate location" in said

    site.wsbundle("uninstall", "--purge")
    site.run("sh", "-e", "-c", "nginx -t && systemctl reload nginx")
    assert ask(site, "/shop/")[:2] == (200, "mine")


def test_the_notification_center_does_too(site: Console) -> None:
    change(site, WITH_LINE)  # before it is installed
    said = site.install(nginx={"path": "/ws", "include": True})
    assert f"runs: wss://{DOMAIN}/ws by uvicorn" in said
    address = (site.host.address, 443)

    def client() -> ClientConnection:
        return connect(f"wss://{DOMAIN}/ws", address=address, ssl=trusting(), proxy=None)

    text = json.dumps({"recipient_uuid": "bob", "message": "hello"})
    with client() as alice, client() as bob:
        for each in (alice, bob):
            assert "Welcome" in str(each.recv(timeout=PATIENCE_S))
        bob.send(json.dumps({"recipient_uuid": "bob", "message": "connected"}))
        bob.ping().wait(PATIENCE_S)
        alice.send(text)
        assert bob.recv(timeout=PATIENCE_S) == text
    assert ask(site, "/ws/stats")[:2] == (200, "mine")
    assert ask(site, "/ws/publish/bob", "POST", b"{}")[0] != 200
    change(site, WITH_LINE.replace("*.conf", "locations.conf"))  # without the star nginx needs the file
    assert f"let it say `{LINE}`" in site.wsbundle("uninstall", code=1)
    with client() as alice:
        assert "Welcome" in str(alice.recv(timeout=PATIENCE_S))
    change(site, WITH_LINE)
    site.wsbundle("uninstall")
    site.run("nginx", "-t")
