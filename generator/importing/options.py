"""What became of the options of uvicorn and gunicorn, on their command line, in gunicorn.conf.py and in variables."""

from collections.abc import Mapping
from typing import Any

from generator.explain import SETTINGS
from generator.importing.ledger import Claim, Ledger, Said
from generator.readers.entry import Entry
from service.declaration import SettingError, read

_LEVELS = {"trace": "debug", "warn": "warning", "fatal": "critical"}

# What stands here as text is the setting that the option becomes.
Judgement = str | Said
BY_A_SOCKET: Said = ("replaced", "by a Unix socket that nginx alone reaches")
OWN_USER: Said = ("replaced", "by a user of its own that owns nothing else")
_DRAIN: Judgement = ("replaced", "by drain.window and drain.timeout, which let clients go one after another")
_LOGS: Judgement = ("replaced", "by the journal, and by nginx's access log, which has a line for each connection")
_OWN: Judgement = ("replaced", "the service has its own, and says which it is in its unit")
_TLS: Judgement = ("replaced", "nginx does TLS: `tls`")
_NGINX: Judgement = ("replaced", "only nginx connects to it")
_RECYCLES: Judgement = ("wrong", "closes every WebSocket of a worker after so many requests")
_NO_EFFECT: Judgement = ("wrong", "has no effect on a worker of uvicorn's")
_RELOAD: Judgement = ("wrong", "restarts at every change of a file: for development only")
_ROOT_PATH: Judgement = ("not supported", "the deployment has its domain for itself")
_NO_MORE: Judgement = ("not supported", "there is no such setting")

_UVICORN: dict[str, Judgement] = {
    "workers": "workers",
    "log-level": "log.level",
    "ws-ping-interval": "ping.interval",
    "ws-ping-timeout": "ping.timeout",
    "ws-max-size": "limits.message_size",
    "limit-concurrency": "limits.connections",
    "timeout-graceful-shutdown": _DRAIN,
    "limit-max-requests": _RECYCLES,
    "limit-max-requests-jitter": _RECYCLES,
    "reload": _RELOAD,
    "reload-dir": _RELOAD,
    "reload-include": _RELOAD,
    "reload-exclude": _RELOAD,
    "proxy-headers": ("replaced", "nginx is believed, and nobody else"),
    "no-proxy-headers": ("replaced", "nginx is believed: every client would have its address"),
    "access-log": _LOGS,
    "no-access-log": _LOGS,
    "log-config": ("replaced", "by log.level and log.format"),
    "root-path": _ROOT_PATH,
    "timeout-keep-alive": _NGINX,
    "backlog": _NGINX,
    **dict.fromkeys(("header", "server-header", "no-server-header", "date-header", "no-date-header"), _NGINX),
    **dict.fromkeys(("loop", "http", "ws", "ws-max-queue", "ws-per-message-deflate", "lifespan", "interface"), _OWN),
    **dict.fromkeys(("use-colors", "no-use-colors", "h11-max-incomplete-event-size"), _OWN),
    **dict.fromkeys(("ssl-keyfile", "ssl-certfile", "ssl-ca-certs", "ssl-ciphers", "ssl-keyfile-password"), _TLS),
    **dict.fromkeys(("ssl-version", "ssl-cert-reqs"), _TLS),
    "factory": ("not supported", "app.callable must be the application itself, not what makes it"),
}
_GUNICORN: dict[str, Judgement] = {
    "workers": "workers",
    "loglevel": "log.level",
    "worker_class": ("replaced", "by a worker of its own, which also passes ping.interval and ping.timeout on"),
    "graceful_timeout": _DRAIN,
    "timeout": ("replaced", "by a watchdog of 20 s on the event loop of each worker"),
    "max_requests": _RECYCLES,
    "max_requests_jitter": _RECYCLES,
    "reload": _RELOAD,
    "daemon": ("wrong", "systemd and supervisor lose a process that leaves the foreground"),
    "pidfile": ("replaced", "systemd knows the process without it"),
    "umask": ("replaced", "only nginx may connect to the socket"),
    "preload_app": ("replaced", "each worker loads the code of the current generation"),
    "raw_env": ("not supported", "write variables into `env`"),
    **dict.fromkeys(("accesslog", "errorlog", "capture_output", "disable_redirect_access_to_syslog"), _LOGS),
    **dict.fromkeys(("logconfig", "logconfig_dict", "log_file", "syslog", "syslog_addr"), _LOGS),
    **dict.fromkeys(("user", "group", "initgroups"), OWN_USER),
    **dict.fromkeys(("keyfile", "certfile", "ca_certs", "ciphers", "ssl_version", "cert_reqs"), _TLS),
    **dict.fromkeys(("keepalive", "backlog", "reuse_port", "forwarded_allow_ips", "secure_scheme_headers"), _NGINX),
    **dict.fromkeys(("proxy_protocol", "proxy_allow_ips"), _NGINX),
    **dict.fromkeys(("worker_connections", "threads", "access_log_format", "proc_name"), _NO_EFFECT),
    **dict.fromkeys(("worker_tmp_dir", "tmp_upload_dir", "control_socket_disable", "sendfile", "no_sendfile"), _OWN),
    **dict.fromkeys(("limit_request_line", "limit_request_fields", "limit_request_field_size"), _NGINX),
    **dict.fromkeys(("pythonpath", "paste", "spew", "check_config", "print_config", "statsd_host"), _NO_MORE),
}
# gunicorn's options by the names that they have in its file.
_IN_THE_FILE = {
    "b": "bind",
    "w": "workers",
    "k": "worker_class",
    "c": "config",
    "t": "timeout",
    "n": "proc_name",
    "p": "pidfile",
    "u": "user",
    "g": "group",
    "m": "umask",
    "e": "raw_env",
    "D": "daemon",
    "access_logfile": "accesslog",
    "error_logfile": "errorlog",
    "log_level": "loglevel",
    "keep_alive": "keepalive",
    "name": "proc_name",
    "pid": "pidfile",
    "access_logformat": "access_log_format",
    "preload": "preload_app",
    "env": "raw_env",
    "no_control_socket": "control_socket_disable",
}


