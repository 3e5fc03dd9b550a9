"""Messages from scripts: who may publish, what arrives, and what the script is told."""

import json
from typing import Any

import pytest

from service.core.figures import PUBLISHED
from service.core.hub import Alone, Reach, Receipt, TellReach
from service.core.identity import bearer_tokens
from service.core.message import Message
from service.core.plain_http import DRAINING, Answer
from service.core.tally import Tally
from service.web.publish import MAX_BUCKETS, TOO_LARGE, TOO_SLOW, Permit, Publisher, Request
from service.web.remembered import MAX_REMEMBERED
from tests.service.centers import TOO_DEEP, World, identity, limits


class Script:
    """A script with a token of its own, which says K."""

    def __init__(self, *may_send_to: str, **settings: Any) -> None:
        self.world = World(**settings)
        self.world.tokens["K"] = identity("the-script", *(may_send_to or ("*",)))
        self.publisher = Publisher(self.world.center)

    def post(
        self, target: str, body: bytes = b"hello", method: str = "POST", token: str = "K", **fields: str
    ) -> Answer:
        """Publish; `fields` have underscores for hyphens."""
        given = {name.replace("_", "-"): [value] for name, value in fields.items()}
        headers = {"authorization": [f"Bearer {token}"], **given}
        permit = self.publisher.admit(Request(method, f"/publish/{target}", headers))
        answers = [] if isinstance(permit, Permit) else [permit]
        if isinstance(permit, Permit):
            self.publisher.publish(permit, body, answers.append)
        [answer] = answers
        self.publisher.count(answer)
        return answer


JSON = "application/json"


def test_a_message_for_somebody_who_is_there_arrives_with_its_sender() -> None:
    script = Script()
    alice = script.world.v1("alice")
    answer = script.post("alice")
    assert (answer.status, answer.body) == (201, b'{"online": 1}')
    assert dict(answer.headers)["content-type"] == "application/json"
    assert alice.heard() == [
        {"type": "msg", "sender_uuid": "the-script", "message": "hello", "recipient_uuid": "alice"}
    ]


@pytest.mark.parametrize("body", [rb'"hi \ud83d"', rb'{"\uDE00": ["\\\\", "\ue000", 1e400]}'])
def test_json_is_passed_on_to_the_letter(body: bytes) -> None:
    script = Script()
    alice = script.world.v1("alice")
    assert script.post("alice", body, content_type=JSON).status == 201
    assert b'"message":' + body in alice.client.sent[0]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"[NaN]", "NaN and Infinity are not JSON"),
        (b"[" * TOO_DEEP + b"]" * TOO_DEEP, "it is nested too deep"),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
        (b"{", "Input data was truncated"),
        (rb'["\ud83d",]', "JSON is malformed: trailing comma in array"),
        (b'["%s", NaN]' % (b"x" * 2**18), "it is not plain JSON, and longer than 262144 bytes"),
    ],
)
def test_what_is_not_json_is_refused_and_told_why(body: bytes, why: str) -> None:
    answer = Script().post("alice", body, content_type=JSON)
    assert answer.status == 400
    assert answer.body.decode() == f"The body is not JSON that can be passed on: {why}\n"


def test_a_client_of_v0_gets_it_too() -> None:
    script = Script()
    alice = script.world.v0()
    alice.register("alice")
    script.post("alice", b'{"n": [1, 2]}', content_type=JSON)
    assert alice.heard() == [{"recipient_uuid": "alice", "message": {"n": [1, 2]}}]


def test_a_message_for_nobody_goes_nowhere_and_is_counted() -> None:
    script = Script()
    answer = script.post("nobody-is-this")
    assert (answer.status, answer.body) == (202, b'{"online": 0}')
    assert script.world.dropped("nobody") == 1


