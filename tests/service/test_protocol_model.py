"""Session and hub together, against a model of a few lines, with whatever hypothesis can think of."""

import json
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from service.hub import MAX_REGISTRATIONS, Address, Hub
from service.session import Close, Effect, Send, Session

# On a busy machine, slow is no fault.
unhurried = settings(deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
addresses = st.sampled_from([*"abcdefgh", "temporary-1", "temporary-2", "é", "\U0001f600"])
near_misses = st.fixed_dictionaries({}, optional={"recipient_uuid": json_values | addresses, "message": json_values})
frames = (
    st.text(st.characters(exclude_categories=()))  # lone surrogates as well
    | st.binary()
    | near_misses.map(json.dumps)
    | near_misses.map(lambda value: json.dumps(value).encode("utf-16"))
)


@given(st.lists(frames, max_size=5))
@unhurried
def test_whatever_a_client_sends_only_clients_that_are_connected_get_something(sent: list[str | bytes]) -> None:
    hub = Hub()
    sessions = [Session(hub, Address("temporary-1")), Session(hub, Address("temporary-2"))]
    for frame in sent:
        for effect in sessions[0].receive(frame):
            assert effect.connection in {session.connection for session in sessions}
            if isinstance(effect, Send):
                effect.text.encode()  # it can be sent


class ProtocolModel(RuleBasedStateMachine):
    """Clients come, register, send and go; `owners` and `claims` say what must be true."""

    clients: Bundle[Session] = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.hub = Hub()
        self.numbers = count(1)
        self.owners: dict[str, Session] = {}
        self.claims: dict[Session, set[str]] = {}
        self.closing: set[Session] = set()

    @rule(target=clients)
    def connect(self) -> Session:
        temporary = f"temporary-{next(self.numbers)}"
        session = Session(self.hub, Address(temporary))
        assert session.welcome("{uuid}") == (Send(session.connection, temporary),)
        self.owners[temporary] = session
        self.claims[session] = {temporary}
        return session

    @rule(client=clients, address=addresses)
    def register(self, client: Session, address: str) -> None:
        effects = client.receive(json.dumps({"recipient_uuid": address, "message": "connected"}))
        if client in self.closing:
            assert effects == ()
            return
        if address not in self.claims[client] and len(self.claims[client]) == 1 + MAX_REGISTRATIONS:
            assert [type(effect) for effect in effects] == [Close]
            self.closing.add(client)
            return
        assert effects == ()
        self.claims[client].add(address)
        self.owners[address] = client

    @rule(client=clients, address=addresses, message=json_values, binary=st.booleans())
    def send(self, client: Session, address: str, message: object, binary: bool) -> None:
        text = json.dumps({"recipient_uuid": address, "message": message})
        expected: tuple[Effect, ...] = ()
        is_json = "NaN" not in text and "Infinity" not in text
        if is_json and message != "connected" and client not in self.closing and address in self.owners:
            expected = (Send(self.owners[address].connection, text),)
        if is_json and message != "connected":
            assert tuple(client.receive(text.encode() if binary else text)) == expected

    @rule(client=consumes(clients))
    def disconnect(self, client: Session) -> None:
        client.end()
        self.owners = {address: owner for address, owner in self.owners.items() if owner is not client}
        del self.claims[client]

    @precondition(lambda self: self.claims)
    @invariant()
    def every_address_leads_to_its_owner(self) -> None:
        for address, owner in self.owners.items():
            assert self.hub.route(Address(address)) == owner.connection

    @invariant()
    def nothing_is_kept_for_those_who_have_left(self) -> None:
        assert len(self.hub) == len(self.claims)
        assert set(self.hub._owners) == set(self.owners)


TestProtocolModel = ProtocolModel.TestCase
TestProtocolModel.settings = settings(unhurried, max_examples=40, stateful_step_count=30)
