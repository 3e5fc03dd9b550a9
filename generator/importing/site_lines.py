"""What became of a line of one of the service's own servers of nginx."""

import re
from collections.abc import Sequence
from os.path import normpath
from typing import NamedTuple

import msgspec

from generator.config.schema import Domain
from generator.importing.ledger import HEAD, TAKEN, Claim, Ledger, Said
from generator.importing.options import BY_A_SOCKET, claim
from generator.importing.sources import INCLUDED
from generator.readers.entry import Entry
from generator.readers.nginx_sites import listens_of

_OURS: Said = ("replaced", "by the line of that kind in the new site, which says what it is for")
_FREE_HANDED: Said = ("wrong", "lets a slow or silent client hold its place for minutes or hours")
_USELESS: Said = ("wrong", "has no effect on a WebSocket, once it is open")
_REDIRECT: Said = ("replaced", "the new site leads requests without TLS to TLS, by 308")
_LOG: Said = ("replaced", "by logs of the deployment's name, in JSON, which logrotate keeps short")
_TLS: Said = ("replaced", "by Mozilla's intermediate profile")
_CLOSES = "keeps some clients out, and the new site would be open to them"

_DIRECTIVES: dict[str, Said] = {
    **dict.fromkeys(("access_log", "error_log", "log_not_found", "log_subrequest", "rewrite_log"), _LOG),
    **dict.fromkeys(("ssl_protocols", "ssl_ciphers", "ssl_dhparam", "ssl_session_cache", "ssl_session_timeout"), _TLS),
    **dict.fromkeys(("ssl_session_tickets", "ssl_prefer_server_ciphers", "ssl_ecdh_curve", "ssl_buffer_size"), _TLS),
    **dict.fromkeys(("ssl_stapling", "ssl_stapling_verify", "ssl_trusted_certificate", "resolver"), _TLS),
    **dict.fromkeys(("keepalive_timeout", "send_timeout", "client_body_timeout", "client_header_timeout"), _OURS),
    **dict.fromkeys(("server_tokens", "large_client_header_buffers", "client_header_buffer_size"), _OURS),
    **dict.fromkeys(
        ("proxy_http_version", "proxy_pass_header", "proxy_next_upstream", "proxy_socket_keepalive"), _OURS
    ),
    **dict.fromkeys(("proxy_read_timeout", "proxy_send_timeout", "proxy_connect_timeout"), _OURS),
    **dict.fromkeys(
        ("limit_req_status", "limit_conn_status", "limit_req_log_level", "reset_timedout_connection"), _OURS
    ),
    **dict.fromkeys(("proxy_buffering", "proxy_request_buffering", "keepalive", "default_type", "charset"), _OURS),
    **dict.fromkeys(("proxy_buffer_size", "proxy_buffers", "proxy_busy_buffers_size", "proxy_redirect"), _USELESS),
    **dict.fromkeys(("client_body_buffer_size", "gzip_static", "tcp_nodelay", "tcp_nopush", "sendfile"), _USELESS),
    **dict.fromkeys(("gzip", "gzip_types", "gzip_proxied", "gzip_vary", "gzip_min_length"), _USELESS),
    **dict.fromkeys(("proxy_set_header", "real_ip_header", "real_ip_recursive"), _OURS),
    "try_files": ("wrong", "shows the files of nginx's own default page to whoever asks for them"),
    "proxy_ignore_client_abort": ("wrong", "keeps the service at work for clients that are gone"),
    "server_name_in_redirect": _OURS,
    "proxy_cache_bypass": _USELESS,
    "http2": ("not supported", "WebSockets come over HTTP/1.1, and a browser opens a connection of its own for them"),
    "error_page": ("not supported", "the new site has nothing but the service"),
}
_HTTP2: Said = ("replaced", "the new site of an application offers HTTP/2 with TLS")
_GENEROUS = (
    *("keepalive_timeout", "send_timeout", "client_body_timeout", "client_header_timeout"),
    *("proxy_read_timeout", "proxy_send_timeout", "proxy_connect_timeout"),
)
_LONGEST_S = 300
_GUARDS = (
    *("allow", "deny", "auth_basic", "auth_basic_user_file", "auth_request", "satisfy", "ssl_verify_client"),
    *("ssl_client_certificate", "auth_jwt", "valid_referers", "secure_link"),
)
# What the notification center answers beside WebSockets.
_OF_THE_CENTER = ("/health", "/metrics", "/publish")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


class Beside(NamedTuple):
    """What a line is judged by: the lines of its server, and which of them pass requests on to the old service.

    `directory` is where an application of the operator's own is.
    """

    entries: Sequence[Entry]
    passing: set[Entry]
    is_center: bool
    directory: str


