"""Make a virtual environment from locked requirements: `python3 -IB generator/environment.py DIR REQUIREMENTS...`.

Runs before anything is installed, so it needs the standard library only, and says plainly what the machine lacks.
Pythons that are too old read it too, back to 3.6: that is why some annotations are text.

An environment contains what is locked, wherever it is made and by any user: of pip's settings only those apply that say
where packages come from and how they are reached; Python's variables are ignored.
"""

import compileall
import errno
import fcntl
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # -I left it out; first, since this Python may have the `generator` of another checkout

from generator.filling import fill  # noqa: E402
from generator.pip import WHEELS, PipError  # noqa: E402
from generator.progress import Progress  # noqa: E402
from generator.reasons import reason  # noqa: E402

sys.path.remove(str(ROOT))

OLDEST_PYTHON = (3, 10)
READY = "ready"  # written last; says what it was made for, and is as old as what it was made from
NEEDED_BYTES = 300 * 1024 * 1024  # of .venv-dev, the largest
# -I: neither PYTHONPATH nor the current directory matters. -B where root works in somebody else's checkout: what root
# compiles there, its owner could neither replace nor remove. sh starts it, since a path may be longer than `#!` takes.
_LAUNCHER = """#!/bin/sh
'''exec' "{python}" -I "$0" "$@"
' '''
import os
import sys

sys.dont_write_bytecode = os.geteuid() != os.stat({root!r}).st_uid
"""
# It meets no traceback where `make` has not noticed yet that the environment fits no more. The process lives for a
# moment and builds no cycles worth a collection, which would take a tenth of its time.
_START = """import gc

gc.disable()
here, runs = os.path.dirname(os.path.dirname(os.path.realpath(__file__))), os.path.realpath(sys.prefix)
why = f"is not complete, or was copied or moved, and would run what is in {runs}" if runs != here else ""
if not why:
    try:
        from generator.__main__ import run
    except KeyboardInterrupt:
        sys.exit(130)
    except ModuleNotFoundError as error:
        why = f"was not made for this Python, {sys.version_info[0]}.{sys.version_info[1]} ({error})"
if why:
    sys.exit(f"wsbundle: {here} {why}; run `make check` in {os.path.dirname(here)}: that sets it up again")
run()
"""


class MissingError(Exception):
    """The machine lacks something that the operator can provide."""


