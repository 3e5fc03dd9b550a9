"""The rendered site behind load balancers: their health checks as they send them, and a real HAProxy."""

import contextlib
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.ports import answers, free_port
from tests.run.stage import (
    DEADLINE_S,
    DOMAIN,
    REPOSITORY,
    Client,
    Stage,
    as_systemd,
    needed,
    nginx,
    process,
    wait_until,
)

pytestmark = pytest.mark.slow

# What stands before and after the path, and the name in the TLS handshake. The addresses are those of a target.
CHECKS = {
    "AWS ALB": (
        "GET",
        "HTTP/1.1",
        ["Host: 10.0.0.5:80", "User-Agent: ELB-HealthChecker/2.0", "Connection: close"],
        None,
    ),
    "AWS NLB": ("GET", "HTTP/1.1", ["Host: 10.0.0.5:80", "Connection: close"], None),
    "GCP": ("GET", "HTTP/1.1", ["Host: 10.0.0.5", "User-Agent: GoogleHC/1.0", "Connection: close"], None),
    "GCP, IPv6": ("GET", "HTTP/1.1", ["Host: [fd00::5]:80", "Connection: close"], None),
    "Caddy": ("GET", "HTTP/1.1", ["Host: backend-1:80", "Accept-Encoding: gzip", "Connection: close"], "backend-1"),
    "HAProxy httpchk": ("GET", "HTTP/1.0", [], None),
    "HAProxy httpchk, without a method": ("OPTIONS", "HTTP/1.0", [], None),
    "HEAD": ("HEAD", "HTTP/1.0", [], None),
    "HEAD, with a host": ("HEAD", "HTTP/1.1", ["Host: whatever.example", "Connection: close"], "whatever.example"),
    "our own name": ("GET", "HTTP/1.1", [f"Host: {DOMAIN}", "Connection: close"], DOMAIN),
}


def asked(
    stage: Stage, encrypted: bool, method: str, version: str, fields: list[str], server_name: str | None, path: str
) -> tuple[int, str]:
    """Status and body of a request to the letter; status 0 where the connection ends without an answer."""
    port = stage.https_port if encrypted else stage.http_port
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE_S))
        if encrypted:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname=server_name))
        connection.sendall("\r\n".join([f"{method} {path} {version}", *fields, "", ""]).encode())
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


@contextlib.contextmanager
def served(**settings: Any) -> Iterator[Stage]:
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory), **settings)
        with nginx(stage), as_systemd(stage):
            yield stage


@pytest.mark.parametrize("server", ["uvicorn", "standalone"])
@pytest.mark.parametrize("default_server", [False, True])
@pytest.mark.parametrize("tls", ["off", "files"])
def test_a_health_check_is_answered_whatever_host_it_names(tls: str, default_server: bool, server: str) -> None:
    with served(tls=tls, nginx={"default_server": default_server}, server=server) as stage:
        for encrypted in {False, tls != "off"}:
            for name, check in CHECKS.items():
                status, body = asked(stage, encrypted, *check, path="/health")
                assert (name, status) == (name, 200)
                assert body == ("" if check[0] == "HEAD" else '{"status": "healthy", "connections": 0}')


@pytest.mark.parametrize("default_server", [False, True])
@pytest.mark.parametrize("tls", ["off", "files"])
def test_who_is_not_listed_learns_nothing_of_the_health(tls: str, default_server: bool) -> None:
    with served(tls=tls, nginx={"default_server": default_server, "health_from": ["192.0.2.1"]}) as stage:
        for encrypted in {False, tls != "off"}:
            for name, check in CHECKS.items():
                expected = 0 if default_server and name != "our own name" else 403
                assert (name, asked(stage, encrypted, *check, path="/health")[0]) == (name, expected)


@pytest.mark.parametrize("default_server", [False, True])
@pytest.mark.parametrize("tls", ["off", "files"])
def test_a_client_behind_the_balancer_is_not_taken_for_the_balancer(tls: str, default_server: bool) -> None:
    settings = {"default_server": default_server, "trusted_proxies": ["127.0.0.1"], "health_from": ["127.0.0.1"]}
    with served(tls=tls, nginx=settings) as stage:
        for encrypted in {False, tls != "off"}:
            for name, (method, version, fields, server_name) in CHECKS.items():
                through = [*fields, "X-Forwarded-For: 203.0.113.9"]
                status, _ = asked(stage, encrypted, method, version, through, server_name, path="/health")
                assert (name, status) in ((name, 403), (name, 0))


def test_all_but_health_is_still_for_those_who_name_the_site() -> None:
    with served(tls="files", nginx={"default_server": True}) as stage:
        for encrypted in (False, True):
            for path in ("/", "/publish/alice", "/metrics", "/health/", "/healthy"):
                assert asked(stage, encrypted, *CHECKS["AWS ALB"], path=path)[0] == 0


