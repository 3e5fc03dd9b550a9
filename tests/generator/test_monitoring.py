"""What Prometheus and Grafana get: Prometheus' own programs judge the rules, and each alert fires when it should."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from generator.config.schema import Deploy
from generator.paths import Paths
from generator.readers.processes import side_by_side
from generator.readers.prometheus import monitoring
from generator.rendering import dashboard
from generator.rendering.alerts import PREFIX, RULES, alerts
from generator.rendering.render import render
from service.core.figures import FIGURES
from tests.generator.readings import broken, changed, nothing_installed
from tests.programs import needs
from tools.alerts_table import PAGE, with_alerts

PATHS = Paths("chat")
# A deployment that has every alert.
WHOLE: dict[str, Any] = {"workers": 4, "origins": ["https://a.org"], "auth": "token", "mailbox": {"keep": "disk"}}
HOSTS: dict[str, Any] = {"engine": {"url": "valkeys://10.0.0.5:6379"}, "workers": 4}
_PROCESS = ("resident_memory_bytes", "virtual_memory_bytes", "cpu_seconds_total", "open_fds", "max_fds")
KNOWN = {
    *(figure.series for figure in FIGURES if figure.by_worker != "only"),
    *(figure.series_by_worker for figure in FIGURES if figure.by_worker),
    *(f"{figure.series}_bucket" for figure in FIGURES if figure.kind == "histogram"),
    *(f"process_{name}" for name in (*_PROCESS, "start_time_seconds")),
    "up",
}
LABELS = {figure.label: {str(value) for value in figure.values} for figure in FIGURES if figure.label}


def deploy(**settings: Any) -> Deploy:
    return msgspec.convert({"domain": "ws.example.com", "name": "chat", **settings}, Deploy)


def text(path: str, **settings: Any) -> str:
    return next(file.text for file in render(deploy(**settings)).files if file.path == path)


def expressions() -> dict[str, str]:
    rules = {alert.name: alert.expr for settings in (WHOLE, HOSTS) for alert in alerts(deploy(**settings))}
    panels = dashboard.queries(text(PATHS.dashboard, **HOSTS))
    return {**rules, **{f"query {number}": query for number, query in enumerate(panels)}}


def test_the_page_has_the_alerts_as_they_are_declared() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_alerts(page) == page


def test_what_is_asked_for_are_series_that_the_service_has() -> None:
    for where, expression in expressions().items():
        asked = re.findall(r"([a-z_]+)\{job=\"chat\"", expression)
        assert asked, where
        assert set(asked) <= KNOWN, where
        for label, value in re.findall(r"(status|code|reason|direction|limit)=\"(\w+)\"", expression):
            assert value in LABELS[label], where


def test_every_figure_has_a_panel_and_none_has_two() -> None:
    placed = [name for names in dashboard.ROWS.values() for name in names]
    assert sorted(placed) == sorted(set(placed))
    assert set(placed) <= {figure.name for figure in FIGURES}
    asked = " ".join(dashboard.queries(text(PATHS.dashboard, **HOSTS)))
    # The limits are lines in panels; of a histogram there are the buckets; the processes are bounded and restarted.
    elsewhere = {"up", "wsbundle_limit", "wsbundle_delivery_seconds"}
    elsewhere |= {"process_virtual_memory_bytes", "process_start_time_seconds"}
    assert [series for series in KNOWN - elsewhere if series not in asked] == []


def test_the_limits_are_those_of_deploy_yaml() -> None:
    settings = {"limits": {"connections": 500}, "workers": 3}
    by_name = {alert.name: alert.expr for alert in alerts(deploy(**settings))}
    assert by_name["WsbundleFull"].startswith('wsbundle_connections{job="chat"} >= 500 or ')
    assert '(wsbundle_connections{job="chat"} >= 400 and ' in by_name["WsbundleFull"]
    assert by_name["WsbundleNearlyFull"] == 'wsbundle_connections{job="chat"} > 400'
    assert by_name["WsbundleWorkerMissing"] == 'wsbundle_workers{job="chat"} < 3'
    panels = json.loads(text(PATHS.dashboard, **settings))["panels"]
    (of_connections,) = [panel for panel in panels if panel["title"] == "Connections"]
    assert of_connections["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]["value"] == 500


def test_a_deployment_has_no_alert_that_cannot_fire() -> None:
    without = {PREFIX + rule.name for rule in RULES} - {alert.name for alert in alerts(deploy())}
    assert without == {
        *("WsbundleRefusesTokens", "WsbundleRefusesPages", "WsbundleWorkerMissing", "WsbundleMailboxFull"),
        *("WsbundleMailboxFailing", "WsbundleEngineAway"),
    }
    found = {alert.name for settings in (WHOLE, HOSTS) for alert in alerts(deploy(**settings))}
    assert found == {PREFIX + rule.name for rule in RULES}
    assert "engine" not in text(PATHS.dashboard)


@pytest.mark.parametrize(
    ("settings", "scheme", "target"),
    [
        ({}, "http", "127.0.0.1:8765"),
        ({"host": "::1"}, "http", "[::1]:8765"),
        ({"nginx": {"metrics_from": ["10.0.7.5"]}}, "http", "ws.example.com:80"),
        ({"nginx": {"metrics_from": ["10.0.7.5"]}, "tls": "letsencrypt"}, "https", "ws.example.com:443"),
        ({"port": "none"}, "http", "ws.example.com:80"),
    ],
)
def test_prometheus_is_sent_where_it_gets_an_answer(settings: dict[str, Any], scheme: str, target: str) -> None:
    (job,) = yaml.safe_load(text(PATHS.scraping, **settings))["scrape_configs"]
    assert (job["job_name"], job["scheme"], job["static_configs"]) == ("chat", scheme, [{"targets": [target]}])


def test_the_target_of_one_of_several_hosts_says_that_there_are_others() -> None:
    note = "This is one of several hosts"
    assert note in text(PATHS.scraping, engine={"url": "unix:///run/valkey/engine.sock"})
    assert note not in text(PATHS.scraping)


def test_panels_lie_beside_each_other_and_have_their_numbers() -> None:
    panels = json.loads(text(PATHS.dashboard))["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


# How Prometheus judges them


@needs("promtool")
@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        (PATHS.alerts, "expr:", "exprr:"),
        (PATHS.alerts, ">= 1000", ">== 1000"),
        (PATHS.alerts, '"5m"', '"5mm"'),
        (PATHS.scraping, "scrape_configs", "scrape_config"),
        (PATHS.scraping, "job_name", "zjob_name"),
    ],
)
def test_promtool_refuses_what_prometheus_would(path: str, old: str, new: str, tmp_path: Path) -> None:
    ((verdict,),) = side_by_side([monitoring(broken(render(deploy()), path, old, new), tmp_path)])
    assert (verdict.state, {fault.path for fault in verdict.faults}) == ("refused", {path})


@needs("promtool")
def test_a_rule_that_is_there_twice_is_refused_though_promtool_calls_it_lint(tmp_path: Path) -> None:
    def repeated(text: str) -> str:
        return text + text[text.index("      - alert") : text.index("      - alert", text.index("- alert") + 1)]

    ((verdict,),) = side_by_side([monitoring(changed(render(deploy()), PATHS.alerts, repeated), tmp_path)])
    assert verdict.state == "refused"


@needs("promtool")
def test_promtool_accepts_what_is_rendered(tmp_path: Path) -> None:
    ((verdict,),) = side_by_side([monitoring(render(deploy(**WHOLE)), tmp_path)])
    assert (verdict.state, verdict.faults) == ("accepted", ())


def test_without_promtool_nothing_is_accepted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with nothing_installed(monkeypatch, tmp_path):
        ((verdict,),) = side_by_side([monitoring(render(deploy()), tmp_path)])
    assert (verdict.state, verdict.why) == ("not checked", "promtool is not installed")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (
            "echo 'panic: runtime error: index out of range'; exit 2",
            "status 2: panic: runtime error: index out of range",
        ),
        (
            "echo \"promtool: error: unknown long flag '--lint-fatal', try --help\"; exit 1",
            "status 1: promtool: error: un",
        ),
        ("exit 127", "status 127: "),
        ("kill -SEGV $$", "was ended by SIGSEGV"),
    ],
)
def test_a_promtool_that_fails_itself_has_refused_nothing(
    program: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "promtool").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "promtool").chmod(0o755)
    with nothing_installed(monkeypatch, tmp_path):
        ((verdict,),) = side_by_side([monitoring(render(deploy()), tmp_path / "root")])
    assert (verdict.state, verdict.faults) == ("not checked", ())
    assert why in str(verdict.why)


HOST = 'job="chat",instance="a"'
# For each alert: series with which it fires, and one of them as it is when all is well. `0+30x80`: 30 more each 15 s.
FIRES: dict[str, tuple[dict[str, str], str]] = {
    "Down": ({"up": "0x80"}, "1x80"),
    "Full": ({"wsbundle_connections": "1000x80"}, "999x80"),
    "NearlyFull": ({"wsbundle_connections": "801x80"}, "800x80"),
    "WorkerMissing": ({"wsbundle_workers": "3x80"}, "4x80"),
    "WorkerStuck": ({"wsbundle_workers_counted": "3x80", "wsbundle_workers": "4x80"}, "4x80"),
    "EngineAway": ({"wsbundle_engine_up": "0x80"}, "1x80"),
    "Restarts": (
        {
            **{f'wsbundle_worker_start_time_seconds{{worker="{pid}"}}': f"_x{pid} 1x70" for pid in range(9)},
            "wsbundle_workers": "2x80",
        },
        "_x80",
    ),
    "LoopLate": ({"wsbundle_loop_lag_seconds": "0.6x80"}, "0.4x80"),
    "Busy": ({"process_cpu_seconds_total": "0+50x80", "wsbundle_workers": "4x80"}, "0+45x80"),
    "DeliverySlow": (
        {
            'wsbundle_delivery_seconds_bucket{le="1.0"}': "0+5x80",
            'wsbundle_delivery_seconds_bucket{le="2.5"}': "0+10x80",
            'wsbundle_delivery_seconds_bucket{le="+Inf"}': "0+10x80",
        },
        "0+10x80",
    ),
    "SlowClients": ({'wsbundle_connections_closed_total{code="4101"}': "0+2x80"}, "0+1x80"),
    "RefusesAddresses": ({'wsbundle_handshakes_refused_total{status="429"}': "0+16x80"}, "0+14x80"),
    "RefusesPages": ({'wsbundle_handshakes_refused_total{status="403"}': "0+16x80"}, "0+14x80"),
    "RefusesTokens": ({'wsbundle_handshakes_refused_total{status="401"}': "0+16x80"}, "0+14x80"),
    "MessagesMiss": (
        {
            'wsbundle_messages_dropped_total{reason="nobody"}': "0+10x80",
            "wsbundle_messages_routed_total": "0+8x80",
        },
        "0+9x80",
    ),
    "MailboxFull": ({'wsbundle_messages_dropped_total{reason="mailbox_full"}': "0+1x80"}, "0+0x80"),
    "MailboxFailing": ({"wsbundle_mailbox_failing": "1x80"}, "0x80"),
    "FilesRunOut": ({"process_open_fds": "950x80", "process_max_fds": "1000x80"}, "900x80"),
}


def named(series: str) -> str:
    """A series with the labels of a host besides its own."""
    name, brace, labels = series.partition("{")
    return f"{name}{{{HOST},{labels}" if brace else f"{name}{{{HOST}}}"


def fires(rules: Path, name: str, series: dict[str, str]) -> bool:
    """Whether an alert fires after twenty minutes."""
    given = [{"series": named(each), "values": values} for each, values in series.items()]
    case = {"eval_time": "20m", "alertname": PREFIX + name, "exp_alerts": []}
    group = {"interval": "15s", "input_series": given, "alert_rule_test": [case]}
    tests = {"rule_files": [str(rules)], "tests": [group]}
    file = rules.with_name(f"{name}.yaml")
    file.write_text(yaml.safe_dump(tests))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or f"alertname: {PREFIX}{name}, time: 20m" in done.stdout + done.stderr, done.stderr
    return done.returncode != 0  # none was expected


@needs("promtool")
@pytest.mark.parametrize(("connections", "refused", "is_full"), [(800, 1, True), (800, 0, False), (799, 1, False)])
def test_it_is_full_where_clients_are_refused_near_the_limit(
    connections: int, refused: int, is_full: bool, tmp_path: Path
) -> None:
    """Not where a service that stops refuses them."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(text(PATHS.alerts))
    series = {
        "wsbundle_connections": f"{connections}x80",
        'wsbundle_handshakes_refused_total{status="503"}': f"0+{refused}x80",
        'wsbundle_handshakes_refused_total{status="403"}': "0+9x80",
    }
    assert fires(rules, "Full", series) == is_full


def test_an_alert_says_what_is_wrong_and_what_to_do_about_it() -> None:
    for rule in RULES:
        assert rule.meaning != rule.advice
        assert rule.meaning[0].islower()  # behind the name of the host
        assert rule.advice[0].isupper()
    (group,) = yaml.safe_load(text(PATHS.alerts))["groups"]
    full = next(rule["annotations"] for rule in group["rules"] if rule["alert"] == "WsbundleFull")
    assert full["summary"] == "chat on {{ $labels.instance }}: it is full: new clients are refused with 503"
    assert full["description"].startswith("Raise limits.connections")


@needs("promtool")
@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_an_alert_fires_when_it_should_and_not_before(name: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(text(PATHS.alerts, **(HOSTS if name == "EngineAway" else WHOLE)))
    series, well = FIRES[name]
    assert fires(rules, name, series)
    assert not fires(rules, name, {**series, next(iter(series)): well})
