"""An application of one's own, as it is beside deploy.yaml: its files, and what it needs of Python."""

import codecs
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

import msgspec

from generator.config.document import Located
from generator.config.load import ConfigError, Loaded
from generator.config.project import Project
from generator.config.schema import serves_app
from service.declaration import Fault

# What no application is made of, where no git says so.
_LEFT_OUT = ("__pycache__", "node_modules", "venv", ".venv", ".git", ".hg", ".env", ".mypy_cache", ".pytest_cache")
_UV_LOCK = "uv.lock"
_EXPORT = ("export", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--format", "requirements-txt", "-q")
_PATIENCE_S = 60
# How a file begins that stands for one that Git LFS has not fetched; it is short. Source: the specification of Git LFS.
_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_POINTER_BYTES = 1024
# What other programs read, and pip does not.
LOCKED_BY = {
    "poetry.lock": "write requirements.txt, `poetry export -o requirements.txt`",
    "pdm.lock": "write requirements.txt, `pdm export -o requirements.txt`",
    "Pipfile.lock": "write requirements.txt, `pipenv requirements >requirements.txt`",
    "pyproject.toml": "write uv.lock, `uv lock`",
}
_OF_OTHERS = {**LOCKED_BY, "Pipfile": LOCKED_BY["Pipfile.lock"]}
# A name, perhaps with extras, and what may follow it; a variable of the environment may stand anywhere.
# Source: PEP 508, "Grammar"; pip's reference, "Requirements File Format".
_IS_PACKAGE = re.compile(
    r"[A-Za-z0-9](?:[\w.-]*\w)?\s*(?:\[[^]]*\]\s*)?(?:$|[(;]|@.*(?:://|\$)|[<>!~=]=|[<>]|--)", re.ASCII
)
_IS_PLACE = re.compile(r"[-.]|\S*[/$]|\S+\.whl\b")
# What is required, up to its marker, says which release it means: by its version or its URL.
_PINNED = re.compile(r"===?|\s@\s|://|\.whl\b")
_OF_OTHER_FILES = re.compile(
    r"""(?:(?:-r|-c)[\s=]*|(?:--requirement|--constraint)[\s=]+)("[^"]+"|'[^']+'|[^\s"']+)(?:\s|$)"""
)
_OF_URLS = re.compile(r"\S+://\S+")
_OF_SOURCES = re.compile(r"--no-binary\b|--only-binary[ =]+:none:")
# And no option such as --index-url.
_MEANS_PACKAGES = re.compile(r"-e\b|--editable\b|(?!-)")
# Of the application itself: pip is started in app.path, and looks for them there, whatever file names them.
OF_WHEELS = re.compile(r"(?:file:(?!/))?([^-/\s:$][^:$]*?\.whl)(?![\w.])")
_OF_DIRECTORIES = re.compile(r"(?:-e|--editable)\b|(?!.+\.whl\b)(?:\.{1,2}(?:/|$)|file:)")


def with_project(loaded: Loaded) -> tuple[Loaded, list[Located]]:
    """A deployment with its application's files, if it has one; and what may go wrong with them.

    Raises:
        ConfigError: with all that is wrong with them.
    """
    if not serves_app(loaded.deploy):
        return loaded, []
    looked = _Look(loaded)
    if looked.faults:
        raise ConfigError(looked.faults)
    return msgspec.structs.replace(loaded, project=looked.project), looked.warnings


def project_of(loaded: Loaded) -> Project | None:
    """The same, where nothing may stop at them; none where they cannot be used."""
    try:
        return with_project(loaded)[0].project
    except ConfigError:
        return None


class _Look:
    """One look at an application's directory."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.app = loaded.deploy.app
        self.faults: list[Located] = []
        self.warnings: list[Located] = []
        # Both without links and `..`, or deploy.yaml would not be known again among the files.
        self.place = Path(os.path.realpath(loaded.directory))
        self.directory = Path(os.path.realpath(self.place / self.app.path))
        self.project: Project | None = None
        self.above: list[str] = []
        self.unhashed: dict[str, str] = {}
        if not self.directory.is_dir():
            self._fault("app.path", f"there is no directory {self.directory}", "name the one with the code")
            return
        files = tuple(sorted(str(path.relative_to(self.directory)) for path in self._installed(self.directory)))
        if self.faults:
            return
        self._check_code(files)
        self._check_links(files)
        if pointers := [name for name in files if _is_pointer(self.directory / name)]:
            what = f"{', '.join(pointers[:5])}: Git LFS has not fetched what belongs there"
            self._warn("app.path", what, "fetch it: `git lfs pull`")
        for url, path in self.app.static.items():
            if not self.app.build and not any(name.startswith(f"{path.rstrip('/')}/") for name in files):
                fix = "name a directory with files that are not ignored"
                self._fault(f"app.static.{url}", f"'{path}' has no files in {self.directory}", fix)
        requirements = self._requirements(files)
        self.project = Project(
            str(self.directory),
            files,
            requirements,
            None if self._is_of_uv() else self.app.requirements,
            tuple(sorted(set(self.above))),
            os.path.relpath(self.directory, self.place) if self.above else "",
        )

    def _fault(self, key: str, what: str, fix: str) -> None:
        self.faults.append(self._located(key, what, fix))

    def _warn(self, key: str, what: str, fix: str) -> None:
        self.warnings.append(self._located(key, what, fix))

    def _located(self, key: str, what: str, fix: str) -> Located:
        origins = self.loaded.origins
        return Located(origins.get(key, origins["app.callable"]), key, Fault(what, fix))

    def _installed(self, directory: Path) -> Iterator[Path]:
        """All files but those that .gitignore names, what was made of deploy.yaml, and itself: it may say secrets."""
        for name in self._listed(directory):
            path = directory / name
            if self._is_ours(path) or not os.path.lexists(path):  # removed, and git still knows it
                continue
            if path.is_dir() and not path.is_symlink():  # a repository inside of this one
                if not any(path.iterdir()):
                    what = f"{path.relative_to(self.directory)} is a submodule of git with nothing in it"
                    self._warn("app.path", what, "fetch it: `git submodule update --init --recursive`")
                yield from self._installed(path)
            else:
                yield path

    def _listed(self, directory: Path) -> Iterator[str]:
        is_top = directory == self.directory
        if not any((place / ".git").exists() for place in (directory, *(directory.parents if is_top else ()))):
            return _all_files(directory)
        try:
            said = self._said_by_git(directory)
        except (OSError, subprocess.SubprocessError) as error:
            why = (getattr(error, "stderr", None) or str(error).encode()).decode(errors="replace")
            what = f"git does not say which files of {directory} are ignored: {' '.join(why.split())}"
            self._fault("app.path", what, "install git, or take .git away: all files are installed then")
            return iter(())
        if is_top and not said:  # all of the directory is ignored, by a repository around it
            return _all_files(directory)
        return (os.fsdecode(name) for name in said.split(b"\0") if name)

    def _said_by_git(self, directory: Path) -> bytes:
        """Raises OSError or SubprocessError: without git, what it would have left out might be installed."""
        # It may be root who asks, in a repository of somebody else's: nothing that its configuration names is run. What
        # a user ignores everywhere would give each user another application.
        settings = ("core.fsmonitor=false", f"core.excludesFile={os.devnull}")
        git = ("git", *(word for setting in settings for word in ("-c", setting)), "-C", str(directory))
        command = (*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        with NamedTemporaryFile("w", suffix=".gitconfig") as trust:
            # git before 2.38, as of Ubuntu 22.04, reads it in files alone.
            trust.write("[safe]\n\tdirectory = *\n")
            trust.flush()
            environ = {**os.environ, "GIT_CONFIG_GLOBAL": trust.name, "LC_ALL": "C"}
            return subprocess.run(command, capture_output=True, check=True, timeout=_PATIENCE_S, env=environ).stdout

    def _is_ours(self, path: Path) -> bool:
        source = Path(self.place, self.loaded.file)
        overlays = f"{source.stem}.*{source.suffix}"
        name = self.loaded.deploy.name
        made = Path(self.place, "build")
        is_made = Path(made, name) in path.parents or (path.parent == made and path.match(f"{name}-*.tar.gz"))
        return is_made or (path.parent == source.parent and (path == source or path.match(overlays)))

    def _check_code(self, files: tuple[str, ...]) -> None:
        module = str(self.app.callable).partition(":")[0].replace(".", "/")
        places = [f"{place}{module}{end}" for place in ("", "src/") for end in (".py", "/__init__.py")]
        if not any(place in files for place in places):
            what = f"there is no {module}.py in {self.directory}"
            self._fault("app.callable", what, "name a module in app.path, as package.module:attribute")
        tops = [name.removeprefix("src/") for name in files if name.endswith(".py")]
        if any(name == "service.py" or name.startswith("service/") for name in tops):
            what = "has a package `service` at its top, which is the name of what runs it"
            self._fault("app.path", what, "give it another name")

    def _check_links(self, files: tuple[str, ...]) -> None:
        for name in files:
            path = self.directory / name
            if not name.isprintable():
                self._fault("app.path", f"has a file named {name!r}", "give it another name")
            elif path.is_symlink() and not os.path.exists(path):
                fix = "remove it, or let .gitignore name it"
                self._fault("app.path", f"{name} is a link to {os.readlink(path)!r}, which is not there", fix)
            elif path.is_symlink() and self._leads_out(name):
                fix = "put the file itself there, or write the link as seen from its own directory"
                self._fault("app.path", f"{name} leads out of it, to {os.readlink(path)}", fix)
            elif path.is_symlink() and not self._is_installed(os.path.realpath(path), files):
                fix = "let .gitignore name the link as well, or not what it leads to"
                self._fault("app.path", f"{name} is a link to {os.readlink(path)}, which is not installed", fix)
            elif not (path.is_symlink() or path.is_file()):
                self._fault("app.path", f"{name} is not a file", "remove it, or let .gitignore name it")
            elif not os.access(path, os.R_OK):
                self._fault("app.path", f"{name} cannot be read", "make it readable, or let .gitignore name it")

    def _leads_out(self, name: str) -> bool:
        """Whether a link leads to what is not installed with it; what it says counts as well as where that is."""
        path = self.directory / name
        said = os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(path)))
        is_inside = Path(os.path.realpath(path)).is_relative_to(self.directory)
        return not is_inside or os.path.isabs(said) or said.partition("/")[0] == ".."

    def _is_installed(self, target: str, files: tuple[str, ...]) -> bool:
        """Whether a file, or anything of a directory, is among those that are installed."""
        name = os.path.relpath(target, self.directory)
        return name == "." or any(each == name or each.startswith(f"{name}/") for each in files)

    def _requirements(self, files: tuple[str, ...]) -> str:
        name = self.app.requirements
        if name is None:
            return ""
        if not self._is_there(name, files):
            fix = "name the file, or write `requirements: null` where nothing is needed"
            self._fault("app.requirements", f"there is no {name} in {self.directory}", fix)
            return ""
        if not self._is_of_uv():
            text = self._read(name, files, ())
            # pip then takes nothing without one
            if self.unhashed and any("--hash" in line for _, line in _logical_lines(text)):
                for where, fix in self.unhashed.items():
                    what = f"{where}: a wheel without its hash, and others have theirs"
                    self._fault("app.requirements", what, f"write `{fix}`")
            return text
        if name in files:
            return self._exported(name, files)
        fix = f"write `uv {' '.join(_EXPORT[:4])} -o requirements.txt` in app.path, and name that file"
        self._fault("app.requirements", f"'{name}' is above app.path, and may be of several projects", fix)
        return ""

    def _is_there(self, name: str, files: tuple[str, ...]) -> bool:
        """Whether a file of requirements is one of the application, or above it and can go with it."""
        path = self.directory / name
        if name in files:
            return True
        if not name.startswith("../") or not path.is_file():
            return False
        if not os.access(path, os.R_OK):
            self._fault("app.requirements", f"'{name}' cannot be read", "make it readable")
        if all(Path(os.path.realpath(each)).is_relative_to(self.place) for each in (path, self.directory)):
            self.above.append(name)
        else:
            fix = "put deploy.yaml into a directory that app.path and this file are below, or the file into app.path"
            self._fault("app.requirements", f"'{name}' is outside of {self.place}, where deploy.yaml is", fix)
        return True

    def _is_found(self, name: str, files: tuple[str, ...], where: str, written: str) -> bool:
        """The same, for one that is named in another: it is a fault where it is not."""
        if self._is_there(name, files):
            return True
        fix = "put it into app.path, and do not let .gitignore name it"
        self._fault("app.requirements", f"{where}: there is no {written}", fix)
        return False

    def _told_apart(self, line: str, wheel: str, files: tuple[str, ...], where: str) -> str:
        """A comment by which requirements are others once the content of a wheel is."""
        from hashlib import sha256

        name = os.path.normpath(wheel)
        if not self._is_found(name, files, where, wheel):
            return ""
        digest = sha256(self._content(name)).hexdigest()
        if "--hash" not in line:
            self.unhashed[where] = f"{wheel} --hash=sha256:{digest}"
        return f"# {name} {digest}\n"

    def _content(self, name: str) -> bytes:
        """Of a file of requirements, or of a wheel; nothing of one that cannot be read, which is a fault already."""
        path = self.directory / name
        return path.read_bytes() if path.is_file() and os.access(path, os.R_OK) else b""

    def _is_of_uv(self) -> bool:
        return str(self.app.requirements).rpartition("/")[2] == _UV_LOCK

    def _exported(self, name: str, files: tuple[str, ...]) -> str:
        """What uv makes of its lock, for pip."""
        to_do = f"write `uv {' '.join(_EXPORT[:4])} -o requirements.txt`, and name that file"
        if (uv := shutil.which("uv")) is None:
            self._fault("app.requirements", f"'{name}' is read by uv, which is not on PATH here", to_do)
            return ""
        directory = (self.directory / name).parent
        command = (uv, *_EXPORT, "--no-config", "--directory", str(directory))
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
        except (OSError, subprocess.SubprocessError) as error:
            self._fault("app.requirements", f"uv cannot export '{name}': {error}", to_do)
            return ""
        if done.returncode:
            said = " ".join(done.stderr.split())
            self._fault("app.requirements", f"uv cannot export '{name}': {said}", "run `uv lock`")
        self._check_lines(name, done.stdout)
        for wheel in filter(None, map(OF_WHEELS.match, done.stdout.splitlines())):
            self._is_found(os.path.normpath(wheel[1]), files, name, wheel[1])
        return done.stdout

    def _check_lines(self, name: str, text: str) -> None:
        """Refuse what would not be installed as a wheel."""
        for number, line in _logical_lines(text):
            where = name if self._is_of_uv() else f"{name}:{number}"  # uv's lock has other lines than what it exports
            if _is_built(line):
                what = f"{where}: '{line}' means a build on the host, and only wheels are installed"
                self._fault("app.requirements", what, "name a release, or the URL of a .whl that you have built")
            elif _OF_DIRECTORIES.match(line):
                what = f"{where}: '{line}' is a directory, and only packages are installed"
                self._fault("app.requirements", what, "leave it out; code of your own is imported from app.path")

    def _read(self, name: str, files: tuple[str, ...], within: tuple[str, ...]) -> str:
        """A file of requirements with those that it names, and what is wrong in them. Source: pip's reference."""
        if fix := _OF_OTHERS.get(os.path.basename(name)):
            self._fault("app.requirements", f"'{name}' is no file of requirements for pip", f"{fix}, and name that")
            return ""
        # Each line with its end, as those of other files follow.
        text = "".join(f"{line}\n" for line in _decoded(self._content(name)).splitlines())
        self._check_lines(name, text)
        open_ones = []
        for number, line in _logical_lines(text):
            if line.endswith("\\"):
                what = f"{name}:{number}: pip cannot read '{line}'"
                self._fault("app.requirements", what, "let nothing follow the backslash, or take it away")
            elif other := _OF_OTHER_FILES.match(line):
                named = other[1].strip("'\"")
                path = os.path.relpath(self.directory / os.path.dirname(name) / named, self.directory)
                if path not in (*within, name) and self._is_found(path, files, f"{name}:{number}", named):
                    text += self._read(path, files, (*within, name))
            elif wheel := OF_WHEELS.match(line):
                text += self._told_apart(line, wheel[1], files, f"{name}:{number}")
            elif not (_IS_PACKAGE.match(line) or _IS_PLACE.match(line)):
                what = f"{name}:{number}: pip cannot read '{line}'"
                self._fault("app.requirements", what, "write a package as in `fastapi==0.118.0`")
            elif not line.startswith("-") and not _PINNED.search(line.partition(";")[0]) and "--hash" not in line:
                open_ones.append(line.split()[0])
        if open_ones:
            what = f"{name} does not say which release of {', '.join(open_ones[:5])} it means"
            fix = "pin each, as `uv pip compile` or `pip freeze` do: else two hosts have different ones"
            self._warn("app.requirements", what, fix)
        return text


def _is_pointer(path: Path) -> bool:
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_POINTER_BYTES:
        return False
    with suppress(PermissionError), path.open("rb") as file:  # which is a fault already
        return file.read(len(_POINTER)) == _POINTER
    return False


def _is_built(line: str) -> bool:
    """Whether pip would build it, whatever it is told: code of the package's own would run as root."""
    url = _OF_URLS.search(line)
    is_wheel = url is not None and re.split("[?#]", url[0])[0].endswith(".whl")
    return bool(_OF_SOURCES.match(line)) or (
        url is not None and not is_wheel and _MEANS_PACKAGES.match(line) is not None
    )


def _decoded(content: bytes) -> str:
    """As pip reads it: PowerShell writes UTF-16, and other editors a mark at the beginning."""
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if is_wide else "utf-8-sig", errors="replace")


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments and line breaks that a backslash takes away, with the number of the first.

    Source: `preprocess` of `pip._internal.req.req_file`.
    """
    held: list[str] = []
    began, lines = 0, text.splitlines()
    for number, line in enumerate(lines, start=1):
        began = began if held else number
        is_comment = re.match(r"\s*#", line) is not None
        goes_on = line.endswith("\\") and not is_comment
        held.append(line.strip("\\") if goes_on else f" {line}" if is_comment else line)
        if not goes_on or number == len(lines):
            whole = re.sub(r"(^|\s+)#.*$", "", "".join(held)).strip()
            if whole:
                yield began, whole
            held.clear()


def _is_venv(directory: Path) -> bool:
    """Whether it is a virtual environment, whatever its name. Source: PEP 405."""
    return (directory / "pyvenv.cfg").is_file()


def _all_files(directory: Path) -> Iterator[str]:
    for folder, folders, names in os.walk(directory):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not _is_venv(Path(folder, name))]
        for name in (*names, *links):
            if name not in _LEFT_OUT and not name.endswith(".pyc"):
                yield os.path.relpath(os.path.join(folder, name), directory)
