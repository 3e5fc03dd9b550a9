"""What was set up by hand on this host: the unit or program that starts a server, and all that belongs to it."""

from collections.abc import Callable, Iterable, Iterator
from glob import glob, has_magic
from os.path import realpath, relpath
from pathlib import Path, PurePosixPath

from generator.importing.account import NotImportable, chosen
from generator.importing.options import name_of
from generator.importing.services import Service, services_in
from generator.importing.sources import Kind, Source, read_all
from generator.importing.variables import in_file
from generator.paths import RENDERED, UNITS

_STARTERS = (b"uvicorn", b"gunicorn", b"server.py")
_SITES = ("etc/nginx/sites-enabled/*", "etc/nginx/conf.d/*.conf")
_PACKAGED = ("/usr/lib/", "/usr/share/", "/lib/", "/run/", "/dev/")
"""Where links lead to that are a package's."""


def on_this_host(root: Path, wanted: str | None) -> tuple[list[Source], Service]:
    """The service, and every file that says something of it; of nginx all sites.

    Raises:
        NotImportable: nothing was found, or several; or a file cannot be read.
    """
    candidates = [*root.glob(f"{UNITS}*.service"), *root.glob("etc/supervisor/conf.d/*.conf")]
    sources = _read((path for path in sorted(candidates) if _may_start_one(root, path)), _kind_of)
    service = chosen(services_in(sources), wanted)
    if service is None:
        where = f"/{UNITS.rstrip('/')} and /etc/supervisor/conf.d"
        raise NotImportable(f"nothing in {where} starts uvicorn or gunicorn; name the files")
    mine = {entry.path for entry in service.entries}
    beside = [Path(path) for path in mine]
    if service.manager == "systemd":
        unit = root / f"{UNITS}{service.name}"
        beside += [unit.with_suffix(".socket"), *sorted(root.glob(f"{UNITS}{service.name}.service.d/*.conf"))]
    sources = _read((path for path in beside if path.is_file()), _kind_of)
    (service,) = (each for each in services_in(sources) if each.name == service.name)
    extra = _read((root / path.lstrip("/") for path in _environment_files(service)), lambda path: "environment")
    variables = in_file(entry for source in extra for entry in source.entries)
    (service,) = (each for each in services_in(sources, variables) if each.name == service.name)
    conf = [root / service.conf.lstrip("/")] if service.conf else []
    extra += _read((path for path in conf if path.is_file()), lambda path: "gunicorn")
    sites = [path for pattern in _SITES for path in sorted(root.glob(pattern)) if _is_by_hand(root, path)]
    # What is wrong with another's does not matter here.
    readable, _ = read_all(map(str, sites), lambda path: "site", lambda pattern: _included(root, pattern))
    return [*sources, *extra, *readable], service


def _included(root: Path, pattern: str) -> list[str] | None:
    """The files that an `include` of nginx means on this host; none of them where one is a deployment's of ours."""
    place = str(PurePosixPath("/etc/nginx", pattern)).lstrip("/")
    files = sorted(glob(str(root / place)))
    are_by_hand = all(_is_by_hand(root, Path(file)) for file in files)
    return files if are_by_hand and (files or has_magic(place)) else None


def _environment_files(service: Service) -> Iterator[str]:
    yield from (path for entry, path in service.env_files if path.startswith("/") and not entry.value.startswith("-"))
    yield from (path for entry, path in service.env_files if entry.value.startswith("-") and Path(path).is_file())
    if service.start is not None:
        for option, value in service.start.options:
            if name_of(service.start.server, option) == "env-file":
                yield str(PurePosixPath(service.directory or "/", value))


def _is_by_hand(root: Path, path: Path) -> bool:
    """Whether a file is neither a package's nor one of ours."""
    try:
        return (
            path.is_file()
            and not f"/{relpath(realpath(path), realpath(root))}".startswith(_PACKAGED)
            and RENDERED.encode() not in path.read_bytes()
        )
    except OSError:
        return True  # reading it says why not


def _may_start_one(root: Path, path: Path) -> bool:
    try:
        return _is_by_hand(root, path) and any(word in path.read_bytes() for word in _STARTERS)
    except OSError:
        return True


def _kind_of(path: str) -> Kind:
    """What is in systemd's directory, with its drop-ins, and what is in supervisor's."""
    return "program" if Path(path).parent.parent.name == "supervisor" else "unit"


def _read(paths: Iterable[Path], kind_of: Callable[[str], Kind]) -> list[Source]:
    """Raises: NotImportable, with every file that cannot be read."""
    sources, faults = read_all(map(str, paths), kind_of)
    if faults:
        raise NotImportable(*map(str, faults))
    return sources
