"""Which way the service's imports point."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).resolve().parents[2] / "service"
MODULES = sorted(SERVICE.glob("*.py"))

# It runs alone on the host, in a virtual environment with these and what they need.
ALLOWED = {
    *("cryptography", "gunicorn", "httptools", "jwt", "msgspec", "multidict", "picows", "prometheus_client"),
    *("uvicorn", "uvicorn_worker", "uvloop", "websockets"),
    "service",
}

# What knows and decides, and does no I/O: it is tested without a loop, and every shell can use it.
PURE = {
    "addresses.py",
    "admission.py",
    "bus.py",
    "bus_records.py",
    "center.py",
    "close_codes.py",
    "declaration.py",
    "events.py",
    "frames.py",
    "hub.py",
    "identity.py",
    "message.py",
    "plain_http.py",
    "session.py",
    "session_v1.py",
    "settings.py",
}
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
    assert {module.name for module in MODULES} >= PURE


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_the_service_needs_only_the_standard_library_and_a_few_packages(module: Path) -> None:
    packages = {name.partition(".")[0] for name in imports(module)}
    assert packages - sys.stdlib_module_names <= ALLOWED


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_decides_does_no_input_or_output(name: str) -> None:
    packages = {imported.partition(".")[0] for imported in imports(SERVICE / name)}
    assert not packages & IMPURE_MODULES


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_decides_depends_on_nothing_that_does(name: str) -> None:
    own = {
        imported.partition(".")[2] + ".py" for imported in imports(SERVICE / name) if imported.startswith("service.")
    }
    assert own <= PURE


def test_only_the_application_speaks_asgi() -> None:
    speakers = {module.name for module in MODULES if '"websocket.' in module.read_text()}
    assert speakers == {"app.py"}
