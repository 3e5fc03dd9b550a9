"""uv fills an environment where it is at hand: what pip would install, in a third of the time.

Where it cannot be trusted to do the same, `UvError` says so in one line, and pip does it. The standard library only,
and readable by Pythons back to 3.6, as `generator/environment.py`.
"""

import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from generator.pip import WHEELS, from_wheels, settings

OLDEST = (0, 11)  # the first that knows UV_SYSTEM_CERTS
SWITCH = "WSBUNDLE_UV"  # "no" turns it off
_VERSION_S = 20
# Of the caller's variables these count; none of uv's own, and no VIRTUAL_ENV or CONDA_PREFIX: uv would sync that one.
_KEPT = ("HOME", "LANG", "LC_ALL", "NETRC", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR")
_PROXIES = ("all_proxy", "http_proxy", "https_proxy", "no_proxy")
_FIXED = {
    "UV_NO_CONFIG": "1",
    "UV_NO_PROGRESS": "1",
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_SYSTEM_CERTS": "1",  # its own list lacks the authorities that this machine trusts, and pip and curl with it
    "UV_INDEX_STRATEGY": "unsafe-best-match",  # of several indexes any may have what is locked, as for pip
    # Files that are linked to a cache, or copied from it, have the modes that its filler's umask gave them; with links,
    # who changes a file in one environment changes all.
    "UV_LINK_MODE": "copy",
}
# What it leaves in an environment, for anybody to write (mode 666). It locks the next one who would change it.
LEFT = ".lock"
_YES = ("1", "on", "t", "true", "y", "yes")


class UvError(Exception):
    """uv is there, and pip has to do it; says why."""

    def __str__(self) -> str:
        return f"{super().__str__()}; pip makes this environment instead"


def at_hand(variables: "Mapping[str, str]") -> "str | None":
    """The path of uv, or of its wheel in an archive; None where there is none.

    Raises:
        UvError
    """
    if variables.get(SWITCH) == "no":
        return None
    for wheel in WHEELS.glob("uv-*.whl"):
        return str(wheel)
    # `install` of an archive has the system's own PATH, without what its administrator has added.
    path = shutil.which("uv", path=f"{variables.get('PATH', '/usr/bin')}:/usr/local/bin")
    if path is not None:
        if os.geteuid() == 0:
            _must_be_roots(path)
        _must_be_new(path)
    return path


def program(found: str, temporary: str) -> str:
    """The program that was found; out of a wheel, which `install` has compared with its checksum, into `temporary`.

    Raises:
        UvError
    """
    if not found.endswith(".whl"):
        return found
    path = os.path.join(temporary, "uv")
    try:
        with zipfile.ZipFile(found) as file:
            (member,) = [name for name in file.namelist() if name.endswith(".data/scripts/uv")]
            Path(path).write_bytes(file.read(member))
    except (zipfile.BadZipFile, ValueError):
        raise UvError(f"{found} has no program uv in it") from None
    os.chmod(path, 0o700)
    return path


def syncing(
    uv: str, python: str, requirements: "list[str]", variables: "Mapping[str, str]", cache: "str | None" = None
) -> "tuple[list[str], dict[str, str]]":
    """Words and variables that make the environment of `python` contain what these files lock, and nothing else.

    uv then reads no configuration, and looks for packages where pip's settings say. Without a folder for its cache it
    uses none.

    Raises:
        PipError
        UvError: uv cannot do what pip's settings ask for.
    """
    of_pip = settings(variables)
    kept = {name: text for name, text in variables.items() if name in _KEPT or name.lower() in _PROXIES}
    try:
        translated = dict(_translated(of_pip, variables))
    except (ValueError, OverflowError) as error:  # a timeout may be "inf"
        raise UvError(f"uv cannot follow pip's settings: {error}") from None
    words = [uv, "pip", "sync", "--quiet", "--require-hashes", "--no-build", "--compile-bytecode", "--python", python]
    words += ["--cache-dir", cache] if cache else ["--no-cache"]
    words += from_wheels() or (["--no-index"] if of_pip.get("no-index", "").lower() in _YES else [])
    return [*words, *requirements], {**kept, **translated, **_FIXED}


def _translated(of_pip: "dict[str, str]", variables: "Mapping[str, str]") -> "Iterator[tuple[str, str]]":
    if of_pip.get("keyring-provider", "auto") not in ("auto", "disabled"):
        raise ValueError(f"keyring-provider is {of_pip['keyring-provider']}")
    for option, name, joint in (
        ("index-url", "UV_DEFAULT_INDEX", " "),
        ("extra-index-url", "UV_INDEX", " "),
        ("find-links", "UV_FIND_LINKS", ","),
        ("trusted-host", "UV_INSECURE_HOST", " "),
        ("client-cert", "SSL_CLIENT_CERT", " "),
    ):
        if option in of_pip:
            yield name, joint.join(of_pip[option].split())
    for option, name in (("timeout", "UV_HTTP_TIMEOUT"), ("retries", "UV_HTTP_RETRIES")):
        if option in of_pip:
            yield name, str(int(float(of_pip[option])))
    if "proxy" in of_pip:
        yield from ((name, of_pip["proxy"]) for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"))
    # The latter two are how pip's requests finds certificates.
    certificates = of_pip.get("cert") or variables.get("REQUESTS_CA_BUNDLE") or variables.get("CURL_CA_BUNDLE")
    if certificates:
        yield "SSL_CERT_DIR" if os.path.isdir(certificates) else "SSL_CERT_FILE", certificates


def _must_be_roots(path: str) -> None:
    """Root runs nothing that somebody else could have put there, or could exchange."""
    for part in _on_the_way(path):
        status = part.lstat()
        if status.st_uid != 0 or (status.st_mode & 0o022 and not part.is_symlink()):
            raise UvError(f"{path} is not used by root, because {part} can be changed by another user")


def _on_the_way(path: str) -> "Iterator[Path]":
    """Every directory, link and file that leads to it. Source: path_resolution(7)."""
    place, rest = Path("/"), list(Path(os.getcwd(), path).parts[:0:-1])
    yield place
    while rest:
        step = place / rest.pop()
        if step.name == "..":
            place = place.parent
            continue
        yield step
        if step.is_symlink():
            target = Path(os.readlink(str(step)))
            place = Path("/") if target.is_absolute() else place
            rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
        else:
            place = step


def _must_be_new(path: str) -> None:
    wanted = ".".join(map(str, OLDEST))
    try:
        asked = [path, "--version"]
        done = subprocess.run(
            asked, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_VERSION_S
        )
        found = re.match(r"uv (\d+)\.(\d+)", done.stdout.decode(errors="replace"))
    except (OSError, subprocess.TimeoutExpired):
        found = None
    if found is None:
        raise UvError(f"{path} does not say its version, and uv from {wanted} on is needed")
    if tuple(map(int, found.groups())) < OLDEST:
        raise UvError(f"{path} is {found[0]}, and uv from {wanted} on is needed")
