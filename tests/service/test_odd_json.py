"""What the fast decoder refuses, and real encoders write."""

import contextlib
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.envelope import read_odd_envelope
from service.core.odd_json import OddError, find_id, read_json

PIECES = [
    *(r"\ud83d", r"\uDE00", r"\\", r"\"", r"\n", r"\u0041", r"\ue000", r"\uE123"),
    *("\ue000", "\ue999", "\u00fc", "70007", "77", "NaN", "x"),
]
strings = st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: '"' + "".join(pieces) + '"')


@settings(deadline=None)
@given(strings, st.sampled_from(["%s", "[%s, 7]", '{"a": %s}', "{%s: 1}", "[%s, 1e400]"]))
def test_every_string_of_an_encoder_is_read_to_the_letter(string: str, around: str) -> None:
    text = (around % string).encode()
    assert bytes(read_json(text)) == text


@pytest.mark.parametrize("address", [r"\u005cue000", r"\u005cu\u0065000", r"\u0037002\u0037", r"\u00377002"])
@pytest.mark.parametrize("message", [r'"\ud83d"', "NaN"])
def test_an_address_is_what_its_escapes_say_whatever_stands_in_for_the_message(address: str, message: str) -> None:
    text = f'{{"recipient_uuid": "{address}", "message": {message}}}'
    envelope = read_odd_envelope(text.encode())
    assert (envelope.recipient_uuid, bytes(envelope.message)) == (json.loads(text)["recipient_uuid"], message.encode())


@settings(deadline=None)
@given(
    strings, st.sampled_from(["%s,", "[%s", "[%s,]", "%s1", "[%s NaN]", "[-NaN, %s]", r"%s\ud83d", "[1e-Infinity, %s]"])
)
def test_what_python_does_not_read_either_is_not_read(string: str, around: str) -> None:
    text = around % string
    with pytest.raises(ValueError, match=r"Expecting|Extra data|Illegal trailing comma"):
        json.loads(text)
    with pytest.raises(OddError):
        read_json(text.encode())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r'{"id": "\ud83d", "a": {"id": 3}}', rb'"\ud83d"'),
        ('{"a": {"id": 3}}', None),
        ('{"type": "id", "id": 7, x', b"7"),
        ('{"id": 1.5}', None),
        ('{"id": "%s"}' % ("a" * 65), None),
        ('{"id": 1, "id": 2,', b"2"),
        ('[{"id": 1}]', None),
        (r'{"a": "\"id\": 3", "id": 4}', b"4"),
        ('{"message": "abc', None),
        ('{"id": "a\x04b", x', None),
        ('{"id": "a\x7fb", x', b'"a\x7fb"'),
        (r'{"id": "\ud83d\q", x', None),
        (r'{"id": "\u12", x', None),
        (r'{"id": "\ud83d %s", x' % ("a" * 63), None),
        ("{'id': 7, \"id\": 07, x", None),
    ],
)
def test_an_id_is_found_where_json_has_it_and_nowhere_else(text: str, found: bytes | None) -> None:
    raw = find_id(text.encode())
    assert (None if raw is None else bytes(raw)) == found


@pytest.mark.parametrize(
    "text",
    [
        rb'"\"' * 20_000,
        b'"' + rb"\\a" * 20_000 + rb'\ud83d"',
        b'"' + rb"\ud83d" * 10_000 + b'"',
        b"[" + b"NaN," * 16_000,
        b"[" * 65_000,
        b"7" * 65_000 + b"NaN",
        b"{" + b'"id":1,' * 9_000,
        b'"' * 65_000,
        "".join(chr(0xE000 + number) for number in range(20_000)).encode() + rb"\ud83d",
        rb'["\ud83d", "' + rb"\u0037" * 2_700_000 + b'", NaN]',
        b'{"id":' + b"7" * 16_000_000 + b", NaN",
    ],
    ids=lambda text: ascii(text[:12]),
)
def test_a_hostile_text_takes_no_time_to_speak_of(text: bytes) -> None:
    begin = time.process_time()
    find_id(text)
    with contextlib.suppress(OddError):
        read_json(text)
    assert time.process_time() - begin < 0.2
