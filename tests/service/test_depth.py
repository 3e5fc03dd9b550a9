"""How deep JSON may be nested; `is_too_deep` must agree with a reader that counts."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.core.depth import MAX_DEPTH, is_too_deep
from service.core.envelope import open_envelope
from service.core.odd_json import OddError, read_json

BRACKETS_IN_STRINGS = ['"["', '"{{"', '"\\"["', '"\\\\"', '"]"', "1"]


def nested(levels: int, inside: str = "1", before: str = "") -> bytes:
    return (f"[{before}" * levels + inside + "]" * levels).encode()


@pytest.mark.parametrize("inside", ["1", '"\\ud83d"', "[]"])
def test_every_python_reads_as_many_levels_and_no_more(inside: str) -> None:
    levels = MAX_DEPTH - inside.count("[")
    assert bytes(read_json(nested(levels, inside))) == nested(levels, inside)
    with pytest.raises(OddError, match="it is nested too deep"):
        read_json(nested(levels + 1, inside))
    text = b'{"recipient_uuid": "a", "message": %s}'
    assert open_envelope(text % nested(levels - 1, inside)).recipient_uuid == "a"
    with pytest.raises(OddError, match="it is nested too deep"):
        open_envelope(text % nested(levels, inside))


@settings(deadline=None)
@given(st.lists(st.sampled_from(BRACKETS_IN_STRINGS), max_size=3), st.integers(MAX_DEPTH - 2, MAX_DEPTH + 2))
def test_brackets_in_strings_and_beside_each_other_do_not_count(beside: list[str], levels: int) -> None:
    before = "".join(f"{each}, [{each}], " for each in beside)
    text = nested(levels - bool(beside), before=before)
    assert is_too_deep(text) == (levels > MAX_DEPTH)


def test_it_takes_no_longer_for_what_is_made_to_take_long() -> None:
    size = 2**16
    plain = json.dumps([{} for _ in range(size // 4)]).encode()
    made = [
        b'{"' * (size // 2),
        b'\\"' * (size // 4) + b"[" * (size // 2),
        b'["\\' + b'"\\' * (size // 4) + b"{" * size,
    ]
    fastest = []
    for text in (plain, *made):
        began = [(time.process_time(), is_too_deep(text), time.process_time()) for _ in range(5)]
        fastest.append(min(after - before for before, _, after in began))
    assert max(fastest[1:]) < 20 * fastest[0]
