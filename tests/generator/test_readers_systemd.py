"""systemd's tools judge the units, the user and the directories."""

from pathlib import Path

import pytest

from generator.readers import systemd
from generator.rendering.bundle import Bundle, File
from tests.generator.readings import (
    NAME,
    Reader,
    broken,
    changed,
    fault,
    line_of,
    nothing_installed,
    rendered,
    verdict,
    verdicts,
)
from tests.programs import needs

SERVICE = f"etc/systemd/system/{NAME}.service"
SOCKET = f"etc/systemd/system/{NAME}.socket"
USER = f"etc/sysusers.d/{NAME}.conf"
DIRECTORIES = f"etc/tmpfiles.d/{NAME}.conf"
ON_UNIX_SOCKET = {"socket": f"/run/{NAME}/ws.sock"}

needs_analyze = needs("systemd-analyze")


@needs_analyze
@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "standalone"])
@pytest.mark.parametrize("listener", [{}, ON_UNIX_SOCKET, {"host": "192.0.2.1", "expose": True}])
def test_every_kind_of_unit_is_accepted(server: str, listener: dict[str, object]) -> None:
    bundle = rendered(server=server, **listener)
    assert verdict(systemd.units, bundle).state == "accepted"
    confined = verdict(systemd.confinement, bundle)
    assert confined.state == "accepted"
    assert confined.exposure is not None
    assert confined.exposure <= systemd.EXPOSURE_LIMIT


@needs_analyze
@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        (SERVICE, "StartLimitBurst=", "StartLimtBurst=", "Unknown key name 'StartLimtBurst' in section 'Unit'"),
        (SERVICE, "Restart=always", "Restrt=always", "Unknown key name 'Restrt' in section 'Service'"),
        (SERVICE, "WantedBy=", "WantdBy=", "Unknown key name 'WantdBy' in section 'Install'"),
        (SOCKET, "Backlog=", "Backlg=", "Unknown key name 'Backlg' in section 'Socket'"),
        (SERVICE, "RestartSec=2", "RestartSec=abc", "abc"),
        (SERVICE, "Type=notify", "Type=notifi", "notifi"),
        (SERVICE, "[Install]", "[Instal]", "Unknown section 'Instal'"),
        (SERVICE, "SystemCallFilter=@system-service", "SystemCallFilter=@no-such-set", "@no-such-set"),
        (SERVICE, "LimitNOFILE=", "LimitNOFILE=x", "x"),
        (SERVICE, "SyslogIdentifier=", "Environment=%!", "%!"),
    ],
)
def test_a_fault_is_told_at_its_line(path: str, old: str, new: str, message: str) -> None:
    bundle = broken(rendered(), path, old, new)
    found = fault(systemd.units, bundle)
    assert (found.path, found.line) == (path, line_of(bundle, path, new))
    # systemd says `Unknown key name 'X' in section 'Y'` before version 252, and without `name` and quotes since.
    for word in message.replace("name ", "").replace("'", "").split(" in section "):
        assert word in found.message.replace("'", "").replace("[", "").replace("]", "").replace("key name", "key")


@needs_analyze
def test_a_command_without_an_absolute_path_is_told() -> None:
    bundle = broken(rendered(), SERVICE, "ExecStart=/bin", "ExecStart=bin")
    found = verdict(systemd.units, bundle).faults
    assert (found[0].path, found[0].line) == (SERVICE, line_of(bundle, SERVICE, "ExecStart=bin"))


@needs_analyze
def test_a_service_without_the_socket_it_requires_is_refused() -> None:
    bundle = rendered()
    without = Bundle(bundle.name, tuple(file for file in bundle.files if file.path != SOCKET))
    found = fault(systemd.units, without)
    assert (found.path, found.line) == (SERVICE, None)
    assert f"Unit {NAME}.socket not found" in found.message


@needs_analyze
def test_a_socket_without_its_service_is_refused() -> None:
    bundle = rendered()
    without = Bundle(bundle.name, tuple(file for file in bundle.files if file.path != SERVICE))
    assert verdict(systemd.units, without).state == "refused"
    assert verdicts(systemd.confinement, without) == []


@needs_analyze
def test_a_drop_in_for_another_unit_is_read_too() -> None:
    path = "etc/systemd/system/supervisor.service.d/limits.conf"
    bundle = rendered()
    extended = Bundle(bundle.name, (*bundle.files, File(path=path, text="[Service]\nLimitNOFILE=4096\n")))
    assert verdict(systemd.units, extended).state == "accepted"
    found = fault(systemd.units, broken(extended, path, "LimitNOFILE", "LimitNOFILES"))
    assert (found.path, found.line) == (path, 2)


@needs_analyze
def test_an_exposed_service_is_refused_and_the_largest_gaps_named() -> None:
    lines = (
        "PrivateNetwork=yes\n",
        "PrivateUsers=yes\n",
        "PrivateDevices=yes\n",
        "ProtectHome=yes\n",
        "CapabilityBoundingSet=\n",
    )
    bundle = rendered()
    for line in lines:
        bundle = broken(bundle, SERVICE, line, "")
    said = verdict(systemd.confinement, bundle)
    assert said.state == "refused"
    assert said.exposure is not None
    assert said.exposure > systemd.EXPOSURE_LIMIT
    assert said.faults[0].path == SERVICE
    assert f"exposure {said.exposure} is above 0.4; most of it from" in said.faults[0].message
    assert "PrivateNetwork= 0.5" in said.faults[0].message


