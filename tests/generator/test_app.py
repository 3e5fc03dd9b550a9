"""An application in the notification center's place: what is packed, planned, probed and refused."""

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from generator.config.load import Loaded, load
from generator.config.sources import with_project
from generator.host import provide
from generator.host import rehearsal as rehearsals
from generator.host.preview import _code
from generator.host.probe import Endpoint, silence
from generator.host.programs import Outcome
from generator.host.provide import app_id, runtime_id
from generator.host.rehearsal import Rehearsal
from generator.host.store import READY, Store
from generator.host.switch import Side, plan
from generator.packing.pack import deploy_text, pack
from generator.packing.wheelhouse import locked
from generator.rendering.render import render
from generator.report import CommandError, Report
from tests.generator.front_door import ROOT, wsbundle
from tests.programs import needs

DEPLOY = """domain: shop.mycompany.org
name: shop
workers: 2
app:
  callable: main:app
  path: src
  static: {/static/: static}
  before: [python manage.py migrate, "echo 100% 'it is done' $HOME"]
needs:
  network: [10.0.0.5]
  write: [/srv/our uploads]
env: {TOKEN: secret}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project, and the test in its directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src/static").mkdir(parents=True)
    (tmp_path / "deploy.yaml").write_text(DEPLOY)
    (tmp_path / "src/main.py").write_text("async def app(scope, receive, send): ...\n")
    (tmp_path / "src/static/a.css").write_text("a {}\n")
    (tmp_path / "src/manage.py").write_text("#!/usr/bin/env python\n")
    (tmp_path / "src/manage.py").chmod(0o755)
    (tmp_path / "src/latest").symlink_to("static")
    (tmp_path / "src/requirements.txt").write_text("")
    return tmp_path


def loaded(directory: Path, *assignments: str) -> Loaded:
    return with_project(load(str(directory / "deploy.yaml"), None, assignments))[0]


# What the notification center alone can do


@pytest.mark.parametrize(
    "command",
    [
        ("top", "--once"),
        ("token", "alice"),
        ("clients",),
        ("kick", "alice"),
        ("mailbox",),
        ("mailbox", "--export", "a"),
    ],
    ids=" ".join,
)
def test_what_only_the_notification_center_can_do_is_refused_in_a_line(here: Path, command: tuple[str, ...]) -> None:
    assert wsbundle(*command) == (
        1,
        "",
        "main:app is in the notification center's place, which alone can do this\n",
    )


def test_an_application_is_tried_out_without_us(here: Path) -> None:
    outcome = wsbundle("run")
    assert (outcome.code, outcome.out) == (2, "")
    assert "uvicorn --reload main:app" in outcome.err


# An archive


def test_an_archive_carries_the_application_as_it_would_be_installed(here: Path, tmp_path: Path) -> None:
    there, wheels = loaded(here), tmp_path / "wheels"
    wheels.mkdir()
    archive = pack(ROOT, there, render(there.deploy), wheels)
    (tmp_path / "unpacked").mkdir()
    # By tar(1), as on a host: tarfile asks for a filter from Python 3.12 on, and Debian's 3.11 knows none.
    subprocess.run(["tar", "xz", "-C", str(tmp_path / "unpacked")], input=archive.content, check=True)
    unpacked = loaded(tmp_path / "unpacked" / archive.directory)
    assert unpacked.deploy == replace(there.deploy, app=replace(there.deploy.app, path="app"))
    assert there.project is not None
    assert unpacked.project is not None
    assert unpacked.project.files == there.project.files
    assert render(unpacked.deploy).manifest() == render(there.deploy).manifest()
    assert app_id(unpacked.deploy, unpacked.project) == app_id(there.deploy, there.project)
    assert runtime_id(unpacked.project) == runtime_id(there.project)
    (tmp_path / "unpacked" / archive.directory / "app/main.py").write_text("changed")
    assert app_id(unpacked.deploy, unpacked.project) != app_id(there.deploy, there.project)


def test_an_archive_has_the_requirements_above_the_application_and_shows_none_of_its_files_to_others(
    here: Path, tmp_path: Path
) -> None:
    (here / "requirements.txt").write_text("-r common/base.txt\n")
    (here / "common").mkdir()
    (here / "common/base.txt").write_text("a==1 --hash=sha256:00\n")
    (here / "src/secret.txt").write_text("secret")
    (here / "src/secret.txt").chmod(0o600)
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    there = loaded(here, "app.requirements=../requirements.txt")
    archive = pack(ROOT, there, render(there.deploy), wheels)
    (tmp_path / "unpacked").mkdir()
    tar = ("tar", "xz", "--no-same-permissions", "-C", str(tmp_path / "unpacked"))
    subprocess.run(tar, input=archive.content, check=True, umask=0)
    directory = tmp_path / "unpacked" / archive.directory
    unpacked = loaded(directory)
    assert unpacked.deploy.app.path == "app/src"
    assert there.project is not None
    assert unpacked.project is not None
    assert unpacked.project.requirements == there.project.requirements
    assert app_id(unpacked.deploy, unpacked.project) == app_id(there.deploy, there.project)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (directory / "app").rglob("*") if path.is_file()}
    assert modes == {"secret.txt": 0o600, "main.py": 0o600, "a.css": 0o600, "manage.py": 0o700,
                     "requirements.txt": 0o600, "base.txt": 0o600}  # fmt: skip


def test_the_deploy_yaml_of_an_archive_leads_to_the_files_beside_it(here: Path) -> None:
    assert "\n  path: app\n" in deploy_text(loaded(here))
    assert "path: src" not in deploy_text(loaded(here))


def test_only_what_is_locked_by_its_hash_is_packed() -> None:
    lock = "# of uv\n-r base.txt\na==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n    # via b\n"
    lock += "./dist/of_its_own-1.whl\n"  # which is among its files
    assert locked(lock).split() == ["a==1", "--hash=sha256:00", "--hash=sha256:01"]
    with pytest.raises(CommandError, match="b==2, c is not; lock all of them: uv pip compile --generate-hashes"):
        locked(f"{lock}b==2\nc\n")


def test_what_the_page_shows_is_a_deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the application that it is an excerpt of, and the requirements of the page."""
    page = (ROOT / "docs/own-app.md").read_text()
    [requirements] = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    deployment = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "deploy.yaml").write_text(deployment)
    (tmp_path / "requirements.txt").write_text(requirements)
    shutil.copy(ROOT / "tests/own_app/main.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    outcome = wsbundle("check")
    assert (outcome.code, outcome.err) == (0, "")
    project = loaded(tmp_path).project
    assert project is not None
    assert project.files == ("main.py", "requirements.txt")


# What is planned


def side(app: str = "", runtime: str = "r1", workers: int = 1) -> Side:
    return Side(name="shop", manager="systemd", app=app, runtime=runtime, replaces_workers=workers > 1, shared="s1")


def test_an_application_that_changed_is_reloaded_where_workers_can_be_replaced() -> None:
    todo = plan(side("a1", workers=2), side("a2", workers=2))
    assert (todo.reloads_service, todo.restarts_service) == (True, False)
    todo = plan(side("a1"), side("a2"))
    assert (todo.reloads_service, todo.restarts_service) == (False, True)
    todo = plan(side("a1", workers=2), side("a1", workers=2))
    assert (todo.reloads_service, todo.restarts_service) == (False, False)


NEEDED = "what the application needs, and what runs it: /opt/shop/runtimes/"
OURS = "the service's code and requirements: /opt/shop/runtimes/"


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (Side(), side("a1"), ["+ the application: /opt/shop/apps/a1", f"+ {NEEDED}r1"]),
        (side("a1"), side("a2"), ["~ the application: /opt/shop/apps/a2"]),
        (side("a1"), side("a1", "r2"), [f"~ {NEEDED}r2"]),
        (side("a1"), side("a1"), []),
        (side("", "r1"), side("a1", "r1"), ["+ the application: /opt/shop/apps/a1"]),
        (side("a1"), side("", "r2"), ["- the application", f"~ {OURS}r2"]),
    ],
)  # fmt: skip
def test_a_plan_says_which_code_changes(tmp_path: Path, before: Side, after: Side, lines: list[str]) -> None:
    signs = {"add": "+", "change": "~", "remove": "-"}
    changes = _code(Store("shop", tmp_path), before, after)
    assert [f"{signs[change.action]} {change.what}" for change in changes] == lines


