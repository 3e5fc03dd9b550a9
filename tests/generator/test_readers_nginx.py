"""nginx judges the site, alone and among the sites of a host."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from generator.config.schema import Limits
from generator.readers import nginx
from generator.readers.nginx_http2 import DIRECTIVE_SINCE, version_in
from generator.readers.processes import Call, Outcome, Running, find_program, side_by_side
from generator.readers.verdict import Verdict
from generator.rendering.bundle import Bundle
from tests.generator.readings import (
    NAME,
    broken,
    fault,
    line_of,
    nothing_installed,
    rendered,
    text_of,
    verdict,
    verdicts,
)
from tests.programs import needs

pytestmark = needs("nginx")

SITE = f"etc/nginx/sites-available/{NAME}"
MAIN = "etc/nginx/modules-enabled/90-wsbundle.conf"
OTHER_SITE = "etc/nginx/sites-enabled/other"
MAIN_OF_DEBIAN = """\
user www-data;
pid /run/nginx.pid;
error_log /nowhere/error.log;
include /etc/nginx/modules-enabled/*.conf;
events { worker_connections 768; }
http {
    access_log /nowhere/access.log;
    include /etc/nginx/conf.d/*.conf;
    include /etc/nginx/sites-enabled/*;
}
"""

DEPLOYMENTS: dict[str, dict[str, object]] = {
    "plain": {},
    "letsencrypt": {"tls": "letsencrypt", "nginx": {"default_server": True}},
    "certificate": {"tls": "files", "certificate": {"file": "/srv/c.pem", "key": "/srv/k.pem"}},
    "unix_socket": {"socket": "/run/queue-websocket/ws.sock"},
    "path": {"nginx": {"path": "/ws"}},
    "include": {"nginx": {"path": "/ws", "include": True}},
    "app_include": {
        "app": {"callable": "a:b", "static": {"/static/": "static"}},
        "nginx": {"path": "/shop", "include": True},
    },
    "app": {
        "app": {"callable": "a:b"},
        "tls": "files",
        "certificate": {"file": "/srv/c.pem", "key": "/srv/k.pem"},
        "nginx": {"default_server": True},
    },
    "proxies": {"nginx": {"trusted_proxies": ["10.0.0.0/8"], "health_from": ["::1"]}},
}


@pytest.fixture(autouse=True)
def no_nginx_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nginx, "HOST", tmp_path / "none")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """A host's /etc/nginx, with the sites that are given."""

    def make(**sites: str) -> Path:
        directory = tmp_path / "etc-nginx"
        for name in ("sites-available", "sites-enabled", "conf.d", "modules-enabled"):
            (directory / name).mkdir(parents=True)
        (directory / "nginx.conf").write_text(MAIN_OF_DEBIAN)
        for name, text in sites.items():
            (directory / "sites-available" / name).write_text(text)
            (directory / "sites-enabled" / name).symlink_to(directory / "sites-available" / name)
        monkeypatch.setattr(nginx, "HOST", directory)
        return directory

    return make


@pytest.mark.parametrize("bound", ["ge", "le"])
def test_nginx_accepts_every_limit_at_its_bounds(bound: str) -> None:
    limits = {}
    for field in msgspec.inspect.type_info(Limits).fields:  # type: ignore[attr-defined]
        limits[field.encode_name] = getattr(getattr(field.type, "type", field.type), bound)
    assert len(limits) >= 10
    assert verdict(nginx.configuration, rendered(limits=limits)).state == "accepted"


def as_nobody(bundle: Bundle, directory: Path) -> list[Verdict]:
    """What the reader says to an ordinary user."""

    def read() -> str:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        return msgspec.json.encode(side_by_side([nginx.configuration(bundle, directory)])[0]).decode()

    def task() -> Running[Outcome]:
        return (yield Call(read))

    directory.chmod(0o777)
    for parent in directory.parents[:-2]:
        parent.chmod(0o755)
    (outcome,) = side_by_side([task()])
    assert outcome.status == 0, outcome.output
    return msgspec.json.decode(outcome.output, type=list[Verdict])


@pytest.mark.parametrize("settings", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_every_kind_of_site_is_accepted_alone(settings: dict[str, object]) -> None:
    assert verdict(nginx.configuration, rendered(**settings)).state == "accepted"


@pytest.mark.parametrize("settings", DEPLOYMENTS.values(), ids=DEPLOYMENTS)
def test_every_kind_of_site_is_accepted_beside_another(host: Callable[..., Path], settings: dict[str, object]) -> None:
    host(other="server { listen 80; server_name other.example.com; access_log /nowhere/other.log; }\n")
    (said,) = verdicts(nginx.configuration, rendered(**settings))
    assert (said.title, said.state) == ("nginx configuration", "accepted")


@pytest.mark.parametrize(
    ("path", "old", "new", "message"),
    [
        (SITE, "proxy_buffering", "proxy_bufering", 'unknown directive "proxy_bufering"'),
        (SITE, "proxy_connect_timeout 5s", "proxy_connect_timeout 5q", '"proxy_connect_timeout" directive invalid'),
        (SITE, "proxy_buffering off", "proxy_buffering maybe", 'invalid value "maybe"'),
        (SITE, "listen 80", "listen 80000", 'invalid port in "80000"'),
        (SITE, "limit_conn_status 429", "limit_conn_status 200", "value must be between 400 and 599"),
        (MAIN, "worker_rlimit_nofile", "worker_rlimit_nofiles", 'unknown directive "worker_rlimit_nofiles"'),
        (MAIN, "worker_shutdown_timeout 300s", "worker_shutdown_timeout -1", "invalid value"),
    ],
)
def test_a_fault_is_told_at_its_line(path: str, old: str, new: str, message: str) -> None:
    bundle = broken(rendered(), path, old, new)
    found = fault(nginx.configuration, bundle)
    assert (found.path, found.line) == (path, line_of(bundle, path, new))
    assert message in found.message


def test_what_is_read_is_what_would_be_installed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP/2 in the words of this nginx; those of another one are a fault: an error before 1.25.1, then a warning."""
    bundle = rendered(**DEPLOYMENTS["app"])
    assert verdict(nginx.configuration, bundle).state == "accepted"
    own = version_in(subprocess.run([find_program("nginx") or "", "-v"], capture_output=True, text=True).stderr)
    is_new = own >= DIRECTIVE_SINCE
    monkeypatch.setattr(nginx, "version_in", lambda _: (1, 22, 1) if is_new else DIRECTIVE_SINCE)
    found = verdict(nginx.configuration, bundle)
    assert found.state == "refused"
    assert ("deprecated" if is_new else 'unknown directive "http2"') in found.faults[0].message


def test_a_missing_semicolon_is_told() -> None:
    found = fault(nginx.configuration, broken(rendered(), SITE, "proxy_buffering off;", "proxy_buffering off"))
    assert found.path == SITE
    assert "invalid number of arguments" in found.message


def test_a_missing_brace_is_told_at_the_end() -> None:
    bundle = rendered()
    last = text_of(bundle, SITE).rstrip().count("\n") + 1
    unclosed = broken(bundle, SITE, 'return 404 "WebSocket endpoint only";\n    }', 'return 404 "";\n')
    found = fault(nginx.configuration, unclosed)
    assert "unexpected end of file" in found.message
    assert found.line is not None
    assert found.line >= last - 1


def test_a_zone_that_nobody_defines_is_told() -> None:
    old, new = "limit_conn queue_websocket_connections", "limit_conn queue_websocket_connection"
    found = fault(nginx.configuration, broken(rendered(), SITE, old, new))
    assert (found.path, found.line) == (SITE, None)
    assert 'zero size shared memory zone "queue_websocket_connection"' in found.message


def test_an_upstream_that_nobody_defines_is_told() -> None:
    found = fault(nginx.configuration, broken(rendered(), SITE, "http://queue_websocket;", "http://queue websocket;"))
    assert found.path == SITE


def test_a_zone_that_another_site_has_too_is_told(host: Callable[..., Path]) -> None:
    host(zz="limit_req_zone $binary_remote_addr zone=queue_websocket_handshakes:1m rate=1r/s;\n")
    found = fault(nginx.configuration, rendered())
    assert found.path == SITE
    assert "/etc/nginx/sites-available/zz:1" in found.message
    assert "queue_websocket_handshakes" in found.message


@pytest.mark.parametrize("name", ["other", "zz"])
def test_a_second_default_server_is_told_with_the_real_port(host: Callable[..., Path], name: str) -> None:
    host(**{name: "server { listen 80 default_server; }\n"})
    bundle = rendered(nginx={"default_server": True})
    found = fault(nginx.configuration, bundle)
    assert (found.path, found.line) == (SITE, line_of(bundle, SITE, "listen 80 default_server"))
    assert found.message == (
        f"a duplicate default server for 0.0.0.0:80; /etc/nginx/sites-available/{name}:1 is one as well: "
        "set nginx.default_server to false, or take default_server away there"
    )


def test_a_site_without_tls_on_our_port_for_tls_is_told(host: Callable[..., Path]) -> None:
    host(a="server {\n listen 8443; server_name a.example.com; }\n")
    bundle = rendered(**DEPLOYMENTS["certificate"] | {"nginx": {"https_port": 8443}})
    found = fault(nginx.configuration, bundle)
    assert (found.path, found.line) == (SITE, line_of(bundle, SITE, "listen 8443 ssl"))
    assert found.message == (
        "/etc/nginx/sites-available/a:1 has our port for TLS without TLS, and would need a certificate; "
        "give that site another port, or set nginx.https_port to another"
    )


def test_a_unix_socket_is_told_by_its_real_path(host: Callable[..., Path]) -> None:
    host(
        a="server { listen unix:/run/a.sock default_server; }\n",
        b="server { listen unix:/run/a.sock default_server; }\n",
    )
    _, among_others = verdicts(nginx.configuration, rendered())
    assert "a duplicate default server for unix:/run/a.sock" in among_others.why


def test_a_site_that_makes_way_may_have_the_name(host: Callable[..., Path]) -> None:
    host(old="server { listen 80; server_name ws.example.com; }\n")
    bundle = rendered(domain="ws.example.com", replaces=["/etc/nginx/sites-enabled/old"])
    assert verdict(nginx.configuration, bundle).state == "accepted"


@pytest.mark.parametrize("name", ["ws.example.com", "www.example.com", "WS.Example.com"])
def test_a_name_that_another_site_has_too_is_told_though_nginx_only_warns(host: Callable[..., Path], name: str) -> None:
    host(old=f"server {{ listen 80; server_name {name}; }}\n")
    bundle = rendered(domain=["ws.example.com", "www.example.com"])
    found = fault(nginx.configuration, bundle)
    assert (found.path, found.line) == (SITE, line_of(bundle, SITE, "server_name ws.example.com"))
    assert f"another site of this host is {name.lower()} on 0.0.0.0:80 too" in found.message
    assert "remove that of /etc/nginx/sites-available/old:1, or use another domain" in found.message


def test_a_name_of_another_deployment_is_told_with_the_command_that_ends_that(host: Callable[..., Path]) -> None:
    host(old="# Rendered by wsbundle from deploy.yaml\nserver { listen 80; server_name ws.example.com; }\n")
    found = fault(nginx.configuration, rendered(domain="ws.example.com"))
    assert "wsbundle uninstall --set name=old`, or use another domain" in found.message


def test_our_own_deployment_is_not_to_be_ended_for_another_site_of_its_name(host: Callable[..., Path]) -> None:
    site = "server { listen 80; server_name ws.example.com; }\n"
    host(**{"aaa": site, "queue-websocket": f"# Rendered by wsbundle from deploy.yaml\n{site}"})
    found = fault(nginx.configuration, rendered(domain="ws.example.com"))
    assert "remove that of /etc/nginx/sites-available/aaa:1, or use another domain" in found.message


def test_names_that_two_other_sites_share_are_not_ours(host: Callable[..., Path]) -> None:
    host(a="server { listen 80; server_name a.example.com; }\n", b="server { listen 80; server_name a.example.com; }\n")
    assert verdict(nginx.configuration, rendered()).state == "accepted"


@pytest.fixture
def no_ipv6(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An nginx to which this machine has no IPv6, as with `ipv6.disable=1` on the kernel's command line."""
    directory = tmp_path / "without-ipv6"
    directory.mkdir()
    wrapper = directory / "nginx"
    without = Path(__file__).parent / "without_ipv6.py"
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} -S {without} {find_program("nginx")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(directory))


@pytest.mark.usefixtures("no_ipv6")
@pytest.mark.parametrize("tls", ["off", "letsencrypt"])
@pytest.mark.parametrize("default_server", [False, True])
def test_a_host_without_ipv6_is_told_what_to_write_and_then_takes_the_site(tls: str, default_server: bool) -> None:
    bundle = rendered(tls=tls, nginx={"default_server": default_server})
    found = fault(nginx.configuration, bundle)
    assert found.path == SITE
    assert found.line == line_of(bundle, SITE, "listen [")
    assert found.message == "this host has no IPv6; write `listen: [0.0.0.0]` below `nginx:` in deploy.yaml"
    nginx_settings = {"default_server": default_server, "listen": ["0.0.0.0"]}
    assert verdict(nginx.configuration, rendered(tls=tls, nginx=nginx_settings)).state == "accepted"


@pytest.mark.usefixtures("no_ipv6")
def test_what_else_it_listens_on_stays_in_the_fix() -> None:
    found = fault(nginx.configuration, rendered(nginx={"listen": ["127.0.0.1", "::1", "127.0.0.2"]}))
    assert "write `listen: [127.0.0.1, 127.0.0.2]`" in found.message


@pytest.mark.parametrize("tls", ["off", "letsencrypt"])
@pytest.mark.parametrize("address", ["203.0.113.5", "2001:db8::5"])
def test_a_site_may_listen_on_an_address_of_the_host_that_it_is_rendered_for(tls: str, address: str) -> None:
    bundle = rendered(tls=tls, nginx={"listen": ["127.0.0.1", address]})
    assert verdict(nginx.configuration, bundle).state == "accepted"
    wrong = broken(bundle, SITE, "proxy_buffering off", "proxy_buffering maybe")
    assert "invalid value" in fault(nginx.configuration, wrong).message


@pytest.mark.parametrize("directive", ["worker_rlimit_nofile", "worker_shutdown_timeout"])
@pytest.mark.parametrize("is_first", [True, False])
def test_our_shared_file_makes_way_for_what_nginx_conf_sets_already(
    host: Callable[..., Path], directive: str, is_first: bool
) -> None:
    directory, line = host(), f"{directive} 1000;\n"
    text = f"{line}{MAIN_OF_DEBIAN}" if is_first else MAIN_OF_DEBIAN.replace("events", f"{line}events")
    (directory / "nginx.conf").write_text(text)
    bundle = rendered()
    (directory / "modules-enabled/90-wsbundle.conf").write_text(text_of(bundle, MAIN))  # as an earlier run left it
    assert verdict(nginx.configuration, bundle).state == "accepted"


def test_a_directive_of_a_long_domain_that_another_site_has_is_told(host: Callable[..., Path]) -> None:
    host(other="server_names_hash_bucket_size 128;\n")
    found = fault(nginx.configuration, rendered(domain=f"{'a' * 50}.example.com"))
    assert (
        "nginx takes server_names_hash_bucket_size once, and /etc/nginx/sites-available/other:1 has it" in found.message
    )


def test_a_host_that_is_broken_without_us_is_told_and_the_site_still_judged(host: Callable[..., Path]) -> None:
    host(broken="server {\n    listn 80;\n}\n")
    ours, among_others = verdicts(nginx.configuration, rendered())
    assert ours.state == "accepted"
    assert among_others.state == "not checked"
    assert among_others.why == (
        'this host\'s nginx is broken already: /etc/nginx/sites-available/broken:2: unknown directive "listn"'
    )


def test_a_broken_site_on_a_broken_host_is_refused(host: Callable[..., Path]) -> None:
    host(broken="server { listn 80; }\n")
    ours, among_others = verdicts(nginx.configuration, broken(rendered(), SITE, "proxy_pass", "proxy_pas"))
    assert (ours.state, among_others.state) == ("refused", "not checked")


def test_the_release_that_is_installed_is_replaced_not_met(host: Callable[..., Path]) -> None:
    bundle = rendered()
    host(**{NAME: text_of(bundle, SITE)})
    assert verdict(nginx.configuration, bundle).state == "accepted"


def test_nothing_outside_the_copy_is_written(host: Callable[..., Path], tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    directory = host(
        other=f"proxy_cache_path {outside}/cache keys_zone=c:1m;\n"
        f"server {{ listen unix:{outside}/other.sock; listen unix:{outside}/{'s' * 60}.sock; "
        f"access_log {outside}/a.log; error_log {outside}/e.log; }}\n"
    )
    before = sorted(directory.rglob("*"))
    assert verdict(nginx.configuration, rendered()).state == "accepted"
    assert list(outside.iterdir()) == []
    assert sorted(directory.rglob("*")) == before


@pytest.mark.parametrize("linked", ["sites-available", "sites-enabled", "modules-enabled", "conf.d"])
def test_a_directory_that_is_a_link_to_elsewhere_is_not_written_either(
    host: Callable[..., Path], tmp_path: Path, linked: str
) -> None:
    bundle = rendered(nginx={"default_server": True}, replaces=["/etc/nginx/conf.d/old.conf"])
    directory, elsewhere = host(default="server { listen 80 default_server; }\n"), tmp_path / "elsewhere"
    (directory / "conf.d/old.conf").write_text("server { listen 80; server_name ws.example.com; }\n")
    (directory / MAIN.removeprefix("etc/nginx/")).write_text("# of an earlier release\n")
    (directory / linked).rename(elsewhere)
    (directory / linked).symlink_to(elsewhere)
    before = {path: path.read_bytes() for path in elsewhere.iterdir()}
    assert verdict(nginx.configuration, bundle).state == "accepted"
    assert {path: path.read_bytes() for path in elsewhere.iterdir()} == before


def test_a_site_that_includes_others_by_relative_path_is_understood(host: Callable[..., Path]) -> None:
    directory = host(other="server { listen 80; include snippets/headers; }\n")
    (directory / "snippets").mkdir()
    (directory / "snippets" / "headers").write_text("add_header X-A b;\n")
    assert verdict(nginx.configuration, rendered()).state == "accepted"


def test_files_of_a_host_may_have_comments_that_are_not_utf_8(host: Callable[..., Path], tmp_path: Path) -> None:
    directory = host(other="")
    (directory / "sites-available" / "other").write_bytes(
        b"# gr\xfc\xdfe\nserver { listen unix:%b/other.sock; }\n" % bytes(tmp_path)
    )
    (directory / "nginx.conf").write_bytes(b"# gr\xfc\xdfe\n" + MAIN_OF_DEBIAN.encode())
    assert verdict(nginx.configuration, rendered()).state == "accepted"
    assert not (tmp_path / "other.sock").exists()


def test_what_is_no_text_is_left_where_it_is(host: Callable[..., Path]) -> None:
    directory = host()
    (directory / "geo.dat").write_bytes(b"\xff\xfe\x00" * 10)
    (directory / "dangling").symlink_to("/nowhere/at/all")
    (directory / "loop").symlink_to("loop")
    os.mkfifo(directory / "pipe")
    assert verdict(nginx.configuration, rendered()).state == "accepted"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_gets_the_same_answers(host: Callable[..., Path], tmp_path: Path) -> None:
    host(other="server { listen 80; listen [::]:443 ssl default_server; ssl_reject_handshake on; }\n")
    for number, (bundle, state) in enumerate(
        [
            (rendered(tls="letsencrypt"), "accepted"),
            (broken(rendered(), SITE, "proxy_pass", "proxy_pas"), "refused"),
        ]
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        assert [said.state for said in as_nobody(bundle, directory)] == [state]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_who_may_not_read_a_key_of_the_host_is_told_so(
    host: Callable[..., Path], tmp_path: Path
) -> None:
    key = tmp_path / "key.pem"
    key.touch(mode=0o600)
    host(other=f"server {{ listen 443 ssl; ssl_certificate {key}; ssl_certificate_key {key}; }}\n")
    (tmp_path / "mine").mkdir()
    ours, among_others = as_nobody(rendered(), tmp_path / "mine")
    assert ours.state == "accepted"
    assert among_others.state == "not checked"
    assert among_others.why.startswith("only root can test this host's nginx: ")


def test_nginx_without_a_module_that_we_do_not_need_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = find_program("nginx")
    wrapper = tmp_path / "nginx"
    wrapper.write_text(
        "#!/bin/sh\n"
        f"for word; do case $word in */nginx.conf) conf=$word;; esac; done\n"
        'grep -q uwsgi_temp_path "$conf" && echo "nginx: [emerg] unknown directive \\"uwsgi_temp_path\\" in $conf:3" '
        "&& exit 1\n"
        f'exec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert verdict(nginx.configuration, rendered()).state == "accepted"


