"""Whatever stands in deploy.yaml: it loads, or every fault is told where it is. Nothing else ever happens."""

import json
import re
import string
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec import inspect as declared

from generator.config.check import Checked, check
from generator.config.document import MappingNode, parse
from generator.config.load import ConfigError, load_text
from generator.config.schema import Deploy
from generator.rendering.agreement import disagreements
from generator.rendering.render import render
from service.declaration import REQUIRED, Setting, settings_of, values_of
from tests.examples import EXAMPLES
from tests.generator.front_door import wsbundle
from tools import derive

SETTINGS = {setting.key: setting for setting in settings_of(Deploy)}
WORDS = [*SETTINGS, *(key.rpartition(".")[2] for key in SETTINGS), *{key.partition(".")[0] for key in SETTINGS}]
SIGNS = [
    *": \n  -[]{},'\"#&*!|>%@`?~\t\r",
    "\r\n",
    "---",
    "...",
    "\n  ",
    ": ",
    "- ",
    "<<",
    "\x00",
    "\x85",
    "\u2028",
    "é",
    "🎉",
]
VALUES = [
    "a.org",
    "0755",
    "1:30",
    "yes",
    "no",
    "60s",
    "null",
    "1e3",
    "-0",
    ".5",
    "::1",
    "/run/a",
    "10.0.0.0/8",
    "{uuid}",
]

unhurried = settings(deadline=None, database=None, max_examples=50 * EXAMPLES)
thorough = settings(unhurried, max_examples=200 * EXAMPLES)
words = st.sampled_from(WORDS)
letters = st.text(st.characters(codec="utf-8"))
almost_yaml = st.lists(words | st.sampled_from(SIGNS) | st.sampled_from(VALUES), max_size=30).map("".join)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-1, 70_000)
    | st.floats(allow_nan=False, allow_infinity=False)
    | letters
    | st.sampled_from([*VALUES, *(choice for setting in SETTINGS.values() for choice in setting.choices)])
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | letters, inner, max_size=5),
    max_leaves=25,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("any") / "deploy.yaml"


def asked(file: Path, content: bytes) -> None:
    """`show` ends as it should, and every fault is one line that stands in the text."""
    file.write_bytes(content)
    outcome = wsbundle("show", "-f", str(file))
    assert outcome.code in (0, 2)
    assert (outcome.code == 0) == bool(outcome.out)
    lines = content.count(b"\n") + 2
    for message in outcome.err.removesuffix("\n").split("\n") if outcome.code else []:
        assert re.match(rf"{re.escape(str(file))}(:\d+:\d+)?: ", message)
        assert message.isprintable()
        assert int((re.match(rf"{re.escape(str(file))}:(\d+)", message) or "01")[1]) <= lines


@unhurried
@given(text=letters)
def test_no_text_ends_in_anything_but_faults(text: str, file: Path) -> None:
    asked(file, text.encode())


@unhurried
@given(text=almost_yaml)
def test_no_text_that_is_almost_yaml_ends_in_anything_but_faults(text: str, file: Path) -> None:
    asked(file, text.encode())


@unhurried
@given(content=st.binary(max_size=200))
@example(content=b"\xef\xbb\xbf\xef\xbb\xbfdomain: a.org\n")
@example(content=b"domain: \xed\xa0\x80\n")
def test_no_bytes_end_in_anything_but_faults(content: bytes, file: Path) -> None:
    asked(file, content)


@unhurried
@given(
    tree=trees,
    write=st.sampled_from([json.dumps, yaml.safe_dump, lambda tree: yaml.safe_dump(tree, allow_unicode=True)]),
)
def test_no_tree_ends_in_anything_but_faults(tree: Any, write: Callable[[Any], str], file: Path) -> None:
    asked(file, write(tree).encode())


@unhurried
@given(
    text=st.dictionaries(words, scalars, max_size=6).map(lambda given: "".join(f"{k}: {v}\n" for k, v in given.items()))
)
def test_no_lines_of_keys_and_values_end_in_anything_but_faults(text: str, file: Path) -> None:
    asked(file, text.encode(errors="replace"))


