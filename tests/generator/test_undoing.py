"""What stands against a rollback, on a host that has changed since: all else of it runs on real hosts."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from generator.host import facts, undoing
from generator.host.neighbours import Surroundings
from generator.host.store import Generation, Store
from tests.generator.certificate_maker import pair
from tests.generator.test_store import bundle, generation, store

__all__ = ["store"]


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The addresses and ports that apache2 has, on a host with two addresses, and no other site."""
    apaches: set[str] = set()
    holder = lambda host, port: "apache2 (process 7)" if f"{host}:{port}" in apaches else None  # noqa: E731
    monkeypatch.setattr(facts, "holder_of", holder)
    monkeypatch.setattr(undoing, "has_address", lambda host: host in ("0.0.0.0", "::", "10.0.0.1"))
    monkeypatch.setattr(undoing, "surroundings", lambda *_: Surroundings())
    monkeypatch.setattr(undoing, "bound_by_nginx", lambda: ())
    monkeypatch.setattr(undoing, "has", lambda _: True)
    monkeypatch.setattr(undoing, "foreign_fault", lambda _: "")
    monkeypatch.setattr(undoing, "out_of_reach", lambda *_: ())
    return apaches


def between(store: Store, then: Generation, now: Generation, given: str = "") -> list[str]:
    """What is said of a rollback from one to the other."""
    for each in (then, now):
        store.add(bundle(given), each)
    store.make_current(now.number)
    return [str(fault) for fault in (*undoing.of_nginx(store), *undoing.against_a_rollback(store, then.number))]


def test_nginx_needs_the_ports_of_the_generation_that_it_goes_to_alone(store: Store, host: set[str]) -> None:
    host.add("0.0.0.0:80")
    elsewhere = replace(generation(1), listen=("0.0.0.0",), ports=(8080, 8443))
    assert between(store, elsewhere, generation(2)) == []
    [said] = between(store, generation(3), elsewhere)
    assert said.startswith("port 80 on 0.0.0.0 is taken by apache2 (process 7)")


def test_an_address_that_the_host_has_no_more_is_told_before(store: Store, host: set[str]) -> None:
    assert not host
    for address, told in (("10.0.0.1", []), ("10.0.0.2", ["10.0.0.2 in nginx.listen is not an address of this host"])):
        said = between(store, replace(generation(1), listen=(address,)), replace(generation(2), listen=("0.0.0.0",)))
        assert [each.partition(";")[0] for each in said] == told
    # Which nginx has had since it was there, and keeps.
    both = replace(generation(1), listen=("10.0.0.2",))
    assert between(store, both, replace(both, number=2)) == []
    # Not where a site of the operator's own has come in its place.
    assert len(between(store, both, replace(both, number=2, included="/etc/nginx/a:1"))) == 1


def test_a_certificate_is_judged_by_the_names_of_the_generation_that_has_it(
    store: Store, host: set[str], tmp_path: Path
) -> None:
    assert not host
    made = pair(tmp_path / "pair", "DNS:b.org")
    given = f"tls: files\ncertificate: {{file: {made.file}, key: {made.key}}}"
    other, present = replace(generation(1), tls="files"), replace(generation(2), tls="files", domain="b.org")
    [said] = between(store, other, present, given)
    assert said.startswith("certificate.file of generation 1: is for b.org, not for a.org")
    # It is no worse than now.
    assert between(store, other, replace(other, number=2), given) == []


def test_what_keeps_the_default_site_from_coming_back_is_told_before(
    store: Store, host: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not host
    monkeypatch.setattr(undoing, "bound_by_nginx", lambda: (("10.0.0.1", 80),))
    alone = replace(generation(1), listen=("10.0.0.1",))
    assert between(store, alone, replace(alone, number=2, default_server=True)) == []
    store.default_site.symlink_to("/etc/nginx/sites-available/default")
    [said] = between(store, alone, replace(alone, number=2, default_server=True))
    assert said.startswith("nginx has port 80 of 10.0.0.1 alone, and would have it of every address (0.0.0.0)")
    # It comes back in no other case.
    assert between(store, replace(alone, default_server=True), replace(alone, number=2, default_server=True)) == []
