"""An application behind the rendered site, as a browser has it: nginx and the application are real."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.run.stage import DEADLINE_S, DOMAIN, Stage, as_systemd, nginx

pytestmark = pytest.mark.slow

APPLICATION = """
import asyncio

go_on = asyncio.Event()

async def app(scope, receive, send):
    if scope.get("path") == "/halves":
        fields = [(b"content-length", b"4"), (b"x-accel-buffering", b"no")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"cd"})
    elif scope["type"] == "http":
        if scope["path"] == "/on":
            go_on.set()
        length = int(scope["query_string"] or 0)
        names = b" ".join(name for name, _ in scope["headers"] if name.startswith(b"api"))
        if scope["path"] == "/about":
            names = b"\\n".join(b": ".join(field) for field in scope["headers"])
        fields = [(b"content-length", b"%d" % len(names)), (b"set-cookie", b"a=" + b"x" * length)]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": names})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(len(event["text"]))})
"""
FILES = {"page.html": "text/html", "new.mjs": "text/javascript", "deep/er.mjs": "text/javascript"}


@pytest.fixture(scope="module")
def site() -> Iterator[Stage]:
    with TemporaryDirectory(prefix="ws-") as directory:
        limits = {"handshakes_per_second": 1, "handshake_burst": 10, "header_timeout": 1}
        stage = Stage(
            Path(directory),
            app={"callable": "main:app", "static": {"/static/": "files"}},
            nginx={"default_server": True},
            limits=limits,
        )
        code = stage.root / "code/app"
        (code / "files/deep").mkdir(parents=True)
        (code / "main.py").write_text(APPLICATION)
        for name in FILES:
            (code / "files" / name).write_text(name)
        # What a host may have for all sites: less than one of our buffers.
        (stage.root / "etc/nginx/sites-enabled/of-the-host").write_text("proxy_temp_file_write_size 8k;\n")
        with nginx(stage), as_systemd(stage):
            yield stage


@pytest.mark.parametrize("length", [0, 4_096, 15_000])
def test_an_application_may_set_several_cookies(site: Stage, length: int) -> None:
    status, fields, _ = site.get(f"/?{length}")
    assert (status, len(fields["set-cookie"])) == (200, length + 2)


def test_an_answer_with_a_head_of_more_than_16_kib_is_502_and_the_log_says_so(site: Stage) -> None:
    assert site.get("/?17000")[0] == 502
    log = site.root / f"var/log/nginx/{site.deploy.name}_error.log"
    assert "upstream sent too big header" in log.read_text()


def test_an_answer_that_is_not_to_be_buffered_arrives_in_parts(site: Stage) -> None:
    with socket.create_connection(("127.0.0.1", site.http_port), DEADLINE_S) as connection:
        connection.sendall(f"GET /halves HTTP/1.1\r\nHost: {DOMAIN}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while not answer.endswith(b"ab"):
            part = connection.recv(65536)
            assert part
            answer += part
        assert site.get("/on")[0] == 200
        assert b"".join(iter(lambda: connection.recv(65536), b"")) == b"cd"


def test_a_field_with_an_underscore_in_its_name_does_not_arrive(site: Stage) -> None:
    assert site.get("/", headers={"api_key": "a", "api-key": "b"})[2] == "api-key"


def told(site: Stage, head: str) -> list[str]:
    """The fields of a request as they arrive, without those that nginx adds to each."""
    with socket.create_connection(("127.0.0.1", site.http_port), DEADLINE_S) as connection:
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    added = ("x-forwarded-for:", "x-forwarded-proto:", "x-real-ip:", "x-request-id:")
    return [line for line in answer.partition("\r\n\r\n")[2].splitlines() if not line.startswith(added)]


@pytest.mark.parametrize("port", ["", ":80", ":8443"])
@pytest.mark.parametrize("line", ["/about HTTP/1.1", f"http://{DOMAIN}/about HTTP/1.1"])
def test_its_host_is_the_one_that_the_site_was_chosen_by(site: Stage, line: str, port: str) -> None:
    # Which the first line of a request says before its Host does. Source: RFC 9112, section 3.2.2.
    name = "elsewhere.example" if "//" in line else DOMAIN
    seen = told(site, f"GET {line}\r\nHost: {name}{port}\r\n")
    assert seen == [f"host: {DOMAIN}{port}", f"x-forwarded-host: {DOMAIN}{port}"]


def test_a_request_without_a_host_is_for_the_name_that_its_first_line_says(site: Stage) -> None:
    seen = told(site, f"GET http://{DOMAIN}/about HTTP/1.0\r\n")
    assert seen == [f"host: {DOMAIN}", f"x-forwarded-host: {DOMAIN}"]


def test_a_client_is_not_believed_by_what_it_came_and_below_what(site: Stage) -> None:
    own = "Forwarded: host=elsewhere.example\r\nX-Forwarded-Port: 1\r\nX-Forwarded-Prefix: /elsewhere\r\n"
    seen = told(site, f"GET /about HTTP/1.1\r\nHost: {DOMAIN}\r\nX-Forwarded-Host: elsewhere.example\r\n{own}")
    assert seen == [f"host: {DOMAIN}", f"x-forwarded-host: {DOMAIN}"]


def test_an_upload_may_pause_for_longer_than_the_head_of_a_request(site: Stage) -> None:
    head = f"POST /about HTTP/1.1\r\nHost: {DOMAIN}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", site.http_port), DEADLINE_S) as connection:
        connection.sendall(f"{head}a".encode())
        time.sleep(2 * site.deploy.limits.header_timeout)
        connection.sendall(b"b")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")


def test_a_message_is_as_long_as_it_may_be_and_not_longer(site: Stage) -> None:
    longest = site.deploy.limits.message_size
    with connect(f"ws://{DOMAIN}/", address=("127.0.0.1", site.http_port), proxy=None) as client:
        client.send("x" * longest)
        assert client.recv(timeout=DEADLINE_S) == str(longest)
        client.send("x" * (longest + 1))
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=DEADLINE_S)
    assert client.close_code == 1009


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_type_that_browsers_want(site: Stage, name: str) -> None:
    status, fields, body = site.get(f"/static/{name}")
    assert (status, body) == (200, name)
    assert FILES[name] in fields["content-type"]
    assert fields["cache-control"] == "no-cache"


def test_a_module_that_is_not_there_is_not_found(site: Stage) -> None:
    assert site.get("/static/gone.mjs")[0] == 404


def test_a_directory_leads_to_itself_with_a_slash_by_whichever_port_and_scheme_it_was_reached(site: Stage) -> None:
    status, fields, _ = site.get("/static/deep")
    assert (status, fields["location"]) == (301, "/static/deep/")


def test_of_the_protocols_that_a_client_offers_only_websockets_are_counted(site: Stage) -> None:
    # Java's HttpClient offers h2c where there is no TLS.
    offered = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    assert {site.get("/", headers=offered)[0] for _ in range(20)} == {200}
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert 429 in {site.get("/", headers=handshake)[0] for _ in range(20)}