BALANCER = """
global
    stats socket {root}/haproxy.sock level admin
defaults
    mode http
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout check 2s
    option forwardfor
frontend clients
    bind 127.0.0.1:{port}
    default_backend chosen
backend without-host
    option httpchk GET /health
    server one 127.0.0.1:{http} check inter 200ms
backend with-host
    option httpchk
    http-check send meth GET uri /health ver HTTP/1.1 hdr Host {domain}
    server one 127.0.0.1:{http} check inter 200ms
backend with-another-host
    option httpchk
    http-check send meth HEAD uri /health ver HTTP/1.1 hdr Host balancer.example
    server one 127.0.0.1:{http} check inter 200ms
backend encrypted
    option httpchk
    http-check send meth GET uri /health ver HTTP/1.1 hdr Host {domain}
    server one 127.0.0.1:{https} check check-ssl verify none inter 200ms
backend chosen
    option httpchk
    http-check send meth GET uri /health ver HTTP/1.1 hdr Host {domain}
    server one 127.0.0.1:{chosen} {ssl} check inter 200ms
"""


@contextlib.contextmanager
def balanced(stage: Stage) -> Iterator[int]:
    """HAProxy in front of the site; the port on which it takes clients."""
    port, encrypted = free_port(), stage.deploy.tls != "off"
    text = BALANCER.format(
        root=stage.root, port=port, domain=DOMAIN, http=stage.http_port, https=stage.https_port,
        chosen=stage.https_port if encrypted else stage.http_port, ssl="ssl verify none" if encrypted else "",
    )  # fmt: skip
    if not encrypted:
        text = text.replace(text[text.index("\nbackend encrypted") : text.index("\nbackend chosen")], "")
    with haproxy(stage, text):
        yield port


@contextlib.contextmanager
def haproxy(stage: Stage, text: str) -> Iterator[None]:
    (stage.root / "haproxy.cfg").write_text(text)
    with process(stage, "haproxy", [needed("haproxy"), "-db", "-f", f"{stage.root}/haproxy.cfg"]) as child:
        listener = f"{stage.root}/haproxy.sock"
        wait_until(lambda: answers(listener) or child.poll() is not None, "HAProxy listens")
        assert child.poll() is None, stage.log()
        yield


def states(stage: Stage) -> dict[str, tuple[str, str]]:
    """What HAProxy thinks of each server, and what the last check had; INI while it has not been asked.

    A star in front of that says that the next check is under way. Source: HAProxy's management guide 9.1, check_status.
    """
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(str(stage.root / "haproxy.sock"))
        asking.sendall(b"show stat\n")
        text = b"".join(iter(lambda: asking.recv(65536), b"")).decode()
    names, *rows = (line.split(",") for line in text.splitlines() if line)
    servers = [dict(zip(names, row, strict=False)) for row in rows]
    return {
        row["# pxname"]: (row["status"], row["check_status"].removeprefix("* "))
        for row in servers
        if row["svname"] == "one"
    }


@pytest.mark.parametrize("default_server", [False, True])
@pytest.mark.parametrize("tls", ["off", "files"])
def test_haproxy_finds_the_server_up_and_clients_get_through(tls: str, default_server: bool) -> None:
    settings = {"default_server": default_server, "trusted_proxies": ["127.0.0.1"]}
    with served(tls=tls, nginx=settings) as stage, balanced(stage) as port:
        wait_until(lambda: set(states(stage).values()) == {("UP", "L7OK")}, "HAProxy finds all up")
        raw = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
        with Client(raw, {}) as client:
            assert "Welcome" in client.text()
            client.register("alice")


def test_haproxy_that_is_not_listed_finds_it_down() -> None:
    with served(nginx={"default_server": True, "health_from": ["192.0.2.1"]}) as stage, balanced(stage):
        wait_until(lambda: {state for state, _ in states(stage).values()} == {"DOWN"}, "HAProxy finds all down")


# Says what it was told of where the client is, and by what it has come.
ABOUT_THE_CLIENT = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        seen = f"{scope['client'][0]} {scope['scheme']}".encode()
        length = (b"content-length", b"%d" % len(seen))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": seen})
