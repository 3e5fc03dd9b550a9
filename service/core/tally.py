"""The counts of messages, handshakes and connections, by outcome. Workers tell each other."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TypeVar

from service.core import drops
from service.core.close_codes import CloseReason

Label = TypeVar("Label", int, str)


def count_up(counts: dict[Label, int], label: Label, number: int = 1) -> None:
    """Count so many more under a label, which may be a new one."""
    counts[label] = counts.get(label, 0) + number


@dataclass(slots=True)
class Tally:
    """The outcomes of messages and handshakes so far. Every field is a number, or numbers by a label."""

    received: int = 0
    """Messages that clients have sent, as far as they are counted: see `service.core.session.Session.settle`."""
    routed: int = 0
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(drops.ALL, 0))
    accepted: dict[str, int] = field(default_factory=dict)
    """Connections by protocol."""
    refused: dict[int, int] = field(default_factory=dict)
    """Handshakes by HTTP status."""
    closed: dict[int, int] = field(default_factory=dict)
    """Connections that the service closed, by close code."""
    handed_over: int = 0
    """Connections that another process serves on."""
    taken_over: int = 0
    """Connections that another process has served before."""
    not_taken_over: dict[str, int] = field(default_factory=dict)
    """Connections that it has served, and that ended instead, by reason."""
    published: dict[int, int] = field(default_factory=dict)
    """Requests to publish, by HTTP status."""
    bytes_in: int = 0
    bytes_out: int = 0
    """Written to connections that have ended since."""
    delivered: dict[str, int] = field(default_factory=dict)
    """Deliveries that were timed, by the bound of `service.core.pace.BOUNDS` that they kept to."""
    delivery_s: float = 0.0
    """How long these took together."""
    stored: int = 0
    """Messages that were put into a mailbox."""
    expired: int = 0
    """Messages that were deleted from one because nobody acknowledged them in time."""
    link_ends: dict[str, int] = field(default_factory=dict)
    """Links to workers of other hosts that have ended, by reason."""
    batches: int = 0
    """Messages that the engine was given for other hosts."""
    cpu_s: float = 0.0
    """CPU time; of a living worker, `service.core.center.Center.standing` fills it in."""
    committed: dict[str, int] = field(default_factory=dict)
    """Times that what had gathered was written to mailboxes, by the bound of `service.core.pace.BOUNDS`."""
    commit_s: float = 0.0
    """How long that took together."""

    def close(self, reason: CloseReason) -> None:
        """Count one more connection that is closed for this reason."""
        count_up(self.closed, reason.code)

    def add(self, other: "Tally") -> None:
        """Count all that another worker has counted."""
        for each in fields(self):
            mine, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(mine, dict):
                add_counts(mine, theirs)
            else:
                setattr(self, each.name, mine + theirs)


def add_counts(counts: dict[Label, int], others: Mapping[Label, int]) -> None:
    """Count all that others have counted."""
    for label, number in others.items():
        count_up(counts, label, number)
