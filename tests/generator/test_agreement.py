"""What must hold between the rendered files: that it does, and that each agreement notices when it does not."""

import re
from itertools import product

import pytest
from msgspec.structs import replace

from generator.config.load import load_text
from generator.paths import Paths
from generator.rendering.agreement import AGREEMENTS, disagreements
from generator.rendering.bundle import Bundle
from generator.rendering.render import render

LISTENERS = [
    "",
    "port: 1024",
    "host: '::1'",
    "{host: 0.0.0.0, expose: true, nginx: {trusted_proxies: [10.0.0.1], idle_limit: 350}}",
    "{host: '::', expose: true, nginx: {trusted_proxies: [10.0.0.1], idle_limit: 350}}",
    "socket: /run/queue-websocket/ws.sock",
]
CERTIFICATES = {"off": "", "letsencrypt": "", "files": "certificate: {file: /etc/ssl/a.pem, key: /etc/ssl/b.pem}"}


def rendered(*lines: str) -> Bundle:
    flat = [line[1:-1] if line.startswith("{") else line for line in ("domain: a.org", *lines) if line]
    return render(load_text(f"{{{', '.join(flat)}}}", "deploy.yaml").deploy)


def edited(bundle: Bundle, kind: str, old: str, new: str) -> Bundle:
    path = getattr(Paths(bundle.name), kind)
    [file] = [file for file in bundle.files if file.path == path]
    assert old in file.text
    changed = replace(file, text=file.text.replace(old, new))
    return replace(bundle, files=tuple(changed if each is file else each for each in bundle.files))


def broken(bundle: Bundle) -> set[tuple[str, str]]:
    return {(agreement.name, path) for agreement, path, _ in disagreements(bundle)}


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("tls", CERTIFICATES)
def test_all_files_agree_whatever_is_chosen(tls: str, listener: str) -> None:
    for server, manager in product(("uvicorn", "gunicorn", "standalone"), ("systemd", "supervisor")):
        chosen = (f"server: {server}", f"manager: {manager}", f"tls: {tls}", CERTIFICATES[tls], listener)
        assert disagreements(rendered(*chosen)) == []


@pytest.mark.parametrize(
    "given",
    [
        "ping: {interval: 3600, timeout: 3600}",
        "ping: {interval: 1.25, timeout: 1}",
        "drain: {timeout: 600}",
        "limits: {message_size: 16777216, bytes_per_second: 1073741824, queue: 1073741824, header_timeout: 600}",
        "limits: {message_size: 128, messages_per_second: 1, header_timeout: 1}",
        "drain: {timeout: 3, window: 0}",
        "limits: {connections: 100000}",
        "limits: {connections: 1, connections_per_address: 1}",
        "workers: auto",
        "workers: 64",
        "{bus: /run/queue-websocket/workers, manager: supervisor}",
        "user: web",
        "name: a-b-c",
        "{welcome: '/path/to {{ YOUR_NAME', env: {PLACE: '/path/to/yourdomain'}}",
        "{tls: files, certificate: {file: '/a b.pem', key: /ü.pem}}",
        "nginx: {metrics_from: [10.0.7.5, 'fd00::/8']}",
        "nginx: {path: /a/ws/, metrics_from: [10.0.7.5]}",
        "nginx: {path: /ws, include: true, metrics_from: [10.0.7.5]}",
        "{app: {callable: 'a:b'}, nginx: {path: /shop}}",
        "{app: {callable: 'a:b'}, nginx: {path: /shop/, include: true}}",
        "{app: {callable: 'a:b'}, nginx: {include: true}}",
    ],
)
def test_all_files_agree_at_the_bounds_of_what_is_given(given: str) -> None:
    assert disagreements(rendered(given)) == []