"""
CLIENT = "X-Forwarded-For: 203.0.113.9"


def test_an_application_learns_of_its_balancer_by_what_a_client_has_come() -> None:
    with application(nginx={"trusted_proxies": ["127.0.0.1"]}) as stage:
        for fields, seen in (
            ([CLIENT, "X-Forwarded-Proto: https"], "203.0.113.9 https"),
            ([CLIENT, "X-Forwarded-Proto: http"], "203.0.113.9 http"),
            (["X-Forwarded-For: 2001:db8::9", "X-Forwarded-Proto: https"], "2001:db8::9 https"),
            ([CLIENT], "203.0.113.9 http"),
            ([CLIENT, "X-Forwarded-Proto: javascript"], "203.0.113.9 http"),
            ([CLIENT, "X-Forwarded-Proto: 9 https"], "203.0.113.9 http"),
            (["X-Forwarded-Proto: https"], "127.0.0.1 http"),
        ):
            head = [f"Host: {DOMAIN}", "Connection: close", *fields]
            assert (fields, asked(stage, False, "GET", "HTTP/1.1", head, None, "/")) == (fields, (200, seen))


def test_a_client_cannot_tell_an_application_that_it_came_by_tls() -> None:
    with application(nginx={"trusted_proxies": ["192.0.2.1"]}) as stage:
        head = [f"Host: {DOMAIN}", "Connection: close", CLIENT, "X-Forwarded-Proto: https"]
        assert asked(stage, False, "GET", "HTTP/1.1", head, None, "/") == (200, "127.0.0.1 http")


def test_an_application_behind_the_proxy_protocol_believes_no_client_that_it_came_by_tls() -> None:
    with application(nginx={"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}) as stage:
        with socket.create_connection(("127.0.0.1", stage.http_port), DEADLINE_S) as connection:
            fields = f"Host: {DOMAIN}\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n"
            connection.sendall(CLAIMS["version 1"] + f"GET / HTTP/1.1\r\n{fields}\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer.endswith(b"203.0.113.9 http")


@pytest.mark.parametrize("default_server", [False, True])
def test_an_application_that_sends_visitors_to_https_answers_a_health_check_all_the_same(default_server: bool) -> None:
    with application(tls="files", nginx={"default_server": default_server}) as stage:
        for encrypted in (False, True):
            for name, check in CHECKS.items():
                said = "" if check[0] == "HEAD" else "127.0.0.1 https"
                assert (name, asked(stage, encrypted, *check, path="/healthz")) == (name, (200, said))


@contextlib.contextmanager
def application(**settings: Any) -> Iterator[Stage]:
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory), app={"callable": "main:app", "health": "/healthz"}, **settings)
        (stage.root / "code/app").mkdir()
        (stage.root / "code/app/main.py").write_text(ABOUT_THE_CLIENT)
        with nginx(stage), as_systemd(stage):
            yield stage


ENCRYPTED = """
global
    stats socket {root}/haproxy.sock level admin
defaults
    mode tcp
    timeout connect 2s
    timeout client 1h
    timeout server 1h
    timeout check 2s
listen chosen
    bind 127.0.0.1:{port}
    option httpchk
    http-check send meth GET uri /health ver HTTP/1.1 hdr Host {domain}
    server one 127.0.0.1:{https} {version} check check-ssl check-sni {domain} verify none inter 200ms
"""


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2"])
def test_a_balancer_that_cannot_read_tls_says_by_the_proxy_protocol_who_the_client_is(version: str) -> None:
    settings = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}
    with served(tls="files", nginx=settings) as stage:
        port = free_port()
        text = ENCRYPTED.format(root=stage.root, port=port, domain=DOMAIN, https=stage.https_port, version=version)
        with haproxy(stage, text):
            wait_until(lambda: set(states(stage).values()) == {("UP", "L7OK")}, "HAProxy finds it up")
            raw = socket.create_connection(("127.0.0.1", port), DEADLINE_S, source_address=("127.0.0.9", 0))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with Client(context.wrap_socket(raw, server_hostname=DOMAIN), {}) as client:
                client.text()
                client.register("alice")
            wait_until(lambda: '"address":"127.0.0.9"' in stage.log(), "the log names the client")


def test_who_does_not_begin_with_the_proxy_protocol_gets_no_answer() -> None:
    with served(nginx={"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}) as stage:
        assert asked(stage, False, *CHECKS["our own name"], path="/health") == (0, "")
        assert stage.get("/health")[0] == 200


# Both of a client at 203.0.113.9. Source: the PROXY protocol, sections 2.1 and 2.2.
CLAIMS = {
    "version 1": b"PROXY TCP4 203.0.113.9 10.0.0.5 50000 80\r\n",
    "version 2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\x0a\0\0\x05\xc3\x50\0\x50",
}


@pytest.mark.parametrize(("trusted", "status"), [("127.0.0.1", 200), ("192.0.2.1", 403)])
@pytest.mark.parametrize("default_server", [False, True])
@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_only_a_trusted_proxy_is_believed_by_the_proxy_protocol(
    claim: bytes, default_server: bool, trusted: str, status: int
) -> None:
    believed = {"proxy_protocol": True, "trusted_proxies": [trusted], "health_from": ["203.0.113.9"]}
    with served(nginx=believed | {"default_server": default_server}) as stage:
        for host in (DOMAIN, "balancer.example"):
            with socket.create_connection(("127.0.0.1", stage.http_port), DEADLINE_S) as raw:
                raw.sendall(claim + f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join(iter(lambda: raw.recv(65536), b""))
            # A default server answers nobody else.
            expected = 0 if default_server and host != DOMAIN and status == 403 else status
            assert int((answer.split() or [b"", b"0"])[1]) == expected


@pytest.mark.parametrize("heading", ["Health check", "At TCP level"])
def test_the_lines_for_haproxy_in_the_docs_are_taken(heading: str, tmp_path: Path) -> None:
    text = (REPOSITORY / "docs/load-balancer.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    (lines,) = re.findall(r"^```haproxy\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        f"defaults\n    mode {'tcp' if 'mode tcp' in lines else 'http'}\n"
        "    timeout connect 2s\n    timeout client 1h\n    timeout server 1h\n"
        f"frontend clients\n    bind 127.0.0.1:{free_port()}\n    default_backend websockets\n{lines}"
    )
    done = subprocess.run(
        [needed("haproxy"), "-c", "-f", str(config)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout
