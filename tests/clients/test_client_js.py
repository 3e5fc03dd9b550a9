"""The client for browsers: what every client does, in a real Chromium."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import wsbundle_client.client
import wsbundle_client.link
import wsbundle_client.losses
from service.core.frames import MAX_ASKED_FOR, SUBPROTOCOL, Failures
from tests.clients.chromium import Browser, Page
from tests.clients.client_behaviours import BEHAVIOURS, SECOND, Server
from tests.clients.in_a_browser import in_a_browser
from tests.clients.test_client_mailbox import NO_POSITIONS
from tests.ports import free_port
from tests.programs import missing
from tests.service.shells import COMMANDS, ROOT, Shell, running
from wsbundle_client import conformance
from wsbundle_client.driver import DEADLINE_S, Call, Driver, Frame

NODE = shutil.which("node")
SCRIPT = (ROOT / "clients/js/client.js").read_text()

# What a page does for a driver: it keeps the client, its events and its calls.
DRIVER = """
const calls = [], events = [], waiting = [];
let client;

function tell(event) {
  if (waiting.length) waiting.shift()(event);
  else events.push(event);
}

function nextEvent() {
  return events.length ? events.shift() : new Promise((resolve) => waiting.push(resolve));
}

function openClient(url, uuid, tokens, maxKept, second, answers, mailbox) {
  const token = Array.isArray(tokens) ? async () => tokens.shift() : tokens;
  const random = () => 1;
  client = new NotificationClient(url, {uuid, token, mailbox, maxKept, secondMs: second * 1000, random});
  for (const kind of ["connected", "disconnected", "gone", "presence", "refused", "missing", "receipt", "message"]) {
    client.addEventListener(kind, ({detail}) => {
      tell({kind, wait_s: detail.waitS, ...detail});
      if (kind === "message" && answers) client.send(detail.sender_uuid, "thanks");
    });
  }
  client.open().catch(() => {});
}

function begin(method, ...args) {
  const call = client[method](...args);
  call.catch(() => {});
  return calls.push(call) - 1;
}

async function answer(number) {
  try {
    const result = await calls[number];
    return result && "online" in result ? {online: result.online} : result;
  } catch (error) {
    if (error.name === "GoneError") return {gone: error.message};
    return {error: error.code, temporary: error.temporary};
  }
}

