"""What render decides, for every combination of server, manager, TLS and kind of socket."""

import itertools
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

from generator.config.schema import Deploy
from generator.paths import Paths
from generator.quoting import Unquotable
from generator.rendering.bundle import Bundle
from generator.rendering.render import keys_behind, local_address, render
from service.declaration import settings_of, struct_from, values_of

CHOICES: dict[str, list[Any]] = {
    "server": ["uvicorn", "gunicorn", "standalone"],
    "manager": ["systemd", "supervisor"],
    "tls": ["off", "letsencrypt", "files"],
    "port": [8765, "none"],
}
COMBINATIONS: list[dict[str, Any]] = [
    dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())
]
CERTIFICATE = {"file": "/etc/ssl/chat.pem", "key": "/etc/ssl/chat.key"}

ENV = "etc/chat/.env"
GUNICORN = "etc/chat/gunicorn.conf.py"
HOOK = "etc/letsencrypt/renewal-hooks/deploy/chat"
LOGROTATE = "etc/logrotate.d/chat"
MAIN = "etc/nginx/modules-enabled/90-wsbundle.conf"
SITE = "etc/nginx/sites-available/chat"
LINK = "etc/nginx/sites-enabled/chat"
SUPERVISOR = "etc/supervisor/conf.d/chat.conf"
SERVICE = "etc/systemd/system/chat.service"
SOCKET = "etc/systemd/system/chat.socket"
NGINX_SOCKET = "etc/systemd/system/chat.nginx.socket"
AFTER_MOUNTS = "etc/systemd/system/nginx.service.d/chat.conf"
SUPERVISOR_AFTER_MOUNTS = "etc/systemd/system/supervisor.service.d/chat.conf"
SYSUSERS = "etc/sysusers.d/chat.conf"
TMPFILES = "etc/tmpfiles.d/chat.conf"
PATHS = Paths("chat")
MONITORING = {PATHS.alerts, PATHS.scraping, PATHS.dashboard}

every_combination = pytest.mark.parametrize(
    "choices",
    COMBINATIONS,
    ids=lambda chosen: "-".join(str(value).rpartition("/")[2] for value in chosen.values()),
)


def deploy(**values: Any) -> Deploy:
    given = {"name": "chat", "domain": "ws.example.com", **values}
    if given.get("tls") == "files":
        given |= {"certificate": CERTIFICATE}
    return msgspec.convert(given, Deploy)


def rendered(**values: Any) -> dict[str, str]:
    return {file.path: file.text for file in render(deploy(**values)).files}


def installed(bundle: Bundle) -> set[str]:
    return {file.path for file in bundle.files if file.installed}


def setting(text: str, pattern: str) -> str:
    """What stands where the pattern has its group, in the one line that has it."""
    [found] = re.findall(rf"^\s*{pattern}$", text, re.MULTILINE)
    return str(found)


def number(text: str, pattern: str) -> float:
    return float(setting(text, pattern))


# Which files


@every_combination
def test_all_files_are_rendered_whatever_is_chosen(choices: dict[str, Any]) -> None:
    assert set(rendered(**choices)) == {
        *([NGINX_SOCKET] if choices["port"] != "none" else []),
        *(ENV, GUNICORN, HOOK, LOGROTATE, MAIN, SITE, LINK),
        *(SUPERVISOR, SERVICE, SOCKET, SYSUSERS, TMPFILES),
        *(AFTER_MOUNTS, SUPERVISOR_AFTER_MOUNTS),
        *MONITORING,
    }


@every_combination
def test_exactly_one_manager_is_installed(choices: dict[str, Any]) -> None:
    there = installed(render(deploy(**choices)))
    assert ({SERVICE, SOCKET} <= there) == (choices["manager"] == "systemd")
    assert ({SUPERVISOR, LOGROTATE} <= there) == (choices["manager"] == "supervisor")
    assert bool(there & {SERVICE, SOCKET}) != bool(there & {SUPERVISOR, LOGROTATE})


@every_combination
def test_the_rest_is_installed_where_it_is_read(choices: dict[str, Any]) -> None:
    there = installed(render(deploy(**choices)))
    assert {ENV, SITE, LINK, MAIN, SYSUSERS, AFTER_MOUNTS} <= there
    assert (SUPERVISOR_AFTER_MOUNTS in there) == (choices["manager"] == "supervisor")
    assert (GUNICORN in there) == (choices["server"] == "gunicorn")
    assert (HOOK in there) == (choices["tls"] == "letsencrypt")


