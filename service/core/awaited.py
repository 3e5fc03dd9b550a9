"""What clients of this worker are yet to be told by other workers of this host, where the recipient or the client
itself has passed from one worker to another since.

Who has a recipient says what becomes of a message, wherever the sender is by then. If that worker is killed nobody
would say it: then the message was lost, and the worker of the sender, which knows of it by this, says so.
"""

from collections.abc import Callable, Sequence, Set
from typing import Any, NamedTuple

from service.core.addresses import Address
from service.core.frames import Id
from service.core.mailbox import Settled

_What = tuple[Id, Address]
"""Of a message: its id, and as whom others know the recipient."""


class _Where(NamedTuple):
    """The worker that has the recipient, or is to get it from the one `before`, which has it if that fails. None: it
    has gone. `key` is that of the message there.
    """

    worker: Any
    key: int
    before: Any = None


class Open(NamedTuple):
    """A message of which it is not known yet what becomes of it."""

    sender: Address
    id: Id
    recipient: Address


class Awaited:
    """By sender, and by message."""

    def __init__(self) -> None:
        self._of: dict[Address, dict[_What, _Where]] = {}
        self._sent: dict[tuple[Any, int], dict[Address, Open]] = {}
        """Those to a group, by the worker and key, of which that worker has yet to say of whom it expects to hear."""

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, message: Open, worker: Any, key: int = 0, before: Any = None) -> None:
        self._of.setdefault(message.sender, {})[message.id, message.recipient] = _Where(worker, key, before)

    def sent_to(self, worker: Any, key: int, address: Address, message: Open) -> None:
        """A worker has yet to say whether it expects to hear of this message from the client with this address."""
        self._sent.setdefault((worker, key), {})[address] = message

    def unexpected(self, worker: Any, key: int, expected: Sequence[Address]) -> set[Open]:
        """A worker has said it. Returns: those of which nobody will hear."""
        sent = self._sent.pop((worker, key), {})
        return {message for address, message in sent.items() if address not in expected}

    def take(self, message: Open) -> bool:
        """It is told now. Returns: whether it was to be."""
        waiting = self._of.get(message.sender, {})
        is_known = waiting.pop((message.id, message.recipient), None) is not None
        if is_known and not waiting:
            del self._of[message.sender]
        return is_known

    def take_all_of(self, sender: Address) -> list[tuple[Open, Any]]:
        """The sender leaves. Returns: its messages, each with the worker."""
        return [(Open(sender, *what), where.worker) for what, where in self._of.pop(sender, {}).items()]

    def take_where(self, is_meant: Callable[[Open, Any, int], bool], of: Address | None = None) -> list[Open]:
        """What is told now, to all senders or to this one."""
        found = [
            message
            for sender in (self._of if of is None else (of,))
            for what, where in self._of.get(sender, {}).items()
            if is_meant(message := Open(sender, *what), where.worker, where.key)
        ]
        for message in found:
            self.take(message)
        return found

    def move(self, recipients: Set[Address], worker: Any, is_there: bool, sender: Address | None) -> None:
        """These recipients are to be with another worker from now on, or each `is_there` for good: what all senders, or
        this one, have sent to them.
        """
        for waiting in self._of.values() if sender is None else [self._of.get(sender, {})]:
            for what, where in waiting.items():
                if what[1] in recipients and (is_there or where.worker is not worker):
                    before = None if is_there or where.before is worker else where.worker
                    waiting[what] = where._replace(worker=worker, before=before)

    def part(self, worker: Any) -> None:
        """A worker has gone: who was to come to it may have stayed."""
        self._sent = {sent: messages for sent, messages in self._sent.items() if sent[0] is not worker}
        for waiting in self._of.values():
            for what, where in waiting.items():
                if where.worker is worker and where.before is not None:
                    waiting[what] = where._replace(worker=where.before, before=None)
                elif where.before is worker:
                    waiting[what] = where._replace(before=None)


class Unsettled:
    """What became of messages of clients of this host that were not known then: a worker may have died to which one was
    about to pass, or we had just met the worker that has it. At most so many are remembered, by the sender.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._of: dict[Address, list[Settled]] = {}
        self._in_all = 0

    def add(self, settled: Settled) -> None:
        self._of.setdefault(settled.temporary, []).append(settled)
        self._in_all += 1
        while self._in_all > self._limit:
            self.take_all_of(next(iter(self._of)))

    def take_all_of(self, sender: Address) -> list[Settled]:
        """The sender is known again."""
        found = self._of.pop(sender, [])
        self._in_all -= len(found)
        return found
