"""What an installation would change, as `wsbundle plan` shows it: one value, from which text and JSON are made."""

import difflib
import os
import re
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from generator.config.engine import password_file
from generator.config.schema import Deploy, keys_file, serves_app
from generator.host import certificates, default_site, facts
from generator.host.by_hand import ByHand
from generator.host.clients import connections, drain_window, farewell
from generator.host.engine import Password, flavour_of
from generator.host.obstacles import packages
from generator.host.store import Store
from generator.host.switch import Manifest, Side, Switch
from generator.paths import Paths
from generator.readers.nginx import DEFAULT_SITE
from generator.rendering.bundle import Bundle
from generator.rendering.render import engine_settings, service_user
from generator.report import paint
from service.declaration import settings_of
from service.settings import Engine

_SIGNS = {"add": "+", "change": "~", "remove": "-"}
_COLOURS = {"+": "green", "~": "yellow", "-": "red"}
_VARIABLES = {setting.extra["env"] for setting in settings_of(Deploy) if "env" in setting.extra}


class Change(msgspec.Struct, frozen=True):
    """One thing that is added, changed or removed. `diff` has the lines of a file; None where it may not be read."""

    what: str
    action: str
    diff: list[str] | None = None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """All that an installation would do, by sections; `connections` end with it, where they can be counted."""

    packages: list[Change]
    user: list[Change]
    keys: list[Change]
    code: list[Change]
    files: list[Change]
    effects: list[str]
    connections: int | None
    drain_seconds: int | None

    @property
    def changes(self) -> list[Change]:
        return [*self.packages, *self.user, *self.keys, *self.code, *self.files]

    @property
    def counts(self) -> dict[str, int]:
        return {action: sum(change.action == action for change in self.changes) for action in _SIGNS}


def preview(
    deploy: Deploy, bundle: Bundle, store: Store, before: Side, after: Side, todo: Switch, wrong: Sequence[str] = ()
) -> Preview:
    """What a switch from `before` to the rendered bundle takes, with all that it stands on.

    `wrong` is what calls for all of it: `generator.host.install.amiss`.

    Raises:
        CommandError: the note of a switch that was cut short is damaged.
    """
    user, keys = service_user(deploy), keys_file(deploy)
    is_new = before.name == ""
    is_ours = keys == f"/{Paths(store.name).keys}" and not serves_app(deploy)
    makes_keys = is_ours and not (store.root / keys.lstrip("/")).exists()
    replaces = todo.replaces_processes and not is_new
    ends = todo.disconnects and not is_new
    return Preview(
        packages=[Change(name, "add") for name in facts.missing_packages(packages(deploy, flavour_of(bundle)))],
        user=[] if facts.primary_group(user) else [Change(user, "add")],
        keys=[*([Change(str(keys), "add")] if makes_keys else []), *_passwords(deploy, bundle, store)],
        code=list(_code(store, before, after)),
        files=list(_files(store, before, after, bundle)),
        effects=[*_effects(deploy, store, before, todo, wrong), *([farewell(store, todo)] if replaces else [])],
        connections=connections(store) if ends else 0 if replaces else None,
        drain_seconds=drain_window(store) if ends else None,
    )


def _passwords(deploy: Deploy, bundle: Bundle, store: Store) -> Iterator[Change]:
    """That of the engine, where one is served here and there is none."""
    file = Password(store).file
    if flavour_of(bundle) and password_file(deploy) == f"/{Paths(store.name).engine_password}" and not file.exists():
        yield Change(f"/{Paths(store.name).engine_password}", "add")


def lines(shown: Preview, full: bool) -> Iterator[str]:
    """The same for people. `full` shows the content of new and removed files as well."""
    sections = {name: getattr(shown, name) for name in ("packages", "user", "keys", "code", "files")}
    for name, changes in sections.items():
        if changes:
            yield paint(name.capitalize(), "bold")
        for change in changes:
            yield from _about(change, full)
    if shown.effects:
        yield paint("Effects", "bold")
        yield from (f"  {effect}" for effect in shown.effects)
    counts = shown.counts
    yield f"Plan: {counts['add']} to add, {counts['change']} to change, {counts['remove']} to remove."


def _about(change: Change, full: bool) -> Iterator[str]:
    sign = _SIGNS[change.action]
    yield f"  {paint(sign, _COLOURS[sign])} {change.what}"
    if change.action == "change" or full:
        for line in change.diff or ():
            yield f"      {paint(line, _COLOURS.get(line[:1], 'dim'))}".rstrip()


def _code(store: Store, before: Side, after: Side) -> Iterator[Change]:
    action = "change" if before.name else "add"
    if before.app != after.app:
        what = f"the application: /opt/{store.name}/apps/{after.app}"
        yield Change(what, action if before.app else "add") if after.app else Change("the application", "remove")
    if before.runtime != after.runtime:
        whose = "what the application needs, and what runs it" if after.app else "the service's code and requirements"
        yield Change(f"{whose}: /opt/{store.name}/runtimes/{after.runtime}", action)