def judge_line(ledger: Ledger, entry: Entry, beside: Beside) -> None:
    """Say what becomes of a line."""
    name, value = entry.name, entry.value
    condition = next((block for block in entry.context if block.startswith("if ")), "")
    if name in _GUARDS:
        _judge_guard(ledger, entry, beside)
    elif name == "if" or condition:
        _judge_condition(ledger, entry, condition or entry.text)
    elif name == "location":
        _judge_location(ledger, entry, beside)
    elif name == "listen":
        _judge_listen(ledger, entry, beside.is_center)
    elif name == "server_name":
        _judge_names(ledger, entry)
    elif name in ("ssl_certificate", "ssl_certificate_key"):
        ledger.take(entry, "certificate.file" if name == "ssl_certificate" else "certificate.key", value)
    elif name == "proxy_pass":
        _judge_target(ledger, entry, beside)
    elif name in ("alias", "root") and not beside.is_center:
        _judge_files(ledger, entry, beside.directory)
    else:
        _judge_directive(ledger, entry, beside.is_center)


def _judge_guard(ledger: Ledger, entry: Entry, beside: Beside) -> None:
    block = next((each for each in reversed(entry.context) if each.startswith("location ")), "")
    if block and not any(each.name == "proxy_pass" and block in each.context for each in beside.entries):
        ledger.add(entry, "replaced", "the new site answers what it does not know with 404")
        return
    ledger.add(entry, "not supported", _CLOSES)
    if entry.value not in ("off", "all") or entry.name == "deny":
        ledger.obstacles.append((entry.where, _CLOSES))


def _judge_target(ledger: Ledger, entry: Entry, beside: Beside) -> None:
    if entry not in beside.passing:
        ledger.add(entry, "another's", "leads to another service")
        return
    ledger.add(entry, *BY_A_SOCKET)
    path = re.sub(r"^https?://(unix:[^:]*:?|[^/]*)", "", entry.value)
    below = next((block for block in reversed(entry.context) if block.startswith("location ")), "location /#0")
    location = below.rpartition("#")[0].split()[-1]
    if not beside.is_center and path and location != path:
        ledger.obstacles.append((entry.where, f"passes {location} on as {path}, and the new site changes no path"))


def _judge_directive(ledger: Ledger, entry: Entry, is_center: bool) -> None:
    name, value = entry.name, entry.value
    if name == "client_max_body_size":
        _judge_body(ledger, entry, is_center)
    elif name == "limit_conn":
        claim(ledger, entry, "limits.connections_per_address", value.rpartition(" ")[2])
    elif name == "limit_req":
        _judge_rate(ledger, entry)
    elif name == "set_real_ip_from":
        ledger.take(entry, "nginx.trusted_proxies", value)
    elif name == "http2" and not is_center:
        ledger.add(entry, *_HTTP2)
    elif name == "include":
        judge_unread(ledger, entry)
    else:
        ledger.add(entry, *_of_directive(name, value))


def judge_unread(ledger: Ledger, entry: Entry) -> None:
    """An `include` of what was not read."""
    if entry.value.startswith("/etc/letsencrypt/"):
        ledger.add(entry, *_TLS)
        return
    why = "what that file says was not read; name it as well"
    ledger.add(entry, "not supported", why)
    ledger.obstacles.append((entry.where, f"includes {entry.value}, and {why}"))


def _of_directive(name: str, value: str) -> Said:
    if name == "proxy_set_header" and "$proxy_add_x_forwarded_for" in value:
        return "wrong", "any client could forge its address; the new site overwrites the header"
    if name == INCLUDED:
        return TAKEN, "its lines are listed by themselves"
    if name == "return":
        return _REDIRECT if "https://" in value else _OURS
    if name == "add_header":
        is_ours = value.startswith(("Strict-Transport-Security", "X-Content-Type-Options"))
        return _OURS if is_ours else ("not supported", "the new site sends no header but its own")
    if name in _GENEROUS and _seconds(value) > _LONGEST_S:
        return _FREE_HANDED
    return _DIRECTIVES.get(name, ("not supported", "the new site has nothing of this kind"))


def _judge_condition(ledger: Ledger, entry: Entry, condition: str) -> None:
    if "$host" in condition or "$scheme" in condition:
        ledger.add(entry, *_REDIRECT)
        return
    why = _CLOSES
    if "$http_origin" in condition:
        why = "write the pages that may connect into `origins`"
    elif "$http_upgrade" in condition:
        why = "the new site answers what is no WebSocket with 404"
        ledger.add(entry, "replaced", why)
        return
    ledger.add(entry, "not supported", why)
    ledger.obstacles.append((entry.where, why))


