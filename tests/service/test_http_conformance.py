"""What scripts and programs of the host can rely on over HTTP, whichever way the service was started."""

import contextlib
import http.client
import importlib.metadata
import io
import json
import re
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.mint import add_key, mint
from tests.service.shells import CLOSE, COMMANDS, DEADLINE_S, HANDSHAKE, TEXT, Peer, Shell, reset, running, wait_until

# An opcode that has no meaning: RFC 6455, section 5.2.
RESERVED = 3

PUBLISHING = [name for name in COMMANDS if name != "standalone"]


class Answered(NamedTuple):
    """A response; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: str


class Service(NamedTuple):
    """A running service, and the file of its keys."""

    shell: Shell
    keys: str

    def ask(self, method: str, path: str, body: bytes = b"", **fields: str) -> Answered:
        """One request; `fields` have underscores for hyphens."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.shell.port, DEADLINE_S)) as connection:
            connection.request(
                method, path, body or None, {name.replace("_", "-"): value for name, value in fields.items()}
            )
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, headers, response.read().decode())

    def post(self, target: str, body: bytes, *may_send_to: str, **fields: str) -> Answered:
        """Publish as curl does, with a token for these addresses."""
        token = mint(self.keys, "the-script", 60, may_send_to)
        given = {"Content_Type": "application/x-www-form-urlencoded", "Authorization": f"Bearer {token}", **fields}
        return self.ask("POST", f"/publish/{target}", body, **given)

    def metric(self, name: str, label: str = "") -> float:
        """The value of one series."""
        families = text_string_to_metric_families(self.ask("GET", "/metrics").body)
        samples = (sample for family in families for sample in family.samples)
        [value] = [each.value for each in samples if each.name == name and "".join(each.labels.values()) == label]
        return float(value)


@contextlib.contextmanager
def started(command: str, directory: Path, **variables: str) -> Iterator[Service]:
    keys = str(directory / "keys.json")
    add_key(keys, "HS256")
    with running(COMMANDS[command], WEBSOCKET_KEYS=keys, **variables) as shell:
        yield Service(shell, keys)
        assert "Traceback" not in shell.log()


@pytest.fixture(scope="module", params=COMMANDS)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with started(request.param, tmp_path_factory.mktemp("keys"), WEBSOCKET_MAX_MESSAGE_SIZE="1024") as running_service:
        yield running_service


@pytest.fixture
def publishing(service: Service, request: pytest.FixtureRequest) -> Service:
    if request.node.callspec.params["service"] == "standalone":
        pytest.skip("its library reads no bodies")
    return service


def test_the_service_says_that_it_is_alive_and_ready(service: Service) -> None:
    assert service.ask("GET", "/livez")[::2] == (200, "alive")
    assert service.ask("GET", "/readyz")[::2] == (200, "ready")
    assert service.ask("GET", "/readyz?verbose")[::2] == (200, "ready")


def test_metrics_count_what_happens(service: Service) -> None:
    routed = service.metric("wsbundle_messages_routed_total")
    plain = service.metric("wsbundle_messages_dropped_total", "plain")
    with service.shell.client() as alice:
        assert service.metric("wsbundle_connections") == 1
        alice.send("hello")
        alice.hears_nothing_but_itself()
    assert service.metric("wsbundle_messages_routed_total") == routed + 1
    assert service.metric("wsbundle_messages_dropped_total", "plain") == plain + 1
    assert service.metric("process_resident_memory_bytes") > 10_000_000
    wait_until(lambda: service.metric("wsbundle_connections") == 0)


