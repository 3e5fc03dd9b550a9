"""What every client does: each behaviour plays the service against a client, and says what it expects of it.

The client may be written in any language; `Driver` is what this table needs of it. Nothing here waits for real time: a
second of the clients lasts as long as the behaviour says, and their random share is 1, so that waits are known.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from service.core import close_codes
from wsbundle_client.driver import DEADLINE_S, Driver, Frame

SECOND = 0.01


class Peer:
    """The service's end of one connection, and what it says there."""

    def __init__(self, connection: ServerConnection, number: int) -> None:
        self._connection = connection
        self._number = number

    async def frame(self) -> Frame:
        """The next frame of the client."""
        frame: Frame = json.loads(await asyncio.wait_for(self._connection.recv(), DEADLINE_S))
        return frame

    async def say(self, kind: str, **fields: object) -> None:
        await self._connection.send(json.dumps({"type": kind, **fields}))

    async def hello(self) -> Frame:
        """Welcome the client, and hear its hello."""
        await self.say("welcome", uuid="temporary", message="", server_time=0.0, protocol="nc.v1")
        frame = await self.frame()
        assert frame["type"] == "hello"
        return frame

    async def greet(self, **fields: object) -> Frame:
        """Take the client in; the result is its hello."""
        hello = await self.hello()
        await self.take_in(hello, **fields)
        return hello

    async def take_in(self, hello: Frame, **fields: object) -> None:
        ok = {
            "uuid": hello.get("uuid", "temporary"),
            "resume": f"secret {self._number}",
            "ping_ms": 3_600_000,
            "limits": {"message_size": 1000},
            **fields,
        }
        await self.say("ok", id=hello["id"], **ok)

    async def turn_away(self, code: int, temporary: bool = False) -> None:
        hello = await self.hello()
        await self.say("error", id=hello["id"], code=code, reason="no", temporary=temporary)

    async def close(self, code: int, reason: str = "") -> None:
        await self._connection.close(code, reason)

    def abort(self) -> None:
        """The network is gone."""
        self._connection.transport.abort()

    def read(self, goes_on: bool) -> None:
        """Whether to read what the client says, and to answer when it closes."""
        transport = self._connection.transport
        (transport.resume_reading if goes_on else transport.pause_reading)()

    @property
    def is_open(self) -> bool:
        return self._connection.close_code is None

    async def closed(self) -> None:
        await asyncio.wait_for(self._connection.wait_closed(), DEADLINE_S)

    async def rest(self) -> list[Frame]:
        """What the client has still said until it left."""
        frames = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                frames.append(await self.frame())
        return frames


class Refusal(NamedTuple):
    """An answer to a handshake."""

    status: int
    retry_after: str | None = None
    more: tuple[tuple[str, str], ...] = ()


