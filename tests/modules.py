"""The modules of the project, and what each of them imports."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    _name(path): path
    for program in ("service", "generator", "tools", "bench")
    for path in sorted((ROOT / program).rglob("*.py"))
}
"""By its full name, such as `service.core.hub`; a package by its own."""


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, wherever in it, by its full name.

    `from service.core import hub` imports service.core.hub, whatever else the package may define.
    """
    return frozenset(_imports(ast.parse(path.read_text())))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            parts = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (part if part in MODULES else node.module for part in parts)
