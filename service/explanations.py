"""What exactly is wrong with a value that does not fit, and what to write instead. Only a fault pays for it.

Sources: RFC 1123, section 2.1, for host names; RFC 3490 for letters beyond ASCII; RFC 6454, section 6, for origins.
"""

import re
from ipaddress import ip_address

_BYTES = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hr": 3600}
_SECONDS |= {"hour": 3600, "d": 86_400, "day": 86_400}
_COUNTS = {"k": 1000, "m": 1_000_000}


def plain_number(number: str, unit: str, unit_of_setting: str, least: float | None, most: float | None) -> float:
    """What a number with a unit would be without: `1`, `MB` as bytes is 1048576. Within the bounds of its setting.

    An unknown unit counts as none.
    """
    scale: float
    word = re.sub(r"(/s|ps)$", "", unit.lower()) if unit_of_setting != "seconds" else unit.lower().rstrip("s") or "s"
    if unit_of_setting.startswith("bytes"):
        scale = _BYTES.get(re.sub(r"i?b(yte)?s?$", "", word), 1)
    elif unit_of_setting == "seconds":
        scale = _SECONDS.get(unit.lower(), _SECONDS.get(word, 1))
    else:
        scale = _COUNTS.get(word, 1)
    value = float(number) * scale
    return min(max(value, value if least is None else least), value if most is None else most)


def domain_fault(text: str) -> tuple[str, str] | None:
    """Why a text is not a host name, and the fix; None where no reason is known."""
    host, rest = _host_of(text)
    if re.search(r"[\s,]", text):
        return "is more than one word", "write one host name"
    if "://" in text:
        return "has a scheme", f"write the host name alone: {host}"
    if rest.startswith(("/", "?", "#")):
        return "has a path", f"write the host name alone: {host}"
    if _is_address(text) or host.startswith("["):
        return "is an IP address", "write a host name: browsers and certificates go by names"
    if rest.startswith(":"):
        return "has a port", f"write the host name alone: {host}; nginx listens on 80, and with tls on 443"
    return _fault_of_host(text)


def origin_fault(text: str) -> tuple[str, str] | None:
    """Why a text is not the origin of a page, and the fix; None where no reason is known."""
    if text == "*":
        return "is not an origin", "leave origins out: then every page may connect"
    if "://" not in text:
        return "has no scheme", f"write https://{_host_of(text.lower())[0]}"
    scheme, _, rest = text.partition("://")
    host, behind = _host_of(text)
    if "*" in host:
        return "is a pattern", "name each origin"
    if re.search("[/?#]", rest):
        host_and_port = re.split("[/?#]", rest, maxsplit=1)[0].lower()
        return "has a path, and an origin has none", f"write {scheme.lower()}://{host_and_port}"
    if not text.isascii():
        name = _ascii_of(host)
        return "has letters beyond ASCII, and browsers send punycode", f"write {scheme.lower()}://{name}{behind}"
    if text != text.lower():
        return "has upper case, and browsers send lower case", f"write {text.lower()}"
    return None


def _fault_of_host(text: str) -> tuple[str, str] | None:
    if text.startswith("*."):
        return "is a wildcard", f"write the one name that clients use, such as ws.{text[2:]}"
    if not text.isascii():
        return "has letters beyond ASCII", f"write its punycode: {_ascii_of(text)}"
    if text.endswith("."):
        return "ends with a dot", f"write {text.rstrip('.').lower()}"
    if text != text.lower():
        return "has upper case, and clients' names arrive in lower case", f"write {text.lower()}"
    if "_" in text:
        return "has '_', which a host name cannot have", f"use a hyphen: {text.replace('_', '-')}"
    return next(filter(None, map(_fault_of_label, text.split("."))), None)


def _fault_of_label(label: str) -> tuple[str, str] | None:
    if not label:
        return "has an empty part", "remove one of the dots"
    if len(label) > 63:
        return f"has a part of {len(label)} characters", "use at most 63 between two dots"
    if label.strip("-") != label:
        return f"has a hyphen at an end of '{label}'", "remove that hyphen"
    odd = re.search(r"[^a-z0-9-]", label)
    return (f"has {odd[0]!r}", "use letters, digits, hyphens and dots") if odd else None


def _host_of(text: str) -> tuple[str, str]:
    """The host in a text that looks like a URL or its beginning, and what follows it."""
    authority = text.partition("://")[2] or text
    authority = authority.rpartition("@")[2]
    found = re.match(r"(\[[^\]]*\]|[^:/?#]*)(.*)", authority)
    assert found is not None
    return found[1].lower(), found[2]


def _ascii_of(host: str) -> str:
    if re.search("[\u00df\u03c2\u200c\u200d]", host):
        return "its name in punycode"  # Python knows the older rule, by which they are other letters
    try:
        return host.lower().encode("idna").decode()
    except UnicodeError:
        return "its name in punycode"


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


FAULTS = {"domain": domain_fault, "origin": origin_fault}
"""By the word that a setting has as `explain`."""