EDITS = [
    ("unit-lets-the-engine-be-reached", "service", "PrivateNetwork=yes\n", ""),
    ("unit-lets-the-engine-be-reached", "service", "IPAddressDeny=any\n", ""),
    (
        "unit-lets-the-engine-be-reached",
        "service",
        "IPAddressDeny=any\n",
        "IPAddressDeny=any\nIPAddressAllow=10.0.0.5\n",
    ),
    ("unit-lets-the-engine-be-reached", "service", "Families=AF_UNIX", "Families=AF_UNIX AF_INET"),
    ("same-listener", "socket", "ListenStream=127.0.0.1:8765", "ListenStream=8765"),
    ("same-listener", "gunicorn", "'127.0.0.1:8765'", "'127.0.0.1:8766'"),
    ("same-listener", "gunicorn", "ws.sock", "as.sock"),
    ("same-listener", "nginx_socket", "ws.sock", "as.sock"),
    ("same-listener", "site", "server unix:/run/queue-websocket/ws.sock", "server 127.0.0.1:8765"),
    ("same-listener", "site", "    server unix:/run/queue-websocket/ws.sock;\n", ""),
    ("same-listener", "service", "Wants=queue-websocket.nginx.socket\n", ""),
    ("proxy-outlives-ping", "site", "proxy_read_timeout 105s;", "proxy_read_timeout 90s;"),
    ("proxy-outlives-ping", "site", "        proxy_read_timeout 105s;\n", ""),
    ("stops-in-order", "gunicorn", "graceful_timeout = 15", "graceful_timeout = 14"),
    ("stops-in-order", "gunicorn", "graceful_timeout = 15\n", ""),
    ("stops-in-order", "service", "TimeoutStopSec=20", "TimeoutStopSec=19"),
    ("stops-in-order", "service", "TimeoutStopSec=20\n", ""),
    ("stops-in-order", "supervisor", "stopwaitsecs=20", "stopwaitsecs=10"),
    ("stops-in-order", "main_context", "worker_shutdown_timeout 300s", "worker_shutdown_timeout 9s"),
    ("stops-by-term", "service", "KillSignal=SIGTERM", "KillSignal=SIGQUIT"),
    ("stops-by-term", "supervisor", "stopsignal=TERM", "stopsignal=QUIT"),
    ("stops-by-term", "supervisor", "stopsignal=TERM\n", ""),
    ("files-for-connections", "service", "LimitNOFILE=2512", "LimitNOFILE=2511"),
    ("files-for-connections", "supervisor", "ulimit -n 1512", "ulimit -n 1024"),
    ("files-for-connections", "main_context", "worker_rlimit_nofile 5000", "worker_rlimit_nofile 1999"),
    ("same-user", "service", "User=queue-websocket", "User=root"),
    ("same-user", "service", "Group=queue-websocket", "Group=www-data"),
    ("same-user", "supervisor", "\nuser=queue-websocket", ""),
    ("same-workers", "gunicorn", "workers = 1", "workers = 4"),
    ("same-workers", "gunicorn", "max_requests = 0", "max_requests = 1000"),
    ("bus-has-its-directory", "service", "RuntimeDirectory=queue-websocket/bus", "RuntimeDirectory=queue-websocket"),
    ("bus-has-its-directory", "service", "RuntimeDirectory=queue-websocket/bus\n", ""),
    ("bus-has-its-directory", "service", "RuntimeDirectoryMode=0700", "RuntimeDirectoryMode=0755"),
    ("start-limit-triggers", "service", "RestartSec=2", "RestartSec=6"),
    ("start-limit-triggers", "service", "StartLimitBurst=10", "StartLimitBurst=30"),
    ("client-address-is-true", "site", "X-Forwarded-For $remote_addr", "X-Forwarded-For $proxy_add_x_forwarded_for"),
    ("client-address-is-true", "site", "        proxy_set_header X-Forwarded-For $remote_addr;\n", ""),
    ("client-address-is-true", "gunicorn", "forwarded_allow_ips = '127.0.0.1,::1'", "forwarded_allow_ips = '*'"),
    ("client-address-is-true", "nginx_socket", "SocketMode=0660", "SocketMode=0666"),
    ("same-limits", "site", "client_header_timeout 10s;", "client_header_timeout 60s;"),
    ("same-limits", "site", "    client_body_timeout 10s;\n", ""),
    (
        "same-limits",
        "site",
        "limit_conn queue_websocket_connections 100;",
        "limit_conn queue_websocket_connections 50;",
    ),
    ("same-limits", "site", "limit_conn queue_websocket_publishers 100;", "limit_conn queue_websocket_publishers 50;"),
    ("same-limits", "site", "client_max_body_size 65536;", "client_max_body_size 1m;"),
    ("same-limits", "site", "        client_max_body_size 65536;\n", ""),
    ("only-the-public-is-reached", "site", "location = /health {", "location = /stats {"),
    ("only-the-public-is-reached", "site", "location /publish/ {", "location ~ ^/(publish|metrics) {"),
    ("names-are-ours", "site", "upstream queue_websocket {", "upstream {"),
    ("names-are-ours", "site", "zone=queue_websocket_handshakes:", "zone=handshakes:"),
    ("names-are-ours", "site", "$queue_websocket_connection {", "$connection_upgrade {"),
    ("names-are-ours", "site", "log_format queue_websocket ", "log_format json "),
    ("nothing-left-to-fill-in", "service", "User=queue-websocket", "User=YOUR_USERNAME"),
    ("nothing-left-to-fill-in", "site", "server_name a.org", "server_name ws.yourdomain.com"),
    ("nothing-left-to-fill-in", "supervisor", "directory=/opt/queue-websocket", "directory=/path/to"),
    ("nothing-left-to-fill-in", "gunicorn", "workers = 1", "workers = {{ workers }}"),
]


