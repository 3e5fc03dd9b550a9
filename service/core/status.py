"""The line that a service manager shows of the service, and one line made of those of several workers. Pure."""

import re
from collections.abc import Iterable

_FAILING = "; mailboxes cannot be written"
_LINE = re.compile(rf"(\d+) connections; messages: (\d+) routed, (\d+) dropped({_FAILING})?")


def status_line(connections: int, routed: int, dropped: int, is_mailbox_failing: bool = False) -> str:
    """The status of one worker."""
    failing = _FAILING if is_mailbox_failing else ""
    return f"{connections} connections; messages: {routed} routed, {dropped} dropped{failing}"


def together(lines: Iterable[str]) -> str:
    """The same of all workers; one that says something else, for it starts or stops, is not counted."""
    found = [match for line in lines if (match := _LINE.fullmatch(line))]
    connections, routed, dropped = (sum(int(match[number]) for match in found) for number in (1, 2, 3))
    return status_line(connections, routed, dropped, any(match[4] for match in found))
