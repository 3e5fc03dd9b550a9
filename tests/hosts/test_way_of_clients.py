"""An installation is proven by the way that clients come, whatever other sites the host has."""

from typing import Any

from tests.hosts.console import DOMAIN, NAME, Console
from tests.hosts.test_refused import unchanged

OTHER = "/etc/nginx/conf.d/other.conf"
_CHECK = """
import socket, sys
connection = socket.create_connection((sys.argv[1], 80))
connection.sendall(b"GET /health HTTP/1.0\\r\\n\\r\\n")
print(connection.recv(100).decode().split("\\r\\n")[0])
"""


def serve_beside(console: Console, *listens: str, name: str = "other.example.com") -> None:
    """Another site of the host's nginx, up."""
    lines = "".join(f"    listen {listen};\n" for listen in listens)
    console.write(OTHER, f"server {{\n{lines}    server_name {name};\n    return 200 other;\n}}\n")
    console.run("systemctl", "restart", "nginx")


def test_a_site_with_the_address_of_clients_for_itself_is_named_with_a_fix_that_works(empty: Console) -> None:
    address = empty.host.address
    empty.write("/etc/hosts", f"127.0.0.1 localhost fresh\n{address} {DOMAIN}\n")
    serve_beside(empty, f"{address}:80")
    before = unchanged(empty)
    said = empty.install(code=1)
    assert f"{OTHER}:2 has {address} port 80 for itself, so clients that come there get that site" in said
    assert f'write `listen: [0.0.0.0, "::", {address}]` below `nginx:`' in said
    assert "Nothing was changed." in said
    assert unchanged(empty) == before
    listen: dict[str, Any] = {"nginx": {"listen": ["0.0.0.0", "::", address]}}
    empty.install(**listen)
    assert empty.routes()
    empty.install(port=9000, **listen)
    empty.wsbundle("rollback")
    assert empty.routes()


def test_a_status_page_on_loopback_does_not_answer_for_us(empty: Console) -> None:
    serve_beside(empty, "127.0.0.1:80", name=DOMAIN)
    empty.install()
    assert empty.routes()


def test_a_reload_that_nginx_did_not_follow_is_undone_with_its_reason(installed: Console) -> None:
    # Preflight would name it; a panel may write it while an installation runs.
    installed.run("sed", "-i", "s/yield from neighbours.faults.*/pass/", "generator/host/obstacles.py")
    installed.run("rm", "/etc/nginx/sites-enabled/default")
    installed.wsbundle("uninstall")
    serve_beside(installed, "[::]:80 ipv6only=off")
    said = installed.install(code=1)
    assert "nginx goes on with its previous configuration: bind() to 0.0.0.0:80 failed" in said
    assert "Undone: nothing is installed, as before." in said
    assert installed.is_active("nginx.service")


def test_nginx_changes_between_every_address_and_one_alone_at_a_start_only(installed: Console) -> None:
    address = installed.host.address
    alone: dict[str, Any] = {"nginx": {"listen": [address], "default_server": True}}
    said = installed.install(**alone, code=1)
    assert f"nginx has port 80 of every address (0.0.0.0), and would have it of {address} alone" in said
    assert "Nothing was changed." in said
    installed.run("systemctl", "stop", "nginx")
    installed.install(**alone)
    assert installed.routes()
    said = installed.wsbundle("rollback", code=1)
    assert f"nginx has port 80 of {address} alone, and would have it of every address (0.0.0.0)" in said
    assert installed.current() == "2"
    assert installed.routes()
    said = installed.wsbundle("uninstall", code=1)  # which brings Debian's default site back
    assert "only `systemctl restart nginx`, which ends all its connections, changes port 80" in said
    installed.run("systemctl", "restart", "nginx")


def test_where_every_site_has_an_address_alone_the_fix_is_one_that_nginx_can_follow(empty: Console) -> None:
    address = empty.host.address
    empty.run("rm", "/etc/nginx/sites-enabled/default")
    serve_beside(empty, f"{address}:80")
    empty.run("systemctl", "restart", "nginx")
    assert f'listen there too: write `listen: ["::", {address}]`' in empty.install(code=1)
    empty.install(nginx={"listen": ["::", address]})
    assert empty.routes()


