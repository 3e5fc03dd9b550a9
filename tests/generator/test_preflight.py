"""What of a host is looked at before anything changes on it."""

from pathlib import Path

import pytest

from generator.config.schema import Deploy
from generator.host import preflight

DEPLOY = Deploy(domain="a.org", name="never-installed")


def test_sites_that_are_kept_elsewhere_need_the_available_ones_beside_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nginx, elsewhere = tmp_path / "nginx", tmp_path / "elsewhere"
    enabled, available = nginx / "sites-enabled", nginx / "sites-available"
    for directory in (enabled, available, elsewhere):
        directory.mkdir(parents=True)
    monkeypatch.setattr(preflight, "HOST", nginx)
    assert list(preflight.linked(DEPLOY)) == []
    enabled.rename(elsewhere / "sites-enabled")
    enabled.symlink_to(elsewhere / "sites-enabled")
    assert list(preflight.linked(DEPLOY)) == [str(enabled)]
    available.rename(elsewhere / "sites-available")
    available.symlink_to(elsewhere / "sites-available")
    assert list(preflight.linked(DEPLOY)) == []
