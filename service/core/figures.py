"""Every figure of the service, declared once: `/metrics`, `/stats` and the table of the docs are made of this table.

A new figure is a line in `FIGURES`, and what it reads: a field of `Tally`, which is added up by itself, or of
`Standing`. The labels come from tables of ours and never from a client, so that the number of series is constant.
Source of the names: "Metric and label naming" of Prometheus.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from service.core import close_codes, drops
from service.core.close_codes import CloseReason
from service.core.frames import SUBPROTOCOL
from service.core.pace import BOUNDS
from service.core.standing import Abroad, Elsewhere, Standing, together

if TYPE_CHECKING:  # only to be read: `Center` need not be there where the names are wanted
    from service.core.center import Center

PREFIX = "wsbundle_"
FORMAT = 1
"""Of `/stats`: a reader that knows this number knows what it reads. New keys may come at any time."""

PROTOCOLS = ("v0", SUBPROTOCOL)
# Those of `service.core.plain_http`, and those of `service.fast.handshake`: no WebSocket that RFC 6455 knows.
REFUSED = {
    400: "not a handshake",
    401: "no valid token",
    403: "foreign page",
    408: "too slow",
    426: "another version of WebSocket",
    429: "too many of one address",
    431: "head too long",
    503: "full or stopping",
}
_REASONS = sorted(value for value in vars(close_codes).values() if isinstance(value, CloseReason))
CLOSED = tuple(dict.fromkeys(reason.code for reason in _REASONS))
PUBLISHED = (201, 202, 400, 401, 403, 405, 408, 409, 413, 415, 422, 429, 503, 507)
"""Every status that a publication can be answered with."""
# As in `service.engine.links`: why a link to a worker of another host has ended.
ENDS = ("bye", "silence", "gap", "anew", "garbage")
# As in `service.fast.handover`: why a client that another process has served is not served on.
NOT_TAKEN_OVER = {
    "gone": "its client had gone",
    "not_understood": "what is known of it was not understood",
    "refused": "it is not allowed any more",
}
LIMITS = ("connections", "connections_per_address", "message_size", "messages_per_second", "bytes_per_second", "queue")


class Times(NamedTuple):
    """A histogram: how many took up to each bound, and more than the one before; and how long all took together."""

    within: Mapping[str, int]
    seconds: float


Value = float | Mapping[Any, float] | Times
Kind = Literal["gauge", "counter", "histogram"]


class Silent(NamedTuple):
    """A worker that does not say how it is: how it was, and since when that is not known any more, from the epoch."""

    was: Standing
    since: float


class Host(NamedTuple):
    """Another host. `counted` of its workers say how they are, and `silent_since` one of them does not, if any.

    `whole` has all of them as one, as far as they have ever said how they are; it is None when none has.
    """

    known: Elsewhere
    counted: int
    whole: Standing | None
    silent_since: float | None


class Service(NamedTuple):
    """All that figures are read from: the workers that say how they are, ours first, and all of them as one."""

    center: "Center"
    workers: Sequence[Standing]
    whole: Standing
    silent: Sequence[Silent] = ()
    hosts: Sequence[Host] = ()
    """The others, where there is an engine."""

    @property
    def figures(self) -> Sequence["Figure"]:
        """Those that there are."""
        return [figure for figure in FIGURES if self.whole.abroad or not figure.needs_engine]


def service(
    center: "Center",
    others: Sequence[Standing] = (),
    silent: Sequence[Silent] = (),
    abroad: Mapping[str, Standing | Silent] = {},
) -> Service:
    """The service as one of its workers sees it. `others` are the answers of the other workers, `silent` the earlier
    ones of those that give none now, `abroad` both of the workers of other hosts, by what the bus knows them by.
    """
    workers = (center.standing(), *others)
    whole = together(workers, [each.was for each in silent])
    return Service(center, workers, whole, silent, [_host(each, abroad) for each in center.hub.bus.elsewhere])


def _host(known: Elsewhere, abroad: Mapping[str, Standing | Silent]) -> Host:
    there = [abroad[worker] for worker in known.workers if worker in abroad]
    silent = [each for each in there if isinstance(each, Silent)]
    told = [each for each in there if not isinstance(each, Silent)]
    whole = together([*told, *(each.was for each in silent)]) if there else None
    return Host(known, len(told), whole, min((each.since for each in silent), default=None))


def _le(bound: float) -> str:
    """A bound as Prometheus writes it."""
    return "+Inf" if bound == float("inf") else str(bound)


class Figure(NamedTuple):
    """One figure. `name` is its key in `/stats`; its series are `wsbundle_NAME`, behind a counter with `_total`.

    `worker` reads it of one worker, `whole` of all together; without `whole`, it is read of all workers as one. With
    `by_worker` there is a series `wsbundle_worker_NAME{worker}` as well, or only that, where the library of Prometheus
    has the whole. `label` is what its values are told apart by, `values` has all of them, and `words` what they mean
    where they are numbers. `page` is where the docs say more.
    """

    name: str
    kind: Kind
    help: str
    worker: Callable[[Standing], Value] | None = None
    whole: Callable[[Service], Value] | None = None
    label: str = ""
    values: tuple[Any, ...] = ()
    words: Mapping[Any, str] = {}
    by_worker: Literal["", "also", "only"] = ""
    page: str = ""
    needs_engine: bool = False
    """Whether there is such a figure only where there is an engine."""

    @property
    def series(self) -> str:
        """The name of the whole in `/metrics`."""
        return f"{PREFIX}{self.name}{'_total' if self.kind == 'counter' else ''}"

    @property
    def series_by_worker(self) -> str:
        """The name of what is told of each worker."""
        return f"{PREFIX}worker_{self.series.removeprefix(PREFIX)}"

    def of(self, service: Service) -> Value:
        """Its value for all workers."""
        if self.whole is not None:
            return self._complete(self.whole(service))
        assert self.worker is not None
        return self._complete(self.worker(service.whole))

    def of_worker(self, standing: Standing) -> Value:
        """Its value for one worker: what it has counted itself."""
        assert self.worker is not None
        return self._complete(self.worker(standing))

    def _complete(self, value: Value) -> Value:
        if isinstance(value, Times):
            return Times({_le(bound): value.within.get(str(bound), 0) for bound in BOUNDS}, value.seconds)
        if isinstance(value, Mapping):
            return {str(each): value.get(each, 0) for each in self.values}
        return value


FIGURES = (
    Figure(
        "workers",
        "gauge",
        "Workers that are serving.",
        whole=lambda service: 1 + len(service.center.hub.bus.others),
        page="workers.md",
    ),
    Figure(
        "workers_counted",
        "gauge",
        "Workers whose figures are of now. A stuck one is waited for half a second once, then its last ones are shown.",
        whole=lambda service: len(service.workers),
    ),
    Figure(
        "connections",
        "gauge",
        "WebSockets that are open now.",
        worker=lambda worker: worker.connections,
        whole=lambda service: service.center.connections,
        by_worker="also",
    ),
    Figure(
        "draining",
        "gauge",
        "1 while the service is about to stop.",
        whole=lambda service: int(service.center.draining),
    ),
    Figure(
        "connections_accepted",
        "counter",
        "Handshakes that became a WebSocket.",
        worker=lambda worker: worker.tally.accepted,
        label="protocol",
        values=PROTOCOLS,
    ),
    Figure(
        "handshakes_refused",
        "counter",
        f"Handshakes that were refused: {', '.join(f'{status} {word}' for status, word in REFUSED.items())}.",
        worker=lambda worker: worker.tally.refused,
        label="status",
        values=tuple(REFUSED),
        words=REFUSED,
    ),
    Figure(
        "connections_closed",
        "counter",
        "WebSockets that the service closed, by close code.",
        worker=lambda worker: worker.tally.closed,
        label="code",
        values=CLOSED,
        words={code: " or ".join(each.reason for each in _REASONS if each.code == code) for code in CLOSED},
        page="protocol.md#close-codes",
    ),
    Figure(
        "connections_handed_over",
        "counter",
        "WebSockets that stayed open when the process that served them stopped, for another one to serve them.",
        worker=lambda worker: worker.tally.handed_over,
        page="connections.md#restart",
    ),
    Figure(
        "connections_taken_over",
        "counter",
        "WebSockets that another process had served before.",
        worker=lambda worker: worker.tally.taken_over,
        page="connections.md#restart",
    ),
    Figure(
        "connections_not_taken_over",
        "counter",
        "WebSockets that another process had served, and that ended instead: the client had gone, it was not "
        "understood what was known of it, or it was refused, for example because it now needs a token.",
        worker=lambda worker: worker.tally.not_taken_over,
        label="reason",
        values=tuple(NOT_TAKEN_OVER),
        words=NOT_TAKEN_OVER,
        page="connections.md#restart",
    ),
    Figure(
        "messages_received",
        "counter",
        "Messages that clients sent, of whatever kind; receipts that the service asked for are not counted.",
        worker=lambda worker: worker.tally.received,
    ),
    Figure(
        "messages_routed",
        "counter",
        "Messages that had a recipient, once for each.",
        worker=lambda worker: worker.tally.routed,
    ),
    Figure(
        "messages_dropped",
        "counter",
        "Messages that were not delivered, see below.",
        worker=lambda worker: worker.tally.dropped,
        label="reason",
        values=drops.ALL,
    ),
    Figure(
        "publications",
        "counter",
        "Requests to publish a message.",
        worker=lambda worker: worker.tally.published,
        label="status",
        values=PUBLISHED,
        page="publish.md",
    ),
    Figure(
        "mailbox_messages",
        "gauge",
        "Messages that wait in mailboxes.",
        whole=lambda service: service.center.mail.holds[0],
        page="mailbox.md",
    ),
    Figure(
        "mailbox_bytes",
        "gauge",
        "Bytes of these, which mailbox.total bounds.",
        whole=lambda service: service.center.mail.holds[1],
        page="mailbox.md",
    ),
    Figure(
        "mailbox_stored",
        "counter",
        "Messages that were put into a mailbox.",
        worker=lambda worker: worker.tally.stored,
        page="mailbox.md",
    ),
    Figure(
        "mailbox_expired",
        "counter",
        "Messages that were deleted from a mailbox because nobody confirmed them within mailbox.ttl.",
        worker=lambda worker: worker.tally.expired,
        page="mailbox.md",
    ),
    Figure(
        "mailbox_commit_seconds",
        "histogram",
        "How long it takes until what has gathered for mailboxes is on the disk: senders wait for it.",
        worker=lambda worker: Times(worker.tally.committed, worker.tally.commit_s),
        page="mailbox.md",
    ),
    Figure(
        "mailbox_failing",
        "gauge",
        "1 while messages cannot be stored, for example because the disk is full.",
        worker=lambda worker: int(worker.is_mailbox_failing),
        page="mailbox.md",
    ),
    Figure(
        "bytes",
        "counter",
        "Bytes of the messages that clients sent (in), and bytes that were written to their WebSockets (out); without "
        "nginx's TLS.",
        worker=lambda worker: {"in": worker.tally.bytes_in, "out": worker.tally.bytes_out},
        label="direction",
        values=("in", "out"),
    ),
    Figure(
        "delivery_seconds",
        "histogram",
        "From when a message is sent to a client until the system has it for this client. One delivery is timed in "
        "each tenth of a second, by each worker.",
        worker=lambda worker: Times(worker.tally.delivered, worker.tally.delivery_s),
    ),
    Figure(
        "queue_bytes",
        "gauge",
        "Bytes that wait because clients read too slowly.",
        worker=lambda worker: worker.queue_bytes,
        by_worker="also",
    ),
    Figure(
        "loop_lag_seconds",
        "gauge",
        "How late the event loop was at most, in the last 15 seconds; of all workers the longest.",
        worker=lambda worker: worker.loop_lag_s,
        by_worker="also",
    ),
    Figure(
        "memory_bytes",
        "gauge",
        "Resident memory.",
        worker=lambda worker: worker.memory_bytes,
        by_worker="only",
    ),
    Figure(
        "cpu_seconds",
        "counter",
        "CPU time.",
        worker=lambda worker: worker.tally.cpu_s,
        by_worker="only",
    ),
    Figure(
        "start_time_seconds",
        "gauge",
        "When it began to serve, since the epoch; of all workers the first.",
        worker=lambda worker: worker.since,
        by_worker="only",
    ),
    Figure(
        "limit",
        "gauge",
        "The settings below limits, to compare with.",
        whole=lambda service: {name: getattr(service.center.settings.limits, name) for name in LIMITS},
        label="limit",
        values=LIMITS,
        page="settings.md#limits",
    ),
    Figure(
        "engine_up",
        "gauge",
        "1 while what each worker publishes on the engine comes back to it.",
        worker=lambda worker: int(_abroad(worker).state == "up"),
        needs_engine=True,
    ),
    Figure(
        "engine_hosts",
        "gauge",
        "Other hosts that can be reached.",
        worker=lambda worker: _abroad(worker).hosts,
        needs_engine=True,
    ),
    Figure(
        "engine_links",
        "gauge",
        "Links to workers of other hosts: each of ours has one to each of theirs.",
        worker=lambda worker: _abroad(worker).links,
        needs_engine=True,
    ),
    Figure(
        "engine_link_ends",
        "counter",
        "Links that have ended: bye when a worker stopped, silence, gap when the engine has lost something, anew when "
        "the other side found that, garbage.",
        worker=lambda worker: worker.tally.link_ends,
        label="why",
        values=ENDS,
        needs_engine=True,
    ),
    Figure(
        "engine_beat_seconds",
        "gauge",
        "How long what a worker publishes takes to come back; of all workers the longest.",
        worker=lambda worker: _abroad(worker).beat_s,
        needs_engine=True,
    ),
    Figure(
        "engine_unacknowledged_bytes",
        "gauge",
        "Bytes on their way to other hosts.",
        worker=lambda worker: _abroad(worker).unacknowledged,
        needs_engine=True,
    ),
    Figure(
        "engine_batches",
        "counter",
        "Messages that the engine was given for other hosts, each with all that was due in one turn of the loop.",
        worker=lambda worker: worker.tally.batches,
        needs_engine=True,
    ),
)


def _abroad(worker: Standing) -> Abroad:
    assert worker.abroad is not None
    return worker.abroad
