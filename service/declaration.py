"""Declared settings: from text to a checked value, or a fault that says what is wrong and how to fix it.

The generator reads deploy.yaml with it and the service its environment, so both report a fault in the same words.
A section is a msgspec Struct, a setting one of its fields; `settings_of` lists them flat, by dotted key.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import Annotated, Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import inspect as declared

S = TypeVar("S", bound=msgspec.Struct)

REQUIRED = msgspec.NODEFAULT

# Compiled when they are first needed: a sound file needs the first two only, and most commands read one file.
_DECIMAL = "[-+]?(0|[1-9][0-9]{0,17})"
_FLOAT = r"[-+]?(\.[0-9]{1,18}|[0-9]{1,18}\.[0-9]{0,18}|[0-9]{1,18}(?=[eE]))([eE][-+]?[0-9]{1,3})?"
_OCTAL = r"0o?([0-7]+)"
_SEXAGESIMAL = r"([0-9]{1,4}):([0-5]?[0-9])"
_WITH_UNIT = r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+(?:/s)?|/s)"
# No format that we render can carry them all, and none of our settings means them.
_CONTROL = "[\\x00-\\x1f\\x7f-\\x9f\\u2028\\u2029\\ufeff\\ud800-\\udfff]"
_TRUTHS_OF_YAML_1_1 = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


class Fault(msgspec.Struct, frozen=True):
    """What is wrong with a value, and the fix."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}"


class SettingError(ValueError):
    """A value that its setting cannot take; `fault` says why."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(str(fault))


class Setting(msgspec.Struct, frozen=True):
    """One declared setting.

    `default` is `REQUIRED` where the operator must decide. `alternatives` are the msgspec types a value may have.
    """

    key: str
    annotation: Any
    alternatives: tuple[declared.Type, ...]
    default: Any
    description: str
    extra: Mapping[str, Any]

    @property
    def takes_text(self) -> bool:
        return any(isinstance(kind, declared.StrType) for kind in self.alternatives)

    @property
    def takes_nothing(self) -> bool:
        return any(isinstance(kind, declared.NoneType) for kind in self.alternatives)

    @property
    def takes_many(self) -> bool:
        return any(isinstance(kind, declared.VarTupleType) for kind in self.alternatives)

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(str(v) for k in self.alternatives if isinstance(k, declared.LiteralType) for v in k.values)

    @property
    def expects(self) -> str:
        """The values that it takes, in words: `a whole number from 1 to 64, or auto`."""
        unit = f" ({self.extra['unit']})" if "unit" in self.extra else ""
        words = [_in_words(kind, self.extra) for kind in self.alternatives if not isinstance(kind, declared.NoneType)]
        return ", or ".join(dict.fromkeys(words)) + unit

    def part(self, index: int, suffix: str) -> "Setting":
        """The setting of one item of this list (part 0), or of one name (0) or value (1) of this mapping."""
        annotation = get_args(_container(self.annotation))[index]
        kind, extra = _unwrap(declared.type_info(annotation))
        return Setting(self.key + suffix, annotation, _alternatives(kind), REQUIRED, self.description, extra)


def _container(annotation: Any) -> Any:
    """The list or mapping that an annotation has, also beside one value in its place; None where it has none."""
    if get_origin(annotation) in (tuple, dict):
        return annotation
    inner = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return next(filter(None, map(_container, inner)), None)


def _unwrap(kind: declared.Type) -> tuple[declared.Type, Mapping[str, Any]]:
    if isinstance(kind, declared.Metadata):
        schema = kind.extra_json_schema or {}
        return kind.type, {"description": schema.get("description", ""), **(kind.extra or {})}
    return kind, {"description": ""}


def _alternatives(kind: declared.Type) -> tuple[declared.Type, ...]:
    kinds = kind.types if isinstance(kind, declared.UnionType) else (kind,)
    return tuple(_unwrap(each)[0] for each in kinds)


def _in_words(kind: declared.Type, extra: Mapping[str, Any]) -> str:
    if isinstance(kind, declared.IntType | declared.FloatType):
        noun = "a whole number" if isinstance(kind, declared.IntType) else "a number"
        return noun if kind.ge is None else f"{noun} from {plain(kind.ge)} to {plain(kind.le)}"
    if isinstance(kind, declared.LiteralType):
        return str(kind.values[0]) if len(kind.values) == 1 else f"one of {', '.join(map(str, kind.values))}"
    if isinstance(kind, declared.BoolType):
        return "true or false"
    if isinstance(kind, declared.VarTupleType):
        return str(extra.get("expects", "a list"))
    if isinstance(kind, declared.DictType):
        return str(extra.get("expects", "names and values"))
    if "expects" in extra or not isinstance(kind, declared.StrType) or kind.max_length is None:
        return str(extra.get("expects", "text"))
    least = f"{kind.min_length} to" if kind.min_length else "at most"
    return f"text of {least} {kind.max_length} characters"


@functools.cache
def settings_of(section: type[msgspec.Struct]) -> tuple[Setting, ...]:
    """Every setting of a section and of the sections inside it, in the order of declaration."""
    info = declared.type_info(section)
    assert isinstance(info, declared.StructType)
    return tuple(_settings_in(info, ""))


def _settings_in(info: declared.StructType, prefix: str) -> Iterator[Setting]:
    annotations: dict[str, Any] = {}
    for each in reversed(info.cls.__mro__):  # as typing.get_type_hints has it, which takes as long as all else here
        annotations |= getattr(each, "__annotations__", {})
    for field in info.fields:
        kind, extra = _unwrap(field.type)
        if isinstance(kind, declared.StructType):
            yield from _settings_in(kind, f"{prefix}{field.name}.")
            continue
        default = field.default if field.default_factory is REQUIRED else field.default_factory()
        annotation, description = annotations[field.name], str(extra["description"])
        yield Setting(prefix + field.name, annotation, _alternatives(kind), default, description, extra)


def values_of(section: msgspec.Struct, prefix: str = "") -> dict[str, Any]:
    """The values of a section by dotted key, in the order of declaration."""
    flat: dict[str, Any] = {}
    for name in section.__struct_fields__:
        value = getattr(section, name)
        if isinstance(value, msgspec.Struct):
            flat |= values_of(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def struct_from(section: type[S], values: Mapping[str, Any]) -> S:
    """The inverse of `values_of`; a key that `values` leaves out takes its default."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        branch = tree
        for step in path:
            branch = branch.setdefault(step, {})
        branch[name] = value
    return msgspec.convert(tree, section)


