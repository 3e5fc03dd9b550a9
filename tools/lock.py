"""The locked requirements: renew them, or say which have a newer release or a known vulnerability.

    python -m tools.lock                                renew requirements/*.txt, and say what has changed
    python -m tools.lock --check [--advisories FILE]    change nothing; exit code 3 where something is newer, 1 where
                                                        an advisory names a locked release

FILE is an export of OSV, read without a network: https://storage.googleapis.com/osv-vulnerabilities/PyPI/all.zip, a
directory of its records, or one of them. Source: https://ossf.github.io/osv-schema/.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parent.parent
LISTS = ("generator", "service", "uv", "dev", "fuzz", "bench")  # a later one follows those before it
_COMPILE = """pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes
    --no-emit-index-url --no-emit-find-links --custom-compile-command""".split()
Versions = Mapping[str, frozenset[str]]  # of each package; for several Pythons it may have several


class Advisory(NamedTuple):
    """What is known of a locked release, and the first releases without it."""

    package: str
    version: str
    id: str
    summary: str
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        fix = f"fixed in {', '.join(self.fixed)}" if self.fixed else "no release is without it"
        return f"{self.package} {self.version}: {self.id}, {self.summary or 'no summary'}; {fix}"


def locked(root: Path, lists: Iterable[str] = LISTS) -> dict[str, Versions]:
    """The versions of each list."""
    return {name: versions((root / f"requirements/{name}.txt").read_text(encoding="utf-8")) for name in lists}


def versions(lock: str) -> Versions:
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock, re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(version)
    return {name: frozenset(each) for name, each in found.items()}


def changes(before: Mapping[str, Versions], after: Mapping[str, Versions]) -> Iterator[str]:
    """A line for each package that is locked otherwise, with the lists that it is in."""
    lines: dict[str, list[str]] = {}
    for name in after:
        for package in sorted({*before[name], *after[name]}):
            old, new = (each[name].get(package, frozenset()) for each in (before, after))
            if old != new:
                lines.setdefault(f"{package} {_difference(old - new, new - old)}", []).append(name)
    return (f"{line} ({', '.join(names)})" for line, names in sorted(lines.items()))


def _difference(gone: Iterable[str], new: Iterable[str]) -> str:
    before, after = (", ".join(sorted(each, key=Version)) for each in (gone, new))
    return f"{before} -> {after}" if before and after else f"{before} is gone" if before else f"{after} is new"


def advisories(records: Iterable[dict[str, Any]], locks: Iterable[Versions]) -> Iterator[Advisory]:
    """Those that name a locked release, each once."""
    there: dict[str, set[str]] = {}
    for lock in locks:
        for package, found in lock.items():
            there.setdefault(package, set()).update(found)
    for record in records:
        for affected in record["affected"] if "withdrawn" not in record else ():
            package = affected.get("package", {})
            name = canonicalize_name(package.get("name", ""))
            for version in sorted(there.get(name, ())) if _of_pypi(affected) else ():
                if _is_affected(affected, version):
                    yield Advisory(name, version, _id(record), record.get("summary", ""), _fixes(affected, version))


def _id(record: dict[str, Any]) -> str:
    """A CVE is what others know it by."""
    return next((alias for alias in record.get("aliases", ()) if alias.startswith("CVE-")), str(record.get("id")))


def _is_affected(affected: dict[str, Any], version: str) -> bool:
    """Source: the schema's "Evaluation"."""
    if version in affected.get("versions", ()):
        return True
    return any(
        _is_within(found.get("events", []), Version(version))
        for found in affected.get("ranges", ())
        if found.get("type") in ("ECOSYSTEM", "SEMVER")
    )


def _is_within(events: list[dict[str, str]], version: Version) -> bool:
    """Whether the last event at or before the version opens a range, and none closes it."""
    is_inside = False
    for kind, at in sorted(_sorted(events), key=lambda event: event[1]):
        if kind == "introduced" and at <= version:
            is_inside = True
        elif (kind == "fixed" and at <= version) or (kind == "last_affected" and at < version):
            is_inside = False
    return is_inside