def main(arguments: "list[str]") -> int:
    directory, *requirements = map(Path, arguments)
    try:
        make_environment(directory, requirements)
    except (MissingError, PipError) as error:
        print(f"wsbundle: {error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        words = " ".join(map(str, error.cmd[1:5]))
        print(f"wsbundle: setting up {directory} failed at `{words}`: {_why(directory, error)}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"wsbundle: {error.filename or directory}: {error.strerror}{_way_out(directory, error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def make_environment(directory: Path, requirements: "list[Path]") -> None:
    """Make or renew the environment; the project itself can be imported in it, and started as `wsbundle`.

    Raises:
        MissingError: Python is too old, or comes without venv; or that directory is a link or a file, or no program
            can run from it.
        CalledProcessError: pip failed; its own words are on the terminal.
    """
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        wanted = ".".join(map(str, OLDEST_PYTHON))
        raise MissingError(f"Python {found} is too old; name one from {wanted} on: make PYTHON=python{wanted} ...")
    if _stale(directory, requirements) is None:
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise MissingError(
            "this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install -y "
            "python{}.{}-venv".format(*sys.version_info)
        ) from None
    _refuse_other_targets()
    if directory.is_symlink():  # what it leads to may belong to another checkout, and would be emptied first
        raise MissingError(
            f"{directory} is a link, and an environment stands where it is used; remove the link, or name the place "
            f"itself: make VENV={os.path.realpath(str(directory))} ... Nothing was changed."
        )
    if directory.exists() and not directory.is_dir():
        raise MissingError(
            f"{directory} is not a directory; move it away, or name another place: make VENV=... Nothing was changed."
        )
    parent = directory.resolve().parent
    if os.statvfs(str(parent)).f_flag & os.ST_NOEXEC:
        raise MissingError(
            f"no program can run from {parent}, whose file system is mounted noexec; move this directory to another "
            f"one, such as /usr/local/src, or put its environment there: make VENV=/usr/local/lib/wsbundle-venv ..."
        )
    _become_the_owner(parent, directory)
    os.umask(0o022)  # every user who may enter the checkout may use it
    with open(f"{directory}.lock", "w") as lock:
        # Two makes at once take turns, and the second finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        why = _stale(directory, requirements)
        if why is not None:
            _set_up(directory, requirements, why)


def _become_the_owner(parent: Path, directory: Path) -> None:
    """Root, as in `sudo make install`, leaves no files of its own in a checkout that belongs to another user.

    That checkout says what root runs, here as in the Makefile: its owner must be trusted like root.
    """
    owner = os.stat(str(parent))
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    _give_away(owner, directory)
    try:
        name, _, _, group, _, home, _ = pwd.getpwuid(owner.st_uid)
        os.initgroups(name, group)
    except KeyError:  # a file system from elsewhere, such as NFS
        group, home = owner.st_gid, "/nonexistent"
        os.setgroups([])
    os.setgid(group)
    os.setuid(owner.st_uid)
    os.environ["HOME"] = home


def _give_away(owner: "os.stat_result", directory: Path) -> None:
    """Files of root, from earlier versions or `make VENV=`, that its owner could not replace."""
    compiled = [path for part in ("clients", "generator", "service") for path in (ROOT / part).rglob("__pycache__")]
    for top in filter(Path.is_dir, (directory, *ROOT.glob("*.egg-info"), *compiled)):
        for _, directories, files, descriptor in os.fwalk(str(top)):
            for name in (*directories, *files):
                _give(owner, name, descriptor)
            os.chown(descriptor, owner.st_uid, owner.st_gid)
    if os.path.lexists(f"{directory}.lock"):
        _give(owner, f"{directory}.lock", None)


def _give(owner: "os.stat_result", name: str, descriptor: "int | None") -> None:
    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
    if status.st_uid == 0 and status.st_nlink == 1:  # another name of it may be anywhere
        os.chown(name, owner.st_uid, owner.st_gid, dir_fd=descriptor, follow_symlinks=False)


def _stale(directory: Path, requirements: "list[Path]") -> "str | None":
    """Why the environment must be made; None where it is ready."""
    try:
        made_for = (directory / READY).read_text(encoding="utf-8").splitlines()
        age = (directory / READY).stat().st_mtime
    except OSError:
        return "once"
    version, *place = _fits(directory)
    if made_for[:1] != [version]:
        return f"again: it was made for {made_for[0] if made_for else 'an earlier release'}, and this is {version}"
    if made_for[1:] != place:
        return f"again: it was made for {made_for[-1]}, and this is another place"
    if not (directory / "bin/python").exists():
        return "again: the Python that it was made with is gone"
    made_from = [*requirements, Path("pyproject.toml"), Path(__file__)]
    return "again: the requirements have changed" if any(age < file.stat().st_mtime for file in made_from) else None


def _fits(directory: Path) -> "list[str]":
    """The content of READY: packages are for one Python, and an environment names its own place and the checkout's."""
    return ["Python {}.{}".format(*sys.version_info), os.path.realpath(str(directory)), str(ROOT)]


def _set_up(directory: Path, requirements: "list[Path]", why: str) -> None:
    print(f"Setting up {directory} ({why})", file=sys.stderr)
    (directory / READY).unlink(missing_ok=True)
    fill(directory, requirements)
    _make_importable(directory)
    (directory / READY).write_text("".join(f"{line}\n" for line in _fits(directory)), encoding="utf-8")


def _make_importable(directory: Path) -> None:
    """Let the checkout be found by the environment's Python, and be started as `bin/wsbundle`."""
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "wsbundle.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    launcher = directory / "bin/wsbundle"
    # For sh within double quotes, and for Python within three single ones.
    python = re.sub(r'[$`"\\]', lambda found: f"\"'{found[0]}'\"", os.path.abspath(str(directory / "bin/python")))
    launcher.write_text(_LAUNCHER.format(python=python, root=str(ROOT)) + _START, encoding="utf-8")
    launcher.chmod(0o755)
    mine = ROOT.stat().st_uid == os.geteuid()
    progress = Progress(sys.stderr.fileno(), "compile wsbundle")
    progress.start()
    try:
        for part in ("generator", "service") if mine else ():  # root, who keeps nothing here, would do it in every run
            compileall.compile_dir(str(ROOT / part), quiet=2)
    finally:
        progress.stop()


def _refuse_other_targets() -> None:
    if not WHEELS.is_dir():
        return
    targets = (WHEELS / "targets").read_text(encoding="utf-8").splitlines()
    python, machine = ".".join(map(str, sys.version_info[:2])), os.uname().machine
    if f"{python} {machine}" not in targets:
        raise MissingError(
            f"this archive has wheels for Python {', '.join(targets)}, and this host has {python} {machine}; make one "
            f'for it: make bundle ARGS="--python {python} --machine {machine}". Nothing was changed.'
        )


def _why(directory: Path, error: "subprocess.CalledProcessError") -> str:
    """Why a program failed, and the fix."""
    known, short = reason(error.stderr), _shortage(directory)
    if short and (known is None or "make room" in known):
        return short
    if error.returncode < 0:
        return f"signal {-error.returncode} ended it, as the kernel does where memory is short; make room and try again"
    return known or "the lines above say why"


def _shortage(directory: Path) -> str:
    status = os.statvfs(str(directory.resolve().parent))
    free = status.f_bavail * status.f_frsize
    if free >= NEEDED_BYTES:
        return ""
    return f"its file system has {free // 1024**2} MiB free, and up to {NEEDED_BYTES // 1024**2} MiB are needed"


def _way_out(directory: Path, error: OSError) -> str:
    """The fix, where it is known."""
    parent = directory.resolve().parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"; {_shortage(directory) or 'make room, and look at `df -h`, `df -i` and quotas'}"
    if error.errno == errno.EROFS:
        return "; copy this checkout to a file system that can be written, such as your home's"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"; {parent} belongs to {_name(parent.stat().st_uid)}: work as that user, or in a copy of your own"
    return ""


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
