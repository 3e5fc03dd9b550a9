"""What clients and a server do together: `python -m wsbundle_client.conformance ws://127.0.0.1:8765/`.

Each behaviour is played by clients against a server that runs. Addresses and groups are new ones in each run, so that a
server in use is not disturbed. The tests of the project play the same table with the client for browsers.
"""

import argparse
import asyncio
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

from wsbundle_client.client import Client
from wsbundle_client.command import websocket_url
from wsbundle_client.driver import Driver, Frame, PythonDriver
from wsbundle_client.errors import ClientError

# A behaviour takes some hundredths of a second; one that takes this long has not come true.
PATIENCE_S = 20.0
NOBODY, IN_USE = 114, 113

TokenFor = Callable[[str], str | None]


class Party:
    """The clients of one behaviour, which have addresses and groups of their own."""

    def __init__(self, url: str, new_driver: Callable[[], Driver], token_for: TokenFor = lambda address: None) -> None:
        self._url, self._new_driver, self._token_for = url, new_driver, token_for
        self._prefix = f"conformance-{secrets.token_hex(8)}-"
        self._drivers: list[Driver] = []

    def named(self, name: str) -> str:
        """The address or the group of this name."""
        return self._prefix + name

    async def begin(self, name: str) -> Driver:
        """A client that begins to connect."""
        driver = self._new_driver()
        self._drivers.append(driver)
        address = self.named(name)
        await driver.open(self._url, address, token=self._token_for(address))
        return driver

    async def enter(self, *names: str) -> list[Driver]:
        """Clients that are connected."""
        drivers = [await self.begin(name) for name in names]
        for driver in drivers:
            await driver.event("connected")
        return drivers

    async def close(self) -> None:
        for driver in self._drivers:
            await driver.close()


def expect(seen: object, expected: object) -> None:
    """Fail unless both are the same; not by `assert`, which some run without."""
    if seen != expected:
        raise AssertionError(f"{seen!r} in place of {expected!r}")


