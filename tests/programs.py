"""Programs that a machine need not have for the tests."""

import re
import shutil
from collections.abc import Iterable

import pytest

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# On Debian and Ubuntu, where it has another name than the program.
_PACKAGES = {
    "node": "nodejs",
    "promtool": "prometheus",
    "ss": "iproute2",
    "ssh": "openssh-client",
    "supervisord": "supervisor",
    "systemd-analyze": "systemd",
    "systemd-sysusers": "systemd",
    "systemd-tmpfiles": "systemd",
}


def missing(program: str) -> str:
    """Why a test that needs a program is skipped, and how to get it."""
    return f"{program} is not installed: apt-get install -y {_PACKAGES.get(program, program)}"


def needs(program: str) -> pytest.MarkDecorator:
    """Skip where a program is missing; the answer "not checked" has tests of its own."""
    return pytest.mark.skipif(shutil.which(program, path=_PATH) is None, reason=missing(program))


def wanted(reasons: Iterable[str]) -> str | None:
    """Of the reasons for which tests were skipped: how to get all that was missing, in one line; None for nothing."""
    found = [
        match[1]
        for reason in reasons
        if (match := re.search(r"is not installed: apt-get install -y ([\w.+-]+)", reason))
    ]
    if not found:
        return None
    packages = " ".join(sorted(set(found)))
    return f"{len(found)} tests were skipped for want of programs; for those as well: apt-get install -y {packages}"
