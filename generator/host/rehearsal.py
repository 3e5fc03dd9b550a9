"""Commands of an application before it goes live, run as it will be run itself.

They run in a unit of their own with the lines of the service's unit: its user, its settings and its confinement.
"""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from generator.config.schema import Deploy
from generator.host.facts import last_of_the_journal
from generator.host.programs import StepFailed, must, run
from generator.paths import UNITS, Paths
from generator.quoting import systemd, systemd_exec, systemd_word
from generator.rendering.bundle import Bundle
from generator.rendering.write import put_text
from generator.report import Report

# Lines that say how a service is started, stopped and watched; a command only runs. RuntimeDirectory= would be removed
# at its end, under the service that runs.
_OF_SERVICES = (
    *(
        "Type",
        "NotifyAccess",
        "TimeoutStartSec",
        "ExecStart",
        "ExecReload",
        "Restart",
        "RestartSec",
        "WatchdogSec",
    ),
    *("EnvironmentFile", "WorkingDirectory", "SyslogIdentifier", "RuntimeDirectory", "RuntimeDirectoryMode"),
)
_LINES_OF_OUTPUT = 15


class Rehearsal:
    """A place to run commands of a deployment that is not live yet, with the Python in `runtime`."""

    def __init__(self, deploy: Deploy, bundle: Bundle, runtime: Path) -> None:
        self._deploy = deploy
        self._runtime = runtime
        texts = {file.path: file.text for file in bundle.files}
        self._unit_text = texts[f"{UNITS}{deploy.name}.service"]
        self._env_text = texts[Paths(deploy.name).env]
        self._unit = f"{deploy.name}.before.service"
        self._env = Path(f"/run/{deploy.name}.before.env")

    def of(self, application: Path, report: Report) -> None:
        """Import the application, and run the commands that come before it.

        Raises:
            StepFailed: with the words of the one that failed.
        """
        with report.step("import the application, as it will be run"):
            python = str(self._runtime / "venv/bin/python")
            self.run((python, "-m", "service", "--check"), application, self._runtime)
        for command in self._deploy.app.before:
            with report.step(f"run {command}"):
                self.run(("/bin/sh", "-c", command), application, application)

    def build(self, application: Path, report: Report) -> None:
        """Run the commands that make files of the application, which they may write.

        Raises:
            StepFailed: the same.
        """
        for command in self._deploy.app.build:
            with report.step(f"run {command}"):
                self.run(("/bin/sh", "-c", command), application, application, writes=application)

    def run(self, command: Sequence[str], application: Path, directory: Path, writes: Path | None = None) -> None:
        """Run one command in a directory; in `writes` it may write.

        Raises:
            StepFailed: with the last lines that it said.
        """
        unit = Path("/run/systemd/system", self._unit)
        unit.parent.mkdir(exist_ok=True)
        lines = self.lines(command, application, directory, writes)
        # A run that was killed may have left one at work; to start it again would be to wait for that one.
        run("systemctl", "stop", self._unit)
        try:
            put_text(self._env, self._env_text, 0o600)
            put_text(unit, "".join(f"{line}\n" for line in lines))
            must(run("systemctl", "daemon-reload"), "systemctl daemon-reload")
            began = time.time()
            # Without an end: a migration may take hours.
            done = run("systemctl", "start", self._unit, timeout_s=None)
            if not done.succeeded:
                raise StepFailed("\n  ".join(self._said(began)) or done.output)
        finally:
            run("systemctl", "stop", self._unit)
            for path in (unit, self._env):
                path.unlink(missing_ok=True)
            run("systemctl", "daemon-reload")
            run("systemctl", "reset-failed", self._unit)

    def _said(self, since: float) -> list[str]:
        """The last lines of its output, without what systemd says of it. Source: systemd.journal-fields(7)."""
        run("journalctl", "--sync")
        output = last_of_the_journal([f"_SYSTEMD_UNIT={self._unit}"], since, _LINES_OF_OUTPUT)
        return [line.rstrip() for line in output.splitlines()]

    def lines(
        self, command: Sequence[str], application: Path, directory: Path, writes: Path | None = None
    ) -> Iterator[str]:
        """Those of the unit."""
        _, _, service = self._unit_text.partition("[Service]\n")
        yield "[Service]"
        for line in service.partition("\n[")[0].splitlines():
            if line and not line.startswith("#") and line.partition("=")[0] not in _OF_SERVICES:
                yield line
        if writes is not None:
            yield f"ReadWritePaths={systemd_word(str(writes))}"
        yield "Type=oneshot"
        yield f"EnvironmentFile={systemd(str(self._env))}"
        yield f"WorkingDirectory={systemd(str(directory))}"
        # The journal bounds what it keeps; without a limit of its rate, the last lines are among it.
        yield "LogRateLimitIntervalSec=0"
        path = os.pathsep.join((f"{self._runtime}/venv/bin", "/usr/local/bin", "/usr/bin", "/bin"))
        # Of an application whose package is in `src`, as its runner imports it.
        variables = (f"PATH={path}", f"PYTHONPATH={application}/src", f"WEBSOCKET_APP_DIRECTORY={application}")
        words = ("/usr/bin/env", *variables, *command)
        yield f"ExecStart={' '.join(map(systemd_exec, words))}"
