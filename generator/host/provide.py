"""What a generation stands on: the code with its virtual environment, and its own files."""

import hashlib
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from subprocess import CalledProcessError

from generator import program
from generator.config.listening import url
from generator.config.schema import Deploy, domains, keys_file, main_domain
from generator.environment import from_wheels, of_pip, room
from generator.host.engine import flavour_of
from generator.host.facts import PYTHON, made_for, python_version
from generator.host.programs import StepFailed, must, run
from generator.host.store import READY, Generation, Store
from generator.paths import Paths
from generator.rendering.bundle import Bundle
from generator.rendering.render import engine_settings, replaces_workers, upstream
from generator.report import CommandError, Report

ROOT = Path(program.ROOT)
# Ends with this process: the next run must not meet it at work on the same directory. Source: setpriv(1).
_WITH_US = ("setpriv", "--pdeathsig", "KILL")


def runtime_id() -> str:
    """Names the code, the requirements and the Python: the same ones give the same runtime, which is then made once."""
    digest = hashlib.sha256(".".join(map(str, python_version()[:2])).encode())
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
    """Whether a generation's Python is still there and finds what it needs."""
    return run(str(store.directory(number) / "venv/bin/python"), "-I", "-c", "import msgspec").succeeded


def has_runtime(store: Store) -> bool:
    """Whether the code and the environment of what would be installed are there already."""
    return (store.home / "runtimes" / runtime_id() / READY).exists()


def make_runtime(store: Store, runtime: str, report: Report) -> None:
    """Code and virtual environment, owned by root and byte-compiled: the service can write none of it."""
    directory = store.home / "runtimes" / runtime
    if (directory / READY).exists():
        return
    shutil.rmtree(directory, ignore_errors=True)
    try:
        (directory / "service").mkdir(parents=True)
        with report.step("install the service"):
            for path in _code():
                copy = directory / path.relative_to(ROOT)
                copy.parent.mkdir(exist_ok=True)
                shutil.copyfile(path, copy)
            _make_venv(directory / "venv")
            python = str(directory / "venv/bin/python")
            must(run(python, "-m", "compileall", "-q", str(directory / "service"), timeout_s=120), "compiling")
        run("sync", "--file-system", str(directory), timeout_s=300)  # what is said to be ready must outlive a power cut
        (directory / READY).touch()
    except (StepFailed, OSError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        _remove_empty(store.home)
        raise CommandError(f"{error}\nThe deployment was not touched.") from None


def stage(deploy: Deploy, bundle: Bundle, store: Store, runtime: str, report: Report) -> int:
    number = max(store.numbers(), default=0) + 1
    with report.step(f"write generation {number}"):
        sysusers = next(file.text for file in bundle.files if file.path == Paths(deploy.name).sysusers)
        must(run("systemd-sysusers", "-", stdin=sysusers), "systemd-sysusers")
        generation = Generation(
            number=number,
            runtime=runtime,
            installed_at=time.time(),
            server=deploy.server,
            manager=deploy.manager,
            listener=upstream(deploy),
            domain=main_domain(deploy),
            aliases=domains(deploy)[1:],
            tls=deploy.tls,
            default_server=deploy.nginx.default_server,
            auth=deploy.auth,
            keys=keys_file(deploy),
            replaces_workers=replaces_workers(deploy),
            has_files=True,
            listen=deploy.nginx.listen,
            ports=(deploy.nginx.http_port, deploy.nginx.https_port),
            proxy_protocol=deploy.nginx.proxy_protocol,
            url=url(deploy),
            engine=flavour_of(bundle),
            joined=engine_settings(deploy),
        )
        store.add(bundle, generation)
    return number


def _code() -> list[Path]:
    """What runs on a host. The clients do not: a change in them must not restart the service."""
    code = (path for path in (ROOT / "service").rglob("*.py") if path.name != "client.py")
    return sorted((*code, ROOT / "service/web/status.html"))


def _make_venv(venv: Path) -> None:
    """Install the locked requirements, and take pip away again: nothing in the runtime can change it."""
    venv.mkdir()
    python = f"{venv}/bin/python"
    requirements = ("-r", str(ROOT / "requirements/service.txt"))
    locked = ("install", "-q", "--require-hashes", "--only-binary", ":all:", "--compile", *from_wheels(), *requirements)
    with room(venv) as temporary:
        # By its full name, /usr/bin/python3.11: when the host gets another release, and python3 leads to a newer one,
        # the service goes on with what it was made for until that package is removed.
        make = (*_WITH_US, os.path.realpath(PYTHON), "-I", "-m", "venv", str(venv))
        must(run(*make, timeout_s=300, TMPDIR=temporary), "making a virtual environment")
        try:
            variables = of_pip(python, {**_reach(), "TMPDIR": temporary})
        except CalledProcessError:
            raise StepFailed("pip cannot read its configuration; the lines above say why") from None
        pip = (*_WITH_US, python, "-I", "-m", "pip")
        must(run(*pip, *locked, timeout_s=900, **variables), "pip install")
        must(run(*pip, "uninstall", "-q", "-y", "pip", "setuptools", timeout_s=300, **variables), "removing pip")


def _reach() -> dict[str, str]:
    """The variables that say how an index is reached."""
    certificates = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return {
        name: text
        for name, text in os.environ.items()
        if name.startswith("PIP_") or name.lower().endswith("_proxy") or name in certificates
    }


def _remove_empty(home: Path) -> None:
    """A first installation that failed before it wrote anything leaves no directory."""
    for directory in (home / "runtimes", home):
        with suppress(OSError):
            directory.rmdir()
