"""What exactly is wrong with a value, and what to write instead, is said for each common mistake."""

import pytest

from service.explanations import domain_fault, origin_fault, plain_number


@pytest.mark.parametrize(
    ("number", "unit", "of", "plain"),
    [
        ("1", "MB", "bytes", 1_048_576),
        ("1", "k", "bytes", 1024),
        ("64", "KiB", "bytes", 65_536),
        ("2", "Gb", "bytes", 2_147_483_648),
        ("4", "MB/s", "bytes per second", 4_194_304),
        ("10", "s", "seconds", 10),
        ("1", "m", "seconds", 60),
        ("2", "mins", "seconds", 120),
        ("0.5", "h", "seconds", 1800),
        ("500", "ms", "seconds", 0.5),
        ("5", "k", "", 5000),
        ("10", "r/s", "", 10),
        ("500", "/s", "clients per second", 500),
        ("3", "parsecs", "seconds", None),
        ("64", "kibibytes", "bytes", 65_536),
        ("1", "TB", "bytes", 1024**4),
        ("8", "Mbit/s", "bytes per second", 1_000_000),
        ("8", "Mbps", "bytes per second", 8 * 1024**2),
        ("1", "MBx", "bytes", None),
        ("3", "clients", "", 3),
    ],
)
def test_a_number_with_a_unit_is_worked_out(number: str, unit: str, of: str, plain: float | None) -> None:
    assert plain_number(number, unit, of, None, None) == plain


def test_what_is_proposed_is_allowed() -> None:
    assert plain_number("1", "h", "seconds", 1, 600) == 600
    assert plain_number("10", "ms", "seconds", 1, 600) == 1


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("ws_chat.a.org", "has '_'", "ws-chat.a.org"),
        ("a.org.", "ends with a dot", "write a.org"),
        ("A.org", "has upper case", "write a.org"),
        ("a.org:80", "has a port", "alone: a.org"),
        ("wss://me@a.org:80/x", "has a scheme", "alone: a.org"),
        ("a.org/ws", "has a path", "alone: a.org"),
        ("*.a.org", "is a wildcard", "ws.a.org"),
        ("::1", "is an IP address", "a host name"),
        ("[2001:db8::1]:80", "is an IP address", "a host name"),
        ("b\u00fccher.de", "has letters beyond ASCII", "xn--bcher-kva.de"),
        ("stra\u00dfe.de", "has letters beyond ASCII", "its name in punycode"),
        ("a.org, b.org", "is more than one word", "one host name"),
        ("a..org", "has an empty part", "remove one of the dots"),
        ("-a.org", "has a hyphen at an end of '-a'", "remove"),
        ("x" * 64 + ".org", "has a part of 64 characters", "at most 63"),
        ("a!.org", "has '!'", "letters, digits"),
        ("_a.org", "has '_'", "use letters, digits, hyphens and dots"),
        ("https://a_b.org/", "has a scheme", "write the host name alone"),
        ("https://", "has a scheme", "write the host name alone"),
    ],
)
def test_a_domain_is_told_what_is_wrong_with_it(text: str, what: str, fix: str) -> None:
    found = domain_fault(text)
    assert found is not None
    assert what in found[0]
    assert fix in found[1]


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("https://b\u00fccher.example:8443", "has letters beyond ASCII", "https://xn--bcher-kva.example:8443"),
        ("example.com", "has no scheme", "https://example.com"),
        ("https://a.org/", "has a path", "write https://a.org"),
        ("https://A.org", "has upper case", "write https://a.org"),
        ("*", "is not an origin", "leave origins out"),
        ("https://*.a.org", "is a pattern", "name each origin"),
        ("https://B\u00fccher.example/app", "has a path", "write https://xn--bcher-kva.example"),
        ("file:///", "has a path", "write file://"),
        ("https:///app", "has a path", "use scheme://host"),
        ("about:blank", "has no scheme", "use scheme://host"),
        ("localhost:3000", "has no scheme", "write http://localhost:3000"),
        ("example.com:8443", "has no scheme", "write https://example.com:8443"),
        ("https://a.org:99999", "has the port '99999'", "write https://a.org"),
        ("https://me:secret@a.org", "has a user name", "write https://a.org"),
        ("https://a.org,https://b.org", "is more than one word", "an item of its own"),
    ],
)
def test_an_origin_is_told_what_is_wrong_with_it(text: str, what: str, fix: str) -> None:
    found = origin_fault(text)
    assert found is not None
    assert what in found[0]
    assert fix in found[1]


def test_what_nobody_can_explain_is_left_to_the_words_of_the_setting() -> None:
    assert domain_fault("a.org") is None
    assert origin_fault("https://") is None
