"""Finds your application: its directory, its module, its callable; and says in one line what is wrong with it.

Source: ASGI specification 3.0, "Applications"; PEP 3333.
"""

import contextlib
import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import service
from service.declaration import did_you_mean
from service.workers.release import APP_VARIABLE

_OURS = Path(service.__file__).resolve().parent
_MAX_FAULT = 1000
_FRAME = re.compile(r'^\s*File "(?P<file>.+?)", line (?P<line>\d+)')
_OF_GROUPS = re.compile(r"^ +[|+] ?")
_INSTALLED = {"site-packages", "dist-packages"}


class ApplicationError(Exception):
    """The application cannot be run; the message is one line: where, what, and the fix."""


def enter_directory(environ: Mapping[str, str]) -> Path:
    """Make the application's directory the working directory and the first one to import from, instead of ours.

    What is in its `src` is imported as well, as where a package is in there and its requirements are beside it.

    Raises:
        ApplicationError
    """
    directory = Path(environ.get(APP_VARIABLE, "")).resolve()
    try:
        os.chdir(directory)
    except OSError as error:
        raise ApplicationError(
            f"{APP_VARIABLE}: {directory}: {error.strerror}; name the directory with the application's code"
        ) from None
    if sys.path and Path(sys.path[0]).resolve() == _OURS.parent:
        del sys.path[0]
    source = directory / "src"
    sys.path[:0] = [str(directory), *([str(source)] if source.is_dir() else [])]
    for place in (directory, source):
        _refuse_our_name(place)
    return directory


def _refuse_our_name(directory: Path) -> None:
    spec = PathFinder.find_spec(_OURS.name, [str(directory)])
    if spec is None:
        return
    found = {Path(place).resolve() for place in (spec.origin, *(spec.submodule_search_locations or ())) if place}
    # A folder without any code can be imported as well, and nobody does.
    if _OURS not in found and any(path.is_file() or next(path.rglob("*.py"), None) for path in found):
        raise ApplicationError(
            f"{directory} has a top-level {_OURS.name}, which is also the name of the package that runs it; "
            "rename it, or move it into a package"
        )


# The path that all of its URLs are below, if any.
ROOT_PATH_VARIABLE = "WEBSOCKET_ROOT_PATH"


def below(root_path: str, application: Any) -> Any:
    """The same, told that every path it is asked for begins with this one.

    Source: ASGI specification 3.0, "HTTP connection scope": `path` contains `root_path`. uvicorn's own `root_path` puts
    it before a path that a proxy has shortened; ours is as the client wrote it, percent signs included.
    """

    async def told(scope: Any, receive: Any, send: Any) -> None:
        is_asked = scope["type"] != "lifespan"
        await application({**scope, "root_path": root_path} if is_asked else scope, receive, send)

    return told if root_path else application


def load(name: str, directory: Path) -> Any:
    """The ASGI 3 application that `module:attribute` names.

    Raises:
        ApplicationError
    """
    module_name, _, attribute = name.partition(":")
    _refuse_name_of_python(name, directory)
    try:
        found: Any = importlib.import_module(module_name)
    except BaseException as error:  # also of sys.exit() and what is no Exception
        raise ApplicationError(f"{name} cannot be imported: {_fault(error, module_name, directory)}") from None
    where = _within(getattr(found, "__file__", None) or module_name, directory)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ApplicationError(f"{name}: {where} has no {part}{did_you_mean(part, dir(found))}") from None
    if fault := _what_it_is_instead(found, attribute, where):
        raise ApplicationError(f"{name} is not an ASGI application: {fault}")
    return _of_three(found)


def _refuse_name_of_python(name: str, directory: Path) -> None:
    """What has been imported long before the application cannot be one of its modules, whatever lies there."""
    top = re.split("[.:]", name, maxsplit=1)[0]
    is_taken = top in sys.modules and top in sys.stdlib_module_names
    if is_taken and (spec := PathFinder.find_spec(top, [str(directory)])) is not None:
        file = getattr(sys.modules[top], "__file__", None)
        if file != spec.origin:
            raise ApplicationError(
                f"{name}: {top} is a module of Python itself; give yours in {directory} another name"
            )


def _of_three(application: Any) -> Any:
    """The same, but never one that could be called with nothing: uvicorn tries that, and takes the outcome instead."""

    async def of_three(scope: Any, receive: Any, send: Any) -> None:
        await application(scope, receive, send)

    try:
        may_be_called_with_nothing = _takes(inspect.signature(application), 0)
    except (TypeError, ValueError):
        may_be_called_with_nothing = True
    return of_three if may_be_called_with_nothing else application


def _fault(error: BaseException, module_name: str, directory: Path) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
        return f"there is no module {error.name} in {directory}; write module:attribute as seen from there"
    return in_one_line("".join(traceback.format_exception(error)), directory)


def in_one_line(trace: str, directory: Path) -> str:
    """`shop/asgi.py:12: ModuleNotFoundError: No module named 'redis'` of a whole traceback.

    The place is the last one in the application's own code, if there is any.
    """
    lines = [_OF_GROUPS.sub("", line) for line in trace.splitlines()]
    lines = [line for line in lines if not line.startswith("---") and not line.startswith("-+-")]
    frames = [(number, match) for number, line in enumerate(lines) if (match := _FRAME.match(line))]
    last = frames[-1][0] + 1 if frames else 0
    first = next((number for number in range(last, len(lines)) if lines[number][:1].strip()), last)
    what = " ".join(" ".join(lines[first:]).split())
    what = "".join(char if char.isprintable() else "?" for char in what)
    for _, frame in reversed(frames):
        place = _within(frame["file"], directory)
        if not Path(place).is_absolute() and not _INSTALLED & set(Path(place).parts) and not place.startswith("<"):
            return f"{place}:{frame['line']}: {what}"[:_MAX_FAULT]
    return what[:_MAX_FAULT]


def _within(file: str, directory: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(Path(file).relative_to(directory))
    return file


def _what_it_is_instead(found: Any, attribute: str, where: str) -> str:
    """What is wrong with an object in the place of an application, and the fix; nothing if it may be one.

    Only what a signature says for sure counts: it has no say where a wrapper takes any arguments.
    """
    if not callable(found):
        kind = "a module" if inspect.ismodule(found) else f"of type {type(found).__name__}"
        return f"it is {kind}; name what takes (scope, receive, send), as those of Starlette, FastAPI and Django do"
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return ""
    names = list(signature.parameters)
    into = f"into {where}, and name that"
    if names == ["scope"]:
        make = (
            f"from asgiref.compatibility import guarantee_single_callable as single; application = single({attribute})"
        )
        return f"it is one of ASGI 2, which takes (scope) alone; write `{make}` {into}"
    if inspect.isclass(found) and not hasattr(found, "__await__"):
        return f"it is a class; write `application = {attribute}()` {into}"
    if _takes(signature, 3):
        return ""
    if _takes(signature, 2):
        if type(found).__module__.startswith("django."):
            fix = "name the one in asgi.py, which get_asgi_application() makes"
        else:
            make = f"from a2wsgi import WSGIMiddleware; application = WSGIMiddleware({attribute})"
            fix = f"write `{make}` {into}"
        return f"it is one of WSGI, which takes ({', '.join(names)}); {fix}"
    if _takes(signature, 0):
        return f"it is a function that makes one, or so it looks; write `application = {attribute}()` {into}"
    return f"it takes {signature}; name what takes (scope, receive, send)"


def _takes(signature: inspect.Signature, number: int) -> bool:
    try:
        signature.bind(*range(number))
    except TypeError:
        return False
    return True