def test_without_nginx_the_site_is_not_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with nothing_installed(monkeypatch, tmp_path):
        said = verdict(nginx.configuration, rendered())
    assert (said.state, said.why) == ("not checked", "nginx is not installed")


def test_an_nginx_that_hangs_is_not_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hanging = tmp_path / "nginx"
    hanging.write_text("#!/bin/sh\nexec sleep 60\n")
    hanging.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (said,) = verdicts(nginx.configuration, rendered(), time_limit_s=0.2)
    assert (said.state, said.why) == ("not checked", "nginx did not answer within 0.2 s")


def test_an_nginx_that_breaks_without_a_word_is_not_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing = tmp_path / "nginx"
    failing.write_text("#!/bin/sh\necho no such library\nexit 127\n")
    failing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said = verdict(nginx.configuration, rendered())
    assert (said.state, said.why) == ("not checked", "nginx failed: no such library")


def test_a_host_whose_nginx_never_reads_our_site_is_not_taken_for_consent(host: Callable[..., Path]) -> None:
    directory = host()
    without = MAIN_OF_DEBIAN.replace("    include /etc/nginx/sites-enabled/*;\n", "")
    (directory / "nginx.conf").write_text(without)
    verdicts_of_nginx = verdicts(nginx.configuration, rendered())
    assert [each.state for each in verdicts_of_nginx] == ["accepted", "not checked"]
    assert verdicts_of_nginx[1].why == (f"this host's nginx.conf has no line include {directory}/sites-enabled/*;")
    (directory / "nginx.conf").write_text("events {}\n")
    assert "modules-enabled/*.conf; and no line include" in verdicts(nginx.configuration, rendered())[1].why


