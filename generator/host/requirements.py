"""The virtual environment of a runtime: what the service needs of Python, or an application and its runner."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CalledProcessError

from generator import program
from generator.config.project import Project
from generator.environment import from_wheels, of_pip, room
from generator.host.facts import PYTHON
from generator.host.programs import StepFailed, must, run

_LOCK = Path(program.ROOT, "requirements/service.txt")
# Of the service's own requirements those of the runner, which an application is run by. It may bring others of them.
_OF_THE_RUNNER = ("click", "h11", "httptools", "msgspec", "typing-extensions", "uvicorn", "websockets")
# Ends with this process: the next run must not meet it at work on the same directory. Source: setpriv(1).
_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_PIP_S = 900
_REQUIRED = (
    "import importlib.metadata as m; print(*(r for d in m.distributions() for r in d.requires or ()), sep='\\n')"
)
_NAMES = "import importlib.metadata as m; print(*{d.name for d in m.distributions()}, sep='\\n')"


def install_requirements(venv: Path, project: Project | None) -> None:
    """Install them, and take pip away again: nothing in the runtime can change it.

    Raises:
        StepFailed
    """
    venv.mkdir()
    python = f"{venv}/bin/python"
    with room(venv) as temporary:
        # By its full name, /usr/bin/python3.11: when the host gets another release, and python3 leads to a newer one,
        # the service goes on with what it was made for until that package is removed.
        make = (*_WITH_US, os.path.realpath(PYTHON), "-I", "-m", "venv", str(venv))
        must(run(*make, timeout_s=300, TMPDIR=temporary), "making a virtual environment")
        try:
            variables = of_pip(python, {**_reach(), "TMPDIR": temporary})
        except CalledProcessError:
            raise StepFailed("pip cannot read its configuration; the lines above say why") from None

        def pip(*words: str, doing: str) -> None:
            must(run(*_WITH_US, python, "-I", "-m", "pip", *words, timeout_s=_PIP_S, **variables), doing)

        install = ("install", "-q", "--only-binary", ":all:", "--compile", *from_wheels())
        spared: tuple[str, ...] = ()
        if project is None:
            pip(*install, "--require-hashes", "-r", str(_LOCK), doing="pip install")
        else:
            if project.requirements:
                if project.file is None:
                    file = Path(temporary, "exported.txt")
                    file.write_text(project.requirements, encoding="utf-8")
                else:
                    file = Path(project.directory, project.file)
                pip(*install, "-r", str(file), doing="installing the application's requirements")
                spared = ("setuptools",) if _needs_setuptools(python, project.requirements) else ()
            rest = Path(temporary, "runner.txt")
            rest.write_text("".join(_of_the_runner(python)), encoding="utf-8")
            pip(*install, "--require-hashes", "--no-deps", "-r", str(rest), doing="installing the runner")
        unneeded = [name for name in ("pip", "setuptools") if name not in spared]
        pip("uninstall", "-q", "-y", *unneeded, doing="removing pip")


def _of_the_runner(python: str) -> Iterator[str]:
    """The locked releases of what the runner needs and the application did not bring."""
    there = {_normal(name) for name in must(run(python, "-I", "-c", _NAMES)).split()}
    for entry in re.split(r"^(?=\S)", _LOCK.read_text(encoding="utf-8"), flags=re.MULTILINE):
        name = _normal(re.split(r"[=; \[]", entry, maxsplit=1)[0])
        if name in _OF_THE_RUNNER and name not in there:
            yield entry


def _needs_setuptools(python: str, requirements: str) -> bool:
    """Whether an application names it, or something that it brings does: `pip freeze` leaves it out."""
    is_named = re.search(r"^setuptools\b", requirements, re.MULTILINE) is not None
    return is_named or any(
        re.match(r"setuptools(?![\w.-])", line) and not re.search(r"\bextra\s*==", line)
        for line in must(run(python, "-I", "-c", _REQUIRED)).splitlines()
    )


def _normal(name: str) -> str:
    """Source: PEP 503, "Normalized Names"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _reach() -> dict[str, str]:
    """The variables that say how an index is reached."""
    certificates = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return {
        name: text
        for name, text in os.environ.items()
        if name.startswith("PIP_") or name.lower().endswith("_proxy") or name in certificates
    }
