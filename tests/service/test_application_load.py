"""How an application is found, and what is said of one that cannot be run."""

import subprocess
import sys
from pathlib import Path

import pytest
import uvicorn

from service.application import start
from service.application.load import ApplicationError, below, enter_directory, in_one_line, load
from tests.service.applications import project, settings
from tests.service.shells import DEADLINE_S, ROOT, clean_environment
from tests.service.transports import in_a_loop

MANY = """
import functools

async def application(scope, receive, send): ...
def returning(scope, receive, send): return application(scope, receive, send)
async def wrapped(*args): ...

class App:
    async def __call__(self, scope, receive, send): ...
class AppOfClass:
    def __init__(self, scope, receive, send): ...
    def __await__(self): yield
class Wsgi:
    def __call__(self, environ, start_response): ...
class Django(Wsgi):
    __module__ = "django.core.handlers.wsgi"
class Asgi2:
    def __init__(self, scope): ...
    async def __call__(self, receive, send): ...

made, wsgi, django, number = App(), Wsgi(), Django(), 7
partly = functools.partial(application, {})
def create_app(): return made
def asgi2(scope): ...
def wsgi_function(environ, start_response): ...
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def fault(name: str, home: Path) -> str:
    with pytest.raises(ApplicationError) as told:
        load(name, home)
    assert "\n" not in str(told.value)
    return str(told.value)


@in_a_loop
async def test_below_a_path_it_is_told_so_for_all_that_is_asked_and_not_for_its_lifespan() -> None:
    asked = []

    async def application(scope: object, receive: object, send: object) -> None:
        asked.append((scope, receive, send))

    for scope in ({"type": "http", "path": "/shop/a", "raw_path": b"/shop/a"}, {"type": "lifespan"}):
        await below("/shop", application)(scope, 1, 2)
    told = {"type": "http", "path": "/shop/a", "raw_path": b"/shop/a", "root_path": "/shop"}
    assert asked == [(told, 1, 2), ({"type": "lifespan"}, 1, 2)]
    assert below("", application) is application


@pytest.mark.parametrize("name", ["application", "returning", "wrapped", "made", "AppOfClass", "made.__call__"])
def test_what_can_be_called_as_asgi_3_is_an_application(name: str, home: Path) -> None:
    (home / "shop_many.py").write_text(MANY)
    application = load(f"shop_many:{name}", home)
    assert callable(application)
    with pytest.raises(TypeError, match="argument"):  # or uvicorn would take what it returns for the application
        application()


_INTO = "into shop_many.py, and name that"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("number", "it is of type int; name what takes (scope, receive, send), as those of Starlette, FastAPI and "),
        ("functools", "it is a module; name what takes (scope, receive, send), as those of Starlette, FastAPI and "),
        ("create_app", f"it is a function that makes one, or so it looks; write `application = create_app()` {_INTO}"),
        ("App", f"it is a class; write `application = App()` {_INTO}"),
        ("Wsgi", f"it is a class; write `application = Wsgi()` {_INTO}"),
        ("wsgi", "it is one of WSGI, which takes (environ, start_response); write `from a2wsgi import WSGIMiddleware"),
        ("wsgi_function", "it is one of WSGI, which takes (environ, start_response); write `from a2wsgi import "),
        ("django", "it is one of WSGI, which takes (environ, start_response); name the one in asgi.py, which get_asgi"),
        ("Asgi2", "it is one of ASGI 2, which takes (scope) alone; write `from asgiref.compatibility import "),
        ("asgi2", "it is one of ASGI 2, which takes (scope) alone; write `from asgiref.compatibility import "),
        ("partly", "it is one of WSGI, which takes (receive, send); write"),
    ],
)
def test_what_is_something_else_is_named_with_the_fix(name: str, told: str, home: Path) -> None:
    (home / "shop_many.py").write_text(MANY)
    assert fault(f"shop_many:{name}", home).startswith(f"shop_many:{name} is not an ASGI application: {told}")


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import json\nimport rediss", "NAME.py:2: ModuleNotFoundError: No module named 'rediss'"),
        ("x = (\n", "NAME.py:1: SyntaxError: '(' was never closed"),
        ("import json\njson.loads('{')", "NAME.py:2: json.decoder.JSONDecodeError: Expecting property name enclosed "),
        ("import sys\nsys.exit('no settings')", "NAME.py:2: SystemExit: no settings"),
        ("raise ValueError('one\\n two\\x1b[31m')", "NAME.py:1: ValueError: one two?[31m"),
        ("try:\n  1 / 0\nexcept ArithmeticError:\n  raise OSError('late')", "NAME.py:4: OSError: late"),
        ("raise ExceptionGroup('two', [OSError('a')])", "NAME.py:1: ExceptionGroup: two (1 sub-exception)"),
    ],
)
def test_what_is_raised_while_it_is_imported_is_one_line_with_its_place(
    source: str, told: str, home: Path, request: pytest.FixtureRequest
) -> None:
    if "ExceptionGroup" in source and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 has no exception groups")
    name = f"shop_{abs(hash(source))}"
    (home / f"{name}.py").write_text(source)
    assert fault(f"{name}:app", home).startswith(f"{name}:app cannot be imported: {told.replace('NAME', name)}")


def test_the_place_is_in_its_own_code_also_where_its_libraries_are_beside_it(home: Path) -> None:
    library = home / ".venv/lib/python3/site-packages/library.py"
    trace = (
        "Traceback (most recent call last):\n"
        f'  File "{home}/shop/asgi.py", line 12, in <module>\n    import library\n'
        f'  File "{library}", line 3, in <module>\n    raise RuntimeError\nRuntimeError\n'
    )
    assert in_one_line(trace, home) == "shop/asgi.py:12: RuntimeError"
    assert in_one_line("no traceback\n at all", home) == "no traceback at all"
    assert len(in_one_line("x" * 5000, home)) == 1000


def test_what_is_not_there_is_named_with_what_is(home: Path) -> None:
    (home / "shop_names.py").write_text("application = 1")
    assert fault("shop_names:aplication", home) == (
        "shop_names:aplication: shop_names.py has no aplication; did you mean application?"
    )
    told = f"there is no module shop_absent in {home}; write module:attribute as seen from there"
    assert fault("shop_absent.asgi:app", home) == f"shop_absent.asgi:app cannot be imported: {told}"


@pytest.mark.parametrize("place", ["service.py", "service/__init__.py", "service/models/order.py"])
def test_a_package_with_the_name_of_ours_is_refused(place: str, home: Path) -> None:
    (home / place).parent.mkdir(parents=True, exist_ok=True)
    (home / place).touch()
    with pytest.raises(ApplicationError) as told:
        enter_directory({"WEBSOCKET_APP_DIRECTORY": str(home)})
    assert str(told.value) == (
        f"{home} has a top-level service, which is also the name of the package that runs it; rename it, or move it "
        "into a package"
    )


def test_a_folder_of_that_name_without_code_and_our_own_package_are_none(home: Path) -> None:
    (home / "service").mkdir()
    (home / "service/unit.conf").touch()
    assert enter_directory({"WEBSOCKET_APP_DIRECTORY": str(home)}) == home
    assert enter_directory({"WEBSOCKET_APP_DIRECTORY": str(ROOT)}) == ROOT


def test_a_package_in_src_is_imported_from_there(home: Path) -> None:
    (home / "src/shop").mkdir(parents=True)
    (home / "src/shop/main.py").write_text("async def application(scope, receive, send): ...\n")
    directory = enter_directory({"WEBSOCKET_APP_DIRECTORY": str(home)})
    assert load("shop.main:application", directory).__module__ == "shop.main"


def test_a_directory_that_is_missing_is_named(home: Path) -> None:
    with pytest.raises(ApplicationError, match=r"^WEBSOCKET_APP_DIRECTORY: .*/gone: No such file or directory; name "):
        enter_directory({"WEBSOCKET_APP_DIRECTORY": str(home / "gone")})


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("0.21.1", "uvicorn 0.21.1 is too old; ask for uvicorn>=0.22 in the application's requirements"),
        (None, "add uvicorn>=0.22 to the application's requirements"),
    ],
)
def test_a_uvicorn_that_is_missing_or_too_old_is_named(
    version: str | None, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start._refuse_uvicorn()
    if version is None:
        monkeypatch.setitem(sys.modules, "uvicorn", None)
    else:
        monkeypatch.setattr(uvicorn, "__version__", version)
    with pytest.raises(ApplicationError) as error:
        start._refuse_uvicorn()
    assert told in str(error.value)


def checked(home: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "service", "--check"]
    environ = clean_environment(**settings(home, **variables))
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=DEADLINE_S)


def test_a_check_imports_and_runs_nothing_and_waits_for_no_thread(tmp_path: Path) -> None:
    source = "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,)).start()\nprint('imported')\n"
    home = project(tmp_path / "home", source + "async def application(scope, receive, send): raise AssertionError\n")
    ended = checked(home)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "imported\n", "")


def test_a_check_that_fails_is_one_line(tmp_path: Path) -> None:
    ended = checked(project(tmp_path / "home", "import rediss"))
    told = "shop.asgi:application cannot be imported: shop/asgi.py:1: ModuleNotFoundError: No module named 'rediss'\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)


def test_without_an_application_there_is_nothing_to_check(tmp_path: Path) -> None:
    ended = checked(tmp_path, WEBSOCKET_APP="")
    told = "there is no application to check: set WEBSOCKET_APP to module:attribute\n"
    assert (ended.returncode, ended.stderr) == (1, told)


def test_an_application_may_have_closed_what_it_prints_to(tmp_path: Path) -> None:
    source = "import sys\nprint('imported', flush=True)\nsys.stdout.close()\n"
    ended = checked(project(tmp_path / "home", source + "async def application(scope, receive, send): ...\n"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "imported\n", "")
    ended = checked(project(tmp_path / "broken", source + "import rediss\n"))
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)


@pytest.mark.parametrize("path", ["queue.py", "queue/asgi.py", "time.py"])
def test_a_module_with_the_name_of_one_that_python_has_imported_is_refused(path: str, home: Path) -> None:
    (home / path).parent.mkdir(exist_ok=True)
    (home / path).write_text("async def app(scope, receive, send): ...\n")
    if "/" in path:
        (home / path).with_name("__init__.py").touch()
    module = path.removesuffix(".py").replace("/", ".")
    top = module.partition(".")[0]
    told = f"{module}:app: {top} is a module of Python itself; give yours in {home} another name"
    assert fault(f"{module}:app", home) == told
