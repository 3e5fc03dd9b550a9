"""A site of the operator's own: which one includes us, and how clients come to it."""

import contextlib
import socket
from pathlib import Path

import pytest

from generator.config.schema import Deploy, Nginx
from generator.doctor import of_nginx, of_the_app
from generator.doctor.patient import Patient, Unseen
from generator.host.neighbours import Surroundings
from generator.host.own_site import including, line_of, past_nginx, through_site
from generator.host.probe import Endpoint
from generator.host.store import Store
from generator.readers.nginx_sites import Listen, Server, servers

OURS = Endpoint(domain="www.example.com", encrypted=False, serves_app=True, path="/shop/", health="/shop/healthz")
LOCATIONS = "/etc/nginx/shop/locations.conf"


def site(*listens: Listen, name: str = "www.example.com", includes: tuple[str, ...] = (LOCATIONS,)) -> Server:
    return Server("/etc/nginx/sites-enabled/www:1", "http", listens, (name,), includes)


def listen(port: int, *options: str, host: str = "0.0.0.0") -> Listen:
    return Listen("/etc/nginx/sites-enabled/www:2", host, port, options)


def test_the_site_that_has_the_line_is_found_with_what_it_includes(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/locations.conf").write_text("location /shop/ { return 204; }\n")
    (tmp_path / "nginx.conf").write_text(
        "http { server { listen 80; include shop/*.conf; } server { listen 81; location / { return 204; } } }"
    )
    first, second = servers(tmp_path / "nginx.conf")
    assert first.includes == (f"{tmp_path}/shop/locations.conf",)
    assert second.includes == ()
    assert line_of("shop") == "include /etc/nginx/shop/*.conf;"
    assert including("shop", [site(), site(includes=())]) == [site()]


def test_clients_come_to_a_site_by_its_tls_and_its_port() -> None:
    around = Surroundings((site(listen(80)), site(listen(8443, "ssl", "proxy_protocol"))), ("203.0.113.5",))
    found = through_site("shop", OURS, around)
    assert found is not None
    assert (found.url, found.encrypted, found.port) == ("https://www.example.com:8443/shop/", True, 8443)
    assert (found.ways, found.proxy_protocol, found.is_past_nginx) == ((("203.0.113.5",),), True, False)


def test_of_several_sites_that_of_the_domain_counts() -> None:
    around = Surroundings((site(listen(8080), name="other.example.com"), site(listen(80))), ("203.0.113.5",))
    found = through_site("shop", OURS, around)
    assert found is not None
    assert found.port == 80


def test_without_the_line_there_is_no_way_through_a_site() -> None:
    assert through_site("shop", OURS, Surroundings((site(listen(80), includes=()),))) is None


def test_the_doctor_sees_nothing_of_nginx_where_no_site_has_the_line(tmp_path: Path) -> None:
    deploy = Deploy(domain="www.example.com", nginx=Nginx(include=True))
    patient = Patient(deploy, Store("shop", tmp_path), past_nginx("127.0.0.1:8765", OURS))
    for look in (of_nginx.who_gets_metrics, of_the_app.the_static_files, of_the_app.too_long_a_body):
        with pytest.raises(Unseen, match="no site includes it"):
            look.see(patient)


@pytest.mark.parametrize("listener", ["unix:{}/app.sock", "127.0.0.1:{}"])
def test_then_the_service_itself_is_asked(listener: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX if listener.startswith("unix:") else socket.AF_INET) as there:
        there.bind(f"{tmp_path}/app.sock" if listener.startswith("unix:") else ("127.0.0.1", 0))
        there.listen()
        place = tmp_path if listener.startswith("unix:") else there.getsockname()[1]
        found = past_nginx(listener.format(place), OURS)
        with contextlib.closing(found.connect(found.ways[0][0], found.encrypted, 5)):
            there.accept()[0].close()
    assert found.path == "/shop/"  # which an application knows, and the notification center does not
    assert past_nginx("127.0.0.1:8765", Endpoint(domain="a.org", encrypted=True, path="/ws")).path == "/"
