"""What `wsbundle plan` shows: for people and for programs the same, and nothing that is the operator's own."""

# Needed before root is somebody else, who may not enter this Python's own directory.
import encodings.idna  # noqa: F401
import http.client  # noqa: F401
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from generator.config.load import load_text
from generator.host.apply import side
from generator.host.drift import drifts
from generator.host.operate import _planned
from generator.host.preview import Change, Preview, concealed, lines, preview
from generator.host.store import Generation, Pending, Store
from generator.host.switch import plan
from generator.rendering.render import render
from generator.report import CommandError

NAME = "queue-websocket"
SOCKET, ENV = f"/etc/systemd/system/{NAME}.socket", f"/etc/{NAME}/.env"
SECRETS = ("first-secret", "second-secret", "third-secret")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("shutil.chown", lambda *_: None)  # only root may give files away
    return Store(NAME, tmp_path)


def install(store: Store, given: str) -> None:
    deploy = load_text(f"domain: a.org\n{given}\n", "deploy.yaml").deploy
    (store.home / "runtimes/r1").mkdir(parents=True)
    listener = "127.0.0.1:1"
    store.add(render(deploy), Generation(1, "r1", 0.0, deploy.server, deploy.manager, listener, "a.org", "off"))
    store.make_current(1)


def shown(store: Store, given: str = "") -> Preview:
    loaded = load_text(f"domain: a.org\n{given}\n", "deploy.yaml")
    bundle = render(loaded.deploy)
    before, after = side(store, store.current), _planned(loaded, bundle)
    return preview(loaded.deploy, bundle, store, before, after, plan(before, after))


def by_path(preview: Preview) -> dict[str, Change]:
    return {change.what: change for change in preview.files}


def leaves(fact: Any) -> Iterator[Any]:
    if isinstance(fact, dict | list):
        for below in fact.values() if isinstance(fact, dict) else fact:
            yield from leaves(below)
    else:
        yield fact


@pytest.mark.parametrize("full", [True, False], ids=["full", "short"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, ""),
        (None, "manager: supervisor\nserver: gunicorn\nauth: token"),
        ("", "port: 9000\nenv: {ZONE: eu}"),
        ("manager: supervisor\nserver: gunicorn", "nginx: {default_server: true}"),
        ("workers: 4\nenv: {ZONE: eu}", "workers: 4\nenv: {ZONE: us}"),
    ],
    ids=["fresh", "fresh with tokens", "another port", "another manager", "another value"],
)
def test_text_and_json_have_the_same_facts(store: Store, before: str | None, after: str, full: bool) -> None:
    if before is not None:
        install(store, before)
    preview = shown(store, after)
    facts = json.loads(json.dumps({**msgspec.to_builtins(preview), "counts": preview.counts}))
    *text, closing = lines(preview, full)
    said = {str(leaf).rstrip() for leaf in leaves(facts)}
    for line in text:
        if line[:1] not in ("", " "):
            assert facts[line.lower()], f"a heading above nothing: {line}"
        else:
            assert re.sub(r"^ {6}|^  [+~-] |^  ", "", line) in said, line
    for change in preview.changes:
        assert any(line[4:] == change.what for line in text)
    for effect in preview.effects:
        assert f"  {effect}" in text
    assert closing == "Plan: {add} to add, {change} to change, {remove} to remove.".format(**facts["counts"])
    assert all(isinstance(count, int) for count in facts["counts"].values())


def test_a_fresh_host_is_shown_on_one_screen_and_in_full_where_that_is_asked_for(store: Store) -> None:
    preview = shown(store)
    short, full = list(lines(preview, full=False)), list(lines(preview, full=True))
    assert len(short) < 30
    assert len(full) > 200
    assert "  starts the service" in short
    assert not any("restart" in line or "live connections" in line for line in short)
    assert {"Keys", "Files", "Code", "Effects"} <= set(short)


def test_a_switch_that_was_cut_short_is_something_to_do(store: Store) -> None:
    install(store, "")
    store.begin(Pending(before=1, after=2))
    assert shown(store).effects[0] == "undoes the switch to generation 2, which was cut short"
    store.begin(Pending(before=1, after=None))
    assert shown(store).effects[0] == "undoes the uninstallation, which was cut short"
    store.end()
    assert not any("cut short" in effect for effect in shown(store).effects)


