"""A set of files as one archive: the same files give the same bytes, wherever and whenever they are packed."""

import gzip
import io
import tarfile
from collections.abc import Iterable
from hashlib import sha256

import msgspec

SUMS = "SHA256SUMS"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an archive, `path` relative to its top. A symbolic link has its target in `link` and no content."""

    path: str
    content: bytes = b""
    mode: int = 0o644
    link: str | None = None


class Archive(msgspec.Struct, frozen=True):
    """`content` is the .tar.gz; it unpacks into one directory, whose name ends with an id of all members."""

    directory: str
    content: bytes

    @property
    def digest(self) -> str:
        return sha256(self.content).hexdigest()


def archive(name: str, members: Iterable[Member], mtime: int = 0) -> Archive:
    """Pack members, and the checksums that show later whether one is damaged. Every member gets `mtime`."""
    directory, whole = summed(name, members)
    return Archive(directory, _compressed(_tar(directory, whole, mtime)))


def summed(name: str, members: Iterable[Member]) -> tuple[str, list[Member]]:
    """The directory of an archive, and all that is in it: the members, and at the end their checksums."""
    ordered = sorted(members, key=lambda member: member.path)
    sums = "".join(f"{sha256(member.content).hexdigest()}  {member.path}\n" for member in ordered if not member.link)
    rest = "".join(f"{member.path} {member.mode:o} {member.link}\n" for member in ordered)
    directory = f"{name}-{sha256((sums + rest).encode()).hexdigest()[:12]}"
    return directory, [*ordered, Member(path=SUMS, content=sums.encode())]


def _tar(directory: str, members: Iterable[Member], mtime: int) -> bytes:
    stream = io.BytesIO()
    # GNU's format has room for the long names of wheels, and none for what differs from run to run.
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for member in members:
            entry = tarfile.TarInfo(f"{directory}/{member.path}")
            entry.mtime, entry.mode, entry.size = mtime, member.mode, len(member.content)
            entry.uname = entry.gname = "root"  # its uid and gid are 0 from the start
            if member.link is not None:
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, member.link, 0o777
            tar.addfile(entry, io.BytesIO(member.content))
    return stream.getvalue()


def _compressed(data: bytes) -> bytes:
    # Not gzip.compress: the operating system in its header differs between Python 3.10 and 3.11.
    stream = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=stream, mtime=0) as file:
        file.write(data)
    return stream.getvalue()
