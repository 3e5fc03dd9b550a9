"""Tokens and keys, as the program that makes them is started: `python -m service.mint`."""

import json
import os
import re
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from service.mint import add_key
from service.tokens import MAX_TOKEN_LENGTH, Keys, read_keys
from tests.in_process import program

NOBODY, NOGROUP = 65534, 65534


class Said(NamedTuple):
    code: int
    out: str
    err: str


def mint(*words: object) -> Said:
    done = program("service.mint", *map(str, words), environ=os.environ)
    return Said(done.returncode, done.stdout.strip(), done.stderr.strip())


def kids(path: Path) -> list[str]:
    """Newest first."""
    return [str(key.kid) for key in read_keys(str(path))]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.mark.parametrize("algorithm", ["HS256", "EdDSA"])
def test_a_token_is_for_one_address_a_time_and_what_it_may_send_to(path: Path, algorithm: str) -> None:
    mint("new-key", path, algorithm)
    said = mint("token", path, "alice", 60, "bob", "group:office")
    assert (said.code, said.err, said.out.count(".")) == (0, "", 2)
    identity = Keys(str(path))(said.out)
    assert identity.subject == "alice"
    assert set(identity.may_send_to) == {"bob", "group:office"}
    assert 50 < identity.expires - time.time() <= 60


def test_a_new_key_signs_and_the_others_stay_good_until_they_are_dropped(path: Path) -> None:
    assert mint("new-key", path, "HS256").out == f"{path}: new tokens are signed with {kids(path)[0]}"
    old = mint("token", path, "alice", 60).out
    said = mint("new-key", path, "EdDSA")
    new = mint("token", path, "alice", 60).out
    newest, oldest = kids(path)
    assert said.out == f"{path}: new tokens are signed with {newest}; still good: {oldest}"
    assert {Keys(str(path))(token).subject for token in (old, new)} == {"alice"}
    said = mint("drop-key", path, oldest)
    assert said.out == f"{path}: what {oldest} has signed is no longer accepted; still good: {newest}"
    assert kids(path) == [newest]
    assert Keys(str(path))(new).subject == "alice"


def test_a_new_file_is_for_its_owner_alone(path: Path) -> None:
    mint("new-key", path, "HS256")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
def test_a_new_file_is_for_a_group_besides_where_one_is_named(path: Path) -> None:
    mint("new-key", path, "HS256", "nogroup")
    assert (stat.S_IMODE(path.stat().st_mode), path.stat().st_gid) == (0o640, NOGROUP)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to others")
@pytest.mark.parametrize("change", ["new-key", "drop-key"])
def test_a_file_that_changes_keeps_its_mode_and_its_owner(path: Path, change: str) -> None:
    mint("new-key", path, "HS256")
    mint("new-key", path, "HS256")
    path.chmod(0o640)
    os.chown(path, NOBODY, NOGROUP)
    assert mint(change, path, "HS256" if change == "new-key" else kids(path)[0]).code == 0
    status = path.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, NOBODY, NOGROUP)


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(path: Path) -> None:
    mint("new-key", path, "HS256")
    with path.open() as reader:
        mint("new-key", path, "HS256")
        assert len(json.load(reader)["keys"]) == 1
    assert list(path.parent.iterdir()) == [path]


def test_no_key_is_lost_when_several_are_made_at_once(path: Path) -> None:
    with ThreadPoolExecutor() as pool:
        said = list(pool.map(lambda _: add_key(str(path), "HS256"), range(16)))
    assert sorted(kids(path)) == sorted(re.findall("signed with ([^;]+)", "; ".join(said)))


def test_a_link_to_the_file_stays_one(path: Path) -> None:
    link = path.with_name("link.json")
    link.symlink_to(path)
    assert "is missing" in mint("new-key", link, "HS256").err
    for file in (path, link):
        mint("new-key", file, "HS256")
    assert link.is_symlink()
    assert len(kids(path)) == 2


