import io
import tarfile
from hashlib import sha256

from generator.packing.archive import SUMS, Archive, Member, archive

MEMBERS = [
    Member(path="install", content=b"#!/bin/sh\n", mode=0o755),
    Member(path="etc/name/.env", content=b"A=1\n", mode=0o640),
    Member(path="etc/enabled", link="name/.env"),
    Member(path=f"wheels/{'long' * 30}.whl", content=b"\x00\xff"),
]


def opened(packed: Archive) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(packed.content), mode="r:gz")


def paths(packed: Archive) -> list[str]:
    return [entry.name.partition("/")[2] for entry in opened(packed)]


def test_the_same_members_give_the_same_bytes_in_whatever_order() -> None:
    assert archive("name", MEMBERS) == archive("name", reversed(MEMBERS))


def test_all_is_in_one_directory_in_the_order_of_paths() -> None:
    packed = archive("name", MEMBERS)
    assert {entry.name.partition("/")[0] for entry in opened(packed)} == {packed.directory}
    assert paths(packed) == [*sorted(member.path for member in MEMBERS), SUMS]


def test_the_directory_is_named_after_every_content_mode_and_link() -> None:
    plain, *rest = MEMBERS
    variants = [
        MEMBERS,
        [Member(path="install", content=b"#!/bin/sh\n\n", mode=0o755), *rest],
        [Member(path="install", content=b"#!/bin/sh\n", mode=0o644), *rest],
        [Member(path="elsewhere", content=b"#!/bin/sh\n", mode=0o755), *rest],
        [plain, Member(path="etc/enabled", link="elsewhere"), *rest[:1], *rest[2:]],
    ]
    assert len({archive("name", members).directory for members in variants}) == len(variants)


def test_members_have_their_own_modes_and_nothing_of_who_packs_them_and_when() -> None:
    entries = {entry.name.partition("/")[2]: entry for entry in opened(archive("name", MEMBERS))}
    assert [oct(entries[member.path].mode) for member in MEMBERS] == ["0o755", "0o640", "0o777", "0o644"]
    assert entries["etc/enabled"].linkname == "name/.env"
    assert {(entry.uid, entry.gid, entry.uname, entry.gname, entry.mtime) for entry in entries.values()} == {
        (0, 0, "root", "root", 0)
    }


def test_the_time_of_every_member_can_be_given() -> None:
    assert {entry.mtime for entry in opened(archive("name", MEMBERS, mtime=7))} == {7}


def test_the_compressed_stream_says_neither_when_nor_where_it_was_made() -> None:
    # RFC 1952, section 2.3: no flags, no time, the best compression, an unknown operating system.
    assert archive("name", MEMBERS).content[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"


def test_the_sums_are_those_of_all_files_as_sha256sum_writes_them() -> None:
    packed = archive("name", MEMBERS)
    file = opened(packed).extractfile(f"{packed.directory}/{SUMS}")
    assert file is not None
    files = sorted((member.path, member.content) for member in MEMBERS if member.link is None)
    assert file.read().decode().splitlines() == [f"{sha256(content).hexdigest()}  {path}" for path, content in files]


def test_the_digest_is_that_of_the_file() -> None:
    packed = archive("name", MEMBERS)
    assert packed.digest == sha256(packed.content).hexdigest()
