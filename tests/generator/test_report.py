"""What the operator hears, and hears once."""

import pytest

from generator.report import Report
from service.declaration import Fault


def test_a_warning_that_comes_again_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    for what in ("one", "other", "one"):
        report.warning(Fault(what, "mend it"))
    assert capsys.readouterr().err == "warning: one; mend it\nwarning: other; mend it\n"
    assert report.facts["warnings"] == [{"what": what, "mend": "mend it"} for what in ("one", "other")]
