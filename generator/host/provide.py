"""What a generation stands on: the code with its virtual environment, an application, and its own files."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from generator import program
from generator.config.listening import clients_path, url
from generator.config.project import Project
from generator.config.schema import Deploy, domains, keys_file, main_domain, serves_app
from generator.host.engine import flavour_of
from generator.host.facts import made_for, python_version
from generator.host.made_once import damage, is_whole, make_once
from generator.host.programs import Outcome, StepFailed, must, run
from generator.host.rehearsal import Rehearsal
from generator.host.requirements import install_requirements
from generator.host.store import APPS, FILES, Generation, Store
from generator.paths import Paths
from generator.rendering.bundle import Bundle
from generator.rendering.render import (
    engine_settings,
    health_path,
    keeps_clients,
    local_address,
    replaces_workers,
    service_user,
)
from generator.report import CommandError, Report

ROOT = Path(program.ROOT)
# Isolated: it is root's, and must not take a module of the directory that it is run in for one of Python's.
_COMPILE = ("-I", "-m", "compileall", "-q")
# What each server begins with. What is wrong with it is said in a line.
_IMPORT = """import sys
sys.tracebacklimit = 0
sys.path.insert(0, sys.argv[1])
import service.__main__, service.fast.runner, service.server, service.worker"""


def runtime_id(project: Project | None = None) -> str:
    """Names the code, the requirements and the Python: the same ones give the same runtime, which is then made once.

    An application's own requirements are among them.
    """
    digest = hashlib.sha256(".".join(map(str, python_version()[:2])).encode())
    if project is not None:
        digest.update(f"application\0{project.requirements}\0".encode())
    for path in [ROOT / "requirements/service.txt", *_code()]:
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def outdated(store: Store, number: int) -> str | None:
    """Why a generation's service will not start, or not for long: another Python than the host's. In words."""
    wanted, there = made_for(store.directory(number) / "venv"), python_version()[:2]
    if wanted in ((), there):
        return None
    host = f"this host has {'.'.join(map(str, there))}" if there else "this host has none"
    return f"made for Python {'.'.join(map(str, wanted))}, {host}"


def can_start(store: Store, number: int) -> bool:
    """Whether what a generation is made of is still there, and its Python finds what it needs."""
    python = str(store.directory(number) / "venv/bin/python")
    return not damage(store, number) and run(python, "-I", "-c", "import msgspec").succeeded


def has_runtime(store: Store, project: Project | None = None) -> bool:
    """Whether the code and the environment of what would be installed are there already."""
    return is_whole(store.home / "runtimes" / runtime_id(project))


def make_user(deploy: Deploy, bundle: Bundle) -> None:
    """Make the service's user, where there is none. Raises: StepFailed"""
    sysusers = next(file.text for file in bundle.files if file.path == Paths(deploy.name).sysusers)
    must(run("systemd-sysusers", "-", stdin=sysusers), "systemd-sysusers")


def app_id(deploy: Deploy, project: Project | None) -> str:
    """Names an application's files, as they are installed; nothing for the notification center."""
    if project is None:
        return ""
    made_with = (runtime_id(project), *map("=".join, sorted(deploy.env.items()))) if deploy.app.build else ()
    return project.id(service_user(deploy), *deploy.app.static.values(), *deploy.app.build, *made_with)


def make_application(
    store: Store, deploy: Deploy, bundle: Bundle, project: Project, app: str, runtime: str, report: Report
) -> Path:
    """An application's files, owned by root: its user can read them, and write none. Its runtime is there already."""
    made = store.home / APPS / app
    directory = made / FILES

    def fill() -> None:
        user = service_user(deploy)
        make_user(deploy, bundle)
        with report.step(f"install the application, {len(project.files)} files"):
            _copy_files(project, directory)
        # It is root who writes here, so before its user could put a link there.
        run(_python(store, runtime), *_COMPILE, str(directory))
        if deploy.app.build:
            _own(directory, lambda path: (user, user, 0o700 if path.is_dir() or os.access(path, os.X_OK) else 0o600))
            Rehearsal(deploy, bundle, store.home / "runtimes" / runtime).build(directory, report)
        public = [f"{directory}/{path.rstrip('/')}" for path in deploy.app.static.values()]
        _own(directory, lambda path: ("root", user, _mode(path, public)))

    _make(store, made, fill, report)
    return directory


def _python(store: Store, runtime: str) -> str:
    return str(store.home / "runtimes" / runtime / "venv/bin/python")


