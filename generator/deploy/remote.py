"""One host: what it is, what it is sent, and its jobs, which are followed to their end over lost connections."""

import codecs
import json
import secrets
import time
from base64 import b64decode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from threading import Event
from typing import Any

from generator.deploy.answers import Answer, parse
from generator.deploy.kits import Kit
from generator.deploy.ssh import LOST, Outcome, Ssh, as_root, fault
from generator.report import CommandError, printable
from service.declaration import Fault

# How long a host that has vanished is tried again; and how often within one command, should each end at once.
PATIENCE_S = 60.0
_TRIES = 10
_PAUSE_S = 1.0
_GONE = 76  # of host.sh
_OUTPUT = b"wsbundle-output\n"
_SCRIPT = Path(__file__).with_name("host.sh").read_bytes()
# Without quotes and backslashes, for any login shell. A directory that others could write in is not made here.
_RECEIVE = 'umask 077; mkdir -p "$1" || exit 1; cat >"$1/$2" || { rm -f "$1/$2"; exit 1; }'
_PUT = (
    'umask 022; mkdir -p "$(dirname "$1")" && umask 077 && cat >"$1.new" || exit 1; '
    # A connection that is lost ends the input, too.
    'if [ "$(sha256sum <"$1.new" | cut -c 1-64)" != "$3" ]; then '
    'rm "$1.new"; echo "wsbundle: $1 did not arrive whole" >&2; exit 1; fi; '
    'if cmp -s "$1.new" "$1"; then rm "$1.new"; else chmod "$2" "$1.new" && mv "$1.new" "$1" && echo new; fi'
)


class LostError(CommandError):
    """A host cannot be reached any more, and what it was asked for may go on there."""


class RemoteError(CommandError):
    """A host did not do what it was asked for; has its own words."""


