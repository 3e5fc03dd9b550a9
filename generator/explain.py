"""The meaning of settings and rules, for `wsbundle explain` and `wsbundle show`."""

from generator.config.load import Loaded
from generator.config.rules import RULES
from generator.config.schema import ESSENTIAL, Deploy, is_about
from generator.program import COMMAND
from generator.rendering.agreement import AGREEMENTS
from service.declaration import REQUIRED, Setting, did_you_mean, plain, settings_of, values_of


def _place(setting: Setting) -> int:
    top = setting.key.partition(".")[0]
    return ESSENTIAL.index(top) if top in ESSENTIAL else len(ESSENTIAL)


# In the order of every listing: the settings that an operator needs first, then the rest as declared.
SETTINGS = {setting.key: setting for setting in sorted(settings_of(Deploy), key=_place)}
_RULES = {rule.name: rule for rule in RULES}
_AGREEMENTS = {agreement.name: agreement for agreement in AGREEMENTS}


def topics() -> list[tuple[str, str]]:
    """Every setting, rule and agreement with one line of text."""
    settings = [(key, setting.description) for key, setting in SETTINGS.items()]
    rules = [(rule.name, rule.reason) for rule in RULES]
    return settings + rules + [(agreement.name, agreement.reason) for agreement in AGREEMENTS]


def about(topic: str) -> list[tuple[str, str]] | None:
    """The explanation of a setting, a section, a rule or an agreement, as names and texts; None for anything else."""
    if topic in SETTINGS:
        return _about_setting(SETTINGS[topic])
    if topic in _RULES:
        rule = _RULES[topic]
        kind = "warning" if rule.warns else "error"
        return [("reason", rule.reason), ("settings", ", ".join(rule.keys)), ("when not", kind)]
    if topic in _AGREEMENTS:
        return [("reason", _AGREEMENTS[topic].reason), ("when not", "error, and a fault of the templates")]
    section = [(key, setting.description) for key, setting in SETTINGS.items() if key.startswith(f"{topic}.")]
    return section or None


def nearest(topic: str) -> str:
    return did_you_mean(topic, [name for name, _ in topics()]) or f"; `{COMMAND} explain` lists them"


def settings_in_force(loaded: Loaded) -> list[tuple[str, object, str]]:
    """Key, value and origin of every setting of what is deployed, entries of `env` each for itself."""
    rows: list[tuple[str, object, str]] = []
    values = values_of(loaded.deploy)
    for key in filter(lambda key: is_about(key, loaded.deploy), SETTINGS):
        value = values[key]
        entries = {f"{key}.{name}": text for name, text in value.items()} if isinstance(value, dict) else {key: value}
        rows += [(name, given, str(loaded.origins.get(name, "default"))) for name, given in entries.items()]
    return rows


def shown(value: object) -> str:
    """A value as deploy.yaml would say it."""
    if isinstance(value, tuple):
        # In brackets YAML takes the colon of a plain ::1 for its own.
        items = [f"'{item}'" if ":" in item else item for item in value]
        return f"[{', '.join(items)}]"
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return "null" if value is None else plain(value)


def _about_setting(setting: Setting) -> list[tuple[str, str]]:
    default = "none: it must be given" if setting.default is REQUIRED else shown(setting.default)
    lines = [("meaning", setting.description), ("takes", setting.expects), ("default", default)]
    if variable := setting.extra.get("env"):
        lines.append(("variable", variable))
    rules = [rule.name for rule in RULES if setting.key in rule.keys]
    return [*lines, ("rules", ", ".join(rules))] if rules else lines
