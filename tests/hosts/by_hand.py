"""Hosts that somebody has set up by hand, as the old guide says: a unit or a program, a site, a line in nginx.conf."""

import re
from pathlib import Path

from tests.hosts.console import DOMAIN, NAME, Console

OLD = "queue-websocket"
NEW = "notification-center"
PORT = 8765
PROJECT = "/home/deploy/queue-manager"
UNIT = f"/etc/systemd/system/{OLD}.service"
PROGRAM = f"/etc/supervisor/conf.d/{OLD}.conf"
SITE = f"/etc/nginx/sites-enabled/{OLD}"
AWAY = f"/var/backups/{NEW}.by-hand"
FILE = "taken.yaml"
_SAMPLES = Path(__file__).parent.parent / "by_hand"


def set_up(console: Console, sample: str, module: str = "service.app:app") -> None:
    """Do what the guide says, with the files of a sample; the code is this project's own service."""
    console.run("useradd", "--create-home", "deploy")
    console.run("sh", "-c", f"mkdir -p {PROJECT} && cp -a /opt/{NAME}/runtimes/*/. {PROJECT}")
    console.run("mkdir", f"{PROJECT}/logs")
    console.run("chown", "-R", "deploy:", PROJECT)
    console.run("sed", "-i", r"s/^http {/http { map $http_upgrade $connection_upgrade { default upgrade; '' close; }/",
                "/etc/nginx/nginx.conf")  # fmt: skip
    for source in (_SAMPLES / sample).iterdir():
        text = re.sub(r"(ws|push)\.mycompany\.org", DOMAIN, source.read_text()).replace("web.server:app", module)
        # One process: several of the guide's know nothing of each other's clients.
        text = text.replace("--workers 4", "--workers 1").replace("numprocs=4", "numprocs=1")
        if source.suffix == ".service":
            console.write(UNIT, text)
        elif source.suffix == ".conf":
            console.write(PROGRAM, text)
        elif source.name == OLD:
            console.write(f"/etc/nginx/sites-available/{OLD}", text.replace(":9000", f":{PORT}"))
        elif source.name in (".env", "gunicorn.conf.py"):
            console.write(f"{PROJECT}/{source.name}", text)
    console.run("ln", "-s", f"/etc/nginx/sites-available/{OLD}", SITE)
    console.run("nginx", "-t", "-q")
    console.run("systemctl", "restart", "nginx")
    if console.run("sh", "-c", f"test -e {UNIT} && echo unit || true"):
        console.run("systemctl", "daemon-reload")
        console.run("systemctl", "enable", "--now", OLD)
    else:
        console.run("systemctl", "enable", "--now", "supervisor")
        console.run("supervisorctl", "update")
    assert console.comes_to_route()


def old_runs(console: Console) -> bool:
    """Whether the old service listens on its port."""
    return bool(console.run("ss", "-Hltn", f"sport = :{PORT}"))


def new_runs(console: Console) -> bool:
    return console.is_active(f"{NEW}.service") or "RUNNING" in console.run(
        "sh", "-c", f"supervisorctl status {NEW} || true"
    )


def files(console: Console) -> str:
    """What of the old service stands where it was, with its content."""
    where = f"{UNIT} {PROGRAM} {SITE} /etc/systemd/system/multi-user.target.wants/{OLD}.service"
    return console.run("sh", "-c", f"for f in {where}; do ls -l $f; cat $f; done 2>/dev/null || true")
