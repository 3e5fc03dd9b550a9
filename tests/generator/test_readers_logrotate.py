"""logrotate judges the rotation of the log."""

from pathlib import Path

import pytest

from generator.readers import logrotate
from tests.generator.readings import NAME, broken, fault, line_of, nothing_installed, rendered, verdict
from tests.programs import needs

ROTATION = f"etc/logrotate.d/{NAME}"


@needs("logrotate")
def test_the_rotation_is_accepted() -> None:
    assert verdict(logrotate.rotation, rendered()).state == "accepted"


@needs("logrotate")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rotate 5", "rotat 5", "unknown option 'rotat'"),
        ("maxsize 20M", "maxsize 20Q", "unknown unit 'Q'"),
        ("missingok", "su nobody-of-ours root", "unknown user 'nobody-of-ours'"),
    ],
)
def test_a_fault_is_told_at_its_line(old: str, new: str, message: str) -> None:
    bundle = broken(rendered(), ROTATION, f"    {old}", f"    {new}")
    found = fault(logrotate.rotation, bundle)
    assert (found.path, found.line) == (ROTATION, line_of(bundle, ROTATION, new))
    assert message in found.message


@needs("logrotate")
def test_the_user_of_the_bundle_need_not_exist_here() -> None:
    bundle = broken(rendered(), ROTATION, "    missingok", f"    missingok\n    su {NAME} {NAME}")
    assert verdict(logrotate.rotation, bundle).state == "accepted"


def test_without_logrotate_nothing_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with nothing_installed(monkeypatch, tmp_path):
        said = verdict(logrotate.rotation, rendered())
    assert (said.state, said.why) == ("not checked", "logrotate is not installed")


def test_a_logrotate_that_breaks_before_it_has_read_is_no_judge(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "logrotate"
    program.write_text("#!/bin/sh\necho no such library\nexit 127\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = verdict(logrotate.rotation, rendered())
    assert (said.state, said.why) == ("not checked", "logrotate failed: no such library")
