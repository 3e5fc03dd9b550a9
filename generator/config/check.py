"""A mapping against the declaration: every value converted, every fault collected, every origin kept."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from math import prod
from typing import Any

import msgspec
from msgspec import inspect as declared

from generator.config.document import ListNode, Located, MappingNode, Node, Origin, Scalar, is_nothing
from generator.config.schema import Deploy
from service.declaration import (
    REQUIRED,
    Fault,
    Setting,
    SettingError,
    did_you_mean,
    read,
    scalar,
    settings_of,
    struct_from,
)
from service.settings import without_unwanted_port

# Stands in for a value that is missing or wrong, so that the rules about all others can still be asked.
_STAND_IN = "localhost"
_UNSOUND = object()
_NUMBERS = (declared.IntType, declared.FloatType)
# In how many ways several wrong settings can have been meant, before nobody asks what would follow.
_MOST_WAYS = 64


class Checked(msgspec.Struct, frozen=True):
    """The settings of a mapping: `deploy` has defaults for those in `faults`.

    `sound` are the keys without a fault in themselves, their section or their file. `values` has what was given for
    them, `meant` what stands for all that may have been meant by a wrong one.
    """

    deploy: Deploy
    origins: dict[str, Origin]
    sound: set[str]
    faults: list[Located]
    top: Origin
    values: dict[str, Any]
    meant: dict[str, Sequence[Any]]

    def ways(self, keys: Iterable[str]) -> Iterator[Deploy]:
        """The deployment in every way that counts for a rule about these keys: as it is, if they are sound.

        Else one for each that the wrong ones may have been meant; none where nobody can say.
        """
        wrong = [key for key in keys if key not in self.sound]
        if not wrong:
            yield self.deploy
            return
        meant = [self.meant.get(key, ()) for key in wrong]
        if prod(map(len, meant)) <= _MOST_WAYS:
            for values in product(*meant):
                yield struct_from(Deploy, without_unwanted_port(self.values | dict(zip(wrong, values, strict=True))))

    def origin_of(self, *keys: str) -> Origin:
        """The place of the first of the keys that was given; the top of the file if none was."""
        return next((self.origins[key] for key in keys if key in self.origins), self.top)


def check(mapping: MappingNode, schema: type[Deploy], found: Iterable[Located] = ()) -> Checked:
    """Check a mapping against a schema; `found` are the faults of reading it, which leave gaps that are not faults."""
    checker = _Checker({setting.key: setting for setting in settings_of(schema)})
    checker.faults += found
    checker.section(mapping, "")
    missing = {key for key, setting in checker.settings.items() if setting.default is REQUIRED} - checker.values.keys()
    for key in missing:
        checker.values[key] = _STAND_IN
        misspelt = any(each.fault.fix == f"did you mean {key}?" for each in checker.faults)
        if not found and not misspelt and key not in checker.origins:
            use = checker.settings[key].expects
            checker.fault(mapping.origin, key, Fault("is missing", f"write `{key}:` with {use}"))
    faulty = {fault.key for fault in checker.faults}
    sound = {key for key in checker.settings if faulty.isdisjoint(("", key.rpartition(".")[0], key))} - missing
    values = without_unwanted_port(checker.values)
    deploy = struct_from(schema, values)
    return Checked(deploy, checker.origins, sound, checker.faults, mapping.origin, checker.values, checker.meant)


class _Checker:
    def __init__(self, settings: dict[str, Setting]) -> None:
        self.settings = settings
        self.sections = {key.rpartition(".")[0] for key in settings} - {""}
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.meant: dict[str, Sequence[Any]] = {}
        self.faults: list[Located] = []

    def fault(self, origin: Origin, key: str, fault: Fault) -> object:
        self.faults.append(Located(origin, key, fault))
        return _UNSOUND

    def section(self, mapping: MappingNode, prefix: str) -> None:
        for name, node in mapping.values.items():
            key = prefix + name
            if "." in name:
                self.unknown(mapping.keys[name], prefix, name)
            elif key in self.settings:
                self.origins[key] = node.origin
                self.setting(node, self.settings[key])
            elif key not in self.sections:
                self.unknown(mapping.keys[name], prefix, name)
            elif isinstance(node, MappingNode):
                self.section(node, f"{key}.")
            elif not is_nothing(node):  # nothing is fine: its settings may follow as comments
                first = next(known for known in self.settings if known.startswith(f"{key}."))
                fix = f"write settings below it, such as `{first.rpartition('.')[2]}:`"
                self.fault(node.origin, key, Fault("holds settings, not a value", fix))

    def setting(self, node: Node, setting: Setting) -> None:
        kind = setting.alternatives[0]
        one_will_do = setting.takes_many and not isinstance(kind, declared.VarTupleType)
        if one_will_do and isinstance(node, Scalar):
            value = self.value(node, setting.part(0, ""))
        elif setting.takes_many and not (one_will_do and isinstance(node, MappingNode)):
            value = self.items(node, setting)
        elif isinstance(kind, declared.DictType):
            value = self.entries(node, setting)
        else:
            value = self.value(node, setting)
        if value is not _UNSOUND:
            self.values[setting.key] = value

    def value(self, node: Node, setting: Setting) -> Any:
        if not isinstance(node, Scalar):
            noun = "a list" if isinstance(node, ListNode) else "a mapping"
            return self.fault(node.origin, setting.key, Fault(f"is {noun}", f"use {setting.expects}"))
        try:
            return read(node.text, setting, node.quoted)
        except SettingError as error:
            self.meant[setting.key] = _may_be_meant(node.text, setting)
            return self.fault(node.origin, setting.key, error.fault)

    def items(self, node: Node, setting: Setting) -> Any:
        """The sound items: rules ask about each for itself, so one that is wrong does not silence them."""
        if not isinstance(node, ListNode):
            return self.fault(node.origin, setting.key, Fault("is not a list", f"use {setting.expects}, in brackets"))
        if not node.items and setting.default is REQUIRED:
            return self.fault(node.origin, setting.key, Fault("is empty", f"use {setting.expects}"))
        values = (self.value(item, setting.part(0, f"[{i}]")) for i, item in enumerate(node.items))
        sound = tuple(value for value in values if value is not _UNSOUND)
        return sound if sound or not node.items else _UNSOUND  # an empty list would be a fault of its own

    def entries(self, node: Node, setting: Setting) -> Any:
        """The sound entries, as with `items`."""
        if is_nothing(node):
            return {}
        if not isinstance(node, MappingNode):
            return self.fault(node.origin, setting.key, Fault("is not a mapping", f"use {setting.expects}"))
        values = {}
        for name, item in node.values.items():
            self.origins[f"{setting.key}.{name}"] = item.origin
            known = self.value(Scalar(name, True, node.keys[name]), setting.part(0, f".{name}"))
            value = self.value(item, setting.part(1, f".{name}"))
            if _UNSOUND not in (known, value):
                values[name] = value
        return values

    def unknown(self, origin: Origin, prefix: str, name: str) -> None:
        known = [*self.settings, *self.sections]
        siblings = {key.removeprefix(prefix).partition(".")[0] for key in known if key.startswith(prefix)}
        elsewhere = [key for key in self.settings if not (prefix and key.startswith(prefix))]
        near = did_you_mean(name, siblings) or did_you_mean(prefix + name, elsewhere)
        fix = near[2:] or "remove it; docs/settings.md lists all"
        if name in known:
            section, _, setting = name.rpartition(".")
            fix = f"write `{setting}:` below `{section}:`"
        self.fault(origin, prefix + name, Fault("is not a setting", fix))


def _may_be_meant(text: str, setting: Setting) -> Sequence[Any]:
    """What stands for every value that a setting can take, in place of a wrong one; nothing if text can be meant.

    For numbers it is the ends of their range, and the default, of which some rules make a difference.
    """
    is_number = type(scalar(text)) in (int, float)
    numbers = [kind for kind in setting.alternatives if is_number and isinstance(kind, _NUMBERS)]
    meant: list[Any] = []
    for kind in numbers or setting.alternatives:
        if isinstance(kind, _NUMBERS) and kind.ge is not None and kind.le is not None:
            meant += [kind.ge, kind.le]
        elif isinstance(kind, declared.LiteralType):
            meant += kind.values
        elif isinstance(kind, declared.BoolType):
            meant += [False, True]
        elif isinstance(kind, declared.NoneType):
            meant.append(None)
        else:
            return ()
    return meant if setting.default in (REQUIRED, *meant) else [*meant, setting.default]
