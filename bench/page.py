"""The tables of the benchmarks, on the terminal and in docs."""

import re
import textwrap
from collections.abc import Sequence

from bench.programs import ROOT

PAGE = ROOT / "docs" / "performance.md"
# Of a part that has a page of its own.
PAGES = {"sizing": ROOT / "docs" / "sizing.md"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can also be read as it is; all columns but the first are numbers."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])])
    aligned = (
        [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        for line in lines
    )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in aligned)


def paragraph(text: str, indent: str = "") -> str:
    """Text in lines of a width that can be read."""
    return textwrap.fill(text, 120, subsequent_indent=indent)


def bullets(sentences: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(paragraph(f"- {sentence}", indent="  ") for sentence in sentences)


def write(part: str, text: str) -> None:
    """Replace the text between the markers of a part on its page."""
    page = PAGES.get(part, PAGE)
    page.write_text(replaced(page.read_text(), part, text))


def replaced(page: str, part: str, text: str) -> str:
    """The page with a new text for a part.

    Raises:
        ValueError: it has no markers for that part.
    """
    begin, end = _markers(part)
    new, count = re.subn(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page needs {begin} and {end} once")
    return new


def part_of(page: str, part: str) -> str:
    """The text of a part.

    Raises:
        ValueError: it has no markers for that part.
    """
    begin, end = _markers(part)
    found = re.search(f"{begin}\n(.*?)\n?{end}", page, flags=re.DOTALL)
    if found is None:
        raise ValueError(f"the page needs {begin} and {end} once")
    return found[1]


def _markers(part: str) -> tuple[str, str]:
    return f"<!-- {part}: begin -->", f"<!-- {part}: end -->"


def cells(text: str) -> list[list[str]]:
    """The rows of a table that `table` has made, its header first; none where there is no table."""
    lines = re.findall(r"(?m)^\| (.*) \|$", text)
    return [[cell.strip() for cell in row.split(" | ")] for row in lines[:1] + lines[2:]]