def test_a_group_gets_it_and_its_size_is_told() -> None:
    script = Script("group:ops")
    members = [script.world.v1(name) for name in ("alice", "bob")]
    for member in members:
        member.say(type="join", id=1, group="ops")
        member.heard()
    assert script.post("group:ops").body == b'{"online": 2}'
    assert [member.heard()[0]["group"] for member in members] == ["ops", "ops"]
    assert script.post("group:dev").status == 403
    assert script.world.center.hub.tally.routed == 2


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (JSON, b' {"a":\n1}', {"a": 1}),
        ("Application/JSON; charset=utf-8", b'"text"', "text"),
        ("text/plain", b'{"a": 1}', '{"a": 1}'),
        ("application/x-www-form-urlencoded", b"a=b&c", "a=b&c"),
        ("", 'é\n"\x00'.encode(), 'é\n"\x00'),
        ("text/plain", b"", ""),
    ],
)
def test_json_is_passed_on_as_it_is_and_anything_else_as_text(content_type: str, body: bytes, message: object) -> None:
    script = Script()
    alice = script.world.v1("alice")
    assert script.post("alice", body, content_type=content_type).status == 201
    assert alice.heard()[0]["message"] == message


def test_json_arrives_to_the_letter() -> None:
    script = Script()
    alice = script.world.v1("alice")
    script.post("alice", b'{"n":1e400,  "n":"\\u00e9"}', content_type=JSON)
    assert b'{"n":1e400,  "n":"\\u00e9"}' in alice.client.sent[0]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (JSON, b""),
        (JSON, b"hello"),
        (JSON, b"1 2"),
        (JSON, b"NaN"),
        (JSON, b"[" * 60_000),
        (JSON, b'"\xff"'),
        ("text/plain", b"\xff"),
        ("text/plain", b"\xed\xa0\x80"),
    ],
)
def test_a_body_that_is_not_what_it_says_is_refused(content_type: str, body: bytes) -> None:
    script = Script()
    alice = script.world.v1("alice")
    answer = script.post("alice", body, content_type=content_type)
    assert answer.status == 400
    assert answer.body.count(b"\n") == 1
    assert answer.body.endswith(b"\n")
    assert alice.heard() == []
    assert script.world.dropped("bad_request") == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"content_encoding": "gzip"},
        {"content_encoding": "identity, BR"},
        {"transfer_encoding": "gzip, chunked"},
        {"content_type": "Multipart/form-data; boundary=b"},
        {"content_type": "text/plain; charset=UTF-16LE"},
        {"content_type": 'application/json; charset="utf32"'},
    ],
)
def test_a_body_that_is_not_the_message_itself_is_refused_before_it_is_read(fields: dict[str, Any]) -> None:
    script = Script()
    answer = script.post("alice", **fields)
    assert answer.status == 415
    assert "connection" not in dict(answer.headers)  # else one that still sends the body would not read this
    assert dict(answer.headers).get("accept-encoding") == (None if "content_type" in fields else "identity")
    assert script.world.dropped("bad_request") == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"content_encoding": " Identity ,"},
        {"content_encoding": ""},
        {"transfer_encoding": "Chunked"},
        {"content_type": "text/plain; charset=ISO-8859-1"},
    ],
)
def test_what_leaves_the_bytes_as_they_are_is_no_disguise(fields: dict[str, Any]) -> None:
    assert Script().post("alice", **fields).status == 202


@pytest.mark.parametrize("target", ["", "u" * 129, "group:", "group:" + "g" * 129])
def test_an_address_must_have_a_length_that_addresses_have(target: str) -> None:
    assert Script().post(target).status == 400


def test_an_address_that_was_not_utf_8_in_the_path_is_refused() -> None:
    script = Script()
    alice = script.world.v1("\ufffd")
    assert script.post("\ufffd").status == 400  # as servers read /publish/%ff, and /publish/%fe
    assert alice.heard() == []


def test_no_token_and_two_and_one_that_is_worth_nothing_are_refused() -> None:
    script = Script()
    script.world.tokens["OLD"] = identity("the-script", "*", expires=1.0)
    none = script.publisher.admit(Request("POST", "/publish/alice", {}))
    two = script.publisher.admit(Request("POST", "/publish/alice", {"authorization": ["Bearer K", "Bearer K"]}))
    basic = script.post("alice", authorization="Basic K")
    for answer in (none, two, basic, script.post("alice", token="X"), script.post("alice", token="OLD")):
        assert isinstance(answer, Answer)
        assert answer.status == 401
        assert dict(answer.headers)["www-authenticate"] == "Bearer"
    assert script.post("alice", token="OLD").body == b"token expired\n"


