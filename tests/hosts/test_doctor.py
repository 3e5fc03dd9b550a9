"""An operator who is woken at night finds the cause: each fault is made on a host, and a line of a command names it.

The faults are made one after another on one host, and taken back; each test says which lines name its fault.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.hosts.conftest import running
from tests.hosts.console import DOMAIN, NAME, PATIENCE_S, Console
from tests.hosts.test_engine import SERVED, engine_of

LIMIT = 8
SETTINGS: dict[str, Any] = {
    "workers": 2,
    "origins": [f"https://{DOMAIN}"],
    "ping": {"interval": 4, "timeout": 4},
    "limits": {
        "connections": LIMIT,
        "connections_per_address": LIMIT,
        "handshake_burst": LIMIT * 4,
        "queue": 70_000,
        "header_timeout": 4,
        "hello_timeout": 4,
    },
}
PAIR = {"file": f"/etc/ssl/{NAME}.pem", "key": f"/etc/ssl/{NAME}.key"}
# So long may it take to find a fault.
MINUTE_S = 60.0
# What a container has of its machine: whether something keeps the clock there right.
OF_THE_MACHINE = {"clock"}
# Three days ago, as the program sees it.
_LATE = """import sys, time
now = time.time
time.time = lambda: now() - 3 * 86_400
sys.argv = ["wsbundle", *sys.argv[1:]]
from generator.__main__ import run
run()
"""


# An application that is ill while there is a file of that name, and tries what it may not.
_APPLICATION = f"""from pathlib import Path

ILL = Path("/var/lib/{NAME}/ill")


async def app(scope, receive, send):
    if scope["type"] == "http":
        if scope["path"] == "/try":
            try:
                Path("/srv/tried").touch()
            except OSError as error:
                print(f"OSError: {{error}}", flush=True)
        status = 503 if ILL.exists() else 200
        await send({{"type": "http.response.start", "status": status, "headers": []}})
        await send({{"type": "http.response.body", "body": b"here"}})
