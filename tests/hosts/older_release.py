"""A deployment as older releases have installed it."""

import json
from hashlib import sha256

from generator.host.store import PRISTINE
from tests.hosts.console import NAME, Console

_UNITS = "/etc/systemd/system"


def as_nginx_came_to_the_port(console: Console) -> None:
    """One listener, which nginx and the programs of the host share, as up to 0.1."""
    current = console.host.root / f"opt/{NAME}/generations/{console.current()}"
    manifest = json.loads((current / "manifest.json").read_text())
    files = {file["path"]: file for file in manifest["files"]}
    unit, socket = (f"etc/systemd/system/{NAME}.{kind}" for kind in ("service", "nginx.socket"))
    directories = f"etc/tmpfiles.d/{NAME}.conf"
    for path, old, new in (
        (f"etc/nginx/sites-available/{NAME}", f"unix:/run/{NAME}/ws.sock", "127.0.0.1:8765"),
        (f"etc/{NAME}/.env", f"'/run/{NAME}/ws.sock'", "''"),
        (unit, f"Wants={NAME}.nginx.socket\nAfter={NAME}.nginx.socket\n", ""),
    ):
        text = (current / path).read_text().replace(old, new)
        for directory in (current, current / PRISTINE):
            (directory / path).write_text(text)
        files[path]["sha256"] = sha256(text.encode()).hexdigest()
    del files[socket]
    files[directories]["installed"] = False
    (current / "manifest.json").write_text(json.dumps({**manifest, "files": list(files.values())}))
    console.run("systemctl", "stop", f"{NAME}.socket", f"{NAME}.service")
    console.run("cp", f"/opt/{NAME}/current/{unit}", f"/{unit}")
    console.run("rm", f"/{socket}", f"/{directories}")
    console.run("systemctl", "daemon-reload")
    console.run("systemctl", "start", f"{NAME}.socket", f"{NAME}.service")
    console.run("systemctl", "reload", "nginx")


def as_an_older_release_installed_it(console: Console) -> None:
    """As up to 0.1: units, and what else systemd reads early, are links; no drop-in says what waits for /opt."""
    current = console.host.root / f"opt/{NAME}/generations/{console.current()}"
    manifest = json.loads((current / "manifest.json").read_text())
    files = [file for file in manifest["files"] if ".service.d/" not in file["path"]]
    (current / "manifest.json").write_text(json.dumps({**manifest, "files": files}))
    record = json.loads((current / "generation.json").read_text())
    del record["has_files"]
    (current / "generation.json").write_text(json.dumps(record))
    early = (".service", ".socket", f"sysusers.d/{NAME}.conf", f"tmpfiles.d/{NAME}.conf")
    for path in [file["path"] for file in files if file["installed"] and file["path"].endswith(early)]:
        console.run("ln", "-sf", f"/opt/{NAME}/current/{path}", f"/{path}")
    for kind, target in (("service", "multi-user"), ("socket", "sockets")):
        console.run("ln", "-sf", f"../{NAME}.{kind}", f"{_UNITS}/{target}.target.wants/{NAME}.{kind}")
    console.run("rm", "-r", f"{_UNITS}/nginx.service.d")
    console.run("systemctl", "daemon-reload")
