"""Another program uses apt or dpkg, as apt-daily does in the first minutes of a virtual machine: it is waited for."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.hosts.console import CLONE, NAME, Console
from tests.hosts.driver import _await

# perl-base is on every Debian, and a lock of fcntl(2) is what apt and dpkg take.
HOLDER = r"""
use Fcntl; my $flock = pack("s s x4 q q i x4", F_WRLCK, SEEK_SET, 0, 0, 0);
open(F, ">>", $ARGV[0]) && fcntl(F, F_SETLK, $flock) or die $!; $| = 1; print "held\n"; sleep 600;
"""
LOCKS = ("/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock", "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock")


@contextmanager
def held(console: Console, lock: str) -> Iterator[Callable[[], None]]:
    """A program of the host that holds a lock until it is told to end."""
    holder = subprocess.Popen(
        console.host.command("perl", "-e", HOLDER, lock), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    def release() -> None:
        console.run("sh", "-c", "kill $(pgrep -x perl)", check=False)
        holder.wait()

    try:
        yield release
    finally:
        release()
        holder.stdout.close()


def installed_in_spite_of(console: Console, lock: str, *command: str) -> str:
    """What an installation says that finds a lock held, which is released once it says that it waits."""
    log = console.host.root / "root/log"
    with held(console, lock) as release, log.open("w") as output:
        words = console.host.command(*command, directory=CLONE)
        installer = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            _await(lambda: "aiting for " in log.read_text() or installer.poll() is not None, 120, "waiting")
            assert f"{lock}" in log.read_text(), log.read_text()
            release()
            assert installer.wait(900) == 0, log.read_text()
        finally:
            installer.kill()
    return log.read_text()


@pytest.mark.parametrize("lock", LOCKS)
def test_packages_are_installed_once_another_program_lets_go_of_the_lock(empty: Console, lock: str) -> None:
    empty.run("apt-get", "-q", "-y", "purge", "supervisor", DEBIAN_FRONTEND="noninteractive")
    empty.run("apt-get", "clean")
    empty.configure(manager="supervisor")
    said = installed_in_spite_of(empty, lock, ".venv/bin/wsbundle", "install")
    assert said.count("waiting for ") == 1
    assert f"waiting for {lock}, held by process " in said
    assert f"Generation 1 of {NAME} runs" in said


def test_a_fresh_host_waits_before_it_has_python(fresh: Console) -> None:
    fresh.configure()
    said = installed_in_spite_of(fresh, LOCKS[0], "make", "install")
    assert said.count("Waiting for another apt or dpkg") == 1
    assert f"Generation 1 of {NAME} runs" in said