# Whether it works


class Answers(BaseHTTPRequestHandler):
    """An application: the path says with which status it answers."""

    def do_GET(self) -> None:
        status = int(self.path[1:] or "404")
        self.server.asked.append(dict(self.headers))  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@contextmanager
def application() -> Iterator[tuple[int, list[dict[str, str]]]]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    server.asked = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1], server.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("health", "told"),
    [
        ("/200", None),
        ("/204", None),
        ("/299", None),
        ("/301", "GET /301 is answered with 301 Moved Permanently"),
        ("/404", "GET /404 is answered with 404 Not Found"),
        ("/500", "GET /500 is answered with 500 Internal Server Error"),
        (None, None),  # `/` is answered with 404, and somebody answers
    ],
)
def test_an_application_works_when_it_says_so(health: str | None, told: str | None) -> None:
    with application() as (port, asked):
        there = Endpoint("localhost", encrypted=False, ports=(port, port), serves_app=True, health=health)
        assert silence(there, 30) == told
        assert asked[0]["Host"] == f"localhost:{port}"
        assert there.url == f"http://localhost:{port}/"


def test_an_application_without_a_path_of_its_health_fails_when_it_has_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Answers, "do_GET", lambda self: self.send_error(502))
    with application() as (port, _):
        there = Endpoint("localhost", encrypted=False, ports=(port, port), serves_app=True)
        assert silence(there, 30) == "GET / is answered with 502 Bad Gateway"


