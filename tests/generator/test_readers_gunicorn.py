"""gunicorn's own settings judge gunicorn.conf.py."""

import sys

import pytest

from generator.readers import gunicorn
from tests.generator.readings import NAME, broken, changed, fault, line_of, rendered, verdict

CONF = f"etc/{NAME}/gunicorn.conf.py"


@pytest.fixture
def installed() -> None:
    pytest.importorskip("gunicorn")


@pytest.mark.parametrize("settings", [{}, {"manager": "supervisor", "socket": f"/run/{NAME}/ws.sock"}])
def test_every_kind_of_configuration_is_accepted(installed: None, settings: dict[str, object]) -> None:
    assert verdict(gunicorn.settings, rendered(server="gunicorn", **settings)).state == "accepted"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("workers = 1", "workerz = 1", "workerz is not a setting of gunicorn, which would ignore it"),
        ("workers = 1", "workers = 'many'", "workers: invalid literal for int()"),
        ("workers = 1", "workers = -1", "workers: Value must be positive"),
        ("timeout = 30", "timeout = [30]", "timeout: int() can't convert"),
        ("control_socket_disable = True", "control_socket_disable = 'perhaps'", "control_socket_disable: "),
        ("worker_class = 'service.worker.Worker'", "worker_class = 5", "worker_class: "),
        ("forwarded_allow_ips = ", "forwarded_allow_ips = 5 #", "forwarded_allow_ips: "),
        ("loglevel = ", "def on_startin(server): pass\nloglevel = ", "on_startin is not a setting"),
        ("loglevel = ", "if True:\n    log_levle = 1\nloglevel = ", "log_levle is not a setting"),
    ],
)
def test_a_fault_is_told_at_its_line(installed: None, old: str, new: str, message: str) -> None:
    bundle = broken(rendered(), CONF, old, new)
    found = fault(gunicorn.settings, bundle)
    assert (found.path, found.line) == (
        CONF,
        line_of(bundle, CONF, message.split(" ")[0].rstrip(":") if "def" not in new else "def"),
    )
    assert message in found.message


def test_all_faults_are_told_at_once(installed: None) -> None:
    bundle = changed(rendered(), CONF, lambda text: text + "workerz = 4\ntimeot = 5\n")
    assert [each.message.split()[0] for each in verdict(gunicorn.settings, bundle).faults] == ["workerz", "timeot"]


def test_what_is_private_or_imported_is_no_setting(installed: None) -> None:
    bundle = changed(rendered(), CONF, lambda text: text + "import os\n_cores = os.cpu_count()\n")
    assert verdict(gunicorn.settings, bundle).state == "accepted"


def test_a_configuration_that_fails_when_it_runs_is_refused(installed: None) -> None:
    found = fault(gunicorn.settings, changed(rendered(), CONF, lambda text: text + "workers = undefined_name\n"))
    assert "NameError: name 'undefined_name' is not defined" in found.message


def test_what_is_no_python_is_refused_even_without_gunicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gunicorn", None)
    bundle = broken(rendered(), CONF, "workers = 1", "workers = (1")
    found = fault(gunicorn.settings, bundle)
    assert (found.path, found.line) == (CONF, line_of(bundle, CONF, "workers = (1"))


def test_without_gunicorn_the_settings_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gunicorn", None)
    said = verdict(gunicorn.settings, rendered())
    assert (said.state, said.why) == ("not checked", "gunicorn is not installed")