def test_who_binds_both_families_at_once_is_named(empty: Console) -> None:
    empty.run("rm", "/etc/nginx/sites-enabled/default")
    serve_beside(empty, "[::]:80 ipv6only=off")
    said = empty.install(code=1)
    assert f"{OTHER}:2 has port 80 of IPv4 and IPv6 at once" in said
    serve_beside(empty, "80", "[::]:80")
    empty.install()
    assert empty.routes()


def test_a_health_check_of_a_balancer_that_another_site_would_answer(empty: Console) -> None:
    balancer = {"health_from": ["127.0.0.1", "10.199.0.0/16"]}
    said = empty.install(nginx=balancer)
    assert "/etc/nginx/sites-enabled/default:" in said
    assert "answers a health check on port 80 that names no site of this host" in said
    said = empty.install(nginx={**balancer, "default_server": True})
    assert "health check" not in said
    assert empty.run("python3", "-c", _CHECK, empty.host.address) == "HTTP/1.1 200 OK\n"


def test_nginx_comes_as_soon_as_the_address_that_it_waits_on_is_there(empty: Console) -> None:
    empty.run("rm", "/etc/nginx/sites-enabled/default")
    empty.run("systemctl", "restart", "nginx")
    address = ("10.55.0.1/32", "dev", "lo")
    empty.run("ip", "addr", "add", *address)
    empty.install(nginx={"listen": ["10.55.0.1"]})
    empty.run("ip", "addr", "del", *address)
    empty.host.reboot()
    assert not empty.is_active("nginx")
    empty.run("ip", "addr", "add", *address)
    empty.run("sh", "-c", "until systemctl is-active --quiet nginx; do sleep 0.2; done")
    empty.status()


def test_a_host_without_ipv6_is_told_what_to_write(empty: Console) -> None:
    empty.run("sed", "-i", "/listen \\[/d", "/etc/nginx/sites-available/default")
    without = "[Service]\nRestrictAddressFamilies=AF_UNIX AF_INET AF_NETLINK\n"
    empty.write("/etc/systemd/system/nginx.service.d/without-ipv6.conf", without)
    empty.run("systemctl", "daemon-reload")
    empty.run("systemctl", "restart", "nginx")
    families = "--property=RestrictAddressFamilies=AF_UNIX AF_INET AF_NETLINK"
    there = (
        "systemd-run",
        "--quiet",
        "--pipe",
        "--wait",
        families,
        f"--working-directory={empty.checkout}",
        ".venv/bin/wsbundle",
    )
    empty.configure()
    for word in ("check", "install"):
        said = empty.run(*there, word, check=False)
        assert "this host has no IPv6; write `listen: [0.0.0.0]` below `nginx:` in deploy.yaml" in said
        assert "Traceback" not in said
    empty.configure(nginx={"listen": ["0.0.0.0"]})
    for word in ("check", "render", "install"):
        empty.run(*there, word)
    assert empty.routes()
    assert f"/etc/nginx/sites-enabled/{NAME}" in empty.run("nginx", "-T")


_WITHOUT_A_BALANCER = """
import socket
connection = socket.create_connection(("127.0.0.1", 8080))
connection.sendall(b"GET /health HTTP/1.0\\r\\n\\r\\n")
print(connection.recv(100))
"""


def test_other_ports_and_the_proxy_protocol_are_the_way_by_which_all_is_proven(empty: Console) -> None:
    serve_beside(empty, "80", name=DOMAIN)
    nginx = {"http_port": 8080, "proxy_protocol": True, "trusted_proxies": ["127.0.0.1"], "idle_limit": 600}
    assert f"runs: ws://{DOMAIN}/ by" in empty.install(nginx=nginx)
    empty.wsbundle("status")
    for key in ("nginx.proxy_protocol", "nginx.http_port", "nginx.trusted_proxies", "nginx-log"):
        empty.wsbundle("doctor", "--only", key)
    assert empty.run("python3", "-c", _WITHOUT_A_BALANCER) == "b''\n"
    empty.run("rm", OTHER)
    empty.install()
    assert empty.routes()
    empty.wsbundle("rollback")
    empty.wsbundle("status")