@unhurried
@given(assignment=st.builds("{}={}".format, words | letters, almost_yaml | letters) | letters.filter(bool))
def test_no_assignment_ends_in_anything_but_faults(assignment: str, file: Path) -> None:
    file.write_text("domain: a.org\n")
    outcome = wsbundle("show", "-f", str(file), f"--set={assignment}")
    assert outcome.code in (0, 2)
    assert all(line.startswith("--set ") for line in outcome.err.splitlines()[:1])


# One setting with any value.


def checked(text: str) -> Checked:
    root, faults = parse(text, "deploy.yaml")
    assert isinstance(root, MappingNode)
    return check(root, Deploy, faults)


def alone(key: str, text: str) -> tuple[str, int, int]:
    """A deploy.yaml that gives one setting, and the line and column where its value stands."""
    section, _, name = key.rpartition(".")
    base = "" if key == "domain" else "domain: a.org\n"
    opening = f"{section}:\n  {name}: " if section else f"{name}: "
    return f"{base}{opening}{text}\n", (base + opening).count("\n") + 1, len(opening.rpartition("\n")[2]) + 1


def flow(value: Any) -> str:
    """A value as YAML on one line: JSON, but for the escapes that YAML writes otherwise."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in text)


@thorough
@given(key=st.sampled_from(sorted(SETTINGS)), value=scalars)
def test_any_scalar_is_taken_or_refused_where_it_stands(key: str, value: Any) -> None:
    text, line, column = alone(key, flow(value))
    found = checked(text)
    told = [(fault.origin.line, fault.origin.column, fault.key) for fault in found.faults]
    assert told in ([], [(line, column, key)])
    if not told and value is not None:
        assert values_of(found.deploy)[key] in (value, str(value), str(value).lower(), flow(value))


@unhurried
@given(
    key=st.sampled_from(sorted(SETTINGS)),
    value=st.lists(trees, max_size=3) | st.dictionaries(letters, trees, max_size=3),
)
def test_any_list_or_mapping_is_taken_or_refused_on_its_line(key: str, value: Any) -> None:
    text, line, column = alone(key, flow(value))
    for fault in checked(text).faults:
        assert fault.origin.line == line
        assert fault.origin.column >= column
        assert fault.key.startswith(key)


# The schema for editors, and the loader.


@cache
def schema() -> Draft202012Validator:
    return Draft202012Validator(json.loads(derive.schema()))


def placed(key: str, value: Any) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    return {"domain": "a.org", **({section: {name: value}} if section else {name: value})}


def loader_accepts(tree: Any) -> bool:
    return not checked(flow(tree)).faults


def is_a_word(setting: Setting) -> bool:
    """Text of a certain form: there the loader takes 1.5 for '1.5', and an editor may well ask for quotes."""
    texts = [kind for kind in setting.alternatives if isinstance(kind, declared.StrType)]
    return any(kind.pattern or setting.takes_many for kind in texts)


def agree(key: str, value: Any) -> bool:
    return schema().is_valid(placed(key, value)) == loader_accepts(placed(key, value))


@pytest.mark.parametrize("key", SETTINGS)
def test_schema_and_loader_agree_on_values_of_every_kind(key: str) -> None:
    kinds: list[Any] = [
        None,
        "",
        " ",
        "a",
        "/a",
        "a.org",
        "::1",
        "auto",
        "off",
        [],
        {},
        ["::1"],
        ["::1", "x"],
        {"A": "5"},
    ]
    kinds += [{"A": None}, {"A": []}, {"5": "a"}, {"A-B": "a"}, "a" * 40, "x" * 40_000]
    kinds += [] if is_a_word(SETTINGS[key]) else [0, 1, 1.5, -1, 60, 1024, 10**7, 10**30, True, False, {"A": 5}]
    assert [value for value in kinds if not agree(key, value)] == []


@thorough
@given(
    key=st.sampled_from(sorted(SETTINGS)), value=scalars | st.lists(letters) | st.dictionaries(words | letters, scalars)
)
def test_schema_and_loader_agree_on_any_value(key: str, value: Any) -> None:
    assume(not (is_a_word(SETTINGS[key]) and isinstance(value, bool | int | float)))
    # What a schema cannot say: 1.0 is no whole number, and control characters are refused in every text.
    assume(not (isinstance(value, float) and value.is_integer()))
    assume("\\" not in flow(value))
    assert agree(key, value)


@pytest.mark.parametrize("key", SETTINGS)
def test_schema_and_loader_agree_on_the_bounds(key: str) -> None:
    for kind in SETTINGS[key].alternatives:
        if isinstance(kind, declared.IntType | declared.FloatType):
            assert kind.ge is not None
            assert kind.le is not None
            for value, sound in ((kind.ge, True), (kind.le, True), (kind.ge - 1, False), (kind.le + 1, False)):
                assert schema().is_valid(placed(key, value)) is sound
                assert loader_accepts(placed(key, value)) is sound
        if isinstance(kind, declared.StrType) and kind.max_length:
            assert not schema().is_valid(placed(key, "/" + "a" * kind.max_length))
            assert not loader_accepts(placed(key, "/" + "a" * kind.max_length))


@unhurried
@given(tree=st.dictionaries(words, trees, max_size=5))
@example(tree={})
@example(tree={"domain": "a.org", "ping": None, "env": None})
@example(tree={"domain": "a.org", "ping.interval": 5})
@example(tree={"domain": "a.org", "ping": {"interval": 5, "colour": "blue"}})
def test_what_the_loader_accepts_the_schema_accepts(tree: Any) -> None:
    if loader_accepts(tree):
        texts = {key: tree[key] for key in tree if key in SETTINGS and is_a_word(SETTINGS[key])}
        assume(all(isinstance(value, str) for value in texts.values()))
        schema().validate(tree)


# A sound deployment, whatever it is.


def sound_values(setting: Setting) -> st.SearchStrategy[Any]:
    if setting.key == "domain":
        (item,) = setting.part(0, "").alternatives
        names = _sound_values(item, "")
        return names | st.lists(names, min_size=1, max_size=3)
    return st.one_of([_sound_values(kind, setting.key) for kind in setting.alternatives])


def _sound_values(kind: declared.Type, key: str) -> st.SearchStrategy[Any]:
    addresses = st.ip_addresses().map(str)
    if isinstance(kind, declared.IntType):
        return st.integers(kind.ge, kind.le)
    if isinstance(kind, declared.FloatType):
        return st.floats(kind.ge, kind.le)
    if isinstance(kind, declared.LiteralType):
        return st.sampled_from(kind.values)
    if isinstance(kind, declared.BoolType):
        return st.booleans()
    if isinstance(kind, declared.NoneType):
        return st.none()
    if isinstance(kind, declared.VarTupleType):
        return st.lists(addresses, max_size=3)
    if isinstance(kind, declared.DictType):
        return st.dictionaries(st.text(string.ascii_letters + "_", min_size=1), letters, max_size=3)
    assert isinstance(kind, declared.StrType)
    if key == "host":
        return addresses
    if key == "socket":
        return st.just("/run/queue-websocket/ws.sock")
    return st.from_regex(kind.pattern, fullmatch=True) if kind.pattern else letters


@st.composite
def deployments(draw: st.DrawFn) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key in draw(st.sets(st.sampled_from(sorted(SETTINGS)), max_size=6)) | {"domain"}:
        tree = {**tree, **_inside(tree, key, draw(sound_values(SETTINGS[key])))}
    return tree


def _inside(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    section, _, name = key.rpartition(".")
    return {section: {**tree.get(section, {}), name: value}} if section else {name: value}


@pytest.mark.slow
@thorough
@given(tree=deployments())
def test_whatever_loads_renders_and_its_files_agree(tree: dict[str, Any]) -> None:
    try:
        loaded = load_text(flow(tree), "deploy.yaml")
    except ConfigError:
        return
    bundle = render(loaded.deploy)
    assert disagreements(bundle) == []
    assert render(loaded.deploy) == bundle


def test_every_setting_has_a_value_that_alone_is_sound() -> None:
    """Or the strategies above would try nothing."""
    for setting in SETTINGS.values():
        assert setting.default is REQUIRED or loader_accepts(placed(setting.key, setting.default))
