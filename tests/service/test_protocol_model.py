"""Sessions and hub together, against a model of a few lines, with whatever hypothesis can think of."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from service.core.addresses import Address
from service.core.frames import REQUESTS
from service.core.session import PROBE_PERIOD_S
from tests.examples import EXAMPLES
from tests.service.centers import Party, World, limits

REGISTRATIONS = 2

# On a busy machine, slow is no fault.
unhurried = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
# Few, so that clients want the same.
addresses = st.sampled_from(["a", "b", "temporary-1"])
groups = st.sampled_from("gh")
near_misses = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(sorted(REQUESTS)) | json_values,
        "id": st.integers(0, 3) | json_values,
        "recipient_uuid": addresses | json_values,
        "message": json_values | st.just("connected"),
        "uuid": addresses | json_values,
        "uuids": st.lists(addresses) | json_values,
        "group": groups | json_values,
        "key": st.integers(0, 3) | json_values,
        "ack": st.sampled_from(["none", "accepted", "delivered"]) | json_values,
        "watch": st.booleans() | json_values,
        "token": st.text() | json_values,
        "resume": st.text() | json_values,
    },
)
texts = st.text().map(str.encode) | near_misses.map(json.dumps).map(str.encode)


@pytest.mark.slow
@given(st.lists(st.tuples(st.booleans(), texts | st.binary()), max_size=8))
@unhurried
def test_whatever_clients_send_everybody_hears_sound_frames_only(sent: list[tuple[bool, bytes]]) -> None:
    world = World()
    new, old = world.v1(), world.v0()
    new.say(type="hello", id=0, uuid="a")
    for by_new, data in sent:
        (new if by_new else old).session.receive_binary(data)
    for party in (new, old):
        party.heard()  # JSON, all of it
        party.session.end()
    assert world.keeps() == []


class ProtocolModel(RuleBasedStateMachine):
    """Clients of both versions come, register, join, send, answer pings or not, and go at any moment.

    `owners`, `groups` and `waiting` say what must be true.
    """

    clients: Bundle[Party] = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(limits=limits(registrations=REGISTRATIONS))
        self.open: dict[Party, list[str]] = {}
        self.owners: dict[str, Party] = {}
        self.waiting: dict[str, list[Party]] = {}
        self.groups: dict[str, list[Party]] = {"g": [], "h": []}

    def _joined(self, party: Party) -> Party:
        temporary = party.session.addresses[0]
        self.owners[temporary] = party
        self.open[party] = []
        return party

    @rule(target=clients)
    def connect_v0(self) -> Party:
        return self._joined(self.world.v0())

    @rule(target=clients)
    def connect_v1(self) -> Party:
        party = self._joined(self.world.v1())
        party.say(type="hello", id=0, uuid=party.session.addresses[0])
        party.heard()
        return party

    def _claims(self, party: Party) -> int:
        return len(self.open[party]) + sum(party in claimants for claimants in self.waiting.values())

    @rule(party=clients, address=addresses)
    def register(self, party: Party, address: str) -> None:
        if party not in self.open or party.client.closed or party in self.waiting.get(address, ()):
            return
        if party.session.protocol == "v0":
            party.register(address)
        else:
            party.say(type="hello", id=1, uuid=address)
        known = address in self.open[party] or self.owners.get(address) is party
        if not known and self._claims(party) >= REGISTRATIONS:
            if party.session.protocol == "v0":
                assert party.client.closed
            else:
                assert [frame["code"] for frame in party.heard()] == [106]
        elif address not in self.owners:
            self.owners[address] = party
            self.open[party].append(address)
            self._hears_ok(party)
        elif self.owners[address] is party:
            self._hears_ok(party)
        else:
            self.waiting.setdefault(address, []).append(party)
            assert party.heard() == []

    def _hears_ok(self, party: Party, times: int = 1) -> None:
        assert [frame["type"] for frame in party.heard()] == ([] if party.session.protocol == "v0" else ["ok"] * times)

    @rule(address=addresses, alive=st.booleans())
    def probe_ends(self, address: str, alive: bool) -> None:
        if not self.waiting.get(address):
            return
        owner = self.owners[address]
        if not owner.client.probes:  # it was probed just now
            self.world.passes(PROBE_PERIOD_S)
        if not alive:
            owner.answer_probe(alive=False)
            assert owner.client.aborted
            self._gone(owner)
            return
        while owner.client.probes:
            owner.answer_probe(alive=True)
        waited_for = [each for each in self.waiting if self.owners.get(each) is owner]
        refused = [claimant for each in waited_for for claimant in self.waiting.pop(each)]
        for claimant in dict.fromkeys(refused):
            if claimant.session.protocol == "v0":
                assert claimant.client.closed
            else:
                assert [frame["code"] for frame in claimant.heard()] == [113] * refused.count(claimant)

    @rule(party=consumes(clients))
    def leave(self, party: Party) -> None:
        if party in self.open:
            party.session.end()
            self._gone(party)

    def _gone(self, party: Party) -> None:
        del self.open[party]
        for claimants in self.waiting.values():
            if party in claimants:
                claimants.remove(party)
        for members in self.groups.values():
            if party in members:
                members.remove(party)
        granted: list[Party] = []
        for address in [each for each, owner in self.owners.items() if owner is party]:
            del self.owners[address]
            claimants = self.waiting.pop(address, [])
            if claimants:
                first, *others = claimants
                self.owners[address] = first
                self.open[first].append(address)
                granted.append(first)
                if others:
                    self.waiting[address] = others
        for owner in dict.fromkeys(granted):
            self._hears_ok(owner, granted.count(owner))

    @rule(party=clients, group=groups, joins=st.booleans())
    def join_or_leave(self, party: Party, group: str, joins: bool) -> None:
        if party not in self.open or party.session.protocol == "v0":
            return
        party.say(type="join" if joins else "leave", id=2, group=group)
        self._hears_ok(party)
        members = self.groups[group]
        if joins and party not in members:
            members.append(party)
        elif not joins and party in members:
            members.remove(party)

    @rule(party=clients, address=addresses, message=json_values)
    def send(self, party: Party, address: str, message: object) -> None:
        if party not in self.open or party.client.closed or message == "connected":
            return
        owner = self.owners.get(address)
        party.say(recipient_uuid=address, message=message)
        for other in self.open:
            heard = other.heard()
            if other is owner:
                assert [(frame["recipient_uuid"], frame["message"]) for frame in heard] == [(address, message)]
            else:
                assert heard == []

    @rule(party=clients, group=groups)
    def send_to_group(self, party: Party, group: str) -> None:
        if party not in self.open or party.session.protocol == "v0":
            return
        party.say(id=3, group=group, message="all", ack="delivered")
        others = [member for member in self.groups[group] if member is not party]
        assert [(frame["type"], frame["receipts"]) for frame in party.heard()] == [("ok", len(others))]
        for member in others:
            (frame,) = member.heard()
            member.say(type="ack", key=frame["key"])
        assert [frame["type"] for frame in party.heard()] == ["delivered"] * len(others)

    @invariant()
    def every_address_leads_to_its_owner_and_to_nobody_else(self) -> None:
        hub = self.world.center.hub
        assert {address: owner.session for address, owner in self.owners.items()} == hub._owners
        assert set(hub.members) == {party.session for party in self.open}

    @invariant()
    def groups_have_the_members_that_joined(self) -> None:
        for group, members in self.groups.items():
            assert list(self.world.center.hub.members_of(group)) == [member.session for member in members]

    @invariant()
    def nobody_hears_what_was_not_for_it(self) -> None:
        heard: list[Any] = [frame for party in self.open for frame in party.heard()]
        assert heard == []

    @invariant()
    def whoever_waits_waits_for_an_owner(self) -> None:
        waiting = {each: set(claimants) for each, claimants in self.waiting.items() if claimants}
        assert waiting.keys() <= self.owners.keys()
        for address, claimants in waiting.items():
            assert {party.session for party in claimants} <= set(self.world.center.hub._claimants[Address(address)])


TestProtocolModel = pytest.mark.slow(ProtocolModel.TestCase)
TestProtocolModel.settings = settings(unhurried, max_examples=100 * EXAMPLES, stateful_step_count=40)
