"""Disconnects the clients before the service stops, not all at one moment, so that they do not all reconnect at once.

Clients of nc.v1 hear at once when to reconnect; each client is closed with 1012 when it is its turn.
"""

import asyncio
import random

from service.core.center import Center
from service.core.close_codes import RESTART
from service.core.session import Session
from service.process.drain_time import duration

# A connection that was accepted a moment ago may still complete its handshake: it should not be refused needlessly.
LAST_HANDSHAKES_S = 0.1


async def drain(center: Center) -> None:
    """Close every session within `drain.window`; no new one is admitted after that."""
    center.draining = True
    settings = center.settings.drain
    sessions = [member for member in center.hub.members if isinstance(member, Session)]
    random.shuffle(sessions)
    lasting = duration(len(sessions), settings.window, settings.rate)
    deadline_ms = round(lasting * 1000)
    turns = [(lasting * (number + 1) / len(sessions), session) for number, session in enumerate(sessions)]
    for turn, session in turns:
        session.goaway(round(turn * 1000), deadline_ms)
    began = center.clock()
    for turn, session in turns:
        await asyncio.sleep(max(0.0, began + turn - center.clock()))
        session.close(RESTART)