Behaviour = Callable[[Party], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(act: Behaviour) -> Behaviour:
    BEHAVIOURS[act.__name__] = act
    return act


async def answer_of(driver: Driver, method: str, *arguments: object, **options: object) -> object:
    """What a method of a client returns."""
    return await (await driver.call(method, *arguments, **options)).answer()


async def heard_by(driver: Driver) -> Frame:
    """The next message."""
    return await driver.event("message")


@behaviour
async def a_client_is_taken_in_under_the_address_that_it_names(party: Party) -> None:
    client = await party.begin("alice")
    expect((await client.event("connected"))["uuid"], party.named("alice"))


@behaviour
async def a_message_arrives_as_it_was_with_its_sender(party: Party) -> None:
    alice, bob = await party.enter("alice", "bob")
    message: object = {"text": '\u00e9 \U0001f600 \u2028 "quoted"', "list": [1, -0.5, None, True, []], "": {"deep": {}}}
    expect(await answer_of(alice, "send", party.named("bob"), message), {"online": 1})
    heard = await heard_by(bob)
    expect((heard["sender_uuid"], heard["message"]), (party.named("alice"), message))


@behaviour
async def half_of_a_surrogate_pair_arrives_as_it_was(party: Party) -> None:
    alice, bob = await party.enter("alice", "bob")
    expect(await answer_of(alice, "send", party.named("bob"), "cut \ud83d"), {"online": 1})
    expect((await heard_by(bob))["message"], "cut \ud83d")


@behaviour
async def messages_arrive_in_the_order_in_which_they_were_sent(party: Party) -> None:
    alice, bob = await party.enter("alice", "bob")
    calls = [await alice.call("send", party.named("bob"), number) for number in range(50)]
    expect([await call.answer() for call in calls], [{"online": 1}] * 50)
    expect([(await heard_by(bob))["message"] for _ in range(50)], list(range(50)))


@behaviour
async def a_message_to_oneself_arrives(party: Party) -> None:
    (alice,) = await party.enter("alice")
    expect(await answer_of(alice, "send", party.named("alice"), "note"), {"online": 1})
    expect((await heard_by(alice))["message"], "note")


@behaviour
async def a_message_to_an_address_that_nobody_has_is_refused_for_now(party: Party) -> None:
    (alice,) = await party.enter("alice")
    refused = {"error": NOBODY, "temporary": True}
    expect(await answer_of(alice, "send", party.named("nobody"), "hello"), refused)


@behaviour
async def a_message_is_delivered_when_its_recipient_has_confirmed_it(party: Party) -> None:
    alice, bob = await party.enter("alice", "bob")
    call = await alice.call("send", party.named("bob"), "hello", ack="delivered")
    await heard_by(bob)
    expect(await call.outcome(), "delivered")


@behaviour
async def a_message_to_a_group_reaches_every_member_but_its_sender(party: Party) -> None:
    alice, bob, carol = await party.enter("alice", "bob", "carol")
    for member in (alice, bob, carol):
        await answer_of(member, "join", party.named("group"))
    call = await alice.call("send_to_group", party.named("group"), "to all", ack="delivered")
    for member in (bob, carol):
        heard = await heard_by(member)
        expect((heard["message"], heard["group"]), ("to all", party.named("group")))
    expect(await call.outcome(), "delivered")
    await answer_of(bob, "send", party.named("alice"), "next")
    expect((await heard_by(alice))["message"], "next")


@behaviour
async def a_group_without_members_takes_a_message_for_nobody(party: Party) -> None:
    (alice,) = await party.enter("alice")
    expect(await answer_of(alice, "send_to_group", party.named("group"), "hello"), {"online": 0})


@behaviour
async def a_client_that_has_left_a_group_hears_it_no_longer(party: Party) -> None:
    alice, bob = await party.enter("alice", "bob")
    await answer_of(bob, "join", party.named("group"))
    expect(await answer_of(alice, "send_to_group", party.named("group"), "hello"), {"online": 1})
    await answer_of(bob, "leave", party.named("group"))
    expect(await answer_of(alice, "send_to_group", party.named("group"), "hello"), {"online": 0})


@behaviour
async def presence_names_the_addresses_that_are_connected(party: Party) -> None:
    alice, _ = await party.enter("alice", "bob")
    asked = [party.named("bob"), party.named("nobody")]
    expect(await answer_of(alice, "presence", asked), [party.named("bob")])


@behaviour
async def a_client_that_watches_an_address_is_told_when_it_comes_and_goes(party: Party) -> None:
    (alice,) = await party.enter("alice")
    expect(await answer_of(alice, "presence", [party.named("bob")], watch=True), [])
    (bob,) = await party.enter("bob")
    came = await alice.event("presence")
    await bob.close()
    went = await alice.event("presence")
    seen = [(event["uuid"], event["online"]) for event in (came, went)]
    expect(seen, [(party.named("bob"), True), (party.named("bob"), False)])


@behaviour
async def an_address_is_free_again_when_its_client_has_left(party: Party) -> None:
    alice, bob = await party.enter("alice", "bob")
    await answer_of(alice, "presence", [party.named("bob")], watch=True)
    await bob.close()
    await alice.event("presence")
    await party.enter("bob")


async def play(act: Behaviour, party: Party) -> str:
    """Why a behaviour does not hold; nothing if it does."""
    try:
        await asyncio.wait_for(act(party), PATIENCE_S)
    except asyncio.TimeoutError:
        return f"nothing more came within {PATIENCE_S:.0f} s"
    except AssertionError as error:
        return str(error)
    finally:
        await party.close()
    return ""


async def run(url: str, token_for: TokenFor) -> int:
    """Test every behaviour, and print the results; returns the exit code."""
    try:
        name = f"conformance-{secrets.token_hex(8)}"
        async with Client(url, name, token=token_for(name), reconnect=False):
            pass
    except ClientError as error:
        print(f"{url}: {error}", file=sys.stderr)
        return 1
    holding = 0
    for name, act in BEHAVIOURS.items():
        began = time.monotonic()
        fault = await play(act, Party(url, PythonDriver, token_for))
        holding += not fault
        took = f"{time.monotonic() - began:.2f} s"
        print(f"{'FAIL' if fault else 'ok  '}  {name.replace('_', ' ')}: {fault or took}", flush=True)
    print(f"{holding} of {len(BEHAVIOURS)} behaviours hold")
    return 0 if holding == len(BEHAVIOURS) else 1


def _from_command(command: str | None) -> TokenFor:
    if command is None:
        return lambda address: None
    words = shlex.split(command)

    def token_for(address: str) -> str:
        return subprocess.check_output([word.replace("{}", address) for word in words], text=True).strip()

    return token_for


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m wsbundle_client.conformance",
        description="Test a running server with everything that clients do with one.",
        epilog="Exit codes: 0 every behaviour holds, 1 one does not, 2 wrong usage.",
    )
    parser.add_argument("url", metavar="URL", type=websocket_url, help="the server, such as ws://127.0.0.1:8765/")
    parser.add_argument("--token-command", metavar="COMMAND", help="prints a token for the address that replaces {}")
    args = parser.parse_args()
    return asyncio.run(run(args.url, _from_command(args.token_command)))


if __name__ == "__main__":
    sys.exit(main())
