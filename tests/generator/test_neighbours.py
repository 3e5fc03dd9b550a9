"""Other sites of the host's nginx: which of them take our clients, or our port, and by which way clients come."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from generator.config.schema import Deploy
from generator.host.neighbours import (
    Surroundings,
    faults,
    immovable,
    names_lost,
    names_taken,
    warnings,
    ways_in,
    without,
)
from generator.readers.nginx_sites import Listen, Server, servers

ADDRESSES = ("203.0.113.5", "2001:db8::5")
EVERYWHERE = ("0.0.0.0", "::")


def deploy(**settings: Any) -> Deploy:
    return msgspec.convert({"domain": "ws.example.com", **settings}, Deploy)


def site(host: str, port: int = 80, *options: str, file: str = "old", module: str = "http") -> Server:
    where = f"/etc/nginx/sites-enabled/{file}:2"
    return Server(where, module, (Listen(where, host, port, options),), ("other.example.com",))


def said(
    *others: Server, addresses: tuple[str, ...] = ADDRESSES, named: tuple[str, ...] = (), **settings: Any
) -> list[str]:
    return [str(fault) for fault in faults(deploy(**settings), Surroundings(others, addresses, named))]


def warned(
    *others: Server, addresses: tuple[str, ...] = ADDRESSES, named: tuple[str, ...] = (), **settings: Any
) -> list[str]:
    return [str(fault) for fault in warnings(deploy(**settings), Surroundings(others, addresses, named))]


def test_sites_beside_ours_are_no_news() -> None:
    others = (site("0.0.0.0"), site("::"), site("0.0.0.0", 443, "ssl"), site("0.0.0.0", 80, "default_server"))
    assert said(*others, tls="letsencrypt") == warned(*others, tls="letsencrypt") == []


@pytest.mark.parametrize("tls", ["off", "files"])
def test_a_longer_queue_of_connections_is_no_news(tls: str, tmp_path: Path) -> None:
    queue = tmp_path / "zz-queue"
    queue.write_text((Path(__file__).parents[2] / "bench" / "queue.conf").read_text())
    main = tmp_path / "nginx.conf"
    main.write_text(f"http {{\n    include {queue};\n}}\n")
    others = [server for server in servers(main) if "backlog=4096" in server.listens[0].options]
    assert len(others) == 1
    assert said(*others, tls=tls) == warned(*others, tls=tls) == []


@pytest.mark.parametrize("host", ADDRESSES)
def test_a_site_with_the_only_address_for_itself_is_a_fault(host: str) -> None:
    shown = f'"{host}"' if ":" in host else host
    assert said(site(host)) == [
        f"/etc/nginx/sites-enabled/old:2 has {host} port 80 for itself, so clients that come there get that site; "
        f'listen there too: write `listen: [0.0.0.0, "::", {shown}]` below `nginx:`'
    ]


def test_a_site_that_makes_way_is_no_neighbour() -> None:
    around = Surroundings((site("203.0.113.5"), site("203.0.113.5", file="other")), ADDRESSES)
    left = without(around, ("/etc/nginx/sites-enabled/old", "/etc/systemd/system/old.service"))
    assert [server.where for server in left.others] == ["/etc/nginx/sites-enabled/other:2"]
    assert left.addresses == ADDRESSES


def test_the_fix_that_is_named_ends_it() -> None:
    others = (site("203.0.113.5"), site("203.0.113.5", 443, "ssl"), site("2001:db8::5"))
    assert len(said(*others, tls="files")) == 3
    listen = ["0.0.0.0", "::", "203.0.113.5", "2001:db8::5"]
    assert said(*others, tls="files", nginx={"listen": listen}) == []


def test_an_address_that_the_domain_does_not_lead_to_is_anothers() -> None:
    assert said(site("203.0.113.5"), addresses=("203.0.113.5", "203.0.113.6"), named=("203.0.113.6",)) == []
    assert warned(site("203.0.113.5"), addresses=("203.0.113.5", "203.0.113.6"), named=("203.0.113.6",)) == []


def test_one_address_of_two_is_a_warning_while_nobody_knows_which_is_meant() -> None:
    addresses = ("203.0.113.5", "203.0.113.6")
    assert said(site("203.0.113.5"), addresses=addresses) == []
    assert "has 203.0.113.5 port 80 for itself" in warned(site("203.0.113.5"), addresses=addresses)[0]
    assert len(said(site("203.0.113.5"), site("203.0.113.6"), addresses=addresses)) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "198.51.100.1"])
def test_a_status_page_on_loopback_and_addresses_that_are_not_here_take_nobody(host: str) -> None:
    assert said(site(host)) == warned(site(host)) == []


def test_without_tls_port_443_is_anothers() -> None:
    assert said(site("203.0.113.5", 443, "ssl")) == []


def test_who_binds_both_families_at_once_is_a_fault() -> None:
    assert said(site("::", 80, "ipv6only=off")) == [
        "/etc/nginx/sites-enabled/old:2 has port 80 of IPv4 and IPv6 at once, so nginx could not bind it for IPv4 "
        "again; write `listen 80;` and `listen [::]:80;` there, without ipv6only=off"
    ]
    assert said(site("::", 80, "ipv6only=off"), nginx={"listen": ["::"]}) == []


@pytest.mark.parametrize(
    ("other", "finding"),
    [
        (site("0.0.0.0", 80, "proxy_protocol"), "expects the PROXY protocol on port 80"),
        (site("::", 443, "ssl", "proxy_protocol"), "expects the PROXY protocol on port 443"),
        (site("0.0.0.0", 80, "ssl"), "has TLS on port 80"),
        (site("0.0.0.0", 443, module="stream"), "has port 443 for a stream server"),
    ],
)
def test_what_another_site_does_to_the_whole_port_is_a_fault(other: Server, finding: str) -> None:
    (fault,) = said(other, tls="files")
    assert finding in fault
    assert "/etc/nginx/sites-enabled/old:2" in fault


def test_who_shares_a_port_must_expect_the_proxy_protocol_as_we_do() -> None:
    ours = {"proxy_protocol": True, "trusted_proxies": ["10.0.0.5"], "https_port": 8443}
    assert said(site("0.0.0.0", 80, "proxy_protocol"), tls="files", nginx=ours) == []
    assert said(site("0.0.0.0", 443, "ssl"), tls="files", nginx=ours) == []
    (fault,) = said(site("0.0.0.0", 8443, "ssl"), tls="files", nginx=ours)
    assert "has port 8443 without the PROXY protocol" in fault


def test_a_site_without_tls_on_our_port_for_tls_would_have_its_clients_asked_for_it() -> None:
    ours: dict[str, Any] = {"tls": "files", "nginx": {"https_port": 8443}}
    plain, encrypted = site("0.0.0.0", 8443, file="plain"), site("0.0.0.0", 8443, "ssl")
    assert said(plain, **ours) == [
        "/etc/nginx/sites-enabled/plain:2 has port 8443 without TLS, and nginx would ask its clients for TLS too; "
        "give that site another port, or set nginx.https_port to another"
    ]
    assert said(encrypted, **ours) == said(plain, tls="files") == []
    # Of an address that several sites share, nginx takes what one of them says for all.
    assert said(plain, encrypted, **ours) == []


def test_of_sites_that_share_an_address_one_says_for_all_that_they_expect_the_proxy_protocol() -> None:
    ours = {"proxy_protocol": True, "trusted_proxies": ["10.0.0.5"]}
    others = (site("0.0.0.0", file="bare"), site("0.0.0.0", 80, "proxy_protocol"))
    assert said(*others, nginx=ours) == []
    (fault,) = said(*others)
    assert "/old:2 expects the PROXY protocol on port 80" in fault


def test_debians_default_site_need_not_keep_its_port() -> None:
    (fault,) = said(site("0.0.0.0", file="default"), nginx={"proxy_protocol": True, "trusted_proxies": ["10.0.0.5"]})
    assert "; set nginx.default_server to true, or give that site" in fault


def test_our_own_site_and_a_default_site_that_makes_way_are_not_others() -> None:
    own = site("203.0.113.5", file="queue-websocket")
    assert said(own) == []
    default = site("203.0.113.5", 80, "default_server", file="default")
    assert said(default, nginx={"default_server": True}) == []
    assert len(said(default)) == 1


BALANCER = {"health_from": ["127.0.0.1", "10.0.0.0/24"]}


def test_a_health_check_that_another_default_site_would_answer_is_a_warning() -> None:
    default = site("0.0.0.0", 80, "default_server", file="default")
    assert warned(default, nginx=BALANCER) == [
        "/etc/nginx/sites-enabled/default:2 answers a health check on port 80 that names no site of this host; "
        "let it send `Host: ws.example.com`, or set nginx.default_server to true"
    ]
    (fault,) = warned(site("0.0.0.0", 80, "default_server", file="mine"), nginx=BALANCER)
    assert fault.endswith("let it send `Host: ws.example.com`")
    assert warned(default) == []
    assert warned(default, nginx={**BALANCER, "default_server": True}) == []


def test_without_a_default_server_the_first_site_answers() -> None:
    assert len(warned(site("0.0.0.0", file="a"), nginx=BALANCER)) == 1
    assert warned(site("0.0.0.0", file="z"), nginx=BALANCER) == []
    assert len(warned(site("::", 443, "ssl", file="a"), tls="files", nginx=BALANCER)) == 1


@pytest.mark.parametrize(
    ("listen", "addresses", "named", "ways"),
    [
        (EVERYWHERE, ADDRESSES, (), (ADDRESSES,)),
        (EVERYWHERE, ADDRESSES, ("203.0.113.5",), (("203.0.113.5",),)),
        (EVERYWHERE, ADDRESSES, ADDRESSES, (("203.0.113.5",), ("2001:db8::5",))),
        (("0.0.0.0",), ADDRESSES, ADDRESSES, (("203.0.113.5",),)),
        (("0.0.0.0",), ADDRESSES, (), (("203.0.113.5",),)),
        ((*EVERYWHERE, "203.0.113.5"), ADDRESSES, (), (("203.0.113.5",),)),
        (("127.0.0.1",), ADDRESSES, (), (("127.0.0.1",),)),
        (EVERYWHERE, (), (), (("127.0.0.1",),)),
        (("::",), (), (), (("::1",),)),
    ],
)  # fmt: skip
def test_clients_are_proven_to_get_through_where_they_come(
    listen: tuple[str, ...], addresses: tuple[str, ...], named: tuple[str, ...], ways: tuple[tuple[str, ...], ...]
) -> None:
    assert ways_in(listen, Surroundings((), addresses, named)) == ways


def test_the_first_site_with_a_name_gets_its_clients() -> None:
    def lost(*sites: Server) -> list[str]:
        return [str(fault) for fault in names_lost("center", ("other.example.com",), sites)]

    ours = site("0.0.0.0", file="center")
    assert lost(ours, site("0.0.0.0")) == []
    assert lost(site("0.0.0.0", 8080), site("::"), site("203.0.113.5"), ours) == []
    assert lost(site("0.0.0.0")) == []  # ours is not among them: another site includes it
    assert lost(site("0.0.0.0"), ours) == [
        "/etc/nginx/sites-enabled/old:2 is other.example.com too, and gets its clients once nginx reads its files "
        "again; remove it there, or use another domain"
    ]


ALONE, ALL = ("203.0.113.5", 80), ("0.0.0.0", 80)


@pytest.mark.parametrize(
    ("bound", "others", "listen", "said"),
    [
        ((ALL,), (), ["203.0.113.5"], "port 80 of every address (0.0.0.0), and would have it of 203.0.113.5 alone"),
        ((ALONE,), (), ["0.0.0.0"], "port 80 of 203.0.113.5 alone, and would have it of every address (0.0.0.0)"),
        ((ALONE,), (), ["0.0.0.0", "203.0.113.5"], "and would have it of every address (0.0.0.0)"),
        ((("::", 80),), (), ["2001:db8::5"], "of every address (::), and would have it of 2001:db8::5 alone"),
        ((("0.0.0.0", 8080),), (site("127.0.0.1", 8080),), ["0.0.0.0"], "port 8080 of every address (0.0.0.0)"),
        ((ALL,), (site("0.0.0.0"),), ["203.0.113.5"], ""),  # which the port stays with
        ((ALL,), (), ["0.0.0.0", "203.0.113.5"], ""),
        ((ALONE,), (site("203.0.113.5"),), ["::", "203.0.113.5"], ""),
        ((), (), ["203.0.113.5"], ""),
    ],
)
def test_nginx_changes_between_every_address_of_a_port_and_one_alone_at_a_start_only(
    bound: tuple[tuple[str, int], ...], others: tuple[Server, ...], listen: list[str], said: str
) -> None:
    found = [str(each) for each in immovable(deploy(nginx={"listen": listen}), Surroundings(others, bound=bound))]
    assert len(found) == (1 if said else 0)
    assert said in "".join(found)


def test_what_nginx_cannot_do_while_it_runs_is_no_fix() -> None:
    around = Surroundings((site("203.0.113.5"),), ADDRESSES, bound=(ALONE,))
    (fault,) = faults(deploy(nginx={"listen": ["0.0.0.0"]}), around)
    assert fault.fix == "listen there too: write `listen: [203.0.113.5]` below `nginx:`"


@pytest.mark.parametrize(
    ("other", "settings", "is_taken"),
    [
        (site("0.0.0.0"), {"domain": ["a.org", "other.example.com"]}, True),
        (site("0.0.0.0"), {}, False),
        (site("0.0.0.0", 8080), {"domain": "other.example.com"}, False),
        (site("203.0.113.5"), {"domain": "other.example.com"}, False),
        (site("0.0.0.0", file="notifications"), {"domain": "other.example.com", "name": "notifications"}, False),
        (site("0.0.0.0"), {"domain": "other.example.com", "nginx": {"include": True}}, False),
    ],
)
def test_a_name_belongs_to_one_site_of_an_address(other: Server, settings: dict[str, Any], is_taken: bool) -> None:
    found = [str(fault) for fault in names_taken(deploy(**settings), Surroundings((other,)))]
    assert len(found) == is_taken
    assert all(each.startswith("/etc/nginx/sites-enabled/old:2 is other.example.com too") for each in found)
