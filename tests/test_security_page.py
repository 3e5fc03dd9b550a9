"""docs/security.md promises what tests show: each one that it names is there."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


@cache
def all_tests() -> frozenset[str]:
    """The names of all tests."""
    functions = (
        node.name
        for file in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return frozenset(name for name in functions if name.startswith("test_"))


def promises(page: str) -> list[list[str]]:
    """The cells of each row about an attack."""
    rows = [line[1:-1].split("|") for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if row[0] != " attack "]


def unshown(page: str) -> Iterator[str]:
    """Attacks of which no test shows what comes of them, and tests that are not there."""
    for attack, _, shown in promises(page):
        named = re.findall(r"`(test_\w+)`", shown)
        yield from (name for name in named if name not in all_tests())
        if not named and not re.match("out of scope: .", shown):
            yield attack


@pytest.mark.slow
def test_every_promise_is_shown_by_tests_that_exist() -> None:
    assert len(promises(PAGE)) >= 29
    assert list(unshown(PAGE)) == []


@pytest.mark.parametrize("shown", ["", "out of scope: ", "`test_that_is_not_there`", "by hand"])
def test_a_promise_that_nothing_shows_is_found(shown: str) -> None:
    assert list(unshown(f"| attack | what comes of it | shown by |\n|---|---|---|\n| x | y | {shown} |\n"))
