"""The rendered nginx site, really run, in front of an application that tells what it sees."""

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from generator.readers.stub_certificate import stub_pair
from tests.run.stage import (
    DOMAIN,
    NAME,
    REPOSITORY,
    SBIN,
    Stage,
    as_systemd,
    deployed,
    needed,
    nginx,
    process,
    wait_until,
)

pytestmark = pytest.mark.slow

FORGED = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "X-Forwarded-Proto": "gopher", "X-Request-ID": "mine"}


@contextlib.contextmanager
def probed(**settings: Any) -> Iterator[Stage]:
    """The site in front of the probe."""
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory), **settings)
        source = f"set -a; . {stage.root}/etc/{NAME}/.env; exec {sys.executable} -m service"
        application = {"WEBSOCKET_APP": "probe:probe", "WEBSOCKET_APP_DIRECTORY": str(Path(__file__).parent)}
        environment = {"PATH": SBIN, "PYTHONPATH": str(REPOSITORY), **application}
        with (
            process(stage, "probe", ["/bin/sh", "-c", source], env=environment, cwd=directory),
            nginx(stage),
        ):
            wait_until(lambda: stage.get("/health")[0] != 502, "the probe listens")
            yield stage


def seen(stage: Stage, headers: dict[str, str]) -> tuple[str, str, dict[str, list[str]]]:
    """Client and scheme as the application has them, and all header fields."""
    status, _, body = stage.get("/", headers=headers)
    assert status == 200, body
    told = json.loads(body)
    fields: dict[str, list[str]] = {}
    for name, value in told["headers"]:
        fields.setdefault(name, []).append(value)
    return told["client"], told["scheme"], fields


def test_more_clients_can_wait_for_nginx_beside_any_site() -> None:
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory), tls="files")
        queue = (REPOSITORY / "bench" / "queue.conf").read_text()
        (stage.root / "etc/nginx/sites-enabled/zz-queue").write_text(stage.moved(queue))
        with nginx(stage):
            said = subprocess.run([needed("ss"), "-Hltn"], capture_output=True, text=True, check=True).stdout
            longest = {line.split()[3]: line.split()[2] for line in said.splitlines()}
            assert [longest[f"127.0.0.1:{port}"] for port in (stage.http_port, stage.https_port)] == ["4096", "4096"]
            assert stage.get("/elsewhere", encrypted=True)[0] == 404  # of our site: it is still the first


@pytest.mark.parametrize(("tls", "scheme"), [("off", "http"), ("files", "https")])
def test_the_application_sees_the_real_client_whatever_it_claims(tls: str, scheme: str) -> None:
    with probed(tls=tls) as stage:
        client, told_scheme, fields = seen(stage, FORGED)
    assert (client, told_scheme) == ("127.0.0.1", scheme)
    assert fields["x-forwarded-for"] == ["127.0.0.1"]
    assert fields["x-real-ip"] == ["127.0.0.1"]
    assert fields["x-forwarded-proto"] == [scheme]
    assert fields["host"] == [DOMAIN]
    (request_id,) = fields["x-request-id"]
    assert len(request_id) == 32


def test_a_trusted_proxy_says_who_the_client_is_and_the_client_itself_cannot() -> None:
    with probed(nginx={"trusted_proxies": ["127.0.0.1"]}) as stage:
        client, _, fields = seen(stage, {"X-Forwarded-For": "6.6.6.6, 203.0.113.9"})
    assert client == "203.0.113.9"
    assert fields["x-forwarded-for"] == ["203.0.113.9"]


def test_only_a_handshake_is_upgraded() -> None:
    with probed() as stage:
        for fields in ({}, {"Upgrade": "h2c"}):
            assert "upgrade" not in seen(stage, fields)[2].get("connection", [])
        # RFC 9110, section 7.8: a list, and in any case.
        assert seen(stage, {"Upgrade": "h2c, WebSocket"})[2]["connection"] == ["upgrade"]


def test_a_request_that_offers_another_protocol_keeps_its_body() -> None:
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory), app={"callable": "main:app"})
        (stage.root / "code/app").mkdir()
        (stage.root / "code/app/main.py").write_text(APPLICATION)
        with nginx(stage), as_systemd(stage):
            for fields in ({}, {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}):
                assert stage.ask("POST", "/", b"hello", headers=fields)[2] == "hello"


