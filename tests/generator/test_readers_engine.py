"""Valkey or Redis judges the engine that is served, by a run of its own configuration that listens nowhere."""

import re
from pathlib import Path
from typing import Any

import pytest

from generator.paths import Paths
from generator.readers import engine
from generator.readers.engine import with_password
from generator.readers.processes import find_program
from tests.generator.front_door import ROOT
from tests.generator.readings import NAME, broken, fault, line_of, nothing_installed, rendered, verdict
from tests.programs import missing

HERE = find_program("valkey-server") or find_program("redis-server")
CONF, USERS = Paths(NAME).engine, Paths(NAME).engine_users
SERVED: dict[str, Any] = {"serve": True, "url": "valkey://127.0.0.1:6390", "user": NAME}
SERVED_OVER_TLS = {**SERVED, "url": "valkeys://[fd00::5]:6390", "cert": "/etc/a", "key": "/etc/b"}
SERVED_BY_A_SOCKET = {**SERVED, "url": f"unix:///run/{NAME}-engine/engine.sock"}
needs_one = pytest.mark.skipif(HERE is None, reason=missing("redis-server"))


@needs_one
@pytest.mark.parametrize("served", [SERVED, SERVED_OVER_TLS, SERVED_BY_A_SOCKET])
def test_the_configuration_is_accepted(served: dict[str, Any]) -> None:
    assert verdict(engine.configuration, rendered(engine=served)).state == "accepted"


@needs_one
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("appendfsync everysec", "appendfsync often", "must be one of the following: everysec, always, no"),
        ("maxmemory-policy noeviction", "maxmemory-polici noeviction", "Bad directive or wrong number of arguments"),
        ("databases 1", "databases", "wrong number of arguments"),
    ],
)
def test_a_fault_is_told_at_its_line(old: str, new: str, message: str) -> None:
    bundle = broken(rendered(engine=SERVED), CONF, old, new)
    found = fault(engine.configuration, bundle)
    assert (found.path, found.line) == (CONF, line_of(bundle, CONF, new))
    assert message in found.message


@pytest.mark.skipif(find_program("valkey-server") is None, reason="Redis 7.0 reads the users only when it listens")
def test_a_command_that_there_is_not_is_told_in_the_list_of_users() -> None:
    found = fault(engine.configuration, broken(rendered(engine=SERVED), USERS, "+publish", "+publis"))
    assert (found.path, found.line) == (USERS, 2)
    assert "Unknown command" in found.message


def test_the_user_may_do_what_the_docs_ask_of_another_engine_and_nothing_more() -> None:
    (users,) = (file.text for file in rendered(engine=SERVED).files if file.path == USERS)
    asked = re.search(r"(?m)^`(resetchannels .*)`", (ROOT / "docs/several-hosts.md").read_text(encoding="utf-8"))
    assert asked is not None
    assert set(users.splitlines()[1].split()) - {"user", NAME, "on", "-@all", "-@dangerous"} == set(asked[1].split())


def test_a_password_is_known_by_its_hash_alone() -> None:
    users = with_password("user default off resetpass\nuser a on +ping\n", "secret")
    assert users.splitlines()[0] == "user default off resetpass"
    assert users.splitlines()[1].startswith(
        "user a on #2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b "
    )


def test_without_an_engine_of_ones_own_nothing_is_said(tmp_path: Path) -> None:
    assert list(engine.configuration(rendered(), tmp_path)) == []


def test_without_a_server_nothing_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with nothing_installed(monkeypatch, tmp_path):
        said = verdict(engine.configuration, rendered(engine=SERVED))
    assert (said.state, said.why) == ("not checked", "valkey-server or redis-server is not installed")
