"""What certificates say, read by the real openssl."""

import socket
import ssl
import time
from pathlib import Path
from threading import Thread

import pytest

from generator.host.probe import Endpoint
from generator.host.x509 import DAY_S, Certificate, der, read, served
from tests.generator.certificate_maker import openssl, pair


def certificate(*names: str) -> Certificate:
    return Certificate(names, "CN=Somebody", 0.0, 90.0 * DAY_S)


def test_names_issuer_and_times_are_read(tmp_path: Path) -> None:
    made = read(pair(tmp_path, "DNS:ws.a.org,DNS:*.b.org,IP:10.0.0.1,email:a@b.org", "/O=Größe, Inc./CN=Test").file)
    assert made is not None
    assert made.names == ("ws.a.org", "*.b.org", "10.0.0.1")
    assert made.issuer == "CN=Test,O=Größe\\, Inc."
    assert abs(made.begins - time.time()) < 60
    assert made.ends - made.begins == 90 * DAY_S


def test_names_are_also_read_where_they_are_marked_critical(tmp_path: Path) -> None:
    made = read(pair(tmp_path, "critical,DNS:ws.a.org").file)
    assert made is not None
    assert made.names == ("ws.a.org",)


def test_the_certificate_that_is_shown_is_asked_for_where_clients_come(tmp_path: Path) -> None:
    made = pair(tmp_path, "DNS:ws.a.org")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.file, made.key)

    def serve(listener: socket.socket) -> None:
        raw, _ = listener.accept()
        with raw:
            raw.recv(len("PROXY UNKNOWN\r\n"), socket.MSG_WAITALL)
            context.wrap_socket(raw, server_side=True).close()

    with socket.create_server(("127.0.0.2", 0)) as listener:
        thread = Thread(target=serve, args=(listener,))
        thread.start()
        ports = (80, listener.getsockname()[1])
        endpoint = Endpoint("ws.a.org", True, ways=(("127.0.0.2",),), ports=ports, proxy_protocol=True)
        assert served(endpoint) == der(made.file)
        thread.join()
    assert served(endpoint) is None


def test_a_certificate_may_have_no_names(tmp_path: Path) -> None:
    made = read(pair(tmp_path, "").file)
    assert made is not None
    assert made.names == ()
    assert str(made) == "no name by CN=Test"


def test_the_first_certificate_of_a_file_counts(tmp_path: Path) -> None:
    first, second = pair(tmp_path / "a", "DNS:a.org"), pair(tmp_path / "b", "DNS:b.org")
    both = tmp_path / "both.pem"
    both.write_text(f"A comment\n{first.file.read_text()}{second.file.read_text()}")
    made = read(both)
    assert made is not None
    assert made.names == ("a.org",)
    assert der(both) == der(first.file)


def test_what_is_no_certificate_in_pem_reads_as_none(tmp_path: Path) -> None:
    made = pair(tmp_path)
    binary = tmp_path / "binary"
    openssl("x509", "-in", made.file, "-outform", "DER", "-out", binary)
    broken = tmp_path / "broken"
    broken.write_text(made.file.read_text().replace("M", "N"))
    for path in (binary, broken, made.key, tmp_path, tmp_path / "missing"):
        assert read(path) is None, path


def test_der_is_what_a_client_would_get(tmp_path: Path) -> None:
    made = pair(tmp_path)
    assert der(made.file) == ssl.PEM_cert_to_DER_cert(made.file.read_text())


@pytest.mark.parametrize("names", [["ws.a.org"], ["b.org", "WS.A.ORG"], ["*.a.org"]])
def test_a_certificate_covers_its_names_and_one_level_below_a_wildcard(names: list[str]) -> None:
    assert certificate(*names).covers("ws.a.org")


@pytest.mark.parametrize("names", [[], ["a.org"], ["*.org"], ["*.ws.a.org"], ["*.b.org"], ["w*.a.org"], ["*"]])
def test_a_certificate_covers_nothing_else(names: list[str]) -> None:
    assert not certificate(*names).covers("ws.a.org")


def test_a_wildcard_is_not_the_domain_above_it() -> None:
    assert not certificate("*.a.org").covers("a.org")


def test_a_wildcard_right_below_the_top_covers_nothing() -> None:
    assert not certificate("*.lan").covers("ws.lan")


def test_days_left_are_whole_days() -> None:
    assert certificate().days_left(0.5 * DAY_S) == 89
    assert certificate().days_left(90.5 * DAY_S) == -1
