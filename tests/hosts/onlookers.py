"""Whoever might notice that the service is installed anew: a page, a phone that is on, one that sleeps, and a script.

All come through the nginx of a host, over TLS. The script sends numbers to the others with curl, and the page and the
phone that is on write to each other.
"""

import asyncio
import itertools
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from tests.clients.chromium import Browser, Page, chromium
from tests.hosts.console import DOMAIN, ROOT, Console, clients_come_to
from wsbundle_client import Client, Event, File, GoneError, RequestError, Sent

PERIOD_S = 0.2
PATIENCE_S = 30.0
PUBLISHER, PAGE, PHONE, SLEEPER = "publisher", "page", "phone", "sleeper"
LISTENERS = (PAGE, PHONE, SLEEPER)
# How long the phone that sleeps is awake, and how long it is not.
AWAKE_S, ASLEEP_S = (2.0, 8.0), (2.0, 6.0)
# What no answer contains.
_END = "\x1e"
_URL = f"wss://{DOMAIN}/"


class Heard(NamedTuple):
    """A number that came to somebody, and when, in seconds since 1970."""

    at: float
    sender: str
    number: int


class Onlooker:
    """One of them. `noticed` has what nobody is to see, and `sent` how many numbers it has sent."""

    def __init__(self, name: str, token: str) -> None:
        self.name = name
        self.token = token
        self.heard: list[Heard] = []
        self.noticed: list[str] = []
        self.sent = 0

    def numbers(self, sender: str) -> list[int]:
        """What came from one of them, in the order in which it came."""
        return [heard.number for heard in self.heard if heard.sender == sender]

    def notice(self, what: object) -> None:
        self.noticed.append(f"{time.strftime('%T')} {what}")

    def see(self, event: Event) -> None:
        """Of a client: it is connected once, and nothing else happens."""
        if event.kind != "connected":
            self.notice(f"{event.kind}: {event.reason}")


class Publisher(Onlooker):
    """A script: one curl for each number, to all who listen, and the next one when that is done."""

    def __init__(self, token: str, address: str) -> None:
        super().__init__(PUBLISHER, token)
        self.answers: list[float] = []
        """When the last answer to each number came."""
        self._words = ["--silent", "--show-error", "--insecure", "--resolve", f"{DOMAIN}:443:{address}"]
        self._words += ["--max-time", str(PATIENCE_S), "--write-out", " %{http_code}" + _END]
        self._words += ["--header", "Content-Type: application/json", "--header", f"Authorization: Bearer {token}"]

    async def publish(self, until: asyncio.Event) -> None:
        while not until.is_set():
            began = time.monotonic()
            self.sent += 1
            await self._publish(self.sent)
            self.answers.append(time.time())
            await asyncio.sleep(max(0.0, began + PERIOD_S - time.monotonic()))

    async def _publish(self, number: int) -> None:
        urls = f"https://{DOMAIN}/publish/{{{','.join(LISTENERS)}}}"
        process = await asyncio.create_subprocess_exec(
            "curl", *self._words, "--data", str(number), urls,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await process.communicate())[0].decode()
        for listener, answer in itertools.zip_longest(LISTENERS, said.split(_END)[:-1], fillvalue=""):
            body, _, status = answer.rpartition(" ")
            # A message for the one that sleeps waits in its mailbox; the others are always there.
            if not status.startswith("20") or (listener != SLEEPER and json.loads(body).get("online") != 1):
                self.notice(f"{number} to {listener}: {answer!r}")


class PhoneThatIsOn(Onlooker):
    """It keeps its connection, and has no mailbox."""

    def __init__(self, name: str, token: str) -> None:
        super().__init__(name, token)
        self._given: dict[str, Sent] = {}
        """By number, and when it was sent."""

    async def live(self, is_on: asyncio.Event, until: asyncio.Event) -> None:
        async with Client(_URL, self.name, token=self.token, on_event=self.see) as client:
            is_on.set()
            writing = asyncio.create_task(self._write(client, until))
            try:
                async for message in client:
                    self.heard.append(Heard(time.time(), message.sender_uuid, int(message.message)))
            finally:
                writing.cancel()

    def see(self, event: Event) -> None:
        if event.kind == "connected" and self.sent:
            self.notice("connected again")
        super().see(event)

    async def _write(self, client: Client, until: asyncio.Event) -> None:
        """To the page, which is there by then."""
        while not until.is_set():
            self.sent += 1
            try:
                what = f"{time.strftime('%T')} {self.sent}"
                self._given[what] = await client.send(PAGE, self.sent, ack="delivered")
            except RequestError as error:
                self.notice(f"{self.sent} to {PAGE}: {error}")
            await asyncio.sleep(PERIOD_S)

    def look_back(self) -> None:
        """What became of its messages that should not have."""
        for what, sent in self._given.items():
            if sent.outcomes != {PAGE: "delivered"}:
                self.noticed.append(f"{what} to {PAGE}: {sent.outcomes}")

    def waits(self) -> bool:
        """Whether receipts are to come."""
        return not all(sent.outcomes for sent in self._given.values())


