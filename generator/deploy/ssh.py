"""ssh(1), with the user's own configuration: which words it is run with, and what its failures mean."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from generator.report import CommandError, printable
from service.declaration import Fault

# ssh's own exit code: whether the command has run is unknown. Source: ssh(1), "EXIT STATUS".
LOST = 255
# -o beats the user's configuration. Never a password or a question; a second connection could not have the forwardings
# of the first; a peer that is silent for 15 s is gone.
_OPTIONS = (
    *("BatchMode=yes", "ClearAllForwardings=yes", "RemoteCommand=none", "ConnectTimeout=10"),
    *("ServerAliveInterval=5", "ServerAliveCountMax=3"),
)
_AS_ROOT = 'if [ "$(id -u)" = 0 ]; then exec "$@"; else exec sudo -n "$@"; fi'
_CHUNK = 65_536
_FIXES = {
    "Permission denied": "let `ssh {host} true` work without a password: ssh-copy-id, or ssh-add",
    "Too many authentication failures": "name its key in ~/.ssh/config: IdentityFile and IdentitiesOnly yes",
    "REMOTE HOST IDENTIFICATION HAS CHANGED": "find out why; if it was installed anew: ssh-keygen -R {host}",
    "Host key verification failed": "compare and accept its key once: ssh {host}",
    "Could not resolve hostname": "write its name, or a Host of ~/.ssh/config",
    "Connection refused": "start sshd there, or name its port in ~/.ssh/config",
    "timed out": "see that it runs, that a firewall lets ssh through, and that a login takes less than 15 s",
    "No route to host": "see that it runs, and that this machine is in its network",
    "Network is unreachable": "connect this machine to its network",
    # Before any word of sshd, or after it: MaxStartups or PerSourcePenalties of sshd_config(5).
    "onnection closed by": "wait a minute: its sshd turns this machine away after failed logins; then ssh {host}",
    "onnection reset by": "wait a minute: its sshd turns this machine away after failed logins; then ssh {host}",
}


class Outcome(msgspec.Struct, frozen=True):
    """A command on a host: its exit code, or LOST; what it printed; and on stderr, with what ssh had to say."""

    code: int
    output: str
    errors: str


def as_root(*command: str) -> str:
    """A command for any login shell: run as root, who may be there already, or by sudo without a password.

    In the words of a script there is no quote, backslash or exclamation mark, which csh and fish read in their own way.
    """
    return shlex.join(["sh", "-c", _AS_ROOT, "sh", *command])


def words(destination: str, command: str, *options: str) -> list[str]:
    """ssh with its options. `--`: what begins with a hyphen is no destination, but would be an option."""
    given = [word for option in _OPTIONS for word in ("-o", option)]
    return ["ssh", *given, *options, "--", destination, command]


def fault(destination: str, outcome: Outcome) -> Fault:
    """What is wrong, and the fix, where a host did not answer."""
    lines = [printable(line.strip()) for line in outcome.errors.splitlines() if line.strip()]
    if outcome.code == LOST:
        for sign, fix in _FIXES.items():
            if found := [line for line in lines if sign in line]:
                return Fault(found[-1].strip("@ "), fix.format(host=destination))
        return Fault(lines[-1] if lines else "ssh failed without a word", f"try it by hand: ssh {destination}")
    if outcome.code == 127 and "sudo" in outcome.errors:
        return Fault("its user is not root, and there is no sudo", "log in as root, or install sudo there")
    if "must have a tty" in outcome.errors:
        fix = "write `Defaults !requiretty` into its sudoers(5), or log in as root"
        return Fault("its user is not root, and sudo wants a terminal there", fix)
    if "sudo" in outcome.errors or "password is required" in outcome.errors or "I'm afraid" in outcome.errors:
        return Fault(
            f"its user is not root, and sudo -n refuses: {lines[-1]}",
            "let this user run everything with NOPASSWD (sudoers(5)), or log in as root",
        )
    said = (lines or outcome.output.splitlines() or ["nothing"])[-1]
    return Fault(
        f"did not answer as a host does (exit code {outcome.code}): {printable(said)}", f"see `ssh {destination} sh`"
    )


class Ssh:
    """Connections to hosts, one to each, over which every command goes. Gone when it is closed."""

    def __init__(self) -> None:
        if shutil.which("ssh") is None:
            raise CommandError("ssh is not installed here; on Debian and Ubuntu: apt-get install -y openssh-client")
        # Not $TMPDIR, which may be long: a socket's path has 108 bytes, and ssh adds 17 of its own.
        self._directory = Path(tempfile.mkdtemp(prefix="wsbundle-", dir="/tmp"))
        self._connected: set[str] = set()

    def __enter__(self) -> "Ssh":
        return self

    def __exit__(self, *_: object) -> None:
        for destination in self._connected:
            self._end(destination)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _words(self, destination: str, command: str, *options: str) -> list[str]:
        return words(destination, command, "-o", f"ControlPath={self._directory}/%C", *options)

    def connect(self, destination: str) -> Outcome:
        """Connect, or connect anew. The connection ends by itself when nobody has used it for a minute."""
        self._end(destination)
        self._connected.add(destination)
        master = ("-o", "ControlMaster=yes", "-o", "ControlPersist=60", "-f", "-N", "-T")
        outcome = self._run(self._words(destination, "", *master)[:-1], None, None)
        return outcome if outcome.code == 0 else Outcome(LOST, "", outcome.errors)

    def _end(self, destination: str) -> None:
        with suppress(OSError):
            subprocess.run(self._words(destination, "", "-O", "exit"), capture_output=True, check=False)

    def run(
        self,
        destination: str,
        command: str,
        given: bytes | None = None,
        heard: Callable[[bytes], None] | None = None,
    ) -> Outcome:
        """Run a command there, which reads `given`. `heard` gets its output as it comes."""
        return self._run(self._words(destination, command, "-T", "-o", "ControlMaster=no"), given, heard)

    def attach(self, destination: str, command: str) -> int:
        """Run a command there on this terminal, if it is one, and input and output; its exit code, or LOST."""
        terminal = "-t" if sys.stdin.isatty() and sys.stdout.isatty() else "-T"
        return subprocess.run(
            self._words(destination, command, terminal, "-o", "ControlMaster=no"), check=False
        ).returncode

    def _run(self, command: list[str], given: bytes | None, heard: Callable[[bytes], None] | None) -> Outcome:
        # Files, not pipes: a connection in the background would keep a pipe open, and the input is read at any pace.
        with tempfile.TemporaryFile(dir=self._directory) as errors, tempfile.TemporaryFile(dir=self._directory) as file:
            file.write(given or b"")
            file.seek(0)
            with subprocess.Popen(command, stdin=file, stdout=subprocess.PIPE, stderr=errors) as process:
                assert process.stdout is not None
                output = _read(process.stdout, heard)
            errors.seek(0)
            said = errors.read().decode(errors="replace")
        return Outcome(process.returncode, output.decode(errors="replace"), said)


def _read(stream: IO[bytes], heard: Callable[[bytes], None] | None) -> bytes:
    read = []
    while chunk := os.read(stream.fileno(), _CHUNK):
        read.append(chunk)
        if heard is not None:
            heard(chunk)
    return b"".join(read)