def test_systemd_waits_for_supervisor_however_many_programs_it_stops_one_after_another() -> None:
    bundle = render(deploy(manager="supervisor"))
    [file] = [file for file in bundle.files if file.path == SUPERVISOR_AFTER_MOUNTS]
    assert "\n[Service]\n" in file.text
    assert file.text.endswith("\nTimeoutStopSec=infinity\n")


@pytest.mark.parametrize(
    ("listen", "waits"),
    [(("0.0.0.0", "::"), False), (("0.0.0.0", "203.0.113.5"), False), (("::", "203.0.113.5"), True), (("::1",), False)],
)
def test_nginx_is_tried_again_where_it_needs_an_address_that_may_come_late(
    listen: tuple[str, ...], waits: bool
) -> None:
    [file] = [file for file in render(deploy(nginx={"listen": listen})).files if file.path == AFTER_MOUNTS]
    assert ("\nRestart=on-failure\n" in file.text, "\nStartLimitIntervalSec=0\n" in file.text) == (waits, waits)


@every_combination
def test_directories_are_declared_exactly_if_there_are_some(choices: dict[str, Any]) -> None:
    bundle = render(deploy(**choices))
    [file] = [file for file in bundle.files if file.path == TMPFILES]
    assert file.installed == bool(re.search(r"^d ", file.text, re.MULTILINE))


def test_files_come_in_the_order_of_their_paths() -> None:
    paths = [file.path for file in render(deploy()).files]
    assert paths == sorted(paths)


def test_only_the_service_may_read_its_settings() -> None:
    [env] = [file for file in render(deploy(user="notify")).files if file.path == ENV]
    assert (env.mode, env.owner, env.group) == (0o640, "root", "notify")


def test_certbot_can_run_its_hook() -> None:
    [hook] = [file for file in render(deploy()).files if file.path == HOOK]
    assert hook.mode == 0o755
    assert hook.text.startswith("#!/bin/sh\n")


def test_the_site_is_enabled_by_a_relative_link() -> None:
    [link] = [file for file in render(deploy()).files if file.path == LINK]
    assert link.link == "../sites-available/chat"


def test_the_same_deployment_is_rendered_to_the_same_bytes() -> None:
    once, again = render(deploy(env={"B": "2", "A": "1"})), render(deploy(env={"A": "1", "B": "2"}))
    assert once == again
    assert once.manifest() == again.manifest()


@every_combination
def test_no_rendered_file_has_blanks_at_line_ends_or_two_empty_lines(choices: dict[str, Any]) -> None:
    for path, text in rendered(**choices).items():
        assert not re.search(r"[ \t]$", text, re.MULTILINE), path
        assert "\n\n\n" not in text, path
        assert path == LINK or (text.endswith("\n") and not text.endswith("\n\n")), path


def test_two_deployments_on_one_host_share_nothing_but_the_main_context() -> None:
    one, two = rendered(), rendered(name="chat-two")
    assert set(one) & set(two) == {MAIN, *MONITORING}  # those are for another program, and nowhere on a host
    assert one[MAIN] == two[MAIN]
    named = r"zone=(\w+)|^upstream (\w+)|^log_format (\w+)|shared:(\w+)|^map \S+ \$(\w+)"
    names_of_one = set(re.findall(named, one[SITE], re.MULTILINE))
    assert len(names_of_one) == 9
    assert not names_of_one & set(re.findall(named, two[f"{SITE}-two"], re.MULTILINE))


# The listener


@every_combination
def test_every_file_names_the_same_listener(choices: dict[str, Any]) -> None:
    files = rendered(**choices)
    has_port = choices["port"] != "none"
    ours = {path: setting(files[path], "ListenStream=(.*)") for path in (SOCKET, NGINX_SOCKET) if path in files}
    if has_port:
        assert ours == {SOCKET: "127.0.0.1:8765", NGINX_SOCKET: "/run/chat/ws.sock"}
    else:
        assert ours == {SOCKET: "/run/chat/ws.sock"}
    assert setting(files[SITE], "server ([^ {]+);") == "unix:/run/chat/ws.sock"
    bound = ["unix:/run/chat/ws.sock", "127.0.0.1:8765"] if has_port else ["unix:/run/chat/ws.sock"]
    assert setting(files[GUNICORN], "bind = (.*)") == repr(bound)
    assert setting(files[ENV], "WEBSOCKET_SOCKET='(.*)'") == "/run/chat/ws.sock"
    assert setting(files[ENV], "WEBSOCKET_PORT='(.*)'") == str(choices["port"])


