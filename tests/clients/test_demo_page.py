"""The demo page: its security policy, and what it does in a real browser."""

import base64
import contextlib
import functools
import hashlib
import http.server
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from service.core.frames import SUBPROTOCOL
from tests.clients.chromium import CHROMIUM, Browser, Page, chromium
from tests.ports import free_port
from tests.service.shells import COMMANDS, DEADLINE_S, ROOT, Shell, clean_environment, running

EXAMPLE = ROOT / "clients/page/index.html"

IS_CONNECTED = "document.getElementById('state').textContent === 'connected'"

in_a_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt install chromium)"),
]


@pytest.mark.parametrize("kind", ["style", "script"])
def test_the_policy_allows_exactly_the_pages_own_style_and_script(kind: str) -> None:
    html = EXAMPLE.read_text()
    (own,) = re.findall(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    (allowed,) = re.findall(f'{kind}-src ([^;"]*)', html)
    assert allowed.removeprefix("'self' ") == f"'sha256-{digest}'"


def test_the_policy_allows_nothing_else_but_its_client_and_websockets() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', EXAMPLE.read_text())
    directives = {d.split()[0]: d.split()[1:] for d in policy.split("; ")}
    assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == ["'none'"]
    assert directives["connect-src"] == ["ws:", "wss:"]
    assert directives["script-src"][0] == "'self'"
    assert len(directives["script-src"]) == 2
    assert "unsafe" not in policy


def test_a_strangers_text_never_becomes_html() -> None:
    assert not re.search(r"\.(innerHTML|outerHTML)|insertAdjacentHTML|document\.write|eval\(", EXAMPLE.read_text())


def test_it_loads_nothing_but_the_client_beside_it() -> None:
    assert re.findall(r"(?:src|href)=\S*|@import|url\(", EXAMPLE.read_text()) == ['src="../js/client.js"></script>']
    assert (EXAMPLE.parent / "../js/client.js").exists()


@pytest.fixture(scope="module")
def running_browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def browser(running_browser: Browser) -> Iterator[Browser]:
    yield running_browser
    running_browser.close_tabs()


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with running(COMMANDS["runner"]) as shell:
        yield shell


@pytest.fixture(scope="module")
def web_server() -> Iterator[str]:
    """The URL of a web server that has the page."""
    handler = functools.partial(QuietHandler, directory=str(EXAMPLE.parent.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture(params=["file", "http"])
def place(request: pytest.FixtureRequest) -> str:
    """Where the page comes from."""
    base = "file://" + str(EXAMPLE.parent.parent) if request.param == "file" else request.getfixturevalue("web_server")
    return f"{base}/page/index.html"


def connected(browser: Browser, place: str, shell: Shell, uuid: str) -> Page:
    """The page, connected and registered."""
    page = browser.open(f"{place}?url={quote(shell.url)}#{uuid}")
    page.wait_for(IS_CONNECTED)
    return page


def send(page: Page, uuid: str, message: str) -> None:
    """Fill in the form and press its button."""
    page.evaluate(
        f"document.getElementById('recipient').value = {json.dumps(uuid)};"
        f"document.getElementById('message').value = {json.dumps(message)};"
        "document.querySelector('#send button').click()"
    )


class Taker:
    """A client of nc.v1 that confirms when it is told to."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def confirm(self) -> None:
        """Confirm the next message."""
        while (frame := json.loads(self._connection.recv(DEADLINE_S)))["type"] != "msg":
            pass
        self._connection.send(json.dumps({"type": "ack", "key": frame["key"]}))


@contextlib.contextmanager
def connected_client(url: str, uuid: str) -> Iterator[Taker]:
    with connect(url, proxy=None, subprotocols=[Subprotocol(SUBPROTOCOL)]) as connection:
        connection.send(json.dumps({"type": "hello", "id": 1, "uuid": uuid}))
        while json.loads(connection.recv(DEADLINE_S))["type"] != "ok":
            pass
        yield Taker(connection)


class TestInABrowser:
    pytestmark = in_a_browser

    def test_it_registers_the_uuid_of_its_address(self, browser: Browser, place: str, shell: Shell) -> None:
        page = connected(browser, place, shell, "my%20uuid")
        with shell.client() as client:
            client.send_to("my uuid", "hello")
            page.wait_for("document.querySelector('#log li span')?.textContent === 'hello'")

    def test_without_a_uuid_it_makes_one_that_can_be_shared(self, browser: Browser, place: str, shell: Shell) -> None:
        page = browser.open(f"{place}?url={quote(shell.url)}")
        page.wait_for(IS_CONNECTED)
        uuid = page.evaluate("document.getElementById('uuid').value")
        assert isinstance(uuid, str)
        assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uuid)
        assert page.evaluate("location.hash") == f"#{uuid}"

    def test_two_pages_exchange_messages(self, browser: Browser, place: str, shell: Shell) -> None:
        alice = connected(browser, place, shell, "alice")
        bob = connected(browser, place, shell, "bob")
        send(bob, "alice", "hello Alice")
        alice.wait_for("document.querySelector('#log li span')?.textContent === 'hello Alice'")
        send(alice, "bob", "hello Bob")
        bob.wait_for("document.querySelector('#log li span')?.textContent === 'hello Bob'")

    def test_it_shows_what_becomes_of_a_message(self, browser: Browser, place: str, shell: Shell) -> None:
        page = connected(browser, place, shell, "sender")
        state = "document.querySelector('#log li i').textContent"
        with connected_client(shell.url, "taker") as taker:
            send(page, "taker", "hello")
            page.wait_for(f"{state} === 'accepted'")
            taker.confirm()
            page.wait_for(f"{state} === 'delivered'")
            send(page, "taker", "hello")
            page.wait_for(f"{state} === 'accepted'")
        page.wait_for(f"{state} === 'lost'")
        send(page, "taker", "hello")
        page.wait_for(f"{state} === 'nobody has this address (error 114)'")

    def test_it_shows_whether_the_other_is_there(self, browser: Browser, place: str, shell: Shell) -> None:
        page = connected(browser, place, shell, "watcher")
        page.evaluate(
            "byId('recipient').value = 'comes and goes'; byId('recipient').dispatchEvent(new Event('change'))"
        )
        page.wait_for("byId('peer').textContent === 'offline'")
        with shell.client() as other:
            other.register("comes and goes")
            page.wait_for("byId('peer').textContent === 'online'")
        page.wait_for("byId('peer').textContent === 'offline'")

    def test_it_keeps_what_is_sent_until_it_is_connected(self, browser: Browser, place: str) -> None:
        page = browser.open(f"{place}?url=ws://127.0.0.1:{free_port()}/#early")
        send(page, "alice", "hello")
        page.wait_for("document.querySelector('[data-kind=sent] i').textContent === 'sending'")

    def test_html_in_a_message_stays_text(self, browser: Browser, place: str, shell: Shell) -> None:
        page = connected(browser, place, shell, "victim")
        attack = '<img src=x onerror="window.pwned = true"><script>window.pwned = true</script>'
        with shell.client() as mallory:
            mallory.send_to("victim", attack)
        page.wait_for("document.querySelectorAll('#log li').length >= 1")
        assert page.evaluate("document.querySelector('#log li span')?.textContent") == attack
        assert page.evaluate("document.querySelectorAll('#log img, #log script').length") == 0
        assert page.evaluate("window.pwned === undefined") is True

    def test_the_policy_holds_where_the_page_comes_from(self, browser: Browser, place: str, shell: Shell) -> None:
        page = connected(browser, place, shell, "policed")
        assert (
            page.evaluate(
                "new Promise((resolve) => {"
                " addEventListener('securitypolicyviolation', (event) => resolve(event.effectiveDirective));"
                " const script = document.createElement('script');"
                " script.textContent = 'window.pwned = true';"
                " document.body.append(script);"
                "})"
            )
            == "script-src-elem"
        )
        assert page.evaluate("getComputedStyle(document.querySelector('form')).display") == "grid"

    def test_it_connects_again_when_the_server_is_back(self, browser: Browser, place: str) -> None:
        with running("service/server.py {WEBSOCKET_PORT}") as first:
            page = connected(browser, place, first, "patient")
            first.terminate()
            page.wait_for("document.getElementById('log').textContent.includes('closed with 1012 service restart')")
            first.process.wait()
            environ = clean_environment(WEBSOCKET_PORT=str(first.port))
            with subprocess.Popen([sys.executable, "service/server.py"], cwd=ROOT, env=environ) as second:
                try:
                    page.wait_for(IS_CONNECTED)
                finally:
                    second.kill()

    def test_it_does_not_connect_again_when_another_has_its_address(
        self, browser: Browser, place: str, shell: Shell
    ) -> None:
        connected(browser, place, shell, "taken")
        second = browser.open(f"{place}?url={quote(shell.url)}#taken")
        second.wait_for("document.getElementById('state').textContent === 'address in use (error 113)'")
        assert second.evaluate("document.getElementById('state').dataset.state") == "gone"

    def test_what_cannot_be_connected_to_is_told(self, browser: Browser, place: str) -> None:
        page = browser.open(f"{place}?url=nonsense://#x")
        assert "nonsense" in str(page.evaluate("document.getElementById('state').textContent"))

    def test_from_a_file_it_connects_to_this_host(self, browser: Browser) -> None:
        page = browser.open(f"file://{EXAMPLE}#x")
        assert page.evaluate("document.getElementById('url').value") == "ws://localhost:8765/"

    def test_from_a_web_server_it_connects_to_the_same_host(self, browser: Browser, web_server: str) -> None:
        page = browser.open(f"{web_server}/page/index.html#x")
        assert page.evaluate("document.getElementById('url').value") == web_server.replace("http:", "ws:") + "/"