"""
# What opens each of the needs that it has not asked for.
_LOOSER = """[Service]
PrivateNetwork=no
ReadWritePaths=/srv
PrivateDevices=no
NoExecPaths=
MemoryDenyWriteExecute=no
ProcSubset=all
SystemCallFilter=@chown
"""


@pytest.fixture(scope="module")
def there(warm_layers: tuple[Path, ...]) -> Iterator[Console]:
    """A host with two workers, small limits and enough connections of nginx, to which its domain leads."""
    with running(*warm_layers) as console:
        console.run("sh", "-c", f"echo 127.0.0.1 {DOMAIN} >>/etc/hosts")
        console.run("sed", "-i", "s/worker_connections .*;/worker_connections 1024;/", "/etc/nginx/nginx.conf")
        console.install(**SETTINGS)
        yield console


def looked(console: Console, *words: str) -> dict[str, dict[str, Any]]:
    """What the doctor says of each check."""
    done = console.host.run(
        ".venv/bin/wsbundle", "doctor", "--format", "json", *words, check=False, directory="clone"
    ).stdout
    assert "Traceback" not in done, done
    return {each["check"]: each for each in json.loads(done[done.index("{") :])["checks"]}


def findings(console: Console, *words: str) -> dict[str, str]:
    """What it finds within a minute: each check that did not pass, with what was seen."""
    began = time.monotonic()
    found = looked(console, *(words or ("--quick",)))
    assert time.monotonic() - began < MINUTE_S
    return {
        name: f"{each['state']}: {each['seen']}"
        for name, each in found.items()
        if each["state"] in ("failed", "warning") and name not in OF_THE_MACHINE
    }


def comes_to(condition: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextmanager
def clients(console: Console, number: int) -> Iterator[None]:
    with ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(console.client())
        yield


def figures(console: Console) -> dict[str, Any]:
    """What `/stats` says of the whole service."""
    ask = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:8765/stats').read().decode())"
    said = console.run("python3", "-c", ask)
    service: dict[str, Any] = json.loads(said)["service"]
    return service


def test_a_host_that_is_as_it_should_be(there: Console) -> None:
    began = time.monotonic()
    assert findings(there, "--only", "name", "--only", "domain") == {}
    found = looked(there)
    assert {name: each["seen"] for name, each in found.items() if each["state"] == "failed"} == {}
    assert {name for name, each in found.items() if each["state"] == "warning"} <= OF_THE_MACHINE
    assert (found["ping.interval"]["state"], found["ping.timeout"]["state"]) == ("ok", "ok")
    assert (found["drain.keep"]["state"], found["drain.keep"]["seen"]) == ("ok", found["drain.keep"]["expected"])
    assert time.monotonic() - began < 120
    said = there.host.run(".venv/bin/wsbundle", "doctor", "--only", "name", directory="clone").stdout
    assert "ok       name" in said
    assert len(there.run("ls", f"/opt/{NAME}/current/monitoring").split()) == 3


def test_who_is_not_root_sees_less_and_nothing_that_is_wrong(there: Console) -> None:
    as_nobody = ("runuser", "-u", "nobody", "--", ".venv/bin/wsbundle", "doctor", "--quick", "--format", "json")
    there.run("chmod", "755", there.host.home, there.checkout)
    done = there.host.run(*as_nobody, check=False, directory="clone").stdout
    found = {each["check"]: each["state"] for each in json.loads(done[done.index("{") :])["checks"]}
    there.run("chmod", "700", there.host.home)
    assert [name for name, state in found.items() if state == "failed"] == []
    assert (found["message"], found["settings"], found["drift"]) == ("ok", "skipped", "skipped")


def test_it_is_full(there: Console) -> None:
    """Named by doctor: `limits.connections`, `message`; by top: `connections`; by status: `service`."""
    with clients(there, LIMIT):
        found = findings(there, "--only", "limits.connections", "--only", "message")
        assert "8 of 8: it is FULL" in found["limits.connections"]
        assert "503" in found["message"]
        assert "8 of 8" in there.wsbundle("top", "--once")
        assert "NOT ANSWERING" in there.status(code=1)
    comes_to(lambda: findings(there, "--only", "limits.connections") == {})


def test_a_page_is_refused_for_its_origin(there: Console) -> None:
    """Named by doctor: `refusals`; by /stats: `handshakes_refused`."""
    before = figures(there)["handshakes_refused"]["403"]
    to, foreign = (there.host.address, 80), Origin("https://other.example.org")
    with pytest.raises(InvalidStatus), connect(f"ws://{DOMAIN}/", address=to, origin=foreign, proxy=None):
        pass
    assert "1 times 403 (an origin that is not in `origins`)" in findings(there, "--only", "refusals")["refusals"]
    assert figures(there)["handshakes_refused"]["403"] == before + 1


def test_a_client_reads_too_slowly(there: Console) -> None:
    """Named by doctor: `slow-clients`; by /stats: `connections_closed`."""
    assert looked(there, "--stress", "--only", "slow-reader")["slow-reader"]["state"] == "ok"
    assert "slow clients were closed with 4101" in findings(there, "--only", "slow-clients")["slow-clients"]
    assert figures(there)["connections_closed"]["4101"] > 0


def test_a_worker_dies(there: Console) -> None:
    """Named by doctor: `journal`."""
    pids = there.run("pgrep", "--parent", there.main_pids()[f"{NAME}.service"]).split()
    there.run("kill", "-9", pids[0])
    comes_to(lambda: f"worker {pids[0]} ended with -9" in findings(there, "--only", "journal").get("journal", ""))
    comes_to(lambda: "workers" not in findings(there, "--only", "workers"))


def test_a_worker_hangs(there: Console) -> None:
    """Named by doctor: `workers`."""
    pids = there.run("pgrep", "--parent", there.main_pids()[f"{NAME}.service"]).split()
    there.run("kill", "-STOP", pids[0])
    # Whichever worker answers, one of the two does not: a request that the stopped one was given is asked again.
    comes_to(lambda: "1 of 2 do not answer" in findings(there, "--only", "workers").get("workers", ""))
    there.run("kill", "-CONT", pids[0])
    comes_to(lambda: there.comes_to_route() and findings(there, "--only", "workers") == {})


def test_somebody_edited_a_file(there: Console) -> None:
    """Named by doctor: `drift`; by status: the file and the difference."""
    site = f"/etc/nginx/sites-available/{NAME}"
    there.run("sed", "-i", "--follow-symlinks", "$a # by hand", site)
    assert f"{site} was edited" in findings(there, "--only", "drift")["drift"]
    assert "# by hand" in there.status(code=4)
    there.run("sed", "-i", "--follow-symlinks", "$d", site)
    assert findings(there, "--only", "drift") == {}


def test_deploy_yaml_has_changed_and_was_not_installed(there: Console) -> None:
    """Named by doctor: `deployed`, and the setting itself; by status: `deploy.yaml`."""
    there.configure(**{**SETTINGS, "welcome": "Hello, {uuid}!"})
    assert {"deployed", "welcome", "settings"} <= set(findings(there))
    assert "asks for something else" in there.status()
    there.configure(**SETTINGS)


def test_nginx_has_too_few_connections(there: Console) -> None:
    """Named by doctor: `nginx-connections`, and `nginx-log` once a client was refused."""
    there.run("sed", "-i", "s/worker_connections .*;/worker_connections 8;/", "/etc/nginx/nginx.conf")
    there.run("systemctl", "reload", "nginx")
    comes_to(lambda: "nginx-connections" in findings(there, "--only", "nginx-connections"))
    with ExitStack() as stack:
        for _ in range(LIMIT * 3):
            try:
                stack.enter_context(there.client())
            except Exception:
                continue
    found = findings(there, "--only", "limits.connections", "--only", "nginx-log")
    assert "worker_connections are not enough" in found["nginx-log"]
    there.run("sed", "-i", "s/worker_connections .*;/worker_connections 1024;/", "/etc/nginx/nginx.conf")

    def is_told() -> bool:
        """A file must be more than a second younger than the workers."""
        there.run("touch", "/etc/nginx/nginx.conf")
        found = findings(there, "--only", "nginx-reloaded")
        return "changed since nginx read it" in found.get("nginx-reloaded", "")

    comes_to(is_told)
    there.run("systemctl", "restart", "nginx")
    assert findings(there, "--only", "nginx-reloaded", "--only", "nginx-connections") == {}


def test_a_worker_of_nginx_may_open_too_few_files(there: Console) -> None:
    """Named by doctor: `nginx-files`."""
    path = "/etc/nginx/modules-enabled/90-wsbundle.conf"
    there.run("cp", path, "/run/kept.conf")
    there.run("sed", "-i", "--follow-symlinks", "s/^worker_rlimit_nofile .*/worker_rlimit_nofile 1100;/", path)
    there.run("systemctl", "restart", "nginx")
    assert "1100 files" in findings(there, "--only", "nginx-files")["nginx-files"]
    there.run("cp", "/run/kept.conf", path)
    there.run("systemctl", "restart", "nginx")
    assert findings(there, "--only", "nginx-files", "--only", "drift") == {}


def test_another_program_listens_past_nginx(there: Console) -> None:
    """Named by doctor: `expose`."""
    stranger = ("python3", "-m", "http.server", "--bind", there.host.address, "8765")
    there.run("systemd-run", "--unit=stranger", *stranger)
    comes_to(lambda: there.host.address in findings(there, "--only", "expose").get("expose", ""))
    there.run("systemctl", "stop", "stranger")
    comes_to(lambda: findings(there, "--only", "expose") == {})


def test_another_site_breaks_nginx(there: Console) -> None:
    """Named by doctor: `nginx-configuration`."""
    there.write("/etc/nginx/conf.d/foreign.conf", "nonsense;\n")
    found = findings(there, "--only", "nginx-configuration")
    assert "foreign.conf:1" in found["nginx-configuration"]
    there.run("rm", "/etc/nginx/conf.d/foreign.conf")


def test_a_disk_is_full(there: Console) -> None:
    """Named by doctor: `disk`."""
    there.run("sh", "-c", "mount -t tmpfs -o size=20M tmpfs /var/log && head -c 1G /dev/zero >/var/log/filler; true")
    assert "/var/log: 0 MiB (0%) free, FULL" in findings(there, "--only", "disk")["disk"]
    there.run("umount", "/var/log")
    assert "disk" not in findings(there, "--only", "disk")


def test_the_clock_is_wrong(there: Console) -> None:
    """Named by doctor: `clock`. A container has the clock of its machine, so the program is given another one."""
    there.write("late.py", _LATE)
    words = (".venv/bin/python", "late.py", "doctor", "--only", "clock")
    done = there.host.run(*words, check=False, directory="clone")
    assert done.returncode == 1
    assert "it is at least 72 hours behind: " in done.stdout


def test_the_limits_of_the_process_were_lowered(there: Console) -> None:
    """Named by doctor: `open-files` and `drift`."""
    there.write(f"/etc/systemd/system/{NAME}.service.d/low.conf", "[Service]\nLimitNOFILE=100\n")
    there.run("systemctl", "daemon-reload")
    there.run("systemctl", "restart", f"{NAME}.service")
    comes_to(lambda: there.comes_to_route())
    assert "100 files" in findings(there, "--only", "open-files")["open-files"]
    there.run("rm", "-r", f"/etc/systemd/system/{NAME}.service.d")
    there.run("systemctl", "daemon-reload")
    there.run("systemctl", "restart", f"{NAME}.service")
    comes_to(lambda: there.comes_to_route())


def test_a_restart_or_a_reload_would_close_clients(there: Console) -> None:
    """Named by doctor: `drain.keep`, which closes none to see that."""
    drop_in = f"/etc/systemd/system/{NAME}.service.d"
    with there.client() as client:
        for line in ("FileDescriptorStoreMax=0", "RestartKillSignal=SIGTERM"):
            there.write(f"{drop_in}/keep.conf", f"[Service]\n{line}\n")
            there.run("systemctl", "daemon-reload")
            assert line in findings(there, "--only", "drain.keep")["drain.keep"]
            there.run("rm", "-r", drop_in)
            there.run("systemctl", "daemon-reload")
        worker = there.run("pgrep", "--parent", there.main_pids()[f"{NAME}.service"]).split()[0]
        there.run("sh", "-c", f"mkdir /run/away; mv /run/{NAME}/bus/{worker}-*.door /run/away")
        found = findings(there, "--only", "drain.keep")["drain.keep"]
        assert f"failed: no clients can pass to worker {worker} at a reload" in found
        there.run("sh", "-c", f"mv /run/away/* /run/{NAME}/bus; rmdir /run/away")
        assert findings(there, "--only", "drain.keep") == {}
        assert client.ping().wait(PATIENCE_S)


def test_the_service_is_down(there: Console) -> None:
    """Named by doctor: `message`, `name` and `manager`; by status: `service`. The rest cannot be seen, and says so."""
    there.run("systemctl", "stop", f"{NAME}.socket", f"{NAME}.service")
    found = looked(there, "--quick")
    assert {found[name]["state"] for name in ("message", "name", "manager", "port")} == {"failed"}
    assert {found[name]["state"] for name in ("welcome", "settings")} == {"skipped"}
    assert "NOT RUNNING" in there.status(code=1)
    there.run("systemctl", "start", f"{NAME}.socket", f"{NAME}.service")
    comes_to(lambda: there.comes_to_route())


def test_the_engine_is_away(there: Console) -> None:
    """Named by doctor: `engine-up`, `engine.serve` and `engine-hosts`; by top: `engine`; by status: `hosts`."""
    there.install(**SETTINGS, engine=SERVED)
    comes_to(lambda: "engine-up" not in findings(there, "--only", "engine"))
    assert "up, 0 other hosts reached" in there.wsbundle("top", "--once")
    there.run("systemctl", "stop", engine_of(there))
    comes_to(lambda: "does not answer" in findings(there, "--only", "engine").get("engine-up", ""))
    found = findings(there, "--only", "engine")
    assert "does not run" in found["engine.serve"]
    assert found["engine-hosts"].startswith("failed: ")
    assert "away, 0 other hosts reached" in there.wsbundle("top", "--once")
    assert "ALONE: the engine at" in there.status(code=1)
    there.install(**SETTINGS)


def certificate(days: int) -> tuple[str, str]:
    """A certificate for the domain that ends in so many days, and its key; both PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, DOMAIN)])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=90))
    made = made.not_valid_after(now + timedelta(days=days, hours=12))
    signed = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(DOMAIN)]), False).sign(key, hashes.SHA256())
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def put_certificate(console: Console, days: int) -> None:
    for path, text in zip(PAIR.values(), certificate(days), strict=True):
        console.write(path, text)
        console.run("chmod", "600", path)


