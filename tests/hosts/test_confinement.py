"""What the service can do on a host if it were taken over: each promise that a comment of its unit makes."""

import json
from typing import Any

import pytest

from tests.hosts.console import NAME, Console

UNIT = f"/etc/systemd/system/{NAME}.service"
# Runs in the place of the service, as what has taken it over would; says as JSON what it could do. The code becomes the
# service's own before, so that only what the unit says protects it.
INTRUDER = r"""
import ctypes, errno, json, os, resource, shutil, socket, subprocess, sys

def tried(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "done"

def run_from(directory):
    program = f"{directory}/dropped"
    shutil.copyfile("/bin/true", program)
    os.chmod(program, 0o755)
    return tried(lambda: subprocess.run([program], check=True))

def load_from(directory):
    library = f"{directory}/dropped.so"
    shutil.copyfile(LIBRARY, library)
    return tried(lambda: ctypes.CDLL(library))

def writes_in(directory):
    path = f"{directory}/.intruder"
    outcome = tried(lambda: write(path))
    if os.path.exists(path):
        os.unlink(path)
    return outcome == "done"

def write(path):
    with open(path, "wb") as file:
        file.write(b"-")

def overwrite(path):
    return tried(lambda: open(path, "r+b").close())

def run_from_memory():
    memory = os.memfd_create("dropped", 0)
    with open("/bin/true", "rb") as program:
        os.write(memory, program.read())
    subprocess.run([f"/proc/self/fd/{memory}"], pass_fds=[memory], check=True)

def connect():
    with socket.socket(socket.AF_INET) as out:
        out.connect(("127.0.0.1", 80))

LIBRARY = next(line.split()[-1] for line in open("/proc/self/maps") if "/libc.so" in line)
CODE = os.path.realpath("/opt/NAME/current")
mounts = {line.split()[4] for line in open("/proc/self/mountinfo")}
directories = {*filter(os.path.isdir, mounts), "/", *"/etc /opt /usr /var /home /root /srv /run".split(), CODE}
writable = sorted(directory for directory in directories if writes_in(directory))
files = (f"{CODE}/service/app.py", f"{CODE}/venv/pyvenv.cfg", "/etc/NAME/.env", "/usr/local/lib/intruder.py")
seen = {
    "writable": writable,
    "runs from": [directory for directory in writable if run_from(directory) == "done"],
    "loads from": [directory for directory in writable if load_from(directory) == "done"],
    "runs from memory": tried(run_from_memory),
    "overwrites": {path: overwrite(path) for path in files},
    "connects": tried(connect),
    "processes": sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "runs what is installed": tried(lambda: subprocess.run(["/bin/sh", "-c", "/sbin/ldconfig --version"], check=True)),
}
print("SEEN", json.dumps(seen), flush=True)
"""


@pytest.fixture
def seen(installed: Console) -> dict[str, Any]:
    """What an intruder could do who runs as the rendered unit says."""
    installed.install(workers=2)  # for the directory in which they meet
    installed.write("/usr/local/lib/intruder.py", INTRUDER.replace("NAME", NAME))
    installed.run("chown", "-R", NAME, f"/opt/{NAME}/runtimes")
    installed.run("chown", NAME, f"/etc/{NAME}/.env", "/usr/local/lib/intruder.py")
    unit = installed.run("cat", UNIT)
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    unit = unit.replace(command, f"ExecStart=/opt/{NAME}/current/venv/bin/python /usr/local/lib/intruder.py")
    for line in ("Type=notify", "Restart=always", "WatchdogSec=20", f"Requires={NAME}.socket"):
        assert line in unit, line
        unit = unit.replace(line, "Type=oneshot" if line == "Type=notify" else "")
    installed.write("/etc/systemd/system/intruder.service", unit)
    installed.run("systemctl", "stop", f"{NAME}.socket", f"{NAME}.service")
    installed.run("systemctl", "daemon-reload")
    installed.run("systemctl", "start", "intruder", check=False)
    said = installed.run("journalctl", "--unit=intruder", "--output=cat")
    assert "SEEN" in said, said
    found: dict[str, Any] = json.loads(said.rpartition("SEEN ")[2].splitlines()[0])
    return found


def test_what_has_taken_the_service_over_can_do_what_the_unit_says_and_nothing_more(seen: dict[str, Any]) -> None:
    own = [f"/run/{NAME}/bus", f"/var/lib/{NAME}"]
    assert seen["writable"] == sorted(["/dev/shm", *own, "/tmp", "/var/tmp"])
    assert seen["runs from"] == []
    assert seen["loads from"] == []
    assert seen["runs from memory"] == "EPERM"
    assert set(seen["overwrites"].values()) == {"EROFS"}, seen["overwrites"]
    assert seen["connects"] == "EAFNOSUPPORT"
    assert seen["processes"] == []
    assert seen["core"] == [0, 0]
    assert seen["runs what is installed"] == "done"


@pytest.mark.parametrize("manager", ["systemd", "supervisor"])
def test_the_service_can_change_neither_code_nor_settings_and_only_nginx_reaches_its_socket(
    installed: Console, manager: str
) -> None:
    path = f"/run/{NAME}/ws.sock"
    installed.install(manager=manager, socket=path, workers=2)
    assert installed.routes()
    as_service = ("setpriv", f"--reuid={NAME}", f"--regid={NAME}", "--init-groups")
    ours = (
        f"/opt/{NAME}",
        f"/etc/{NAME}",
        f"/etc/systemd/system/{NAME}.service",
        f"/etc/supervisor/conf.d/{NAME}.conf",
    )
    there = installed.run("sh", "-c", 'ls -d "$@" 2>/dev/null || true', "sh", *ours).split()
    assert len(there) == 3
    of_root = ("-path", "*/pristine", "-prune", "-o")  # nobody else can even look into it
    assert installed.run(*as_service, "find", *there, *of_root, "-writable", "!", "-type", "l", "-print") == ""
    connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{path}')"
    assert installed.run("runuser", "-u", "www-data", "--", "python3", "-c", connect) == ""
    assert "PermissionError" in installed.run("runuser", "-u", "nobody", "--", "python3", "-c", connect, check=False)
    meet = f"/run/{NAME}/bus"
    assert "Permission denied" in installed.run("runuser", "-u", "nobody", "--", "ls", meet, check=False)