def test_a_file_that_cannot_be_replaced_stays_as_it_was(path: Path) -> None:
    path.write_text("garbage")
    assert "holds no keys for us" in mint("new-key", path, "HS256").err
    assert path.read_text() == "garbage"
    assert mint("new-key", path.parent / "none" / "keys.json", "HS256").err.endswith(
        "none/keys.json: No such file or directory; make its directory"
    )
    assert mint("new-key", path.with_name("new.json"), "HS256", "no-such-group") == Said(
        1, "", "there is no group no-such-group; `wsbundle install` makes it"
    )
    assert list(path.parent.iterdir()) == [path]


def test_where_there_are_no_keys_it_says_how_to_get_some(path: Path) -> None:
    told = (
        f"{path} is missing; `wsbundle install` makes a deployment's, `wsbundle token --keys FILE --new-key` any other"
    )
    assert mint("token", path, "alice", 60) == mint("drop-key", path, "x") == Said(1, "", told)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("", "has 1 to 128 characters; '' has 0"),
        ("a" * 129, "a' has 129"),
        ("group:", "has 1 to 128 characters; '' has 0"),
        ("group:" + "g" * 129, "g' has 129"),
        ("caf\udce9", r"'caf\udce9' is not UTF-8; an address and a group are"),  # bytes of another encoding
    ],
)
def test_a_token_is_made_only_for_what_can_be_an_address(path: Path, word: str, told: str) -> None:
    mint("new-key", path, "HS256")
    said = mint("token", path, "alice", 60, "bob", word)
    assert (said.code, said.out) == (1, "")
    assert said.err.endswith(told)
    assert word.startswith("group:") or mint("token", path, word, 60) == said


def test_who_has_only_public_keys_mints_nothing(path: Path) -> None:
    mint("new-key", path, "EdDSA")
    (key,) = json.loads(path.read_text())["keys"]
    del key["d"]
    path.write_text(json.dumps({"keys": [key]}))
    told = f"{path}: the newest key is public (it has no d); mint where its private half is"
    assert mint("token", path, "alice", 60) == Said(1, "", told)


def test_two_halves_of_two_keys_mint_nothing_that_counts(path: Path) -> None:
    mint("new-key", path, "EdDSA")
    mint("new-key", path, "EdDSA")
    one, other = json.loads(path.read_text())["keys"]
    path.write_text(json.dumps({"keys": [{**one, "d": other["d"]}]}))
    told = f"{path}: a token signed with its newest key is refused: no key of ours has signed this token"
    assert mint("token", path, "alice", 60) == Said(1, "", told)


@pytest.mark.parametrize("subject", ["", "a" * 129])
def test_what_is_no_address_gets_no_token(path: Path, subject: str) -> None:
    mint("new-key", path, "HS256")
    told = f"an address, and a group, has 1 to 128 characters; {subject!r} has {len(subject)}"
    assert mint("token", path, subject, 60) == Said(1, "", told)


def test_a_token_that_the_service_would_not_read_is_not_minted(path: Path) -> None:
    mint("new-key", path, "HS256")
    said = mint("token", path, "alice", 60, *(f"an-address-{n:030}" for n in range(100)))
    assert (said.code, said.out) == (1, "")
    assert said.err.endswith(f"characters; {MAX_TOKEN_LENGTH} are allowed, so use groups")


def test_the_last_key_and_a_key_that_is_none_are_not_dropped(path: Path) -> None:
    mint("new-key", path, "HS256")
    (kid,) = kids(path)
    assert (
        mint("drop-key", path, kid).err
        == f"{path}: {kid} is the only key, and the service needs one; add a new one first"
    )
    assert (
        mint("drop-key", path, kid[:-1]).err == f"{path}: there is no key {kid[:-1]}; it has {kid}; did you mean {kid}?"
    )
    assert kids(path) == [kid]


@pytest.mark.parametrize("words", [(), ("token", "x"), ("new-key", "x", "RS256"), ("new-key", "x"), ("keys",)])
def test_who_asks_the_wrong_way_is_told_how(words: tuple[str, ...]) -> None:
    said = mint(*words)
    assert (said.code, said.out) == (2, "")
    assert "python -m service.mint new-key FILE ALGORITHM" in said.err
