"""The line that a service manager shows of the service, and one line made of those of several workers. Pure."""

import re
from collections.abc import Iterable

_LINE = re.compile(r"(\d+) connections; messages: (\d+) routed, (\d+) dropped")


def status_line(connections: int, routed: int, dropped: int) -> str:
    """The status of one worker."""
    return f"{connections} connections; messages: {routed} routed, {dropped} dropped"


def together(lines: Iterable[str]) -> str:
    """The same of all workers; one that says something else, for it starts or stops, is not counted."""
    figures = [tuple(map(int, found.groups())) for line in lines if (found := _LINE.fullmatch(line))]
    return status_line(*map(sum, zip(*figures, strict=True))) if figures else status_line(0, 0, 0)
