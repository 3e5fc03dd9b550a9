"""The service as users run it: behind nginx with the site that is rendered for it.

    python -m bench.deployed PORT DIRECTORY [SETTING=VALUE ...]

starts nginx on the port, and the service that it passes clients on to, as a deploy.yaml with these settings has them;
whatever they would write on a host, they write below the directory. With `auth=token` a token for the address `honest`
is in the file `token` there. It runs until it is ended or one of them ends.
"""

import grp
import os
import pwd
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.programs import PATH, program
from generator.config.load import load
from generator.config.schema import Deploy, keys_file
from generator.rendering.render import render, settings_in_env
from service.mint import add_key, mint

# What Debian's nginx.conf has where it matters here, with as many connections as it would be told to have.
_MAIN = """\
user {user};
worker_processes 1;
pid run/nginx.pid;
error_log stderr;
events {{ worker_connections 65536; }}
http {{
    client_body_temp_path run/body;
    proxy_temp_path run/proxy;
    fastcgi_temp_path run/fastcgi;
    uwsgi_temp_path run/uwsgi;
    scgi_temp_path run/scgi;
    tcp_nopush on;
    sendfile on;
    include {directory}/etc/nginx/sites-available/*;
}}
"""
_ON_A_HOST = re.compile(r"(?<![\w.}-])/(?=(etc|run|var|opt)/)")


def main(arguments: list[str]) -> int:
    """Run both; the status of the one that ended by itself."""
    port, directory, *settings = arguments
    place = Path(directory)
    deploy = _deploy(place, [f"nginx.http_port={port}", *settings])
    commands = (_nginx(deploy, place), _service(deploy, place))
    if deploy.auth == "token":
        keys = _moved(keys_file(deploy), place)
        add_key(keys, "HS256")
        (place / "token").write_text(mint(keys, "honest", 3600, ["honest"]))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    children: list[subprocess.Popen[bytes]] = []
    try:
        for command, environ in commands:
            children.append(subprocess.Popen(command, cwd=place, env=environ))
        _, status = os.wait()
        return os.waitstatus_to_exitcode(status) or 1
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def _deploy(place: Path, assignments: Iterable[str]) -> Deploy:
    file = place / "deploy.yaml"
    file.write_text(
        "name: bench\ndomain: localhost\ntls: off\nsocket: /run/bench/ws.sock\nnginx: {listen: [127.0.0.1]}\n"
    )
    return load(str(file), assignments=assignments).deploy


def _nginx(deploy: Deploy, place: Path) -> tuple[list[str], dict[str, str]]:
    for file in render(deploy).files:
        if file.path.startswith("etc/") and file.link is None:
            (place / file.path).parent.mkdir(parents=True, exist_ok=True)
            (place / file.path).write_text(_moved(file.text, place))
    for made in ("run/bench", "var/log/nginx", "var/lib/bench"):
        (place / made).mkdir(parents=True, exist_ok=True)
    (place / "nginx.conf").write_text(_MAIN.format(directory=place, user=_user()))
    nginx = program("nginx", "nginx")
    return [nginx, "-p", str(place), "-c", str(place / "nginx.conf"), "-g", "daemon off;"], {"PATH": PATH}


def _service(deploy: Deploy, place: Path) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "service"]
    if deploy.server == "gunicorn":
        configuration = place / "etc/bench/gunicorn.conf.py"
        command = [sys.executable, "-m", "gunicorn", "-c", str(configuration), "service.app:app"]
    environ = {name: _moved(value, place) for name, value in settings_in_env(deploy).items()}
    return command, {"PATH": PATH, "PYTHONPATH": str(Path(__file__).resolve().parent.parent), **environ}


def _user() -> str:
    """Ours, so that nginx may connect to the service's socket: nothing is installed that could share a group."""
    me = pwd.getpwuid(os.getuid())
    return f"{me.pw_name} {grp.getgrgid(me.pw_gid).gr_name}"


def _moved(text: str, place: Path) -> str:
    """Without a path of the host that this machine is not."""
    return _ON_A_HOST.sub(f"{place}/", text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