@needs_analyze
def test_one_missing_line_is_too_much_already() -> None:
    assert fault(systemd.confinement, broken(rendered(), SERVICE, "PrivateNetwork=yes\n", "")).path == SERVICE


@needs("systemd-sysusers")
def test_the_user_is_accepted() -> None:
    assert verdict(systemd.user, rendered()).state == "accepted"


@needs("systemd-sysusers")
@pytest.mark.parametrize(("old", "new"), [("u ", "uu "), ("/usr/sbin/nologin", "/usr/sbin/nologin more words here")])
def test_a_bad_user_is_told_at_its_line(old: str, new: str) -> None:
    bundle = changed(rendered(), USER, lambda text: text.replace(f"\n{old}" if old == "u " else old, f"\n{new}"))
    found = verdict(systemd.user, bundle).faults
    assert found
    assert all(each.path == USER and each.line for each in found)


@needs("systemd-tmpfiles")
@pytest.mark.parametrize("settings", [{"tls": "letsencrypt"}, {"manager": "supervisor", **ON_UNIX_SOCKET}])
def test_the_directories_are_accepted(settings: dict[str, object]) -> None:
    assert verdict(systemd.directories, rendered(**settings)).state == "accepted"


@needs("systemd-tmpfiles")
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nd ", "\ndd ", "dd"),
        (" 0755 ", " 07x5 ", "Invalid mode '07x5'"),
        (" root root ", " nobody-of-ours root ", "nobody-of-ours"),
        ("/var/lib", "var/lib", "not absolute"),
    ],
)
def test_a_bad_directory_is_told_at_its_line(old: str, new: str, message: str) -> None:
    bundle = broken(rendered(tls="letsencrypt"), DIRECTORIES, "d /var/lib", "d /var/lib")
    found = fault(systemd.directories, broken(bundle, DIRECTORIES, old, new))
    assert found.path == DIRECTORIES
    assert found.line
    assert message in found.message


@pytest.mark.parametrize(
    ("reader", "tool"),
    [
        (systemd.units, "systemd-analyze"),
        (systemd.confinement, "systemd-analyze"),
        (systemd.user, "systemd-sysusers"),
        (systemd.directories, "systemd-tmpfiles"),
    ],
)
def test_without_the_tool_nothing_is_checked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: Reader, tool: str
) -> None:
    with nothing_installed(monkeypatch, tmp_path):
        said = verdict(reader, rendered())
    assert (said.state, said.why) == ("not checked", f"{tool} is not installed")


def stand_in(monkeypatch: pytest.MonkeyPatch, directory: Path, script: str) -> None:
    """A systemd-analyze that is this script."""
    program = directory / "systemd-analyze"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


def test_systemd_249_which_has_no_strict_mode_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # As Ubuntu 22.04 has it: exit 0 for an unknown key, and the complaint all the same.
    stand_in(
        monkeypatch,
        tmp_path,
        'case "$*" in *--recursive-errors*) echo "$0: unrecognized option \'--recursive-errors=yes\'"; exit 1;; esac\n'
        'case "$*" in *--offline*) echo "$0: unrecognized option \'--offline=true\'"; exit 1;; esac\n'
        'for word; do case "$word" in *.nginx.socket) ;; *.socket) '
        "echo \"$word:5: Unknown key name 'Restrt' in section 'Service', ignoring.\";; esac; done",
    )
    found = fault(systemd.units, rendered())
    assert (found.path, found.line) == (SOCKET, 5)
    said = verdict(systemd.confinement, rendered())
    assert (said.state, said.why) == (
        "not checked",
        "systemd-analyze before 250 cannot judge a unit that is not installed",
    )


def test_a_tool_that_fails_without_naming_our_unit_is_no_judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, "echo Failed to initialize manager; exit 1")
    for reader in (systemd.units, systemd.confinement):
        said = verdict(reader, rendered())
        assert (said.state, said.why) == (
            "not checked",
            "systemd-analyze failed: Failed to initialize manager",
        )


def test_a_tool_that_hangs_is_no_judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch, tmp_path, "exec /bin/sleep 60")
    for reader in (systemd.units, systemd.confinement):
        (said,) = verdicts(reader, rendered(), time_limit_s=0.2)
        assert (said.state, said.why) == ("not checked", "systemd-analyze did not answer within 0.2 s")


@needs_analyze
@pytest.mark.parametrize("network", [["any"], ["10.0.0.5"]])
@pytest.mark.parametrize("listener", [{}, {"socket": f"/run/{NAME}/app.sock"}])
def test_an_application_may_have_all_that_it_can_ask_for(network: list[str], listener: dict[str, str]) -> None:
    app = {"callable": "main:app", "health": "/healthz"}
    asked = {"network": network, "devices": ["/dev/ttyUSB0"], "jit": True, "host_metrics": True, "chown": True}
    asked |= {"exec": True, "write": ["/srv/uploads"]}
    assert verdict(systemd.confinement, rendered(app=app, needs=asked, **listener)).state == "accepted"
