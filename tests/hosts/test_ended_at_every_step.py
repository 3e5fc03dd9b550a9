"""The installer is killed right before each of its steps, one after the other: nothing is ever half-done for good.

Its guardian takes the change back within seconds. Where that is killed as well, the next run takes it back or completes
it; where power is cut, the host serves after it has booted, and the next run does the same.
"""

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.conftest import running
from tests.hosts.console import CLONE, NAME, Console
from tests.hosts.older_release import as_an_older_release_installed_it

pytestmark = pytest.mark.exhaustive
AT_ONCE = 4
BY_SUPERVISOR: dict[str, Any] = {"manager": "supervisor", "server": "standalone"}
ENDING = Path(__file__).with_name("ended_at.py")
Recover = Callable[[Console, int], None]


@pytest.fixture
def several_empty(warm_layers: tuple[Path, ...]) -> Iterator[list[Console]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running(*warm_layers)) for _ in range(AT_ONCE)]


@pytest.fixture
def several_installed(installed_layers: tuple[Path, ...]) -> Iterator[list[Console]]:
    with ExitStack() as stack:
        yield [stack.enter_context(running(*installed_layers)) for _ in range(AT_ONCE)]


def ended_at(console: Console, step: int | str, *words: str, by: str = "SIGKILL") -> str | None:
    """Run `wsbundle` up to a step; the step's name, or None when there are not as many."""
    done = console.host.run(
        ".venv/bin/python", "-B", "/root/ended_at.py", str(step), by, *words, check=False, directory=CLONE
    )
    assert "Traceback" not in done.stdout, done.stdout
    if done.returncode == 0:
        return None
    return done.stdout.rpartition("ended at ")[2].partition("\n")[0]


