"""HTTP/2 to the clients of an application: nginx and the application are real, the clients curl and bytes."""

import contextlib
import json
import socket
import ssl
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from msgspec.structs import replace
from websockets.sync.client import ClientConnection, connect

from generator.doctor.examine import chosen, examine
from generator.doctor.patient import Patient
from generator.host.store import Store
from tests.clients.chromium import chromium
from tests.clients.in_a_browser import in_a_browser
from tests.run.stage import DEADLINE_S, DOMAIN, NAME, Stage, as_systemd, needed, nginx, wait_until

pytestmark = pytest.mark.slow

# `/slow` is answered once so many are under way, or after a moment.
APPLICATION = """
import asyncio, json

under_way = most = 0

async def app(scope, receive, send):
    global under_way, most
    if scope["type"] == "lifespan":
        while (event := await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
        return
    length = 0
    while (event := await receive()).get("more_body"):
        length += len(event["body"])
    under_way += 1
    most = max(most, under_way)
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    under_way -= 1
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    seen = {"headers": headers, "scheme": scope["scheme"], "version": scope["http_version"], "most": most,
            "client": scope["client"][0], "body": length + len(event["body"])}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(seen).encode()})
"""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
# Frames of HEADERS: after the one more has to come, since it has no END_HEADERS; the other is not whole.
_HALF_A_HEAD = b"\x00\x00\x01\x01\x00\x00\x00\x00\x01\x82"
_HALF_A_FRAME = b"\x00\x00\x14\x01\x04\x00\x00\x00\x01\x82"
_RST_STREAM, _SETTINGS = 3, 4
_MAX_CONCURRENT_STREAMS = 3


@pytest.fixture(scope="module")
def site() -> Iterator[Stage]:
    """An application behind TLS."""
    with TemporaryDirectory(prefix="ws-") as directory:
        root = Path(directory)
        stage = Stage(root, tls="files", app={"callable": "main:app", "body_size": 100_000},
                      # Also the time that a client has for its handshake, however busy the machine is.
                      limits={"header_timeout": 4, "connections_per_address": 40})  # fmt: skip
        (root / "code/app").mkdir()
        (root / "code/app/main.py").write_text(APPLICATION)
        with nginx(stage), as_systemd(stage):
            wait_until(lambda: stage.get("/")[0] == 200, "the application answers through nginx")
            yield stage


def curl(stage: Stage, *words: str, path: str = "/", check: bool = True) -> tuple[str, str]:
    """Status and version of HTTP, and the body."""
    where = f"https://{DOMAIN}:{stage.https_port}{path}"
    resolve = f"{DOMAIN}:{stage.https_port}:127.0.0.1"
    said = "\n%{http_code} %{http_version}\n"
    command = [needed("curl"), "-sk", "--resolve", resolve, "--max-time", "30", "-w", said, *words, where]
    done = subprocess.run(command, capture_output=True, text=True, check=check)
    body, _, outcome = done.stdout.rstrip("\n").rpartition("\n")
    return outcome, body