# How it gets there


def made(here: Path, store: Store, monkeypatch: pytest.MonkeyPatch, *assignments: str) -> tuple[Path, list[list[str]]]:
    """Where an application of this user's is after its installation, and what was compiled before each command."""
    there, seen = loaded(here, *assignments), list[list[str]]()
    python = store.home / "runtimes" / runtime_id(there.project) / "venv/bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.unlink(missing_ok=True)
    python.symlink_to(sys.executable)
    for name in ("make_user", "_own"):  # which take root
        monkeypatch.setattr(provide, name, lambda *_: None)
    monkeypatch.setattr(
        Rehearsal, "build", lambda _, place, __: seen.append([path.name for path in place.rglob("*.pyc")])
    )
    assert there.project is not None
    made_of = provide.app_id(there.deploy, there.project), runtime_id(there.project)
    place = provide.make_application(store, there.deploy, render(there.deploy), there.project, *made_of, Report())
    return place, seen


def test_what_root_runs_takes_nothing_from_the_directory_that_it_is_run_in(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("compileall.py", "struct.py", "queue.py"):
        (here / name).write_text(f"open({str(here / 'was-run')!r}, 'w')\n")
    place, _ = made(here, Store("shop", tmp_path / "host"), monkeypatch)
    assert list(place.rglob("main.*.pyc"))
    assert not (here / "was-run").exists()


def test_root_writes_nothing_more_where_a_command_of_the_application_could(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link __pycache__ would lead root to wherever the command likes."""
    place, seen = made(here, Store("shop", tmp_path / "host"), monkeypatch, "app.build=[make]")
    assert [sorted(names) for names in seen] == [sorted(path.name for path in place.rglob("*.pyc"))]
    assert seen[0]


def test_an_application_may_have_any_names_at_its_top(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store("shop", tmp_path / "host")
    (here / "src/ready").mkdir()
    (here / "src/ready/__init__.py").touch()
    place, _ = made(here, store, monkeypatch)
    (place / "main.py").unlink()
    (place.parent / READY).unlink()  # as when it was killed in the middle
    assert (made(here, store, monkeypatch)[0] / "main.py").exists()
    store.prune(1)
    assert not place.exists()


def test_what_commands_make_follows_from_their_variables(here: Path) -> None:
    def named(*assignments: str) -> str:
        there = loaded(here, *assignments)
        return app_id(there.deploy, there.project)

    assert named("env={A: one}") == named("env={A: other}")
    assert named("app.build=[make]", "env={A: one}") != named("app.build=[make]", "env={A: other}")


# Before it goes live


def test_a_command_that_a_killed_run_has_left_is_not_taken_for_the_next_one(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To start a unit that is starting is to wait for it."""
    deploy, said = loaded(here).deploy, list[str]()

    def run(*command: str, **_: object) -> Outcome:
        said.append(" ".join(command))
        return Outcome(0, "")

    monkeypatch.setattr(rehearsals, "run", run)
    monkeypatch.setattr(rehearsals, "put_text", lambda *_: None)
    Rehearsal(deploy, render(deploy), here).run(("true",), here, here)
    assert said.index("systemctl stop shop.before.service") < said.index("systemctl start shop.before.service")


CONFINED = """
    User Group ProtectSystem ReadOnlyPaths ProtectHome StateDirectory PrivateTmp ReadWritePaths NoExecPaths
    RestrictAddressFamilies IPAddressDeny IPAddressAllow NoNewPrivileges CapabilityBoundingSet PrivateUsers
    PrivateDevices DevicePolicy ProtectProc ProcSubset RestrictNamespaces MemoryDenyWriteExecute SystemCallFilter UMask
""".split()


def rehearsed(here: Path, writes: Path | None = None) -> tuple[list[str], list[str]]:
    """The lines of the service's unit, and of the one in which its commands are run."""
    deploy = loaded(here).deploy
    bundle = render(deploy)
    [unit] = [file.text for file in bundle.files if file.path.endswith("/shop.service")]
    place = Path("/opt/shop/apps/0123456789ab")
    rehearsal = Rehearsal(deploy, bundle, Path("/opt/shop/runtimes/ba9876543210"))
    return unit.splitlines(), list(rehearsal.lines(("/bin/sh", "-c", deploy.app.before[1]), place, place, writes))


def test_a_command_is_confined_as_the_application_is(here: Path) -> None:
    unit, lines = rehearsed(here)
    for name in CONFINED:
        of_the_unit = [line for line in unit if line.startswith(f"{name}=")]
        assert of_the_unit
        assert [line for line in lines if line.startswith(f"{name}=")] == of_the_unit


def test_a_command_starts_nothing_of_the_service_and_leaves_its_directory(here: Path) -> None:
    _, lines = rehearsed(here)
    for name in ("RuntimeDirectory", "ExecReload", "Restart", "WatchdogSec", "NotifyAccess", "ExecStartPre"):
        assert not [line for line in lines if line.startswith(f"{name}=")]
    assert [line for line in lines if line.startswith("Type=")] == ["Type=oneshot"]
    assert sum(line.startswith("ExecStart=") for line in lines) == 1
    assert "TimeoutStartSec" not in "".join(lines)  # a migration may take hours
    assert "PYTHONPATH=/opt/shop/apps/0123456789ab/src" in lines[-1]
    assert not [line for line in lines if line.startswith("Standard")]  # the journal bounds what it says


def test_a_command_that_makes_files_may_write_where_they_are_and_another_may_not(here: Path) -> None:
    place = Path("/opt/shop/apps/0123456789ab")
    assert f"ReadWritePaths={place}" in rehearsed(here, place)[1]
    assert f"ReadWritePaths={place}" not in rehearsed(here)[1]


@needs("systemd-analyze")
def test_systemd_takes_the_unit_of_a_command(here: Path) -> None:
    def verified(lines: list[str]) -> subprocess.CompletedProcess[str]:
        unit = here / "shop.before.service"
        unit.write_text("".join(f"{line}\n" for line in lines))
        command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    _, lines = rehearsed(here)
    assert "shop.before.service" not in verified(lines).stderr
    assert (
        "shop.before.service" in verified([line.replace("ProtectSystem=", "ProtectSystems=") for line in lines]).stderr
    )


def test_a_command_comes_through_the_unit_as_it_was_written(here: Path) -> None:
    [line] = [line for line in rehearsed(here)[1] if line.startswith("ExecStart=")]
    words = re.sub(r"%%", "%", line.partition("=")[2].replace("$$", "$"))
    done = subprocess.run(
        ["/bin/sh", "-c", words], env={"HOME": "/h"}, capture_output=True, text=True, check=False, cwd=os.sep
    )
    assert (done.stdout, done.stderr) == ("100% it is done /h\n", "")