def test_the_token_says_where_its_bearer_may_send() -> None:
    script = Script("alice")
    assert script.post("alice").status == 202
    assert script.post("bob").status == 403
    assert script.post("group:alice").status == 403
    assert script.world.dropped("forbidden") == 2


def test_the_scheme_of_a_token_is_read_in_any_case() -> None:
    assert bearer_tokens(["bearer a", "BEARER  b ", "Basic c", "Bearer"]) == ["a", "b", ""]


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE"])
def test_only_post_publishes(method: str) -> None:
    answer = Script().post("alice", method=method)
    assert (answer.status, dict(answer.headers)["allow"]) == (405, "POST")


def test_nothing_is_taken_while_the_service_is_about_to_stop() -> None:
    script = Script()
    script.world.center.draining = True
    assert script.post("alice") == DRAINING


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    script = Script(limits=limits(message_size=128))
    assert script.post("alice", b"", content_length="128").status == 202
    assert script.post("alice", b"", content_length="129") == TOO_LARGE


def test_a_length_may_have_as_many_zeros_in_front_as_a_head_has_room_for() -> None:
    script = Script(limits=limits(message_size=128))
    assert script.post("alice", b"", content_length=f"{0:010000}").status == 202
    assert script.post("alice", b"", content_length=f"{128:010000}").status == 202
    assert script.post("alice", b"", content_length=f"{129:010000}") == TOO_LARGE


def test_a_text_that_is_too_long_as_json_is_refused() -> None:
    script = Script(limits=limits(message_size=128))
    assert script.post("alice", b"x" * 126).status == 202
    assert script.post("alice", b"x" * 127) == TOO_LARGE
    assert script.post("alice", b"\n" * 64) == TOO_LARGE


def test_a_token_that_publishes_too_fast_is_told_when_it_may_again() -> None:
    script = Script(limits=limits(messages_per_second=2))
    assert [script.post("alice").status for _ in range(3)] == [202, 202, 429]
    assert dict(script.post("alice").headers)["retry-after"] == "1"
    script.world.passes(0.5)
    assert [script.post("alice").status for _ in range(2)] == [202, 429]
    script.world.tokens["L"] = identity("another", "*")
    assert script.post("alice", token="L").status == 202


def test_bytes_count_as_well_and_a_debt_must_be_paid() -> None:
    script = Script(limits=limits(bytes_per_second=1024))
    assert script.post("alice", b"x" * 3072).status == 202
    answer = script.post("alice")
    assert (answer.status, dict(answer.headers)["retry-after"]) == (429, "2")
    script.world.passes(2.1)
    assert script.post("alice").status == 202


def test_a_message_to_a_group_costs_as_many_as_it_has_members() -> None:
    script = Script(limits=limits(messages_per_second=4))
    for name in ("a", "b", "c", "d"):
        script.world.v1(name).say(type="join", id=1, group="ops")
    assert [script.post("group:ops").status for _ in range(2)] == [201, 429]
    assert dict(script.post("group:ops").headers)["retry-after"] == "1"
    script.world.passes(0.25)
    assert script.post("group:ops").status == 201
    assert dict(script.post("group:ops").headers)["retry-after"] == "1"


def test_a_group_larger_than_the_rate_cannot_be_published_to() -> None:
    script = Script(limits=limits(messages_per_second=3))
    members = [script.world.v1(name) for name in ("a", "b", "c", "d")]
    for member in members:
        member.say(type="join", id=1, group="ops")
        member.heard()
    answer = script.post("group:ops", idempotency_key="a-1")
    assert (answer.status, "retry-after" in dict(answer.headers)) == (429, False)
    assert answer.body == b"The group has 4 members; limits.messages_per_second allows 3\n"
    assert [member.heard() for member in members] == [[]] * 4
    members[0].session.end()
    assert script.post("group:ops", idempotency_key="a-1").status == 201