def trusting(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    return context


def websocket(stage: Stage) -> ClientConnection:
    """As browsers do it: they offer HTTP/1.1 alone for it."""
    address = ("127.0.0.1", stage.https_port)
    return connect(f"wss://{DOMAIN}/ws", address=address, ssl=trusting("http/1.1"), proxy=None)


def test_requests_come_by_http2_and_the_application_sees_what_it_sees_by_http1(site: Stage) -> None:
    forged = ("-H", "X-Forwarded-For: 6.6.6.6", "-H", "X-Forwarded-Proto: gopher")
    answers = []
    for version in ("--http1.1", "--http2"):
        outcome, body = curl(site, version, *forged)
        assert outcome == {"--http1.1": "200 1.1", "--http2": "200 2"}[version]
        answers.append(json.loads(body))
        del answers[-1]["headers"]["x-request-id"], answers[-1]["most"]
    assert answers[0] == answers[1]
    assert answers[0]["client"] == "127.0.0.1"
    assert answers[0]["scheme"] == "https"
    assert answers[0]["headers"]["host"] == f"{DOMAIN}:{site.https_port}"


def test_a_body_is_as_large_as_it_may_be(site: Stage, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(b"x" * 100_000)
    outcome, body = curl(site, "--http2", "--data-binary", f"@{file}")
    assert (outcome, json.loads(body)["body"]) == ("200 2", 100_000)
    file.write_bytes(b"x" * 100_001)
    assert curl(site, "--http2", "--data-binary", f"@{file}")[0] == "413 2"


def test_what_clients_send_may_be_long_but_not_longer(site: Stage) -> None:
    outcome, body = curl(site, "--http2", "-H", f"Cookie: a={'x' * 32_766}")
    assert (outcome, len(json.loads(body)["headers"]["cookie"])) == ("200 2", 32_768)
    # Beyond all buffers together nginx ends the connection: HTTP/2 has no 431 for what was not read.
    assert curl(site, "--http2", "-H", f"X-Long: {'x' * 130_000}", check=False)[0] == "000 0"
    assert curl(site, "--http2")[0] == "200 2"


def test_websockets_come_over_http1_on_the_same_port_while_requests_come_by_http2(site: Stage) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(websocket(site)) for _ in range(10)]
        # As many at once as one connection may have; curl opens a second one for more, and a browser waits.
        outcomes = Counter(many(site, 200, at_once=20))
        for client in clients:
            client.send("hello")
            assert client.recv(timeout=DEADLINE_S) == "hello"
    assert outcomes == {"200 2": 200}
    assert json.loads(curl(site)[1])["most"] > 6  # what browsers have under way by HTTP/1.1


def many(stage: Stage, number: int, at_once: int) -> list[str]:
    """How so many requests end."""
    words = ["--http2", "--parallel", "--parallel-max", str(at_once), "-o", "/dev/null"]
    url = f"https://{DOMAIN}:{stage.https_port}/slow"
    for _ in range(number - 1):
        words += [url, "-o", "/dev/null"]
    outcome, before = curl(stage, *words, path="/slow")
    return [line for line in [*before.split("\n"), outcome] if line]


# A page with 200 requests at once and a WebSocket beside them; the browser says by which protocol they came.
_LOADS_MUCH = """
(async () => {
  const socket = new WebSocket(location.origin.replace("https", "wss") + "/ws");
  await new Promise((open, failed) => { socket.onopen = open; socket.onerror = failed; });
  const answers = await Promise.all(Array.from({length: 200}, (_, number) => fetch("/slow?" + number)));
  const heard = new Promise((resolve) => { socket.onmessage = ({data}) => resolve(data); });
  socket.send("hello");
  const protocols = performance.getEntriesByType("resource").map((entry) => entry.nextHopProtocol);
  return JSON.stringify([await heard, [...new Set(answers.map((each) => each.status))], [...new Set(protocols)]]);
})()
"""


class TestInABrowser:
    pytestmark = in_a_browser

    def test_a_page_that_loads_much_is_not_refused_and_its_websocket_works_beside_it(self, site: Stage) -> None:
        flags = ("--ignore-certificate-errors", f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1")
        with chromium(*flags) as browser:
            page = browser.open(f"https://{DOMAIN}:{site.https_port}/")
            assert json.loads(str(page.evaluate(_LOADS_MUCH))) == ["hello", [200], ["h2"]]
        assert json.loads(curl(site)[1])["most"] <= 20  # half of what an address may have


def test_one_connection_gets_half_of_what_an_address_may_have(site: Stage) -> None:
    with spoken(site) as frames:
        kind, payload = next(frames)
        values = {
            payload[at : at + 2]: int.from_bytes(payload[at + 2 : at + 6], "big") for at in range(0, len(payload), 6)
        }
        assert (kind, values[_MAX_CONCURRENT_STREAMS.to_bytes(2, "big")]) == (_SETTINGS, 20)


def test_a_request_of_http2_is_no_websocket_whatever_it_says(site: Stage) -> None:
    words = ("--http2", "-H", "Upgrade: websocket", "-H", "Connection: Upgrade", "-H", "Sec-WebSocket-Version: 13")
    outcome, _ = curl(site, *words, "-H", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", path="/ws", check=False)
    assert outcome.split()[0] != "101"
    assert curl(site, "--http2")[0] == "200 2"


@pytest.mark.parametrize("sent", [_HALF_A_HEAD, _HALF_A_FRAME], ids=["half a head", "half a frame"])
def test_a_client_that_sends_slowly_does_not_hold_its_place(site: Stage, sent: bytes) -> None:
    began = time.monotonic()
    with spoken(site, sent) as frames:
        assert next(payload for kind, payload in frames if kind == _RST_STREAM)
    assert time.monotonic() - began < 10


@contextlib.contextmanager
def spoken(stage: Stage, sent: bytes = b"") -> Iterator[Iterator[tuple[int, bytes]]]:
    """What nginx says to a client that has sent this: kind and payload of each frame. Source: RFC 9113, section 4.1."""
    plain = socket.create_connection(("127.0.0.1", stage.https_port), timeout=DEADLINE_S)
    with trusting("h2").wrap_socket(plain, server_hostname=DOMAIN) as client, client.makefile("rb") as reading:
        assert client.selected_alpn_protocol() == "h2"
        client.sendall(_PREFACE + sent)

        def frames() -> Iterator[tuple[int, bytes]]:
            while head := reading.read(9):
                yield head[3], reading.read(int.from_bytes(head[:3], "big"))

        yield frames()


def test_the_doctor_sees_it(site: Stage) -> None:
    patient = Patient(site.deploy, Store(NAME, site.root), site.endpoint)
    (found,) = examine(patient, chosen(["http2"]))
    assert (found.state, found.seen) == ("ok", "it is")
    without = Patient(replace(site.deploy, tls="off"), patient.store, site.endpoint)
    (found,) = examine(without, chosen(["http2"]))
    assert (found.state, found.seen) == ("skipped", "browsers want TLS for it")


def test_the_log_has_no_other_complaint_than_a_body_that_is_too_large(site: Stage) -> None:
    log = (site.root / f"var/log/nginx/{NAME}_error.log").read_text()
    assert {line for line in log.splitlines() if "[alert]" in line or "[crit]" in line} == set()