@pytest.mark.parametrize(
    ("opcode", "payload", "code"), [(TEXT, b"x" * 1025, 1009), (TEXT, b"\xff", 1007), (RESERVED, b"", 1002)]
)
def test_what_the_service_closes_is_counted_by_its_code(
    opcode: int, payload: bytes, code: int, service: Service, request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["service"] == "uvicorn":
        pytest.skip("plain uvicorn does not say that it has closed a connection")
    before = service.metric("wsbundle_connections_closed_total", str(code))
    with Peer(service.shell.port) as mallory:
        mallory.send_frame(opcode, payload)
        assert mallory.close_code() == code
    wait_until(lambda: service.metric("wsbundle_connections_closed_total", str(code)) == before + 1)


def test_what_a_client_closes_is_not_counted(service: Service) -> None:
    before = service.metric("wsbundle_connections_closed_total", "1009")
    with Peer(service.shell.port) as client:
        client.send_frame(CLOSE, struct.pack("!H", 1009))
        assert client.close_code() == 1009
    wait_until(lambda: service.metric("wsbundle_connections") == 0)
    assert service.metric("wsbundle_connections_closed_total", "1009") == before


def test_a_handshake_that_is_none_is_counted(service: Service, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["service"] not in ("runner", "gunicorn"):
        pytest.skip("a library answers it")
    before = service.metric("wsbundle_handshakes_refused_total", "400")
    assert service.ask("GET", "/", Connection="Upgrade", Upgrade="websocket").status == 400
    assert service.metric("wsbundle_handshakes_refused_total", "400") == before + 1


@pytest.mark.parametrize("field", ["X-Forwarded-For", "Forwarded"])
@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/livez", "/%6detrics", "/metrics?a=b"])
def test_what_comes_through_a_proxy_sees_nothing_internal(service: Service, path: str, field: str) -> None:
    assert service.ask("GET", path, b"", **{field: "192.0.2.1"})[::2] == (404, "WebSocket endpoint only")
    assert service.ask("GET", "/health", b"", **{field: "192.0.2.1"}).status == 200


@pytest.mark.parametrize("path", ["/metrics", "/stats", "/status"])
def test_a_page_whose_name_was_made_to_lead_here_sees_no_figures(service: Service, path: str) -> None:
    for name in ("evil.example", "evil.example:8765", "localhost.evil.example", "127.0.0.1.evil.example", "[::1].x"):
        answer = service.ask("GET", path, Host=name)
        assert (answer.status, "Ask by an address or as localhost" in answer.body) == (421, True)
        assert service.ask("GET", "/health", Host=name).status == 200
    for name in ("localhost", "LOCALHOST:8765", "127.0.0.1:8765", "[::1]:8765", "192.0.2.7"):
        assert service.ask("GET", path, Host=name).status == 200


def test_a_message_of_a_script_arrives(publishing: Service) -> None:
    with publishing.shell.client() as alice:
        alice.register("alice")
        assert publishing.post("alice", b"hello", "alice")[::2] == (201, '{"online": 1}')
        assert json.loads(alice.receive()) == {"recipient_uuid": "alice", "message": "hello"}
        assert publishing.post("alice", b'{"n": [1]}', "*", Content_Type="application/json").status == 201
        assert json.loads(alice.receive())["message"] == {"n": [1]}
        alice.register("\u00fc /x")
        assert publishing.post("%C3%BC%20/x", b"hello", "*").status == 201
    wait_until(lambda: publishing.shell.connections() == 0)
    assert publishing.post("alice", b"hello", "alice")[::2] == (202, '{"online": 0}')


OFFERS = {
    "h2c": "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAA\r\n",
    "tls": "Connection: upgrade\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n",
    "websocket": "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    "list": "Connection: keep-alive, Upgrade\r\nUpgrade: h2c, websocket\r\n",
    "twice": "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
}
BODIES = {
    "length": "Content-Length: 11\r\n\r\nGET / hello",
    "chunks": "Transfer-Encoding: chunked\r\n\r\n6\r\nGET / \r\n5\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("offer", OFFERS)
def test_an_upgrade_that_is_not_taken_is_ignored_and_the_body_read(publishing: Service, offer: str, body: str) -> None:
    if is_plain_uvicorn(publishing) and offer in ("websocket", "twice"):
        pytest.skip("uvicorn never answers it")
    token = mint(publishing.keys, "the-script", 60, ("*",))
    fields = f"Host: a\r\nAuthorization: Bearer {token}\r\nIdempotency-Key: {offer}-{body}\r\n"
    address = ("127.0.0.1", publishing.shell.port)
    with (
        publishing.shell.client() as alice,
        socket.create_connection(address, DEADLINE_S) as script,
        script.makefile("rb") as answers,
    ):
        alice.register("alice")
        # As the first request of a connection, as a later one, and in pieces.
        for version, pieces in (("1.1", 1), ("1.1", 2), ("1.1", 20), ("1.0", 1)):
            request = f"POST /publish/alice HTTP/{version}\r\n{fields}{OFFERS[offer]}{BODIES[body]}".encode()
            size = -(-len(request) // pieces)
            for start in range(0, len(request), size):
                script.sendall(request[start : start + size])
            answered = next_answer(answers)
            if is_plain_uvicorn(publishing):
                assert answered[0] == 400, "uvicorn loses the body, and nobody may take it for an empty one"
                break
            assert answered == (201, b'{"online": 1}')
        else:
            assert json.loads(alice.receive())["message"] == "GET / hello"
        alice.hears_nothing_but_itself()


def next_answer(answers: io.BufferedReader) -> tuple[int, bytes]:
    """Status and body of the next response on a connection."""
    status = int(answers.readline().split()[1])
    headers = http.client.parse_headers(answers)
    return status, answers.read(int(headers["content-length"] or 0))


def is_plain_uvicorn(service: Service) -> bool:
    return "uvicorn" in Path(f"/proc/{service.shell.process.pid}/cmdline").read_text().split("\0")


@pytest.mark.parametrize("more", [[], ["--header", "Transfer-Encoding: chunked"]], ids=["length", "chunks"])
def test_a_message_of_curl_arrives_whatever_version_of_http_it_would_like(publishing: Service, more: list[str]) -> None:
    curl = shutil.which("curl")
    if curl is None or "HTTP2" not in subprocess.run([curl, "--version"], capture_output=True, text=True).stdout:
        pytest.skip("curl is not installed, or does not know HTTP/2")
    token = mint(publishing.keys, "the-script", 60, ("*",))
    url = f"http://127.0.0.1:{publishing.shell.port}/publish/alice"
    with publishing.shell.client() as alice:
        alice.register("alice")
        command = [curl, "--silent", "--http2", "--data-binary", "hello", "--oauth2-bearer", token, *more, url, url]
        heard = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S).stdout
        if is_plain_uvicorn(publishing):
            assert heard == "The body did not come whole; leave out Upgrade\n" * 2
        else:
            assert heard == '{"online": 1}' * 2
            assert [json.loads(alice.receive())["message"] for _ in range(2)] == ["hello"] * 2
        alice.hears_nothing_but_itself()


def test_a_script_is_told_what_is_wrong_in_one_line(publishing: Service) -> None:
    answers = {
        400: publishing.post("alice", b"{", "*", Content_Type="application/json"),
        401: publishing.ask("POST", "/publish/alice", b"hello"),
        403: publishing.post("alice", b"hello", "bob"),
        405: publishing.ask("PUT", "/publish/alice", b"hello"),
        413: publishing.post("alice", b"x" * 1025, "*"),
        415: publishing.post("alice", b"hello", "*", Content_Encoding="gzip"),
    }
    for status, answered in answers.items():
        assert answered.status == status
        assert answered.headers["content-type"] == "text/plain; charset=utf-8"
        assert answered.body.count("\n") == 1
        assert answered.body.endswith("\n")
    assert answers[401].headers["www-authenticate"] == "Bearer"
    assert answers[405].headers["allow"] == "POST"


def test_the_same_idempotency_key_is_sent_once(publishing: Service) -> None:
    with publishing.shell.client() as alice:
        alice.register("alice")
        key = {"Idempotency_Key": f"key-{time.time()}"}
        for _ in range(3):
            assert publishing.post("alice", b"once", "*", **key).status == 201
        assert publishing.post("alice", b"other", "*", **key).status == 422
        assert json.loads(alice.receive())["message"] == "once"
        alice.hears_nothing_but_itself()


def test_a_body_without_a_length_is_bounded_as_well(publishing: Service) -> None:
    token = mint(publishing.keys, "the-script", 60, ("*",))
    head = f"POST /publish/alice HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
    with socket.create_connection(("127.0.0.1", publishing.shell.port), DEADLINE_S) as client:
        client.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                client.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
                time.sleep(0.001)  # as one who goes on and on, until the service has had enough
        with contextlib.suppress(ConnectionError), client.makefile("rb") as reader:
            assert reader.readline() in (
                b"HTTP/1.1 413 Request Entity Too Large\r\n",
                b"HTTP/1.1 413 Content Too Large\r\n",
            )
    assert publishing.metric("wsbundle_publications_total", "413") >= 1


def test_the_standalone_server_says_that_it_publishes_nothing(service: Service, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["service"] != "standalone":
        pytest.skip("all others do")
    assert service.ask("GET", "/publish/alice").status == 501


@pytest.mark.parametrize("command", PUBLISHING)
def test_a_body_that_dribbles_in_is_given_up(command: str, tmp_path: Path) -> None:
    with started(command, tmp_path, WEBSOCKET_HEADER_TIMEOUT="1") as service:
        token = mint(service.keys, "the-script", 60, ("*",))
        head = f"POST /publish/a HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: 100\r\n\r\n"
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", service.shell.port), DEADLINE_S) as client:
            client.sendall(head.encode())
            with contextlib.suppress(ConnectionError):
                while time.monotonic() - began < DEADLINE_S:
                    client.sendall(b"x")
                    client.settimeout(0.2)
                    with contextlib.suppress(TimeoutError):
                        if not client.recv(4096):
                            break
            assert 0.5 < time.monotonic() - began < DEADLINE_S


@pytest.mark.parametrize("command", PUBLISHING)
def test_a_token_that_publishes_too_fast_is_told_to_wait(command: str, tmp_path: Path) -> None:
    with started(command, tmp_path, WEBSOCKET_MAX_MESSAGES_PER_SECOND="1") as service:
        answers = [service.post("alice", b"hello", "*") for _ in range(4)]
        limited = [answered for answered in answers if answered.status == 429]
        assert limited
        assert limited[0].headers["retry-after"] == "1"


@pytest.mark.parametrize("command", ["runner", "gunicorn"])
def test_a_service_that_drains_is_alive_but_not_ready(command: str, tmp_path: Path) -> None:
    with started(command, tmp_path, WEBSOCKET_DRAIN_RATE="1", WEBSOCKET_DRAIN_WINDOW="2") as service:
        watcher = http.client.HTTPConnection("127.0.0.1", service.shell.port, DEADLINE_S)
        with contextlib.closing(watcher), service.shell.client(), service.shell.client():
            watcher.request("GET", "/readyz")
            assert watcher.getresponse().read() == b"ready"
            service.shell.terminate()
            wait_until(lambda: _asked(watcher, "/readyz") == (503, "1"))
            watcher.request("POST", "/publish/alice", b"hello")
            assert watcher.getresponse().status == 503


def _asked(watcher: http.client.HTTPConnection, path: str) -> tuple[int, str | None]:
    watcher.request("GET", path)
    response = watcher.getresponse()
    response.read()
    return response.status, response.headers["Retry-After"]


# What makes our lines out of records; plain uvicorn has a log of its own.
LOGGING = ["runner", "gunicorn", "standalone"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("log_format", ["plain", "json"])
def test_no_secret_and_nothing_that_was_said_is_in_the_log(command: str, log_format: str, tmp_path: Path) -> None:
    variables = {"LOG_FORMAT": log_format, "LOG_LEVEL": "debug"}
    with started(command, tmp_path, **variables) as service:
        if command != "standalone":
            service.post("alice", b"SECRET-body", "*")
            service.ask("POST", "/publish/alice?token=SECRET-query", b"x", Authorization="Bearer SECRET-token")
        service.ask("GET", "/health?token=SECRET-query", Authorization="Bearer SECRET-token")
        with socket.create_connection(("127.0.0.1", service.shell.port), DEADLINE_S) as client:
            client.sendall(
                b"GET /?token=SECRET-query HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                b"Authorization: Bearer SECRET-token\r\nSec-WebSocket-Protocol: bearer.SECRET-offer\r\n\r\n"
            )
            assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
        with service.shell.client() as alice:
            alice.send("SECRET-plain")
            alice.hears_nothing_but_itself()
        assert "SECRET" not in service.shell.log()


@pytest.mark.parametrize("command", LOGGING)
def test_the_life_of_a_client_is_one_line_for_each_event(command: str, tmp_path: Path) -> None:
    gunicorn = {"GUNICORN_CMD_ARGS": "--log-level info"} if command == "gunicorn" else {}
    with started(command, tmp_path, LOG_FORMAT="json", LOG_LEVEL="info", **gunicorn) as service:
        with service.shell.client() as mallory:
            for number in range(9):
                mallory.send_to(f"a\nforged {number}", "connected")
            assert mallory.close_code() == 4008
            uuid = mallory.temporary_uuid
        wait_until(lambda: '"closed"' in service.shell.log())
        lines = [json.loads(line) for line in service.shell.log().splitlines() if line.startswith("{")]
        ours = [line for line in lines if line.get("uuid") == uuid]
        assert [line["message"] for line in ours] == ["connected", *["registered"] * 8, "closed"]
        assert ours[0]["protocol"] == "v0"
        assert ours[1]["registered"] == "a\nforged 0"
        assert (ours[-1]["code"], ours[-1]["reason"]) == (4008, "too many addresses")
        assert ours[-1]["seconds"] < DEADLINE_S
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ours[0]["time"])
        if command != "gunicorn":  # its first lines come before the worker's; the rendered file has a logger_class
            assert len(lines) == len(service.shell.log().splitlines())


PLAIN = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
HANDSHAKE_10 = HANDSHAKE.replace(b"HTTP/1.1", b"HTTP/1.0")
MALFORMED = [
    b"GET /?\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    b"\0\r\n\r\n",
    PLAIN * 40,
    PLAIN * 3 + b"\xff\r\n\r\n",
    PLAIN + b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000,
    PLAIN[:-2] + b"X Y: a\r\n\r\n",
    PLAIN[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"POST /publish/a HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\nhi",
    b"POST /publish/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    HANDSHAKE.replace(b"AAAA", b"\xff!!!", 1) + b"\r\n",
    HANDSHAKE_10 + b"\r\n",
    HANDSHAKE + b"X: \0\r\n\r\n",
    HANDSHAKE + b"Sec-WebSocket-Protocol: \xff\r\n\r\n",
    HANDSHAKE + b"Sec-WebSocket-Extensions: ;;\xff\r\n\r\n",
    HANDSHAKE + b"\r\n\x81\x01x",
    HANDSHAKE + b"\r\n\x81\xff\xff" + b"\xff" * 7 + b"mask",
    HANDSHAKE + b"\r\n" + PLAIN,
]


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_that_a_stranger_sends_is_a_warning(command: str, tmp_path: Path) -> None:
    if command == "uvicorn" and OLD_LIBRARY:
        pytest.skip("uvicorn hands a subprotocol that is no token to the library, which fails")
    with started(command, tmp_path, LOG_LEVEL="info") as service:
        for request in MALFORMED:
            for leaves in (False, True):
                with socket.create_connection(("127.0.0.1", service.shell.port), DEADLINE_S) as client:
                    with contextlib.suppress(OSError):
                        client.sendall(request)
                        if not leaves:
                            client.shutdown(socket.SHUT_WR)
                            while client.recv(65_536):
                                pass
                    if leaves:
                        reset(client)
        wait_until(lambda: service.shell.connections() == 0)
        assert not re.search("WARNING|ERROR|CRITICAL|Traceback", service.shell.log())
        if command in ("runner", "gunicorn"):
            assert service.metric("wsbundle_handshakes_refused_total", "400") > 15
            assert service.metric("wsbundle_handshakes_refused_total", "429") == 0


def with_field(field: str) -> bytes:
    return HANDSHAKE + field.encode("latin-1") + b"\r\n"


def instead(old: bytes, new: bytes) -> bytes:
    assert old in HANDSHAKE
    return HANDSHAKE.replace(old, new, 1)


VERSION_13 = b"Sec-WebSocket-Version: 13\r\n"
# Each with the one answer that all shells give.
HANDSHAKES = {
    "sound": (HANDSHAKE, 101),
    "line_before": (b"\r\n" + HANDSHAKE, 101),
    "lines_before": (3 * b"\r\n" + HANDSHAKE, 101),
    "only_lines_before": (4 * b"\r\n" + b"GET /health HTTP/1.1\r\nHost: localhost\r\n", 200),
    "subprotocol_empty": (with_field("Sec-WebSocket-Protocol:"), 400),
    "subprotocol_of_two_words": (with_field("Sec-WebSocket-Protocol: a b"), 400),
    "subprotocol_comma": (with_field("Sec-WebSocket-Protocol: ,"), 400),
    "subprotocol_quoted": (with_field('Sec-WebSocket-Protocol: "nc.v1"'), 400),
    "subprotocol_no_token": (with_field("Sec-WebSocket-Protocol: a@b, nc.v1"), 400),
    "subprotocol_not_ascii": (with_field("Sec-WebSocket-Protocol: \xff"), 400),
    "subprotocol_with_gaps": (with_field("Sec-WebSocket-Protocol: ,nc.v1,,"), 101),
    "subprotocol_twice": (with_field("Sec-WebSocket-Protocol: nc.v1\r\nSec-WebSocket-Protocol: nc.v1"), 101),
    "subprotocol_unknown": (with_field("Sec-WebSocket-Protocol: chat"), 101),
    "extension_empty": (with_field("Sec-WebSocket-Extensions:"), 101),
    "extension_nonsense": (with_field("Sec-WebSocket-Extensions: ;;=\xff"), 101),
    "version_twice": (HANDSHAKE + VERSION_13, 426),
    "version_list": (instead(b"Version: 13", b"Version: 13, 8"), 426),
    "version_8": (instead(b"Version: 13", b"Version: 8"), 426),
    "version_none": (instead(VERSION_13, b""), 426),
    "key_none": (instead(b"Sec-WebSocket-Key", b"X"), 400),
    "key_wrong": (instead(b"AAAA", b"!!!!"), 400),
    "key_twice": (with_field("Sec-WebSocket-Key: BBBBBBBBBBBBBBBBBBBBBB=="), 400),
    "connection_list": (instead(b"Connection: Upgrade", b"Connection: keep-alive, upgrade"), 101),
    "connection_twice": (with_field("Connection: keep-alive"), 101),
    "connection_none": (instead(b"Connection: Upgrade\r\n", b""), 400),
    "connection_close": (instead(b"Connection: Upgrade", b"Connection: close"), 400),
    "connection_no_token": (instead(b"Connection: Upgrade", b"Connection: Upgrade, ;"), 400),
    "upgrade_list": (instead(b"Upgrade: websocket", b"Upgrade: h2c, websocket"), 101),
    "upgrade_twice": (with_field("Upgrade: websocket"), 400),
    "upgrade_other": (instead(b"Upgrade: websocket", b"Upgrade: h2c"), 404),
    "upgrade_version": (instead(b"Upgrade: websocket", b"Upgrade: websocket/13"), 404),
    "host_none": (instead(b"Host: localhost\r\n", b""), 400),
    "host_twice": (with_field("Host: elsewhere"), 400),
    "post": (instead(b"GET", b"POST"), 404),
    "http_1_0": (instead(b"HTTP/1.1", b"HTTP/1.0"), 404),
    "origin_twice": (with_field("Origin: a\r\nOrigin: b"), 400),
    "a_long_field": (with_field("X: " + "y" * 12_000), 101),
    "too_long": (with_field("X: " + "y" * 17_000), 431),
    "too_many_fields": (HANDSHAKE + b"X: y\r\n" * 129, 431),
    "not_ascii": (with_field("X: \xff"), 101),
    "absolute": (instead(b"GET / ", b"GET http://x/ "), 101),
    # The library of the standalone server ends the connection without a word.
    "a_body": (with_field("Content-Length: 3"), 400),
    "chunks": (with_field("Transfer-Encoding: chunked"), 400),
    "folded": (with_field("X: a\r\n b"), 400),
    "space_before_colon": (with_field("X : a"), 400),
    "nul": (with_field("X: \0"), 400),
    "http_2": (instead(b"HTTP/1.1", b"HTTP/2.0"), 400),
}
UNANSWERED = {"a_body", "chunks", "folded", "space_before_colon", "nul", "http_2"}
# The last one for Python 3.10 is 16.
OLD_LIBRARY = int(importlib.metadata.version("websockets").partition(".")[0]) < 17
if OLD_LIBRARY:
    UNANSWERED |= {"post", "http_1_0", "too_long", "too_many_fields"}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_has_one_answer_in_all_shells(service: Service, name: str) -> None:
    if is_plain_uvicorn(service):
        pytest.skip("it reads by itself")
    head, status = HANDSHAKES[name]
    with socket.create_connection(("127.0.0.1", service.shell.port), DEADLINE_S) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(head + b"\r\n")
        line = b""
        with contextlib.suppress(ConnectionError):
            line = client.recv(4096).partition(b"\r\n")[0]
    if not line and name in UNANSWERED:
        assert "server.py" in Path(f"/proc/{service.shell.process.pid}/cmdline").read_text()
    else:
        assert int(line.split()[1]) == status