def _effects(deploy: Deploy, store: Store, before: Side, todo: Switch, wrong: Sequence[str]) -> Iterator[str]:
    """In words. What is not installed is started, not restarted."""
    # Only root can see certbot's.
    asks = None if os.geteuid() else certificates.due(deploy, certificates.Place(store.name), time.time())
    starts = todo.restarts_service or todo.restarts_program or todo.updates_supervisor
    again = "restarts" if before.name else "starts"
    due = {
        **_of_a_cut(store),
        f"starts and reloads everything again: {', '.join(wrong)}": bool(wrong),
        **_of_the_engine(deploy, store),
        f"stops {before.manager}'s copy of the service": todo.stops_systemd or todo.stops_supervisor,
        f"{again} the service": starts and not todo.reloads_service,
        "reloads the service, worker by worker: clients that connect need not wait": todo.reloads_service,
        "takes nginx's default site away: /" + DEFAULT_SITE: todo.takes_default_site
        and default_site.stands(store.root),
        "brings nginx's default site back: /" + DEFAULT_SITE: todo.returns_default_site
        and store.default_site.is_symlink(),
        f"starts the engine: {todo.restarts_engine}": bool(todo.restarts_engine) and not before.engine,
        f"restarts the engine, {todo.restarts_engine}: for a moment each host is alone": bool(todo.restarts_engine)
        and bool(before.engine),
        f"stops the engine, {todo.stops_engine}: each host that uses it is alone after that": bool(todo.stops_engine),
        "reloads nginx": todo.reloads_nginx,
        **{
            f"retires {path}, and keeps it in {ByHand(store).place}": True
            for path in ByHand(store).standing(todo.retires)
        },
        f"asks for a certificate: {asks}": asks is not None,
    }
    return (effect for effect, is_due in due.items() if is_due)


def _of_a_cut(store: Store) -> dict[str, bool]:
    pending = store.pending
    if pending is None:
        return {}
    aim = f"the switch to generation {pending.after}" if pending.after else "the uninstallation"
    return {f"undoes {aim}, which was cut short": True}


def _of_the_engine(deploy: Deploy, store: Store) -> dict[str, bool]:
    """What becomes of the hosts that are one with this, and are not changed at the same moment."""
    number = store.current
    old = Engine() if number is None else store.generation(number).joined
    new = engine_settings(deploy)
    moves = None not in (old.url, new.url) and (old.url, old.name) != (new.url, new.name)
    return {
        f"joins this host with those that name {new.url} and {new.name}": old.url is None and new.url is not None,
        "leaves the other hosts: their clients and those of this one do not reach each other any more": new.url is None
        and old.url is not None,
        f"moves to {new.url} as {new.name}: hosts that stay on {old.url} as {old.name} do not reach this one "
        "until they move, too": moves,
        f"waits {new.silence:g} s for a host that is silent; as long as another host waits longer, so does this one": (
            new.url is not None and old.url is not None and new.silence < old.silence
        ),
    }


def _files(store: Store, before: Side, after: Side, bundle: Bundle) -> Iterator[Change]:
    old, new = _installed(before), _installed(after)
    texts = {file.path: file.text for file in bundle.files}
    for path in sorted(old.keys() | new.keys()):
        if path not in old:
            yield Change(f"/{path}", "add", _diff(path, "", texts[path]))
        elif path not in new:
            yield Change(f"/{path}", "remove", _diff(path, _pristine(store, path), ""))
        elif old[path] != new[path]:
            diff = _diff(path, _pristine(store, path), texts[path])
            yield Change(f"/{path}", "change", None if diff is None else [*_of_entries(old[path], new[path]), *diff])


def _installed(side: Side) -> Manifest:
    return {path: entry for path, entry in side.manifest.items() if entry["installed"]}


def _of_entries(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """What differs in a file beside its text."""
    for key in ("mode", "owner", "group", "link"):
        if old.get(key) != new.get(key):
            yield f"-{key} {old.get(key)}"
            yield f"+{key} {new.get(key)}"


def _pristine(store: Store, path: str) -> str | None:
    """A file as it was installed; None where only root may read it."""
    number = store.current
    assert number is not None
    try:
        return store.pristine(number, path).read_text(encoding="utf-8")
    except PermissionError:
        return _unedited(store, number, path)
    except FileNotFoundError:  # a link
        return ""


def _unedited(store: Store, number: int, path: str) -> str | None:
    """The file of the generation itself, which everybody may read, where it is as it was installed."""
    try:
        content = (store.directory(number) / path).read_bytes()
    except OSError:
        return None
    return content.decode() if sha256(content).hexdigest() == store.manifest(number)[path].get("sha256") else None


def _diff(path: str, old: str | None, new: str) -> list[str] | None:
    if old is None:
        return None
    if path.endswith("/.env"):
        old, new = concealed(old, new)
    found = list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[2:]
    return found if old and new else [line for line in found if not line.startswith("@@")]


def concealed(old: str, new: str) -> tuple[str, str]:
    """Two texts of .env without the values that are the operator's own; lines that differ still do.

    Settings of the service are no secrets; whatever has another name may be one.
    """
    pattern = re.compile(r"^(\w+)=(.*)$", re.MULTILINE)
    before = dict(pattern.findall(old))

    def conceal(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name in _VARIABLES:
            return found[0]
        return f"{name}=(hidden{'' if before.get(name, value) == value else ', another value'})"

    return pattern.sub(conceal, old), pattern.sub(conceal, new)