class PhoneThatSleeps(Onlooker):
    """It is here for a few seconds, then away, with or without a word, and begins anew with what it has kept."""

    def __init__(self, name: str, token: str, position: Path) -> None:
        super().__init__(name, token)
        self.returns = 0
        self.longest_return_s = 0.0
        self._position = File(position)

    async def live(self, is_on: asyncio.Event, until: asyncio.Event) -> None:
        chance = random.Random(0)
        while True:
            try:
                await self._wake(chance, is_on, until)
            except GoneError as error:
                self.notice(error)
            await asyncio.sleep(chance.uniform(*ASLEEP_S) if not until.is_set() else 0.0)

    async def _wake(self, chance: random.Random, is_on: asyncio.Event, until: asyncio.Event) -> None:
        began = time.monotonic()
        async with Client(_URL, self.name, token=self.token, mailbox=self._position, on_event=self.see) as client:
            self.longest_return_s = max(self.longest_return_s, time.monotonic() - began)
            self.returns += 1
            is_on.set()
            ends = time.monotonic() + chance.uniform(*AWAKE_S)
            while time.monotonic() < ends or until.is_set():
                try:
                    message = await asyncio.wait_for(anext(client), 0.5)
                except asyncio.TimeoutError:
                    continue
                self.heard.append(Heard(time.time(), message.sender_uuid, int(message.message)))
            await client.confirm()
            if chance.random() < 0.5 and client._link is not None:
                client._link.socket.transport.abort()


# What somebody who looks at the page sees. Times are in seconds since 1970.
_WATCH = """{
    window.seen = {received: [], sent: [], states: [], peers: []};
    const now = () => Date.now() / 1000;
    const watched = (id, list) => new MutationObserver(() => list.push(byId(id).textContent))
        .observe(byId(id), {childList: true, characterData: true, subtree: true});
    new MutationObserver((records) => {
        for (const {addedNodes} of records) for (const line of addedNodes) {
            if (line.dataset.kind === "sent") seen.sent.push(line.querySelector(".outcome"));
            else seen.received.push([now(), line.querySelector(".who").textContent,
                                     Number(line.querySelector(".text").textContent)]);
        }
    }).observe(byId("log"), {childList: true});
    watched("state", seen.states);
    watched("peer", seen.peers);
}"""
_OUTCOMES = "seen.sent.map(({dataset}) => dataset.state)"
_WRITE = """{
    let number = 0;
    window.writing = setInterval(() => {
        byId("message").value = String(++number);
        document.querySelector("#send button").click();
    }, 1000);
}"""


class PageInABrowser(Onlooker):
    """The demo page in Chromium, which has a mailbox as it has a token. Call its methods in a thread."""

    def open(self, browser: Browser) -> None:
        place = f"file://{ROOT}/clients/page/index.html?url={quote(_URL)}#{self.name}"
        self._page: Page = browser.open(place)
        self._page.wait_for("byId('trouble').hidden === false")  # the form has no token yet
        self._page.evaluate(
            f"byId('token').value = {json.dumps(self.token)}; document.querySelector('#connect button').click()"
        )
        self._page.wait_for("byId('state').textContent === 'connected'")
        self._notes = self._page.evaluate("byId('notes').children.length")
        self._page.evaluate(_WATCH)

    def write(self) -> None:
        """To the phone that is on."""
        self._page.evaluate(f"address('address', {json.dumps(PHONE)})")
        self._page.wait_for("byId('peer').textContent === 'online'")
        self._page.evaluate("seen.peers.length = 0")
        self._page.evaluate(_WRITE)

    def write_no_more(self) -> None:
        self._page.evaluate("clearInterval(writing)")
        self.sent = int(str(self._page.evaluate("seen.sent.length")))

    def look(self) -> None:
        """What it shows by now."""
        received = self._page.evaluate("seen.received")
        assert isinstance(received, list)
        self.heard = [Heard(*each) for each in received]

    def waits(self) -> bool:
        """Whether receipts are to come."""
        return bool(self._page.evaluate(f"{_OUTCOMES}.some((state) => ['sending', 'accepted'].includes(state))"))

    def look_back(self) -> None:
        """What it has shown that it should not have."""
        outcomes = f"{_OUTCOMES}.filter((state) => state !== 'delivered')"
        notes = f"[...byId('notes').children].slice(0, -{self._notes}).map(({{textContent}}) => textContent)"
        for what in (outcomes, "seen.states", "seen.peers", notes):
            shown = self._page.evaluate(what)
            assert isinstance(shown, list)
            self.noticed += [f"{what}: {each}" for each in shown]


