"""What the readers have accepted is kept, and what they read is not read again while nothing of it has changed.

That is: deploy.yaml, from which the bundle follows; this program; the programs that read, the packages of the host, and
how long it has been up; and whatever outside of the bundle they look at, such as the other sites of nginx. What was
refused or not checked is never kept, and nothing is kept for longer than a day, for what nobody thought of. Of the
bundle itself only the manifest is kept, for .env may hold secrets.

It lies where Python keeps this program's compiled modules: whoever can write there can change the program itself.
"""

import os
import re
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from glob import glob, has_magic
from hashlib import sha256

import msgspec

from generator.config.schema import Deploy
from generator.program import ROOT
from generator.readers.processes import LOOKED_FOR, find_program
from generator.readers.verdict import Verdict
from generator.rendering.bundle import Bundle

DIRECTORY = os.path.join(ROOT, "generator", "__pycache__")
_FORMAT = 1
# What the bundle and the verdicts follow from, beside deploy.yaml.
_OWN = ("generator", "service", "templates")
_GOOD_FOR_S = 24 * 3600
_MOST_FILES = 32
# Beyond so many places to look at it costs as much to look as to read.
_MOST_PLACES = 2000
_LARGEST_TEXT = 1 << 20

_NGINX = "/etc/nginx"
_BOOT = "/proc/sys/kernel/random/boot_id"
# What any of these programs may look at: users, names of hosts, libraries, and every package with its version.
_OF_THE_HOST = (
    *("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/ld.so.cache"),
    *("/etc/os-release", "/etc/ssl/openssl.cnf", "/var/lib/dpkg/status", "/usr/lib/python3/dist-packages/"),
)
# What is written all the time; no reader is shown it.
_NOT_READ = ("/dev/", "/proc/", "/run/", "/sys/", "/tmp/", "/var/log/", "/var/run/")
_PATH = re.compile(r"(?<![\w.$/])/[\w.@:*?\[\]{},+~-]+(?:/[\w.@:*?\[\]{},+~-]+)*")
_INCLUDE = re.compile(r"(?<![\w-])include\s+[\"']?(/[^\s;\"']+)")

# Mode, owners, and for a file size, times and inode as well.
Signature = tuple[int, ...]


class Kept(msgspec.Struct):
    """What was accepted: `manifest` is that of the bundle, `verdicts` are those of each reader by its name.

    `programs` is where each was found, `places` what each path was like.
    """

    at: float
    manifest: str
    verdicts: dict[str, list[Verdict]]
    programs: dict[str, str | None]
    places: dict[str, Signature | None]

    @property
    def is_true(self) -> bool:
        """Whether every reader would say the same again."""
        return (
            0 <= time.time() - self.at < _GOOD_FOR_S
            and all(find_program(name) == path for name, path in self.programs.items())
            and all(_signature(path) == then for path, then in self.places.items())
        )


class Judgement:
    """What is known of the bundle of one deployment on this machine."""

    def __init__(self, deploy: Deploy) -> None:
        self._file = os.path.join(DIRECTORY, f"verdicts-{_key(deploy)}.json")
        self._places: dict[str, Signature | None] = {}

    def recall(self) -> Kept | None:
        """What was accepted, if it still is."""
        try:
            with open(self._file, "rb") as file:
                kept = msgspec.json.decode(file.read(), type=Kept)
        except (OSError, msgspec.DecodeError):
            return None
        return kept if kept.is_true else None

    def look(self, bundle: Bundle) -> None:
        """Take note of what the readers are about to look at."""
        LOOKED_FOR.clear()
        self._places = {path: _signature(path) for path in (*_OF_THE_HOST, *_of_packages(), *_named(bundle))}

    def keep(self, manifest: str, verdicts: Mapping[str, list[Verdict]]) -> None:
        """Keep what each reader says that accepts all; after `look`."""
        accepted = {name: said for name, said in verdicts.items() if all(each.state == "accepted" for each in said)}
        places = self._places | {path: _signature(path) for path in filter(None, LOOKED_FOR.values())}
        if sys.dont_write_bytecode or len(places) > _MOST_PLACES:  # the former as for root in somebody else's checkout
            return
        kept = Kept(time.time(), manifest, accepted, dict(LOOKED_FOR), places)
        fresh = f"{self._file}.{os.getpid()}"
        with suppress(OSError):
            os.makedirs(DIRECTORY, exist_ok=True)
            with open(fresh, "wb") as file:
                file.write(msgspec.json.encode(kept))
            os.replace(fresh, self._file)
            _forget_the_oldest()