@pytest.mark.parametrize(
    ("host", "listened", "reached"),
    [
        ("127.0.0.1", "127.0.0.1:8765", "127.0.0.1:8765"),
        ("::1", "[::1]:8765", "[::1]:8765"),
        ("0.0.0.0", "0.0.0.0:8765", "127.0.0.1:8765"),
        ("::", "[::]:8765", "[::1]:8765"),
        ("192.0.2.10", "192.0.2.10:8765", "192.0.2.10:8765"),
    ],
)
def test_programs_of_the_host_reach_whatever_is_listened_on(host: str, listened: str, reached: str) -> None:
    files = rendered(host=host)
    assert setting(files[SOCKET], "ListenStream=(.*)") == listened
    assert setting(files[GUNICORN], "bind = (.*)") == repr(["unix:/run/chat/ws.sock", listened])
    assert local_address(deploy(host=host)) == reached


@pytest.mark.parametrize(("host", "early"), [("127.0.0.1", False), ("::1", False), ("::", False), ("192.0.2.10", True)])
def test_only_an_address_that_comes_with_the_network_is_bound_before_it_is_there(host: str, early: bool) -> None:
    assert ("FreeBind=yes" in rendered(host=host)[SOCKET]) == early


@every_combination
def test_only_proxies_of_this_host_are_believed_on_tcp(choices: dict[str, Any]) -> None:
    assert setting(rendered(**choices)[GUNICORN], "forwarded_allow_ips = '(.*)'") == "127.0.0.1,::1"


@pytest.mark.parametrize(("port", "unit"), [(8765, NGINX_SOCKET), ("none", SOCKET)])
def test_only_nginx_can_open_the_socket_of_systemd(port: object, unit: str) -> None:
    files = rendered(port=port)
    assert "SocketUser=root\nSocketGroup=www-data\nSocketMode=0660\n" in files[unit]
    assert "d /run/chat 0711 root root -\n" in files[TMPFILES]


@pytest.mark.parametrize("server", CHOICES["server"])
def test_only_nginx_can_enter_the_directory_in_which_the_service_makes_its_socket(server: str) -> None:
    files = rendered(socket="/run/chat/ws.sock", manager="supervisor", server=server)
    assert "d /run/chat 2750 chat www-data -\n" in files[TMPFILES]
    # What the group of the socket, nginx's, may do with it: everything.
    assert setting(files[SUPERVISOR], "umask=(.*)") == "007"
    assert setting(files[GUNICORN], "umask = (.*)") == "0o111"


def test_gunicorn_opens_nothing_to_others_where_systemd_makes_the_socket() -> None:
    assert setting(rendered(manager="systemd")[GUNICORN], "umask = (.*)") == "0o077"


@every_combination
def test_no_runtime_directory_takes_the_socket_along_when_the_service_stops(choices: dict[str, Any]) -> None:
    # systemd removes the last part of the path alone.
    assert setting(rendered(**choices)[SERVICE], "RuntimeDirectory=(.*)") == "chat/bus"


# Times


@every_combination
def test_whoever_stops_something_waits_longer_than_what_it_stops(choices: dict[str, Any]) -> None:
    for drain in (1, 10, 600):
        files = rendered(**choices, drain={"timeout": drain})
        graceful = number(files[GUNICORN], "graceful_timeout = (.*)")
        assert drain + 5 <= graceful
        assert graceful + 5 <= number(files[SERVICE], "TimeoutStopSec=(.*)")
        assert graceful + 5 <= number(files[SUPERVISOR], "stopwaitsecs=(.*)")
        assert drain <= number(files[MAIN], "worker_shutdown_timeout (.*)s;")
        assert setting(files[ENV], "WEBSOCKET_DRAIN_TIMEOUT='(.*)'") == str(drain)


