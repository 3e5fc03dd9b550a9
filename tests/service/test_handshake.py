"""Which requests are handshakes, and what is wrong with others."""

import time

import pytest

from service.fast.handshake import MAX_FIELDS, HandshakeError, Upgrade, read_handshake

# The example of RFC 6455, section 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

SOUND = {
    "Host": "server.example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head(line: str = "GET /chat HTTP/1.1", more: str = "", **changed: str | None) -> bytes:
    """A sound handshake, but for what is changed: a field's name with underscores, None for none."""
    fields = {**SOUND, **{name.replace("_", "-"): value for name, value in changed.items()}}
    lines = [line, *(f"{name}: {value}" for name, value in fields.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n" + more + "\r\n").encode("latin-1")


PROTOCOLS = ("", ",", "a b", '"nc.v1"', "a@b, nc.v1", "\xff")


def upgrade(request: bytes) -> Upgrade:
    found = read_handshake(request)
    assert found is not None
    return found


def refusal(request: bytes) -> tuple[int, str]:
    with pytest.raises(HandshakeError) as refused:
        read_handshake(request)
    assert refused.value.answer.body.decode() == str(refused.value)
    return refused.value.answer.status, str(refused.value)


def test_a_sound_handshake_is_accepted_with_the_digest_of_its_key() -> None:
    assert upgrade(head()).accept(None) == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + ACCEPT.encode() + b"\r\n\r\n"
    )


def test_a_subprotocol_that_was_selected_is_told() -> None:
    assert b"\r\nSec-WebSocket-Protocol: nc.v1\r\n" in upgrade(head()).accept("nc.v1")


def test_names_and_tokens_are_the_same_in_every_case_of_letters() -> None:
    assert upgrade(head(Upgrade=None, Connection=None, more="UPGRADE: WebSocket\r\nconnection: UPGRADE\r\n"))


def test_firefox_says_keep_alive_as_well() -> None:
    assert upgrade(head(Connection="keep-alive, Upgrade"))


def test_spaces_around_a_value_are_none_of_it() -> None:
    assert upgrade(head(Sec_WebSocket_Version=" \t13 \t"))


def test_an_offer_of_several_protocols_may_have_a_websocket_among_them() -> None:
    assert upgrade(head(Upgrade="h2c, websocket", Connection="Upgrade, HTTP2-Settings"))


def test_the_values_of_a_field_are_told_in_order() -> None:
    found = upgrade(head(more="X: a\r\nX-List: 1, 2\r\nx-list: 3\r\nx: b\r\n"))
    assert found.values("x") == ("a", "b")
    assert found.members("x-list") == ("1", "2", "3")
    assert found.values("cookie") == found.members("cookie") == ()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /websocket HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nX: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Version: 13\r\n\r\n",
        head("POST / HTTP/1.1"),
        head("GET / HTTP/1.0"),
        head("POST / HTTP/1.1", Upgrade="h2c, websocket", more="Content-Length: 5\r\n"),
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ],
    ids=["plain", "a_path", "another_protocol", "no_upgrade", "post", "http_1_0", "post_a_list", "no_http"],
)
def test_what_does_not_ask_for_a_websocket_is_left_to_others(request_: bytes) -> None:
    assert read_handshake(request_) is None


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        (head("GET / HTTP/2.0"), "A WebSocket handshake is HTTP/1.1"),
        (head("GET /"), "This is not HTTP/1.1"),
        (head("GET / a HTTP/1.1"), "This is not HTTP/1.1"),
        (head("GET  / HTTP/1.1"), "This is not HTTP/1.1"),
        (head(more="no colon\r\n"), "This is not HTTP/1.1"),
        (head(more="a space : x\r\n"), "This is not HTTP/1.1"),
        (head(more=": no name\r\n"), "This is not HTTP/1.1"),
        (head(more="X: a\rb\r\n"), "This is not HTTP/1.1"),
        (head(more="X: a\nY: b\r\n"), "This is not HTTP/1.1"),
        (head(more="X: a\0b\r\n"), "This is not HTTP/1.1"),
        (head(more="X: a\r\n b\r\n"), "A header field is folded"),
        (head(more="X: a\r\n\tb\r\n"), "A header field is folded"),
        (head(Host=None), "There must be one Host"),
        (head(more="Host: other\r\n"), "There must be one Host"),
        (head(more="Content-Length: 5\r\n"), "A WebSocket handshake has no body"),
        (head(more="Content-Length: 0\r\nContent-Length: 0\r\n"), "A WebSocket handshake has no body"),
        (head(more="Transfer-Encoding: chunked\r\n"), "A WebSocket handshake has no body"),
        (head(more="Upgrade: h2c\r\n"), "There must be one Upgrade"),
        (head(Connection=None), "Connection must contain upgrade"),
        (head(Connection="keep-alive"), "Connection must contain upgrade"),
        (head(Connection="Upgrade, ;"), "Connection must contain upgrade"),
        *(
            (head(Sec_WebSocket_Protocol=value), "Sec-WebSocket-Protocol must be a list of names")
            for value in PROTOCOLS
        ),
        (head(more="Origin: a\r\nOrigin: b\r\n"), "There must be no more than one Origin"),
        (head(Sec_WebSocket_Key=None), "There must be one Sec-WebSocket-Key, of 16 bytes in base64"),
        (head(Sec_WebSocket_Key="c2hvcnQ="), "There must be one Sec-WebSocket-Key, of 16 bytes in base64"),
        (head(Sec_WebSocket_Key="!" * 22 + "=="), "There must be one Sec-WebSocket-Key, of 16 bytes in base64"),
        (head(more=f"Sec-WebSocket-Key: {KEY}\r\n"), "There must be one Sec-WebSocket-Key, of 16 bytes in base64"),
    ],
)
def test_a_handshake_with_a_fault_is_refused_with_400_and_the_fault(request_: bytes, fault: str) -> None:
    assert refusal(request_) == (400, fault)


def test_an_empty_body_is_none() -> None:
    assert upgrade(head(more="Content-Length: 0\r\n"))


@pytest.mark.parametrize("version", ["8", "13, 8", None])
def test_another_version_is_refused_with_426_and_the_version_that_is_spoken(version: str | None) -> None:
    with pytest.raises(HandshakeError) as refused:
        read_handshake(head(Sec_WebSocket_Version=version))
    assert refused.value.answer.status == 426
    assert ("sec-websocket-version", "13") in refused.value.answer.headers


def test_the_number_of_fields_is_bounded() -> None:
    assert upgrade(head(more="X: y\r\n" * (MAX_FIELDS - len(SOUND))))
    assert refusal(head(more="X: y\r\n" * (MAX_FIELDS - len(SOUND) + 1))) == (431, "There are too many header fields")


@pytest.mark.parametrize("pattern", ["X:" + " " * 16_000 + "\0", "X" * 16_000, ("X: " + "\t" * 60 + "\r\n") * 250])
def test_a_hostile_head_is_read_in_no_time(pattern: str) -> None:
    begin = time.process_time()
    with pytest.raises(HandshakeError):
        read_handshake(head(more=pattern))
    assert time.process_time() - begin < 0.05
