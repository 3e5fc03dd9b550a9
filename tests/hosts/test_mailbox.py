"""Mailboxes of real hosts: a phone that was off gets all of it, once, in order, whatever the service went through."""

import asyncio
import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.console import DOMAIN, NAME, Console, clients_come_to
from tests.hosts.test_engine import DATA, SERVED, engine_of
from wsbundle_client import Client, Event, File, Memory, RequestError

PATIENCE_S = 30.0
ACT_S = 300.0
ROOM = {"messages": 100_000, "bytes": 16 * 1024**2, "total": 64 * 1024**2}
ON_DISK: dict[str, Any] = {"auth": "token", "mailbox": {"keep": "disk", **ROOM}}
IN_ENGINE: dict[str, Any] = {"auth": "token", "mailbox": {"keep": "engine", **ROOM}}
STORES = {"disk": ON_DISK, "engine": {**IN_ENGINE, "engine": SERVED}}
MAIL = f"/var/lib/{NAME}/mailbox/mail.db"


def url(console: Console) -> str:
    return f"ws://{DOMAIN}/?{console.host.address}"


class People:
    """Somebody with a phone, and somebody who sends to it: numbers, one after another."""

    def __init__(self, console: Console, directory: Path) -> None:
        self.phone, self.sender = (
            console.wsbundle("token", name, "--send-to", "*").splitlines()[-1] for name in ("phone", "sender")
        )
        self.position = directory / "position.json"
        self.numbers = itertools.count()
        self.stored: list[int] = []
        self.unsure: set[int] = set()
        """Those of which the sender was told that nobody knows, as of what was under way when something ended."""
        self.heard: list[int] = []
        self.events: list[Event] = []

    async def look(self, console: Console, until: Callable[[], bool]) -> None:
        """The phone is on, until then."""
        file = File(self.position)
        async with Client(url(console), "phone", token=self.phone, mailbox=file, on_event=self.events.append) as phone:
            ends = asyncio.get_running_loop().time() + PATIENCE_S
            while not until() and asyncio.get_running_loop().time() < ends:
                try:
                    self.heard.append((await asyncio.wait_for(anext(phone), 0.5)).message)
                except asyncio.TimeoutError:
                    continue
            await phone.confirm()

    async def send(self, console: Console, number: int, until: Callable[[], bool] = lambda: True) -> None:
        """So many are stored, whatever else is refused, and then until that is so."""
        ends = len(self.stored) + number
        async with Client(url(console), "sender", token=self.sender, mailbox=Memory()) as sender:
            while len(self.stored) < ends or not until():
                await self.send_one(sender)

    async def send_one(self, sender: Client) -> None:
        number = next(self.numbers)
        try:
            sent = await asyncio.wait_for(sender.send("phone", number), PATIENCE_S)
        except RequestError as error:
            if not error.temporary:
                raise
            self.unsure.add(number)
            await asyncio.sleep(0.1)
        else:
            assert sent.stored
            self.stored.append(number)
            await asyncio.sleep(0.1)

    def has_all(self) -> bool:
        return set(self.stored) <= set(self.heard)

    def had_all_once_in_order(self) -> None:
        assert set(self.stored) - set(self.heard) == set()
        assert self.heard == sorted(set(self.heard))
        assert set(self.heard) <= {*self.stored, *self.unsure}
        assert [event for event in self.events if event.kind == "missing"] == []


def play(*acts: Any) -> None:
    """One after another, by way of the nginx of the host whose address the URL ends in."""

    async def all_acts() -> None:
        for act in acts:
            await asyncio.wait_for(act(), ACT_S)

    with clients_come_to():
        asyncio.run(all_acts())


async def goes_on_sending(people: People, console: Console, happens: Callable[[], object]) -> None:
    """Messages are sent all the time while something happens to the host, and some before and after it."""
    acting = asyncio.create_task(asyncio.to_thread(happens))
    await people.send(console, 10, acting.done)
    await acting
    await people.send(console, 5)


def upgraded(console: Console, **settings: Any) -> None:
    """To the code of another release, which the workers cannot take over."""
    console.run("sh", "-c", "for file in hub bus_records; do echo '#' >>service/core/$file.py; done")
    before = console.main_pids()[f"{NAME}.service"]
    console.install(**settings)
    assert console.main_pids()[f"{NAME}.service"] != before


def restarted(console: Console) -> None:
    console.run("systemctl", "restart", f"{NAME}.service")


@pytest.mark.parametrize("store", STORES)
def test_a_phone_that_was_off_gets_all_of_it_once_and_in_order(empty: Console, tmp_path: Path, store: str) -> None:
    settings = STORES[store]
    empty.install(**settings)
    people = People(empty, tmp_path)
    play(
        partial(people.look, empty, lambda: True),
        partial(people.send, empty, 5),
        partial(people.look, empty, people.has_all),
        partial(goes_on_sending, people, empty, partial(restarted, empty)),
        partial(goes_on_sending, people, empty, partial(upgraded, empty, **settings)),
        partial(goes_on_sending, people, empty, partial(empty.wsbundle, "rollback")),
    )
    assert empty.current() == "1"
    assert len(people.heard) == 5
    empty.host.reboot()
    empty.run("systemctl", "is-active", "--wait", f"{NAME}.service")
    play(
        partial(people.send, empty, 5),
        partial(people.look, empty, people.has_all),
        partial(people.look, empty, lambda: len(people.heard) > len(people.stored) + len(people.unsure)),
    )
    people.had_all_once_in_order()


