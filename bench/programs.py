"""What the benchmark needs beside its own Python: compiled from our C, or fetched, into a directory of its own.

Nothing is installed on the machine, and nothing needs root.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BUILD = ROOT / "build" / "_bench"  # no deployment can have this name
FETCH_TIMEOUT_S = 60.0
# Where Debian has nginx, which is not on everybody's PATH.
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"

_MODULE = Path("usr/lib/nginx/modules/ngx_nchan_module.so")


class MissingError(Exception):
    """A program is not there; the message says how to get it."""


def program(name: str, package: str) -> str:
    """The path of a program.

    Raises:
        MissingError: with the Debian package that has it.
    """
    found = shutil.which(name, path=PATH)
    if found is None:
        raise MissingError(f"{name} is not installed; on Debian and Ubuntu: apt-get install -y {package}")
    return found


def compiled(source: str, *libraries: str) -> str:
    """The program made of a C file in `bench/` and these libraries, made again when the file is newer.

    Raises:
        MissingError: there is no compiler, or it fails.
    """
    path = HERE / source
    made = BUILD / path.stem
    if not made.exists() or made.stat().st_mtime < path.stat().st_mtime:
        packages = "gcc libc6-dev libssl-dev"
        compiler = program("cc", packages)
        # Under another name first: a second benchmark, or a test, may be starting the program right now.
        fresh = _directory(BUILD) / f"{path.stem}.{os.getpid()}"
        linked = [f"-l{library}" for library in libraries]
        _run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(fresh), str(path), *linked], packages)
        fresh.replace(made)
    return str(made)


def node_modules() -> Path:
    """A directory of Node modules with `ws`, at the version and hash of `bench/peers/package-lock.json`.

    Raises:
        MissingError: there is no npm, or it cannot fetch.
    """
    directory = _directory(BUILD / "node")
    names = ("package.json", "package-lock.json")
    locked = [(HERE / "peers" / name).read_bytes() for name in names]
    modules = directory / "node_modules"
    if not modules.exists() or [(directory / name).read_bytes() for name in names] != locked:
        npm = program("npm", "nodejs npm")
        for name, text in zip(names, locked, strict=True):
            (directory / name).write_bytes(text)
        _run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"], "nodejs npm", directory)
    return modules


def peers_packages() -> Path:
    """A directory with the Python packages of `requirements/bench.txt`, at their versions and hashes.

    Raises:
        MissingError: they cannot be fetched.
    """
    lock = ROOT / "requirements" / "bench.txt"
    directory = BUILD / f"python-{sys.version_info.major}.{sys.version_info.minor}"
    mark = directory / lock.name
    if not mark.exists() or mark.read_bytes() != lock.read_bytes():
        shutil.rmtree(directory, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "--target", str(directory), "-r", str(lock)], "python3-pip")
        mark.write_bytes(lock.read_bytes())
    return directory


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for this machine that nobody has signed, of the kind that Let's Encrypt signs, and its key.

    Raises:
        MissingError: there is no openssl.
    """
    file, key = directory / "bench.crt", directory / "bench.key"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    names = ("-addext", "subjectAltName=IP:127.0.0.1", "-out", str(file), "-keyout", str(key))
    _run([program("openssl", "openssl"), *made.split(), *names], "openssl", directory)
    return file, key


def nchan_module() -> Path:
    """nginx's module nchan: the one that is installed, or out of Debian's package for the nginx that is.

    Raises:
        MissingError: it is not there and cannot be fetched.
    """
    package = "libnginx-mod-nchan"
    installed = Path("/") / _MODULE
    if installed.exists():
        return installed
    directory = _directory(BUILD / "nchan")
    if not (directory / _MODULE).exists():
        _run([program("apt-get", package), "download", "--quiet", package], package, directory)
        (archive,) = directory.glob(f"{package}_*.deb")
        _run([program("dpkg-deb", package), "-x", str(archive), str(directory)], package)
    return directory / _MODULE


def _directory(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _run(command: list[str], package: str, directory: Path = ROOT) -> None:
    try:
        subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = error.stderr if isinstance(error.stderr, str) else ""
        last = (said.strip().splitlines() or ["no answer"])[-1]
        raise MissingError(
            f"{Path(command[0]).name} failed ({last}); on Debian and Ubuntu: apt-get install -y {package}"
        ) from error