@every_combination
def test_nginx_bears_silence_longer_than_the_service(choices: dict[str, Any]) -> None:
    for interval, timeout in ((60, 30), (1, 1), (3600, 3600), (12.5, 1.25)):
        site = rendered(**choices, ping={"interval": interval, "timeout": timeout})[SITE]
        websocket = site.partition("location = / {")[2].partition("location ")[0]
        assert 15 <= number(websocket, r"proxy_read_timeout (\d+)s;") - (interval + timeout) < 16


@every_combination
def test_the_start_limit_can_trigger(choices: dict[str, Any]) -> None:
    unit = rendered(**choices)[SERVICE]
    delay, burst = number(unit, "RestartSec=(.*)"), number(unit, "StartLimitBurst=(.*)")
    assert delay * burst < number(unit, "StartLimitIntervalSec=(.*)")


@every_combination
def test_only_our_own_code_is_watched_and_only_gunicorn_is_reloaded(choices: dict[str, Any]) -> None:
    unit = rendered(**choices)[SERVICE]
    assert ("WatchdogSec=" in unit) == (choices["server"] != "gunicorn")
    assert ("ExecReload=" in unit) == (choices["server"] == "gunicorn")
    assert "Type=notify\n" in unit
    assert "KillSignal=SIGTERM\n" in unit


@every_combination
def test_supervisor_leaves_no_orphan_behind_and_no_log_unread(choices: dict[str, Any]) -> None:
    program = rendered(**choices)[SUPERVISOR]
    for line in ("stopsignal=TERM", "killasgroup=true", "redirect_stderr=true"):
        assert f"\n{line}\n" in program
    log = setting(program, "stdout_logfile=(.*)")
    assert log == setting(rendered(**choices)[LOGROTATE], r"(.*) \{")
    assert "d /var/log/chat 0750 root adm -" not in rendered(**choices | {"manager": "systemd"})[TMPFILES]


def test_supervisor_hands_its_program_a_home_where_it_may_write() -> None:
    files = rendered(manager="supervisor", user="notify")
    assert 'environment=HOME="/var/lib/chat",USER="notify"' in files[SUPERVISOR]
    assert "d /var/lib/chat 0750 notify notify -\n" in files[TMPFILES]


def test_systemd_makes_the_only_directory_where_the_service_may_write() -> None:
    files = rendered()
    assert "StateDirectory=chat\n" in files[SERVICE]
    assert "/var/lib/chat " not in files[TMPFILES]


# Capacity


@pytest.mark.parametrize("connections", [1, 1000, 100_000])
def test_every_connection_has_its_file(connections: int) -> None:
    files = rendered(limits={"connections": connections})
    assert number(files[SERVICE], "LimitNOFILE=(.*)") >= 2 * connections + 512  # while they are handed over
    assert f"ulimit -n {connections + 512} " in files[SUPERVISOR]
    needed = 2 * connections * 1.25
    assert number(files[MAIN], "worker_rlimit_nofile (.*);") >= 2 * needed
    assert f"at least {needed:.0f} in nginx.conf" in files[MAIN] or needed % 1


def test_debians_own_number_of_connections_still_fits_into_the_limit_of_files() -> None:
    assert number(rendered(limits={"connections": 1})[MAIN], "worker_rlimit_nofile (.*);") == 2 * 768


@pytest.mark.parametrize(("workers", "of_gunicorn"), [(4, "4"), ("auto", "len(os.sched_getaffinity(0))")])
def test_how_many_workers_auto_means_is_left_to_the_host(workers: object, of_gunicorn: str) -> None:
    files = rendered(workers=workers)
    assert setting(files[ENV], "WORKERS='(.*)'") == str(workers)
    assert setting(files[GUNICORN], "workers = (.*)") == of_gunicorn


def test_there_is_a_reload_where_workers_can_be_replaced() -> None:
    ours = "ExecReload=/opt/chat/current/venv/bin/python -m service.workers.reload\n"
    for server in ("uvicorn", "standalone"):
        assert "ExecReload=" not in rendered(server=server)[SERVICE]
        for workers in (2, "auto"):
            assert ours in rendered(server=server, workers=workers)[SERVICE]
    for workers in (1, 2):
        assert "ExecReload=/bin/kill -HUP $MAINPID\n" in rendered(server="gunicorn", workers=workers)[SERVICE]