class Onlookers(NamedTuple):
    """All of them."""

    publisher: Publisher
    page: PageInABrowser
    phone: PhoneThatIsOn
    sleeper: PhoneThatSleeps

    def missing(self) -> Iterator[str]:
        """What has not come, has come twice or out of order."""
        sent = {each.name: list(range(1, each.sent + 1)) for each in self}
        for listener, sender in [*((name, PUBLISHER) for name in LISTENERS), (PAGE, PHONE), (PHONE, PAGE)]:
            heard = next(each for each in self if each.name == listener).numbers(sender)
            if heard != sent[sender]:
                yield f"{sender} to {listener}: {len(sent[sender])} sent, {_difference(sent[sender], heard)}"

    def noticed(self) -> Iterator[str]:
        """What any of them has, which is nothing."""
        return (f"{each.name}: {what}" for each in self for what in each.noticed)

    def silence(self, began: float, ended: float) -> dict[str, float]:
        """The longest time without a number from the script, or an answer to it, that touches these moments."""
        return {
            PAGE: _longest([heard.at for heard in self.page.heard if heard.sender == PUBLISHER], began, ended),
            PHONE: _longest([heard.at for heard in self.phone.heard if heard.sender == PUBLISHER], began, ended),
            PUBLISHER: _longest(self.publisher.answers, began, ended),
        }


def _difference(sent: list[int], heard: list[int]) -> str:
    missing = sorted(set(sent) - set(heard))
    twice = len(heard) - len(set(heard))
    return f"{len(missing)} missing {missing[:5]}, {twice} twice, {'not ' * (heard != sorted(heard))}in order"


def _longest(moments: list[float], began: float, ended: float) -> float:
    gaps = itertools.pairwise(moments)
    return max((after - before for before, after in gaps if after >= began and before <= ended), default=0.0)


@asynccontextmanager
async def onlookers(console: Console, directory: Path) -> AsyncIterator[Onlookers]:
    """They look on while the block lasts; afterwards all that was sent, and its receipts, had time to come."""
    address = console.host.address

    def token(name: str) -> str:
        return console.wsbundle("token", name, "--send-to", "*").splitlines()[-1]

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    flags = (f"--host-resolver-rules=MAP {DOMAIN} {address}", "--ignore-certificate-errors")
    of = Onlookers(
        Publisher(token(PUBLISHER), address),
        PageInABrowser(PAGE, token(PAGE)),
        PhoneThatIsOn(PHONE, token(PHONE)),
        PhoneThatSleeps(SLEEPER, token(SLEEPER), directory / "position.json"),
    )
    with clients_come_to(address, ssl=context), chromium(*flags) as browser:
        until = asyncio.Event()
        await asyncio.to_thread(of.page.open, browser)
        phones = [await _begun(partial(phone.live, until=until)) for phone in (of.phone, of.sleeper)]
        await asyncio.to_thread(of.page.write)
        publishing = asyncio.create_task(of.publisher.publish(until))
        try:
            yield of
        finally:
            await asyncio.to_thread(of.page.write_no_more)
            until.set()
            await publishing
            await _until_all_has_come(of)
            await asyncio.to_thread(of.page.look_back)
            of.phone.look_back()
            for phone in phones:
                phone.cancel()
            for end in await asyncio.gather(*phones, return_exceptions=True):
                assert isinstance(end, asyncio.CancelledError), end


async def _begun(live: Callable[..., Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
    is_on = asyncio.Event()
    living = asyncio.create_task(live(is_on))
    await asyncio.wait_for(is_on.wait(), PATIENCE_S)
    return living


async def _until_all_has_come(of: Onlookers) -> None:
    ends = time.monotonic() + PATIENCE_S
    while True:
        await asyncio.to_thread(of.page.look)
        waits = of.phone.waits() or await asyncio.to_thread(of.page.waits)
        if time.monotonic() > ends or not (waits or list(of.missing())):
            return
        await asyncio.sleep(0.5)
