"""The link to one worker of another host: what is sent in its inbox, and what it has taken of that. Pure."""

from collections import deque
from collections.abc import Callable

from service.core.peer import Peer
from service.engine.envelope import MAX_BYTES, VERSIONS, Batch, Taken

# So much is taken before it is acknowledged, when there is nothing to say.
ACK_BYTES = 256 * 1024


class Link:
    """A link, and to the bus the `Wire` to this worker while it is up.

    `publish` puts something into its inbox; `wait_for_flush` has `flush` called at the end of this turn of the loop.
    """

    def __init__(
        self,
        me: str,
        other: str,
        host: str,
        publish: Callable[[Batch | Taken], None],
        wait_for_flush: Callable[["Link"], None],
    ) -> None:
        self.other = other
        self.host = host
        self.hostname = ""
        self.since = 0.0
        """When the link came up, from the epoch."""
        self.peer: Peer | None = None
        """As the bus knows it, while the link is up."""
        self.has_met = False
        """Whether the other one has said something to us over this link: it is up there as well."""
        self.mine = 0
        self.yours = 0
        self.silence = 0.0
        self.version = VERSIONS[0]
        """The highest of the wire that both understand."""
        self.boot = ""
        self.beat_at = 0.0
        """When its last beat was, by the clock of its host since it has booted."""
        self.quiet_s = 0.0
        """How long nothing was heard of it."""
        self.heard = 0
        """The number of what it has last published on `all`."""
        self._me = me
        self._publish = publish
        self._wait_for_flush = wait_for_flush
        self._reset()

    def _reset(self) -> None:
        self.sent = 0
        self.taken = 0
        self.queued = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._to_acknowledge = 0

    def begin_anew(self, nonce: int) -> None:
        """Let everything that is on its way be nothing."""
        self.peer = None
        self.has_met = False
        self.mine = nonce
        self._reset()

    def send(self, record: bytes) -> None:
        if not self._waiting:
            self._wait_for_flush(self)
        elif self._waiting_bytes + len(record) > MAX_BYTES:
            self.flush()
        self._waiting.append(record)
        self._waiting_bytes += len(record)
        self.queued += len(record)

    def flush(self) -> None:
        """Publish what waits."""
        if self._waiting and self.peer is not None:
            self.sent += 1
            self._publish(Batch(self._me, self.mine, self.yours, self.sent, self.taken, self._waiting))
            self._unacknowledged.append((self.sent, self._waiting_bytes))
            self._to_acknowledge = 0
        else:  # an answer to what came before the link ended
            self.queued -= self._waiting_bytes
        self._waiting, self._waiting_bytes = [], 0

    def acknowledged(self, number: int) -> None:
        """The other one has taken all batches up to this one."""
        while self._unacknowledged and self._unacknowledged[0][0] <= number:
            self.queued -= self._unacknowledged.popleft()[1]

    def take(self, batch: Batch) -> bool:
        """Note that a batch has come; False when one before it is missing."""
        if batch.number != self.taken + 1:
            return False
        self.taken = batch.number
        self.has_met = True
        self.acknowledged(batch.ack)
        self._to_acknowledge += sum(map(len, batch.records))
        if self._to_acknowledge > ACK_BYTES and not self._waiting:
            self._to_acknowledge = 0
            self._publish(Taken(self._me, self.mine, self.yours, self.taken))
        return True