def _judge_location(ledger: Ledger, entry: Entry, beside: Beside) -> None:
    path = entry.value
    inside = entry.within
    lines = [each for each in beside.entries if each.context[: len(inside)] == inside]
    leads_here = any(each in beside.passing for each in lines)
    leads_away = any(each.name.endswith("_pass") for each in lines) and not leads_here
    has_files = any(each.name in ("alias", "root") for each in lines) and not leads_here
    plain = path.rpartition(" ")[2].rstrip("/") or "/"
    if "acme-challenge" in path:
        ledger.add(entry, "replaced", "by that of tls: letsencrypt; certbot cannot renew through it any more")
    elif leads_away or (has_files and (beside.is_center or plain == "/")):
        ledger.add(entry, "another's", "is something else, which the new site does not have")
        fix = "to keep it, let the site stay: nginx.include"
        ledger.obstacles.append((entry.where, f"{plain} is something else, which the new site does not have; {fix}"))
    elif leads_here and beside.is_center and plain not in _OF_THE_CENTER and not path.startswith("@"):
        _judge_path(ledger, entry, path)
    elif leads_here or has_files or path.startswith("@"):
        ledger.add(entry, *HEAD)
    else:
        ledger.add(entry, "replaced", "the new site answers what it does not know with 404")


def _judge_path(ledger: Ledger, entry: Entry, path: str) -> None:
    """Where clients open their WebSockets."""
    first, plain = ledger.value("nginx.path"), path.rpartition(" ")[2]
    if re.fullmatch(r"(= |\^~ )?(/[A-Za-z0-9._-]+)*/?", path) and first in (None, plain):
        claim(ledger, entry, "nginx.path", plain)
    else:
        why = f"clients connect to {path}{' as well' if first else ''}; nginx.path is one path"
        ledger.add(entry, "not supported", why)
        ledger.obstacles.append((entry.where, why))


def _judge_listen(ledger: Ledger, entry: Entry, is_center: bool) -> None:
    words = entry.value.split()
    listens = list(listens_of(words, entry.where))
    if not listens:
        ledger.add(entry, "not supported", "is no address that a WebSocket comes to")
        return
    options = set(listens[0].options)
    key = "nginx.https_port" if "ssl" in options else "nginx.http_port"
    ledger.take(entry, key, listens[0].port, f"listen {words[0]}" if options else "")
    if not listens[0].is_for_all:
        ledger.claims.setdefault("nginx.listen", []).append(Claim(listens[0].host, entry.where))
    if "proxy_protocol" in options:
        ledger.take(entry, "nginx.proxy_protocol", True, "proxy_protocol")
    if options & {"default_server", "default"}:
        ledger.add(entry, "replaced", "clients must name the domain; see nginx.default_server", "default_server")
    for option in sorted(options - {"ssl", "proxy_protocol", "default_server", "default"}):
        without: Said = ("not supported", "the new site listens without it")
        ledger.add(entry, *(_HTTP2 if option == "http2" and not is_center else without), option)


def _judge_names(ledger: Ledger, entry: Entry) -> None:
    names = entry.value.split()
    for name in names:
        part = "" if len(names) == 1 else f"server_name {name}"
        try:
            ledger.take(entry, "domain", msgspec.convert(name.lower(), Domain), part)
        except msgspec.ValidationError:
            ledger.add(entry, "not supported", f"{name} is not the name of one host", part)


def _judge_files(ledger: Ledger, entry: Entry, directory: str) -> None:
    """Files that nginx serves by itself; those inside of the application it may go on serving."""
    block = next((each for each in reversed(entry.context) if each.startswith("location ")), "")
    url = block.rpartition("#")[0].split()[-1] if block else "/"
    path = normpath(entry.value if entry.name == "alias" else f"{entry.value}/{url}")
    if url != "/" and directory and path.startswith(f"{normpath(directory)}/"):
        ledger.take(entry, f"app.static.{url.rstrip('/')}/", path.removeprefix(f"{normpath(directory)}/"))
    elif url == "/":
        said: Said = ("another's", "is something else, which the new site does not have")
        ledger.add(entry, *(said if block else ("replaced", "the application answers there")))
    else:
        why = "app.static takes directories inside of app.path"
        ledger.add(entry, "not supported", why)
        ledger.obstacles.append((entry.where, f"serves files of its own; {why}"))


def _judge_body(ledger: Ledger, entry: Entry, is_center: bool) -> None:
    found = re.fullmatch(r"(\d+)([kmg]?)", entry.value.lower())
    size = int(found[1]) * _SIZES[found[2]] if found else 0
    if is_center:
        ledger.add(entry, *(_OURS if size else ("wrong", "means bodies without end; the service takes none")))
    elif size:
        claim(ledger, entry, "app.body_size", str(size))
    else:
        ledger.add(entry, "wrong", "means bodies without end; write app.body_size")


def _judge_rate(ledger: Ledger, entry: Entry) -> None:
    burst = re.search(r"burst=(\d+)", entry.value)
    if burst is None:
        ledger.add(
            entry, "wrong", "refuses an office whose clients all come back at once; limits.handshake_burst is 100"
        )
    elif int(burst[1]) < 100:
        why = f"refuses all but {burst[1]} of an office whose clients come back at once; limits.handshake_burst is 100"
        ledger.add(entry, "wrong", why)
    else:
        claim(ledger, entry, "limits.handshake_burst", burst[1])


def _seconds(value: str) -> int:
    parts = re.findall(r"(\d+)([smhdw]?)", value.split()[0] if value else "")
    return sum(int(number) * _UNITS[unit] for number, unit in parts)