def test_workers_are_told_where_to_look_for_what_is_current_and_only_where_they_look() -> None:
    told = {"systemd": "Environment=WEBSOCKET_ENV_FILE=/etc/chat/.env\n", "supervisor": '="/etc/chat/.env"\n'}
    for path, line in ((SERVICE, told["systemd"]), (SUPERVISOR, told["supervisor"])):
        assert line in rendered(workers=4)[path]
        for other in ({"workers": 1}, {"server": "gunicorn", "workers": 4}):
            assert "WEBSOCKET_" not in rendered(**other)[path]


def test_the_service_is_told_which_start_of_the_host_this_is_where_it_keeps_mail_or_there_are_other_hosts() -> None:
    line = "Environment=WEBSOCKET_BOOT_ID=%b\n"
    assert line in rendered(auth="token", mailbox={"keep": "disk"})[SERVICE]
    assert line in rendered(engine={"url": "redis://127.0.0.1"})[SERVICE]
    assert line not in rendered(auth="token")[SERVICE]


@every_combination
def test_the_workers_have_a_directory_to_meet_in(choices: dict[str, Any]) -> None:
    files = rendered(**choices)
    assert setting(files[ENV], "WEBSOCKET_BUS='(.*)'") == "/run/chat/bus"
    assert "RuntimeDirectory=chat/bus\n" in files[SERVICE]
    if choices["manager"] == "supervisor":
        assert "d /run/chat 2750 chat www-data -\n" in files[TMPFILES]


def test_the_limits_per_address_stand_before_the_websockets() -> None:
    limits = {"connections_per_address": 7, "handshakes_per_second": 3, "handshake_burst": 11}
    site = rendered(limits=limits)[SITE]
    assert "limit_req_zone $binary_remote_addr zone=chat_handshakes:10m rate=3r/s;" in site
    assert "limit_conn chat_connections 7;" in site
    assert "limit_req zone=chat_handshakes burst=11 nodelay;" in site
    assert site.count("_status 429;") == 4


def test_nginx_waits_for_clients_where_it_is_told_to() -> None:
    settings = {"listen": ["203.0.113.5", "2001:db8::5"], "default_server": True}
    site = rendered(tls="files", nginx=settings)[SITE]
    ports = re.findall(r"listen (.*);", site)
    default = ["203.0.113.5:80 default_server", "[2001:db8::5]:80 default_server"]
    default += ["203.0.113.5:443 ssl default_server", "[2001:db8::5]:443 ssl default_server"]
    assert ports == [*default, "203.0.113.5:80", "[2001:db8::5]:80", "203.0.113.5:443 ssl", "[2001:db8::5]:443 ssl"]


def test_a_message_over_http_may_be_as_long_as_one_over_a_websocket() -> None:
    site = rendered(limits={"message_size": 1000, "messages_per_second": 7})[SITE]
    publish = site[site.index("location /publish/ {") :]
    assert "client_max_body_size 1000;" in publish
    assert "limit_req_zone $binary_remote_addr zone=chat_publications:10m rate=7r/s;" in site
    assert "limit_req zone=chat_publications burst=7 nodelay;" in publish


def test_a_slow_request_is_given_up_by_nginx_when_the_service_would() -> None:
    site = rendered(tls="files", limits={"header_timeout": 33}, nginx={"default_server": True})[SITE]
    assert site.count("client_header_timeout 33s;") == site.count("client_header_timeout ") == 3
    assert site.count("client_body_timeout 33s;") == 1


@pytest.mark.parametrize(("given", "meant"), [(10, 60), (300, 300)])
def test_an_upload_may_pause_and_no_shorter_than_a_head(given: int, meant: int) -> None:
    site = rendered(app={"callable": "main:app"}, limits={"header_timeout": given})[SITE]
    assert f"\n        client_body_timeout {meant}s;\n" in site


def test_the_log_of_nginx_holds_no_query() -> None:
    log_format = rendered()[SITE].partition("log_format ")[2].partition(";")[0]
    assert '"path":"$uri"' in log_format
    assert not re.search(
        r"\$(request|request_uri|args|query_string|arg_\w+|http_(referer|authorization))\b", log_format
    )