def _key(deploy: Deploy) -> str:
    """Names all that can be said without a look at other files."""
    boot = _text(_BOOT)  # the kernel, and what it can do, such as IPv6
    here = (sys.version, sys.executable, os.geteuid(), resource.getrlimit(resource.RLIMIT_NOFILE), boot)
    asked = (_FORMAT, deploy, os.environ.get("TMPDIR"), here, sorted(_own_files()))
    return sha256(msgspec.msgpack.encode(asked)).hexdigest()[:32]


def _own_files() -> Iterator[tuple[str, int, int]]:
    for top in _OWN:
        for directory, _, names in os.walk(os.path.join(ROOT, top)):
            if not directory.endswith("__pycache__"):
                for path in (os.path.join(directory, name) for name in names):
                    with suppress(OSError):  # such as the lock of an editor, a link to nowhere
                        status = os.stat(path)
                        yield path, status.st_mtime_ns, status.st_size


def _of_packages() -> Iterator[str]:
    """Packages of Python that render and read: their directories change with each installation."""
    from importlib.util import find_spec

    for name in ("gunicorn", "jinja2", "markupsafe", "msgspec", "supervisor"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            yield spec.origin
            yield os.path.dirname(spec.origin) + "/"


def _named(bundle: Bundle) -> Iterator[str]:
    """The paths outside of the bundle that its files name, and all of the configuration of nginx on this host.

    What others may not read is left out, such as .env: a secret may look like a path, and no reader follows one there.
    """
    texts = [file.text for file in bundle.files if file.mode & 0o004]
    yield f"{_NGINX}/"  # which may not be there yet
    for directory, directories, names in os.walk(_NGINX):
        yield from (os.path.join(directory, name, "") for name in directories)
        for name in names:
            path = os.path.join(directory, name)
            yield path
            texts.append(_text(path))
    seen: set[str] = set()
    while texts and len(seen) < _MOST_PLACES:
        text = texts.pop()
        included = {path for each in _INCLUDE.findall(text) for path in _spelt_out(each)} - seen
        texts += map(_text, included)
        named = {path for each in _PATH.findall(text) for path in _spelt_out(each)} - seen
        seen |= included | named
    yield from seen


def _spelt_out(path: str) -> list[str]:
    """The path, or those that it stands for; then also their directory, where others may come."""
    if path.startswith((*_NOT_READ, f"{_NGINX}/")):
        return []
    return [os.path.dirname(path) + "/", *glob(path)] if has_magic(path) else [path.rstrip(".,:")]


def _text(path: str) -> str:
    try:
        if not os.path.isfile(path) or os.path.getsize(path) > _LARGEST_TEXT:
            return ""
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _signature(path: str) -> Signature | None:
    """None where there is nothing. A directory changes with its entries only if its path ends with a slash."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    owned = (status.st_mode, status.st_uid, status.st_gid)
    if not os.path.isfile(path) and not path.endswith("/"):
        return owned
    return (*owned, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def _forget_the_oldest() -> None:
    files = glob(os.path.join(DIRECTORY, "verdicts-*"))
    for path in sorted(files, key=os.path.getmtime)[:-_MOST_FILES]:
        os.unlink(path)
