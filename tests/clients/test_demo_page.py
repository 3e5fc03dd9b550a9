"""The demo page: its security policy, and what it does in a real browser."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from service.core.frames import SUBPROTOCOL
from tests.clients.chromium import Browser, Page
from tests.clients.in_a_browser import found_by_axe, in_a_browser
from tests.clients.npm_tools import node_modules
from tests.ports import free_port
from tests.service.shells import COMMANDS, DEADLINE_S, ROOT, Shell, clean_environment, running, wait_until

PAGE = ROOT / "clients/page"
HTML = (PAGE / "index.html").read_text()
UUID = "3f2b8c1e-77aa-4b1e-9c5d-2f7f1d0a9e11"

IS_CONNECTED = "document.getElementById('state').textContent === 'connected'"


def test_the_policy_allows_nothing_but_the_files_beside_it_and_websockets() -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', HTML)
    directives = {d.split()[0]: d.split()[1:] for d in policy.split("; ")}
    assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == ["'none'"]
    assert directives["connect-src"] == ["ws:", "wss:"]
    assert directives["script-src"] == directives["style-src"] == ["'self'"]
    assert directives["img-src"] == ["data:"]
    assert "unsafe" not in policy


def test_a_strangers_text_never_becomes_html() -> None:
    html = r"\.(innerHTML|outerHTML)|insertAdjacentHTML|document\.write|eval\("
    assert not re.search(html, HTML + (PAGE / "page.js").read_text())


def test_it_loads_nothing_but_what_is_beside_it() -> None:
    loaded = re.findall(r'(?:src|href)="([^"]*)"', HTML)
    assert [path for path in loaded if not path.startswith("data:")] == ["page.css", "../js/client.js", "page.js"]
    assert all((PAGE / path).exists() for path in loaded if not path.startswith("data:"))
    assert not re.search(r"@import|url\(", (PAGE / "page.css").read_text())


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with running(COMMANDS["runner"], WEBSOCKET_PAGE=str(ROOT / "clients")) as shell:
        yield shell


@pytest.fixture
def browser(running_browser: Browser, shell: Shell) -> Iterator[Browser]:
    yield running_browser
    running_browser.close_tabs()
    wait_until(lambda: shell.connections() == 0)  # the addresses are free for the next test


@pytest.fixture(params=["file", "http"])
def place(request: pytest.FixtureRequest, shell: Shell) -> str:
    """Where the page comes from."""
    return f"file://{PAGE}/index.html" if request.param == "file" else served(shell)


def served(shell: Shell) -> str:
    """Where the service shows the page, as with `make run`."""
    return f"{shell.url.replace('ws:', 'http:')}page/"


def connected(browser: Browser, place: str, shell: Shell, uuid: str) -> Page:
    """The page, connected and registered."""
    page = browser.open(f"{place}?url={quote(shell.url)}#{uuid}")
    page.wait_for(IS_CONNECTED)
    return page


def send(page: Page, to: str, message: str, kind: str = "address") -> None:
    """Fill in the form and press its button."""
    page.evaluate(
        f"byId('kind').value = {json.dumps(kind)};"
        f"byId('recipient').value = {json.dumps(to)};"
        f"byId('message').value = {json.dumps(message)};"
        "document.querySelector('#send button').click()"
    )


def has_heard(page: Page, message: str) -> None:
    """Wait until this is the last message in the list."""
    page.wait_for(f"document.querySelector('#log li:last-child .text')?.textContent === {json.dumps(message)}")


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
            has_heard(page, "hello")

    def test_without_a_uuid_it_makes_one(self, browser: Browser, place: str, shell: Shell) -> None:
        page = browser.open(f"{place}?url={quote(shell.url)}")
        page.wait_for(IS_CONNECTED)
        uuid = page.evaluate("byId('me').textContent")
        assert isinstance(uuid, str)
        assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", uuid)
        assert page.evaluate("location.hash") == f"#{uuid}"

    def test_whoever_opens_its_link_in_another_tab_writes_to_it(
        self, browser: Browser, place: str, shell: Shell
    ) -> None:
        alice = connected(browser, place, shell, "alice")
        assert "Open this link in another tab" in str(alice.evaluate("byId('messages').textContent"))
        link = alice.evaluate("byId('link').href")
        assert isinstance(link, str)
        other = browser.open(link)
        other.wait_for(IS_CONNECTED)
        assert other.evaluate("[byId('recipient').value, byId('me').textContent === 'alice']") == ["alice", False]
        other.evaluate("byId('message').value = 'here I am'; document.querySelector('#send button').click()")
        has_heard(alice, "here I am")
        assert alice.evaluate("byId('empty').hidden") is True

    def test_its_link_is_copied(self, browser: Browser, place: str, shell: Shell) -> None:
        page = connected(browser, place, shell, "copied")
        page.evaluate(
            "navigator.clipboard.writeText = async (text) => { window.copied = text; };"
            "document.querySelector('#connection .copy').click()"
        )
        page.wait_for("document.querySelector('#connection .copy').textContent === 'Copied'")
        assert page.evaluate("copied === byId('link').href && copied.includes('to=copied')") is True

    def test_where_there_is_no_clipboard_its_link_is_shown_to_be_copied(self, browser: Browser, shell: Shell) -> None:
        page = connected(browser, served(shell), shell, "shown")
        page.evaluate(
            "navigator.clipboard.writeText = async () => { throw new Error('not here'); };"
            "window.prompt = (words, link) => { window.shown = link; };"
            "document.querySelector('#connection .copy').click()"
        )
        page.wait_for("window.shown === byId('link').href")

    def test_what_comes_while_nobody_looks_is_counted_in_the_title(self, browser: Browser, shell: Shell) -> None:
        page = connected(browser, served(shell), shell, "away")
        page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
        with shell.client() as client:
            for text in ("one", "two"):
                client.send_to("away", text)
            has_heard(page, "two")
        assert page.evaluate("document.title") == "(2) Notification center"
        page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
        assert page.evaluate("document.title") == "Notification center"

    def test_it_offers_the_addresses_that_it_knows_once_each(self, browser: Browser, shell: Shell) -> None:
        page = connected(browser, served(shell), shell, "offering")
        with shell.client() as client:
            client.register("known")
            for text in ("one", "two"):
                client.send_to("offering", text)
            has_heard(page, "two")
        assert page.evaluate("[...byId('known').children].map(({value}) => value)") == ["known"]

    def test_it_stays_in_its_groups_under_another_address(self, browser: Browser, shell: Shell) -> None:
        page = connected(browser, served(shell), shell, "before")
        page.evaluate("join('office')")
        page.wait_for("groups.size === 1")
        page.evaluate("byId('uuid').value = 'after'; document.querySelector('#connect button').click()")
        page.wait_for(f"{IS_CONNECTED} && location.hash === '#after'")
        other = connected(browser, served(shell), shell, "other")
        outcome = "document.querySelector('#log li:last-child .outcome')?.textContent"
        send(other, "office", "still there?", kind="group")
        other.wait_for(f"{outcome} === 'delivered, 1 in the group'")
        has_heard(page, "still there?")

    def test_a_click_answers_whoever_has_written(self, browser: Browser, place: str, shell: Shell) -> None:
        alice = connected(browser, place, shell, "alice")
        bob = connected(browser, place, shell, UUID)
        send(bob, "alice", "hello Alice")
        has_heard(alice, "hello Alice")
        assert alice.evaluate("document.querySelector('#log .who').textContent") == UUID
        alice.evaluate("document.querySelector('#log button').click()")
        assert alice.evaluate("[byId('recipient').value, document.activeElement.id]") == [UUID, "message"]
        alice.type("hello Bob")
        alice.press("Enter", "\r")
        has_heard(bob, "hello Bob")

    def test_a_message_to_a_group_reaches_its_members_until_they_leave(
        self, browser: Browser, place: str, shell: Shell
    ) -> None:
        alice, bob = (connected(browser, place, shell, uuid) for uuid in ("alice", "bob"))
        for page in (alice, bob):
            page.evaluate("byId('group').value = 'office'; document.querySelector('#join button').click()")
            page.wait_for("byId('groups').textContent.includes('#office')")
        send(alice, "office", "lunch?", kind="group")
        has_heard(bob, "lunch?")
        alice.wait_for("document.querySelector('#log .outcome').textContent === 'delivered, 1 in the group'")
        bob.evaluate("document.querySelector('#log button').click()")
        assert bob.evaluate("[byId('kind').value, byId('recipient').value]") == ["group", "office"]
        bob.evaluate("document.querySelector('#groups button:last-child').click()")
        bob.wait_for("byId('groups').textContent === ''")
        send(bob, "office", "I am out", kind="group")
        has_heard(alice, "I am out")
        send(alice, "office", "who is there?", kind="group")
        alice.wait_for(
            "document.querySelector('#log li:last-child .outcome').textContent === 'nobody else is in this group'"
        )

    def test_it_shows_what_becomes_of_a_message(self, browser: Browser, place: str, shell: Shell) -> None:
        page = connected(browser, place, shell, "sender")
        state = "document.querySelector('#log li:last-child .outcome').textContent"
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
        page.wait_for("document.querySelector('[data-kind=sent] .outcome').textContent === 'sending'")

    def test_html_in_a_message_stays_text(self, browser: Browser, place: str, shell: Shell) -> None:
        page = connected(browser, place, shell, "victim")
        attack = '<img src=x onerror="window.pwned = true"><script>window.pwned = true</script>'
        with shell.client() as mallory:
            mallory.send_to("victim", attack)
        has_heard(page, attack)
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

    def test_an_outage_is_one_line_until_it_is_connected_again(self, browser: Browser, place: str) -> None:
        with running("service/server.py {WEBSOCKET_PORT}") as first:
            page = connected(browser, place, first, "patient")
            first.terminate()
            page.wait_for("byId('notes').textContent.includes('closed with 1012 service restart')")
            first.process.wait()
            page.wait_for(
                "/service restart, then closed with 1006 .[2-9] times.; next try in/.test(byId('notes').textContent)"
            )
            assert page.evaluate("[byId('notes').children.length, byId('log').children.length]") == [2, 0]
            environ = clean_environment(WEBSOCKET_PORT=str(first.port))
            with subprocess.Popen([sys.executable, "service/server.py"], cwd=ROOT, env=environ) as second:
                try:
                    page.wait_for(IS_CONNECTED)
                    page.wait_for("byId('notes').textContent.includes('Connected again')")
                finally:
                    second.kill()

    def test_where_another_has_its_address_it_offers_a_new_one(
        self, browser: Browser, place: str, shell: Shell
    ) -> None:
        connected(browser, place, shell, "taken")
        second = browser.open(f"{place}?url={quote(shell.url)}#taken")
        second.wait_for("byId('state').textContent === 'address in use (error 113)'")
        assert second.evaluate("[byId('state').dataset.state, byId('trouble').hidden]") == ["gone", False]
        second.evaluate("byId('anew').click()")
        second.wait_for(IS_CONNECTED)
        assert second.evaluate("[byId('trouble').hidden, byId('me').textContent === 'taken']") == [True, False]

    def test_what_cannot_be_connected_to_is_told(self, browser: Browser, place: str) -> None:
        page = browser.open(f"{place}?url=nonsense://#x")
        assert "nonsense" in str(page.evaluate("byId('state').textContent"))

    def test_from_a_file_it_connects_to_this_host(self, browser: Browser) -> None:
        page = browser.open(f"file://{PAGE}/index.html#x")
        assert page.evaluate("byId('url').value") == "ws://localhost:8765/"

    def test_from_the_service_it_connects_to_the_same_host(self, browser: Browser, shell: Shell) -> None:
        page = browser.open(f"{served(shell)}#same-host")
        page.wait_for(IS_CONNECTED)
        assert page.evaluate("byId('url').value") == shell.url


def talking(browser: Browser, shell: Shell) -> Page:
    """A page with messages of all kinds."""
    page = connected(browser, served(shell), shell, UUID)
    page.evaluate("join('office')")
    page.wait_for("groups.size === 1")
    with shell.client() as other:
        other.register("another-very-long-address-" + UUID)
        other.send_to(UUID, "https://www.example.com/" + "a-path-without-an-end/" * 5)
        page.wait_for("byId('log').children.length === 1")
    send(page, "nobody", "hello")
    page.wait_for("document.querySelector('#log li:last-child .outcome').textContent.includes('114')")
    send(page, UUID, "a note to myself")
    page.wait_for("byId('log').children.length === 4")
    page.wait_for("document.querySelector('#log li:nth-child(3) .outcome').textContent === 'delivered'")
    return page


class TestForEverybody:
    pytestmark = in_a_browser

    @pytest.mark.parametrize("width", [320, 1100])
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_axe_finds_nothing_wrong(self, scheme: str, width: int, browser: Browser, shell: Shell) -> None:
        empty = browser.open(f"{served(shell)}#empty")
        empty.wait_for(IS_CONNECTED)
        taken = browser.open(f"{served(shell)}#empty")
        taken.wait_for("byId('state').dataset.state === 'gone'")
        for page in (empty, taken, talking(browser, shell)):
            page.emulate(width, 640, scheme)
            page.evaluate("byId('connection').open = true")
            assert found_by_axe(page) == []

    def test_axe_finds_what_is_wrong(self, browser: Browser, shell: Shell) -> None:
        page = browser.open(f"{served(shell)}#wrong")
        page.evaluate("byId('message').removeAttribute('aria-label'); byId('message').removeAttribute('placeholder')")
        page.evaluate((node_modules() / "axe-core/axe.min.js").read_text())
        assert page.evaluate("axe.run().then(({violations}) => violations.map(({id}) => id))") == ["label"]

    @pytest.mark.parametrize("is_open", [False, True])
    def test_nothing_is_cut_off_on_320_pixels(self, is_open: bool, browser: Browser, shell: Shell) -> None:
        page = talking(browser, shell)
        page.emulate(320, 640, "light")
        page.evaluate(f"byId('connection').open = {json.dumps(is_open)}")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") is True
        beyond = (
            "[...document.querySelectorAll('main *')].filter((element) =>"
            " element.getBoundingClientRect().right > document.documentElement.clientWidth).map(({id}) => id)"
        )
        assert page.evaluate(beyond) == []
        width = page.evaluate("document.querySelector('#log .text').getBoundingClientRect().width")
        assert isinstance(width, int | float)
        assert width > 180

    def test_the_scheme_is_the_users(self, browser: Browser, shell: Shell) -> None:
        page = connected(browser, served(shell), shell, "painted")
        grounds = []
        for scheme in ("light", "dark"):
            page.emulate(1100, 700, scheme)
            grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert grounds == ["rgb(243, 244, 247)", "rgb(15, 18, 22)"]

    def test_all_can_be_done_without_a_mouse(self, browser: Browser, shell: Shell) -> None:
        page = connected(browser, served(shell), shell, "keyboard")
        page.emulate(320, 640, "light")
        page.evaluate("byId('connection').open = false; document.querySelector('summary').focus()")
        page.press("Enter", "\r")
        page.wait_for("byId('connection').open")
        reached: list[object] = []
        while len(reached) < 25 and "Send" not in reached:
            page.press("Tab")
            reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert reached == [
            *("Copy link to you", "group", "Join", "url", "uuid", "token", "Connect"),
            *("messages", "link", "Copy link", "kind", "recipient", "message", "Send"),
        ]
        page.evaluate("byId('recipient').focus()")
        page.type("keyboard")
        page.press("Tab")
        page.type("typed")
        new_line = "new KeyboardEvent('keydown', {key: 'Enter', shiftKey: true, cancelable: true})"
        assert page.evaluate(f"byId('message').dispatchEvent({new_line})") is True
        assert page.evaluate("byId('log').children.length") == 0
        page.press("Enter", "\r")
        page.wait_for("byId('log').children.length === 2")
        assert page.evaluate("[document.activeElement.id, byId('message').value]") == ["message", ""]