def name_of(server: str, option: str) -> str:
    """`workers` for `-w` and `--workers` of gunicorn; names of uvicorn keep their hyphens."""
    name = option.lstrip("-")
    if server != "gunicorn":
        return name.replace("_", "-")
    name = name.replace("-", "_")
    return _IN_THE_FILE.get(name, name)


def is_gunicorns(name: str) -> bool:
    """Whether a name in gunicorn.conf.py is one of its settings, as far as they are known here."""
    return name in _GUNICORN


def judge(ledger: Ledger, entry: Entry, server: str, name: str, value: str, part: str = "") -> None:
    """Say what becomes of one option."""
    if name == "forwarded-allow-ips" or (name == "forwarded_allow_ips" and value == "*"):
        said: Judgement = ("replaced", "nginx is believed, and nobody else")
        if value == "*":
            said = ("wrong", "any client could forge its address")
    elif value in ("0", "None", "False") and name in ("max_requests", "max_requests_jitter", "daemon", "reload"):
        said = ("replaced", "as it is here")
    else:
        said = (_GUNICORN if server == "gunicorn" else _UVICORN).get(name, _NO_MORE)
    if name in ("factory", "root-path"):
        ledger.obstacles.append((entry.where, f"{part}: {said[1]}"))
    if isinstance(said, str):
        claim(ledger, entry, said, value, part)
    else:
        ledger.add(entry, *said, part)


def claim(ledger: Ledger, entry: Entry, key: str, text: str, part: str = "") -> None:
    """Claim a setting, unless its value will not do."""
    text = _LEVELS.get(text.lower(), text.lower()) if key == "log.level" else text
    try:
        value: Any = read(text, SETTINGS[key])
    except SettingError as error:
        ledger.add(entry, "wrong", f"{key}: {error.fault}", part)
        return
    ledger.take(entry, key, value, part)


def claim_address(ledger: Ledger, entry: Entry, bind: str, part: str = "") -> None:
    """Where the old service listens: `HOST:PORT`, `unix:PATH`, or an inherited listener."""
    if bind.startswith(("unix:", "/")):
        ledger.claims.setdefault("at", []).append(Claim(bind.removeprefix("unix:").removeprefix("//"), entry.where))
        ledger.add(entry, *BY_A_SOCKET, part)
        return
    host, colon, port = bind.rpartition(":")
    if colon and port.isdecimal():
        ledger.claims.setdefault("port", []).append(Claim(port, entry.where))
        _of_host(ledger, entry, host.strip("[]"), part)
    elif bind.startswith("fd://"):
        ledger.claims.setdefault("inherited", []).append(Claim(True, entry.where))
        ledger.add(entry, *BY_A_SOCKET, part)
    else:
        ledger.add(entry, "wrong", "is no address with a port", part)


def claim_listener(ledger: Ledger, entry: Entry, options: Mapping[str, str]) -> None:
    """The same of uvicorn, whose host and port are two options; `options` has each as it is written."""
    for name in ("uds", "fd"):
        if name in options:
            claim_address(
                ledger, entry, f"unix:{options[name]}" if name == "uds" else "fd://", f"--{name} {options[name]}"
            )
    if options.get("port", "").isdecimal():
        ledger.claims.setdefault("port", []).append(Claim(options["port"], entry.where))
        ledger.add(entry, *BY_A_SOCKET, f"--port {options['port']}")
    if "host" in options:
        _of_host(ledger, entry, options["host"], f"--host {options['host']}")


def _of_host(ledger: Ledger, entry: Entry, host: str, part: str) -> None:
    if host in ("127.0.0.1", "::1", "localhost"):
        ledger.add(entry, *BY_A_SOCKET, part)
    else:
        ledger.add(
            entry, "wrong", "clients reach it past nginx, its TLS and its limits; a Unix socket replaces it", part
        )