def scalar(text: str) -> int | float | bool | str | None:
    """The value of a plain scalar, by YAML 1.2's core schema less octal, hexadecimal, infinity and NaN.

    Source: YAML 1.2.2, section 10.3. Numbers are decimal: `0755` stays text, so that its reader can ask what is meant.
    """
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text.lower() in ("true", "false") and text in (text.lower(), text.upper(), text.title()):
        return text.lower() == "true"
    if re.fullmatch(_DECIMAL, text):
        return int(text)
    if re.fullmatch(_FLOAT, text):
        return float(text)
    return text


def read(text: str, setting: Setting, quoted: bool = False) -> Any:
    """The checked value of a setting, from its text.

    Where text is taken, a plain `0755` or `no` is that text, to the letter: nothing is guessed from its looks.

    Raises:
        SettingError: the setting cannot take it.
    """
    if not text.isprintable() and (control := re.search(_CONTROL, text)):
        what = f"holds the control character {control[0]!a} at position {control.start() + 1}"
        raise SettingError(Fault(what, "use text on one line"))
    value = scalar(text)
    if value is None and not quoted and setting.takes_nothing:
        return None
    if text == "null" and "null" in setting.extra.get("words", ()):
        value = text
    if quoted or (setting.takes_text and value is not None):
        value = text
    try:
        return msgspec.convert(value, setting.annotation)
    except msgspec.ValidationError:
        raise SettingError(_explain(text, value, setting, quoted)) from None


def read_words(text: str, setting: Setting) -> tuple[Any, ...]:
    """The checked value of a setting that takes many, from one line: its items are separated by spaces.

    Raises:
        SettingError: the setting cannot take one of them.
    """
    item = setting.part(0, "")
    return tuple(read(word, item) for word in text.split())


