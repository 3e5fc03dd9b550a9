"""The rendered monitoring, really run: a Prometheus scrapes, each alert fires on its fault, and panels have data."""

import re
from pathlib import Path

import pytest

from generator.paths import Paths
from tests.run.stage import NAME, deployed

pytestmark = pytest.mark.slow

PATHS = Paths(NAME)


@pytest.mark.parametrize("tls", ["off", "files"])
def test_a_prometheus_elsewhere_gets_the_figures_where_it_is_listed_and_nothing_else(tls: str, tmp_path: Path) -> None:
    with deployed(tmp_path, tls=tls, nginx={"metrics_from": ["127.0.0.1"]}) as (stage, _):
        status, fields, body = stage.get("/metrics")
        assert (status, "wsbundle_connections 0.0" in body) == (200, True)
        assert fields["content-type"].startswith("text/plain; version=0.0.4")
        assert [stage.get(path)[0] for path in ("/stats", "/livez", "/readyz")] == [404, 404, 404]


def test_who_is_not_listed_gets_no_figures(tmp_path: Path) -> None:
    with deployed(tmp_path, nginx={"metrics_from": ["192.0.2.1"]}) as (stage, _):
        assert stage.get("/metrics")[0] == 403


def hurried(text: str) -> str:
    """The rules for a Prometheus that looks each second: the same series and comparisons, over seconds."""
    text = re.sub(r"\[\d+[mh]\]", "[8s]", text)
    return re.sub(r'for: "[^"]*"', 'for: "0s"', text)
