"""For root on the host: who is connected to this worker, and a way to send one of them away.

A Unix socket beside those on which the workers meet, in their directory, which no other user can enter; and who asks
must be root or the service's own user, as the kernel says. nginx has no way here. One line of JSON asks, one answers:

    {"do": "clients"}                       [{"uuid": ..., "addresses": [...], ...}, ...]
    {"do": "kick", "uuid": UUID}            ["the temporary UUIDs of those that were sent away", ...]

Source: unix(7), SO_PEERCRED. In the unit's user namespace (PrivateUsers=) root is root: systemd.exec(5).
"""

import asyncio
import contextlib
import logging
import os
from pathlib import Path
from typing import Any

import msgspec

from service.core.center import Center
from service.core.close_codes import KICKED
from service.core.session import Session
from service.process.unix_sockets import OURS_ALONE, open_to, peer_of

PREFIX = "control-"
# A request is one short line. Who has not sent it by then does not want anything.
MAX_LINE_BYTES = 4096
PATIENCE_S = 5.0

logger = logging.getLogger(__name__)


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked; `uuid` is any address of a client."""

    do: str
    uuid: str = ""


class Control:
    """Answers on its socket from `open` to `close`; where workers do not meet in a directory, there is none."""

    def __init__(self, center: Center) -> None:
        self._center = center
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """To be called when the directory is there."""
        bus = self._center.settings.bus
        if bus is None:
            return
        self._path = Path(bus, f"{PREFIX}{os.getpid()}")
        self._path.unlink(missing_ok=True)
        with open_to(OURS_ALONE):
            self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MAX_LINE_BYTES)

    async def close(self) -> None:
        """Answer nobody any more."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        uid = peer_of(writer.get_extra_info("socket")).uid
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            if uid in (0, os.geteuid()):
                line = await asyncio.wait_for(_line(reader), PATIENCE_S)
                writer.write(msgspec.json.encode(self._answer(line)) + b"\n")
                await asyncio.wait_for(writer.drain(), PATIENCE_S)
            else:
                logger.warning("a process of user %d was turned away: only root may ask who is connected", uid)
        writer.close()

    def _answer(self, line: bytes) -> Any:
        try:
            request = msgspec.json.decode(line, type=Request)
        except msgspec.DecodeError as error:
            return {"error": str(error)}
        match request.do:
            case "clients":
                return [_about(session) for session in self._sessions()]
            case "kick":
                return [self._kick(session) for session in self._sessions() if request.uuid in session.addresses]
        return {"error": f"{request.do} is unknown; ask for clients or kick"}

    def _sessions(self) -> list[Session]:
        return [member for member in self._center.hub.members if isinstance(member, Session)]

    def _kick(self, session: Session) -> str:
        logger.warning("sent away by root: uuid=%s", session.addresses[0])
        session.close(KICKED)
        return session.addresses[0]


async def _line(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil()
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return b""


def _about(session: Session) -> dict[str, Any]:
    return {
        "uuid": session.addresses[0],
        "addresses": session.addresses[1:],
        "from": session.client_address,
        "protocol": session.protocol,
        "seconds": round(session.age_s, 3),
        "waiting": session.client.queued,
        "written": session.client.written,
    }
