"""The wheel as its user has it: built, installed into an empty environment, and used in an empty directory."""

import io
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest

from generator import __version__
from generator.command_line import COMMANDS
from generator.program import sources
from tests.generator.front_door import ROOT, Outcome, process
from tests.made_once import made_once

pytestmark = pytest.mark.slow

Typed = Callable[..., Outcome]
# What the user types is found in the environment, what the command needs of the system where it always is.
SYSTEM = "/usr/sbin:/usr/bin:/sbin:/bin"


def built(source: Path, target: Path) -> Path:
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-build-isolation",
        "--no-deps",
        "-w",
        target,
        source,
    ]
    subprocess.run(pip, check=True, capture_output=True)
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (wheel,) = made_once("wheel", tmp_path_factory, lambda directory: built(ROOT, directory)).glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, and what pip installs with it."""

    def make(directory: Path) -> None:
        venv.create(directory, with_pip=True)
        subprocess.run([directory / "bin/pip", "install", "--quiet", wheel], check=True, capture_output=True)

    return made_once("environment-of-the-wheel", tmp_path_factory, make)


@pytest.fixture
def typed(environment: Path, tmp_path: Path) -> Typed:
    """What comes of typing `wsbundle` in an empty directory."""
    variables = {**os.environ, "PATH": f"{environment}/bin:{SYSTEM}"}

    def run(*words: str) -> Outcome:
        return process(["wsbundle", *words], cwd=tmp_path, env=variables)

    return run


@pytest.fixture
def begun(typed: Typed) -> Typed:
    """The same, after `wsbundle init`."""
    outcome = typed("init", "ws.mycompany.org")
    assert (outcome.code, outcome.err) == (0, "")
    assert "`wsbundle check`" in outcome.out
    return typed


def test_for_sudo_it_is_named_with_its_path(environment: Path, typed: Typed, tmp_path: Path) -> None:
    assert f"`sudo {environment}/bin/wsbundle install`" in typed("init", "ws.mycompany.org").out
    assert f"Example: sudo {environment}/bin/wsbundle install" in " ".join(typed("install", "--help").out.split())
    module: list[str | Path] = [environment / "bin/python", "-m", "wsbundle", "init", "ws.mycompany.org"]
    said = process([*module, "-f", "other.yaml"], cwd=tmp_path, env={"PATH": SYSTEM}).out
    assert f"`sudo {environment}/bin/python -m wsbundle install -f other.yaml`" in said


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def carried(wheel: Path) -> dict[str, bytes]:
    """The files of the repository that it has, by their paths there."""
    prefix = "wsbundle/tree/"
    return {name.removeprefix(prefix): text for name, text in contents(wheel).items() if name.startswith(prefix)}


# What is in it.


def test_its_only_top_level_package_is_wsbundle(wheel: Path) -> None:
    about = f"wsbundle-{__version__}"
    tops = {name.partition("/")[0] for name in contents(wheel)}
    assert tops == {"wsbundle", f"{about}.data", f"{about}.dist-info"}


def test_it_carries_what_an_archive_carries_to_the_byte(wheel: Path) -> None:
    assert carried(wheel) == {path: (ROOT / path).read_bytes() for path in sources(str(ROOT))}


def test_the_same_wheel_comes_of_a_source_distribution(wheel: Path, tmp_path: Path) -> None:
    build = f"from setuptools import build_meta; build_meta.build_sdist({str(tmp_path)!r})"
    assert process([sys.executable, "-c", build], cwd=ROOT).code == 0
    (source,) = tmp_path.glob("*.tar.gz")
    assert carried(built(source, tmp_path)) == carried(wheel)


def test_building_it_leaves_nothing_in_the_checkout(wheel: Path) -> None:
    assert not list(ROOT.glob("*.egg-info"))
    assert not (ROOT / "build/lib").exists()


# What other programs of the environment see of it.


def test_nobody_else_can_import_its_folders(environment: Path) -> None:
    for name in ("generator", "service", "templates", "tree"):
        outcome = process([environment / "bin/python", "-c", f"import {name}"], cwd=environment, env={"PATH": SYSTEM})
        assert f"No module named '{name}'" in outcome.err


def test_what_makes_its_manual_page_is_not_installed_with_it(environment: Path) -> None:
    listed = process([environment / "bin/pip", "list"], env=dict(os.environ)).out
    assert "msgspec" in listed
    assert "shtab" not in listed
    assert "argparse" not in listed


def test_its_manual_page_has_every_command(environment: Path) -> None:
    page = environment / "share/man/man1/wsbundle.1"
    shown = process(["man", "--warnings", page], env={"PATH": SYSTEM, "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
    assert (shown.code, shown.err) == (0, "")
    assert "wsbundle - deploy a WebSocket notification center from one deploy.yaml" in shown.out
    assert [command for command in COMMANDS if f"   wsbundle {command}\n" not in shown.out] == []
    assert "Example: sudo wsbundle uninstall --purge" in " ".join(shown.out.split())


def completed(environment: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    script = f"""source {environment}/share/bash-completion/completions/wsbundle
COMP_WORDS=({" ".join(words)}) COMP_CWORD={len(words) - 1}
$(complete -p wsbundle | sed 's/.* -F \\([^ ]*\\) .*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    outcome = process(["bash", "-c", script])
    assert outcome.err == ""
    return set(outcome.out.split())


def test_bash_completes_commands_options_and_choices(environment: Path) -> None:
    assert completed(environment, "wsbundle", "re") == {"render"}
    assert completed(environment, "wsbundle", "''") >= set(COMMANDS)
    assert "--purge" in completed(environment, "wsbundle", "uninstall", "--p")
    assert completed(environment, "wsbundle", "show", "--format", "j") == {"json"}


def test_zsh_has_a_completion_of_every_command(environment: Path) -> None:
    text = (environment / "share/zsh/site-functions/_wsbundle").read_text()
    assert text.startswith("#compdef wsbundle\n")
    assert [command for command in COMMANDS if f"    {command}:'" not in text] == []


# Every command.


def test_init_refuses_to_overwrite(begun: Typed, tmp_path: Path) -> None:
    text = (tmp_path / "deploy.yaml").read_text()
    outcome = begun("init", "ws.other.org")
    assert outcome.code == 1
    assert outcome.err.startswith("deploy.yaml is there already and was not changed")
    assert (tmp_path / "deploy.yaml").read_text() == text


def test_render_writes_to_the_current_directory_what_a_checkout_would(begun: Typed, tmp_path: Path) -> None:
    assert begun("check").code == 0
    assert begun("render").code == 0
    there: list[str | Path] = [
        sys.executable,
        "-m",
        "generator",
        "render",
        "-f",
        tmp_path / "deploy.yaml",
        "-o",
        tmp_path / "other",
    ]
    assert process(there, cwd=ROOT).code == 0
    assert process(["diff", "-r", tmp_path / "build/queue-websocket", tmp_path / "other"]) == (0, "", "")


def test_what_explains_and_shows_does_so(begun: Typed) -> None:
    assert begun("show").out.startswith("domain: ")
    assert "drain-fits" in begun("explain").out
    assert begun("--version").out.startswith("wsbundle ")
    assert "Example: wsbundle render" in begun("render", "--help").out
    assert begun("explain", "nothing-near").err.endswith("; `wsbundle explain` lists them\n")


def test_tokens_are_minted(begun: Typed, tmp_path: Path) -> None:
    assert begun("token", "--keys", "keys.json", "--new-key").code == 0
    outcome = begun("token", "--keys", "keys.json", "alice")
    assert (outcome.code, outcome.err, outcome.out.count(".")) == (0, "", 2)


def test_what_concerns_a_host_finds_none(begun: Typed) -> None:
    nobody = ("--set", "name=nobody-installed-this")
    assert begun("history", *nobody).out.startswith("No generation is kept")
    assert begun("status", *nobody).err.startswith("nobody-installed-this is not installed")
    assert "+ /etc/systemd/system/nobody-installed-this.service" in begun("plan", *nobody).out
    for command in ("rollback", "uninstall"):
        outcome = begun(command, *nobody)
        assert "nobody-installed-this" in outcome.out + outcome.err or "you are not root" in outcome.err


def test_the_service_runs_with_several_workers(begun: Typed, environment: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (tmp_path / "service").mkdir()
    (tmp_path / "service/__main__.py").write_text("raise SystemExit('the current directory was imported')")
    words: list[str | Path] = [environment / "bin/wsbundle", "run", "--set", f"port={port}", "--set", "workers=2"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert '"healthy"' in answer_of(f"http://127.0.0.1:{port}/health")
        finally:
            running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 0, said
    assert "was imported" not in said


def answer_of(url: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urlopen(url, timeout=60) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


def test_it_makes_an_archive_that_carries_the_same(begun: Typed, wheel: Path, tmp_path: Path) -> None:
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    outcome = begun("bundle", "--python", here, "-o", "archive.tar.gz")
    assert outcome.code == 0, outcome.err
    with tarfile.open(fileobj=io.BytesIO((tmp_path / "archive.tar.gz").read_bytes())) as archive:
        members = {member.name.partition("/")[2]: archive.extractfile(member) for member in archive if member.isfile()}
        packed = {path: file.read() for path, file in members.items() if file}
    assert {path: packed[path] for path in carried(wheel)} == carried(wheel)
    assert any(path.startswith("wheels/uvloop-") for path in packed)


def test_the_id_of_what_it_would_install_is_that_of_the_checkout(environment: Path) -> None:
    ask = "from generator.host.provide import runtime_id; print(runtime_id())"
    tree = f"import sys, wsbundle.__main__ as it; sys.path.insert(0, it.TREE); {ask}"
    of_wheel = process([environment / "bin/python", "-c", tree], cwd=environment, env={"PATH": SYSTEM})
    assert of_wheel == process([sys.executable, "-c", ask], cwd=ROOT)
    assert of_wheel.code == 0