def _copy_files(project: Project, directory: Path) -> None:
    directory.mkdir(mode=0o700)  # nobody else sees a file before it has its owner and mode
    for name in project.files:
        copy = directory / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(project.directory, name), copy, follow_symlinks=False)


def _mode(path: Path, public: list[str]) -> int:
    """Its user may read it; what nginx serves, everybody, by way of all that is above."""
    is_public = any(f"{path}/".startswith(f"{each}/") for each in public)
    if path.is_dir():
        return 0o755 if is_public else 0o751
    return (0o750 if os.access(path, os.X_OK) else 0o640) | (0o004 if is_public else 0)


def _own(directory: Path, of: Callable[[Path], tuple[str, str, int]]) -> None:
    """Give each file, and the directory itself, its owner, group and mode."""
    for path in (directory, *directory.rglob("*")):
        if not path.is_symlink():
            owner, group, mode = of(path)
            path.chmod(mode)
            shutil.chown(path, owner, group)


def make_runtime(store: Store, runtime: str, report: Report, project: Project | None) -> None:
    """Code and virtual environment, owned by root and byte-compiled: the service can write none of it.

    An application has requirements of its own.
    """
    directory = store.home / "runtimes" / runtime

    def fill() -> None:
        (directory / "service").mkdir()
        with report.step("install the service" if project is None else "install what the application needs"):
            for path in _code():
                copy = directory / path.relative_to(ROOT)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
            install_requirements(directory / "venv", project, lambda text: report.line(f"  {text}"))
            must(run(_python(store, runtime), *_COMPILE, str(directory / "service"), timeout_s=120), "compiling")
            if project is None:  # an application is imported later, as it will be run
                # Else clients would wait while the service is restarted for nothing, and back.
                must(_imports(store, runtime), "importing it")

    _make(store, directory, fill, report)


def _imports(store: Store, runtime: str) -> Outcome:
    return run(_python(store, runtime), "-Ic", _IMPORT, str(store.home / "runtimes" / runtime), timeout_s=120)


def _make(store: Store, directory: Path, fill: Callable[[], None], report: Report) -> None:
    try:
        make_once(directory, fill, report)
    except BaseException as error:
        _remove_empty(store.home)
        if isinstance(error, StepFailed | OSError):
            raise CommandError(f"{error}\nThe deployment was not touched.") from None
        raise


def stage(deploy: Deploy, bundle: Bundle, store: Store, runtime: str, report: Report, app: str = "") -> int:
    number = max(store.numbers(), default=0) + 1
    with report.step(f"write generation {number}"):
        make_user(deploy, bundle)
        generation = Generation(
            number=number,
            runtime=runtime,
            installed_at=time.time(),
            server=deploy.server,
            manager=deploy.manager,
            listener=local_address(deploy),
            domain=main_domain(deploy),
            aliases=domains(deploy)[1:],
            tls=deploy.tls,
            default_server=deploy.nginx.default_server,
            auth=deploy.auth,
            keys=None if serves_app(deploy) else keys_file(deploy),
            replaces_workers=replaces_workers(deploy),
            keeps_clients=keeps_clients(deploy),
            has_files=True,
            listen=deploy.nginx.listen,
            ports=(deploy.nginx.http_port, deploy.nginx.https_port),
            proxy_protocol=deploy.nginx.proxy_protocol,
            url=url(deploy),
            engine=flavour_of(bundle),
            joined=engine_settings(deploy),
            app=app,
            health=health_path(deploy) if serves_app(deploy) else None,
            path=clients_path(deploy),
            start_s=deploy.app.start if serves_app(deploy) else 0,
            writes=deploy.needs.write,
            included=deploy.name if deploy.nginx.include else "",
            # It stays away also where deploy.yaml names it no more.
            replaces=tuple(dict.fromkeys((*_replaced_already(store), *deploy.replaces))),
        )
        store.add(bundle, generation)
    return number


def _replaced_already(store: Store) -> tuple[str, ...]:
    return store.generation(store.current).replaces if store.current is not None else ()


def _code() -> list[Path]:
    """What runs on a host. The clients do not: a change in them must not restart the service."""
    code = (path for path in (ROOT / "service").rglob("*.py") if path.name != "client.py")
    return sorted((*code, ROOT / "service/web/status.html"))


def _remove_empty(home: Path) -> None:
    """A first installation that failed before it wrote anything leaves no directory."""
    for directory in (home / "runtimes", home / APPS, home):
        with suppress(OSError):
            directory.rmdir()
