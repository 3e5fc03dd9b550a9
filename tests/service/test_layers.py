"""Which way the service's imports point."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).resolve().parents[2] / "service"
# By the name below the package, such as `core.hub`.
MODULES = {".".join(path.relative_to(SERVICE).with_suffix("").parts): path for path in sorted(SERVICE.rglob("*.py"))}

# It runs alone on the host, in a virtual environment with these and what they need.
ALLOWED = {
    *("cryptography", "gunicorn", "httptools", "jwt", "msgspec", "multidict", "picows", "prometheus_client"),
    *("uvicorn", "uvicorn_worker", "uvloop", "websockets"),
    "service",
}

# What knows and decides, and does no I/O: it is tested without a loop, and every shell can use it.
PURE = {"declaration", "explanations", "settings", *(name for name in MODULES if name.startswith("core."))}
IMPURE_MODULES = {
    *("asyncio", "logging", "os", "random", "secrets", "socket", "time", "uuid"),
    *("picows", "prometheus_client", "uvicorn", "websockets"),
}


def imports(module: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            yield node.module


def test_there_are_modules_to_look_at() -> None:
    assert len(PURE) > 10


@pytest.mark.parametrize("name", MODULES)
def test_the_service_needs_only_the_standard_library_and_a_few_packages(name: str) -> None:
    packages = {imported.partition(".")[0] for imported in imports(MODULES[name])}
    assert packages - sys.stdlib_module_names <= ALLOWED


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_decides_does_no_input_or_output(name: str) -> None:
    packages = {imported.partition(".")[0] for imported in imports(MODULES[name])}
    assert not packages & IMPURE_MODULES


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_decides_depends_on_nothing_that_does(name: str) -> None:
    own = {imported.partition(".")[2] for imported in imports(MODULES[name]) if imported.startswith("service.")}
    assert own <= PURE


def test_only_the_application_speaks_asgi() -> None:
    speakers = {name for name, path in MODULES.items() if '"websocket.' in path.read_text()}
    assert speakers == {"app"}