@pytest.mark.parametrize(("length", "size"), [(46, None), (47, "128"), (110, "128"), (111, "256"), (253, "512")])
def test_nginx_gets_room_for_a_long_domain(length: int, size: str | None) -> None:
    site = rendered(domain=("a." * length)[: length - 1] + "a")[SITE]
    assert re.findall(r"^server_names_hash_bucket_size (\d+);", site, re.MULTILINE) == ([size] if size else [])


# The site


@every_combination
def test_what_clients_say_of_their_address_is_overwritten(choices: dict[str, Any]) -> None:
    site = rendered(**choices)[SITE]
    assert site.count("proxy_set_header X-Forwarded-For $remote_addr;") == site.count("proxy_pass ")
    passes = 1 + (choices["server"] != "standalone") + (1 if choices["tls"] == "off" else 2)
    assert site.count("proxy_pass ") == passes
    assert "$proxy_add_x_forwarded_for" not in site


@every_combination
def test_no_certificate_is_named_without_tls_and_everything_is_encrypted_with_it(choices: dict[str, Any]) -> None:
    site = rendered(**choices)[SITE]
    encrypted = choices["tls"] != "off"
    assert ("ssl_certificate " in site) == encrypted
    assert ("listen 443 ssl;" in site) == encrypted
    assert ("return 308 https://ws.example.com$request_uri;" in site) == encrypted
    assert ("Strict-Transport-Security" in site) == encrypted
    assert ("/.well-known/acme-challenge/" in site) == (choices["tls"] == "letsencrypt")


def test_a_certificate_of_lets_encrypt_is_served_through_the_link_that_its_hook_turns() -> None:
    files = rendered(tls="letsencrypt")
    assert "ssl_certificate /etc/chat/tls/fullchain.pem;" in files[SITE]
    assert "ssl_certificate_key /etc/chat/tls/privkey.pem;" in files[SITE]
    assert "mv -T /etc/chat/tls.new /etc/chat/tls\n" in files[HOOK]
    assert "root /var/lib/chat-acme;" in files[SITE]
    assert "d /var/lib/chat-acme 0755 root root -\n" in files[TMPFILES]


@pytest.mark.parametrize(("tls", "ports"), [("off", 1), ("files", 2), ("letsencrypt", 2)])
def test_a_host_of_our_own_refuses_whoever_names_no_site(tls: str, ports: int) -> None:
    assert rendered(tls=tls)[SITE].count("return 444;") == 0
    site = rendered(tls=tls, nginx={"default_server": True})[SITE]
    assert site.count("return 444;") == 1
    assert site.count(" default_server;") == 2 * ports


@every_combination
def test_whoever_may_ask_for_the_health_is_the_same_everywhere(choices: dict[str, Any]) -> None:
    given = {"default_server": True, "trusted_proxies": ["10.0.0.0/8"], "health_from": ["10.0.0.1", "fd00::/8"]}
    site = rendered(**choices, nginx=given)[SITE]
    for server in site.split("\nserver {\n")[1:]:
        assert re.findall("(?:allow|deny) (.*);", server) == ["10.0.0.1", "fd00::/8", "all"]
        assert re.findall("set_real_ip_from (.*);", server) == ["10.0.0.0/8"]


def test_only_trusted_proxies_may_name_a_client() -> None:
    assert "real_ip" not in rendered()[SITE]
    site = rendered(nginx={"trusted_proxies": ["10.0.0.0/8", "fd00::/8"]})[SITE]
    assert re.findall("set_real_ip_from (.*);", site) == ["10.0.0.0/8", "fd00::/8"]
    assert "real_ip_header X-Forwarded-For;" in site


def test_health_is_for_those_that_are_listed() -> None:
    site = rendered(nginx={"health_from": ["10.1.2.3"]})[SITE]
    assert re.findall("(allow .*|deny .*);", site) == ["allow 10.1.2.3", "deny all"]


@every_combination
def test_the_query_string_is_not_logged(choices: dict[str, Any]) -> None:
    site = rendered(**choices)[SITE]
    for secret in ("$request,", '$request"', "$args", "$query_string", "combined"):
        assert secret not in site.replace("$request_uri;", "")
    [log_format] = re.findall(r"log_format [^;]*;", site)
    assert "$request_uri" not in log_format


# Values


