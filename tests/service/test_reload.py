"""A reload puts workers of the code and the settings that are current in the place of all others, or none."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.workers.reload import DONE, NAME
from tests.ports import free_port
from tests.service.processes import OURS, several
from tests.service.shells import DEADLINE_S, ROOT, Client, clean_environment, wait_until

FAILED = "the new worker does not start; the others stay as they are"
pytestmark = pytest.mark.slow


class Deployment:
    """An installed service of ours that runs: generations with their runtimes, and a link to the current one."""

    def __init__(self, home: Path, kind: str, stack: contextlib.ExitStack, **variables: str) -> None:
        self.home = home
        self.bus = home / "bus"
        self.install("1", "r1", WORKERS="2", **variables)
        unit = {
            "WEBSOCKET_ENV_FILE": str(home / "current/.env"),
            "WEBSOCKET_CODE": str(home / "current"),
            "RUNTIME_DIRECTORY": str(home),
        }
        self.workers = stack.enter_context(several(kind, 2, self.bus, **unit, **variables))
        self.pid = self.workers.shell.process.pid

    def install(self, generation: str, runtime: str, **variables: str) -> None:
        """Switch to a generation of this code and these settings; the previous ones go."""
        code, directory = self.home / "runtimes" / runtime, self.home / "generations" / generation
        if not code.exists():
            shutil.copytree(ROOT / "service", code / "service")  # compiled, as an installation leaves it
            (code / "venv").symlink_to(sys.prefix)
        directory.mkdir(parents=True)
        for part in ("service", "venv"):
            (directory / part).symlink_to(f"../../runtimes/{runtime}/{part}")
        lines = {"LOG_LEVEL": "info", **variables}
        (directory / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in lines.items()))
        (self.home / "next").symlink_to(directory)
        (self.home / "next").replace(self.home / "current")

    def prune(self, *paths: str) -> None:
        for path in paths:
            shutil.rmtree(self.home / path)

    def reload(self, code: int = 0) -> str:
        """As the unit does; what is said of it."""
        done = subprocess.run(
            [sys.executable, "-m", "service.workers.reload"],
            cwd=ROOT,
            env=clean_environment(RUNTIME_DIRECTORY=str(self.home)),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == code, done.stderr
        return done.stderr.strip()

    def reload_to(self, number: int) -> None:
        """The same, and so many workers, all of them new, have come of it."""
        before = self.workers.pids()
        assert self.reload() == ""
        self.workers.size = number
        assert not set(self.workers.wait()) & set(before)
        assert not self.workers.shell.process.poll()

    def welcome(self) -> str:
        with Client(self.workers.shell.url) as client:
            return client.welcome.split()[0]

    def code_of(self, pid: int) -> str:
        return Path(os.readlink(f"/proc/{pid}/cwd")).name


@pytest.fixture(params=OURS)
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    with contextlib.ExitStack() as stack:
        deployment = Deployment(tmp_path, request.param, stack)
        yield deployment
        assert "Traceback" not in deployment.workers.shell.log()


def test_new_workers_have_the_settings_that_are_current(deployment: Deployment) -> None:
    assert deployment.welcome() == "Welcome!"
    deployment.install("2", "r1", WORKERS="2", WEBSOCKET_WELCOME="Hello {uuid}")
    deployment.prune("generations/1")
    deployment.reload_to(2)
    assert deployment.welcome() == "Hello"


def test_the_log_of_all_is_written_as_the_settings_say_that_are_current(deployment: Deployment) -> None:
    deployment.install("2", "r1", WORKERS="2", LOG_FORMAT="json")
    deployment.reload_to(2)
    assert f'"message": "{DONE}"' in deployment.workers.shell.log()
    deployment.install("3", "r1", WORKERS="2", LOG_LEVEL="error")
    deployment.reload_to(2)
    assert deployment.workers.shell.log().count(DONE) == 1


def test_a_hangup_does_the_same_without_an_answer(deployment: Deployment) -> None:
    before = deployment.workers.pids()
    deployment.install("2", "r1", WORKERS="2", WEBSOCKET_WELCOME="Hello {uuid}")
    deployment.workers.shell.process.send_signal(signal.SIGHUP)
    wait_until(lambda: DONE in deployment.workers.shell.log())
    assert not set(deployment.workers.wait()) & set(before)
    assert deployment.welcome() == "Hello"


def test_new_workers_have_the_code_that_is_current_and_nothing_of_what_was_pruned(deployment: Deployment) -> None:
    deployment.install("2", "r2", WORKERS="2")
    new = deployment.home / "runtimes/r2/service/settings.py"
    new.write_text(new.read_text().replace('"Welcome! Your', '"New! Your'))
    assert deployment.welcome() == "Welcome!"
    deployment.reload_to(2)
    deployment.prune("generations/1", "runtimes/r1")
    for killed in deployment.workers.pids():
        deployment.workers.kill(killed)
        wait_until(lambda: killed not in deployment.workers.pids())  # noqa: B023
        deployment.workers.wait()
        assert {deployment.code_of(pid) for pid in deployment.workers.pids()} == {"r2"}
        assert deployment.welcome() == "New!"


def test_a_worker_that_dies_is_replaced_though_its_generation_was_pruned(deployment: Deployment) -> None:
    deployment.install("2", "r1", WORKERS="2")  # such as another setting of nginx: nobody has to hear of it
    deployment.prune("generations/1")
    deployment.workers.kill(deployment.workers.pids()[0])
    wait_until(lambda: len(deployment.workers.pids()) == 1)
    deployment.workers.wait()


@pytest.mark.parametrize("number", [1, 5])
def test_there_are_as_many_workers_as_the_settings_ask_for(number: int, deployment: Deployment) -> None:
    deployment.install("2", "r1", WORKERS=str(number))
    deployment.reload_to(number)
    deployment.install("3", "r1", WORKERS="3")
    deployment.reload_to(3)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"WORKERS": "many"}, "WORKERS: 'many' is not a whole number; use a whole number from 1 to 64, or auto"),
        ({"WEBSOCKET_PORT": "1024"}, "`port` has changed; restart the service"),
        # Only the worker looks for keys.
        ({"WEBSOCKET_AUTH": "token", "WEBSOCKET_KEYS": "/nowhere"}, FAILED),
    ],
)
def test_with_wrong_settings_all_stay_as_they_are(settings: dict[str, str], told: str, deployment: Deployment) -> None:
    before = deployment.workers.pids()
    deployment.install("2", "r1", **settings)
    assert deployment.reload(code=1).endswith(told)
    assert deployment.workers.wait() == before
    assert deployment.welcome() == "Welcome!"
    deployment.install("3", "r1", WORKERS="2")
    deployment.reload_to(2)


def test_code_that_does_not_start_or_is_not_there_leaves_all_as_they_are(deployment: Deployment) -> None:
    before = deployment.workers.pids()
    deployment.install("2", "r2", WORKERS="2")
    (deployment.home / "runtimes/r2/service/settings.py").write_text("raise SystemExit('broken')")
    assert deployment.reload(code=1) == FAILED
    deployment.prune("runtimes/r2")
    assert deployment.reload(code=1) == FAILED
    assert deployment.workers.wait() == before
    assert deployment.welcome() == "Welcome!"


def test_where_only_the_second_does_not_start_it_is_told_that_the_first_is_new_already(deployment: Deployment) -> None:
    deployment.install("2", "r2", WORKERS="2")
    once = deployment.home / "once"
    settings = deployment.home / "runtimes/r2/service/settings.py"
    good = settings.read_text()
    settings.write_text(
        f"{good}\nimport pathlib\nonce = pathlib.Path({str(once)!r})\n"
        "if once.exists(): raise SystemExit('broken')\nonce.touch()\n"
    )
    assert deployment.reload(code=1) == FAILED.replace("the others", "1 of 2 are new already, the others")
    assert sorted(map(deployment.code_of, deployment.workers.pids())) == ["r1", "r2"]
    settings.write_text(good)
    deployment.reload_to(2)


def test_who_asks_while_workers_are_replaced_gets_a_replacement_of_its_own(deployment: Deployment) -> None:
    deployment.workers.shell.process.send_signal(signal.SIGHUP)
    deployment.reload_to(2)
    wait_until(lambda: deployment.workers.shell.log().count(DONE) == 2)


def test_who_asks_a_service_that_stops_is_told(deployment: Deployment) -> None:
    before = deployment.workers.pids()
    command = [sys.executable, "-m", "service.workers.reload"]
    environ = clean_environment(RUNTIME_DIRECTORY=str(deployment.home))
    with subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True) as asking:
        wait_until(lambda: set(deployment.workers.pids()) - set(before))
        deployment.workers.shell.terminate()
        assert asking.wait(DEADLINE_S) == 1
        assert asking.stderr is not None
        assert asking.stderr.read() == "the service has ended before its workers were replaced\n"
    assert deployment.workers.shell.process.wait(DEADLINE_S) == 0
    assert deployment.reload(code=1).startswith(f"the service cannot be asked at {deployment.home / NAME}: ")


@pytest.mark.parametrize("kind", OURS)
def test_a_service_whose_file_of_settings_cannot_be_read_does_not_start(kind: str, tmp_path: Path) -> None:
    module = {"runner": "service", "standalone": "service.server"}[kind]
    environ = clean_environment(WORKERS="2", WEBSOCKET_PORT=str(free_port()), WEBSOCKET_ENV_FILE=str(tmp_path / ".env"))
    done = subprocess.run(
        [sys.executable, "-m", module], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=DEADLINE_S
    )
    assert done.returncode == 1
    assert done.stderr.strip() == f"{tmp_path}/.env: No such file or directory; let the service's user read it"
