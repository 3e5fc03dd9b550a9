"""`wsbundle bundle`: all that an installation needs, in one archive for hosts without a network."""

import os
import re
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from msgspec.structs import replace

from generator import program
from generator.commands import verified
from generator.config.load import Loaded, load_text
from generator.config.project import Project
from generator.config.schema import Deploy
from generator.packing.archive import Archive, Member, archive
from generator.packing.cloud_init import checked, cloud_config, needed, place_of
from generator.packing.wheelhouse import DEFAULT_PYTHON, Target, download, locked
from generator.rendering.bundle import MANIFEST, Bundle
from generator.rendering.write import make_directory, put_bytes
from generator.report import Report, UsageError
from service.declaration import Fault, values_of

ROOT = Path(program.ROOT)
INSTALLER = "generator/install.sh"
# deploy.yaml has under `env` the secrets of .env, which has a mode of its own.
_PRIVATE = 0o600
_APPLICATION = "app"


def bundle(options: Namespace, report: Report) -> int:
    """Write the archive; nothing of it depends on when and where that is done."""
    pythons = sorted(set(options.python or [DEFAULT_PYTHON]), key=lambda python: (len(python), python))
    if wrong := [python for python in pythons if not re.fullmatch(r"3\.\d\d", python)]:
        raise UsageError(
            f"--python {wrong[0]} is not a Python that the service runs on; give one from 3.10 on, as {DEFAULT_PYTHON}"
        )
    # Before minutes of downloads; `/dev/stdout` is a link.
    if options.output is not None and os.path.exists(options.output) and not os.path.isfile(options.output):
        raise UsageError(f"-o {options.output} is not a regular file; name another")
    targets = [Target(python, options.machine) for python in pythons]
    mtime = _mtime()
    url = None if options.cloud_init is None else checked(options.cloud_init)
    report.keeps_stdout = url is not None
    loaded, rendered = verified(options, report)
    with tempfile.TemporaryDirectory(prefix="wsbundle-") as directory:
        for_whom = f"Python {', '.join(pythons)} on {options.machine}"
        with report.step(f"download wheels for {for_whom}", lambda: f"{len(os.listdir(directory))} are there"):
            for locks in locks_of(loaded, options.uv):
                download(targets, locks, Path(directory))
        with report.busy("pack the archive"):
            packed = pack(ROOT, loaded, rendered, Path(directory), mtime)
    file = Path(options.output or f"build/{packed.directory}.tar.gz")
    make_directory(file.parent)
    put_bytes(file, packed.content, _PRIVATE)
    report.fact(file=str(file), directory=packed.directory, sha256=packed.digest, bytes=len(packed.content))
    report.line(f"{file} is ready: {len(packed.content) / 1e6:.1f} MB, for {for_whom}")
    report.line(f"  SHA-256:      {packed.digest}")
    if url is None:
        report.line(f"  on the host:  tar xzf {file.name} && cd {packed.directory} && sudo sh install")
    else:
        _user_data(loaded.deploy, packed, place_of(url, file.name), report)
    return 0


def _user_data(deploy: Deploy, packed: Archive, url: str, report: Report) -> None:
    """Print the cloud-config, and say what it needs."""
    if url.startswith("http:"):
        exposed = "with the values of env" if deploy.env else "whose deploy.yaml says how the host is set up"
        report.warning(Fault(f"{url} is without TLS: anyone on the way can read the archive, {exposed}", "use https"))
    config = cloud_config(deploy, packed, url)
    report.fact(cloud_config=config, url=url, needed=dict(needed(deploy)))
    report.line(f"  put it at:    {url}")
    for key, path in needed(deploy):
        report.line(f"  needs:        {path} on the machine before ({key})")
    report.line("  user data:    what is on standard output")
    report.result(config)


def locks_of(loaded: Loaded, with_uv: bool) -> list[list[str]]:
    """What an archive has wheels of: the texts of our own locks, and those of an application, each for itself.

    Raises:
        CommandError: some of an application's have no hash.
    """
    files = (*program.LOCKS, program.UV_LOCK) if with_uv else program.LOCKS
    ours = [(ROOT / file).read_text(encoding="utf-8") for file in files]
    theirs = loaded.project.requirements if loaded.project is not None else ""
    return [ours, [locked(theirs)]] if theirs else [ours]


def pack(root: Path, loaded: Loaded, rendered: Bundle, wheels: Path, mtime: int = 0) -> Archive:
    """The archive of the project in `root` and one deployment, with all files of the directory `wheels`."""
    return archive(loaded.deploy.name, members(root, loaded, rendered, wheels), mtime)


def members(root: Path, loaded: Loaded, rendered: Bundle, wheels: Path) -> list[Member]:
    """All that is in it."""
    return [
        *_code(root),
        *_application(loaded.project),
        *_rendered(rendered),
        *(Member(path=f"wheels/{file.name}", content=file.read_bytes()) for file in wheels.iterdir()),
        Member(path="install", content=(root / INSTALLER).read_bytes(), mode=0o755),
        Member(path="deploy.yaml", content=deploy_text(loaded).encode(), mode=_PRIVATE),
    ]


def deploy_text(loaded: Loaded) -> str:
    """A deploy.yaml that says what was given, wherever it was: overlay and assignments are applied."""
    given: dict[str, Any] = {}
    deploy = replace(loaded.deploy, hosts=())  # they are for `wsbundle deploy`; one more must change nothing here
    if loaded.project is not None:  # its files are in the archive as well
        deploy = replace(deploy, app=replace(deploy.app, path=_place(loaded.project)))
    for key, value in values_of(deploy).items():
        is_given = key in loaded.origins or (key == "app.path" and loaded.project is not None)
        if is_given and key != "hosts":
            section, _, name = key.rpartition(".")
            branch = given.setdefault(section, {}) if section else given
            branch[name] = list(value) if isinstance(value, tuple) else value
    text = "# All that was given when this archive was made; overlay and --set are applied.\n"
    text += yaml.safe_dump(given, sort_keys=False, allow_unicode=True, width=1000)
    assert load_text(text, "deploy.yaml").deploy == deploy
    return text


def _application(project: Project | None) -> Iterator[Member]:
    if project is None:
        return
    for name in (*project.files, *project.above):
        path, packed = Path(project.directory, name), os.path.normpath(f"{_place(project)}/{name}")
        link = os.readlink(path) if path.is_symlink() and name in project.files else None
        # No less closed than it will be on the host: who unpacks it may do so where others can look.
        mode = 0o700 if os.access(path, os.X_OK) else _PRIVATE
        yield Member(path=packed, content=b"" if link else path.read_bytes(), mode=mode, link=link)


def _place(project: Project) -> str:
    """The directory of an application in the archive."""
    return os.path.normpath(f"{_APPLICATION}/{project.place}")


def _code(root: Path) -> Iterator[Member]:
    """The files that `make install` needs, without those that only a checkout needs."""
    for path in program.sources(str(root)):
        yield Member(path=path, content=(root / path).read_bytes())


def _rendered(rendered: Bundle) -> Iterator[Member]:
    """The files as they will be on the host, for people to read: `install` renders and judges them again there."""
    yield Member(path=f"rendered/{MANIFEST}", content=rendered.manifest().encode())
    for file in rendered.files:
        path = f"rendered/{file.path}"
        yield Member(path=path, content=file.text.encode(), mode=file.mode, link=file.link)


def _mtime() -> int:
    """Source: https://reproducible-builds.org/specs/source-date-epoch/."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"SOURCE_DATE_EPOCH is {text!r}; give it seconds since 1970, or unset it")
    return int(text)