def _sorted(events: list[dict[str, str]]) -> Iterator[tuple[str, Version]]:
    for event in events:
        for kind, text in event.items():
            try:
                yield kind, Version(text)
            except InvalidVersion:  # of a release that nobody can lock
                continue


def _fixes(affected: dict[str, Any], version: str) -> tuple[str, ...]:
    ranges = [found for found in affected.get("ranges", ()) if found.get("type") != "GIT"]
    events = [event for found in ranges for event in found.get("events", ())]
    fixes = {at for kind, at in _sorted(events) if kind == "fixed" and at > Version(version)}
    return tuple(str(at) for at in sorted(fixes)[:1])


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of an export.

    Raises:
        ValueError: it is none, or is damaged, or has none for PyPI: nobody is to take that for good news.
        OSError
    """
    texts: Iterator[bytes]
    if path.is_dir():
        texts = (file.read_bytes() for file in sorted(path.rglob("*.json")))
    elif zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        texts = (archive.read(name) for name in archive.namelist() if name.endswith(".json"))
    else:
        texts = iter((path.read_bytes(),))
    is_ours = False
    try:
        for text in texts:
            record = json.loads(text)
            if not _is_record(record):
                raise ValueError("it has a record that is none of OSV")
            is_ours = is_ours or any(_of_pypi(affected) for affected in record["affected"])
            yield record
    except zipfile.BadZipFile as error:
        raise ValueError(str(error)) from None
    if not is_ours:
        raise ValueError("it has no record of a package from PyPI")


def _is_record(record: object) -> bool:
    affected = record.get("affected") if isinstance(record, dict) else None
    return isinstance(affected, list) and all(
        isinstance(each, dict) and isinstance(each.get("package", {}), dict) for each in affected
    )


def _of_pypi(affected: dict[str, Any]) -> bool:
    return bool(affected.get("package", {}).get("ecosystem") == "PyPI")


def renewed(root: Path, lists: Iterable[str] = LISTS) -> tuple[dict[str, str], list[str]]:
    """The text of each list at the newest versions, and what differs. Nothing is changed.

    Raises:
        CalledProcessError: uv has said why.
    """
    with tempfile.TemporaryDirectory(prefix="wsbundle-lock-") as directory:
        copy = Path(directory)
        shutil.copytree(root / "requirements", copy / "requirements")
        uv = str(Path(sys.executable).with_name("uv"))
        for name in lists:
            files = ["-o", f"requirements/{name}.txt", f"requirements/{name}.in"]
            subprocess.run([uv, *_COMPILE, "make lock", *files], cwd=copy, check=True)
        texts = {f"requirements/{name}.txt": (copy / f"requirements/{name}.txt").read_text() for name in lists}
        return texts, list(changes(locked(root, lists), locked(copy, lists)))


def check(root: Path, export: Path | None, lists: Iterable[str] = LISTS) -> int:
    """Say what is newer than what is locked, and what is known of it; the exit code."""
    known = [] if export is None else list(dict.fromkeys(advisories(records(export), locked(root, lists).values())))
    _, newer = renewed(root, lists)
    for line in newer:
        print(f"newer: {line}")
    for advisory in known:
        print(f"advisory: {advisory}")
    if not (newer or known):
        print("All that is locked is the newest that fits" + ("." if export is None else ", and no advisory names it."))
    return 1 if known else 3 if newer else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.lock", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="change nothing, and say what is newer")
    parser.add_argument("--advisories", metavar="FILE", type=Path, help="an export of OSV for PyPI; with --check")
    options = parser.parse_args(arguments)
    if options.advisories is not None and not options.check:
        parser.error("--advisories is for --check, as in `make outdated`")
    try:
        if options.check:
            return check(ROOT, options.advisories)
        texts, differences = renewed(ROOT)
    except subprocess.CalledProcessError as error:
        print(f"lock: uv ended with {error.returncode}; its lines above say why. Nothing was changed.", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        if options.advisories is None:
            print(f"lock: {error}. Nothing was changed.", file=sys.stderr)
        else:
            print(f"lock: {options.advisories}: {error}; give an export of OSV for PyPI", file=sys.stderr)
        return 2
    for path, text in texts.items():
        (ROOT / path).write_text(text, encoding="utf-8")
    print("\n".join(differences) or "Nothing is newer.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