def test_what_was_admitted_before_its_body_came_is_judged_by_what_was_sent_meanwhile() -> None:
    script = Script(limits=limits(messages_per_second=4))
    members = [script.world.v1(name) for name in ("a", "b", "c")]
    for member in members:
        member.say(type="join", id=1, group="ops")
        member.heard()
    request = Request("POST", "/publish/group:ops", {"authorization": ["Bearer K"]})
    permits = [script.publisher.admit(request) for _ in range(10)]
    answers: list[Answer] = []
    for permit in permits:
        assert isinstance(permit, Permit)
        script.publisher.publish(permit, b"hello", answers.append)
    assert [answer.status for answer in answers] == [201, 201] + [429] * 8
    assert [len(member.heard()) for member in members] == [2] * 3


def test_a_publication_to_a_large_group_waits_until_there_is_room_for_it_and_is_sent_once() -> None:
    script = Script()
    members = [script.world.v1(str(number)) for number in range(200)]
    for member in members:
        member.say(type="join", id=1, group="ops")
        member.heard()
    request = Request("POST", "/publish/group:ops", {"authorization": ["Bearer K"], "idempotency-key": ["a-1"]})
    answers: list[Answer] = []
    for key in "abca":
        permit = script.publisher.admit(request._replace(fields={**request.fields, "idempotency-key": [key]}))
        assert isinstance(permit, Permit)
        script.publisher.publish(permit, b"hello", answers.append)
    assert [answer.status for answer in answers] == [201, 201, 201]  # the third is the first again
    script.world.turns()
    assert [answer.status for answer in answers] == [201, 201, 201, 201]
    assert [len(member.heard()) for member in members] == [3] * 200


def test_the_same_key_is_sent_once_and_answered_the_same() -> None:
    script = Script()
    alice = script.world.v1("alice")
    first = script.post("alice", idempotency_key="a-1")
    alice.session.end()
    assert script.post("alice", idempotency_key="a-1") == first
    assert len(alice.heard()) == 1
    assert script.post("alice", idempotency_key="a-2").status == 202


@pytest.mark.parametrize(
    "other", [{"target": "bob"}, {"body": b"bye"}, {"content_type": JSON, "body": b"1"}], ids=["to", "body", "type"]
)
def test_the_same_key_for_another_message_is_refused(other: dict[str, Any]) -> None:
    script = Script()
    script.post("alice", b"1", idempotency_key="a")
    assert script.post(**{"target": "alice", "body": b"1", "idempotency_key": "a", **other}).status == 422


def test_a_key_is_its_tokens_own() -> None:
    script = Script()
    script.world.tokens["L"] = identity("another", "*")
    script.post("alice", idempotency_key="a")
    assert script.post("bob", token="L", idempotency_key="a").status == 202


def test_a_key_is_forgotten_after_five_minutes() -> None:
    script = Script()
    script.post("alice", idempotency_key="a")
    script.world.passes(299)
    assert script.post("bob", idempotency_key="a").status == 422
    script.world.passes(1)
    assert script.post("bob", idempotency_key="a").status == 202


def test_a_refusal_is_not_remembered() -> None:
    script = Script()
    assert script.post("alice", b"\xff", idempotency_key="a").status == 400
    assert script.post("alice", b"hello", idempotency_key="a").status == 202


class Elsewhere(Alone):
    """The other workers, who take their time to say whether they know an address."""

    def __init__(self) -> None:
        super().__init__(Tally())
        self.sought: list[tuple[Message, TellReach]] = []

    def seek_to_deliver(self, message: Message, receipt: Receipt | None, then: TellReach) -> None:
        self.sought.append((message, then))


def test_an_address_that_nobody_here_has_is_sought_elsewhere() -> None:
    script = Script()
    others = script.world.center.hub.bus = Elsewhere()
    fields = {"authorization": ["Bearer K"], "idempotency-key": ["a"]}
    permit = script.publisher.admit(Request("POST", "/publish/alice", fields))
    assert isinstance(permit, Permit)
    answers: list[Answer] = []
    script.publisher.publish(permit, b"hello", answers.append)
    [(message, then)] = others.sought
    assert (message.recipient, bytes(message.body)) == ("alice", b'"hello"')
    assert answers == []
    assert script.post("alice", idempotency_key="a").status == 409
    then(Reach(online=1))
    assert answers[0].status == 201
    assert script.post("alice", idempotency_key="a") == answers[0]
    assert len(others.sought) == 1
    assert script.world.dropped("nobody") == 0


