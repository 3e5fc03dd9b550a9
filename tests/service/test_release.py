"""What workers are started with: the code and the settings that are current, read anew each time."""

import ast
import os
import sys
from pathlib import Path

import pytest

from service.settings import App, Settings
from service.workers.release import Deployment, Release, ReleaseError, read_env
from tests.modules import MODULES, imports


class Installed:
    """A deployment as it stands on a host."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env_file = home / ".env"
        self.switch("r1")

    def switch(self, runtime: str, *lines: str) -> None:
        for part in ("service", "venv/bin", "app"):
            (self.home / "runtimes" / runtime / part).mkdir(parents=True, exist_ok=True)
        current = self.home / "current"
        current.unlink(missing_ok=True)
        current.symlink_to(f"runtimes/{runtime}")
        self.env_file.write_text("\n".join(lines))

    def environ(self, **variables: str) -> dict[str, str]:
        return {"WEBSOCKET_ENV_FILE": str(self.env_file), "WEBSOCKET_CODE": str(self.home / "current"), **variables}


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


def test_without_a_unit_it_is_what_this_process_was_started_with() -> None:
    environ, settings = {"PATH": "/bin", "WORKERS": "3"}, Settings(workers=2)
    deployment = Deployment(environ)
    first = deployment.first(settings)
    assert first == Release(sys.executable, Path(__file__).parents[2], environ, settings)
    assert deployment.current(first) == first._replace(number=1)


def test_the_settings_are_those_of_the_file_and_none_of_before_is_left(installed: Installed) -> None:
    installed.switch("r1", "WORKERS='2'", "LOG_LEVEL='info'", "OURS='old'")
    deployment = Deployment(installed.environ(PATH="/bin", WORKERS="2", LOG_LEVEL="info", OURS="old"))
    first = deployment.first(Settings(workers=2))
    installed.switch("r1", "# It's new.", "WORKERS='5'", "THEIRS='new'")
    current = deployment.current(first)
    assert current.environ == installed.environ(PATH="/bin", WORKERS="5", THEIRS="new")
    assert current.settings == Settings(workers=5)
    installed.switch("r1", "WORKERS='5'")
    assert "THEIRS" not in deployment.current(current).environ


def test_the_code_is_where_the_links_lead_when_it_is_asked_for(installed: Installed) -> None:
    deployment = Deployment(installed.environ())
    first = deployment.first(Settings())
    installed.switch("r2")
    current = deployment.current(first)
    for release, runtime in ((first, "r1"), (current, "r2")):
        assert release.python == str(installed.home / "runtimes" / runtime / "venv/bin/python")
        assert release.directory == installed.home / "runtimes" / runtime


def test_the_application_is_where_its_link_leads_when_it_is_asked_for(installed: Installed) -> None:
    runs_one = Settings(app=App(callable="shop.asgi:application"))
    deployment = Deployment(installed.environ(WEBSOCKET_APP_DIRECTORY="elsewhere"))
    first = deployment.first(runs_one)
    installed.switch("r2", "WEBSOCKET_APP='shop.asgi:application'")
    current = deployment.current(first)
    for release, runtime in ((first, "r1"), (current, "r2")):
        assert release.environ["WEBSOCKET_APP_DIRECTORY"] == str(installed.home / "runtimes" / runtime / "app")
    installed.switch("r1")
    assert deployment.current(current).environ["WEBSOCKET_APP_DIRECTORY"] == "elsewhere"


def test_without_a_unit_the_application_is_where_this_process_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runs_one = Settings(app=App(callable="shop.asgi:application"))
    assert Deployment({}).first(runs_one).environ["WEBSOCKET_APP_DIRECTORY"] == str(tmp_path)
    (tmp_path / "shop").mkdir()
    named = Deployment({"WEBSOCKET_APP_DIRECTORY": "shop"}).first(runs_one)
    assert named.environ["WEBSOCKET_APP_DIRECTORY"] == str(tmp_path / "shop")


def test_auto_is_one_for_each_cpu(installed: Installed) -> None:
    deployment = Deployment({})
    assert deployment.first(Settings(workers="auto")).workers == len(os.sched_getaffinity(0))
    assert deployment.first(Settings(workers=3)).workers == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("WORKERS='0'", "WORKERS: 0 is too small; use a whole number from 1 to 64, or auto"),
        ("WEBSOCKET_HOST='127.0.0.2'", "`host` has changed; restart the service"),
        ("WEBSOCKET_PORT='9000'", "`port` has changed; restart the service"),
        ("WEBSOCKET_PORT='8765' WEBSOCKET_SOCKET='/run/ws.sock'", "`socket` has changed; restart the service"),
        ("WEBSOCKET_BUS='/run/bus'", "`bus` has changed; restart the service"),
        ("WORKERS='2", "No closing quotation; write NAME='value' on each line"),
        ("export WORKERS='2'", "'export' is not a variable; write NAME='value' on each line"),
    ],
)
def test_what_cannot_be_followed_is_told(line: str, told: str, installed: Installed) -> None:
    deployment = Deployment(installed.environ())
    first = deployment.first(Settings())
    installed.switch("r1", line)
    with pytest.raises(ReleaseError) as error:
        deployment.current(first)
    assert str(error.value) == f"{installed.env_file}: {told}"


def test_a_file_of_settings_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="No such file or directory; let the service's user read it"):
        read_env(tmp_path / ".env")


def decoded_from_messagepack(path: Path) -> set[str]:
    """The modules of those types that a module says it decodes: what another worker had encoded by its own code."""
    tree = ast.parse(path.read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    decoding = [call for call in calls if ast.unparse(call.func) == "msgspec.msgpack.decode"]
    types = {ast.unparse(keyword.value) for call in decoding for keyword in call.keywords if keyword.arg == "type"}
    taken = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {str(node.module) for node in taken if types & {alias.name for alias in node.names}}


def test_all_that_a_manager_and_workers_of_other_code_must_agree_on_is_known() -> None:
    """What the manager is made of, and of what the workers' records are."""
    from generator.host.succession import SHARED_MODULES

    def ours(module: str) -> set[str]:
        return {name for name in imports(MODULES[module]) if name in MODULES}

    manager = {"service.workers.manager"}
    while manager != (more := manager.union(*map(ours, manager))):
        manager = more
    core = {f"service.core.{name}" for name in ("bus", "bus_records", "moves", "peer")}
    wire = {"service.workers.mesh"} | core | ours("service.core.bus_records")
    inside = {
        module
        for name in ("service.core.bus", "service.web.watching")
        for module in decoded_from_messagepack(MODULES[name])
    }
    assert inside == {"service.core.standing"}
    inside |= ours("service.core.standing")
    assert set(SHARED_MODULES) == {f"{name.replace('.', '/')}.py" for name in manager | wire | inside}
