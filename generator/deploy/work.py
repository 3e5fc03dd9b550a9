"""What is done on one host of several: show it, install it, prove it, or take it back."""

import time
from argparse import Namespace
from collections.abc import Mapping

from generator.config.schema import Deploy
from generator.deploy.answers import Answer, last_deployment
from generator.deploy.fleet import Row
from generator.deploy.kits import Kit
from generator.deploy.remote import LostError, Remote, RemoteError
from generator.deploy.sharing import Keys, carry, server_of
from generator.program import COMMAND

NOT_DUE = "nothing to take back"
_PENDING = 3
# Hosts of an engine know each other after an announcement or two.
_MEETING_S = 15.0
_PAUSE_S = 0.5


class Work:
    """One instance for all hosts: it remembers which are proven. `server` has the engine that the others join."""

    def __init__(
        self, options: Namespace, deploy: Deploy, remotes: Mapping[str, Remote], answers: Mapping[str, Answer]
    ):
        self._options, self._deploy = options, deploy
        self._remotes, self._answers = remotes, answers
        self.server = server_of(deploy, answers)
        self._keys = Keys(deploy, remotes, answers)
        self._last = last_deployment(answers.values())
        self._proven: list[Remote] = []

    def show(self, kits: Mapping[str, Kit], row: Row) -> None:
        """What an installation would change."""
        remote, kit = self._ready(row), kits[row.host]
        remote.bring(kit)
        joins = self.server is not None and row.host != self.server
        options = [*(["--full"] if self._options.full else []), *(["--joins"] if joins else [])]
        row.code = remote.do(kit.directory, "plan", *options)
        row.result = {0: "nothing to do", _PENDING: "changes are pending"}.get(row.code, "install would stop")

    def install(self, kits: Mapping[str, Kit], deployment: str, row: Row) -> None:
        """Install it there, and prove it across hosts where there are several."""
        remote, kit = self._ready(row), kits[row.host]
        remote.bring(kit)
        if self.server is not None and row.host != self.server:
            carry(self._deploy, self._remotes[self.server], remote)
        self._keys.bring(remote)
        options = ["--overwrite"] if self._options.overwrite else []
        is_changed = self._changed(remote, row, kit.directory, "install", deployment, *options)
        if row.code == 0 and is_changed and self._deploy.engine.url is not None:
            self._meet(remote)
        if row.code == 0:
            row.result = "installed" if is_changed else "nothing to do"
            self._proven.append(remote)

    def take_back(self, row: Row) -> None:
        """Go back to what ran there before the last deployment, where that has changed anything."""
        remote = self._ready(row)
        answer = remote.look()
        row.result = NOT_DUE
        is_due = answer.archive and self._last and answer.changed.startswith(f"{self._last} ")
        if is_due and self._changed(remote, row, answer.archive, "back", self._last) and row.code == 0:
            row.result = "went back"
        elif row.code == _PENDING:  # the other hosts need not wait for it
            row.result = f"stays, it was new; to remove it: {COMMAND} uninstall --host {row.host}"

    def _ready(self, row: Row) -> Remote:
        """The host, when no earlier deployment is at work there any more."""
        remote, job = self._remotes[row.host], self._answers[row.host].job
        if job:
            remote.say("a deployment is under way here; following it to its end")
            remote.follow(job)
            row.before = remote.look().generation
        return remote

    def _changed(self, remote: Remote, row: Row, archive: str, work: str, *options: str) -> bool:
        """Let it be done; whether the host runs another generation now."""
        try:
            row.code = remote.do(archive, work, *options)
        except LostError as error:
            row.now = "?"
            raise LostError(f"unknown, what has begun goes on there: {error}") from None
        row.now = remote.look().generation
        if row.code:
            row.result = f"failed: {row.said[-1] if row.said else f'exit code {row.code}'}"
        return row.now != row.before

    def _meet(self, remote: Remote) -> None:
        """Let a host that was proven before say that it reaches this one; this one has said so by itself.

        Raises:
            RemoteError: it does not.
        """
        me = (remote.status().get("hosts") or {}).get("this")
        if me is None:
            raise RemoteError("it runs, and is not on the engine: wsbundle status says why")
        for other in self._proven[-1:]:
            deadline = time.monotonic() + _MEETING_S
            while not (other.status().get("hosts") or {}).get("reached", {}).get(me):
                if time.monotonic() > deadline:
                    raise RemoteError(f"it runs, and {other.destination} does not reach it over the engine")
                time.sleep(_PAUSE_S)
            remote.say(f"{other.destination} reaches it over the engine")