def test_what_a_lost_recipient_may_not_have_got_is_told_and_sent_again() -> None:
    script = Script()
    alice = script.world.v0()
    alice.register("alice")
    alice.client.reads_slowly = True
    answers: list[Answer] = []
    for _ in range(2):
        permit = script.publisher.admit(
            Request("POST", "/publish/alice", {"authorization": ["Bearer K"], "idempotency-key": ["a"]})
        )
        assert isinstance(permit, Permit)
        script.publisher.publish(permit, b"hello", answers.append)
        alice.client.leaving.pop()(len(answers) == 1)
    assert [answer.status for answer in answers] == [503, 201]
    assert script.world.dropped("gone") == 1
    assert len(alice.heard()) == 2


@pytest.mark.parametrize("key", ["", "x" * 129, "a b", "é", "a\n"])
def test_a_key_is_visible_ascii_of_some_length(key: str) -> None:
    script = Script()
    assert script.post("alice", idempotency_key=key).status == 400
    assert script.post("alice", idempotency_key="~" * 128).status == 202


def test_two_keys_are_none() -> None:
    fields = {"authorization": ["Bearer K"], "idempotency-key": ["a", "a"]}
    answer = Script().publisher.admit(Request("POST", "/publish/alice", fields))
    assert isinstance(answer, Answer)
    assert answer.status == 400


def test_no_token_pushes_out_the_keys_of_another() -> None:
    script = Script(limits=limits(messages_per_second=1_000_000))
    script.world.tokens["L"] = identity("another", "*")
    first = script.post("alice", token="L", idempotency_key="0")
    for number in range(2 * MAX_REMEMBERED):
        script.post("alice", idempotency_key=str(number))
    assert script.post("bob", token="L", idempotency_key="0").status == 422
    assert script.post("alice", token="L", idempotency_key="0") == first
    # The one that has used most has lost its oldest, and only those.
    assert script.post("bob", idempotency_key=str(MAX_REMEMBERED)).status == 202
    assert script.post("bob", idempotency_key=str(2 * MAX_REMEMBERED - 1)).status == 422
    assert script.post("alice", token="L", idempotency_key="1").status == 202
    script.world.passes(300)
    assert script.post("bob", token="L", idempotency_key="1").status == 202
    assert len(script.publisher._remembered) == 1


def test_what_scripts_make_the_service_remember_is_bounded() -> None:
    script = Script(limits=limits(messages_per_second=1_000_000))
    for number in range(MAX_REMEMBERED + 1):
        script.post("alice", idempotency_key=str(number))
    assert script.post("bob", idempotency_key=str(MAX_REMEMBERED)).status == 422
    assert script.post("bob", idempotency_key="0").status == 202
    assert len(script.publisher._remembered) == MAX_REMEMBERED
    for number in range(MAX_BUCKETS + 1):
        script.world.tokens["L"] = identity(str(number), "*")
        script.post("alice", token="L")
    assert len(script.publisher._buckets) == MAX_BUCKETS


def test_every_answer_is_counted_by_a_status_that_metrics_know() -> None:
    script = Script(limits=limits(messages_per_second=1))
    for answer in (script.post("alice"), script.post("alice"), script.post("", method="GET"), TOO_SLOW, TOO_LARGE):
        script.publisher.count(answer)
    published = script.world.center.hub.tally.published
    assert published == {202: 2, 429: 2, 405: 2, 408: 1, 413: 1}
    assert set(published) <= set(PUBLISHED)


def test_a_message_that_was_refused_says_so_to_a_machine_and_to_a_person() -> None:
    assert json.loads(Script().post("alice").body) == {"online": 0}
    assert Script("bob").post("alice").body == b"The token does not allow to send there\n"