async function outcome(number) {
  return (await calls[number]).outcome;
}
"""

METHODS = {"send_to_group": "sendToGroup"}


class Tab:
    """A page that is asked from a thread, so that the service of a behaviour can go on meanwhile."""

    def __init__(self, page: Page, thread: ThreadPoolExecutor) -> None:
        self._page = page
        self._thread = thread

    async def run(self, function: str, *arguments: object) -> Any:
        code = f"{function}({', '.join(json.dumps(argument) for argument in arguments)})"
        loop = asyncio.get_running_loop()
        return await asyncio.wait_for(loop.run_in_executor(self._thread, self._page.evaluate, code), DEADLINE_S)


class BrowserCall(Call):
    def __init__(self, tab: Tab, number: int) -> None:
        self._tab = tab
        self._number = number

    async def answer(self) -> Any:
        return await self._tab.run("answer", self._number)

    async def outcome(self) -> str:
        outcome: str = await self._tab.run("outcome", self._number)
        return outcome


class BrowserDriver(Driver):
    def __init__(self, tab: Tab, second: float = 1.0) -> None:
        super().__init__(second)
        self._tab = tab

    async def open(
        self,
        url: str,
        uuid: str | None = "alice",
        token: str | list[str] | None = None,
        max_kept: int = 1000,
        second: float | None = None,
        answers: bool = False,
        keeps: bool = False,
    ) -> None:
        # JSON has no undefined; null would be said in the hello.
        ours = [json.dumps(value) if value is not None else "undefined" for value in (uuid, token)]
        rest = f"{json.dumps(max_kept)}, {second or self.second}, {json.dumps(answers)}, {json.dumps(keeps)}"
        await self._tab.run(f"((url) => openClient(url, {ours[0]}, {ours[1]}, {rest}))", url)

    async def next_event(self) -> Frame:
        event: Frame = await self._tab.run("nextEvent")
        return event

    async def call(self, method: str, *arguments: object, **options: object) -> BrowserCall:
        number = await self._tab.run("begin", METHODS.get(method, method), *arguments, options)
        return BrowserCall(self._tab, number)

    async def close(self) -> None:
        await self._tab.run("client.close.bind(client)")


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with running(COMMANDS["runner"]) as shell:
        yield shell


def new_page(browser: Browser) -> Page:
    """A page that has the client and what drives it."""
    page = browser.open(f"file://{ROOT}/LICENSE")
    page.evaluate(
        f"{{ const script = document.createElement('script'); script.textContent = {json.dumps(SCRIPT)};"
        "document.head.append(script); }"
    )
    page.evaluate(DRIVER)
    return page


async def play(name: str, browser: Browser) -> None:
    with ThreadPoolExecutor(max_workers=1) as thread:
        driver = BrowserDriver(Tab(new_page(browser), thread), SECOND)
        async with Server().running() as server:
            try:
                await asyncio.wait_for(BEHAVIOURS[name](server, driver), 2 * DEADLINE_S)
            finally:
                await driver.close()
                browser.close_tabs()


class TestInABrowser:
    pytestmark = in_a_browser

    @pytest.mark.parametrize("name", BEHAVIOURS)
    def test_the_client_behaves_so_that(self, name: str, running_browser: Browser) -> None:
        asyncio.run(play(name, running_browser))

    @pytest.mark.parametrize("name", conformance.BEHAVIOURS)
    def test_with_the_service_it_behaves_so_that(self, name: str, running_browser: Browser, shell: Shell) -> None:
        with ThreadPoolExecutor(max_workers=1) as thread:

            def new_driver() -> BrowserDriver:
                return BrowserDriver(Tab(new_page(running_browser), thread))

            try:
                party = conformance.Party(shell.url, new_driver)
                assert asyncio.run(conformance.play(conformance.BEHAVIOURS[name], party)) == ""
            finally:
                running_browser.close_tabs()


IN_NODE = """
import {pathToFileURL} from "node:url";
const [file, url] = process.argv.slice(-2);
await import(pathToFileURL(file));
const [alice, bob] = ["alice", "bob"].map((uuid) => new NotificationClient(url, {uuid}));
await Promise.all([alice.open(), bob.open()]);
bob.addEventListener("message", ({detail}) => console.log(detail.sender_uuid, detail.message));
console.log(await (await alice.send("bob", "hello", {ack: "delivered"})).outcome);
alice.close();
bob.close();
"""


@pytest.mark.skipif(NODE is None, reason=missing("node"))
def test_it_works_in_node_with_the_service() -> None:
    assert NODE is not None
    has_websocket = (
        subprocess.run([NODE, "-p", "typeof WebSocket"], capture_output=True, text=True).stdout == "function\n"
    )
    flags = [] if has_websocket else ["--experimental-websocket"]  # before Node 22
    with running(COMMANDS["runner"]) as shell:
        arguments = [
            NODE,
            *flags,
            "--input-type=module",
            "-e",
            IN_NODE,
            "--",
            str(ROOT / "clients/js/client.js"),
            shell.url,
        ]
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (ended.stdout, ended.returncode) == ("alice hello\ndelivered\n", 0), ended.stderr


# A WebSocket as that of Node 22: of a handshake that fails, `error` tells, and nothing follows.
WITHOUT_CLOSE = """
import {pathToFileURL} from "node:url";
const [file, url] = process.argv.slice(-2);
const Given = globalThis.WebSocket;
globalThis.WebSocket = class extends Given {
  set onclose(_) {}
};
await import(pathToFileURL(file));
const client = new NotificationClient(url, {secondMs: 10, random: () => 1});
let tries = 0;
client.addEventListener("disconnected", ({detail}) => {
  console.log(detail.reason);
  if (++tries === 3) client.close();
});
client.open().catch((error) => console.log(error.message));
"""


@pytest.mark.skipif(NODE is None, reason=missing("node"))
def test_a_handshake_that_fails_is_tried_again_at_once_where_no_close_is_told_of_it() -> None:
    assert NODE is not None
    flags = ["--experimental-websocket", "--no-warnings"] if node_major() < 22 else []
    command = [NODE, *flags, "--input-type=module", "-e", WITHOUT_CLOSE, "--", str(ROOT / "clients/js/client.js")]
    ended = subprocess.run(
        [*command, f"ws://127.0.0.1:{free_port()}/"], capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert ended.stdout.splitlines() == ["closed with 1006"] * 3 + ["the client is closed"], ended.stderr


OPENED_AGAIN = """
import {pathToFileURL} from "node:url";
const [file, url] = process.argv.slice(-2);
await import(pathToFileURL(file));
const client = new NotificationClient(url);
await Promise.all([client.open(), client.open()]);
console.log("open");
client.close();
await client.open().catch(({name, message}) => console.log(`${name}: ${message}`));
"""


@pytest.mark.skipif(NODE is None, reason=missing("node"))
def test_to_open_a_client_again_always_ends() -> None:
    assert NODE is not None
    flags = ["--experimental-websocket", "--no-warnings"] if node_major() < 22 else []
    command = [NODE, *flags, "--input-type=module", "-e", OPENED_AGAIN, "--", str(ROOT / "clients/js/client.js")]
    with running(COMMANDS["runner"]) as shell:
        ended = subprocess.run([*command, shell.url], capture_output=True, text=True, timeout=DEADLINE_S)
        assert ended.stdout == "open\nGoneError: the client is closed\n", ended.stderr


FULL_STORAGE = """
import {pathToFileURL} from "node:url";
await import(pathToFileURL(process.argv.at(-1)));
const kept = new Map([["key", JSON.stringify({epoch: "e", after: 1})]]);
const storage = {
  getItem: (key) => kept.get(key) ?? null,
  setItem() { throw new Error("QuotaExceededError"); },
  removeItem: (key) => kept.delete(key),
};
const keeper = NotificationClient.keptIn(storage, "key");
console.log(keeper.load());
keeper.save({epoch: "e", after: 2});
console.log(keeper.load());
"""


@pytest.mark.skipif(NODE is None, reason=missing("node"))
def test_a_position_for_which_there_is_no_room_ends_no_connection_and_leaves_no_older_one() -> None:
    assert NODE is not None
    command = [NODE, "--input-type=module", "-e", FULL_STORAGE, "--", str(ROOT / "clients/js/client.js")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.stdout == "{ epoch: 'e', after: 1 }\nnull\n", ended.stderr


OTHER_THINGS = """
import {pathToFileURL} from "node:url";
await import(pathToFileURL(process.argv.at(-1)));
for (const text of JSON.parse(process.argv.at(-2))) {
  console.log(NotificationClient.keptIn({getItem: () => text}, "key").load());
}
"""


@pytest.mark.skipif(NODE is None, reason=missing("node"))
def test_what_another_script_has_kept_there_is_no_position() -> None:
    assert NODE is not None
    position = '{"epoch": "e", "after": 7}'
    texts = json.dumps([position, None, "{", *NO_POSITIONS])
    command = [NODE, "--input-type=module", "-e", OTHER_THINGS, "--", texts, str(ROOT / "clients/js/client.js")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.stdout == "{ epoch: 'e', after: 7 }\n" + "null\n" * (2 + len(NO_POSITIONS)), ended.stderr


WITHOUT_WEBSOCKET = """
import {pathToFileURL} from "node:url";
delete globalThis.WebSocket;
await import(pathToFileURL(process.argv.at(-1)));
const client = new NotificationClient("ws://127.0.0.1:1/");
await client.open().catch(({name, message}) => console.log(`${name}: ${message}`));
"""


@pytest.mark.skipif(NODE is None, reason=missing("node"))
def test_a_node_without_websocket_is_refused_with_the_version_that_has_it() -> None:
    assert NODE is not None
    command = [NODE, "--input-type=module", "-e", WITHOUT_WEBSOCKET, "--", str(ROOT / "clients/js/client.js")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    said = "GoneError: there is no WebSocket here; Node has it from version 22 on\n"
    assert (ended.stdout, ended.returncode) == (said, 0), ended.stderr


def node_major() -> int:
    assert NODE is not None
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True).stdout
    return int(version.strip().removeprefix("v").partition(".")[0])


def constants() -> dict[str, float]:
    """The numbers of the script by name."""
    found = re.findall(r"\b([A-Z][A-Z_]+) = ([\d._]+)", SCRIPT)
    return {name: float(number.replace("_", "")) for name, number in found}


def test_it_has_the_numbers_of_the_other_client() -> None:
    of_the_other = {
        **{name: getattr(wsbundle_client.losses, name) for name in ("BACKOFF_BASE_S", "BACKOFF_CAP_S", "STABLE_S")},
        **{name: getattr(wsbundle_client.client, name) for name in ("REFRESH_AT", "TRIES_IN_USE")},
        "SILENT_PING_INTERVALS": wsbundle_client.link.SILENT_PING_INTERVALS,
    }
    assert {name: constants()[name] for name in of_the_other} == of_the_other


def test_it_has_the_names_and_numbers_of_the_service() -> None:
    of_the_service = {
        "MAX_ASKED_FOR": MAX_ASKED_FOR,
        "LIMIT": Failures.LIMIT.code,
        "BAD_REQUEST": Failures.BAD_REQUEST.code,
        "TOKEN_EXPIRED": Failures.TOKEN_EXPIRED.code,
        "IN_USE": Failures.IN_USE.code,
        "QUEUE_FULL": Failures.QUEUE_FULL.code,
    }
    assert {name: constants()[name] for name in of_the_service} == of_the_service
    assert f'SUBPROTOCOL = "{SUBPROTOCOL}"' in SCRIPT


MAILBOX_OF_NOBODY = """
import {pathToFileURL} from "node:url";
await import(pathToFileURL(process.argv.at(-1)));
try {
  new NotificationClient("ws://127.0.0.1:1/", {mailbox: true});
} catch ({name, message}) {
  console.log(`${name}: ${message}`);
}
"""


@pytest.mark.skipif(NODE is None, reason=missing("node"))
def test_a_mailbox_of_nobody_is_refused() -> None:
    assert NODE is not None
    command = [NODE, "--input-type=module", "-e", MAILBOX_OF_NOBODY, "--", str(ROOT / "clients/js/client.js")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S)
    assert ended.stdout == "TypeError: a mailbox belongs to an address: give `uuid` as well\n", ended.stderr
