"""`wsbundle token`, and the keys of `wsbundle run`."""

import json
import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from service.settings import from_environ
from service.tokens import Keys, read_keys
from tests.generator.front_door import wsbundle


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of keys, in a directory with a sound deploy.yaml."""
    monkeypatch.chdir(tmp_path)
    Path("deploy.yaml").write_text("domain: ws.mycompany.org\n")
    path = str(tmp_path / "keys.json")
    outcome = wsbundle("token", "--keys", path, "--new-key")
    assert (outcome.code, outcome.err) == (0, "")
    return path


def test_it_prints_the_token_and_nothing_else(keys: str) -> None:
    outcome = wsbundle("token", "--keys", keys, "alice", "--send-to", "bob", "--send-to", "group:office")
    assert (outcome.code, outcome.err) == (0, "")
    identity = Keys(keys)(outcome.out.removesuffix("\n"))
    assert identity.subject == "alice"
    assert set(identity.may_send_to) == {"bob", "group:office"}


def test_it_tells_programs_the_token(keys: str) -> None:
    told = json.loads(wsbundle("token", "--keys", keys, "alice", "--format", "json").out)
    assert Keys(keys)(told["token"]).subject == "alice"


@pytest.mark.parametrize(
    ("expires", "seconds"), [("90s", 90), ("45m", 2700), ("12h", 43_200), ("30d", 2_592_000), (None, 2_592_000)]
)
def test_a_token_is_good_for_as_long_as_is_said(keys: str, expires: str | None, seconds: int) -> None:
    words = () if expires is None else ("--expires", expires)
    identity = Keys(keys)(wsbundle("token", "--keys", keys, "alice", *words).out.strip())
    assert identity.expires == pytest.approx(time.time() + seconds, abs=10)


@pytest.mark.parametrize("expires", [" ", "0d", "30", "d", "-1d", "1.5h", "3y", "1234567s", "30 d"])
def test_a_time_that_is_none_is_told(keys: str, expires: str) -> None:
    outcome = wsbundle("token", "--keys", keys, "alice", f"--expires={expires}")
    told = f"--expires {expires!r} is not a length of time; write one such as 90s, 45m, 12h or 30d\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", told)


@pytest.mark.parametrize("words", [(), ("alice", "--new-key"), ("--new-key", "--drop-key", "x"), ("alice", "bob")])
def test_it_does_one_thing_at_a_time(words: tuple[str, ...]) -> None:
    outcome = wsbundle("token", *words)
    assert (outcome.code, outcome.out, len(outcome.err.splitlines())) == (2, "", 1)


def test_keys_are_rotated(keys: str) -> None:
    old = str(read_keys(keys)[0].kid)
    assert f"still good: {old}" in wsbundle("token", "--keys", keys, "--new-key", "--algorithm", "EdDSA").out
    assert [key.algorithm for key in read_keys(keys)] == ["EdDSA", "HS256"]
    outcome = wsbundle("token", "--keys", keys, "--drop-key", old)
    assert (outcome.code, outcome.err) == (0, "")
    assert [key.algorithm for key in read_keys(keys)] == ["EdDSA"]


def test_it_needs_no_deploy_yaml_where_the_keys_are_named(keys: str) -> None:
    Path("deploy.yaml").unlink()
    assert wsbundle("token", "--keys", keys, "alice").code == 0


@pytest.mark.parametrize("words", [("alice",), ("--drop-key", "x")])
def test_by_default_the_keys_are_those_of_the_deployment(keys: str, words: tuple[str, ...]) -> None:
    outcome = wsbundle("token", *words, "--set", "name=not-installed-here")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("/etc/not-installed-here/keys.json is missing; `wsbundle install` makes")
    outcome = wsbundle("token", *words, "--set", "keys=/nowhere/keys.json")
    assert outcome.err.startswith("/nowhere/keys.json is missing")


def test_what_lies_in_the_current_directory_is_not_run(keys: str) -> None:
    Path("service").mkdir()
    Path("service/__init__.py").write_text("raise SystemExit('run as whoever asked')")
    assert wsbundle("token", "--keys", keys, "alice").code == 0


def test_a_secret_is_no_argument_of_any_program(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    run = subprocess.run

    def watch(command: Any, **options: Any) -> Any:
        seen.append((command, options))
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", watch)
    wsbundle("token", "--keys", keys, "--new-key")
    token = wsbundle("token", "--keys", keys, "alice").out.strip()
    secrets = [key["k"] for key in json.loads(Path(keys).read_text())["keys"]]
    assert len(seen) == len(secrets) == 2
    assert not any(secret in str(seen) for secret in (token, *secrets))


def test_run_in_a_directory_with_blanks_has_keys_and_mailboxes_of_its_own_there(
    keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *what: became.append(what))
    there = tmp_path / "what I try"
    there.mkdir()
    shutil.copy("deploy.yaml", there)
    monkeypatch.chdir(there)
    said = wsbundle("run", "--set", "auth=token", "--set", "mailbox.keep=disk").out
    assert f" --keys '{there}/build/queue-websocket.keys.json' " in said
    assert "Its mailboxes are kept in build/queue-websocket.mailbox.\n" in said
    [(_, _, environment)] = became
    settings = from_environ(environment)
    assert Path(settings.keys or "").resolve() == there / "build/queue-websocket.keys.json"
    assert Path(settings.mailbox.directory or "").resolve() == there / "build/queue-websocket.mailbox"


def test_run_with_tokens_makes_keys_of_its_own_beside_the_bundle(
    keys: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[Any] = []

    def become(*what: Any) -> None:
        became.append(what)
        sys.exit(0)

    monkeypatch.setattr(os, "execve", become)
    said = [wsbundle("run", "--set", "auth=token").out for _ in range(2)]
    path = tmp_path / "build/queue-websocket.keys.json"
    assert said[0] == said[1]
    assert f"A token for it: .venv/bin/wsbundle token --keys {path} --send-to '*' UUID" in said[0]
    assert [Path(environment["WEBSOCKET_KEYS"]).resolve() for _, _, environment in became] == [path] * 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_keys(str(path))) == 1
    assert wsbundle("render").code == 0