def test_a_certificate_has_ended(there: Console) -> None:
    """Named by doctor: `certificate`; by status: `certificate`."""
    put_certificate(there, 60)
    there.install(**SETTINGS, tls="files", certificate=PAIR)
    assert {"certificate", "tls"} & set(findings(there, "--only", "certificate", "--only", "tls")) == set()
    there.run("chmod", "644", PAIR["key"])
    assert "open to every user" in findings(there, "--only", "certificate.key")["certificate.key"]
    there.run("rm", PAIR["file"])
    assert findings(there, "--only", "certificate.file")["certificate.file"].startswith("failed: ")
    put_certificate(there, 5)
    there.run("systemctl", "reload", "nginx")
    assert "warning: " in findings(there, "--only", "certificate")["certificate"]
    put_certificate(there, -3)
    there.run("systemctl", "reload", "nginx")
    assert "ended 3 days ago" in findings(there, "--only", "certificate")["certificate"]
    assert "CLIENTS REFUSE IT: ended 3 days ago" in there.status(code=1)


def test_tokens_a_unix_socket_gunicorn_and_supervisor(there: Console) -> None:
    """Named by doctor: `socket`, `keys` and `name`; by status: `service`."""
    by_supervisor: dict[str, Any] = {
        "manager": "supervisor",
        "server": "gunicorn",
        "socket": f"/run/{NAME}/ws.sock",
        "auth": "token",
        "mailbox": {"keep": "disk"},
    }
    there.install(**SETTINGS, **by_supervisor)
    found = looked(there)
    assert {name: each["seen"] for name, each in found.items() if each["state"] == "failed"} == {}
    looks = ("name", "manager", "server", "socket", "keys", "auth", "ping.timeout", "limits.message_size", "settings")
    assert {found[name]["state"] for name in looks} == {"ok"}
    assert found["host"]["state"] == "skipped"
    there.run("chmod", "755", f"/run/{NAME}")
    there.run("chmod", "644", f"/etc/{NAME}/keys.json")
    there.run("chmod", "755", f"/var/lib/{NAME}/mailbox")
    assert "mailbox-closed" in findings(there, "--only", "mailbox-closed")
    found = looked(there, "--only", "socket", "--only", "keys")
    assert found["socket"]["seen"].startswith("anybody of this host can connect")
    assert found["keys"]["seen"].startswith("0644")
    there.run("supervisorctl", "stop", NAME)
    found = looked(there, "--only", "name", "--only", "message")
    assert (found["name"]["state"], found["message"]["state"]) == ("failed", "failed")
    assert "NOT RUNNING" in there.status(code=1)


