"""What the doctor sees on the wire, of the rendered files really run; and that it would see another setting."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from msgspec.structs import replace

from generator.config.schema import Deploy
from generator.doctor import of_the_service, stress
from generator.doctor.examine import Finding, chosen, examine
from generator.doctor.patient import Patient
from generator.host.store import Store
from generator.minting import with_keys
from service.declaration import struct_from, values_of
from tests.generator.test_render import OTHER_VALUES
from tests.ports import free_port
from tests.run.stage import NAME, Stage, as_systemd, deployed, nginx, wait_until
from tests.service.processes import several
from tests.service.servers import serving

pytestmark = pytest.mark.slow

ADMITTING = {"handshake_burst": 500, "handshakes_per_second": 500}
# Only where it is waited for: on a busy machine a client may take as long to say the first word.
SHORT = {"hello_timeout": 5, "header_timeout": 5}


@contextmanager
def patient(**settings: Any) -> Iterator[tuple[Patient, Stage]]:
    """A deployment as a host has it, as far as a temporary directory can be one."""
    with (
        TemporaryDirectory(prefix="ws-") as directory,
        deployed(Path(directory), **{"limits": ADMITTING} | settings) as (stage, manager),
    ):
        made = Patient(stage.deploy, Store(stage.deploy.name, stage.root), stage.endpoint)
        made.pid = manager.pid
        yield made, stage


def findings(of: Patient, *only: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(of, chosen(only))}


def expecting(of: Patient, **other: Any) -> Patient:
    """The same deployment, of which deploy.yaml says something else."""
    values = values_of(of.deploy) | other
    changed = Patient(struct_from(Deploy, values), of.store, of.endpoint, of.under_stress)
    changed.pid = of.pid
    return changed


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[Patient, Stage]]:
    """One that lets in some pages, and no load balancer is in front of."""
    with patient(origins=["https://example.com"], welcome="Hello, {uuid}!", limits=ADMITTING | SHORT) as made:
        yield made


# Another value of each setting that shows on the wire, or in the process or its figures.
OTHERWISE: dict[str, object] = {
    "welcome": "Good morning, {uuid}!",
    "ping.interval": 6.0,
    "ping.timeout": 6.0,
    "nginx.idle_limit": 10,
    "limits.message_size": 65535,
    "limits.header_timeout": 9,
    "limits.hello_timeout": 9,
    "limits.registrations": 7,
    "limits.connections": 999,
    "limits.connections_per_address": 99,
    "limits.messages_per_second": 999,
    "limits.bytes_per_second": 65536,
    "limits.queue": 131072,
    "auth": "token",
    "origins": ("https://example.org",),
    "workers": 2,
    "drain.timeout": 9,
    "drain.window": 0,
    "drain.rate": 1,
    "drain.keep": False,
    "log.level": "info",
    "log.format": "json",
    "env": {"RUN_MARK": "another"},
    "server": "gunicorn",
    "nginx.default_server": True,
    "nginx.http_port": 8080,
    "nginx.proxy_protocol": True,
    "nginx.health_from": ("192.0.2.1",),
    "nginx.metrics_from": ("127.0.0.1",),
    "nginx.trusted_proxies": ("127.0.0.1",),
    "nginx.listen": ("0.0.0.0", "192.0.2.1"),
    "engine.url": "valkey://127.0.0.1:6379",
    "tls": "files",
}


def test_a_deployment_that_is_as_it_should_be_has_no_findings(plain: tuple[Patient, Stage]) -> None:
    of, stage = plain
    of = expecting(of, **{"nginx.listen": ("0.0.0.0",), "nginx.http_port": stage.http_port})
    found = findings(of, "message", *OTHERWISE)
    assert {
        name: one.seen for name, one in found.items() if name in {"message", *OTHERWISE} and one.state != "ok"
    } == {}


@pytest.mark.parametrize("key", [key for key in OTHERWISE if key != "nginx.idle_limit"])
def test_a_setting_that_is_not_in_force_is_seen(plain: tuple[Patient, Stage], key: str) -> None:
    of = expecting(plain[0], **{key: OTHERWISE[key]})
    assert findings(of, key)[key].state == "failed"


IN_FORCE = sorted({*of_the_service.IN_FORCE} - {*OTHERWISE, "engine.url"})


@pytest.mark.parametrize("key", IN_FORCE)
def test_a_setting_that_shows_in_the_process_alone_and_is_not_in_force_is_seen(
    plain: tuple[Patient, Stage], key: str
) -> None:
    joined = {"engine.url": "valkey://127.0.0.1:6379"} if key.startswith("engine.") else {}
    served = {"app.callable": "main:app"} if key.startswith("app.") else {}
    of = expecting(plain[0], **{**joined, **served, key: OTHER_VALUES[key]})
    assert findings(of, key)[key].state == "failed"


def test_who_has_a_token_is_let_in_and_others_are_not(tmp_path: Path) -> None:
    keys = str(tmp_path / "keys.json")
    with_keys("new-key", keys, "HS256")
    with patient(auth="token", keys=keys, nginx={"trusted_proxies": ["127.0.0.1"], "default_server": True}) as (of, _):
        found = findings(of, "auth", "ping", "limits.message_size", "nginx.trusted_proxies", "nginx.default_server")
        otherwise = expecting(of, **{"auth": "none", "nginx.trusted_proxies": ()})
        not_so = findings(otherwise, "auth", "nginx.trusted_proxies")
    names = ("auth", "ping.interval", "ping.timeout", "limits.message_size", "nginx.trusted_proxies")
    assert [found[name].state for name in (*names, "nginx.default_server")] == ["ok"] * 6
    assert [not_so[name].state for name in ("auth", "nginx.trusted_proxies")] == ["failed"] * 2


def test_a_name_that_leads_here_and_is_not_the_sites_is_seen() -> None:
    with patient(tls="files", domain=("localhost", "other.example.org"), nginx={"default_server": True}) as (of, _):
        not_so = findings(expecting(of, domain=("localhost", "127.0.0.1")), "domain")["domain"]
        assert findings(expecting(of, domain="localhost"), "domain")["domain"].state == "ok"
    assert (not_so.state, not_so.seen[-42:]) == ("failed", "; nginx takes 127.0.0.1 for another site's")


def test_what_clients_get_of_tls_is_seen() -> None:
    with patient(tls="files") as (of, _):
        found = findings(of, "tls", "message", "limits.message_size")
        not_so = findings(expecting(of, tls="off"), "tls")["tls"]
        no_http2 = findings(expecting(of, **{"app.callable": "main:app"}), "http2")["http2"]
    assert no_http2.state == "failed"
    assert [found[name].state for name in ("message", "limits.message_size")] == ["ok", "ok"]
    assert (found["tls"].state, found["tls"].seen[:7]) == ("ok", "TLSv1.3")
    assert not_so.state == "failed"


STRESS = ("limits.handshake_burst", "limits.handshakes_per_second", "connections-per-address", "slow-reader")


def test_through_the_proxy_protocol_the_same_is_seen() -> None:
    nginx = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.1"]}
    with patient(nginx=nginx, tls="files", ping={"interval": 60, "timeout": 30}) as (of, _):
        names = ("message", "nginx.trusted_proxies", "nginx.health_from", "nginx.https_port", "nginx.proxy_protocol")
        found = findings(expecting(of, **{"nginx.https_port": of.endpoint.ports[True]}), *names)
        assert {name: found[name].seen for name in names if found[name].state != "ok"} == {}
        log = findings(of, "nginx-log")["nginx-log"]
        assert (log.state, log.seen) in (("ok", "none"), ("skipped", log.seen))  # the doctor's own attempt is in it
        other = {"nginx.proxy_protocol": False, "nginx.trusted_proxies": ("192.0.2.1",), "nginx.https_port": 443}
        found = findings(expecting(of, **other), *names)
        assert {name for name in names if found[name].state == "failed"} == {
            "nginx.trusted_proxies",
            "nginx.https_port",
            "nginx.proxy_protocol",
        }


TOO_LITTLE = {"limits": {"bytes_per_second": 4096, "message_size": 4096}, "ping": {"interval": 60, "timeout": 30}}
TOO_SOON = {"limits": {"bytes_per_second": 500_000}, "ping": {"interval": 2, "timeout": 2}}


@pytest.mark.parametrize(("slow", "why"), [(TOO_LITTLE, "lets through too little"), (TOO_SOON, "answers no ping")])
def test_a_queue_that_does_not_fill_in_time_shows_nothing_of_its_limit(slow: dict[str, Any], why: str) -> None:
    with patient(limits=ADMITTING | slow["limits"], ping=slow["ping"]) as (of, _):
        of.under_stress = True
        found = findings(of, "slow-reader")["slow-reader"]
        assert (found.state, why in found.seen) == ("skipped", True)


def test_under_stress_the_limits_of_one_client_hold_and_others_would_be_seen() -> None:
    # So few a second that a busy machine opens more.
    limits = {"handshake_burst": 30, "handshakes_per_second": 5, "connections_per_address": 5, "queue": 70_000}
    files_before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with patient(limits=limits) as (of, _):
        assert {findings(of, *STRESS)[name].state for name in STRESS} == {"skipped"}
        of.under_stress = True
        found = findings(of, *STRESS)
        assert {name: found[name].seen for name in STRESS if found[name].state != "ok"} == {}
        assert resource.getrlimit(resource.RLIMIT_NOFILE) >= files_before
        otherwise = {"limits.handshake_burst": 3000, "limits.handshakes_per_second": 1}
        otherwise |= {"limits.connections_per_address": 3}
        other = expecting(of, **otherwise)
        other.under_stress = True
        found = findings(other, *STRESS[:3])
        assert {found[name].state for name in STRESS[:3]} == {"failed"}


def test_a_machine_that_opens_connections_too_slowly_to_be_refused_shows_no_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stress, "_LONG_ENOUGH_S", 0.5)
    limits = {"handshake_burst": 10, "handshakes_per_second": 10_000, "connections_per_address": 5}
    with patient(limits=limits) as (of, _):
        of.under_stress = True
        found = findings(of, *STRESS[:2])
        assert {found[name].state for name in STRESS[:2]} == {"skipped"}
        assert all("handshakes a second are all that can be made" in found[name].seen for name in STRESS[:2])


def test_the_path_at_which_clients_get_through_is_seen() -> None:
    with patient(nginx={"path": "/ws"}) as (of, _):
        seen = {}
        for path in ("/ws", "/"):
            of = expecting(of, **{"nginx.path": path})
            of.endpoint = replace(of.endpoint, path=path)
            seen[path] = findings(of, "nginx.path")["nginx.path"].state
    assert seen == {"/ws": "ok", "/": "failed"}


def test_an_application_that_does_not_run_from_what_was_installed_last_is_seen(tmp_path: Path) -> None:
    stage = Stage(tmp_path, app={"callable": "main:app"})
    application = stage.root / "code/app"
    application.mkdir()
    (application / "main.py").write_text("async def app(scope, receive, send): await receive()\n")
    with nginx(stage), as_systemd(stage) as manager:
        of = Patient(stage.deploy, Store(stage.deploy.name, stage.root), stage.endpoint)
        of.pid = manager.pid
        current = of.store.home / "current"
        current.mkdir(parents=True)
        for installed, state in ((tmp_path, "failed"), (application, "ok")):
            (current / "app").unlink(missing_ok=True)
            (current / "app").symlink_to(installed)
            assert findings(expecting(of), "app.path")["app.path"].state == state


def test_another_host_that_waits_longer_or_does_not_answer_is_seen(tmp_path: Path) -> None:
    with serving("redis-server", tmp_path) as engine:
        url = f"valkey://127.0.0.1:{engine.port}"
        other = {"WEBSOCKET_ENGINE_URL": url, "WEBSOCKET_ENGINE_NAME": NAME, "WEBSOCKET_ENGINE_HOST": "b"}
        with (
            several("runner", 2, tmp_path / "bus", WEBSOCKET_ENGINE_SILENCE="20", **other) as there,
            patient(engine={"url": url, "host": "a", "silence": 10.0}) as (of, _),
        ):
            names = ("engine-hosts", "silence", "engine-workers")
            wait_until(lambda: expecting(of).count()["engine_links"] == 2, "both workers are met")
            found = findings(expecting(of), *names)
            assert {name: found[name].state for name in names} == {
                "engine-hosts": "ok",
                "silence": "warning",
                "engine-workers": "ok",
            }
            stuck = there.pids()[0]
            os.kill(stuck, signal.SIGSTOP)
            try:
                expecting(of).count()
                silent = findings(expecting(of), "engine-workers")["engine-workers"]
            finally:
                os.kill(stuck, signal.SIGCONT)
            assert silent.state == "warning"
            assert "does not answer: b for " in silent.seen


def test_an_engine_that_is_away_is_seen() -> None:
    with patient(engine={"url": f"valkey://127.0.0.1:{free_port()}"}) as (of, _):
        found = findings(of, "engine")
    assert found["engine-up"].state == "failed"
    # What only systemd knows is not seen where none runs.
    others = found.keys() - {"engine.allow"}
    assert {found[name].state for name in others if name.startswith("engine.")} == {"ok"}


def test_where_no_client_gets_through_that_is_what_failed_and_the_rest_cannot_be_seen() -> None:
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory))
        with nginx(stage):
            of = Patient(stage.deploy, Store(stage.deploy.name, stage.root), stage.endpoint)
            found = findings(of, "message", "welcome", "auth")
    assert (found["message"].state, found["welcome"].state, found["auth"].state) == ("failed", "skipped", "skipped")
    assert "502" in found["message"].seen
    assert "message" in found["welcome"].seen
