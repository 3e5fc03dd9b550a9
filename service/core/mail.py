"""How what is kept gets to whoever it is for: the part of a mailbox that knows clients, and nothing of files.

What is stored is not handed on: the owner, in whichever worker it is, hears that there is something and reads its box.
So it gets everything in the order of the offsets, once on each connection, however many workers store.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Protocol

from service.core import drops
from service.core.addresses import Address
from service.core.frames import Delivered, Lost
from service.core.handover import BoxState
from service.core.hub import Hub
from service.core.mailbox import Item, Kept, Letter, Opened, Page, Settled, Store
from service.core.pace import bound_of
from service.core.tally import count_up

# What is sent to an owner that has acknowledged nothing yet: a part of what may wait for one client, or a box that is
# full would close its own reader.
WINDOW = 100
SHARE_OF_QUEUE = 0.5
# After so many more, and as many again as there were, it is looked which boxes there are: others have lapsed.
MANY_BOXES = 10_000


class Mail:
    """The boxes of this deployment, as one worker knows them; without a store there are none."""

    def __init__(self, hub: Hub, soon: Callable[[Callable[[], None]], object]) -> None:
        self.boxes: set[Address] = set()
        """The addresses that have one, as far as is known: the store decides."""
        self.is_unknown = False
        """Whether there is a store that has not said yet who has a box."""
        self._hub = hub
        self._soon = soon
        self._store: Store | None = None
        self._held: list[Settled] | None = None
        """While clients come back: what those are to be told who are not there yet."""
        self._news: set[Address] = set()
        """Boxes with something new whose owners may be in other workers."""
        self._were = 0
        """How many boxes there were when that was looked at last."""
        self._noted: set[Address] | None = None
        """While it is looked, those that are heard of."""

    def use(self, store: Store, boxes: Collection[Address]) -> None:
        """Keep messages from now on."""
        self._store = store
        self._were = len(self.boxes.union(boxes))
        self._note(boxes)

    @property
    def store(self) -> Store | None:
        """Where they are kept; None when none are."""
        return self._store

    @property
    def holds(self) -> tuple[int, int]:
        """How many messages are kept, and how many bytes."""
        return (0, 0) if self._store is None else self._store.holds

    @property
    def is_failing(self) -> bool:
        """Whether messages cannot be stored now that should be."""
        return self._store is not None and self._store.is_failing

    def keep(self, letter: Letter, then: Callable[[Kept], None]) -> None:
        """Store a message for an address that has a box, and let its owner know."""
        assert self._store is not None
        self._store.keep(letter, partial(self._kept, letter.box, then))

    def _kept(self, box: Address, then: Callable[[Kept], None], kept: Kept) -> None:
        if kept.is_stored:
            self._hub.tally.stored += kept is Kept.STORED
            self.tell(box)
        elif kept is Kept.NO_BOX:
            self.boxes.discard(box)
        elif kept is Kept.UNSURE:
            self._hub.tally.dropped[drops.GONE] += 1
            self.tell(box)
        else:
            self._hub.tally.dropped[drops.MAILBOX_FULL] += 1
        then(kept)

    def is_online(self, box: Address) -> bool:
        """Whether somebody has the address now."""
        return self._hub.owner_of(box) is not None

    def opened(self, box: Address) -> None:
        """An owner has opened its box, which may be a new one, or one that others have taken for lapsed."""
        self._note((box,))
        self._tell_others(box)

    def _note(self, boxes: Collection[Address]) -> None:
        """These are there."""
        self.boxes.update(boxes)
        if self._noted is not None:
            self._noted.update(boxes)
        elif self._store is not None and len(self.boxes) > 2 * self._were + MANY_BOXES:
            self._noted = set()
            self._store.list_boxes(self._forget_others)

    def _forget_others(self, found: Collection[Address] | None) -> None:
        noted, self._noted = self._noted, None
        if found is not None:
            self.boxes.intersection_update({*found, *(noted or ())})
        self._were = len(self.boxes)

    def tell(self, box: Address) -> None:
        """There is something new in a box: let its owner know, wherever it is."""
        owner = self._hub.owner_of(box)
        if self._hub.is_ours(owner):
            owner.has_mail(box)
        else:
            # To all others: where it is may just be changing, and then whoever knows it least would miss it.
            self._tell_others(box)

    def _tell_others(self, box: Address) -> None:
        if not self._news:
            self._soon(self._flush)
        self._news.add(box)

    def _flush(self) -> None:
        news, self._news = self._news, set()
        self._hub.bus.tell_mail(news)

    def heard(self, boxes: Collection[Address]) -> None:
        """Another worker has stored something in these boxes, or opened them."""
        if self._store is None:
            return
        self._note(boxes)
        for box in boxes:
            owner = self._hub.owner_of(box)
            if self._hub.is_ours(owner):
                owner.has_mail(box)

    def look_again(self) -> None:
        """Another worker was met, or the store is up again: what there was to say before may have been lost."""
        # Of a store that is away nobody says that there is anything new: owners are not closed for that.
        if self._store is None or not self._store.is_up:
            return
        self._store.list_boxes(lambda found: self._note(found or ()))
        for member in tuple(self._hub.members):
            for address in member.addresses:
                if address in self.boxes:
                    member.has_mail(address)

    def lose(self) -> None:
        """The store is another one from now on: let owners open their boxes again, and hear what is missing."""
        for member in tuple(self._hub.members):
            if not self.boxes.isdisjoint(member.addresses):
                member.lose_mail()

    def note_commit(self, seconds: float) -> None:
        """The store took so long to write what had gathered."""
        self._hub.tally.commit_s += seconds
        count_up(self._hub.tally.committed, bound_of(seconds))

    def note_expired(self, messages: int) -> None:
        """So many were removed because nobody had acknowledged them in time."""
        self._hub.tally.expired += messages

    def tell_outcome(self, temporary: Address, outcome: Delivered | Lost) -> None:
        """Tell a connection what became of its message, whichever worker serves it by now."""
        self.settle([Settled(temporary, outcome.id, outcome.recipient_uuid, isinstance(outcome, Delivered))])

    def settle(self, outcomes: Iterable[Settled]) -> None:
        """Tell connections what became of their messages, if they are still there."""
        for settled in outcomes:
            owner = self._hub.owner_of(settled.temporary)
            if self._hub.is_ours(owner):
                self._hub.bus.was_told(settled)
                kind = Delivered if settled.is_delivered else Lost
                owner.tell_outcome(kind(id=settled.id, recipient_uuid=settled.recipient))
            elif owner is None and self._held is not None:
                self._held.append(settled)
            else:
                self._hub.bus.tell_settled(settled)

    def hold(self) -> None:
        """Clients come back from another process: what is to be told to those who are not there yet waits."""
        self._held = []

    def release(self) -> None:
        """All are there."""
        held, self._held = self._held or [], None
        self.settle(held)


class Hearer(Protocol):
    """To whom a reader reads."""

    def hear(self, item: Item) -> None:
        """Send what was in the box."""

    def lose_mail(self) -> None:
        """The box cannot be read."""


class Reader:
    """Reads a box to a client, in order, and no further ahead of what the client has acknowledged than the window.

    Without `opened` it is a client that does not know of boxes: it hears what is stored from now on, which stays there.
    """

    def __init__(
        self, store: Store, box: Address, hearer: Hearer, size: int, opened: Opened | None, after: int = 0
    ) -> None:
        self._store = store
        self._box = box
        self._hearer = hearer
        self._size = size
        self._opened = opened
        self._sent = after if opened is None else opened.after
        self._acknowledged = self._sent
        # What is lost can be acknowledged as well, so that it is told once.
        self._most = self._sent if opened is None else max(opened.after, opened.lost_to)
        self._window: deque[tuple[int, int]] = deque()
        """Offset and size of what was sent and is not acknowledged."""
        self._size_in_window = 0
        self._is_reading = False
        self._has_more = False
        self._has_ended = False

    @property
    def is_open(self) -> bool:
        """Whether the client knows of its box, and acknowledges what is in it."""
        return self._opened is not None

    def look(self) -> None:
        """There may be something new."""
        self._has_more = True
        if not self._is_reading and not self._has_ended:
            self._read()

    def _read(self) -> None:
        most, size = WINDOW - len(self._window), self._size - self._size_in_window
        if most > 0 and (size > 0 or not self._window):
            self._is_reading, self._has_more = True, False
            self._store.read(self._box, self._sent, most, max(1, size), self._take)

    def _take(self, page: Page | None) -> None:
        self._is_reading = False
        if self._has_ended:
            return
        if page is None or self._has_missed(page):
            self._hearer.lose_mail()
            return
        for item in page.items:
            self._sent = item.offset
            if self._opened is not None:
                self._window.append((item.offset, len(item.body)))
                self._size_in_window += len(item.body)
            self._hearer.hear(item)
        if page.has_more or self._has_more:
            self.look()

    def _has_missed(self, page: Page) -> bool:
        """Whether something has become too old before there was room for it. A client is told that by its next hello:
        what it acknowledged meanwhile would be taken for an acknowledgement of the loss.
        """
        is_told = self._opened is None or page.lost_to <= max(self._sent, self._opened.lost_to)
        return not is_told and (not page.items or page.items[0].offset > page.lost_to)

    def acknowledge(self, offset: int) -> bool:
        """Take note that the client has all up to an offset, which it may say late, twice, or of what it never had.

        Returns: whether that was news.
        """
        self._most = max(self._most, self._sent)
        offset = min(offset, self._most)
        if self._opened is None or self._has_ended or offset <= self._acknowledged:
            return False
        self._acknowledged = offset
        while self._window and self._window[0][0] <= offset:
            self._size_in_window -= self._window.popleft()[1]
        self._store.acknowledge(self._box, self._opened.reader, offset)
        if self._has_more:
            self.look()
        return True

    def touch(self) -> None:
        """The client is still here."""
        if self._opened is not None:
            self._store.touch(self._box)

    def leave(self) -> BoxState:
        """Read no further: another process goes on from here."""
        self._has_ended = True
        return BoxState(self._box, self._opened, self._sent, self._acknowledged, list(self._window))

    def go_on(self, state: BoxState) -> None:
        """Go on from where another process has stopped."""
        self._sent, self._acknowledged = state.sent, state.acknowledged
        self._window.extend(state.window)
        self._size_in_window = sum(size for _, size in state.window)

    def end(self) -> None:
        """The client has gone."""
        if not self._has_ended:
            self._has_ended = True
            self.touch()
