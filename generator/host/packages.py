"""Debian's packages: what a deployment needs is installed, whoever else is just using apt or dpkg."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from generator.config.addresses import EVERY
from generator.config.schema import Deploy
from generator.host.facts import missing_packages
from generator.host.obstacles import packages
from generator.host.programs import Outcome, StepFailed, must, proxies, run
from generator.host.transaction import undisturbed
from generator.report import CommandError, Report
from service.declaration import Fault

# Unattended upgrades in the first minutes of a cloud VM may take that long. `generator/prepare.sh` waits as well.
PATIENCE_S = 900.0
# systemd reads those before what is masked in /run.
_OWN_UNITS = Path("/etc/systemd/system")
_PAUSE_S = 0.5
# No question is ever asked: not by a package, not about changed configuration, not by needrestart (Ubuntu).
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "NEEDRESTART_SUSPEND": "1"}
# DPkg::Lock::Timeout covers dpkg's frontend lock alone, not the locks of the package lists and of the archives.
_APT = ("apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=0", "-o", "Dpkg::Options::=--force-confold")
# In the words of apt, of dpkg, and of debconf in a package's scripts.
_LOCKED = re.compile(
    r"Could not get lock (\S+?)\.?(?:\s|$)|(dpkg \w+ lock) was locked by another process|(\S+) is locked by"
)


def install_packages(deploy: Deploy, engine: str, report: Report) -> bool:
    """Whether there were any to install. `engine` is the package that serves an engine here, if one does."""
    missing = missing_packages(packages(deploy, engine))
    if not missing:
        return False
    install = (*_APT, "install", "--no-install-recommends")
    try:
        with report.step("read the package lists"):
            lists = patiently(report, *_APT, "update")
        if not lists.succeeded:  # as a rule for one source alone, which has nothing of ours
            said = "; ".join(re.findall(r"(?m)^E: (.+)", lists.output)) or lists.output
            report.warning(
                Fault(f"apt-get update failed, so its lists may be old: {said}", "repair or remove that source")
            )
        with report.step("download packages"):
            must(patiently(report, *install, "--download-only", *missing), "apt-get install")
        with report.step(f"install {' '.join(missing)}"):
            # What a power cut has left half installed is completed first.
            must(patiently(report, "dpkg", "--configure", "--pending"), "dpkg --configure")
            with _not_started(f"{engine}-server" if f"{engine}-server" in missing else ""):
                must(patiently(report, *install, *missing), "apt-get install")
            if "nginx" in missing and not {*deploy.nginx.listen} <= {*EVERY}:
                # It serves nobody yet, and could not change from every address to one alone while it runs.
                run("systemctl", "stop", "nginx.service")
    except StepFailed as error:
        raise CommandError(f"{error}\nThe deployment was not touched.") from None
    return True


@contextmanager
def _not_started(service: str) -> Iterator[None]:
    """Debian starts what it installs, and enables it: but ours is an instance beside the package's own service.

    Whether it is masked, its scripts ask systemctl. Only until the next boot: that is enough, if power is cut now.
    A unit that the operator has of that name, such as of an engine of their own, stays theirs: started and enabled.
    """
    if not service or os.path.lexists(_OWN_UNITS / f"{service}.service"):
        yield
        return
    run("systemctl", "mask", "--runtime", f"{service}.service")
    try:
        yield
    finally:
        run("systemctl", "disable", f"{service}.service")
        run("systemctl", "unmask", "--runtime", f"{service}.service")


def patiently(report: Report, *command: str, patience_s: float = PATIENCE_S) -> Outcome:
    """Run apt-get or dpkg, again and again while another program holds one of their locks."""
    deadline, said = time.monotonic() + patience_s, ""
    while True:
        # Ctrl-C here would leave packages half installed; between two tries it ends the installation.
        with undisturbed():
            outcome = run(*command, timeout_s=1800, **_QUIET, **proxies())
        lock = None if outcome.succeeded else locked(outcome.output)
        if lock is None:
            return outcome
        if time.monotonic() > deadline:
            fix = f"{lock} was not free within {patience_s / 60:g} minutes; wait until it is, and run this again"
            return Outcome(outcome.code, f"{outcome.output}\n{fix}")
        if lock != said:
            said = lock
            report.line(f"  waiting for {lock}, for {patience_s / 60:g} minutes at most")
        time.sleep(_PAUSE_S)


def locked(output: str) -> str | None:
    """Which lock apt-get or dpkg could not get, and its holder where they name it; None where that is not why."""
    found = _LOCKED.search(output)
    if found is None:
        return None
    lock = next(group for group in found.groups() if group)
    # apt: "It is held by process 7 (apt-get)"; dpkg: "by another process with pid 7".
    holder = re.search(r"process (?:with pid )?(\d+)(?: \(([^)]+)\))?", output)
    if holder is None:
        return lock
    return f"{lock}, held by process {holder[1]}" + (f" ({holder[2]})" if holder[2] else "")
