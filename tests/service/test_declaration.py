"""From text to a checked value."""

from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from service.declaration import (
    REQUIRED,
    Fault,
    Setting,
    SettingError,
    did_you_mean,
    plain,
    read,
    scalar,
    settings_of,
    shorten,
    struct_from,
    values_of,
)


class Inner(msgspec.Struct, frozen=True, kw_only=True):
    """A section inside the section."""

    number: Annotated[int, Meta(ge=1, le=9, description="A number.", extra={"unit": "bytes"})] = 5


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One setting of each kind."""

    needed: Annotated[int, Meta(ge=0, le=1_000_000, description="Needed.")]
    truth: Annotated[bool, Meta(description="A truth.")] = False
    text: Annotated[str, Meta(max_length=8, description="A text.")] = "x"
    maybe: Annotated[str | None, Meta(description="A text, or nothing.")] = None
    choice: Annotated[Literal["left", "right"], Meta(description="A choice.")] = "left"
    only: Annotated[Literal["this"], Meta(description="No choice.")] = "this"
    items: Annotated[tuple[Annotated[int, Meta(ge=1, le=2)], ...], Meta(description="Some.")] = ()
    pairs: Annotated[dict[str, int], Meta(description="More.", extra={"expects": "names and numbers"})] = {}
    inner: Inner = Inner()


BY_KEY = {setting.key: setting for setting in settings_of(Sample)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("NULL", None),
        ("nULL", "nULL"),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("tRUE", "tRUE"),
        ("false", False),
        ("False", False),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("0", 0),
        ("-0", 0),
        ("60", 60),
        ("+60", 60),
        ("-60", -60),
        ("0755", "0755"),
        ("0o755", "0o755"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("60s", "60s"),
        ("9" * 18, 10**18 - 1),
        ("9" * 19, "9" * 19),
        ("٣", "٣"),
        ("1.5", 1.5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-1.5e3", -1500.0),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1e", "1e"),
        (".", "."),
        ("2026-11-23", "2026-11-23"),
        (" 1", " 1"),
        ("1\n", "1\n"),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says_less_what_people_get_wrong(text: str, value: object) -> None:
    found = scalar(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("needed", "7", 7),
        ("truth", "true", True),
        ("text", "0755", "0755"),
        ("text", "no", "no"),
        ("text", "1.50", "1.50"),
        ("maybe", "null", None),
        ("maybe", "", None),
        ("maybe", "8765", "8765"),
        ("choice", "right", "right"),
    ],
)
def test_text_is_read_as_its_setting_takes_it(key: str, text: str, value: object) -> None:
    found = read(text, BY_KEY[key])
    assert (found, type(found)) == (value, type(value))


def test_what_is_quoted_is_text_to_the_letter() -> None:
    assert read("null", BY_KEY["maybe"], quoted=True) == "null"
    assert read("", BY_KEY["text"], quoted=True) == ""


@pytest.mark.parametrize(
    ("key", "text", "quoted", "fault"),
    [
        ("needed", "7", True, "'7' is in quotes, so it is text; write 7 without quotes"),
        ("needed", "seven", True, "'seven' is not a whole number; use a whole number from 0 to 1000000"),
        ("needed", "-1.5", False, "'-1.5' is not a whole number; use a whole number from 0 to 1000000"),
        ("needed", "-1", False, "-1 is too small; use a whole number from 0 to 1000000"),
        ("needed", "1000001", False, "1000001 is too large; use a whole number from 0 to 1000000"),
        ("needed", "010", False, "'010' is not a decimal number; write 10, or 8 if it is octal"),
        ("needed", "00", False, "'00' is not a decimal number; write 0, or 0 if it is octal"),
        ("needed", "60:30", False, "'60:30' is not a number; write 3630 if it is base 60"),
        ("needed", "5 apples", False, "'5 apples' has a unit; write a plain number, such as 5"),
        ("inner.number", "5kB", False, "'5kB' has a unit; write a plain number of bytes, such as 9"),
        ("inner.number", "0", False, "0 is too small; use a whole number from 1 to 9 (bytes)"),
        ("truth", "yes", False, "'yes' is not true or false; write true"),
        ("truth", "OFF", False, "'OFF' is not true or false; write false"),
        ("truth", "1", False, "'1' is not true or false; write true or false, without quotes"),
        ("truth", "true", True, "'true' is not true or false; write true or false, without quotes"),
        ("truth", "", False, "has no value; use true or false"),
        ("text", "123456789", False, "is 9 characters long; use at most 8"),
        ("text", "null", False, "has no value; use text of at most 8 characters"),
        ("text", "a\tb", False, r"holds the control character '\t' at position 2; use text on one line"),
        ("text", "a\x85", False, r"holds the control character '\x85' at position 2; use text on one line"),
        ("text", "\u2028", False, r"holds the control character '\u2028' at position 1; use text on one line"),
        ("text", "\ufeffx", True, r"holds the control character '\ufeff' at position 1; use text on one line"),
        ("choice", "rihgt", False, "'rihgt' is unknown; use one of left, right; did you mean right?"),
        ("choice", "up", False, "'up' is unknown; use one of left, right"),
        ("only", "that", False, "'that' is unknown; use this"),
        ("items", "1", False, "'1' does not fit; use a list"),
        ("pairs", "1", False, "'1' does not fit; use names and numbers"),
        ("needed", "x" * 61, False, f"'{'x' * 59}…' is not a whole number; use a whole number from 0 to 1000000"),
    ],
)
def test_a_fault_says_what_is_wrong_and_how_to_mend_it(key: str, text: str, quoted: bool, fault: str) -> None:
    with pytest.raises(SettingError) as refused:
        read(text, BY_KEY[key], quoted)
    assert str(refused.value) == str(refused.value.fault) == fault


@given(st.sampled_from(list(BY_KEY.values())), st.text(st.characters(exclude_categories=())), st.booleans())
@settings(deadline=None, database=None)
def test_whatever_stands_there_is_a_value_or_a_fault_on_one_line(setting: Setting, text: str, quoted: bool) -> None:
    found, fault = attempt(text, setting, quoted)
    if fault is None:
        assert msgspec.convert(found, setting.annotation) == found
    else:
        assert len(fault.splitlines()) == 1
        assert len(fault) < 500
        fault.encode()  # it can be printed


def attempt(text: str, setting: Setting, quoted: bool) -> tuple[object, str | None]:
    """The value, or the fault in words."""
    try:
        return read(text, setting, quoted), None
    except SettingError as error:
        return None, str(error)


def test_settings_are_listed_by_dotted_key_in_the_order_of_declaration() -> None:
    assert list(BY_KEY) == ["needed", "truth", "text", "maybe", "choice", "only", "items", "pairs", "inner.number"]


def test_a_setting_knows_its_default_and_its_description() -> None:
    assert BY_KEY["needed"].default is REQUIRED
    assert BY_KEY["items"].default == ()
    assert BY_KEY["inner.number"].default == 5
    assert BY_KEY["inner.number"].description == "A number."
    assert BY_KEY["inner.number"].extra["unit"] == "bytes"


def test_an_item_of_a_list_is_a_setting_of_its_own() -> None:
    item = BY_KEY["items"].part(0, ".0")
    assert item.key == "items.0"
    with pytest.raises(SettingError, match="3 is too large; use a whole number from 1 to 2"):
        read("3", item)


def test_a_value_of_a_mapping_is_a_setting_of_its_own() -> None:
    assert read("7", BY_KEY["pairs"].part(1, ".a")) == 7


def test_values_by_dotted_key_and_back() -> None:
    sample = Sample(needed=1, inner=Inner(number=7))
    flat = values_of(sample)
    assert flat["inner.number"] == 7
    assert list(flat) == list(BY_KEY)
    assert struct_from(Sample, flat) == sample
    assert struct_from(Sample, {"needed": 1}) == Sample(needed=1)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (True, "true"), (False, "false"), (60.0, "60"), (7.5, "7.5"), (60, "60"), ("é", "é")],
)
def test_a_value_is_written_as_a_person_would_write_it(value: Any, text: str) -> None:
    assert plain(value) == text


def test_a_long_value_is_shown_short() -> None:
    assert shorten("x" * 60) == repr("x" * 60)
    assert shorten("x" * 61) == repr("x" * 59 + "…")


def test_a_near_word_is_offered_and_a_far_one_is_not() -> None:
    assert did_you_mean("domian", ["domain", "port"]) == "; did you mean domain?"
    assert did_you_mean("xyz", ["domain", "port"]) == ""


def test_a_fault_is_what_and_mend() -> None:
    assert str(Fault("is wrong", "make it right")) == "is wrong; make it right"