@contextmanager
def stopped_at(console: Console, step: int | str, *words: str) -> Iterator[str | None]:
    """The same, but the installer waits there for its end."""
    command = (".venv/bin/python", "-B", "/root/ended_at.py", str(step), "SIGSTOP", *words)
    words_of_shell = console.host.command(*command, directory=CLONE)
    with subprocess.Popen(words_of_shell, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
        assert run.stdout is not None
        try:
            yield next((line.split(maxsplit=2)[2] for line in run.stdout if line.startswith("ended at ")), None)
        finally:
            run.kill()  # it stopped with the installer


def await_guardian(console: Console) -> None:
    console.run("flock", "--timeout", "60", "/run/wsbundle.lock", "true")


def at_every_step(
    consoles: list[Console], prepare: Recover, words: tuple[str, ...], recover: Recover, by: str = "all"
) -> int:
    """Share the steps among the hosts; how many there were."""

    def some(number: int) -> int:
        console = consoles[number]
        console.host.push([ENDING], "/root")
        for step in range(number + 1, 1000, len(consoles)):
            prepare(console, step)
            name = ended_at(console, step, *words, by=by)
            if name is None:
                return step - 1
            try:
                recover(console, step)
            except AssertionError as error:
                raise AssertionError(f"killed before step {step}, {name}: {error}") from error
        raise AssertionError("it never ends")

    with ThreadPoolExecutor(len(consoles)) as pool:
        return min(pool.map(some, range(len(consoles))))


def leaves_nothing_behind(console: Console) -> None:
    """Neither a switch that is pending nor a file that is not whole."""
    names = ("*.new", "pending.json", "*recover*", ".*.gone")
    found = console.run("find", "/etc", "/opt", "-false", *(word for name in names for word in ("-o", "-name", name)))
    assert found == "", found


@pytest.fixture
def only_bookworm(suite: str) -> None:
    """Each change takes minutes; the suites share them."""
    if suite != "bookworm":
        pytest.skip("tried on bookworm")


@pytest.fixture
def only_trixie(suite: str) -> None:
    if suite != "trixie":
        pytest.skip("tried on trixie")


@pytest.mark.usefixtures("only_trixie")
def test_a_first_installation_is_completed_or_leaves_nothing(several_empty: list[Console]) -> None:
    for console in several_empty:
        console.configure()
        console.run("cp", "-a", f"/opt/{NAME}", "/root/warm")
    clean = {console: installed_paths(console) for console in several_empty}

    def prepare(console: Console, step: int) -> None:
        console.run("sh", "-c", f"test -e /opt/{NAME} || cp -a /root/warm /opt/{NAME}")

    def recover(console: Console, step: int) -> None:
        if step % 3 == 0:
            console.wsbundle("install")
            assert console.routes()
            leaves_nothing_behind(console)
            console.status()
        console.wsbundle("uninstall", "--purge")
        assert not installed_paths(console) ^ clean[console]

    assert at_every_step(several_empty, prepare, ("install",), recover) > 40


def installed_paths(console: Console) -> set[str]:
    """What stands on the host but for the runtime that was put there to save time, and the list of users."""
    users = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/.pwd", "/etc/subuid", "/etc/subgid")
    return {line for line in console.listing() if not line.startswith((*users, "/opt"))}


@pytest.mark.usefixtures("only_bookworm")
def test_another_port_is_completed_or_taken_back(several_installed: list[Console]) -> None:
    is_completed_or_taken_back(several_installed, {"port": 9000, "nginx": {"default_server": True}})


@pytest.mark.usefixtures("only_trixie")
def test_another_manager_is_completed_or_taken_back(several_installed: list[Console]) -> None:
    is_completed_or_taken_back(several_installed, BY_SUPERVISOR)


def is_completed_or_taken_back(consoles: list[Console], change: dict[str, Any]) -> None:
    def prepare(console: Console, step: int) -> None:
        console.configure(**change)

    def recover(console: Console, step: int) -> None:
        if step % 3 == 0:
            console.wsbundle("install")
            assert console.routes()
            leaves_nothing_behind(console)
        console.install()
        assert console.routes()
        assert "uvicorn under systemd" in console.status()
        leaves_nothing_behind(console)

    assert at_every_step(consoles, prepare, ("install",), recover) > 40


@pytest.mark.usefixtures("only_bookworm")
def test_an_uninstallation_is_completed_or_taken_back(several_installed: list[Console]) -> None:
    def prepare(console: Console, step: int) -> None:
        console.run("cp", "-a", f"/opt/{NAME}/runtimes", "/root/warm")

    def recover(console: Console, step: int) -> None:
        if step % 2:
            console.wsbundle("uninstall")
            assert console.current() == ""
            left = console.run("find", "/etc", "-path", f"*{NAME}*", "-o", "-name", "*wsbundle*").split()
            assert left == [f"/etc/{NAME}", f"/etc/{NAME}/keys.json"]
        # To save time; but where there is no /opt/NAME any more, one that is made by hand is not ours.
        there, warm = f"/opt/{NAME}", f"/opt/{NAME}/runtimes"
        console.run("sh", "-c", f"test ! -e {there} || test -e {warm} || mv /root/warm {warm}")
        console.install()
        assert console.routes()
        leaves_nothing_behind(console)
        console.run("rm", "-rf", "/root/warm")

    assert at_every_step(several_installed, prepare, ("uninstall",), recover) > 15


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, BY_SUPERVISOR), (BY_SUPERVISOR, {}), ({}, {"server": "gunicorn"})],
    ids=["to supervisor", "to systemd", "to another server"],
)
@pytest.mark.usefixtures("only_bookworm")
def test_when_the_installer_is_killed_its_guardian_takes_the_change_back_in_seconds(
    several_installed: list[Console], before: dict[str, Any], after: dict[str, Any]
) -> None:
    def prepare(console: Console, step: int) -> None:
        if console.current() != "1" or before:
            console.install(**before)
        console.configure(**after)

    def recover(console: Console, step: int) -> None:
        await_guardian(console)
        assert console.routes()
        leaves_nothing_behind(console)
        console.status()

    assert at_every_step(several_installed, prepare, ("install",), recover, by="SIGKILL") > 40


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({}, BY_SUPERVISOR, "install"),
        (BY_SUPERVISOR, {}, "install"),
        ("linked", {"port": 9000, "ping": {"interval": 50}}, "install"),
        ({}, {"server": "gunicorn", "port": 9000, "workers": 2, "bus": f"/run/{NAME}/elsewhere"}, "install"),
        ({}, {}, "uninstall"),
    ],
    ids=["to supervisor", "to systemd", "from an older release", "to other units", "uninstall"],
)
@pytest.mark.usefixtures("only_trixie")
def test_a_host_whose_power_is_cut_serves_after_it_has_booted(
    several_installed: list[Console], before: dict[str, Any] | str, after: dict[str, Any], words: str
) -> None:
    settings = before if isinstance(before, dict) else {}

    def some(number: int) -> None:
        console = several_installed[number]
        for step in range(number + 1, 1000, AT_ONCE):
            console.install(**settings)
            if before == "linked":
                as_an_older_release_installed_it(console)
            console.configure(**after)
            console.host.push([ENDING], "/root")
            with stopped_at(console, step, words) as name:
                if name is None:
                    return
                # Before a switch nothing can be lost, and a temporary link makes no difference to what boots.
                pending = "pending" in console.run("ls", f"/opt/{NAME}", check=False)
                if not pending or name.startswith("os.symlink"):
                    console.run("sh", "-c", "kill -9 $(cat /run/wsbundle.lock)")
                    await_guardian(console)
                    continue
                console.host.cut_power()
            console.host.boot()
            try:
                assert console.is_active("nginx")
                assert console.is_active("supervisor")  # it may run what is not ours
                assert words == "uninstall" or console.comes_to_route()
                console.install(**settings)
                assert console.routes()
                leaves_nothing_behind(console)
            except AssertionError as error:
                raise AssertionError(f"power was cut before step {step}, {name}: {error}") from error

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(some, range(AT_ONCE)))
