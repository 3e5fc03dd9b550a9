"""A mapping against the declaration: every value converted, every fault collected, every origin kept."""

from typing import Any

import msgspec
from msgspec import inspect as declared

from generator.document import Located, Mapping, Node, Origin, Scalar, Sequence, is_nothing
from generator.schema import Deploy
from service.declaration import REQUIRED, Fault, Setting, SettingError, did_you_mean, read, settings_of, struct_from

# Stands in for a value that is missing or wrong, so that the rules about all others can still be asked.
_STAND_IN = "localhost"
_UNSOUND = object()


class Checked(msgspec.Struct, frozen=True):
    """What a mapping declares: `deploy` with defaults where `faults` speak, `sound` the keys that have no fault."""

    deploy: Deploy
    origins: dict[str, Origin]
    sound: set[str]
    faults: list[Located]
    top: Origin

    def origin_of(self, *keys: str) -> Origin:
        """Where the first of the keys that was given at all stands; the top of the file for defaults."""
        return next((self.origins[key] for key in keys if key in self.origins), self.top)


def check(mapping: Mapping, schema: type[Deploy], complete: bool = True) -> Checked:
    """Check a mapping against a schema; `complete` says whether a required key that is not there is a fault."""
    checker = _Checker({setting.key: setting for setting in settings_of(schema)})
    checker.section(mapping, "")
    for key, setting in checker.settings.items():
        if setting.default is REQUIRED and key not in checker.values:
            checker.unsound.add(key)
            checker.values[key] = _STAND_IN
            if complete and key not in checker.origins:
                checker.fault(mapping.origin, key, Fault("is missing", f"write `{key}:` with {setting.expects}"))
    deploy = struct_from(schema, checker.values)
    sound = set(checker.settings) - checker.unsound
    return Checked(deploy, checker.origins, sound, checker.faults, mapping.origin)


class _Checker:
    def __init__(self, settings: dict[str, Setting]) -> None:
        self.settings = settings
        self.sections = {key.rpartition(".")[0] for key in settings}
        self.values: dict[str, Any] = {}
        self.origins: dict[str, Origin] = {}
        self.unsound: set[str] = set()
        self.faults: list[Located] = []

    def fault(self, origin: Origin, key: str, fault: Fault) -> object:
        self.faults.append(Located(origin, key, fault))
        return _UNSOUND

    def section(self, mapping: Mapping, prefix: str) -> None:
        for name, node in mapping.values.items():
            key = prefix + name
            if key in self.settings:
                self.origins[key] = node.origin
                self.setting(node, self.settings[key])
            elif key not in self.sections or not key:
                self.unknown(mapping.keys[name], key)
            elif isinstance(node, Mapping):
                self.section(node, f"{key}.")
            elif not is_nothing(node):  # nothing is fine: its settings may stand below as comments
                first = next(known for known in self.settings if known.startswith(f"{key}."))
                mend = f"write settings below it, such as `{first.rpartition('.')[2]}:`"
                self.fault(node.origin, key, Fault("holds settings, not a value", mend))

    def setting(self, node: Node, setting: Setting) -> None:
        kind = setting.alternatives[0]
        if isinstance(kind, declared.VarTupleType):
            value = self.items(node, setting)
        elif isinstance(kind, declared.DictType):
            value = self.entries(node, setting)
        else:
            value = self.value(node, setting)
        if value is _UNSOUND:
            self.unsound.add(setting.key)
        else:
            self.values[setting.key] = value

    def value(self, node: Node, setting: Setting) -> Any:
        if not isinstance(node, Scalar):
            noun = "a list" if isinstance(node, Sequence) else "a mapping"
            return self.fault(node.origin, setting.key, Fault(f"is {noun}", f"use {setting.expects}"))
        try:
            return read(node.text, setting, node.quoted)
        except SettingError as error:
            return self.fault(node.origin, setting.key, error.fault)

    def items(self, node: Node, setting: Setting) -> Any:
        """The sound items: rules ask about each for itself, so one that is wrong does not silence them."""
        if not isinstance(node, Sequence):
            return self.fault(node.origin, setting.key, Fault("is not a list", f"use {setting.expects}, in brackets"))
        values = (self.value(item, setting.part(0, f"[{i}]")) for i, item in enumerate(node.items))
        return tuple(value for value in values if value is not _UNSOUND)

    def entries(self, node: Node, setting: Setting) -> Any:
        """The sound entries, as with `items`."""
        if is_nothing(node):
            return {}
        if not isinstance(node, Mapping):
            return self.fault(node.origin, setting.key, Fault("is not a mapping", f"use {setting.expects}"))
        values = {}
        for name, item in node.values.items():
            self.origins[f"{setting.key}.{name}"] = item.origin
            known = self.value(Scalar(name, True, node.keys[name]), setting.part(0, f".{name}"))
            value = self.value(item, setting.part(1, f".{name}"))
            if _UNSOUND not in (known, value):
                values[name] = value
        return values

    def unknown(self, origin: Origin, key: str) -> None:
        section, _, name = key.rpartition(".")
        siblings = [known[len(section) + 1 if section else 0 :] for known in self._known() if known.startswith(section)]
        near = did_you_mean(name, siblings) or did_you_mean(key, self._known())
        self.fault(
            origin, key, Fault("is not a setting", f"{near[2:]}" if near else "remove it; docs/settings.md lists all")
        )

    def _known(self) -> list[str]:
        return [*self.settings, *(section for section in self.sections if section)]
