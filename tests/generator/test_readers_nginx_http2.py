"""HTTP/2 in the words of the host's nginx, whichever that is."""

import pytest

from generator.readers.nginx_http2 import asks_for_http2, version_in, with_http2
from generator.rendering.bundle import Bundle
from tests.generator.readings import NAME, rendered, text_of

SITE = f"etc/nginx/sites-available/{NAME}"
APP = {"app": {"callable": "main:app"}}
TLS = {"tls": "files", "certificate": {"file": "/srv/c.pem", "key": "/srv/k.pem"}}


def said(bundle: Bundle) -> list[str]:
    """The lines that say something of TLS on a port, or of HTTP/2."""
    lines = (line.strip() for line in text_of(bundle, SITE).splitlines())
    return [line for line in lines if "http2" in line.partition("#")[0] or (" ssl" in line and "listen" in line[:6])]


@pytest.mark.parametrize(
    ("version", "proxies", "expected"),
    [
        ((1, 22, 1), {}, ["listen 443 ssl default_server;", "listen 443 ssl http2;"]),
        ((1, 24, 0), {}, ["listen 443 ssl default_server;", "listen 443 ssl http2;"]),
        ((1, 25, 0), {}, ["listen 443 ssl default_server;", "listen 443 ssl http2;"]),
        ((1, 25, 1), {}, ["listen 443 ssl default_server;", "listen 443 ssl;", "http2 on;"]),
        ((1, 26, 3), {}, ["listen 443 ssl default_server;", "listen 443 ssl;", "http2 on;"]),
        ((1, 30), {}, ["listen 443 ssl default_server;", "listen 443 ssl;", "http2 on;"]),
        ((), {}, ["listen 443 ssl default_server;", "listen 443 ssl;"]),
        (
            (1, 22, 1),
            {"trusted_proxies": ["10.0.0.1"], "proxy_protocol": True},
            ["listen 443 ssl default_server proxy_protocol;", "listen 443 ssl http2 proxy_protocol;"],
        ),
    ],
)
def test_each_nginx_gets_the_words_that_it_knows(
    version: tuple[int, ...], proxies: dict[str, object], expected: list[str]
) -> None:
    bundle = rendered(**APP, **TLS, nginx={"default_server": True, "listen": ["0.0.0.0"], **proxies})
    fitted = with_http2(bundle, version)
    assert said(fitted) == [*expected, "http2_max_concurrent_streams 50;"]
    assert len(text_of(fitted, SITE).splitlines()) == len(text_of(bundle, SITE).splitlines())  # faults keep their line
    assert asks_for_http2(fitted) == (version == ())
    assert with_http2(fitted, version) == fitted


@pytest.mark.parametrize(
    "settings",
    [TLS, APP, {**APP, **TLS, "nginx": {"include": True}}],
    ids=["notification center", "without TLS", "a site of the operator's own"],
)
def test_other_sites_offer_none(settings: dict[str, object]) -> None:
    bundle = rendered(**settings)
    assert not asks_for_http2(bundle)
    assert with_http2(bundle, (1, 26)) == bundle


@pytest.mark.parametrize(
    ("output", "version"),
    [("nginx version: nginx/1.22.1", (1, 22, 1)), ("nginx version: nginx/1.24.0 (Ubuntu)", (1, 24, 0)), ("sh: no", ())],
)
def test_the_version_is_read_from_what_nginx_prints(output: str, version: tuple[int, ...]) -> None:
    assert version_in(output) == version


@pytest.mark.parametrize(("connections", "streams"), [(1, 1), (40, 20), (41, 21), (100, 50), (1000, 128)])
def test_one_connection_may_have_half_the_requests_of_an_address(connections: int, streams: int) -> None:
    bundle = rendered(**APP, **TLS, limits={"connections_per_address": connections})
    assert f"http2_max_concurrent_streams {streams};" in text_of(bundle, SITE)