def test_one_address_cannot_knock_faster_than_allowed() -> None:
    with probed(limits={"handshakes_per_second": 1, "handshake_burst": 2}) as stage:
        assert [stage.get("/")[0] for _ in range(5)] == [200, 200, 200, 429, 429]


APPLICATION = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": (await receive())["body"]})
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
"""


@pytest.mark.parametrize(
    "settings", [{}, {"app": {"callable": "main:app"}}], ids=["notification center", "application"]
)
def test_a_rate_for_all_of_nginx_leaves_no_websocket_open_whose_service_is_gone(settings: dict[str, Any]) -> None:
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory), **settings)
        (stage.root / "etc/nginx/sites-enabled/rate").write_text("limit_rate 10k;\n")
        (stage.root / "code/app").mkdir()
        (stage.root / "code/app/main.py").write_text(APPLICATION)
        with nginx(stage), as_systemd(stage) as service, stage.connect() as client:
            service.kill()
            wait_until(lambda: not client.read(0.1), "the client's connection ends", deadline_s=10)


def test_health_is_for_those_who_are_listed() -> None:
    with probed(nginx={"health_from": ["192.0.2.1"]}) as stage:
        assert stage.get("/health")[0] == 403


def test_a_large_or_slow_request_is_no_burden() -> None:
    with probed() as stage:
        assert stage.get("/", headers={"X-Large": "x" * 42_000})[0] == 431
        assert stage.get("/", headers={"Content-Length": "20000"})[0] == 413


LONG_FIELDS = {
    "cookies of 9 kB": {"Cookie": "a=" + "x" * 9_000},
    "cookies of 32 KiB": {"Cookie": "a=" + "x" * 32_766},
    "Negotiate": {"Authorization": "Negotiate " + "x" * 16_000},
    "a page with a long address": {"Referer": "https://example.com/?" + "x" * 16_000},
    "all at once": {
        "Cookie": "a=" + "x" * 32_766,
        "Authorization": "Negotiate " + "x" * 16_000,
        "Referer": "https://example.com/?" + "x" * 16_000,
    },
}


@pytest.mark.parametrize("fields", LONG_FIELDS.values(), ids=LONG_FIELDS)
def test_long_fields_of_a_browser_are_let_through_and_kept_from_the_service(fields: dict[str, str]) -> None:
    with probed() as stage:
        _, _, received = seen(stage, {**fields, "Origin": "https://example.com"})
        assert received["origin"] == ["https://example.com"]
        assert not {"cookie", "referer", "authorization"} & received.keys()


def test_a_token_reaches_the_service() -> None:
    with probed() as stage:
        assert seen(stage, {"Authorization": "bearer eyJ"})[2]["authorization"] == ["bearer eyJ"]
        status, _, body = stage.ask("POST", "/publish/a", b"x", headers={"Authorization": "Bearer e", "Cookie": "a=b"})
        fields = dict(json.loads(body)["headers"])
        assert (status, fields["authorization"], fields["content-length"]) == (200, "Bearer e", "1")
        assert "cookie" not in fields


def test_a_head_that_is_too_long_has_a_line_in_the_log() -> None:
    with probed() as stage:
        assert stage.get("/", headers={"Cookie": "a=secret" + "x" * 42_000})[0] == 431
        log = stage.root / f"var/log/nginx/{NAME}_access.log"
        wait_until(lambda: '"status":431' in log.read_text(), "a line")
        assert "secret" not in log.read_text()


def test_the_log_has_one_line_of_json_per_connection_without_the_query() -> None:
    with probed() as stage:
        stage.get("/?token=secret", headers={"User-Agent": 'a "quoted" agent'})
        log = stage.root / f"var/log/nginx/{NAME}_access.log"
        wait_until(lambda: log.read_text().count("\n") == 1, "a line")
        line = json.loads(log.read_text())
    assert (line["address"], line["path"], line["status"]) == ("127.0.0.1", "/", 200)
    assert line["agent"] == 'a "quoted" agent'
    assert "secret" not in str(line)


def _has_lines(log: Path, lines: int) -> bool:
    return log.read_text().count("\n") >= lines


@pytest.mark.parametrize("tls", ["off", "files"])
def test_the_log_says_how_much_came_and_went_over_a_websocket(tls: str) -> None:
    with TemporaryDirectory(prefix="ws-") as directory, deployed(Path(directory), tls=tls) as (stage, _):
        log = stage.root / f"var/log/nginx/{NAME}_access.log"
        sizes = []
        for messages in (1, 101):
            lines = 1 + log.read_text().count("\n")
            with stage.connect() as client:
                client.text()  # the welcome
                client.register("a")
                frames = [client.send("a", "x" * 1000) for _ in range(messages)]
                assert [client.text() for _ in frames] == frames
            wait_until(partial(_has_lines, log, lines), "a line")
            line = json.loads(log.read_text().splitlines()[-1])
            assert line["status"] == 101
            sizes.append((line["bytes_in"], line["bytes_out"]))
        (in_1, out_1), (in_101, out_101) = sizes
        length = len(frames[0])
        # A client masks its frames: eight bytes of head for what has this length, four for the service's.
        assert in_101 - in_1 == 100 * (length + 8)
        assert out_101 - out_1 == 100 * (length + 4)
        stage.get("/nothing")
        wait_until(lambda: '"path":"/nothing"' in log.read_text(), "a line")
        refused = json.loads(log.read_text().splitlines()[-1])
        assert (refused["status"], refused["service_status"]) == (404, "")
        assert 20 < refused["bytes_in"] < 500


@contextlib.contextmanager
def bare(**settings: Any) -> Iterator[Stage]:
    """The site with nothing behind it, and the placeholder that stands in for Let's Encrypt's first certificate."""
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory), **settings)
        tls = stage.root / f"etc/{NAME}/tls"
        tls.mkdir()
        for name in ("fullchain.pem", "privkey.pem"):
            (tls / name).write_text(stub_pair())
        with nginx(stage):
            yield stage


def test_the_challenge_of_lets_encrypt_is_served_and_everything_else_redirected() -> None:
    with bare(tls="letsencrypt") as stage:
        challenge = stage.root / f"var/lib/{NAME}-acme/.well-known/acme-challenge/token"
        challenge.parent.mkdir(parents=True)
        challenge.write_text("the proof")
        assert stage.get("/.well-known/acme-challenge/token", encrypted=False)[::2] == (200, "the proof")
        assert stage.get("/.well-known/acme-challenge/none", encrypted=False)[0] == 404
        assert stage.get("/.well-known/other", encrypted=False)[0] == 308
        assert stage.get("/")[0] == 502


def test_each_of_several_names_is_the_site_and_a_browser_is_led_to_the_first() -> None:
    names = (DOMAIN, "www.example.com", "chat.example.org")
    with bare(tls="files", domain=names, nginx={"default_server": True}) as stage:
        for name in (*names, "other.example.org"):
            host = {"Host": name}
            if name in names:
                assert stage.get("/nowhere", headers=host)[::2] == (404, "WebSocket endpoint only")
                status, fields, _ = stage.get("/some/path", encrypted=False, headers=host)
                assert (status, fields["location"]) == (308, f"https://{DOMAIN}/some/path")
            else:
                with pytest.raises(http.client.RemoteDisconnected):
                    stage.get("/nowhere", headers=host)


def test_who_names_no_site_gets_no_answer_where_nginx_is_ours() -> None:
    with bare(tls="files", nginx={"default_server": True}) as stage:
        for encrypted in (False, True):
            with pytest.raises((ConnectionError, ssl.SSLError)):
                stage.get("/", encrypted=encrypted, headers={"Host": "192.0.2.1"})
        assert stage.get("/x")[0] == 404


def test_old_tls_is_refused() -> None:
    with bare(tls="files") as stage, contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", stage.https_port)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            context.wrap_socket(plain, server_hostname=DOMAIN)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may raise the limit of open files")
def test_nginx_may_open_as_many_files_as_rendered() -> None:
    with bare() as stage:
        # A worker sets its limit after it was forked.
        wait_until(lambda: _open_files_of_a_worker(stage) == "5000", "a worker has its limit")


def _open_files_of_a_worker(stage: Stage) -> str | None:
    """None where there is no worker yet, or nginx has not written who it is."""
    pid = stage.root / "nginx.pid"
    nginx = int(pid.read_text() or 0) if pid.exists() else 0
    for directory in Path("/proc").iterdir():
        if nginx and directory.name.isdecimal() and _parent(directory) == nginx:
            [limit] = re.findall(r"^Max open files +(\d+)", (directory / "limits").read_text(), re.MULTILINE)
            return str(limit)
    return None


def _parent(directory: Path) -> int:
    with contextlib.suppress(OSError):
        return int((directory / "stat").read_text().rpartition(")")[2].split()[1])
    return 0