@pytest.mark.parametrize(("agreement", "kind", "old", "new"), EDITS)
def test_an_agreement_notices_the_file_that_does_not_hold_to_it(agreement: str, kind: str, old: str, new: str) -> None:
    assert (agreement, getattr(Paths("queue-websocket"), kind)) in broken(edited(rendered(), kind, old, new))


@pytest.mark.parametrize(
    ("agreement", "removed"),
    [
        ("only-the-public-is-reached", "        deny all;\n"),
        ("client-address-is-true", "        proxy_pass_request_headers off;\n"),
    ],
)
def test_metrics_without_their_list_or_with_the_fields_of_a_client_are_noticed(agreement: str, removed: str) -> None:
    bundle = rendered("nginx: {metrics_from: [10.0.7.5]}")
    assert broken(edited(bundle, "site", removed, "")) == {(agreement, Paths("queue-websocket").site)}


EDITS_BELOW_A_PATH = [
    ("app-knows-its-path", "env", "WEBSOCKET_ROOT_PATH='/shop'", "WEBSOCKET_ROOT_PATH='/shop/'"),
    ("app-knows-its-path", "locations", "location ^~ /shop/ {", "location ^~ /store/ {"),
    ("same-limits", "locations", "limit_conn shop_connections 100;", "limit_conn shop_connections 50;"),
    ("client-address-is-true", "locations", "    proxy_set_header X-Forwarded-For $remote_addr;\n", ""),
    ("proxy-outlives-ping", "locations", "proxy_read_timeout 105s;", "proxy_read_timeout 90s;"),
    ("names-are-ours", "locations", "zone=shop_handshakes", "zone=handshakes"),
    ("names-are-ours", "site", "$shop_scheme {", "$scheme_of_clients {"),
]


def test_every_agreement_is_broken_by_an_edit() -> None:
    assert {edit[0] for edit in EDITS + EDITS_OF_AN_APP} == {agreement.name for agreement in AGREEMENTS}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("IPAddressAllow=fd00::5\n", ""),
        ("IPAddressAllow=fd00::5", "IPAddressAllow=fd00::6"),
        ("IPAddressAllow=fd00::5", "IPAddressAllow=fd00::5 10.0.0.1"),
        ("AF_INET6", "AF_INET"),
        ("IPAddressDeny=any\n", ""),
        ("IPAddressDeny=any", "PrivateNetwork=yes\nIPAddressDeny=any"),
    ],
)
def test_a_unit_that_does_not_let_the_engine_be_reached_is_noticed(old: str, new: str) -> None:
    bundle = rendered("engine: {url: 'valkeys://[fd00::5]:6380', password_file: /etc/a}")
    assert disagreements(bundle) == []
    there = {("unit-lets-the-engine-be-reached", Paths(bundle.name).service)}
    assert broken(edited(bundle, "service", old, new)) == there


def test_what_sentinels_may_name_is_reached_besides() -> None:
    sentinels = "sentinels: ['10.0.0.6:1', '[fd00::7]:1', '10.0.0.8:1'], master: m, allow: [10.1.0.0/16]"
    bundle = rendered(f"engine: {{url: 'valkeys://10.0.0.5', password_file: /etc/a, {sentinels}}}")
    assert disagreements(bundle) == []
    assert broken(edited(bundle, "service", " fd00::7", "")) != set()


def test_an_engine_by_its_name_is_none_of_the_units_business() -> None:
    engine = "engine: {url: 'valkeys://engine', password_file: /etc/a}"
    assert disagreements(rendered(engine, "manager: supervisor")) == []


def test_a_socket_that_is_changed_in_one_file_is_noticed() -> None:
    bundle = rendered("socket: /run/queue-websocket/ws.sock")
    for kind in ("socket", "gunicorn", "site"):
        elsewhere = edited(bundle, kind, "/run/queue-websocket/ws.sock", "/run/queue-websocket/other.sock")
        assert broken(elsewhere) == {("same-listener", getattr(Paths("queue-websocket"), kind))}


