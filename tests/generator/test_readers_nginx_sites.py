"""Who listens where, read as nginx reads it, with the file and the line of each server."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from generator.readers.nginx_sites import Listen, Server, error_log, own_main_context, servers

MAIN = """\
user www-data; # a comment with { and ; and "
error_log /var/log/nginx/own.log warn;
events { worker_connections 768; }
http {
    log_format odd '{"a": "$b"; }' "it's";
    map $uri $x { default "${uri}}"; }
    include conf.d/*.conf;
    include sites/*;
}
stream { server { listen 443; proxy_pass backend; } }
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    for name in ("conf.d", "sites"):
        (tmp_path / name).mkdir()
    main = tmp_path / "nginx.conf"
    main.write_text(MAIN)
    return main


def test_servers_come_in_the_order_of_nginx_with_file_and_line(conf: Path) -> None:
    sites = conf.parent / "sites"
    (sites / "b").write_text("# b\nserver {\n  listen 80;\n  server_name b.org www.b.org;\n}\n")
    (sites / "a").write_text("server {\n\n  listen [::]:80 default_server ipv6only=off; server_name a.org; }\n")
    (conf.parent / "conf.d" / "z.conf").write_text("server { server_name z.org; }")
    z, a, b = f"{conf.parent}/conf.d/z.conf", f"{sites}/a", f"{sites}/b"
    assert servers(conf) == [
        Server(f"{z}:1", "http", (Listen(f"{z}:1", "0.0.0.0", 80),), ("z.org",)),
        Server(f"{a}:1", "http", (Listen(f"{a}:3", "::", 80, ("default_server", "ipv6only=off")),), ("a.org",)),
        Server(f"{b}:2", "http", (Listen(f"{b}:3", "0.0.0.0", 80),), ("b.org", "www.b.org")),
        Server(f"{conf}:10", "stream", (Listen(f"{conf}:10", "0.0.0.0", 443),), ()),
    ]


@pytest.mark.parametrize(
    ("listen", "meant"),
    [
        ("80", ("0.0.0.0", 80)),
        ("*:81", ("0.0.0.0", 81)),
        ("203.0.113.5", ("203.0.113.5", 80)),
        ("203.0.113.5:443 ssl", ("203.0.113.5", 443)),
        ("[::]:80", ("::", 80)),
        ("[2001:DB8:0:0::5]", ("2001:db8::5", 80)),
        ("'127.0.0.1:80'", ("127.0.0.1", 80)),
        ("8000-8010", ("0.0.0.0", 8000)),
    ],
)
def test_an_address_is_read_as_nginx_reads_it(conf: Path, listen: str, meant: tuple[str, int]) -> None:
    (conf.parent / "sites" / "a").write_text(f"server {{ listen {listen}; }}")
    (found,) = servers(conf)[0].listens
    assert (found.host, found.port) == meant


@pytest.mark.parametrize(
    "listen", ["unix:/run/a.sock", "443 quic", "[::]:443 quic reuseport", "no.such.name.invalid:80"]
)
def test_what_clients_of_tcp_cannot_come_to_is_left_out(conf: Path, listen: str) -> None:
    (conf.parent / "sites" / "a").write_text(f"server {{ listen {listen}; listen 81; }}")
    assert [each.port for each in servers(conf)[0].listens] == [81]
    (conf.parent / "sites" / "a").write_text(f"server {{ listen {listen}; }}")
    assert servers(conf)[0].listens == ()


def test_a_name_is_every_address_that_it_has(conf: Path) -> None:
    (conf.parent / "sites" / "a").write_text("server { listen localhost:80; }")
    assert "127.0.0.1" in [each.host for each in servers(conf)[0].listens]


@pytest.mark.parametrize(
    "text", ["", "server {", "}}}", "include nginx.conf;", "server { listen; }", 'a "', "listen 80;"]
)
def test_what_nginx_would_refuse_ends_in_no_traceback(conf: Path, text: str) -> None:
    (conf.parent / "sites" / "a").write_text(text)
    servers(conf)


def test_tls_that_is_said_of_the_server_is_that_of_its_addresses(conf: Path) -> None:
    (conf.parent / "sites" / "a").write_text("server { ssl on; listen 443; } server { listen 80; ssl off; }")
    first, second, _ = servers(conf)
    assert (first.listens[0].options, second.listens[0].options) == (("ssl",), ())


def test_a_pipe_among_the_sites_is_not_waited_for(conf: Path) -> None:
    pipe = conf.parent / "sites" / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        found = pool.submit(lambda: list(servers(conf)))
        try:
            assert [server.module for server in found.result(10)] == ["stream"]
        finally:
            with suppress(OSError):  # nobody reads it
                os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))


def test_a_host_without_nginx_has_no_servers(tmp_path: Path) -> None:
    assert servers(tmp_path / "nginx.conf") == []


def test_the_log_of_nginx_as_a_whole_is_found(conf: Path) -> None:
    assert error_log(conf) == Path("/var/log/nginx/own.log")
    conf.write_text("http { error_log /a; }")
    assert error_log(conf) == Path("/var/log/nginx/error.log")
    conf.write_text("error_log syslog:server=unix:/dev/log;")
    assert error_log(conf) is None


def test_what_the_operator_has_set_for_all_of_nginx_is_told_from_ours(conf: Path) -> None:
    assert own_main_context(conf) == {}
    shared = conf.parent / "90-wsbundle.conf"
    shared.write_text("worker_rlimit_nofile 5000;\nworker_shutdown_timeout 300s;\n")
    conf.write_text("include *-wsbundle.conf;\n\nworker_shutdown_timeout 10m;\nevents { worker_rlimit_nofile 1; }\n")
    assert own_main_context(conf) == {"worker_shutdown_timeout": (f"{conf}:3", "10m")}
