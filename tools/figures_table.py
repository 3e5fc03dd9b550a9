"""The table of docs/watch.md that follows from the declarations of the figures: `make docs`."""

import sys
from pathlib import Path

from service.core.figures import FIGURES, PREFIX, Figure
from tools.protocol_tables import with_tables

PAGE = Path(__file__).parent.parent / "docs" / "watch.md"
# What the library of Prometheus tells of the processes.
_PROCESS = ("resident_memory_bytes", "virtual_memory_bytes", "cpu_seconds_total", "open_fds", "max_fds")


def figures() -> str:
    """Every series, and its key in `/stats`."""
    process = ", ".join(f"`process_{name}`" for name in (*_PROCESS, "start_time_seconds"))
    return "\n".join(
        [
            "| series | kind | in `/stats` | what it says |",
            "|---|---|---|---|",
            f"| `{PREFIX}build_info{{version,server}}` | gauge | `version`, `server` | Always 1; what runs. |",
            *map(_row, FIGURES),
            f"| {process} | | | The sum over the worker processes; when the youngest began to serve. |",
        ]
    )


def _row(figure: Figure) -> str:
    label = f"{{{figure.label}}}" if figure.label else ""
    whole, by_worker = f"`{figure.series}{label}`", f"`{figure.series_by_worker}{{worker}}`"
    series = {"": whole, "also": f"{whole}, {by_worker}", "only": by_worker}[figure.by_worker]
    more = f" [More]({figure.page})." if figure.page else ""
    return f"| {series} | {figure.kind} | `{figure.name}` | {figure.help}{more} |"


def with_figures(page: str) -> str:
    """The page with the table as the code has it."""
    return with_tables(page, {"figures": figures})


if __name__ == "__main__":
    PAGE.write_text(with_figures(PAGE.read_text()))
    sys.stdout.write(f"wrote {PAGE.relative_to(Path.cwd())}\n")