def _explain(text: str, value: Any, setting: Setting, quoted: bool) -> Fault:
    use = f"use {setting.expects}"
    shown = shorten(text)
    if value is None:
        return Fault("has no value", use)
    for kind in setting.alternatives:
        if isinstance(kind, declared.IntType | declared.FloatType):
            return _explain_number(text, value, kind, setting, quoted)
        if isinstance(kind, declared.BoolType):
            meant = None if quoted else _TRUTHS_OF_YAML_1_1.get(text.lower())
            fix = f"write {meant}" if meant else "write true or false, without quotes"
            return Fault(f"{shown} is not true or false", fix)
        if isinstance(kind, declared.StrType) and kind.max_length and len(text) > kind.max_length:
            return Fault(f"is {len(text)} characters long", f"use at most {kind.max_length}")
        if "explain" in setting.extra and (found := _reason(text, setting.extra["explain"])):
            return Fault(f"{shown} {found[0]}", found[1])
    if setting.choices:
        word = "off" if value is False else text
        return Fault(f"{shown} is unknown", use + did_you_mean(word, setting.choices))
    return Fault(f"{shown} does not fit", use)


def _explain_number(
    text: str, value: Any, kind: declared.IntType | declared.FloatType, setting: Setting, quoted: bool
) -> Fault:
    use, shown = f"use {setting.expects}", shorten(text)
    noun = "a whole number" if isinstance(kind, declared.IntType) else "a number"
    if quoted and isinstance(scalar(text), int | float):
        return Fault(f"{shown} is in quotes, so it is text", f"write {text} without quotes")
    is_a_fraction = isinstance(kind, declared.IntType) and isinstance(value, float)
    if isinstance(value, int | float) and not isinstance(value, bool) and not is_a_fraction:
        if kind.ge is not None and value < kind.ge:
            return Fault(f"{text} is too small", use)
        if kind.le is not None and value > kind.le:
            return Fault(f"{text} is too large", use)
    elif octal := re.fullmatch(_OCTAL, text):
        digits = octal[1].lstrip("0") or "0"
        return Fault(f"{shown} is not a decimal number", f"write {digits}, or {int(digits, 8)} if it is octal")
    elif clock := re.fullmatch(_SEXAGESIMAL, text):
        return Fault(f"{shown} is not a number", f"write {int(clock[1]) * 60 + int(clock[2])} if it is base 60")
    elif measured := re.fullmatch(_WITH_UNIT, text):
        plain_number = f"a plain number of {setting.extra['unit']}" if "unit" in setting.extra else "a plain number"
        return Fault(f"{shown} has a unit", f"write {plain_number}{_without_unit(measured, kind, setting)}")
    elif re.fullmatch("[1-9][0-9]+", text):  # beyond what we take for a number
        return Fault(f"{shown} is too large", use)
    elif re.fullmatch("[1-9][0-9]*(_[0-9]+)+", text):
        return Fault(f"{shown} is not {noun}", f"write {text.replace('_', '')}")
    return Fault(f"{shown} is not {noun}", use + did_you_mean(text, setting.choices))


def _without_unit(measured: re.Match[str], kind: declared.IntType | declared.FloatType, setting: Setting) -> str:
    from service.explanations import plain_number  # only a fault pays for it

    value = plain_number(measured[1], measured[2], setting.extra.get("unit", ""), kind.ge, kind.le)
    if value is None:
        return ""
    return f", such as {plain(ceil(value) if isinstance(kind, declared.IntType) else value)}"


def _reason(text: str, name: str) -> tuple[str, str] | None:
    from service.explanations import FAULTS  # only a fault pays for it

    return FAULTS[name](text)


def shorten(text: str) -> str:
    """A value as a fault shows it: quoted, on one line, at most 60 characters."""
    return repr(text if len(text) <= 60 else f"{text[:59]}…")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean port?`, or nothing when no known word is near."""
    from difflib import get_close_matches  # only a fault pays for it

    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def plain(value: Any) -> str:
    """A value as text that `read`, or for many `read_words`, takes back: `60`, not `60.0`; nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return " ".join(map(plain, value)) if isinstance(value, tuple) else str(value)
