"""This worker's place among those of all hosts: it keeps the connection to the engine, and the time for its links.

Without `engine.url` there are no other hosts, nothing is opened, and the library of the engine is not loaded.
"""

import asyncio
import contextlib
import logging
import math
import os
import secrets
import socket
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from service.core.bus import PeerBus
from service.core.center import Center
from service.engine.envelope import BEATS, channel
from service.engine.faults import EngineError, EngineUnreachableError
from service.engine.identity import boot_id, name_of_this_host
from service.engine.links import Identity, Links
from service.engine.retries import Retries

if TYPE_CHECKING:
    from service.engine.connection import Dialer, Stream

# A new worker hears of the others for so long before it has clients itself: it would give away what is theirs.
HEARING_S = 0.3
_LOOK_S = 0.01

logger = logging.getLogger(__name__)


class Hosts:
    """The other hosts, over the engine of the settings."""

    def __init__(self, center: Center) -> None:
        self._center = center
        self._settings = center.settings.engine
        self.expected: Collection[str] = ()
        """The workers of other hosts that keep what is for the clients that a process before this one has left."""
        self._stream: Stream | None = None
        self._at: tuple[str, int] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._refusal: EngineError | None = None
        self._is_open = False
        self._told: set[str] = set()
        """What was logged of this outage; each is logged once."""
        self._heads: dict[str | None, bytes] = {}
        self._written: list[bytes] = []

    async def open(self) -> None:
        """Connect, and wait until the others have told what they have. Without the engine this host begins alone.

        Raises:
            EngineError: the engine refuses us.
        """
        if self._settings.url is None:
            return
        from service.engine.connection import PATIENCE_S, Dialer  # nobody else needs the library

        loop = asyncio.get_running_loop()
        if not isinstance(self._center.hub.bus, PeerBus):
            self._center.hub.bus = PeerBus(self._center, str(os.getpid()))
        bus = self._center.hub.bus
        host = name_of_this_host(self._settings)
        if not host:
            raise EngineError("/etc/machine-id has no name for this host; set engine.host")
        if self._center.settings.bus is None:  # the workers of this host do not know each other
            host = f"{host}-{os.getpid()}"
        hostname = self._settings.host or socket.gethostname()
        boot = ""
        with contextlib.suppress(OSError):  # a unit that another program has written may hide it
            boot = boot_id()
        me = Identity(f"{host}.{os.getpid()}.{secrets.token_hex(8)}", host, boot, hostname)
        self.links = Links(bus, me, self._settings.silence, publish=self._publish, soon=loop.call_soon, teller=logger)
        self.links.expect(self.expected)
        bus.far = self.links
        dialer = Dialer(self._settings)
        loop.set_exception_handler(_report)
        self._tasks = [loop.create_task(self._keep_connected(dialer)), loop.create_task(self._keep_time())]
        if self._settings.sentinels:
            self._tasks.append(loop.create_task(self._keep_to_the_master(dialer)))
        await self._wait_until_heard(self._settings.silence + PATIENCE_S)
        self._is_open = True
        if self._refusal is not None or self.links.conflict:
            await self.close()
            raise self._refusal or EngineError(f"another machine is host {host} already; set engine.host")

    async def _wait_until_heard(self, at_most_s: float) -> None:
        heard_for, loop = 0.0, asyncio.get_running_loop()
        ends = loop.time() + at_most_s
        while loop.time() < ends and self._refusal is None:
            await asyncio.sleep(_LOOK_S)
            heard_for += _LOOK_S if self.links.state == "up" else 0.0
            if (heard_for >= HEARING_S and self.links.is_complete) or (self._told and self._stream is None):
                return

    def _channel(self, worker: str | None) -> bytes:
        return channel(self._settings.name or "center", worker).encode()

    def _publish(self, worker: str | None, data: bytes) -> None:
        if self._stream is None:
            return
        head = self._heads.get(worker)
        if head is None:
            channel = self._channel(worker)
            head = self._heads[worker] = b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n" % (len(channel), channel)
        if not self._written:
            asyncio.get_running_loop().call_soon(self._write)
        self._written.append(b"%b$%d\r\n%b\r\n" % (head, len(data), data))

    def _write(self) -> None:
        written, self._written = self._written, []
        if self._stream is not None:
            self._stream.write(b"".join(written))

    async def _keep_connected(self, dialer: "Dialer") -> None:
        from service.engine.connection import command

        retries, loop = Retries(), asyncio.get_running_loop()
        while True:
            refused, since = False, math.inf
            try:
                stream, self._at = await dialer.connect()
                # Before any other command: what is published is heard by ourselves as well.
                stream.write(command(b"SUBSCRIBE", self._channel(None), self._channel(self.links.me.name)))
                self._stream, since = stream, loop.time()
                self.links.begin()
                await stream.hear(self._hear)
                if self._stream is stream:  # else we have let it go, and said why
                    raise EngineUnreachableError(f"the engine at {stream.where} has closed the connection")
            except EngineError as error:
                self._refusal, refused = error, True
                if self._is_open:  # else the start fails, and says so
                    self._say(str(error))
            except (OSError, EngineUnreachableError) as error:
                self._say(str(error))
            except Exception:  # a fault of ours must not leave this host alone for ever
                logger.exception("what came from the engine could not be acted on")
            finally:
                self._lose()
            await asyncio.sleep(retries.pause_s(refused=refused, lasted_s=loop.time() - since))

    def _hear(self, data: bytes) -> None:
        self.links.hear(data)
        # Not before: an engine that takes the connection may still refuse, or close, all that comes after.
        if self._told and self.links.is_heard:
            self._say_back()

    def _lose(self) -> None:
        stream, self._stream = self._stream, None
        self._written.clear()
        if stream is not None:
            stream.abort()

    def _say(self, what: str) -> None:
        if what not in self._told:
            self._told.add(what)
            logger.error("%s; clients of other hosts are not reached until it is back", what)

    def _say_back(self) -> None:
        self._told.clear()
        if self._stream is not None:
            logger.warning("the engine at %s is back", self._stream.where)

    async def _keep_time(self) -> None:
        while True:
            await asyncio.sleep(self._settings.silence / BEATS)
            self._tick()
            if self._stream is not None and self.links.is_deaf:
                self._say(f"the engine at {self._stream.where} does not pass on what it takes")
                self._lose()

    def _tick(self) -> None:
        try:
            self.links.tick()
        except Exception:
            logger.exception("the links to other hosts could not be looked after")

    async def _keep_to_the_master(self, dialer: "Dialer") -> None:
        """Leave a server that is not the master any more, even if it does not send us away.

        Sentinels that do not answer take longer than a silence: nothing else may wait for them.
        """
        while True:
            await asyncio.sleep(self._settings.silence)
            stream, at = self._stream, self._at
            with contextlib.suppress(EngineUnreachableError, EngineError):
                if stream is not None and await dialer.find() != at and stream is self._stream:
                    self._say(f"the engine at {stream.where} is not the master any more")
                    self._lose()

    async def close(self) -> None:
        """Leave."""
        if self._stream is not None:
            self.links.leave()
            self._write()
        for task in self._tasks:
            task.cancel()
        stream = self._stream
        if stream is not None:
            self._stream = None
            await stream.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log a fault, but not uvloop's of a TLS connection that has ended while it wrote: we log that end ourselves."""
    is_an_end = isinstance(context.get("exception"), RuntimeError) and "SSL" in str(context.get("message"))
    if not is_an_end:
        loop.default_exception_handler(context)
