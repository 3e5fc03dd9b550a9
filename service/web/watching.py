"""What the service tells over HTTP about itself.

`/health` is the guide's, and nginx passes it on for those who are listed. `/livez`, `/readyz`, `/metrics`, `/stats`
and `/status` are for this host: nginx passes none of them on, and if one comes through a proxy all the same, it is not
found. So it is with the demo page, which only `make run` has.
"""

import asyncio
import contextlib
import json
import os
from typing import Any

import msgspec

from service.core.bus import PATIENCE_S
from service.core.center import Center
from service.core.figures import Service, Silent, service
from service.core.plain_http import DRAINING, MISDIRECTED, NOT_FOUND, Answer, is_of_this_host, respond, say
from service.core.standing import Standing
from service.web import page
from service.web.stats import stats
from service.web.status_page import status_page

# How often they are asked when one goes while it is asked.
ATTEMPTS = 3
# What shows how the service is.
FIGURES = ("/metrics", "/stats", "/status")

_ALIVE = say(200, "alive")
_READY = say(200, "ready")


class Watching:
    """The answers to whatever is no handshake and no publication."""

    def __init__(self, center: Center) -> None:
        self._center = center

    async def answer(self, method: str, path: str, passed_on: bool, host: str = "") -> Answer:
        """The response to a request for `host`, which came through a proxy or did not; to HEAD that to GET, without
        body.
        """
        response = NOT_FOUND
        if method in ("GET", "HEAD"):
            response = self._health() if path == "/health" else await self._internal("" if passed_on else path, host)
        return response._replace(body=b"") if method == "HEAD" else response

    def _health(self) -> Answer:
        health: dict[str, Any] = {"status": "healthy", "connections": self._center.connections}
        if self._center.mail.store is not None:
            health["mailbox"] = "failing" if self._center.mail.is_failing else "up"
        if (abroad := self._center.hub.bus.abroad) is not None:
            health |= {"engine": abroad.state, "engine_since": round(abroad.since), "hosts": 1 + abroad.hosts}
        return respond(200, "application/json", json.dumps(health).encode())

    async def _internal(self, path: str, host: str) -> Answer:
        if path in FIGURES and not is_of_this_host(host):
            return MISDIRECTED
        match path:
            case "/livez":
                return _ALIVE
            case "/readyz":
                return DRAINING if self._center.draining else _READY
            case "/stats":
                return stats(await self._service(abroad=True))
            case "/status":
                return status_page()
            case "/metrics":
                from service.web.metrics import metrics  # takes 5 MB, which nobody pays who does not ask

                return metrics(await self._service())
        return page.answer(os.environ.get(page.VARIABLE), path)

    async def _service(self, abroad: bool = False) -> Service:
        """How the workers are, or were when they said so last; with `abroad`, those of other hosts as well."""
        answers: dict[str, bytes] = {}
        for _ in range(ATTEMPTS):
            answers = await self._ask(abroad)
            if all(answers.values()):
                break  # else one has gone, and another one goes on with what it had counted
        bus = self._center.hub.bus
        near, heard_at = bus.others, bus.heard_at
        known = {number: each for number, data in bus.known.items() if (each := _read(data))}
        told = {number: each for number, each in known.items() if number in answers}
        silent = {number: Silent(each, heard_at[number]) for number, each in known.items() if number not in answers}
        seen = service(
            self._center,
            [each for number, each in told.items() if number in near],
            [each for number, each in silent.items() if number in near],
            {**told, **silent} if abroad else {},
        )
        bus.tell_standing(seen.workers[0])
        await asyncio.sleep(0)  # that leaves before the answer
        return seen

    async def _ask(self, abroad: bool) -> dict[str, bytes]:
        complete = asyncio.Event()
        answers: dict[str, bytes] = {}
        asked = 0

        def take(number: str, standing: bytes) -> None:
            answers[number] = standing
            if len(answers) == asked:
                complete.set()

        asked = self._center.hub.bus.ask_all(take, abroad=abroad)
        if len(answers) < asked:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(complete.wait(), PATIENCE_S)
        return answers


def _read(standing: bytes) -> Standing | None:
    """How a worker is; None when it has gone, or is of another host that has another release."""
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        return msgspec.msgpack.decode(standing, type=Standing)
    return None
