"""Each check is proven by an observation with which it fails. That these are seen for real is tested elsewhere.

On the wire: `tests.run.test_doctor`; on a host: `tests.hosts.test_doctor`.
"""

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from generator.config.schema import Deploy
from generator.doctor import (
    examine,
    of_access,
    of_nginx,
    of_nginx_itself,
    of_restarts,
    of_the_app,
    of_the_engine,
    of_the_host,
    of_the_protocol,
    of_the_service,
    of_tls,
    stress,
)
from generator.doctor.checks import CHECKS, UNSEEN, Look, Verdict
from generator.doctor.patient import Patient, Process, Unseen
from generator.doctor.wire import Answer, Ended
from generator.host import programs
from generator.host.facts import Carries
from generator.host.probe import Endpoint
from generator.host.store import Store
from generator.rendering.render import settings_in_env
from service.declaration import Fault, settings_of, struct_from
from tests.generator.front_door import ROOT, wsbundle


def deploy(**settings: Any) -> Deploy:
    return struct_from(Deploy, {"domain": "ws.mycompany.org", **settings})


PLAIN = deploy()
TOKEN = {"auth": "token"}
ENGINE = {"engine.url": "valkey://10.0.0.5:6379"}
KEEPING = {"mailbox.keep": "disk", "user": "nobody"}
IN_ENGINE = {**ENGINE, **TOKEN, "mailbox.keep": "engine"}
SHOWING = {"nginx.metrics_from": ("10.0.0.0/8",)}
TRUSTING = {"nginx.trusted_proxies": ("127.0.0.0/8",)}
FILES = {"tls": "files", "certificate.file": "/etc/ssl/ws.pem", "certificate.key": "/etc/ssl/ws.key"}


def process(of: Deploy = PLAIN, **changes: Any) -> Process:
    told = {"pid": 7, "uid": 0, "command": ("python", "-m", "service"), "files": 2512, "started": 0.0}
    return Process(**{**told, "environ": settings_in_env(of), **changes})


def changed(variable: str, value: str) -> Process:
    return process(environ={**settings_in_env(PLAIN), variable: value})


LIMITS = {"connections": 1000, "connections_per_address": 100, "queue": 1048576}
LIMITS |= {"messages_per_second": 1000, "bytes_per_second": 4194304}
FIGURES = {"connections": 12, "connections_closed": {"1011": 4, "4101": 0}, "limit": LIMITS}
RUNS = of_the_service.Managed("active", "none", 0, "success", True, False)
SILENT = of_the_protocol.Silence(60.2, 30.1, 1011)
TWO_NAMES = {"domain": ("a.org", "b.org")}
PROXIES = {"nginx.trusted_proxies": ("10.0.0.6",)}
HERE, ELSEWHERE = frozenset({"10.0.0.5"}), frozenset({"10.0.0.6"})
ROOM = of_the_host.Room(0.4, 10**10, 0.9)
ENCRYPTED = of_tls.Encryption(308, "https://ws.mycompany.org/doctor", "TLSv1.3", False, "max-age=63072000")
SHOWN = of_tls.Shown("ws.mycompany.org by R3, 60 days left", False, (), "", (), 60, None)
LOAD = of_nginx_itself.Load(Carries(4096, 2), 40, 2)
NONE_FOUND: dict[str, list[tuple[str, Fault]]] = {"refused": [], "known": []}

