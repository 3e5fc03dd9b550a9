"""What clients and a server do together: with our servers all of it holds, with one that only says so none of it."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.in_process import program
from tests.ports import free_port
from tests.service.shells import COMMANDS, Shell, clean_environment, running
from tests.service.test_tokens import secret_key
from wsbundle_client import conformance
from wsbundle_client.conformance import BEHAVIOURS, Party, play
from wsbundle_client.driver import PythonDriver


@pytest.fixture(scope="module", params=["runner", "standalone"])
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    with running(COMMANDS[request.param]) as shell:
        yield shell


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_together_they_behave_so_that(name: str, shell: Shell) -> None:
    assert asyncio.run(play(BEHAVIOURS[name], Party(shell.url, PythonDriver))) == ""


async def say_yes(connection: ServerConnection) -> None:
    """A server that says it has done what it was asked, and does none of it."""
    await connection.send(json.dumps({"type": "welcome", "server_time": 0.0}))
    async for text in connection:
        frame = json.loads(text)
        ok = {"type": "ok", "id": frame.get("id"), "uuid": "somebody else", "resume": "", "ping_ms": 3_600_000}
        online = ["somebody else"] if frame["type"] == "presence" else 1
        await connection.send(json.dumps({**ok, "limits": {"message_size": 10_000}, "online": online}))


@contextlib.asynccontextmanager
async def lying() -> AsyncIterator[str]:
    async with serve(say_yes, "127.0.0.1", 0, subprotocols=[Subprotocol("nc.v1")]) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"


def test_with_a_server_that_only_says_so_none_of_them_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "PATIENCE_S", 0.2)

    async def faults() -> list[str]:
        async with lying() as url:
            return await asyncio.gather(*(play(act, Party(url, PythonDriver)) for act in BEHAVIOURS.values()))

    assert [name for name, fault in zip(BEHAVIOURS, asyncio.run(faults()), strict=True) if not fault] == []


def test_what_does_not_hold_is_shown_with_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conformance, "PATIENCE_S", 0.2)

    async def run() -> int:
        async with lying() as url:
            return await conformance.run(url, lambda address: None)

    assert asyncio.run(run()) == 1
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("FAIL  a client is taken in under the address that it names: ")
    assert "somebody else" in first
    assert last == f"0 of {len(BEHAVIOURS)} behaviours hold"


def played(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return program("wsbundle_client.conformance", *arguments, environ=clean_environment())


def test_where_nobody_listens_it_says_so_once() -> None:
    said = played(url := f"ws://127.0.0.1:{free_port()}/")
    assert (said.returncode, said.stdout, len(said.stderr.splitlines())) == (1, "", 1)
    assert said.stderr.startswith(f"{url}: nothing listens on 127.0.0.1")


@pytest.mark.parametrize("arguments", [[], ["http://127.0.0.1/"], ["ws://127.0.0.1/", "--no-such-option"]])
def test_wrong_usage_is_told_with_status_2(arguments: list[str]) -> None:
    said = played(*arguments)
    assert (said.returncode, said.stdout) == (2, "")
    assert said.stderr.startswith("usage: python -m wsbundle_client.conformance ")


@pytest.mark.slow
def test_a_command_gives_a_token_for_each_address(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [secret_key()]}))
    mint = f"{sys.executable} -m service.mint token {keys} {{}} 600 *"
    with running(COMMANDS["runner"], WEBSOCKET_AUTH="token", WEBSOCKET_KEYS=str(keys)) as shell:
        said = played(shell.url, "--token-command", mint)
        without = played(shell.url)
    assert said.stdout.endswith(f"{len(BEHAVIOURS)} of {len(BEHAVIOURS)} behaviours hold\n"), said.stdout + said.stderr
    assert (without.returncode, "4001 unauthorized" in without.stderr) == (1, True)
