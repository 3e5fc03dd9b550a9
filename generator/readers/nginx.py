"""nginx itself, on a copy of this host's configuration with our files in place.

A site is not a configuration of its own: a zone that another site has too, a second default server, a directive that
nginx.conf sets already stop all of nginx, and only the merged whole shows them. So this host's /etc/nginx is copied,
our files are laid over it, and whatever `nginx -t` would open or create is moved into the copy. Where there is no
/etc/nginx, or it is broken without us, a minimal nginx.conf takes its place.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath

import msgspec

from generator.paths import RENDERED, SHARED, Paths
from generator.program import AS_ROOT
from generator.readers.nginx_http2 import asks_for_http2, version_in, with_http2
from generator.readers.nginx_sites import own_main_context, places, servers
from generator.readers.processes import Outcome, Program, Running, find_program
from generator.readers.stub_certificate import stub_pair
from generator.readers.tree import put
from generator.readers.verdict import Fault, Subject, Verdict
from generator.rendering.bundle import Bundle, File

ALONE = Subject("nginx", "nginx configuration")
ON_THIS_HOST = Subject("nginx", "nginx configuration among this host's own")

HOST = Path("/etc/nginx")
_OURS = "etc/nginx"
DEFAULT_SITE = "etc/nginx/sites-enabled/default"
_PORT_OFFSET = 20000
_LARGEST_TEXT = 1 << 20

_MINIMAL = """\
include /etc/nginx/modules-enabled/*.conf;
events {}
http {
    access_log off;
    include /etc/nginx/conf.d/*.conf;
    include /etc/nginx/sites-enabled/*;
}
"""
_TEMPORARY_PATHS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

_ETC_NGINX = re.compile(r"(?<![\w.-])/etc/nginx(?=[/\s;\"'])")
_WORTH_A_LOOK = ("/etc/nginx", "listen", "pid", "_log", "_file", "_path")  # half of /etc/nginx is tables
# Files that `nginx -t` opens for writing or creates.
_WRITTEN = re.compile(
    r"(?<![\w$#])((?:access_log|error_log|lock_file|\w+_temp_path|\w+_cache_path)\s+[\"']?)"
    r"(?!off\b|stderr\b|syslog:|memory:)([^\s;\"']+)"
)
_LOCATIONS = "/locations.conf"
_PID = re.compile(r"^(\s*)pid\s[^;]*;", re.MULTILINE)
_HTTP = re.compile(r"^(\s*http\s*\{)", re.MULTILINE)
_LISTEN = re.compile(r"(?<![\w$#])(listen\s+)([^\s;]+)")
_KEY_PAIR = re.compile(r"(?<![\w$#])(ssl_certificate(?:_key)?\s+)(\"[^\"]*\"|[^\s;]+)")
# `nginx: [emerg] …`, or, where its first log is stderr as on Debian, `2026/11/23 15:34:57 [emerg] 1169#1169: …`.
_MESSAGE = (
    r"^(?:nginx: |[\d/]+ [\d:]+ )\[(?P<level>emerg|warn)\] (?:\d+#\d+: )?"
    r"(?P<message>.*?)(?: in (?P<path>/\S+?):(?P<line>\d+))?$"
)
_NAME_TAKEN = r'conflicting server name "(?P<name>[^"]*)" on (?P<where>\S+), ignored'
_NO_IPV6 = r"socket\(\) \[.*failed \(97: "
# An address of the host that this is rendered for, on another machine: nginx binds last, when it has read everything.
_NOT_HERE = r"bind\(\) to .*failed \(99: "
_TWICE = r'"(?P<directive>\w+)" directive is duplicate'
_NO_CERTIFICATE = r'no "ssl_certificate" is defined for the "listen \.\.\. ssl" directive'
_TWO_DEFAULTS = r"a duplicate default server for \S+"
_UNKNOWN_TEMPORARY_PATH = r'unknown directive "(\w+)_temp_path"'


class _Complaint(msgspec.Struct, frozen=True):
    """One line of nginx's. `path` is the file's in the copy, links followed, relative to the copy's root.

    `places` are those that share the name, or have the directive, that it is about, as `PATH:LINE`.
    """

    level: str
    message: str
    path: str | None
    line: int | None
    places: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"/{self.path}:{self.line}: {self.message}" if self.path else self.message


class _Tree:
    """A copy of a host's nginx configuration that nothing outside it is written by."""

    def __init__(self, root: Path, without: set[str]) -> None:
        self.root = root
        self.without = without
        self.ports: set[int] = set()
        self.sockets: dict[str, str] = {}

    def copy(self, directory: Path) -> None:
        """Copy /etc/nginx, or a directory in it. Files that are not configuration text become links."""
        copied = self.root / _OURS / directory.relative_to(HOST)
        copied.mkdir(parents=True, exist_ok=True)
        for entry in os.scandir(directory):
            path, target = Path(entry.path), copied / entry.name
            if entry.is_dir(follow_symlinks=False):
                self.copy(path)
                continue
            destination = _end_of(path) if entry.is_symlink() else path
            if destination != path and destination.is_relative_to(HOST):
                target.symlink_to(self.root / _OURS / destination.relative_to(HOST))
            elif (text := _text(destination)) is None:
                target.symlink_to(destination)
            else:
                _write(target, self.moved(text))

    def at(self, path: str) -> Path:
        """Where a path is in the copy, to be changed: a directory that leads out of the copy is copied as well."""
        for parent in reversed(PurePath(path).parents[:-1]):
            link = self.root / parent
            if link.is_symlink() and not _end_of(link).is_relative_to(_end_of(self.root)):
                link.unlink()
                self.copy(HOST / parent.relative_to(_OURS))
        return self.root / path

    def overlay(self, files: list[File], pair: Path) -> None:
        """Our files, which come without their certificate."""
        for file in files:
            self.at(file.path)
            if file.link is None:
                put(self.root, file.path, self.moved(_KEY_PAIR.sub(rf"\g<1>{pair}", file.text)))
                if file.path.endswith(_LOCATIONS):
                    self._include(file.path)
        for file in files:
            if file.link is not None:
                link = self.root / file.path
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(file.link)

    def _include(self, path: str) -> None:
        """Let a site of nobody's include locations, since the operator's own may not do so yet."""
        listen = f"listen {self._address('unix:/run/wsbundle-included.sock')};"
        site = f"{_OURS}/sites-enabled/wsbundle-included"
        self.at(site)
        put(self.root, site, f"server {{ {listen} include {self.root}/{path}; }}\n")

    def moved(self, text: str) -> str:
        """A configuration text, line by line the same, whose paths and ports are the copy's."""
        if not any(word in text for word in _WORTH_A_LOOK):
            return text
        text = _ETC_NGINX.sub(f"{self.root}/{_OURS}", text)
        text = _WRITTEN.sub(lambda found: found[1] + self._state(found[2]), text)
        text = _PID.sub(r"\1", text)
        return _LISTEN.sub(lambda found: found[1] + self._address(found[2]), text)

    def _state(self, path: str) -> str:
        return path if path.startswith("$") else f"{self.root}/state/{path.strip('/').replace('/', '_')}"

    def _address(self, address: str) -> str:
        """Only root may bind a port below 1024; and while nginx reads, it listens."""
        if address.startswith("unix:"):
            # A short name: the path of a socket has at most 107 bytes.
            return self.sockets.setdefault(address, f"unix:{self.root}/{len(self.sockets)}")
        host, _, port = "", "", address
        if not address.isdecimal():
            host, _, port = address.rpartition(":") if re.search(r":\d+$", address) else (address, "", "80")
        if not port.isdecimal() or int(port) >= 1024:
            return address
        self.ports.add(int(port))
        moved = str(int(port) + _PORT_OFFSET)
        return f"{host}:{moved}" if host else moved

    def finish(self) -> None:
        """Move the directories that nginx has compiled in, where nginx.conf does not name its own."""
        (self.root / "state").mkdir(exist_ok=True)
        main = self.root / _OURS / "nginx.conf"
        text = _text(main) or ""
        for name in _TEMPORARY_PATHS:
            directive = f"{name}_temp_path"
            if directive not in text and name not in self.without:
                text = _HTTP.sub(rf"\1 {directive} {self.root}/state/{name};", text, count=1)
        _write(main, text)

    def complaints(self, output: str) -> list[_Complaint]:
        """The messages of nginx, with the paths of the host."""
        if not output:
            return []
        for port in self.ports:
            output = output.replace(f":{port + _PORT_OFFSET}", f":{port}")
        for ours, here in self.sockets.items():
            output = re.sub(rf"{re.escape(here)}\b", ours.replace("\\", r"\\"), output)
        found = []
        for match in re.finditer(_MESSAGE, output, re.MULTILINE):
            message = match["message"].replace(f"{self.root}/{_OURS}", f"/{_OURS}")
            path = None
            if match["path"]:
                resolved = _end_of(Path(match["path"]))
                inside = resolved.is_relative_to(self.root)
                path = str(resolved.relative_to(self.root if inside else "/"))
            places = tuple(dict.fromkeys(self._places(message)))
            found.append(_Complaint(match["level"], message, path, int(match["line"]) if path else None, places))
        return found

    def _places(self, message: str) -> Iterator[str]:
        main, there = self.root / _OURS / "nginx.conf", []
        if taken := re.search(_NAME_TAKEN, message):
            there = [each.where for each in servers(main) if taken["name"] in each.names]
        elif twice := re.search(_TWICE, message):
            there = places(main, twice["directive"])
        elif re.search(_TWO_DEFAULTS, message):
            there = [
                each.where for each in servers(main) for listen in each.listens if "default_server" in listen.options
            ]
        for path, _, line in (place.rpartition(":") for place in there):
            resolved = _end_of(Path(path))
            if resolved.is_relative_to(self.root):
                yield f"{resolved.relative_to(self.root)}:{line}"


def configuration(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """`nginx -t`, among this host's own sites where it has some."""
    if not any(file.path.startswith(f"{_OURS}/") for file in bundle.files):
        return []
    if not (nginx := find_program("nginx")):
        return [ALONE.not_installed()]
    if asks_for_http2(bundle):
        bundle = with_http2(bundle, version_in((yield Program([nginx, "-v"])).output))
    ours = [file for file in bundle.files if file.path.startswith(f"{_OURS}/")]
    root = root.resolve()
    pair = put(root, "pair.pem", stub_pair())
    main = main_text()
    if main is None:
        return [(yield from _alone(nginx, ours, root, pair))]
    if missing := missing_includes(main, bundle.name):
        why = f"this host's nginx.conf has no line {' and no line '.join(missing)}"
        return [(yield from _alone(nginx, ours, root, pair)), ON_THIS_HOST.not_checked(why)]

    outcome, complaints = yield from _test(
        nginx, root / "merged", lambda tree: _merge(tree, ours, bundle.replaces, pair)
    )
    if outcome.failure:
        return [ALONE.not_checked(f"nginx {outcome.failure}")]
    paths = {file.path for file in ours}
    stopper = next((each for each in complaints if each.level != "warn"), None)
    if outcome.status == 0 or (stopper and stopper.path in paths):
        return [_verdict(outcome, complaints, ours)]
    host, without_us = yield from _test(nginx, root / "host", lambda tree: tree.copy(HOST))
    if host.status == 0:
        return [_verdict(outcome, complaints, ours)]
    reason = "; ".join(str(each) for each in without_us if each.level != "warn") or host.failure or host.output.strip()
    return [(yield from _alone(nginx, ours, root, pair)), ON_THIS_HOST.not_checked(_why_broken(reason))]


def _merge(tree: _Tree, ours: list[File], replaced: Sequence[str], pair: Path) -> None:
    """This host's configuration as an installation would leave it."""
    tree.copy(HOST)
    for path in replaced:
        if path.startswith(f"/{_OURS}/"):
            tree.at(path[1:]).unlink(missing_ok=True)
    if any("default_server" in file.text for file in ours):
        # Debian's own default site makes way for ours; two default servers for one port stop nginx.
        tree.at(DEFAULT_SITE).unlink(missing_ok=True)
    tree.overlay(ours, pair)
    if own_main_context(HOST / "nginx.conf"):
        tree.at(SHARED).unlink(missing_ok=True)  # as above


def main_text() -> str | None:
    """This host's nginx.conf; None if it does not exist, or we may not read it."""
    main = HOST / "nginx.conf"
    return main.read_text(errors="replace") if main.is_file() and _readable(main) else None


def missing_includes(text: str, name: str) -> list[str]:
    """The lines for want of which an nginx.conf does not read the files of a deployment.

    nginx.org's packages include conf.d only, and others `sites-enabled/*.conf`: the name of our site has no such end.
    """
    included = re.findall(r"\binclude\s+[\"']?([^;\s\"']+)", re.sub(r"#.*", "", text))
    patterns = [PurePath("/", _OURS, pattern) for pattern in included]
    wanted = {
        SHARED: f"include {HOST}/modules-enabled/*.conf;",
        Paths(name).site_link: f"include {HOST}/sites-enabled/*;",
    }
    return [
        line
        for path, line in wanted.items()
        if not any(PurePath("/", path).match(str(pattern)) for pattern in patterns)
    ]


def _alone(nginx: str, ours: list[File], root: Path, pair: Path) -> Running[Verdict]:
    def minimal(tree: _Tree) -> None:
        put(tree.root, f"{_OURS}/nginx.conf", tree.moved(_MINIMAL))
        tree.overlay(ours, pair)

    outcome, complaints = yield from _test(nginx, root / "alone", minimal)
    return _verdict(outcome, complaints, ours)


def _verdict(outcome: Outcome, complaints: list[_Complaint], ours: list[File]) -> Verdict:
    if outcome.failure:
        return ALONE.not_checked(f"nginx {outcome.failure}")
    faults = _faults(complaints, ours)
    if outcome.status and not faults and not any(re.match(_NOT_HERE, each.message) for each in complaints):
        return ALONE.not_checked(f"nginx failed: {outcome.output.strip()}")
    return ALONE.judged(faults)


def _test(nginx: str, root: Path, fill: Callable[[_Tree], None]) -> Running[tuple[Outcome, list[_Complaint]]]:
    """`nginx -t` on a tree; again without what this nginx was built without."""
    without: set[str] = set()
    while True:
        tree = _Tree(root / str(len(without)), without)
        tree.root.mkdir(parents=True)
        fill(tree)
        tree.finish()
        main = str(tree.root / _OURS / "nginx.conf")
        directives = f"pid {tree.root}/nginx.pid;"
        outcome = yield Program([nginx, "-t", "-q", "-c", main, "-g", directives])
        missing = outcome.output and re.search(_UNKNOWN_TEMPORARY_PATH, outcome.output)
        if not missing or missing[1] in without:
            return outcome, tree.complaints(outcome.output)
        without.add(missing[1])


def _faults(complaints: list[_Complaint], ours: list[File]) -> list[Fault]:
    """The messages of nginx that concern us: all errors, and warnings about our files and our names."""
    paths = {file.path for file in ours}
    site = next((file for file in ours if "server_name" in file.text), ours[0])
    faults = []
    for complaint in complaints:
        taken = re.search(_NAME_TAKEN, complaint.message)
        foreign = [place for place in complaint.places if place.rpartition(":")[0] not in paths]
        others = ", ".join(f"/{place}" for place in foreign)
        twice = re.search(_TWICE, complaint.message)
        if twice and others and (own := _directive_of(ours, twice["directive"])):
            what = f"nginx takes {twice['directive']} once, and {others} has it too; remove it there"
            faults.append(Fault(*own, what))
        elif others and (defaults := re.search(_TWO_DEFAULTS, complaint.message)):
            line = _line_of(site.text, r"^\s*listen .* default_server;")
            fix = "set nginx.default_server to false, or take default_server away there"
            faults.append(Fault(site.path, line, f"{defaults[0]}; {others} is one as well: {fix}"))
        elif complaint.path in paths:
            faults.append(Fault(complaint.path, complaint.line, complaint.message))
        elif taken and (line := _line_of(site.text, rf"^\s*server_name\s.*(?<![\w.-]){re.escape(taken['name'])}[\s;]")):
            what = f"another site of this host is {taken['name']} on {taken['where']} too, and nginx would ignore one"
            fix = _uninstalling(foreign) or f"remove that of {others}"
            faults.append(Fault(site.path, line, f"{what}; {fix}, or use another domain"))
        elif complaint.path and re.match(_NO_CERTIFICATE, complaint.message):
            what = f"/{complaint.path}:{complaint.line} has our port for TLS without TLS, and would need a certificate"
            fix = "give that site another port, or set nginx.https_port to another"
            faults.append(Fault(site.path, _line_of(site.text, r"^\s*listen .*\bssl\b"), f"{what}; {fix}"))
        elif complaint.level != "warn" and re.match(_NO_IPV6, complaint.message):
            faults.append(_without_ipv6(site))
        elif complaint.level != "warn" and not re.match(_NOT_HERE, complaint.message):
            faults.append(Fault(site.path, None, f"does not fit into this host's nginx: {complaint}"))
    return list(dict.fromkeys(faults))


def _uninstalling(places: Sequence[str]) -> str:
    """How to end the deployment that one of these sites is of: after a change of `name`, that of the old name."""
    there = [PurePath(place.rpartition(":")[0]) for place in places]
    paths = [HOST / path.relative_to(_OURS) for path in there if path.is_relative_to(_OURS)]
    ours = [path.name for path in paths if RENDERED in (_text(path) or "")]
    return f"end that deployment, `{AS_ROOT} uninstall --set name={ours[0]}`" if ours else ""


def without_ipv6(listen: Sequence[str]) -> str:
    """The fix for a host without IPv6, on which a site is to listen on these addresses."""
    kept = ", ".join(host for host in listen if ":" not in host) or "0.0.0.0"
    return f"write `listen: [{kept}]` below `nginx:` in deploy.yaml"


def _directive_of(ours: list[File], directive: str) -> tuple[str, int] | None:
    """Where a directive is in our own files."""
    lines = ((file.path, _line_of(file.text, rf"^\s*{directive}\s")) for file in ours)
    return next(((path, line) for path, line in lines if line is not None), None)


def _without_ipv6(site: File) -> Fault:
    hosts = re.findall(r"^\s*listen (?:(\S+):)?\d+[ ;]", site.text, re.MULTILINE)
    fix = without_ipv6([host or "0.0.0.0" for host in dict.fromkeys(hosts)])
    return Fault(site.path, _line_of(site.text, r"^\s*listen \["), f"this host has no IPv6; {fix}")


def _why_broken(reason: str) -> str:
    if "Permission denied" in reason and os.geteuid():
        return f"only root can test this host's nginx: {reason}"
    return f"this host's nginx is broken already: {reason}"


def _line_of(text: str, pattern: str) -> int | None:
    found = re.search(pattern, text, re.MULTILINE)
    return text.count("\n", 0, found.end()) + 1 if found else None


def _end_of(path: Path) -> Path:
    """Where the links of a path lead; `resolve` fails at one that leads to itself."""
    return Path(os.path.realpath(path))


def _text(path: Path) -> str | None:
    """A text of whatever encoding, as nginx reads them: a comment may be in Latin-1. None for what is none."""
    try:
        data = path.read_bytes() if path.is_file() and path.stat().st_size <= _LARGEST_TEXT else b"\0"
    except OSError:
        return None
    return None if b"\0" in data else data.decode(errors="surrogateescape")


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)  # it may be a link to a file outside
    path.write_bytes(text.encode(errors="surrogateescape"))


def _readable(path: Path) -> bool:
    return os.access(path, os.R_OK)
