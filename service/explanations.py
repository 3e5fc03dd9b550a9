"""What exactly is wrong with a value that does not fit, and what to write instead. Loaded only for a fault.

Sources: RFC 1123, section 2.1, for host names; RFC 3490 for letters beyond ASCII; RFC 6454, section 6, for origins.
"""

import re
from ipaddress import ip_address

from service.origins import ORIGIN

_PREFIXES = "kmgt"
_BYTES = r"(?:([kmgt])(?:i|ilo|ibi|ega|ebi|iga|era)?)?(bits?|o|octets?|b|bytes?)?"
_SECONDS = {"ms": 0.001, "s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hr": 3600}
_SECONDS |= {"hour": 3600, "d": 86_400, "day": 86_400}
_COUNTS = {"k": 1000, "m": 1_000_000}


def plain_number(number: str, unit: str, unit_of_setting: str, least: float | None, most: float | None) -> float | None:
    """The number that a number with a unit means: `1`, `MB` as bytes is 1048576. Within the bounds of its setting.

    None where the unit is not known. What is counted has no units: `10 clients` are 10.
    """
    scale: float | None
    word = re.sub(r"(/s|ps)$", "", unit.lower()) if unit_of_setting != "seconds" else unit.lower().rstrip("s") or "s"
    if unit_of_setting.startswith("bytes"):
        scale = _bytes_of(word)
    elif unit_of_setting == "seconds":
        scale = _SECONDS.get(unit.lower(), _SECONDS.get(word))
    else:
        scale = _COUNTS.get(word, 1)
    if scale is None:
        return None
    value = float(number) * scale
    return min(max(value, value if least is None else least), value if most is None else most)


def _bytes_of(unit: str) -> float | None:
    """How many bytes a unit is. Those of bytes are binary, as in nginx; those of bits decimal, as in networks."""
    found = re.fullmatch(_BYTES, unit)
    if found is None:
        return None
    power = _PREFIXES.index(found[1]) + 1 if found[1] else 0
    return float(1000**power / 8 if (found[2] or "").startswith("bit") else 1024**power)


def domain_fault(text: str) -> tuple[str, str] | None:
    """Why a text is not a host name, and the fix; None where no reason is known."""
    host, rest = _host_of(text)
    alone = "write the host name alone" + (f": {host}" if _is_host(host) else "")
    if re.search(r"[\s,]", text):
        return "is more than one word", "write one host name, or a list in brackets: [a.org, b.org]"
    if "://" in text:
        return "has a scheme", alone
    if rest.startswith(("/", "?", "#")):
        return "has a path", alone
    if _is_address(text) or host.startswith("["):
        return "is an IP address", "write a host name: browsers and certificates go by names"
    if rest.startswith(":"):
        return "has a port", f"{alone}; the ports are nginx.http_port and nginx.https_port"
    return _fault_of_host(text)


def origin_fault(text: str) -> tuple[str, str] | None:
    """Why a text is not the origin of a page, and the fix; None where no reason is known."""
    if text == "*":
        return "is not an origin", "leave origins out: then every page may connect"
    if re.search(r"[\s,]", text):
        return "is more than one word", "make each origin an item of its own"
    if "*" in text:
        return "is a pattern", "name each origin"
    scheme, _, rest = text.lower().rpartition("://")
    host, behind = _host_of(rest)
    if not scheme:
        is_here = host in ("localhost", "127.0.0.1", "[::1]")
        return _with_origin("has no scheme", "http" if is_here else "https", host, behind)
    faults = {
        "is the address of a server": scheme in ("ws", "wss"),
        "has a user name, and an origin has none": "@" in rest,
        "has a path, and an origin has none": re.search("[/?#]", behind),
        "has letters beyond ASCII, and browsers send punycode": not text.isascii(),
        "has upper case, and browsers send lower case": text != text.lower(),
    }
    if what := next((what for what, is_so in faults.items() if is_so), None):
        of_pages = {"ws": "http", "wss": "https"}.get(scheme, scheme)
        return _with_origin(what, of_pages, host, behind)
    if behind.startswith(":"):
        return _with_origin(f"has the port {behind[1:]!r}", scheme, host, "")
    return None


def _with_origin(what: str, scheme: str, host: str, behind: str) -> tuple[str, str]:
    """The fault with the origin that may be meant, if there is one."""
    port = re.split("[/?#]", behind, maxsplit=1)[0]
    meant = f"{scheme}://{_ascii_of(host)}{port}"
    return what, f"write {meant}" if re.fullmatch(ORIGIN, meant) else "use scheme://host, such as https://example.com"


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
        with_hyphens = text.replace("_", "-")
        fix = f"use a hyphen: {with_hyphens}" if _is_host(with_hyphens) else "use letters, digits, hyphens and dots"
        return "has '_', which a host name cannot have", fix
    return next(filter(None, map(_fault_of_label, text.split("."))), None)


def _is_host(text: str) -> bool:
    return text != "" and _fault_of_host(text) is None


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