def test_the_env_file_holds_every_setting_and_then_the_operators_variables() -> None:
    env = rendered(env={"ZONE": "b", "AREA": "it's"})[ENV]
    assert setting(env, "WEBSOCKET_PING_INTERVAL='(.*)'") == "60"
    assert env.endswith("\n\n# Further variables, from `env` in deploy.yaml.\nAREA=\"it's\"\nZONE='b'\n")


def test_a_value_that_a_file_cannot_carry_is_refused() -> None:
    with pytest.raises(Unquotable, match="python-dotenv would replace"):
        render(deploy(env={"A": "${B}"}))


# The way back to deploy.yaml


def test_a_rendered_line_leads_back_to_its_settings() -> None:
    chosen = deploy(nginx={"trusted_proxies": ["10.0.0.0/8", "fd00::/8"]}, env={"A": "1", "B": "2"})
    files = {file.path: file.text.splitlines() for file in render(chosen).files}

    def behind(path: str, line: str) -> tuple[str, ...]:
        return keys_behind(chosen, path, files[path].index(line) + 1)

    assert behind(SITE, "        proxy_read_timeout 105s;") == ("ping.interval", "ping.timeout")
    assert behind(SITE, "    server_name ws.example.com;") == ("domain",)
    assert behind(SITE, "    set_real_ip_from fd00::/8;") == ("nginx.trusted_proxies",)
    assert behind(SITE, "    server unix:/run/chat/ws.sock;") == ("socket", "name")
    assert behind(SOCKET, "ListenStream=127.0.0.1:8765") == ("port", "host")
    assert behind(SITE, "    server_tokens off;") == ()
    assert behind(ENV, "WEBSOCKET_PORT='8765'") == ("port",)
    assert behind(ENV, "B='2'") == ("env.B",)
    assert behind(SERVICE, "User=chat") == ("user", "name")


def test_a_location_leads_back_to_its_settings_in_our_site_and_in_the_operators() -> None:
    for include, path, indent in ((False, SITE, "    "), (True, "etc/nginx/chat/locations.conf", "")):
        chosen = deploy(nginx={"path": "/ws", "include": include, "health_from": ["10.0.0.1"]})
        lines = next(file.text.splitlines() for file in render(chosen).files if file.path == path)

        def behind(line: str, lines: list[str] = lines, chosen: Deploy = chosen, path: str = path) -> tuple[str, ...]:
            return keys_behind(chosen, path, lines.index(line) + 1)

        assert behind(f"{indent}location = /ws {{") == ("nginx.path",)
        assert behind(f"{indent}    allow 10.0.0.1;") == ("nginx.health_from",)
        assert behind(f"{indent}    proxy_read_timeout 105s;") == ("ping.interval", "ping.timeout")
        assert behind(f"{indent}    proxy_buffering off;") == ()


