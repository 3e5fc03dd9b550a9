"""pip's settings, read without pip: where packages come from, and how an index is reached.

The standard library only, and readable by Pythons back to 3.6, as `generator/environment.py`.
"""

import configparser
import os
import pwd
from collections.abc import Iterator, Mapping
from pathlib import Path

WHEELS = Path(__file__).resolve().parent.parent / "wheels"  # an archive of `wsbundle bundle` has them
_REACH = """cache-dir cert client-cert default-timeout extra-index-url find-links index-url keyring-provider
    no-cache-dir no-index proxy retries timeout trusted-host use-deprecated use-feature""".split()


class PipError(Exception):
    """pip's configuration cannot be read."""


def settings(variables: "Mapping[str, str]") -> "dict[str, str]":
    """Of pip's settings those that say where packages come from, by the names of its options; no value is empty.

    `user = true` or `target` would install elsewhere, `no-binary` something else, `constraint` nothing: they are not
    among them. Source: https://pip.pypa.io/en/stable/topics/configuration/, "Precedence".

    Raises:
        PipError
    """
    found = [line for file in _files(variables) for line in _read(file)]
    found += [(":env:", _normal(name[4:]), value) for name, value in variables.items() if name.startswith("PIP_")]
    kept = {}
    for section in ("global", "install", ":env:"):  # the last one counts
        lines = {name: value for of, name, value in found if of == section and name in _REACH}
        kept.update({name: value for name, value in lines.items() if value})
    if "default-timeout" in kept:  # another name of the same option
        kept["timeout"] = kept.pop("default-timeout")
    return kept


def of_pip(variables: "Mapping[str, str]") -> "dict[str, str]":
    """Variables with which pip reads no configuration, and still finds its index, the proxy and the certificates.

    Raises:
        PipError
    """
    kept = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in settings(variables).items()}
    others = {name: value for name, value in variables.items() if not name.startswith("PIP_")}
    fixed = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return {**others, **kept, **fixed}


def from_wheels() -> "list[str]":
    """Options of pip and of uv where the wheels are at hand: take them from there, and use no network."""
    return ["--no-index", "--find-links", str(WHEELS)] if WHEELS.is_dir() else []


def _files(variables: "Mapping[str, str]") -> "Iterator[str]":
    """Those that pip reads; the last one counts."""
    given = variables.get("PIP_CONFIG_FILE", "")
    if given == os.devnull:
        return
    for directory in (variables.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        yield f"{directory}/pip/pip.conf"
    yield "/etc/pip.conf"
    if not os.path.exists(given):
        home = variables.get("HOME") or pwd.getpwuid(os.geteuid()).pw_dir
        yield f"{home}/.pip/pip.conf"
        yield f"{variables.get('XDG_CONFIG_HOME') or f'{home}/.config'}/pip/pip.conf"
    else:
        yield given


def _read(file: str) -> "Iterator[tuple[str, str, str]]":
    """Section, name and value of each line of a file, which need not be there."""
    parser = configparser.RawConfigParser()
    try:
        with open(file, encoding="utf-8") as text:
            parser.read_file(text)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # pip passes it over, too
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        raise PipError(f"pip's configuration {file} cannot be read: {' '.join(str(error).split())}; fix it") from None
    for section in parser.sections():
        for name, value in parser.items(section):
            yield section, _normal(name), value


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").lstrip("-")
