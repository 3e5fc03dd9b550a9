"""All readers together, as every render asks them."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from generator import readers
from generator.readers import Fault, Verdict, read_all, supervisor
from generator.rendering.bundle import Bundle
from tests.generator.readings import NAME, broken, changed, nothing_installed, rendered
from tests.programs import needs

TITLES = {
    "nginx configuration",
    "systemd units",
    "systemd confinement",
    "supervisor program",
    "gunicorn settings",
    "environment file",
    "scripts",
    "system user",
    "directories",
    "log rotation",
    "alerts and scraping",
}


def test_every_reader_is_asked_and_none_refuses_what_we_render() -> None:
    said = read_all(rendered())
    assert {verdict.title for verdict in said} == TITLES
    assert [str(verdict) for verdict in said if verdict.state == "refused"] == []


def test_what_is_not_rendered_is_not_read() -> None:
    assert read_all(Bundle("nothing", ())) == ()


@needs("nginx")
@needs("systemd-analyze")
def test_faults_of_several_readers_are_told_at_once() -> None:
    bundle = broken(rendered(), f"etc/nginx/sites-available/{NAME}", "proxy_pass", "proxy_pas")
    bundle = broken(bundle, f"etc/systemd/system/{NAME}.service", "Restart=", "Restrt=")
    said = {verdict.title for verdict in read_all(bundle) if verdict.state == "refused"}
    assert {"nginx configuration", "systemd units"} <= said


def test_with_nothing_installed_nothing_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(supervisor, "DISTRIBUTION", tmp_path)
    for package in ("supervisor", "gunicorn"):
        monkeypatch.setitem(sys.modules, package, None)
    with nothing_installed(monkeypatch, tmp_path):
        said = read_all(rendered())
    assert {verdict.title for verdict in said} == TITLES
    assert {(verdict.state, verdict.why.endswith(" is not installed")) for verdict in said} == {("not checked", True)}


def test_the_environment_is_compared_where_it_is_known() -> None:
    said = {verdict.title: verdict for verdict in read_all(rendered(env={"EXTRA": "1"}), {"OTHER": "1"})}
    messages = [fault.message for fault in said["environment file"].faults]
    assert "OTHER is missing" in messages
    assert "EXTRA is not asked for" in messages


@pytest.mark.parametrize("given", [True, False], ids=["where_tmpdir_says", "in_memory"])
def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: bool) -> None:
    made: list[Path] = []

    class Noticed(tempfile.TemporaryDirectory[str]):
        def __enter__(self) -> str:
            made.append(Path(self.name))
            return super().__enter__()

    monkeypatch.setattr(readers, "TemporaryDirectory", Noticed)
    monkeypatch.setattr(tempfile, "tempdir", None)
    if given:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
    else:
        monkeypatch.delenv("TMPDIR", raising=False)
    read_all(changed(rendered(), f"etc/nginx/sites-available/{NAME}", lambda text: text + "}"))
    (directory,) = made
    assert (directory.parent == tmp_path) == given
    assert not directory.exists()


def test_a_directory_with_odd_characters_in_its_name_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = tmp_path / "a+b.(c)"
    odd.mkdir()
    monkeypatch.setenv("TMPDIR", str(odd))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert [str(verdict) for verdict in read_all(rendered()) if verdict.state == "refused"] == []


def test_verdicts_and_faults_read_well() -> None:
    refused = Verdict(
        tool="nginx", title="nginx configuration", state="refused", faults=(Fault("a", 1, "x"), Fault("b", None, "y"))
    )
    assert str(refused) == "nginx configuration: refused\n  a:1: x\n  b: y"
    unknown = Verdict(tool="nginx", title="nginx configuration", state="not checked", why="nginx is not installed")
    assert str(unknown) == "nginx configuration: not checked: nginx is not installed"


@pytest.mark.parametrize("module", ["asyncio", "dataclasses", "subprocess", "ssl", "gunicorn", "supervisor"])
def test_asking_the_readers_imports_nothing_heavy(module: str) -> None:
    # On Python 3.10 msgspec itself imports some of them.
    code = (
        "import sys, msgspec; before = set(sys.modules); import generator.readers; "
        f"sys.exit({module!r} in set(sys.modules) - before)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
