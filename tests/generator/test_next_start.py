"""What the service reads when it starts: what an installation puts right of it, and what only the operator can."""

import pytest
from msgspec.structs import replace

from generator.host.next_start import read_by_the_service
from generator.host.store import Generation, Store
from service.settings import Engine
from tests.generator.test_store import NAME, add, generation, store

__all__ = ["store"]

THEIRS = f"/etc/{NAME}/shared.json"


def read(store: Store, changed: Generation) -> tuple[list[str], list[str]]:
    """What is ours, and what is the operator's."""
    add(store, 1)
    store.record(changed)
    return read_by_the_service(store, 1, ours=True), read_by_the_service(store, 1, ours=False)


def test_keys_are_ours_where_we_have_made_them(store: Store) -> None:
    ours = f"/etc/{NAME}/keys.json"
    assert read(store, replace(generation(1), auth="token", keys=ours)) == ([ours], [])
    assert read(store, replace(generation(1), auth="none", keys=ours)) == ([], [])


def test_what_the_operator_has_put_beside_our_files_is_not_ours(store: Store) -> None:
    engine = Engine(
        url="rediss://10.0.0.1:6379", ca=f"/etc/{NAME}/ca.pem", password_file=f"/etc/{NAME}/engine.password"
    )
    changed = replace(generation(1), auth="token", keys=THEIRS, joined=engine)
    assert read(store, changed) == ([f"/etc/{NAME}/engine.password"], [f"/etc/{NAME}/ca.pem", THEIRS])


@pytest.mark.parametrize(
    ("changed", "path"),
    [({"server": "gunicorn"}, f"/etc/{NAME}/gunicorn.conf.py"), ({"manager": "supervisor"}, f"/etc/{NAME}/.env")],
)
def test_systemd_reads_the_environment_itself(store: Store, changed: dict[str, str], path: str) -> None:
    assert read(store, generation(1)) == ([], [])
    assert read(store, replace(generation(1), **changed)) == ([path], [])