def test_an_application_is_ill_refused_what_it_tries_and_less_confined_than_it_was(empty: Console) -> None:
    """Named by doctor: `app.health`, `app.static`, `app.body_size`, `refused-needs`, and each of `needs`."""
    home = f"{empty.host.home}/tiny"
    empty.write(f"{home}/main.py", _APPLICATION)
    empty.write(f"{home}/static/hello.txt", "hello")
    app: dict[str, Any] = {"callable": "main:app", "path": home, "requirements": None}
    app |= {"health": "/healthz", "static": {"/static/": "static"}}
    empty.install(app=app)
    assert findings(empty, "--only", "app", "--only", "needs", "--only", "refused-needs") == {}
    ask = (
        "python3",
        "-c",
        f"import urllib.request as r; r.urlopen(r.Request('http://127.0.0.1/try', headers={{'Host': '{DOMAIN}'}}))",
    )
    empty.run(*ask, check=False)
    comes_to(lambda: "'/srv/tried'" in findings(empty, "--only", "refused-needs").get("refused-needs", ""))
    empty.run("touch", f"/var/lib/{NAME}/ill")
    empty.run("chmod", "700", f"/opt/{NAME}/current/app/static")
    site = f"/etc/nginx/sites-available/{NAME}"
    empty.run("sed", "-i", "--follow-symlinks", "s/client_max_body_size .*/client_max_body_size 100m;/", site)
    empty.run("systemctl", "reload", "nginx")
    empty.write(f"/etc/systemd/system/{NAME}.service.d/looser.conf", _LOOSER)
    empty.run("systemctl", "daemon-reload")
    found = findings(empty, "--only", "app", "--only", "needs")
    needs = {f"needs.{name}" for name in "network write devices exec jit host_metrics chown".split()}
    assert {name for name, seen in found.items() if seen.startswith("failed")} >= needs
    assert "503" in found["app.health"]
    assert "/static/ 403" in found["app.static"]
    assert "app.body_size" in found