APP = {"app.callable": "main:app"}
STATIC = {**APP, "app.static": {"/static/": "static"}}
PLACE = "/opt/queue-websocket/apps/0123456789ab"
CLOSED = {
    "PrivateNetwork": "yes",
    "ReadWritePaths": "",
    "PrivateDevices": "yes",
    "NoExecPaths": "/tmp",
    "MemoryDenyWriteExecute": "yes",
    "ProcSubset": "pid",
    "SystemCallFilter": "read write",
}
# Of each need: deploy.yaml, and the unit that allows it, as `systemctl show` prints that.
NEEDS: list[tuple[str, Any, dict[str, str]]] = [
    ("needs.network", ("10.0.0.5",), {"PrivateNetwork": "no"}),
    ("needs.write", ("/srv/a", "/srv/our exports"), {"ReadWritePaths": '"/srv/our exports" /srv/a'}),
    ("needs.write", ("/srv/a", "/srv/our exports"), {"ReadWritePaths": r"/srv/our\x20exports /srv/a"}),
    ("needs.devices", ("/dev/ttyUSB0",), {"PrivateDevices": "no"}),
    ("needs.exec", True, {"NoExecPaths": ""}),
    ("needs.jit", True, {"MemoryDenyWriteExecute": "no"}),
    ("needs.host_metrics", True, {"ProcSubset": "all"}),
    ("needs.chown", True, {"SystemCallFilter": "read fchownat write"}),
]
# A line of a log, and the need behind it.
REFUSED = [
    ("OSError: [Errno 30] Read-only file system: '/srv/uploads/a.png'", "needs.write: [/srv/uploads]"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/dev/ttyUSB0'", "needs.devices: [/dev/ttyUSB0]"),
    ("ImportError: /var/lib/a/b.so: failed to map segment from shared object", "needs.exec: true"),
    ("OSError: [Errno 97] Address family not supported by protocol", "needs.network"),
    ("socket.gaierror: [Errno -3] Temporary failure in name resolution", "needs.network"),
    ("OSError: [Errno 101] Network is unreachable", "needs.network"),
    ("FileNotFoundError: [Errno 2] No such file or directory: '/proc/meminfo'", "needs.host_metrics: true"),
    ("MemoryError: Cannot allocate write+execute memory for ffi.callback()", "needs.jit: true"),
    ("PermissionError: [Errno 1] Operation not permitted in os.chown()", "needs.chown: true"),
]

# Check, settings, what was seen, and what that is.
JOINED = {"engine.url": "valkey://127.0.0.1"}
SERVED = {**JOINED, "engine.serve": True}
LOCAL = frozenset({"127.0.0.1/32"})
KEEPING_CLIENTS = of_restarts.Keeping("true", "512", 512, 0, signal.SIGINT, {7: True, 8: True})
SENDING_AWAY = of_restarts.Keeping("false", "", 0, 0, signal.SIGTERM, {})
NOT_KEPT = {"drain.keep": False}
CASES: list[tuple[str, dict[str, Any], Any, str]] = [
    ("message", {}, 0.004, "ok"),
    ("message", {}, "HTTP 502", "failed"),
    ("welcome", {}, {"uuid": "u", "message": "Welcome! Your temporary UUID is u"}, "ok"),
    ("welcome", {}, {"uuid": "u", "message": "Hello"}, "failed"),
    ("ping.interval", {}, SILENT, "ok"),
    ("ping.interval", {}, SILENT._replace(pinged_after=25.0), "failed"),
    ("ping.interval", {}, SILENT._replace(pinged_after=75.0), "failed"),
    ("ping.timeout", {}, SILENT, "ok"),
    ("ping.timeout", {}, SILENT._replace(code=1006), "failed"),
    ("ping.timeout", {}, SILENT._replace(ended_after=45.0), "failed"),
    ("nginx.idle_limit", {}, SILENT, "ok"),
    ("nginx.idle_limit", {"nginx.idle_limit": 60}, SILENT, "failed"),
    ("limits.message_size", {}, of_the_protocol.Sizes(True, 1009), "ok"),
    ("limits.message_size", {}, of_the_protocol.Sizes(True, 1006), "failed"),
    ("limits.message_size", {}, of_the_protocol.Sizes(False, 1009), "failed"),
    ("auth", {}, of_the_protocol.Doors(101, 101, "ok"), "ok"),
    ("auth", {}, of_the_protocol.Doors(401, 401, "4001"), "failed"),
    ("auth", TOKEN, of_the_protocol.Doors(401, 401, "4001"), "ok"),
    ("auth", TOKEN, of_the_protocol.Doors(101, 401, "4001"), "failed"),
    ("origins", {}, {of_the_protocol.FOREIGN: 101}, "ok"),
    ("origins", {"origins": ("https://a.org",)}, {of_the_protocol.FOREIGN: 403, "https://a.org": 101}, "ok"),
    ("origins", {"origins": ("https://a.org",)}, {of_the_protocol.FOREIGN: 101, "https://a.org": 101}, "failed"),
    ("origins", {"origins": ("https://a.org",)}, {of_the_protocol.FOREIGN: 403, "https://a.org": 403}, "failed"),
    ("limits.registrations", {}, ["ok"] * 8 + ["106"], "ok"),
    ("limits.registrations", {}, ["ok"] * 9, "failed"),
    ("limits.registrations", {}, ["ok"] * 4 + ["106"], "failed"),
    ("limits.hello_timeout", {}, of_the_protocol.End(4000, 10.3), "ok"),
    ("limits.hello_timeout", {}, of_the_protocol.End(4000, 5.0), "failed"),
    ("limits.hello_timeout", {}, of_the_protocol.End(1006, 10.0), "failed"),
    ("limits.header_timeout", {}, 10.0, "ok"),
    ("limits.header_timeout", {}, 60.0, "failed"),
    ("name", {}, RUNS, "ok"),
    ("name", {}, RUNS._replace(systemd="failed", result="exit-code"), "failed"),
    ("name", {}, RUNS._replace(is_enabled=False), "failed"),
    ("name", {}, RUNS._replace(is_outdated=True), "warning"),
    ("name", {}, RUNS._replace(restarts=3), "warning"),
    ("name", {"manager": "supervisor"}, RUNS._replace(supervisor="RUNNING"), "ok"),
    ("name", {"manager": "supervisor"}, RUNS._replace(supervisor="FATAL"), "failed"),
    ("manager", {}, RUNS, "ok"),
    ("manager", {}, RUNS._replace(supervisor="RUNNING"), "failed"),
    ("manager", {}, RUNS._replace(systemd="inactive"), "failed"),
    ("manager", {"manager": "supervisor"}, RUNS, "failed"),
    ("server", {}, process(), "ok"),
    ("server", {"server": "gunicorn"}, process(), "failed"),
    ("user", {"user": "nobody"}, process(uid=65534), "ok"),
    ("user", {"user": "nobody"}, process(uid=0), "failed"),
    ("user", {"user": "root"}, process(uid=0), "warning"),
    ("open-files", {}, process(), "ok"),
    ("open-files", {}, process(files=1024), "failed"),
    ("env", {"env": {"TZ": "UTC"}}, changed("TZ", "UTC"), "ok"),
    ("env", {"env": {"TZ": "UTC"}}, process(), "failed"),
    ("settings", {}, process(), "ok"),
    ("settings", {}, changed("WEBSOCKET_PORT", "9000"), "failed"),
    *((key, {}, process(), "ok") for key in of_the_service.IN_FORCE),
    *((key, {}, changed(variable, "another"), "failed") for key, variable in of_the_service.IN_FORCE.items()),
    ("engine.user", {"engine.url": "valkey://10.0.0.5"}, process(), "failed"),
    ("limits.connections", {}, FIGURES, "ok"),
    ("limits.connections", {}, {**FIGURES, "connections": 1000}, "failed"),
    ("limits.connections", {}, {**FIGURES, "connections": 800}, "warning"),
    ("limits.connections", {"limits.connections": 2000}, FIGURES, "failed"),
    *((f"limits.{name}", {}, FIGURES, "ok") for name in ("connections_per_address", "queue")),
    *((f"limits.{name}", {}, FIGURES, "ok") for name in ("messages_per_second", "bytes_per_second")),
    ("limits.connections_per_address", {"limits.connections_per_address": 50}, FIGURES, "failed"),
    ("limits.messages_per_second", {"limits.messages_per_second": 50}, FIGURES, "failed"),
    ("limits.bytes_per_second", {"limits.bytes_per_second": 65536}, FIGURES, "failed"),
    ("limits.queue", {"limits.queue": 65536}, FIGURES, "failed"),
    ("slow-clients", {}, FIGURES, "ok"),
    ("slow-clients", {}, {**FIGURES, "connections_closed": {"4101": 3}}, "warning"),
    ("engine-up", ENGINE, {"engine_up": 1, "engine_beat_seconds": 0.002, "engine_hosts": 2}, "ok"),
    ("engine-up", ENGINE, {"engine_up": 0, "engine_beat_seconds": 0.0, "engine_hosts": 0}, "failed"),
    ("workers", {}, of_the_service.Workers(1, 1, 0), "ok"),
    ("workers", {"workers": "auto"}, of_the_service.Workers(4, 4, 4), "ok"),
    ("workers", {"workers": 4}, of_the_service.Workers(3, 3, 0), "failed"),
    ("workers", {"workers": 4}, of_the_service.Workers(4, 3, 0), "failed"),
    ("workers", {"workers": 4}, of_the_service.Workers(4, 3, 0, ((7, 12.0),)), "failed"),
    ("engine-workers", ENGINE, {}, "ok"),
    ("engine-workers", ENGINE, {"two": 0.0}, "ok"),
    ("engine-workers", ENGINE, {"two": 0.0, "three": 12.0}, "warning"),
    ("drain.keep", {"workers": 2}, KEEPING_CLIENTS, "ok"),
    ("drain.keep", {"workers": 2}, KEEPING_CLIENTS._replace(limit=None), "ok"),
    ("drain.keep", {"workers": 2}, KEEPING_CLIENTS._replace(setting="false"), "failed"),
    ("drain.keep", {"workers": 2}, KEEPING_CLIENTS._replace(limit=0), "failed"),
    ("drain.keep", {"workers": 2}, KEEPING_CLIENTS._replace(signal=signal.SIGTERM), "failed"),
    ("drain.keep", {"workers": 2}, KEEPING_CLIENTS._replace(store=""), "failed"),
    ("drain.keep", {"workers": 2}, KEEPING_CLIENTS._replace(doors={7: True, 8: False}), "failed"),
    ("drain.keep", {"workers": 2, **ENGINE}, KEEPING_CLIENTS, "ok"),
    ("drain.keep", {"workers": 2, **ENGINE}, KEEPING_CLIENTS._replace(doors={7: False, 8: False}), "failed"),
    ("drain.keep", {"workers": 2}, KEEPING_CLIENTS._replace(stored=2), "warning"),
    ("drain.keep", NOT_KEPT, SENDING_AWAY, "ok"),
    ("drain.keep", NOT_KEPT, SENDING_AWAY._replace(limit=512), "failed"),
    ("drain.keep", NOT_KEPT, SENDING_AWAY._replace(signal=signal.SIGINT), "failed"),
    ("port", {}, of_access.Ends(("127.0.0.1",)), "ok"),
    ("port", {}, of_access.Ends(()), "failed"),
    ("host", {}, of_access.Ends(("127.0.0.1",)), "ok"),
    ("host", {}, of_access.Ends(("::1",)), "failed"),
    ("expose", {}, of_access.Ends(("127.0.0.1",)), "ok"),
    ("expose", {}, of_access.Ends(("0.0.0.0",)), "failed"),
    ("expose", {"expose": True, "host": "0.0.0.0"}, of_access.Ends(("0.0.0.0",)), "ok"),
    ("socket", {"socket": "/run/queue-websocket/ws.sock"}, of_access.Entry(True, False), "ok"),
    ("socket", {"socket": "/run/queue-websocket/ws.sock"}, of_access.Entry(False, False), "failed"),
    ("socket", {"socket": "/run/queue-websocket/ws.sock"}, of_access.Entry(True, True), "failed"),
    ("bus", {"user": "nobody"}, of_access.Mode(65534, 0o700), "ok"),
    ("bus", {"user": "nobody"}, of_access.Mode(65534, 0o755), "failed"),
    ("bus", {"user": "nobody"}, of_access.Mode(0, 0o700), "failed"),
    ("mailbox-closed", KEEPING, of_access.Mode(65534, 0o700), "ok"),
    ("mailbox-closed", KEEPING, of_access.Mode(65534, 0o755), "failed"),
    ("mailbox-closed", KEEPING, of_access.Mode(0, 0o700), "failed"),
    ("mailbox-kept", IN_ENGINE, [], "ok"),
    ("mailbox-kept", IN_ENGINE, ["it keeps nothing through a restart; set appendonly yes there"], "failed"),
    ("keys", TOKEN, of_access.Mode(0, 0o640, 2), "ok"),
    ("keys", TOKEN, of_access.Mode(0, 0o644, 2), "failed"),
    ("keys", TOKEN, of_access.Mode(0, 0o640, 0), "failed"),
    ("nginx.listen", {}, of_nginx.Reached(("0.0.0.0 port 80",), ()), "ok"),
    ("nginx.listen", {}, of_nginx.Reached((), ("0.0.0.0 port 80",)), "failed"),
    ("nginx.include", {"nginx.include": True}, ["/etc/nginx/sites-enabled/www:1"], "ok"),
    ("nginx.include", {"nginx.include": True}, [], "failed"),
    ("nginx.path", {"nginx.path": "/ws"}, 0.01, "ok"),
    ("nginx.path", {"nginx.path": "/ws"}, "server rejected WebSocket connection: HTTP 404", "failed"),
    ("nginx.http_port", {}, of_nginx.Ports(80, 0, True), "ok"),
    ("nginx.http_port", {}, of_nginx.Ports(0, 0, True), "failed"),
    ("nginx.http_port", {"nginx.http_port": 8080}, of_nginx.Ports(80, 0, True), "failed"),
    ("nginx.https_port", {}, of_nginx.Ports(80, 0, True), "ok"),
    ("nginx.https_port", {"tls": "files"}, of_nginx.Ports(80, 443, True), "ok"),
    ("nginx.https_port", {"tls": "files"}, of_nginx.Ports(80, 0, True), "failed"),
    ("nginx.proxy_protocol", {}, of_nginx.Ports(80, 0, True), "ok"),
    ("nginx.proxy_protocol", {}, of_nginx.Ports(80, 0, False), "failed"),
    ("nginx.proxy_protocol", {"nginx.proxy_protocol": True}, of_nginx.Ports(80, 0, False), "ok"),
    ("nginx.proxy_protocol", {"nginx.proxy_protocol": True}, of_nginx.Ports(80, 0, True), "failed"),
    ("nginx.default_server", {}, of_nginx.Unknown(404), "ok"),
    ("nginx.default_server", {"nginx.default_server": True}, of_nginx.Unknown(0), "ok"),
    ("nginx.default_server", {"nginx.default_server": True}, of_nginx.Unknown(200), "failed"),
    ("nginx.health_from", {}, of_nginx.Asked({"127.0.0.1": 200, "10.0.0.5": 403}), "ok"),
    ("nginx.health_from", {}, of_nginx.Asked({"127.0.0.1": 200, "10.0.0.5": 200}), "failed"),
    ("nginx.health_from", {"nginx.health_from": ("10.0.0.0/8",)}, of_nginx.Asked({"10.0.0.5": 403}), "failed"),
    ("nginx.health_from", {}, of_nginx.Asked({}), "warning"),
    ("nginx.metrics_from", {}, of_nginx.Asked({"127.0.0.1": 404}), "ok"),
    ("nginx.metrics_from", {}, of_nginx.Asked({"127.0.0.1": 200}), "failed"),
    ("nginx.metrics_from", SHOWING, of_nginx.Asked({"127.0.0.1": 403, "10.0.0.5": 200}), "ok"),
    ("nginx.metrics_from", SHOWING, of_nginx.Asked({"127.0.0.1": 404, "10.0.0.5": 404}), "failed"),
    ("nginx.trusted_proxies", {}, of_nginx.Claim("127.0.0.1", "127.0.0.1"), "ok"),
    ("nginx.trusted_proxies", {}, of_nginx.Claim("192.0.2.66", "127.0.0.1"), "failed"),
    (
        "nginx.trusted_proxies",
        {"nginx.trusted_proxies": ("127.0.0.0/8",)},
        of_nginx.Claim("192.0.2.66", "127.0.0.1"),
        "ok",
    ),
    ("refusals", {}, {101: 40, 404: 2}, "ok"),
    ("refusals", {}, {101: 40, 403: 12}, "warning"),
    ("nginx-connections", {}, LOAD, "ok"),
    ("nginx-connections", {}, LOAD._replace(carries=Carries(768, 1)), "warning"),
    ("nginx-connections", {}, LOAD._replace(busiest=4000), "failed"),
    ("nginx-files", {}, process(files=5000), "ok"),
    ("nginx-files", {}, process(files=1024), "failed"),
    ("nginx-reloaded", {}, of_nginx_itself.Reloaded(1000.0, "/etc/nginx/nginx.conf", 900.0), "ok"),
    ("nginx-reloaded", {}, of_nginx_itself.Reloaded(1000.0, "/etc/nginx/nginx.conf", 1100.0), "warning"),
    ("nginx-configuration", {}, "", "ok"),
    ("nginx-configuration", {}, 'unknown directive "nonsense" in /etc/nginx/conf.d/a.conf:1', "failed"),
    ("nginx-log", {}, [], "ok"),
    ("nginx-log", {}, ["2026/11/28 13:00:00 [alert] 7#7: 20 worker_connections are not enough"], "warning"),
    ("tls", {}, of_tls.Encryption(404, "", "", False, ""), "ok"),
    ("tls", {}, ENCRYPTED, "failed"),
    ("tls", FILES, ENCRYPTED, "ok"),
    ("tls", FILES, ENCRYPTED._replace(newest="no TLS"), "failed"),
    ("tls", FILES, ENCRYPTED._replace(leads_to="https://elsewhere.org/doctor"), "failed"),
    ("tls", FILES, ENCRYPTED._replace(remembered=""), "failed"),
    ("tls", FILES, ENCRYPTED._replace(takes_old=True), "warning"),
    ("certificate", FILES, SHOWN, "ok"),
    ("certificate", FILES, SHOWN._replace(days_left=5), "warning"),
    ("certificate", FILES, SHOWN._replace(another_shown=True), "warning"),
    ("certificate", FILES, SHOWN._replace(not_renewed="renewal/a.conf is gone"), "failed"),
    ("certificate", FILES, SHOWN._replace(refused=("ended 3 days ago; renew it",)), "failed"),
    *((f"certificate.{kind}", FILES, NONE_FOUND, "ok") for kind in ("file", "key")),
    (
        "certificate.file",
        FILES,
        NONE_FOUND | {"refused": [("certificate.file", Fault("is not there", "put it there"))]},
        "failed",
    ),
    ("certificate.key", FILES, NONE_FOUND | {"known": [("certificate.key", Fault("is open", "chmod 600"))]}, "warning"),
    ("letsencrypt.server", {}, PLAIN.letsencrypt.server, "ok"),
    ("letsencrypt.server", {}, None, "failed"),
    ("certbot-timer", {}, True, "ok"),
    ("certbot-timer", {}, False, "failed"),
    ("engine.serve", SERVED, of_the_engine.Engine("valkey-server@a.service", True, LOCAL), "ok"),
    ("engine.serve", JOINED, of_the_engine.Engine("", False, LOCAL), "ok"),
    ("engine.serve", SERVED, of_the_engine.Engine("valkey-server@a.service", False, LOCAL), "failed"),
    ("engine.serve", SERVED, of_the_engine.Engine("", False, LOCAL), "failed"),
    ("engine.serve", JOINED, of_the_engine.Engine("valkey-server@a.service", True, LOCAL), "failed"),
    ("engine.allow", JOINED, of_the_engine.Engine("", False, LOCAL), "ok"),
    ("engine.allow", {"engine.url": "unix:///run/e.sock"}, of_the_engine.Engine("", False, frozenset()), "ok"),
    ("engine.allow", JOINED, of_the_engine.Engine("", False, frozenset()), "failed"),
    ("engine.allow", JOINED, of_the_engine.Engine("", False, LOCAL | {"10.0.0.0/8"}), "failed"),
    ("engine-hosts", JOINED, of_the_engine.Others({}, {}), "ok"),
    ("engine-hosts", JOINED, of_the_engine.Others({"two": True}, {}), "ok"),
    ("engine-hosts", JOINED, of_the_engine.Others({"two": True, "three": False}, {}), "failed"),
    ("engine-hosts", JOINED, "the engine at 10.0.0.5:6379 cannot be reached", "failed"),
    ("silence", JOINED, of_the_engine.Others({}, {}), "ok"),
    ("silence", JOINED, of_the_engine.Others({}, {"two": 4.0}), "ok"),
    ("silence", JOINED, of_the_engine.Others({}, {"two": 4.0, "three": 6.0}), "warning"),
    ("silence", JOINED, "the engine at 10.0.0.5:6379 cannot be reached", "skipped"),
    ("domain", {}, of_the_host.Names({"a.org": HERE}, HERE), "ok"),
    ("domain", {}, of_the_host.Names({"a.org": frozenset()}, HERE), "failed"),
    ("domain", {}, of_the_host.Names({"a.org": ELSEWHERE}, HERE), "warning"),
    ("domain", TWO_NAMES, of_the_host.Names({"a.org": HERE, "b.org": HERE}, HERE), "ok"),
    ("domain", TWO_NAMES, of_the_host.Names({"a.org": HERE, "b.org": frozenset()}, HERE), "failed"),
    ("domain", TWO_NAMES, of_the_host.Names({"a.org": HERE, "b.org": ELSEWHERE}, HERE), "warning"),
    ("domain", TWO_NAMES, of_the_host.Names({"a.org": HERE, "b.org": HERE}, HERE, ("b.org",)), "failed"),
    ("domain", TWO_NAMES | PROXIES, of_the_host.Names({"a.org": HERE, "b.org": ELSEWHERE}, HERE), "ok"),
    ("disk", {}, {"/": ROOM}, "ok"),
    ("disk", {}, {"/": ROOM, "/var/log": ROOM._replace(share=0.0, free=0)}, "failed"),
    ("disk", {}, {"/": ROOM._replace(files=0.0)}, "failed"),
    ("disk", {}, {"/": ROOM._replace(share=0.05)}, "warning"),
    ("clock", {}, of_the_host.Clock(True, -3600.0, "the last installation"), "ok"),
    ("clock", {}, of_the_host.Clock(True, 86_400.0, "the last installation"), "failed"),
    ("clock", {}, of_the_host.Clock(False, -3600.0, "the last installation"), "warning"),
    ("drift", {}, [], "ok"),
    ("drift", {}, ["/etc/nginx/sites-available/queue-websocket was edited"], "failed"),
    ("deployed", {}, of_the_host.Deployed(True, False), "ok"),
    ("deployed", {}, of_the_host.Deployed(False, False), "warning"),
    ("deployed", {}, of_the_host.Deployed(True, True), "failed"),
    ("journal", {}, [], "ok"),
    ("journal", {}, ["worker 7 ended with -9; another one takes its place"], "warning"),
    ("limits.handshake_burst", {}, stress.Burst(101, 0.4), "ok"),
    ("limits.handshake_burst", {}, stress.Burst(20, 0.4), "failed"),
    ("limits.handshakes_per_second", {}, stress.Burst(103, 0.4), "ok"),
    ("limits.handshakes_per_second", {}, stress.Burst(700, 10.0), "failed"),
    ("connections-per-address", {}, 100, "ok"),
    ("connections-per-address", {}, 101, "failed"),
    ("connections-per-address", {}, 3, "failed"),
    ("slow-reader", {}, stress.Flood(9_000_000, True), "ok"),
    ("slow-reader", {}, stress.Flood(70_000_000, False), "failed"),
    ("app.health", APP, 0.004, "ok"),
    ("app.health", APP, "GET /healthz is answered with 503 Service Unavailable", "failed"),
    ("app.path", APP, of_the_app.Code(PLACE, PLACE), "ok"),
    ("app.path", APP, of_the_app.Code(PLACE, f"{PLACE}c"), "failed"),
    ("app.path", APP, of_the_app.Code("", PLACE), "failed"),
    ("http2", {**APP, **FILES}, True, "ok"),
    ("http2", {**APP, **FILES}, False, "failed"),
    ("app.static", APP, of_the_app.Served({}), "ok"),
    ("app.static", STATIC, of_the_app.Served({"/static/": 200}), "ok"),
    ("app.static", STATIC, of_the_app.Served({"/static/": 403}), "failed"),
    ("app.static", STATIC, of_the_app.Served({}), "failed"),
    ("app.body_size", APP, 413, "ok"),
    ("app.body_size", APP, 200, "failed"),
    *((key, APP, CLOSED, "ok") for key, _, _ in NEEDS),
    *((key, APP, {**CLOSED, **opened}, "failed") for key, _, opened in NEEDS),
    *((key, {**APP, key: value}, {**CLOSED, **opened}, "ok") for key, value, opened in NEEDS),
    *((key, {**APP, key: value}, CLOSED, "failed") for key, value, _ in NEEDS),
    ("refused-needs", APP, ["Uvicorn running", "OSError: [Errno 28] No space left on device"], "ok"),
    *(("refused-needs", APP, [line], "warning") for line, _ in REFUSED),
]


@pytest.mark.parametrize(("name", "settings", "seen", "state"), CASES)
def test_what_was_seen_is_judged(name: str, settings: dict[str, Any], seen: Any, state: str) -> None:
    verdict: Verdict = CHECKS[name].judge(deploy(**settings), seen)
    assert (verdict.state, bool(verdict.seen)) == (state, True)
    assert bool(verdict.fix) == (state in ("failed", "warning"))


def test_the_names_that_lead_elsewhere_are_named() -> None:
    seen = of_the_host.Names({"a.org": HERE, "b.org": ELSEWHERE, "c.org": frozenset()}, HERE)
    verdict = CHECKS["domain"].judge(deploy(domain=("a.org", "b.org", "c.org")), seen)
    assert verdict.seen == "a.org leads to 10.0.0.5; b.org leads to 10.0.0.6; c.org leads nowhere"
    assert verdict.fix.startswith("add a DNS record for c.org;")


def test_where_nginx_listens_on_the_loopback_of_ipv6_alone_it_is_asked_from_there(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connected(_: Endpoint, address: str) -> str:
        if address != "::1":
            raise ConnectionRefusedError
        return address

    monkeypatch.setattr("generator.host.facts.addresses", tuple)
    monkeypatch.setattr(of_nginx, "connected", connected)
    monkeypatch.setattr(of_nginx, "ask", lambda *_: Answer(200, {}, b""))
    assert of_nginx.who_gets_health.see(patient).statuses == {"::1": 200}


def test_a_fault_of_a_file_is_shown_with_its_whole_fix() -> None:
    known = {"known": [("certificate.file", Fault("is signed by itself", "use another; or give it to every client"))]}
    verdict = CHECKS["certificate.file"].judge(deploy(**FILES), NONE_FOUND | known)
    assert (verdict.seen, verdict.fix) == ("is signed by itself", "use another; or give it to every client")


@pytest.mark.parametrize(("line", "need"), REFUSED)
def test_what_was_refused_is_named_with_the_need_that_would_allow_it(line: str, need: str) -> None:
    verdict = CHECKS["refused-needs"].judge(deploy(**APP), ["Uvicorn running", line])
    assert (verdict.seen, verdict.fix) == (line, f"if it is to be allowed, add {need} to deploy.yaml")


@pytest.mark.parametrize(
    "line",
    [
        "OSError: [Errno 110] Connect call failed ('10.0.0.9', 5432)",
        "httpx.ConnectTimeout",
        "psycopg.errors.ConnectionTimeout: connection timeout expired",
        "urllib3.exceptions.ConnectTimeoutError: (<HTTPConnection>, 'Connection to 10.0.0.9 timed out.')",
        "java.net: connection timed out",
    ],
)
@pytest.mark.parametrize(("network", "state"), [(("10.0.0.5",), "warning"), (("any",), "ok"), ((), "ok")])
def test_a_connection_that_nobody_answers_may_be_to_an_address_that_is_not_named(
    line: str, network: tuple[str, ...], state: str
) -> None:
    verdict = CHECKS["refused-needs"].judge(deploy(**APP, **{"needs.network": network}), [line])
    assert verdict.state == state
    assert state == "ok" or verdict.fix == "if it is to be allowed, add needs.network: [that address] to deploy.yaml"


def test_of_a_traceback_the_end_says_what_was_refused() -> None:
    raised = "PermissionError: [Errno 1] Operation not permitted: 'a'"
    line = rf"ERROR uvicorn.error: Exception\n Traceback (most recent call last):\n   os.chown('a', 1, 1)\n {raised}"
    verdict = CHECKS["refused-needs"].judge(deploy(**APP), [line])
    assert verdict.seen == raised
    assert "add needs.chown: true to" in verdict.fix


def test_a_line_that_comes_again_and_again_hides_no_other_of_the_log() -> None:
    seen = ["nothing", "it leaks", *["no pids.max", "it cannot notify", "it ended", "it is started"] * 20]
    verdict = CHECKS["journal"].judge(deploy(), seen)
    lines = "it leaks | no pids.max | it cannot notify | it ended | it is started"
    assert verdict.seen == f"82 lines, the last ones: {lines}"


def made_for(of: Deploy) -> set[str]:
    """The checks that doctor makes of a deployment."""
    return {each.name for each in examine.ALL if examine.is_about(each.keys, each.judge.__module__, of)}


def test_the_checks_of_an_application_are_not_made_of_the_notification_center() -> None:
    left_out = set(CHECKS) - made_for(PLAIN)
    assert left_out == {name for name in CHECKS if name.startswith(("app.", "needs."))} | {"refused-needs", "http2"}


def test_the_checks_of_a_site_are_not_made_where_it_is_the_operators_own() -> None:
    left_out = made_for(PLAIN) - made_for(deploy(**{"nginx.include": True}))
    assert {"tls", "nginx.listen", "nginx.http_port", "nginx.proxy_protocol", "nginx.trusted_proxies"} <= left_out
    assert not left_out & {"nginx.include", "nginx.path", "nginx.health_from", "nginx-configuration", "message"}


def test_the_checks_of_the_notification_center_are_not_made_of_an_application() -> None:
    made = made_for(deploy(**APP))
    assert {"app.health", "needs.write", "refused-needs", "name", "tls", "drift", "nginx.health_from"} <= made
    other = ("message", "auth", "origins", "keys", "bus", "engine-up", "slow-clients", "limits.queue", "slow-reader")
    assert not made & {*other, "limits.hello_timeout", "nginx.metrics_from", "limits.messages_per_second"}


def test_every_check_has_a_case_in_which_it_passes_and_one_in_which_it_does_not() -> None:
    passes = {name for name, _, _, state in CASES if state == "ok"}
    finds = {name for name, _, _, state in CASES if state in ("failed", "warning")}
    assert passes == finds == set(CHECKS)


def test_every_setting_has_a_check_of_its_name_or_a_reason_why_it_has_none() -> None:
    assert [setting.key for setting in settings_of(Deploy) if setting.key not in CHECKS | UNSEEN] == []
    assert [key for key in UNSEEN if key in CHECKS] == []


def test_what_a_check_belongs_to_is_a_setting_or_a_section() -> None:
    keys = {setting.key for setting in settings_of(Deploy)}
    known = keys | {key.partition(".")[0] for key in keys}
    assert [name for name, each in CHECKS.items() if not set(each.keys) <= known] == []


def test_every_check_says_what_must_hold_and_what_that_is_here() -> None:
    assert [name for name, each in CHECKS.items() if not each.meaning.endswith(".")] == []
    assert [name for name, each in CHECKS.items() if not each.expects(deploy(**FILES))] == []


def seen_by(see: Any, takes: float = 0.0, is_stress: bool = False) -> Look[Any]:
    return Look(see, lambda _: takes, is_stress)


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    made = Patient(PLAIN, Store("queue-websocket", tmp_path), Endpoint("ws.mycompany.org", False))
    made.message = 0.004
    return made


def test_the_disk_that_is_mounted_for_its_data_is_looked_at(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    there, room = {"/": 1, "/var/lib": 1, "/var/lib/queue-websocket": 2}, os.statvfs("/")
    with monkeypatch.context() as patch:
        patch.setattr(os.path, "isdir", there.__contains__)
        patch.setattr(os, "statvfs", lambda _: room)
        patch.setattr(os, "stat", lambda path: SimpleNamespace(st_dev=there[path]))
        seen = of_the_host.the_disks.see(patient)
    assert list(seen) == ["/", "/var/lib/queue-websocket"]


@pytest.mark.parametrize(
    ("pending", "seen"),
    [('{"before": 1, "after": 2}', "a change was cut short"), ("{", "pending.json is damaged")],
)
def test_a_change_that_was_cut_short_is_found_also_if_its_note_is_damaged(
    patient: Patient, pending: str, seen: str
) -> None:
    patient.store.home.mkdir(parents=True)
    (patient.store.home / "pending.json").write_text(pending)
    (found,) = examine.examine(patient, examine.chosen(["deployed"]))
    assert (found.state, seen in found.seen) == ("failed", True)


def made_of(patient: Patient, *looks: Look[Any], quick: bool = False) -> list[tuple[str, str]]:
    import msgspec

    checks = [
        msgspec.structs.replace(CHECKS["limits.connections"], name=str(n), look=one) for n, one in enumerate(looks)
    ]
    return [(one.check, one.state) for one in examine.examine(patient, checks, quick)]


def raising(error: Exception) -> Any:
    def see(_: Patient) -> Any:
        raise error

    return see


def test_what_cannot_be_seen_is_skipped_and_what_does_not_answer_has_failed(patient: Patient) -> None:
    errors = [
        Unseen("why"),
        PermissionError(13, "no"),
        ConnectionRefusedError(111, "refused"),
        Ended("closed with 1006"),
    ]
    assert made_of(patient, *(seen_by(raising(error)) for error in errors)) == [
        ("0", "skipped"),
        ("1", "skipped"),
        ("2", "failed"),
        ("3", "failed"),
    ]


def test_what_takes_long_comes_last_and_is_left_out_of_a_quick_run(patient: Patient) -> None:
    slow, fast = seen_by(lambda _: FIGURES, takes=60), seen_by(lambda _: FIGURES)
    assert made_of(patient, slow, fast) == [("1", "ok"), ("0", "ok")]
    assert made_of(patient, slow, fast, quick=True) == [("0", "skipped"), ("1", "ok")]


def test_what_could_disconnect_clients_is_done_under_stress_alone(patient: Patient) -> None:
    rough = seen_by(lambda _: FIGURES, takes=60, is_stress=True)
    assert made_of(patient, rough) == [("0", "skipped")]
    patient.under_stress = True
    assert made_of(patient, rough) == [("0", "ok")]


@pytest.mark.parametrize(
    ("only", "names"),
    [
        (["ping.interval"], ["ping.interval"]),
        (["ping"], ["ping.interval", "ping.timeout"]),
        (["limits.queue"], ["limits.queue", "slow-clients", "slow-reader"]),
        (["nginx-log", "clock"], ["clock", "nginx-log"]),
    ],
)
def test_the_checks_of_a_setting_a_section_or_a_name_can_be_chosen(only: list[str], names: list[str]) -> None:
    assert sorted(each.name for each in examine.chosen(only)) == names


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("ping.intervall", "ping.intervall is neither a setting nor a check; did you mean ping.interval?\n"),
        ("letsencrypt.email", "letsencrypt.email cannot be seen from outside: only the authority knows"),
    ],
)
def test_a_check_that_there_is_not_is_a_wrong_command_line(only: str, message: str) -> None:
    outcome = wsbundle("doctor", "--only", only)
    assert (outcome.code, outcome.err[: len(message)]) == (2, message)


def test_what_is_not_installed_has_no_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deploy.yaml").write_text("domain: ws.mycompany.org\nname: never-installed\n")
    monkeypatch.chdir(tmp_path)
    outcome = wsbundle("doctor", "--format", "json")
    assert outcome.code == 1
    assert "never-installed is not installed" in json.loads(outcome.out)["errors"][0]


def test_the_page_lists_the_checks_that_are_not_of_one_setting() -> None:
    keys = {setting.key for setting in settings_of(Deploy)}
    page = (ROOT / "docs/doctor.md").read_text(encoding="utf-8")
    rows = [f"| `{each.name}` | {each.meaning} |" for each in examine.ALL if each.name not in keys]
    assert [row for row in rows if row not in page] == []
    assert page.partition("## What it checks")[2].count("\n| `") == len(rows)


def test_where_nginx_is_not_installed_nothing_is_said_of_its_configuration(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PATH", "/nowhere")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(Unseen, match="nginx is not installed"):
        of_nginx_itself.the_test_of_nginx.see(patient)
    with pytest.raises(Unseen, match=r"queue-websocket_access.log is not there: nginx makes it when it starts"):
        of_nginx.recent(patient, 60)
