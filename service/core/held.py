"""Stands for a client while its mailbox is being opened: what it is to hear waits for the answer to its hello."""

from collections.abc import Callable

from service.core.center import Client
from service.core.close_codes import CloseReason


class Held:
    """Holds back what is sent to a client, at most so many bytes; `overrun` is called with what is more."""

    def __init__(self, client: Client, most: int, overrun: Callable[[], None]) -> None:
        self.client = client
        self._left = most
        self._overrun = overrun
        self._texts: list[bytes] = []
        self._waiting: list[Callable[[bool], None]] = []

    @property
    def written(self) -> int:
        return self.client.written

    @property
    def queued(self) -> int:
        return self.client.queued + sum(map(len, self._texts))

    def send(self, text: bytes) -> None:
        if self._left < 0:
            return
        self._texts.append(text)
        self._left -= len(text)
        if self._left < 0:
            self._overrun()

    def when_left(self, then: Callable[[bool], None]) -> None:
        self._waiting.append(then)

    def close(self, reason: CloseReason) -> None:
        self.drop()
        self.client.close(reason)

    def abort(self) -> None:
        self.drop()
        self.client.abort()

    def probe(self, answered: Callable[[bool], None]) -> None:
        self.client.probe(answered)

    def drop(self) -> None:
        """The client has gone: what was held back does not leave any more."""
        self._texts.clear()
        waiting, self._waiting = self._waiting, []
        for then in waiting:
            then(False)

    def release(self) -> Client:
        """Send what was held back. Returns: the client."""
        for text in self._texts:
            self.client.send(text)
        for then in self._waiting:
            self.client.when_left(then)
        return self.client
