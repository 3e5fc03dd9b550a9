"""What ufw, the usual firewall of Ubuntu and Debian, lets through, read from its own files.

Source: ufw(8), and the lines `### tuple ###` of /etc/ufw/user.rules: action, protocol, port and address of the host,
port and address of the client, names of applications where there are some, direction.
"""

import re
from collections.abc import Iterable
from pathlib import Path

_RULE = re.compile(
    r"^### tuple ### (?:allow|limit)(?:_log\S*)? (tcp|any) (\S+) \S+ \S+ \S+ (?:\S+ \S+ )?in", re.MULTILINE
)


def closed(ports: Iterable[int], root: Path = Path("/")) -> tuple[int, ...]:
    """Those TCP ports that ufw lets no client reach; none where it is not active, or where only root may know."""
    try:
        settings = (root / "etc/ufw/ufw.conf").read_text(errors="replace")
        policy = (root / "etc/default/ufw").read_text(errors="replace")
        rules = (root / "etc/ufw/user.rules").read_text(errors="replace")
    except OSError:
        return ()
    is_active = re.search(r"^ENABLED=[\"']?yes", settings, re.MULTILINE | re.IGNORECASE)
    admits_all = re.search(r"^DEFAULT_INPUT_POLICY=[\"']?ACCEPT", policy, re.MULTILINE)
    if not is_active or admits_all:
        return ()
    opened = [words for _, words in _RULE.findall(rules)]
    return tuple(port for port in ports if not any(_covers(words, port) for words in opened))


def _covers(words: str, port: int) -> bool:
    """Whether `80,443`, `8000:9000` or `any` has a port."""
    for word in words.split(","):
        first, _, last = word.partition(":")
        if word == "any" or int(first) <= port <= int(last or first):
            return True
    return False
