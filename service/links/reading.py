"""Carries out the messages of one client, at the pace that its limits allow; the rest waits in order."""

import asyncio
from collections import deque

from service.core.bounds import READ_AHEAD_BYTES, READ_AHEAD_FRAMES
from service.core.session import Session
from service.core.turns import LATER, NEXT_TURN, Turns
from service.links.link import Link
from service.process.hangups import Hangups


class Reading:
    """The messages of a client. Those in `ahead` are read, and not carried out yet."""

    def __init__(self, link: Link, session: Session, turns: Turns, hangups: Hangups) -> None:
        self.ahead: deque[str | bytes] = deque()
        self.is_over = False
        """There is nothing more to receive."""
        self._link = link
        self._session = session
        self._turns = turns
        self._hangups = hangups
        self._bytes = 0
        self._receiving: asyncio.Future[str | bytes | None] | None = None
        self._turn: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Act on all that comes, until the client is gone; that is noticed even while it may do nothing."""
        try:
            while True:
                while self.ahead:
                    self._act()
                    if self._turn is not None and not await self._read_ahead(self._turn):
                        return
                frame = await self._receive()
                if frame is None:
                    return
                self._add(frame)
        finally:
            # When it cannot be cancelled, it has a frame already.
            if self._receiving is not None and self._receiving.cancel():
                self._receiving = None

    async def finish(self) -> None:
        """Act on the rest of what a client has sent that is gone, and on what its library has read of it."""
        while True:
            while self.ahead:
                if self._turn is not None:
                    await self._turn
                self._act()
            if self.is_over or (frame := await self._receive()) is None:
                return
            self._add(frame)

    def _act(self) -> None:
        frame = self.ahead[0]
        self._turn = None
        pause = self._session.receive(frame.encode()) if isinstance(frame, str) else self._session.receive_binary(frame)
        if pause:
            self._turn = asyncio.get_running_loop().create_future()
            if pause <= NEXT_TURN:
                self._wait_for_turn(self._turn)
            else:
                asyncio.get_running_loop().call_later(pause, self._wait_for_turn, self._turn)
        if pause != LATER:
            self.ahead.popleft()
            self._bytes -= len(frame)

    def _wait_for_turn(self, turn: "asyncio.Future[None]") -> None:
        # A client that is gone has cancelled it.
        self._turns.wait(self._session.flow, lambda: None if turn.done() else turn.set_result(None))

    def _add(self, frame: str | bytes) -> None:
        self.ahead.append(frame)
        self._bytes += len(frame)

    async def _receive(self) -> str | bytes | None:
        receiving, self._receiving = self._receiving or self._link.receive(), None
        frame = await receiving
        self.is_over = frame is None
        return frame

    async def _read_ahead(self, turn: "asyncio.Future[None]") -> bool:
        """Read on until it is the client's turn, as far as there is room; False when it is gone."""
        while not turn.done() and self._bytes < READ_AHEAD_BYTES and len(self.ahead) < READ_AHEAD_FRAMES:
            if self._receiving is None:
                self._receiving = asyncio.ensure_future(self._link.receive())
            await asyncio.wait((turn, self._receiving), return_when=asyncio.FIRST_COMPLETED)
            if self._receiving.done():
                frame = await self._receive()
                if frame is None:
                    return False
                self._add(frame)
        return await self._has_turn(turn)

    async def _has_turn(self, turn: "asyncio.Future[None]") -> bool:
        """Wait for its turn without reading; False when the client hangs up meanwhile."""
        transport = self._link.transport
        if turn.done() or transport is None:
            await turn
            return True
        hung_up = asyncio.get_running_loop().create_future()
        self._hangups.watch(transport, lambda: hung_up.set_result(None))
        try:
            await asyncio.wait((turn, hung_up), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._hangups.forget(transport)
        return not hung_up.done()
