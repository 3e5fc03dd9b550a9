"""The hook that certbot runs, really run, with stand-ins for nginx, systemctl and systemd-run."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from generator.host.certificates import Place
from tests.generator.readings import NAME, rendered, text_of

HOOK = f"etc/letsencrypt/renewal-hooks/deploy/{NAME}"
LINEAGE = f"etc/letsencrypt/live/{NAME}"
RELOAD = "systemctl try-reload-or-restart nginx"
LATER = f"systemd-run --quiet --unit={Place(NAME).retry} -p Restart=on-failure -p RestartSec=15min "
LATER += f"sh -c nginx -t -q && {RELOAD}"


def run(root: Path, hook: str, renewed: str | None, nginx_status: int = 0) -> tuple[int, list[str]]:
    """Exit status and the commands that were run, on a host below `root`."""
    for directory in (LINEAGE, f"etc/{NAME}", "placeholder", "bin"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    tls = root / "etc" / NAME / "tls"
    tls.unlink(missing_ok=True)
    tls.symlink_to(root / "placeholder")
    calls = root / "calls"
    calls.write_text("")
    for name, status in (("nginx", nginx_status), ("systemctl", 0), ("systemd-run", 0)):
        program = root / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $*" >> {calls}\nexit {status}\n')
        program.chmod(0o755)
    script = root / "hook"
    script.write_text(re.sub(r"(?<=[\s=])/etc/", f"{root}/etc/", hook))
    environment = {"PATH": f"{root}/bin:{os.environ['PATH']}"}
    if renewed is not None:
        environment["RENEWED_LINEAGE"] = renewed
    ended = subprocess.run(["/bin/sh", str(script)], env=environment, capture_output=True, check=False)
    return ended.returncode, calls.read_text().split("\n")[:-1]


def target(root: Path) -> Path:
    return (root / "etc" / NAME / "tls").readlink()


def misbehaviour(root: Path, hook: str) -> str | None:
    """What the hook does wrong, if it does."""
    ours = f"{root}/{LINEAGE}"
    if run(root, hook, ours) != (0, ["nginx -t -q", RELOAD]) or target(root) != Path(ours):
        return "our renewed certificate is not put into use"
    for other in (f"{ours}-other", None):
        if run(root, hook, other) != (0, []) or target(root) != root / "placeholder":
            return f"it acts on {other}"
    status, commands = run(root, hook, ours, nginx_status=1)
    if status != 1 or commands != ["nginx -t -q", LATER]:
        return "it hides a configuration that nginx refuses, reloads in spite of it, or does not try again"
    if sorted(path.name for path in (root / "etc" / NAME).iterdir()) != ["tls"]:
        return "it leaves something behind"
    in_the_way = root / "etc" / NAME / "tls.new"
    in_the_way.mkdir()
    status, commands = run(root, hook, ours)
    shutil.rmtree(in_the_way)
    if status == 0 or commands:
        return "it reloads nginx though nothing leads it to the new certificate"
    return None


def test_a_renewed_certificate_is_put_into_use_and_no_other(tmp_path: Path) -> None:
    assert misbehaviour(tmp_path, text_of(rendered(tls="letsencrypt"), HOOK)) is None


def test_no_line_of_the_hook_could_be_lost_or_misspelt_unseen(tmp_path: Path) -> None:
    lines = text_of(rendered(tls="letsencrypt"), HOOK).split("\n")
    for number, line in enumerate(lines):
        if not line or line.startswith("#"):
            continue
        for mutated in ([], [re.sub(r"^(\s*)(\w)", r"\1\2z", line)]):
            hook = "\n".join([*lines[:number], *mutated, *lines[number + 1 :]])
            assert misbehaviour(tmp_path, hook), f"{mutated or 'without'}: {line}"