@pytest.mark.parametrize(
    ("include", "reads_ours"),
    [
        ("/etc/nginx/sites-enabled/*", True),
        ('"sites-enabled/*"', True),
        ("/etc/nginx/*-enabled/*", True),
        (f"/etc/nginx/sites-enabled/{NAME}", True),
        ("/etc/nginx/sites-enabled/*.conf", False),
        ("/etc/nginx/sites-enabled/other", False),
        ("/etc/nginx/*", False),
    ],
)
def test_nginx_reads_our_site_where_a_line_includes_its_very_name(include: str, reads_ours: bool) -> None:
    main = MAIN_OF_DEBIAN.replace("/etc/nginx/sites-enabled/*", include)
    assert (nginx.missing_includes(main, NAME) == []) is reads_ours
    assert len(nginx.missing_includes(main.replace("include", "# include"), NAME)) == 2


def test_debians_default_site_makes_way_for_a_default_server_of_ours(host: Callable[..., Path]) -> None:
    host(default="server { listen 80 default_server; return 404; }")
    assert verdict(nginx.configuration, rendered(nginx={"default_server": True})).state == "accepted"


def test_a_location_for_a_site_of_the_operators_own_is_judged_though_no_site_includes_it_yet(
    host: Callable[..., Path],
) -> None:
    host(other="server { listen 80; server_name other.example.com; access_log /nowhere/other.log; }\n")
    path = f"etc/nginx/{NAME}/locations.conf"
    bundle = broken(
        rendered(nginx={"path": "/ws", "include": True}), path, "proxy_buffering off", "proxy_buffering on1"
    )
    found = fault(nginx.configuration, bundle)
    assert (found.path, found.line) == (path, line_of(bundle, path, "proxy_buffering on1"))


def test_a_location_that_the_operators_site_has_already_is_told(host: Callable[..., Path]) -> None:
    host(other=f"server {{ listen 80; location = /ws {{ return 204; }} include /etc/nginx/{NAME}/*.conf; }}\n")
    path = f"etc/nginx/{NAME}/locations.conf"
    found = fault(nginx.configuration, rendered(nginx={"path": "/ws", "include": True}))
    assert (found.path, "duplicate location" in found.message) == (path, True)
