"""A deployment as releases up to 0.1 have installed it."""

import json

from tests.hosts.console import NAME, Console

_UNITS = "/etc/systemd/system"


def as_an_older_release_installed_it(console: Console) -> None:
    """Units, and what else systemd reads early, become links; no drop-in says that anything waits for /opt."""
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
