"""The service as users run it: behind nginx with the site that is rendered for it.

    python -m bench.deployed [--nginx-workers N] PORT DIRECTORY [SETTING=VALUE ...]

starts nginx on the port, and the service that it passes clients on to, as a deploy.yaml with these settings has them;
whatever they would write on a host, they write below the directory. With `tls=files` the port has TLS. With
`auth=token` a token for the address `honest` is in the file `token` there. It runs until it is ended or one of them
ends.
"""

import argparse
import grp
import os
import pwd
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.programs import HERE, PATH, certificate, program
from bench.servers import free_port
from bench.together import run
from generator.config.load import load
from generator.config.schema import Deploy, keys_file
from generator.rendering.render import render, settings_in_env
from service.mint import add_key, mint

# What Debian's nginx.conf has where it matters here, with as many connections as it would be told to have.
_MAIN = """\
user {user};
worker_processes {workers};
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
    parser = argparse.ArgumentParser(prog="python -m bench.deployed")
    parser.add_argument("--nginx-workers", type=int, default=1)
    parser.add_argument("port", type=int)
    parser.add_argument("directory", type=Path)
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args(arguments)
    place, settings = options.directory, options.settings
    if "tls=files" in settings:
        file, key = certificate(place)
        ports = [f"nginx.https_port={options.port}", f"nginx.http_port={free_port()}"]
        settings = [*settings, *ports, f"certificate.file={file}", f"certificate.key={key}"]
    else:
        settings = [*settings, f"nginx.http_port={options.port}"]
    deploy = _deploy(place, settings)
    if deploy.auth == "token":
        keys = _moved(keys_file(deploy), place)
        add_key(keys, "HS256")
        (place / "token").write_text(mint(keys, "honest", 3600, ["honest"]))
    nginx = _nginx(deploy, place, options.nginx_workers)
    queue = _queue(options.port, deploy.tls != "off")
    (place / "etc/nginx/sites-available/zz-queue").write_text(queue)
    return run([nginx, _service(deploy, place)], place)


def _deploy(place: Path, assignments: Iterable[str]) -> Deploy:
    file = place / "deploy.yaml"
    file.write_text(
        "name: bench\ndomain: localhost\ntls: off\nsocket: /run/bench/ws.sock\nnginx: {listen: [127.0.0.1]}\n"
    )
    return load(str(file), assignments=assignments).deploy


def _nginx(deploy: Deploy, place: Path, workers: int) -> tuple[list[str], dict[str, str]]:
    for file in render(deploy).files:
        if file.path.startswith("etc/") and file.link is None:
            (place / file.path).parent.mkdir(parents=True, exist_ok=True)
            (place / file.path).write_text(_moved(file.text, place))
    for made in ("run/bench", "var/log/nginx", "var/lib/bench"):
        (place / made).mkdir(parents=True, exist_ok=True)
    (place / "nginx.conf").write_text(_MAIN.format(directory=place, user=_user(), workers=workers))
    nginx = program("nginx", "nginx")
    return [nginx, "-p", str(place), "-c", str(place / "nginx.conf"), "-g", "daemon off;"], {"PATH": PATH}


def _queue(port: int, encrypted: bool) -> str:
    """What docs/sizing.md has for many clients that come at once, for where ours listens."""
    text = (HERE / "queue.conf").read_text()
    (listen,) = re.findall(rf"(?m)^    listen {'443 ssl' if encrypted else '80'}( .*)$", text)
    others = re.sub(r"(?m)^    listen .*\n", "", text)
    return others.replace("{\n", f"{{\n    listen 127.0.0.1:{port}{' ssl' * encrypted}{listen}\n", 1)


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