@pytest.mark.parametrize("store", STORES)
def test_what_is_kept_outlives_an_uninstallation_and_goes_with_a_purge(
    empty: Console, tmp_path: Path, store: str
) -> None:
    settings, place = STORES[store], MAIL if store == "disk" else DATA
    empty.install(**settings)
    people = People(empty, tmp_path)
    play(partial(people.look, empty, lambda: True), partial(people.send, empty, 10))
    empty.wsbundle("uninstall")
    assert empty.run("sh", "-c", f"ls -d {place}").strip() == place
    empty.install(**settings)
    assert "10 messages of" in empty.wsbundle("mailbox")
    play(partial(people.look, empty, people.has_all))
    people.had_all_once_in_order()
    empty.wsbundle("uninstall", "--purge")
    assert "No such file" in empty.run("ls", "-d", place, check=False)


def test_mailboxes_are_moved_from_the_disk_to_an_engine_and_back(empty: Console, tmp_path: Path) -> None:
    """As docs/mailbox-hosts.md says."""
    empty.install(**ON_DISK)
    people = People(empty, tmp_path)
    play(partial(people.look, empty, lambda: True), partial(people.send, empty, 10))
    for settings in (STORES["engine"], ON_DISK):
        units = (f"{NAME}.socket", f"{NAME}.service")
        empty.run("systemctl", "stop", *units)
        empty.run("rm", "-f", "mailboxes.db")
        empty.wsbundle("mailbox", "--export", "mailboxes.db")
        empty.install(**settings)
        empty.run("systemctl", "stop", *units)
        empty.wsbundle("mailbox", "--import", "mailboxes.db")
        empty.run("systemctl", "start", *units)
        assert "10 messages of" in empty.wsbundle("mailbox")
    play(partial(people.look, empty, people.has_all))
    assert people.heard == people.stored
    assert "missing" in [event.kind for event in people.events]  # nobody knows what was stored since the copy


async def is_refused(people: People, console: Console, *codes: int) -> None:
    """What is sent to the phone, until it is."""
    async with Client(url(console), "sender", token=people.sender) as sender:
        ends = asyncio.get_running_loop().time() + PATIENCE_S
        while asyncio.get_running_loop().time() < ends:
            number = next(people.numbers)
            try:
                assert (await sender.send("phone", number)).stored
                people.stored.append(number)
            except RequestError as error:
                people.unsure.add(number)
                if error.code in codes:
                    return
        raise AssertionError("everything is stored")


def test_the_disk_of_a_served_engine_is_full_and_there_is_room_again(empty: Console, tmp_path: Path) -> None:
    empty.install(**STORES["engine"])
    unit = engine_of(empty)
    empty.run("systemctl", "stop", unit)
    # A small disk of its own.
    small = f"cp -a {DATA} /srv/data && mount -t tmpfs -o size=40M tmpfs {DATA} && cp -a /srv/data/. {DATA}"
    empty.run("sh", "-c", f"{small} && chown --reference=/srv/data {DATA} && chmod --reference=/srv/data {DATA}")
    empty.run("systemctl", "start", unit)
    people = People(empty, tmp_path)
    play(partial(people.look, empty, lambda: True), partial(people.send, empty, 10))
    empty.run("sh", "-c", f"head -c 1G /dev/zero >{DATA}/filler; test -s {DATA}/filler")
    play(partial(is_refused, people, empty, 118))
    said = f"the disk of {DATA} is full: make room"
    assert soon(lambda: said in empty.run("journalctl", "--no-pager", "-u", unit))
    assert soon(lambda: not empty.is_active(unit))
    told = empty.status(code=1)
    assert "ALONE: the engine at 127.0.0.1:6390 cannot be reached" in told
    assert "FAILING: what is sent to them is refused" in told
    told = empty.wsbundle("doctor", "--only", "engine.serve", "--only", "mailbox-kept", code=1)
    assert f"{unit} does not run" in told
    # It does not come and go.
    log = ("journalctl", "--no-pager", "-u", f"{NAME}.service")
    before = empty.run(*log)
    empty.run("sleep", "8")
    assert empty.run(*log) == before
    empty.run("rm", f"{DATA}/filler")
    play(partial(people.send, empty, 10))
    assert empty.is_active(unit)
    assert empty.status()
    assert "mailbox-kept" in empty.wsbundle("doctor", "--only", "engine.serve", "--only", "mailbox-kept")
    play(partial(people.look, empty, people.has_all))
    people.had_all_once_in_order()


def soon(condition: Callable[[], bool]) -> bool:
    ends = time.monotonic() + PATIENCE_S
    while not condition() and time.monotonic() < ends:
        time.sleep(0.2)
    return condition()
