"""The virtual environment of a runtime: what the service needs of Python, or an application and its runner."""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from generator import program, uv
from generator.config.project import Project
from generator.filling import room
from generator.host.facts import PYTHON
from generator.host.programs import PATH, Outcome, StepFailed, must, proxies, run
from generator.pip import PipError, from_wheels, of_pip
from generator.reasons import reason

_LOCK = Path(program.ROOT, "requirements/service.txt")
# Of the service's own requirements those of the runner, which an application is run by. It may bring others of them.
_OF_THE_RUNNER = ("click", "h11", "httptools", "msgspec", "typing-extensions", "uvicorn", "websockets")
# Ends with this process: the next run must not meet it at work on the same directory. Source: setpriv(1).
_WITH_US = ("setpriv", "--pdeathsig", "KILL")
_INSTALL_S = 900
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_REQUIRED = (
    "import importlib.metadata as m; print(*(r for d in m.distributions() for r in d.requires or ()), sep='\\n')"
)
_NAMES = "import importlib.metadata as m; print(*{d.name for d in m.distributions()}, sep='\\n')"


def install_requirements(venv: Path, project: Project | None, say: Callable[[str], None]) -> None:
    """Install them, and nothing that could change the runtime: pip is taken away again.

    uv does it where it is at hand, but not what an application brings: pip resolves that, and may have to build it.

    Raises:
        StepFailed
    """
    try:
        if (project is not None and project.requirements) or not _filled_by_uv(venv, project, say):
            _fill_by_pip(venv, project)
    except PipError as error:
        raise StepFailed(str(error)) from None


@contextmanager
def _empty(venv: Path) -> Iterator[tuple[str, str]]:
    """The Python of an environment with nothing in it, and a directory for temporary files."""
    shutil.rmtree(venv, ignore_errors=True)
    venv.mkdir()
    with room(venv) as temporary:
        # By its full name, /usr/bin/python3.11: when the host gets another release, and python3 leads to a newer one,
        # the service goes on with what it was made for until that package is removed.
        # Without pip, since venv hides why that could not be installed.
        make = (*_WITH_US, os.path.realpath(PYTHON), "-I", "-m", "venv", "--without-pip", str(venv))
        must(run(*make, timeout_s=300, TMPDIR=temporary), "making a virtual environment")
        yield f"{venv}/bin/python", temporary


def _filled_by_uv(venv: Path, project: Project | None, say: Callable[[str], None]) -> bool:
    """Whether uv is at hand and did it; `say` is told why not, where it is there."""
    variables = {"PATH": os.environ.get("PATH", PATH), **_reach()}
    try:
        found = uv.at_hand(variables)
        if found is None:
            return False
        with _empty(venv) as (python, temporary):
            lock = _LOCK if project is None else _runner(python, temporary)
            variables = {**variables, "TMPDIR": temporary}
            words, variables = uv.syncing(uv.program(found, temporary), python, [str(lock)], variables)
            outcome = run(*_WITH_US, *words, timeout_s=_INSTALL_S, **variables)
            if not outcome.succeeded:
                raise uv.UvError(f"{found} failed: {outcome.output}")
            (venv / uv.LEFT).unlink(missing_ok=True)
            return True
    except uv.UvError as error:
        say(str(error))
    return False


def _fill_by_pip(venv: Path, project: Project | None) -> None:
    with _empty(venv) as (python, temporary):
        named = _named_by(project.requirements) if project is not None else {}
        variables = _in_full(of_pip({**named, **_reach(), "TMPDIR": temporary}))
        log = Path(temporary, "pip.log")  # it says whom pip could not reach

        # Where the application is: from there pip reads the wheels that its requirements name.
        there = ("env", "-C", project.directory) if project is not None else ()

        def pip(*words: str, doing: str) -> None:
            outcome = run(*_WITH_US, *there, python, "-I", "-m", "pip", *words, timeout_s=_INSTALL_S, **variables)
            if not outcome.succeeded and log.exists():
                why = reason(outcome.output + "\n" + log.read_text(encoding="utf-8", errors="replace"))
                outcome = Outcome(outcome.code, f"{outcome.output}\n{why or ''}".strip())
            must(outcome, doing)

        must(run(*_WITH_US, python, "-I", "-m", "ensurepip", timeout_s=300, TMPDIR=temporary), "installing pip")
        install = ("install", "-q", "--log", str(log), "--only-binary", ":all:", "--compile", *from_wheels())
        spared: tuple[str, ...] = ()
        if project is None:
            pip(*install, "--require-hashes", "-r", str(_LOCK), doing="pip install")
        else:
            if project.requirements:
                if project.file is None:
                    file = Path(temporary, "exported.txt")
                    file.write_text(project.requirements, encoding="utf-8")
                else:
                    file = Path(project.file)
                pip(*install, "-r", str(file), doing="installing the application's requirements")
                spared = ("setuptools",) if _needs_setuptools(python, project.requirements) else ()
            rest = _runner(python, temporary)
            pip(*install, "--require-hashes", "--no-deps", "-r", str(rest), doing="installing the runner")
        unneeded = [name for name in ("pip", "setuptools") if name not in spared]
        pip("uninstall", "-q", "-y", *unneeded, doing="removing pip")


def _runner(python: str, temporary: str) -> Path:
    """A requirements file with what the runner needs and the environment of `python` has not."""
    file = Path(temporary, "runner.txt")
    file.write_text("".join(_of_the_runner(python)), encoding="utf-8")
    return file


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


def _named_by(requirements: str) -> dict[str, str]:
    """Variables that stand in a file of requirements, such as the token of an index in `https://${TOKEN}@a.org/simple`.

    Source: pip's reference, "Requirements File Format", "Using environment variables".

    Raises:
        StepFailed: pip would take one that is not set by its letters, and say what the index thinks of them.
    """
    meant = re.sub(r"(^|\s)#.*$", "", requirements, flags=re.MULTILINE)
    names = sorted(set(re.findall(r"\$\{([A-Z0-9_]+)\}", meant)))
    if missing := [name for name in names if name not in os.environ]:
        fix = "set it for this command, behind sudo: `sudo NAME=value ...`"
        raise StepFailed(f"app.requirements names the variable {', '.join(missing)}, which is not set; {fix}")
    return {name: os.environ[name] for name in names}


def _reach() -> dict[str, str]:
    """The variables that say how an index is reached, and whether uv may be used."""
    kept = (*_CERTIFICATES, uv.SWITCH)
    there = {name: text for name, text in os.environ.items() if name.startswith("PIP_") or name in kept}
    return {**there, **proxies()}


def _in_full(variables: dict[str, str]) -> dict[str, str]:
    """The same where pip is not started here: it would look for `PIP_FIND_LINKS=wheels` where it is."""
    of_files = (*_CERTIFICATES, "PIP_CACHE_DIR", "PIP_CERT", "PIP_CLIENT_CERT", "PIP_FIND_LINKS")

    def full(text: str) -> str:
        return " ".join(os.path.abspath(word) if os.path.exists(word) else word for word in text.split())

    return {name: full(text) if name in of_files else text for name, text in variables.items()}
