"""What a switch does for other deployments of the host: all else of it runs on real hosts."""

from msgspec.structs import replace

from generator.host.apply import let_nginx_start
from generator.host.certificates import Place
from generator.host.store import Store
from tests.generator.test_store import add, generation, store

__all__ = ["store"]


def test_each_switch_lets_nginx_start_where_a_restored_backup_has_left_no_certificates(store: Store) -> None:
    other = Store("other", store.root)
    for each, tls in ((store, "letsencrypt"), (other, "letsencrypt"), (Store("plain", store.root), "off")):
        add(each, 1)
        each.record(replace(generation(1), tls=tls))
        each.make_current(1)
    let_nginx_start(store, None)  # it is going
    assert [Place(name, store.root).is_whole for name in (store.name, "other", "plain")] == [False, True, False]
    let_nginx_start(store, 1)
    assert Place(store.name, store.root).is_whole