def test_what_calls_for_everything_is_something_to_do(store: Store) -> None:
    install(store, "")
    loaded = load_text("domain: a.org\n", "deploy.yaml")
    bundle, before = render(loaded.deploy), side(store, 1)
    assert preview(loaded.deploy, bundle, store, before, before, plan(before, before)).effects == []
    found = preview(
        loaded.deploy, bundle, store, before, before, plan(before, before, everything=True), ["nginx does not run"]
    )
    assert "starts and reloads everything again: nginx does not run" in found.effects
    assert {"restarts the service", "reloads nginx"} <= set(found.effects)


def test_a_damaged_note_of_a_switch_is_not_nothing_to_do(store: Store) -> None:
    install(store, "")
    (store.home / "pending.json").write_text("{")
    with pytest.raises(CommandError, match=r"pending.json is damaged \(.+\); remove it, then `.*install`"):
        shown(store)


def test_what_stays_as_it_is_is_not_shown(store: Store) -> None:
    install(store, "")
    files = by_path(shown(store, "port: 9000"))
    assert {change.action for change in files.values()} == {"change"}
    assert set(files) == {ENV, SOCKET}
    assert "-WEBSOCKET_PORT='8765'" in (files[ENV].diff or [])
    assert "+WEBSOCKET_PORT='9000'" in (files[ENV].diff or [])
    assert shown(store).files == []


def test_what_the_new_method_does_not_use_is_removed(store: Store) -> None:
    install(store, "server: gunicorn")
    preview = shown(store)
    assert by_path(preview)[f"/etc/{NAME}/gunicorn.conf.py"].action == "remove"
    assert preview.counts["remove"] == 1


def test_values_of_env_are_shown_to_nobody_but_that_they_change_is(store: Store) -> None:
    first, second, third = SECRETS
    install(store, f"env: {{KEPT: {first}, CHANGED: {second}, GONE: {second}}}")
    preview = shown(store, f"env: {{KEPT: {first}, CHANGED: {third}, NEW: {third}}}\nwelcome: Good day")
    diff = by_path(preview)[ENV].diff or []
    assert not any(secret in line for secret in SECRETS for line in [*diff, *lines(preview, full=True)])
    assert {line for line in diff if "hidden" in line} == {
        " KEPT=(hidden)",
        "-CHANGED=(hidden)",
        "+CHANGED=(hidden, another value)",
        "-GONE=(hidden)",
        "+NEW=(hidden)",
    }
    assert "+WEBSOCKET_WELCOME='Good day'" in diff


def test_a_name_that_no_setting_has_any_more_is_hidden_as_well() -> None:
    assert concealed("WEBSOCKET_RETIRED='x'\nWORKERS='1'\n", "") == ("WEBSOCKET_RETIRED=(hidden)\nWORKERS='1'\n", "")


def test_a_file_that_only_root_may_read_is_named_without_its_content(store: Store) -> None:
    install(store, "")
    preview = shown(store, "port: 9000")
    unread = msgspec.structs.replace(preview, files=[Change(ENV, "change", None)])
    assert f"  ~ {ENV}" in list(lines(unread, full=True))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.skipif(
    not all(path.stat().st_mode & 0o001 for path in Path(__file__).resolve().parents),
    reason="others may not enter the checkout",
)
def test_without_root_all_is_named_and_what_everybody_may_read_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.chown", lambda *_: None)
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        store = Store(NAME, Path(directory))
        install(store, "env: {KEY: first-secret}")
        groups = os.getgroups()
        os.setgroups([])
        os.setegid(65534)
        os.seteuid(65534)
        try:
            preview = shown(store, "port: 9000")
            edits = drifts(store)
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(groups)
    files = by_path(preview)
    assert set(files) == {ENV, SOCKET}
    assert "-ListenStream=127.0.0.1:8765" in (files[SOCKET].diff or [])
    assert files[ENV].diff is None
    assert all(drift.what.startswith("is missing") for drift in edits)  # links to it are not made here


def test_other_modes_and_owners_are_changes_too(store: Store) -> None:
    install(store, "")
    files = by_path(shown(store, "user: somebody"))
    assert {"-group queue-websocket", "+group somebody"} <= set(files[ENV].diff or [])