OTHER_VALUES: dict[str, Any] = {
    "name": "chaz",
    "domain": "other.example.com",
    "host": "::1",
    "port": 9000,
    "socket": "/run/chat/other.sock",
    "ping.interval": 90.5,
    "ping.timeout": 45.0,
    "limits.connections": 2000,
    "limits.message_size": 1024,
    "limits.connections_per_address": 50,
    "limits.handshakes_per_second": 5,
    "limits.handshake_burst": 200,
    "limits.messages_per_second": 10,
    "limits.bytes_per_second": 1_000_000,
    "limits.registrations": 3,
    "limits.queue": 2_000_000,
    "limits.header_timeout": 33,
    "limits.hello_timeout": 44,
    "drain.timeout": 400,
    "drain.window": 1,
    "drain.rate": 100,
    "drain.keep": False,
    "log.level": "info",
    "log.format": "json",
    "auth": "token",
    "bus": "/run/chat/workers",
    "mailbox.keep": "disk",
    "mailbox.directory": "/var/lib/chat/kept",
    "mailbox.ttl": 3600,
    "mailbox.messages": 50,
    "mailbox.bytes": 2_000_000,
    "mailbox.total": 5_000_000,
    "mailbox.sync": "second",
    "engine.sentinels": ("10.0.0.5:26379",),
    "engine.master": "main",
    "engine.name": "other",
    "engine.user": "chat",
    "engine.password_file": "/etc/chat/engine.password",
    "engine.ca": "/etc/ssl/engine/ca.pem",
    "engine.cert": "/etc/ssl/engine/chat.pem",
    "engine.key": "/etc/ssl/engine/chat.key",
    "engine.silence": 6.0,
    "engine.host": "host-1",
    "keys": "/etc/other/keys.json",
    "origins": ("https://example.com",),
    "welcome": "Hello",
    "certificate.file": "/etc/ssl/other.pem",
    "certificate.key": "/etc/ssl/other.key",
    "user": "somebody",
    "nginx.listen": ("203.0.113.5", "::"),
    "nginx.http_port": 8080,
    "nginx.https_port": 8443,
    "nginx.trusted_proxies": ("10.0.0.0/8",),
    "nginx.health_from": ("10.0.0.1", "10.0.0.2"),
    "nginx.metrics_from": ("10.0.0.1",),
    "env": {"A": "2"},
    "app.callable": "main:application",
    "app.health": "/livez",
    "app.static": {"/static/": "other"},
    "app.start": 90,
    "app.body_size": 2_000_000,
    "needs.network": ("10.0.0.6",),
    "needs.write": ("/srv/other",),
    "needs.devices": ("/dev/ttyUSB1",),
}
# They decide which lines there are, not what stands in one; or nothing that is rendered.
WITHOUT_A_VALUE = {
    "workers",
    "server",
    "manager",
    "tls",
    "letsencrypt.email",
    "letsencrypt.server",
    "expose",
    "hosts",
    "nginx.default_server",
    "nginx.idle_limit",
    "nginx.include",
    "nginx.path",
    "nginx.proxy_protocol",
    "replaces",
    "engine.url",
    "engine.allow",
    "engine.insecure",
    "engine.serve",
    "app.path",
    "app.requirements",
    "app.build",
    "app.before",
    "needs.exec",
    "needs.jit",
    "needs.host_metrics",
    "needs.chown",
}


def test_every_setting_is_either_printed_or_decides() -> None:
    assert {setting.key for setting in settings_of(Deploy)} == {*OTHER_VALUES, *WITHOUT_A_VALUE}


@pytest.mark.parametrize("key", sorted(OTHER_VALUES))
def test_every_line_that_a_setting_changes_leads_back_to_it(key: str) -> None:
    engine = {"url": "valkeys://10.0.0.5:6379"}
    nginx = {"trusted_proxies": ["fd00::/8"], "metrics_from": ["10.0.0.9"]}
    before = deploy(tls="files", nginx=nginx, env={"A": "1"}, engine=engine)
    if key.startswith(("app.", "needs.")):
        app = {"callable": "main:app", "health": "/healthz", "static": {"/static/": "static"}}
        needs = {"network": ["10.0.0.5"], "write": ["/srv/uploads"], "devices": ["/dev/ttyUSB0"]}
        before = deploy(tls="files", app=app, needs=needs)
    after = struct_from(Deploy, values_of(before) | {key: OTHER_VALUES[key]})
    changed = 0
    for old, new in zip(render(before).files, render(after).files, strict=True):
        assert old.template == new.template
        if old.path == PATHS.dashboard:
            continue  # no program of a host reads it, so no line of it is ever refused
        lines = list(zip(old.text.splitlines(), new.text.splitlines(), strict=False))
        if old.text.count("\n") == new.text.count("\n"):
            for line in [at for at, (one, other) in enumerate(lines, 1) if one != other]:
                behind = keys_behind(before, old.path, line)
                assert any(name == key or name.startswith(f"{key}.") for name in behind), f"{old.path}:{line}"
                changed += 1
    assert changed


@pytest.mark.parametrize(("manager", "stream"), [("systemd", "err"), ("supervisor", "out")])
def test_a_service_whose_python_is_gone_says_what_to_do(manager: str, stream: str, tmp_path: Path) -> None:
    """As after an upgrade of the host: all there is then is a shell."""
    files = rendered(manager=manager)
    if manager == "systemd":
        command = re.search(r"(?m)^ExecStart=(.*)$", files["etc/systemd/system/chat.service"])
    else:
        command = re.search(r"(?m)^command=(.*)$", files["etc/supervisor/conf.d/chat.conf"])
    assert command is not None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/.env").touch()
    here = command[1].replace("/etc/chat", f"{tmp_path}/etc").replace("/opt/chat", str(tmp_path))
    done = subprocess.run(shlex.split(here), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is gone: install again" in (done.stderr if stream == "err" else done.stdout)