class Remote:
    """A host as ssh knows it, and the deployment of this name there. `say` gets what it prints, line by line."""

    def __init__(self, ssh: Ssh, destination: str, name: str, say: Callable[[str], None], stop: Event) -> None:
        self.destination, self._name, self.say = destination, name, say
        self._ssh, self._stop = ssh, stop
        self.home = f"/usr/local/lib/wsbundle/{name}"

    def ask(self) -> Answer | Fault:
        """What it is, or why nobody knows."""
        outcome = self._ssh.connect(self.destination)
        if outcome.code == 0:
            outcome = self._script("ask")
        answer = parse(outcome.output) if outcome.code == 0 else None
        return fault(self.destination, outcome) if answer is None else answer

    def look(self) -> Answer:
        """What it is now.

        Raises:
            RemoteError, LostError
        """
        outcome = self._again(lambda: self._script("ask"))
        answer = parse(outcome.output)
        if answer is None:
            raise RemoteError(str(fault(self.destination, outcome)))
        return answer

    def bring(self, kit: Kit) -> None:
        """Send an archive, unless it is there, and undamaged.

        Raises:
            RemoteError, LostError
        """
        if self._again(lambda: self._script("has", kit.directory, kit.sums)).code == 0:
            return
        archive = kit.archive
        self.say(f"sending {kit.directory}, {len(archive.content) / 1e6:.1f} MB")

        def send() -> Outcome:
            file = f"incoming.{secrets.token_hex(4)}"
            receive = as_root("sh", "-c", _RECEIVE, "sh", self.home, file)
            sent = self._ssh.run(self.destination, receive, archive.content)
            return self._script("unpack", kit.directory, file, archive.digest) if sent.code == 0 else sent

        self._must(self._again(send))

    def get(self, path: str) -> bytes:
        """What is in a file there.

        Raises:
            RemoteError, LostError
        """
        outcome = self._again(lambda: self._script("show", path))
        self._must(outcome)
        _, _, text = outcome.output.rpartition("wsbundle-file\n")  # a login shell may have printed more
        return b64decode(text)

    def put(self, path: str, content: bytes, mode: str) -> bool:
        """Make a file there hold this, root's; whether it did not yet. One that does stays as it is.

        Raises:
            RemoteError, LostError
        """
        command = as_root("sh", "-c", _PUT, "sh", path, mode, sha256(content).hexdigest())
        outcome = self._again(lambda: self._ssh.run(self.destination, command, content))
        self._must(outcome)
        return outcome.output.endswith("new\n")

    def do(self, directory: str, work: str, *options: str) -> int:
        """Let a job of host.sh run there, and follow it to its end: its exit code.

        Raises:
            RemoteError, LostError
        """
        job = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"
        self._must(self._again(lambda: self._script("start", directory, job, work, *options)))
        return self.follow(job)

    def follow(self, job: str) -> int:
        """Say what a job prints, from its beginning to its end: its exit code.

        Raises:
            RemoteError: it did not come to its end.
            LostError
        """
        lines = Lines(self.say)
        outcome = self._again(lambda: self._script("follow", job, str(lines.received), heard=lines.after(_OUTPUT)))
        lines.end()
        if outcome.code == _GONE:
            raise RemoteError("it ended half-way, as when the host is rebooted; deploy again: that undoes it first")
        return outcome.code

    def status(self) -> dict[str, Any]:
        """What `wsbundle status` says there.

        Raises:
            RemoteError, LostError
        """
        command = as_root(*self.installed("status", "--format", "json"))
        outcome = self._again(lambda: self._ssh.run(self.destination, command))
        try:
            said = json.loads(outcome.output[outcome.output.find("{\n") :])
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise RemoteError(f"wsbundle status did not answer: {outcome.errors.strip()}")
        return said

    def installed(self, verb: str, *options: str) -> list[str]:
        """The words that run there the `wsbundle` that was deployed last."""
        current = f"{self.home}/current"
        return [f"{current}/.venv/bin/wsbundle", verb, "--file", f"{current}/deploy.yaml", *options]

    def _script(self, verb: str, *words: str, heard: Callable[[bytes], None] | None = None) -> Outcome:
        command = as_root("sh", "-s", verb, self._name, *words)
        return self._ssh.run(self.destination, command, _SCRIPT, heard)

    def _again(self, act: Callable[[], Outcome]) -> Outcome:
        """Its outcome, once ssh knows it. Where the connection is lost, nobody knows whether it ran: it is repeated."""
        for _ in range(_TRIES):
            outcome = act()
            if outcome.code != LOST:
                return outcome
            self._reconnect(outcome)
        raise LostError("the connection is lost again and again")

    def _reconnect(self, lost: Outcome) -> None:
        self.say("the connection is lost; connecting again")
        deadline = time.monotonic() + PATIENCE_S
        while not self._stop.is_set() and time.monotonic() < deadline:
            lost = self._ssh.connect(self.destination)
            if lost.code == 0:
                return
            if "Permission denied" in lost.errors:  # sshd shuts out an address that tries this often
                break
            self._stop.wait(_PAUSE_S)
        raise LostError(str(fault(self.destination, lost)))

    def _must(self, outcome: Outcome) -> None:
        if outcome.code != 0:
            lines = outcome.errors.strip().splitlines() or [f"exit code {outcome.code}"]
            said = [line for line in lines if line.startswith("wsbundle: ")] or lines[-1:]
            raise RemoteError(printable(said[0].removeprefix("wsbundle: ")))


class Lines:
    """Bytes that come in any pieces, said line by line; `received` counts them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.received = 0
        self._say, self._rest = say, ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def after(self, mark: bytes) -> Callable[[bytes], None]:
        """What takes the pieces of one connection, from behind this line on."""
        before: bytes | None = b""

        def heard(piece: bytes) -> None:
            nonlocal before
            if before is None:
                self.take(piece)
                return
            before += piece
            _, found, rest = before.partition(mark)
            if found:
                before = None
                self.take(rest)

        return heard

    def take(self, piece: bytes) -> None:
        self.received += len(piece)
        *whole, self._rest = (self._rest + self._decoder.decode(piece)).split("\n")
        for line in whole:
            self._say(printable(line))

    def end(self) -> None:
        if self._rest:
            self._say(printable(self._rest))
