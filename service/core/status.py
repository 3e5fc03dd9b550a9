"""The line that a service manager shows of the service, and one line made of those of several workers. Pure."""

import re
from collections.abc import Iterable

_FAILING = "; mailboxes cannot be written"
_LINE = re.compile(rf"(\d+) connections; messages: (\d+) routed, (\d+) dropped({_FAILING})?")

_APPLICATION_LINE = re.compile(r"(\d+) connections, (\d+) of them WebSockets; (\d+) requests running")


def application_line(connections: int, websockets: int, requests: int) -> str:
    """The status of one worker that runs an application of your own."""
    return f"{connections} connections, {websockets} of them WebSockets; {requests} requests running"


def status_line(connections: int, routed: int, dropped: int, is_mailbox_failing: bool = False) -> str:
    """The status of one worker."""
    failing = _FAILING if is_mailbox_failing else ""
    return f"{connections} connections; messages: {routed} routed, {dropped} dropped{failing}"


def together(lines: Iterable[str], of_application: bool = False) -> str:
    """The same of all workers; one that says something else, for it starts or stops, is not counted."""
    form = _APPLICATION_LINE if of_application else _LINE
    found = [match for line in lines if (match := form.fullmatch(line))]
    connections, routed, dropped = (sum(int(match[number]) for match in found) for number in (1, 2, 3))
    if of_application:
        return application_line(connections, routed, dropped)
    return status_line(connections, routed, dropped, any(match[4] for match in found))