def test_one_location_that_passes_on_what_the_client_says_of_itself_is_noticed() -> None:
    host = "request_headers off;\n        proxy_set_header Host a.org;\n"
    bundle = edited(rendered(), "site", f"{host}        proxy_set_header X-Forwarded-For $remote_addr;\n", host)
    assert broken(bundle) == {("client-address-is-true", Paths(bundle.name).site)}


def test_fractions_of_seconds_count() -> None:
    bundle = rendered("ping: {interval: 60.5, timeout: 29.9}")
    cut_short = edited(bundle, "site", "proxy_read_timeout 106s", "proxy_read_timeout 90s")
    assert broken(cut_short) == {("proxy-outlives-ping", Paths(bundle.name).site)}


def test_an_env_that_another_group_may_read_is_noticed() -> None:
    bundle = rendered()
    path = Paths(bundle.name).env
    files = tuple(replace(file, group="www-data") if file.path == path else file for file in bundle.files)
    assert broken(replace(bundle, files=files)) == {("same-user", path)}


# Of an application of one's own: it has neither gunicorn nor workers that meet.
OF_AN_APP = ["workers: 4", "app: {callable: 'main:app', health: /healthz}", "limits: {connections: 1000}"]


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("tls", CERTIFICATES)
def test_the_files_of_an_application_agree_whatever_is_chosen(tls: str, listener: str) -> None:
    for manager in ("systemd", "supervisor"):
        chosen = (f"manager: {manager}", f"tls: {tls}", CERTIFICATES[tls], listener, *OF_AN_APP)
        assert disagreements(rendered(*chosen)) == []


NOT_OF_AN_APP = {
    "same-workers",
    "bus-has-its-directory",
    "unit-lets-the-engine-be-reached",
    "only-the-public-is-reached",
}
EDITS_OF_AN_APP = [
    ("app-knows-its-path", "env", "WEBSOCKET_APP=", "WEBSOCKET_ROOT_PATH='/shop'\nWEBSOCKET_APP="),
    ("start-is-waited-for", "service", "TimeoutStartSec=65", "TimeoutStartSec=64"),
    ("files-for-connections", "service", "LimitNOFILE=1512", "LimitNOFILE=1511"),
    *(
        edit
        for edit in EDITS
        if edit[0] not in NOT_OF_AN_APP and "gunicorn" not in edit and not re.search("publish|65536|2512", edit[2])
    ),
]


@pytest.mark.parametrize(("agreement", "kind", "old", "new"), EDITS_OF_AN_APP)
def test_an_agreement_notices_the_file_of_an_application_too(agreement: str, kind: str, old: str, new: str) -> None:
    bundle = rendered(*OF_AN_APP)
    assert (agreement, getattr(Paths(bundle.name), kind)) in broken(edited(bundle, kind, old, new))


def test_every_agreement_about_an_application_is_broken_by_an_edit() -> None:
    agreed = {agreement.name for agreement in AGREEMENTS}
    assert {edit[0] for edit in EDITS_OF_AN_APP} == agreed - NOT_OF_AN_APP


def test_a_line_that_is_missing_from_env_is_a_disagreement_and_no_crash() -> None:
    bundle = rendered()
    [env] = [file for file in bundle.files if file.path == Paths(bundle.name).env]
    needed = """WEBSOCKET_HOST WEBSOCKET_PORT WEBSOCKET_SOCKET WEBSOCKET_PING_INTERVAL WEBSOCKET_PING_TIMEOUT
        WEBSOCKET_MAX_CONNECTIONS WEBSOCKET_MAX_CONNECTIONS_PER_ADDRESS WEBSOCKET_MAX_MESSAGE_SIZE
        WEBSOCKET_HEADER_TIMEOUT WEBSOCKET_DRAIN_TIMEOUT WEBSOCKET_BUS WORKERS""".split()
    lines = env.text.splitlines(keepends=True)
    without = [edited(bundle, "env", env.text, "".join(lines[:at] + lines[at + 1 :])) for at in range(len(lines))]
    assert {line.partition("=")[0] for line, each in zip(lines, without, strict=True) if broken(each)} == {*needed}


@pytest.mark.parametrize(("name", "kind", "old", "new"), EDITS_BELOW_A_PATH)
def test_what_is_for_a_site_of_the_operators_own_is_read_as_well(name: str, kind: str, old: str, new: str) -> None:
    bundle = rendered("name: shop", "{app: {callable: 'a:b'}, nginx: {path: /shop, include: true}}")
    assert disagreements(bundle) == []
    assert name in {found for found, _ in broken(edited(bundle, kind, old, new))}