class Server:
    """A service that does as it is told."""

    def __init__(self) -> None:
        self.refusals: list[Refusal] = []
        self.handshakes: list[Request] = []
        self._peers: asyncio.Queue[Peer] = asyncio.Queue()
        self._numbers = itertools.count(1)
        self._server: WebSocketServer

    @contextlib.asynccontextmanager
    async def running(self, speaks: str = "nc.v1") -> AsyncIterator["Server"]:
        self._server = await serve(
            self._handle,
            "127.0.0.1",
            0,
            subprotocols=[Subprotocol(speaks)],
            process_request=self._admit,
            ping_interval=None,
            close_timeout=1,
        )
        try:
            yield self
        finally:
            self._server.close()
            await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes.append(request)
        if not self.refusals:
            return None
        status, retry_after, more = self.refusals.pop(0)
        headers = Headers([("Content-Length", "0"), *more])
        if retry_after is not None:
            headers["Retry-After"] = retry_after
        return Response(status, "No", headers)

    async def _handle(self, connection: ServerConnection) -> None:
        self._peers.put_nowait(Peer(connection, next(self._numbers)))
        await connection.wait_closed()

    async def accept(self) -> Peer:
        """The next connection."""
        return await asyncio.wait_for(self._peers.get(), DEADLINE_S)

    async def nobody_comes(self) -> None:
        """Long enough for any back-off to end."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._peers.get(), 40 * SECOND)
            raise AssertionError("the client came back")


Behaviour = Callable[[Server, Driver], Awaitable[None]]
BEHAVIOURS: dict[str, Behaviour] = {}
# A browser does not tell a page the status of a handshake.
OF_THE_HANDSHAKE: dict[str, Behaviour] = {}


def behaviour(act: Behaviour) -> Behaviour:
    BEHAVIOURS[act.__name__] = act
    return act


def of_the_handshake(act: Behaviour) -> Behaviour:
    OF_THE_HANDSHAKE[act.__name__] = act
    return act


async def connected(server: Server, client: Driver, /, **fields: object) -> Peer:
    """The next connection of the client, which has been taken in."""
    peer = await server.accept()
    await peer.greet(**fields)
    await client.event("connected")
    return peer


# Hello


@behaviour
async def it_says_hello_with_its_address_and_token(server: Server, client: Driver) -> None:
    await client.open(server.url, token="a token")
    peer = await server.accept()
    hello = await peer.greet()
    assert (hello["uuid"], hello["token"], hello.get("resume")) == ("alice", "a token", None)
    assert (await client.event("connected"))["uuid"] == "alice"


@behaviour
async def it_shows_its_token_in_no_handshake(server: Server, client: Driver) -> None:
    await client.open(server.url, token="a token")
    await connected(server, client)
    (handshake,) = server.handshakes
    assert "token" not in f"{handshake.path}{handshake.headers}"


@behaviour
async def without_an_address_it_keeps_the_one_that_it_was_given(server: Server, client: Driver) -> None:
    await client.open(server.url, uuid=None)
    first = await server.accept()
    assert "uuid" not in await first.greet(uuid="drawn")
    assert (await client.event("connected"))["uuid"] == "drawn"
    first.abort()
    assert (await (await server.accept()).greet())["uuid"] == "drawn"


@behaviour
async def beside_a_token_it_names_no_address_but_one_of_its_own(server: Server, client: Driver) -> None:
    await client.open(server.url, uuid=None, token="t")
    for drawn in ("temporary-1", "temporary-2"):
        peer = await server.accept()
        assert "uuid" not in await peer.greet(uuid=drawn)
        assert (await client.event("connected"))["uuid"] == drawn
        peer.abort()
        await client.event("disconnected")


@behaviour
async def it_fetches_a_fresh_token_for_each_hello(server: Server, client: Driver) -> None:
    await client.open(server.url, token=["one", "two"])
    first = await server.accept()
    assert (await first.greet())["token"] == "one"
    first.abort()
    assert (await (await server.accept()).greet())["token"] == "two"


@behaviour
async def it_takes_its_address_over_from_its_own_lost_connection(server: Server, client: Driver) -> None:
    await client.open(server.url)
    (await connected(server, client)).abort()
    second = await server.accept()
    assert (await second.greet())["resume"] == "secret 1"
    second.abort()
    assert (await (await server.accept()).greet())["resume"] == "secret 2"


@behaviour
async def a_refused_hello_is_the_end(server: Server, client: Driver) -> None:
    await client.open(server.url, token=["one", "two"])
    await (await server.accept()).turn_away(101)
    assert "101" in (await client.event("gone"))["reason"]
    await server.nobody_comes()


@behaviour
async def an_expired_token_is_the_end_when_it_has_no_other(server: Server, client: Driver) -> None:
    await client.open(server.url, token="a token")
    await (await server.accept()).turn_away(109)
    assert "109" in (await client.event("gone"))["reason"]


@behaviour
async def an_expired_token_is_replaced_by_a_fresh_one(server: Server, client: Driver) -> None:
    await client.open(server.url, token=["old", "new"])
    await (await server.accept()).turn_away(109)
    assert (await client.event("disconnected"))["wait_s"] == 0.5
    assert (await (await server.accept()).greet())["token"] == "new"


@behaviour
async def an_address_that_another_has_is_the_end(server: Server, client: Driver) -> None:
    await client.open(server.url)
    await (await server.accept()).turn_away(113)
    await client.event("gone")


@behaviour
async def its_own_address_is_tried_again_after_a_lost_connection(server: Server, client: Driver) -> None:
    await client.open(server.url)
    (await connected(server, client)).abort()
    await client.event("disconnected")
    for _ in range(4):
        await (await server.accept()).turn_away(113)
        await client.event("disconnected")
    await connected(server, client)


@behaviour
async def its_own_address_is_not_tried_for_ever(server: Server, client: Driver) -> None:
    await client.open(server.url)
    (await connected(server, client)).abort()
    await client.event("disconnected")
    for _ in range(4):
        await (await server.accept()).turn_away(113)
        await client.event("disconnected")
    await (await server.accept()).turn_away(113)
    await client.event("gone")


# Coming back


async def wait_after(server: Server, client: Driver, peer: Peer, code: int) -> float:
    await peer.close(code, "because")
    event = await client.event("disconnected")
    assert event["reason"] == f"closed with {code} because"
    wait_s: float = event["wait_s"]
    return wait_s


@behaviour
async def it_waits_twice_as_long_each_time_up_to_a_cap(server: Server, client: Driver) -> None:
    await client.open(server.url, second=0.002)
    waits = [await wait_after(server, client, await server.accept(), 1011) for _ in range(8)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


@behaviour
async def only_a_connection_that_lasted_starts_the_waits_anew(server: Server, client: Driver) -> None:
    await client.open(server.url, second=0.02)
    assert await wait_after(server, client, await connected(server, client), 1011) == 0.5
    assert await wait_after(server, client, await connected(server, client), 1011) == 1
    lasting = await connected(server, client, ping_ms=40_000)
    assert (await lasting.frame())["type"] == "ping"  # so 40 seconds have passed
    assert await wait_after(server, client, lasting, 1011) == 0.5


@behaviour
async def it_does_not_come_back_from_4000_to_4099(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    await peer.close(*close_codes.REPLACED)
    assert (await client.event("gone"))["reason"] == "closed with 4010 replaced by a newer connection"
    await server.nobody_comes()
    assert "4010" in (await (await client.call("send", "bob", "hello")).answer())["gone"]


@behaviour
async def it_comes_back_at_once_from_4200_to_4299_with_a_fresh_token(server: Server, client: Driver) -> None:
    await client.open(server.url, token=["old", "new"])
    assert await wait_after(server, client, await connected(server, client), 4200) == 0
    assert (await (await server.accept()).greet())["token"] == "new"


@behaviour
async def it_comes_back_at_once_only_once(server: Server, client: Driver) -> None:
    await client.open(server.url)
    assert await wait_after(server, client, await connected(server, client), 4299) == 0
    assert await wait_after(server, client, await connected(server, client), 4299) == 1


@behaviour
async def it_comes_back_after_a_while_from_all_other_codes(server: Server, client: Driver) -> None:
    await client.open(server.url)
    waits = [await wait_after(server, client, await connected(server, client), code) for code in (1000, 1008, 1012)]
    waits += [await wait_after(server, client, await connected(server, client), code) for code in (3999, 4100, 4300)]
    assert waits == [0.5, 1, 2, 4, 8, 16]


@behaviour
async def it_comes_back_after_a_while_from_4100_to_4199(server: Server, client: Driver) -> None:
    await client.open(server.url)
    assert await wait_after(server, client, await connected(server, client), 4199) == 0.5


@behaviour
async def it_comes_back_after_a_while_from_4300_on(server: Server, client: Driver) -> None:
    await client.open(server.url)
    assert await wait_after(server, client, await connected(server, client), 4300) == 0.5


@behaviour
async def a_silent_service_is_asked_for_a_sign_of_life_and_given_up(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client, ping_ms=5000)
    assert (await peer.frame())["type"] == "ping"
    assert (await client.event("disconnected"))["reason"] == "silent for too long"
    await server.accept()


@behaviour
async def a_service_that_gives_a_sign_of_life_is_kept(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client, ping_ms=20_000)
    for _ in range(3):
        assert (await peer.frame())["type"] == "ping"
        await peer.say("pong")
    assert peer.is_open


# Going away


@behaviour
async def after_a_goaway_it_connects_anew_and_then_closes_the_old_one(server: Server, client: Driver) -> None:
    await client.open(server.url)
    old = await connected(server, client)
    await old.say("goaway", reconnect_in_ms=1000, deadline_ms=9000)
    new = await server.accept()
    hello = await new.hello()
    assert hello["resume"] == "secret 1"
    assert old.is_open
    sending = await client.call("send", "bob", "in between")
    await new.take_in(hello)
    await client.event("connected")
    kept = await new.frame()
    assert kept["message"] == "in between"
    await new.say("ok", id=kept["id"], online=1)
    assert (await sending.answer())["online"] == 1
    assert await old.rest() == []


@behaviour
async def closed_while_it_moves_it_leaves_neither_connection_open(server: Server, client: Driver) -> None:
    await client.open(server.url)
    old = await connected(server, client)
    await old.say("goaway", reconnect_in_ms=1000, deadline_ms=9000)
    new = await server.accept()
    await new.hello()
    await client.close()
    assert await old.rest() == []
    assert await new.rest() == []


@behaviour
async def after_a_goaway_it_uses_the_old_connection_until_its_time(server: Server, client: Driver) -> None:
    await client.open(server.url)
    old = await connected(server, client)
    await old.say("goaway", reconnect_in_ms=50_000, deadline_ms=90_000)
    sending = await client.call("send", "bob", "hello")
    frame = await old.frame()
    await old.say("ok", id=frame["id"], online=1)
    assert (await sending.answer())["online"] == 1


@behaviour
async def closed_after_a_goaway_it_comes_back_at_the_time_that_it_was_told(server: Server, client: Driver) -> None:
    await client.open(server.url)
    clock = asyncio.get_running_loop().time
    old = await connected(server, client)
    told_at = clock()
    await old.say("goaway", reconnect_in_ms=60_000, deadline_ms=90_000)
    assert 0.5 < await wait_after(server, client, old, 1012) <= 60
    await server.accept()
    assert clock() - told_at > 59 * SECOND


@behaviour
async def a_goaway_soon_after_another_one_is_not_obeyed_before_the_wait_is_over(server: Server, client: Driver) -> None:
    await client.open(server.url)
    clock = asyncio.get_running_loop().time
    for _ in range(7):
        told_at = clock()
        await (await connected(server, client)).say("goaway", reconnect_in_ms=0, deadline_ms=9000)
    await server.accept()
    assert clock() - told_at > 25 * SECOND


@behaviour
async def a_goaway_for_longer_than_an_hour_is_not_believed(server: Server, client: Driver) -> None:
    await client.open(server.url)
    old = await connected(server, client)
    await old.say("goaway", reconnect_in_ms=10**9, deadline_ms=10**9)
    assert 3500 < await wait_after(server, client, old, 1012) <= 3600


@behaviour
async def an_odd_goaway_is_a_lost_connection(server: Server, client: Driver) -> None:
    await client.open(server.url)
    await (await connected(server, client)).say("goaway", reconnect_in_ms="soon", deadline_ms={})
    assert 0 < (await client.event("disconnected"))["wait_s"] <= 0.5
    await connected(server, client)


@behaviour
async def an_odd_answer_to_hello_is_a_lost_connection(server: Server, client: Driver) -> None:
    await client.open(server.url)
    await (await server.accept()).greet(uuid=5)
    assert 0 < (await client.event("disconnected"))["wait_s"] <= 0.5
    await connected(server, client)


@behaviour
async def an_odd_welcome_is_a_lost_connection(server: Server, client: Driver) -> None:
    await client.open(server.url, token=["first", "second", "third"])
    peer = await server.accept()
    await peer.say("welcome", uuid="temporary", message="", protocol="nc.v1")
    with contextlib.suppress(ConnectionClosed):
        await peer.take_in(await peer.frame(), expires=1000)
    assert 0 < (await client.event("disconnected"))["wait_s"] <= 0.5
    await connected(server, client)


@behaviour
async def what_gets_an_odd_answer_is_asked_again(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    asking = await client.call("presence", ["bob"], watch=True)
    await peer.say("ok", id=(await peer.frame())["id"])
    assert 0 < (await client.event("disconnected"))["wait_s"] <= 0.5
    peer = await connected(server, client)
    frame = await peer.frame()
    assert (frame["type"], frame["uuids"]) == ("presence", ["bob"])
    await peer.say("ok", id=frame["id"], online=["bob"])
    await asking.answer()


@behaviour
async def it_connects_anew_before_the_deadline_of_a_goaway(server: Server, client: Driver) -> None:
    await client.open(server.url)
    await (await connected(server, client)).say("goaway", reconnect_in_ms=10**9, deadline_ms=1000)
    await server.accept()


@behaviour
async def that_the_new_connection_takes_over_from_the_old_one_is_no_loss(server: Server, client: Driver) -> None:
    await client.open(server.url)
    old = await connected(server, client)
    await old.say("goaway", reconnect_in_ms=1000, deadline_ms=9000)
    new = await server.accept()
    hello = await new.hello()
    await old.close(*close_codes.REPLACED)
    await new.take_in(hello)
    await client.event("connected")


# Sending


@behaviour
async def what_had_no_answer_is_sent_again_in_order(server: Server, client: Driver) -> None:
    await client.open(server.url)
    first = await connected(server, client)
    calls = [await client.call("send", "bob", number) for number in range(3)]
    frames = [await first.frame() for _ in calls]
    await first.say("ok", id=frames[1]["id"], online=1)
    assert (await calls[1].answer())["online"] == 1
    first.abort()
    await client.event("disconnected")
    second = await server.accept()
    calls.append(await client.call("send", "bob", 3))
    await second.greet()
    again = [await second.frame() for _ in range(3)]
    assert [frame["message"] for frame in again] == [0, 2, 3]
    assert again[:2] == [frames[0], frames[2]]
    for frame in again:
        await second.say("ok", id=frame["id"], online=2)
    assert [(await call.answer())["online"] for call in calls] == [2, 1, 2, 2]


@behaviour
async def an_error_goes_to_the_caller_and_is_not_tried_again(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    for code, temporary in ((103, False), (115, True)):
        sending = await client.call("send", "bob", "hello")
        await peer.say("error", id=(await peer.frame())["id"], code=code, reason="no", temporary=temporary)
        assert await sending.answer() == {"error": code, "temporary": temporary}
    await client.call("send", "bob", "next")
    assert (await peer.frame())["message"] == "next"


@behaviour
async def an_error_that_names_no_request_is_the_answer_to_all_that_have_none(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    for unknown in (None, "?", 99):
        calls = [await client.call("send", "bob", "hello"), await client.call("join", "ops")]
        sent, _ = [await peer.frame() for _ in calls]
        await peer.say("error", id=unknown, code=107, reason="no", temporary=False)
        for call in calls:
            assert await call.answer() == {"error": 107, "temporary": False}
        await peer.say("error", id=sent["id"], code=107, reason="late", temporary=False)
        late = await client.call("send", "bob", "next")
        await peer.say("ok", id=(await peer.frame())["id"], online=1)
        assert await late.answer() == {"online": 1}


@behaviour
async def an_error_before_the_client_is_greeted_is_the_answer_to_its_hello(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await server.accept()
    await peer.hello()
    await peer.say("error", id=None, code=107, reason="no", temporary=False)
    assert (await client.event("gone"))["reason"] == "no (error 107)"


@behaviour
async def what_the_service_closes_the_connection_for_is_not_sent_again(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    for code in (1003, 1007, 1009):
        sending = await client.call("send", "bob", "hello")
        await peer.frame()
        await peer.close(code, "no")
        assert await sending.answer() == {"error": 107, "temporary": False}
        await client.event("disconnected")
        peer = await connected(server, client)
        await client.call("presence", ["bob"])
        assert (await peer.frame())["type"] == "presence"


@behaviour
async def half_of_a_surrogate_pair_is_sent_as_it_is(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    await client.call("send", "bob", "hi \ud83d")
    assert (await peer.frame())["message"] == "hi \ud83d"


@behaviour
async def what_waits_for_an_answer_is_bounded(server: Server, client: Driver) -> None:
    await client.open(server.url, max_kept=2)
    peer = await server.accept()
    sending = [await client.call("send", "bob", number) for number in range(3)]
    assert await sending[2].answer() == {"error": 115, "temporary": True}
    await peer.greet()
    assert [(await peer.frame())["message"] for _ in range(2)] == [0, 1]


@behaviour
async def what_is_too_long_for_the_service_is_not_sent(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    assert await (await client.call("send", "bob", "é" * 500)).answer() == {"error": 106, "temporary": False}
    await client.call("send", "bob", "x" * 900)
    assert (await peer.frame())["message"] == "x" * 900


@behaviour
async def delivered_and_lost_are_told(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    for outcome in ("delivered", "lost"):
        sending = await client.call("send", "bob", "hello", ack="delivered")
        frame = await peer.frame()
        assert (frame["recipient_uuid"], frame["ack"]) == ("bob", "delivered")
        await peer.say("ok", id=frame["id"], online=1, receipts=1)
        await peer.say(outcome, id=frame["id"], recipient_uuid="bob")
        assert await sending.outcome() == outcome


@behaviour
async def a_group_has_it_when_all_members_have_confirmed(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    for outcomes, expected in ((["delivered"] * 2, "delivered"), (["delivered", "lost"], "lost")):
        sending = await client.call("send_to_group", "ops", "hello", ack="delivered")
        frame = await peer.frame()
        assert frame["group"] == "ops"
        await peer.say("ok", id=frame["id"], online=2, receipts=2)
        for member, outcome in enumerate(outcomes):
            await peer.say(outcome, id=frame["id"], recipient_uuid=f"member {member}")
        assert await sending.outcome() == expected


@behaviour
async def of_two_members_of_a_group_with_one_name_both_confirm(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    for outcomes, expected in ((["delivered"] * 2, "delivered"), (["lost", "delivered"], "lost")):
        sending = await client.call("send_to_group", "ops", "hello", ack="delivered")
        frame = await peer.frame()
        await peer.say("ok", id=frame["id"], online=2, receipts=2)
        for outcome in outcomes:
            await peer.say(outcome, id=frame["id"], recipient_uuid="bob")
        assert await sending.outcome() == expected


@behaviour
async def a_recipient_that_cannot_confirm_counts_as_lost(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    sending = await client.call("send", "bob", "hello", ack="delivered")
    await peer.say("ok", id=(await peer.frame())["id"], online=1, receipts=0)
    assert await sending.outcome() == "lost"


@behaviour
async def receipts_that_can_no_longer_come_count_as_lost(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    sending = await client.call("send", "bob", "hello", ack="delivered")
    await peer.say("ok", id=(await peer.frame())["id"], online=1, receipts=1)
    assert (await sending.answer())["online"] == 1
    peer.abort()
    assert await sending.outcome() == "lost"


@behaviour
async def what_is_sent_again_gets_its_receipts_on_the_new_connection(server: Server, client: Driver) -> None:
    await client.open(server.url)
    first = await connected(server, client)
    outcomes = ("delivered", "lost")
    calls = [await client.call("send", "bob", outcome, ack="delivered") for outcome in outcomes]
    for _ in calls:
        await first.frame()
    first.abort()
    await client.event("disconnected")
    second = await connected(server, client)
    frames = [await second.frame() for _ in calls]
    for frame in frames:
        await second.say("ok", id=frame["id"], online=1, receipts=1)
    waiting = [asyncio.create_task(call.outcome()) for call in calls]
    known, _ = await asyncio.wait(waiting, timeout=5 * SECOND)
    assert not known
    for frame in frames:
        await second.say(frame["message"], id=frame["id"], recipient_uuid="bob")
    assert await asyncio.gather(*waiting) == list(outcomes)


@behaviour
async def what_was_confirmed_before_it_was_sent_again_is_to_be_confirmed_again(server: Server, client: Driver) -> None:
    await client.open(server.url)
    first = await connected(server, client)
    sending = await client.call("send_to_group", "ops", "hello", ack="delivered")
    frame = await first.frame()
    await first.say("delivered", id=frame["id"], recipient_uuid="bob")
    await first.say("presence", uuid="nobody", state="offline")
    first.abort()
    await client.event("disconnected")
    second = await connected(server, client)
    assert await second.frame() == frame
    await second.say("ok", id=frame["id"], online=2, receipts=2)
    await second.say("delivered", id=frame["id"], recipient_uuid="bob")
    await second.say("lost", id=frame["id"], recipient_uuid="carol")
    assert await sending.outcome() == "lost"


@behaviour
async def that_the_old_connection_ends_is_no_loss_of_what_was_sent_again(server: Server, client: Driver) -> None:
    await client.open(server.url)
    old = await connected(server, client)
    sending = await client.call("send", "bob", "hello", ack="delivered")
    frame = await old.frame()
    old.read(goes_on=False)
    await old.say("goaway", reconnect_in_ms=0, deadline_ms=60_000)
    new = await server.accept()
    hello = await new.hello()
    await new.take_in(hello)
    assert await new.frame() == frame
    await new.say("ok", id=frame["id"], online=1, receipts=1)
    assert await sending.answer() == {"online": 1}
    old.read(goes_on=True)
    await old.closed()
    asking = await client.call("presence", ["carol"])
    await new.say("ok", id=(await new.frame())["id"], online=[])
    assert await asking.answer() == []
    await new.say("delivered", id=frame["id"], recipient_uuid="bob")
    assert await sending.outcome() == "delivered"


# Hearing


@behaviour
async def a_message_is_confirmed_when_the_application_has_taken_it(server: Server, client: Driver) -> None:
    await client.open(server.url, answers=True)
    peer = await connected(server, client)
    for key in (7, 8):
        await peer.say("msg", sender_uuid="bob", recipient_uuid="alice", message={"n": key}, key=key)
        assert (await client.event("message"))["message"] == {"n": key}
        thanks = await peer.frame()
        assert thanks["message"] == "thanks"
        await peer.say("ok", id=thanks["id"], online=1)
        assert await peer.frame() == {"type": "ack", "key": key}


@behaviour
async def a_message_without_a_key_is_not_confirmed(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    await peer.say("msg", sender_uuid="bob", group="ops", message="hello")
    assert (await client.event("message"))["sender_uuid"] == "bob"
    await client.call("send", "bob", "next")
    assert (await peer.frame())["type"] == "send"


@behaviour
async def an_unknown_frame_is_passed_over(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    await peer.say("of a later version")
    await peer.say("msg", sender_uuid="bob", message="hello", and_a="key of a later version")
    await client.event("message")


@behaviour
async def changes_of_watched_addresses_are_told(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await connected(server, client)
    asking = await client.call("presence", ["bob", "carol"], watch=True)
    frame = await peer.frame()
    assert (frame["uuids"], frame["watch"]) == (["bob", "carol"], True)
    await peer.say("ok", id=frame["id"], online=["carol"])
    await peer.say("presence", uuid="bob", state="online")
    assert await asking.answer() == ["carol"]
    event = await client.event("presence")
    assert (event["uuid"], event["online"]) == ("bob", True)


@behaviour
async def groups_and_watches_are_restored_and_missed_changes_told(server: Server, client: Driver) -> None:
    await client.open(server.url)
    first = await connected(server, client)
    for method, argument, options in (
        ("join", "ops", {}),
        ("join", "left", {}),
        ("leave", "left", {}),
        ("presence", ["bob", "carol"], {"watch": True}),
        ("presence", ["carol"], {"watch": False}),
    ):
        call = await client.call(method, argument, **options)
        await first.say("ok", id=(await first.frame())["id"], online=[])
        await call.answer()
    first.abort()
    await client.event("disconnected")
    second = await connected(server, client)
    join = await second.frame()
    assert (join["type"], join["group"]) == ("join", "ops")
    await second.say("ok", id=join["id"])
    watch = await second.frame()
    assert (watch["type"], watch["uuids"], watch["watch"]) == ("presence", ["bob"], True)
    await second.say("ok", id=watch["id"], online=["bob"])
    event = await client.event("presence")
    assert (event["uuid"], event["online"]) == ("bob", True)


@behaviour
async def a_group_that_is_refused_after_a_reconnect_is_told_and_forgotten(server: Server, client: Driver) -> None:
    await client.open(server.url)
    first = await connected(server, client)
    call = await client.call("join", "ops")
    await first.say("ok", id=(await first.frame())["id"])
    await call.answer()
    first.abort()
    await client.event("disconnected")
    second = await connected(server, client)
    await second.say("error", id=(await second.frame())["id"], code=103, reason="forbidden", temporary=False)
    assert (await client.event("refused"))["reason"] == "join ops: forbidden (error 103)"
    second.abort()
    await client.event("disconnected")
    third = await connected(server, client)
    await client.call("send", "bob", "next")
    assert (await third.frame())["type"] == "send"


@behaviour
async def of_watches_that_are_refused_after_a_reconnect_those_that_are_allowed_go_on(
    server: Server, client: Driver
) -> None:
    await client.open(server.url)
    first = await connected(server, client)
    call = await client.call("presence", ["bob", "carol"], watch=True)
    await first.say("ok", id=(await first.frame())["id"], online=[])
    await call.answer()
    first.abort()
    await client.event("disconnected")
    second = await connected(server, client)
    for uuids in (["bob", "carol"], ["bob"]):
        frame = await second.frame()
        assert frame["uuids"] == uuids
        await second.say("error", id=frame["id"], code=103, reason="forbidden", temporary=False)
    assert (await client.event("refused"))["reason"] == "presence bob: forbidden (error 103)"
    frame = await second.frame()
    await second.say("ok", id=frame["id"], online=["carol"])
    assert (await client.event("presence"))["uuid"] == "carol"
    second.abort()
    await client.event("disconnected")
    third = await connected(server, client)
    assert (await third.frame())["uuids"] == ["carol"]


@behaviour
async def what_a_connection_ends_before_it_is_told_again_is_told_the_next_one(server: Server, client: Driver) -> None:
    await client.open(server.url)
    first = await connected(server, client)
    call = await client.call("join", "ops")
    await first.say("ok", id=(await first.frame())["id"])
    await call.answer()
    call = await client.call("presence", ["bob"], watch=True)
    await first.say("ok", id=(await first.frame())["id"], online=[])
    await call.answer()
    first.abort()
    await client.event("disconnected")
    second = await connected(server, client)
    assert (await second.frame())["type"] == "join"
    await second.close(1009, "no")
    await client.event("disconnected")
    third = await connected(server, client)
    join = await third.frame()
    assert (join["type"], join["group"]) == ("join", "ops")
    await third.say("ok", id=join["id"])
    assert (await third.frame())["uuids"] == ["bob"]


@behaviour
async def a_token_is_refreshed_when_most_of_its_life_has_passed(server: Server, client: Driver) -> None:
    await client.open(server.url, token=["one", "two", "three"])
    clock = asyncio.get_running_loop().time
    began = clock()
    peer = await connected(server, client, expires=50.0)
    refresh = await peer.frame()
    assert (refresh["type"], refresh["token"]) == ("refresh", "two")
    assert clock() - began > 39 * SECOND
    await peer.say("ok", id=refresh["id"], expires=70.0)
    assert (await peer.frame())["token"] == "three"


@behaviour
async def a_token_for_decades_is_not_refreshed_at_once(server: Server, client: Driver) -> None:
    await client.open(server.url, token=["one", "two"])
    peer = await connected(server, client, expires=1e9)
    for _ in range(2):
        sending = await client.call("send", "bob", "hello")
        frame = await peer.frame()
        assert frame["type"] == "send"
        await peer.say("ok", id=frame["id"], online=1)
        await sending.answer()


# The handshake


@of_the_handshake
async def a_forbidden_handshake_is_the_end(server: Server, client: Driver) -> None:
    server.refusals = [Refusal(403)]
    await client.open(server.url)
    assert (await client.event("gone"))["reason"].startswith("refused with HTTP 403: ")


@of_the_handshake
async def an_unauthorized_handshake_is_the_end(server: Server, client: Driver) -> None:
    server.refusals = [Refusal(401)]
    await client.open(server.url)
    assert (await client.event("gone"))["reason"].startswith("refused with HTTP 401: ")


@of_the_handshake
async def it_waits_at_least_as_long_as_retry_after_says(server: Server, client: Driver) -> None:
    server.refusals = [Refusal(503, "7"), Refusal(429, "2"), Refusal(503), Refusal(503), Refusal(503, "5")]
    await client.open(server.url)
    waits = [(await client.event("disconnected"))["wait_s"] for _ in range(5)]
    assert waits == [7, 2, 2, 4, 8]
    await connected(server, client)


@of_the_handshake
async def of_what_a_proxy_and_the_service_say_it_waits_for_the_longer(server: Server, client: Driver) -> None:
    server.refusals = [Refusal(503, "7", (("Retry-After", "3"),)), Refusal(503, "soon", (("Retry-After", "9"),))]
    await client.open(server.url)
    assert [(await client.event("disconnected"))["wait_s"] for _ in range(2)] == [7, 9]
    await connected(server, client)


@behaviour
async def it_follows_no_redirect(server: Server, client: Driver) -> None:
    server.refusals = [Refusal(302, more=(("Location", "/elsewhere"),))]
    await client.open(server.url, token="a token")
    await client.event("disconnected")
    await connected(server, client)
    assert [handshake.path for handshake in server.handshakes] == ["/", "/"]


@of_the_handshake
async def it_says_where_a_redirect_leads(server: Server, client: Driver) -> None:
    leads = (("Location", "https://[::1"), ("Location", "https://ws.mycompany.org/"))
    server.refusals = [Refusal(308, more=leads)]
    await client.open(server.url)
    reason = (await client.event("disconnected"))["reason"]
    assert reason.startswith("refused with HTTP 308: the server wants TLS; use wss://; it leads to https://[::1")
    assert reason.endswith("; it leads to https://ws.mycompany.org/")


@of_the_handshake
async def a_url_that_is_not_one_of_a_websocket_is_the_end(server: Server, client: Driver) -> None:
    await client.open(server.url.replace("ws:", "http:"))
    assert "scheme isn't ws or wss" in (await client.event("gone"))["reason"]


@of_the_handshake
async def retry_after_is_believed_for_an_hour(server: Server, client: Driver) -> None:
    server.refusals = [Refusal(503, "3600"), Refusal(503, "3601"), Refusal(503, "9" * 400)]
    await client.open(server.url, second=0.00001)
    events = [await client.event("disconnected") for _ in range(3)]
    assert [event["wait_s"] for event in events] == [3600, 3600, 3600]
    assert "tried again" not in events[0]["reason"]
    assert events[1]["reason"].endswith("; it asks for 3601 s, and is tried again in 3600 s")
    await connected(server, client)


# The mailbox

FOUND = {"epoch": "e", "after": 5, "last": 5, "whole": True}


async def kept(peer: Peer, offset: int, message: object = "m") -> None:
    """A message from the mailbox."""
    await peer.say("msg", sender_uuid="bob", recipient_uuid="alice", message=message, offset=offset)


@behaviour
async def it_asks_for_its_mailbox_and_says_how_far_it_is_when_it_comes_back(server: Server, client: Driver) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    assert (await peer.greet(mailbox=FOUND))["mailbox"] == {}
    await client.event("connected")
    await kept(peer, 8)
    await client.event("message")
    await kept(peer, 9)
    await client.event("message")
    assert await peer.frame() == {"type": "ack", "offset": 8}
    peer.abort()
    peer = await server.accept()
    hello = await peer.hello()
    assert hello["mailbox"]["epoch"] == "e"
    assert hello["mailbox"]["after"] in (8, 9)  # whether the last one is handled yet, is for the client to say


@behaviour
async def without_a_mailbox_it_asks_for_none_and_confirms_nothing(server: Server, client: Driver) -> None:
    await client.open(server.url)
    peer = await server.accept()
    assert "mailbox" not in await peer.greet()


@behaviour
async def what_comes_again_is_handed_over_once(server: Server, client: Driver) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    await client.event("connected")
    for offset in (7, 7, 6, 8, 7, 8, 9):
        await kept(peer, offset, offset)
    assert [(await client.event("message"))["message"] for _ in range(3)] == [7, 8, 9]


@behaviour
async def what_is_missing_is_told_and_confirmed_when_nothing_follows(server: Server, client: Driver) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox={**FOUND, "whole": False, "lost_to": 12})
    assert "12" in (await client.event("missing"))["reason"]
    await client.event("connected")
    assert await peer.frame() == {"type": "ack", "offset": 12}
    peer.abort()
    peer = await server.accept()
    assert (await peer.hello())["mailbox"] == {"epoch": "e", "after": 12}


@behaviour
async def what_was_handled_and_comes_again_is_confirmed_again(server: Server, client: Driver) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox={**FOUND, "whole": False, "lost_to": 12})
    assert await peer.frame() == {"type": "ack", "offset": 12}
    await kept(peer, 11)
    assert await peer.frame() == {"type": "ack", "offset": 12}
    await peer.say("delivered", id="earlier-7", recipient_uuid="bob", offset=12)
    assert await peer.frame() == {"type": "ack", "offset": 12}


@behaviour
async def a_new_epoch_is_taken_over_and_its_messages_are_new(server: Server, client: Driver) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    await client.event("connected")
    await kept(peer, 90)
    await client.event("message")
    peer.abort()
    peer = await server.accept()
    await peer.greet(mailbox={"epoch": "f", "after": 1, "last": 3, "whole": False, "lost_to": 1})
    await client.event("disconnected")
    await client.event("missing")
    await client.event("connected")
    await kept(peer, 3, "of the new epoch")
    assert (await client.event("message"))["message"] == "of the new epoch"


@behaviour
async def what_is_sent_again_is_known_to_be_the_same(server: Server, client: Driver) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    await client.event("connected")
    call = await client.call("send", "bob", "order")
    first = await peer.frame()
    assert first["dedup"]
    peer.abort()
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    again = await peer.frame()
    assert again == first
    await peer.say("ok", id=again["id"], online=0, stored=True)
    assert await call.answer() == {"online": 0}


@behaviour
async def a_receipt_of_the_mailbox_may_come_on_a_later_connection(server: Server, client: Driver) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    await client.event("connected")
    call = await client.call("send", "bob", "order", ack="delivered")
    sent = await peer.frame()
    await peer.say("ok", id=sent["id"], online=0, receipts=1, stored=True)
    assert await call.answer() == {"online": 0}
    peer.abort()
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    await peer.say("delivered", id=sent["id"], recipient_uuid="bob", offset=8)
    assert await call.outcome() == "delivered"
    assert await peer.frame() == {"type": "ack", "offset": 8}


@behaviour
async def a_receipt_of_the_mailbox_may_come_before_what_was_sent_again_is_answered(
    server: Server, client: Driver
) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    await client.event("connected")
    call = await client.call("send", "bob", "order", ack="delivered")
    sent = await peer.frame()
    peer.abort()
    await client.event("disconnected")
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    await client.event("connected")
    assert await peer.frame() == sent
    await peer.say("delivered", id=sent["id"], recipient_uuid="bob", offset=8)
    await peer.say("ok", id=sent["id"], online=1, receipts=1, stored=True)
    assert await call.outcome() == "delivered"
    # No other is to come, so the client knows nothing of it any more.
    await peer.say("delivered", id=sent["id"], recipient_uuid="bob", offset=9)
    assert (await client.event("receipt"))["id"] == sent["id"]


@behaviour
async def a_receipt_of_the_mailbox_is_waited_for_no_longer_than_the_client_lives(
    server: Server, client: Driver
) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    await client.event("connected")
    call = await client.call("send", "bob", "order", ack="delivered")
    await peer.say("ok", id=(await peer.frame())["id"], online=0, receipts=1, stored=True)
    assert await call.answer() == {"online": 0}
    await peer.close(close_codes.REPLACED.code)
    await client.event("gone")
    assert await call.outcome() == "lost"


async def its_receipt_when_the_client_finds(server: Server, client: Driver, **found: object) -> str:
    """What became of a message that is in the mailbox of its recipient, as the client sees it after a reconnect."""
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    call = await client.call("send", "bob", "order", ack="delivered")
    await peer.say("ok", id=(await peer.frame())["id"], online=0, receipts=1, stored=True)
    assert await call.answer() == {"online": 0}
    peer.abort()
    await (await server.accept()).greet(**found)
    return await call.outcome()


@behaviour
async def a_receipt_that_the_mailbox_may_have_lost_is_not_waited_for(server: Server, client: Driver) -> None:
    found = {**FOUND, "whole": False, "lost_to": 7}
    assert await its_receipt_when_the_client_finds(server, client, mailbox=found) == "lost"


@behaviour
async def without_its_mailbox_the_client_waits_for_no_receipt_of_it(server: Server, client: Driver) -> None:
    assert await its_receipt_when_the_client_finds(server, client) == "lost"


@behaviour
async def a_receipt_for_an_earlier_run_is_an_event(server: Server, client: Driver) -> None:
    await client.open(server.url, keeps=True)
    peer = await server.accept()
    await peer.greet(mailbox=FOUND)
    await client.event("connected")
    await peer.say("lost", id="earlier-7", recipient_uuid="bob", offset=8)
    event = await client.event("receipt")
    assert (event["id"], event["uuid"], event["outcome"]) == ("earlier-7", "bob", "lost")
    assert await peer.frame() == {"type": "ack", "offset": 8}
