"""The service of one host restarts, with its clients connected, while they and clients of another host write to each
other over an engine that holds up what it likes: nobody can tell when.

As in `tests.service.test_moves_of_hosts`, whose promises are checked.
"""

from collections.abc import Callable
from functools import partial
from itertools import count

import msgspec
import pytest

from service.core.addresses import Address
from service.core.handover import SessionState
from service.core.restarts import AWAY_S
from service.core.session_v1 import SessionV1
from tests.examples import seeds
from tests.service.centers import FakeClient
from tests.service.engines import SILENCE_S
from tests.service.test_moves_of_hosts import NAMES, Scene

# How often what a restart waits for is looked at before it goes on all the same.
PATIENCE = 2000
# While so much is on its way, no time passes: else a link may end because of that alone.
MANY = 100


class RestartingScene(Scene):
    """The workers of one host after the other give way to new ones."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.fresh = count(5)
        self.restarted = 0
        self.step: Callable[[], bool] | None = None
        """The next one of a restart; it says whether it could be made."""
        self.waited = 0
        self.host = ""
        self.ending: list[str] = []
        self.asked_restart: set[str] = set()
        self.stored: list[tuple[str, bytes]] = []
        self.taken: list[tuple[str, SessionState]] = []
        self.fails: Callable[[], bool] = lambda: False
        """Whether the next thing that may fail does."""

    @property
    def waits_in_vain(self) -> bool:
        """Whether a restart has waited for too long."""
        self.waited += 1
        return self.waited > PATIENCE

    def turn(self, *others: Callable[[], None]) -> None:
        super().turn(*others)
        self.go_on()

    def tick(self) -> None:
        """Rarely, for many turns go by: only what a test does itself lets a link end."""
        if (self.step is None or self.chance.random() < 0.2) and self.engine.waiting < MANY:
            super().tick()
            for worker in self.workers.values():
                worker.center.tick()

    def of_host(self, host: str) -> list[str]:
        """Its workers."""
        return [name for name in sorted(self.workers) if name[0] == host]

    def restart(self) -> None:
        """One begins, and meanwhile nobody passes on."""
        if self.step is None and self.parties:
            self.host = self.chance.choice("ab")
            self.step = self.begin

    def go_on(self) -> None:
        """The restart goes a step further, if it can."""
        if self.step is not None and self.step():
            self.waited = 0

    def is_quiet(self, names: list[str]) -> bool:
        """Whether these workers of one host have read what they have told each other; if not, they read on."""
        heard = [self.workers[name].arrive(peer) for name in names for peer in self.workers[name].peers]
        return not any(heard)

    def of(self, worker: str) -> list[str]:
        """Its clients."""
        return [name for name in sorted(self.parties) if self.at[name] == worker]

    def kill_one(self) -> None:
        """A worker dies, rarely, and not while clients of its host are on their way to another process."""
        hosts = [host for host in "ab" if len(self.of_host(host)) > 1]
        if self.chance.random() < 0.1 and hosts:
            self.kill()
            self.ending = [name for name in self.ending if name in self.workers]
            self.asked_restart &= set(self.ending)

    def quit(self) -> None:
        """One goes, but not the last one: there would be nobody whom a restart concerns."""
        if len(self.parties) > 1:
            super().quit()

    @property
    def is_calm(self) -> bool:
        """Whether no client passes on, and all know each other."""
        others = {name: sum(other[0] != name[0] for other in self.workers) for name in self.workers}
        are_met = all(len(worker.links.up) == others[name] for name, worker in self.workers.items())
        are_complete = all(worker.links.is_complete for worker in self.workers.values())
        return are_met and are_complete and not any(worker.bus.moves._behind for worker in self.workers.values())

    def move(self) -> None:
        """While a host restarts, no client of another one passes on: what is kept for clients stays where it is."""
        if self.step is None and (self.moving or self.is_calm):
            super().move()

    def begin(self) -> bool:
        if (self.moving or not self.is_calm) and not self.waits_in_vain:
            return False
        self.ending = self.of_host(self.host)
        self.still |= {name for name, at in self.at.items() if at in self.ending}
        self.step = self.freeze
        return True

    def freeze(self) -> bool:
        parties = [self.parties[name] for worker in self.ending for name in self.of(worker)]
        is_settled = all(party.session.may_leave for party in parties)
        if not (self.is_quiet(self.ending) and is_settled) and not self.waits_in_vain:
            return False
        self.asked_restart = set(self.ending)
        for name in self.ending:
            members = [self.parties[each].session for each in self.of(name)]
            self.workers[name].bus.announce_restart(members, partial(self.asked_restart.discard, name))
        self.step = self.leave_all
        return True

    def leave_all(self) -> bool:
        if self.asked_restart and not self.waits_in_vain:
            return False
        closed = {name: self.leave_from(name) for name in self.ending}
        for name in self.ending:
            self.end(name, closed[name])
        for _ in range(self.chance.randint(1, 3)):
            self.start(f"{self.host}{next(self.fresh)}")
        self.step = self.hear
        return True

    def leave_from(self, name: str) -> list[Address]:
        """The clients of a worker leave. Returns: those that had to be closed."""
        self.workers[name].bus.lose_abroad()
        closed = []
        for each in self.of(name):
            session = self.parties[each].session
            if not session.may_leave:
                continue
            state = msgspec.msgpack.encode(session.leave())
            if self.fails():
                closed.append(session.temporary)
                self.forget(each)
            else:
                self.stored.append((each, state))
                self.at[each] = ""
                session.client = FakeClient()  # what may be said to it now goes nowhere
        return closed

    def end(self, name: str, closed: list[Address]) -> None:
        """A worker ends."""
        worker = self.workers[name]
        worker.bus.confirm_restart(closed)
        for each in self.of(name):
            self.parties[each].session.end()
            self.forget(each)
        worker.turns()
        worker.links.leave()
        self.engine.pass_on_all(name)
        del self.workers[name]
        for other in self.of_host(self.host):
            while self.workers[other].arrive(worker.number):
                pass
            self.workers[other].bus.part(self.workers[other].peers.pop(worker.number))

    def hear(self) -> bool:
        """New workers wait until others have told what they have."""
        others = sum(name[0] != self.host for name in self.workers)
        news = [self.workers[name] for name in self.of_host(self.host)]
        if not all(len(new.links.up) == others and new.links.is_complete for new in news) and not self.waits_in_vain:
            return False
        self.step = self.take
        return True

    def take(self) -> bool:
        """New workers serve the clients on."""
        for worker in self.of_host(self.host):
            self.workers[worker].bus.take_back(is_over=False)
        if not self.stored:
            self.step = self.finish_taking
            return True
        name, packed = self.stored.pop(self.chance.randrange(len(self.stored)))
        worker = self.chance.choice(self.of_host(self.host))
        state = msgspec.msgpack.decode(packed, type=SessionState)
        if self.fails():
            self.workers[worker].bus.does_not_come(state.addresses[0][0])
            self.forget(name)
        elif self.fails():
            self.forget(name)  # with the process that had it
        else:
            party, center = self.parties[name], self.workers[worker].center
            party.session = SessionV1(center, party.client, state.identity, state.client_address, state.addresses[0][0])
            party.session.go_on(state, None)
            self.at[name] = worker
            self.taken.append((name, state))
        return True

    def finish_taking(self) -> bool:
        if not self.is_quiet(self.of_host(self.host)) and not self.waits_in_vain:
            return False
        for worker in self.of_host(self.host):
            self.workers[worker].bus.take_back(is_over=True)
        for name, state in self.taken:
            if name in self.parties:
                self.parties[name].session.catch_up(state)
                self.still.discard(name)
        self.taken.clear()
        self.restarted += 1
        self.step = None
        return True

    def finish(self) -> None:
        while self.step is not None:  # each waits no longer than `PATIENCE`
            self.settle()
            self.adopt()
            self.go_on()
            if self.waited % 100 == 99:
                self.tick()  # a worker that has gone without a word is not waited for
        super().finish()
        for _ in range(round(8 * AWAY_S / SILENCE_S) + 8):
            self.tick()
            self.settle()
        self.listen(1.0)

    def check_workers(self, some_are_dead: bool = False) -> None:
        super().check_workers(some_are_dead)
        for worker in self.workers.values():
            assert not worker.bus.restarts._away
            assert not worker.bus.restarts._restarts


TURNS = 3000
RESTARTS_AT = (200, 1500)
# In 92, the second restart has just begun at the end. In 248, the first beat of a worker comes after the one that has
# started behind it is met. In 801, an engine is behind.
SEEDS = [*seeds(10, 30), 92, 248, 801]


def play(scene: RestartingScene, *others: Callable[[], None]) -> None:
    """All of it."""
    for number in range(TURNS):
        if number in RESTARTS_AT:
            scene.restart()
        if scene.parties:
            scene.turn(*others)
        scene.listen(0.7)
    scene.finish()
    assert scene.restarted


@pytest.mark.parametrize("seed", SEEDS)
def test_of_what_is_written_meanwhile_nothing_is_lost_or_doubled_or_overtaken(seed: int) -> None:
    scene = RestartingScene(seed)
    play(scene)
    assert len(scene.parties) == len(NAMES)
    for name in scene.parties:
        scene.check(name)
        scene.check_whole(name)
    scene.check_workers()


@pytest.mark.parametrize("seed", SEEDS)
def test_when_links_end_meanwhile_nothing_is_doubled_or_overtaken_and_what_is_lost_is_told(seed: int) -> None:
    scene = RestartingScene(seed)
    play(scene, scene.engine.cut)
    for name in scene.parties:
        scene.check(name)
    scene.check_workers()


@pytest.mark.parametrize("seed", SEEDS)
def test_when_some_are_not_served_on_and_workers_die_nobody_is_believed_in_whom_no_worker_has(seed: int) -> None:
    scene = RestartingScene(seed)
    scene.fails = lambda: scene.chance.random() < 0.2
    play(scene, scene.engine.cut, scene.quit, scene.kill_one)
    for name in scene.parties:
        scene.check(name, some_are_dead=True)
    scene.check_workers(some_are_dead=True)
