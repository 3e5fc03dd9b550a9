"""What became of nginx's sites, line by line: which of their servers pass requests on to the old service."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from generator.importing.ledger import HEAD, Claim, Ledger, Said
from generator.importing.options import claim
from generator.importing.site_lines import Beside, judge_line
from generator.readers.entry import Entry

_OTHERS: Said = ("another's", "belongs to another site of this host")
_ELSEWHERE: Said = ("not supported", "the new site leads to the new service alone; several hosts need an engine")
_FOR_ALL: Said = ("another's", "counts for all sites of this host; keep it in a file of its own if another needs it")


class Block(msgspec.Struct, frozen=True):
    """A block of nginx, with all that is in it."""

    head: Entry
    inside: tuple[Entry, ...]

    def values(self, name: str) -> list[tuple[str, Entry]]:
        return [(entry.value, entry) for entry in self.inside if entry.name == name]

    def names(self) -> set[str]:
        return {name for value, _ in self.values("server_name") for name in value.split()}

    def is_in_it(self, entry: Entry) -> bool:
        return entry == self.head or entry in self.inside


class Target(NamedTuple):
    """`port 8765` or `/run/app.sock`, which line says so, and which passes requests on to it."""

    address: str
    says: Entry
    passes: Entry


class Sites:
    """The servers of all sites, and which of them are the old service's."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.entries = list(entries)
        self.servers = list(self._blocks("server"))
        self.upstreams = {block.head.value: block for block in self._blocks("upstream")}

    def _blocks(self, name: str) -> Iterator[Block]:
        for head in self.entries:
            if head.name == name and head.text.endswith("{"):
                inside = head.within
                yield Block(head, tuple(each for each in self.entries if each.context[: len(inside)] == inside))

    def targets(self, server: Block) -> list[Target]:
        """Where a server passes requests on to."""
        found = []
        variables = dict(value.split(None, 1) for value, _ in server.values("set") if " " in value)
        for value, entry in server.values("proxy_pass"):
            value = variables.get(value, value)
            address = re.sub(r"^https?://", "", value)
            block = self.upstreams.get(address.partition("/")[0])
            if block is None:
                found.append(Target(_target(address), entry, entry))
            else:
                there = [(each.split()[0], where) for each, where in block.values("server") if each]
                found += [Target(_target(each), where, entry) for each, where in there]
        return [target for target in found if target.address]

    def of(self, ledger: Ledger) -> tuple[list[Block], list[Target]]:
        """The servers that belong to the service whose listener is claimed, and how they lead to it.

        Among them are those that lead to them by TLS.
        """
        listener = [Claim(f"port {claim.value}", claim.where) for claim in ledger.claims.get("port", ())]
        listener += ledger.claims.get("at", ())
        wanted = {claim.value for claim in listener}
        passing = [(server, self.targets(server)) for server in self.servers]
        services = {frozenset(target.address for target in targets) for _, targets in passing if targets}
        there: set[str] = set(*services) if len(services) == 1 else set()
        if there and not wanted & there:
            # The only one that nginx passes requests on to. One of the two is wrong.
            targets = [target for _, targets in passing for target in targets]
            of_sites = [Claim(target.address, target.says.where) for target in targets]
            ledger.compare("the listener of the service", [*listener[:1], *of_sites], "a Unix socket replaces both")
            wanted = there
        ours = [server for server, targets in passing if any(target.address in wanted for target in targets)]
        names = {name for server in ours for name in server.names()}
        leading = [s for s, targets in passing if not targets and s.names() & names and s.values("return")]
        ways = [target for _, targets in passing for target in targets if target.address in wanted]
        return [server for server in self.servers if server in ours or server in leading], ways


def judge_sites(
    ledger: Ledger, sites: Sites, ours: list[Block], ways: list[Target], is_center: bool, directory: str
) -> None:
    """Say what becomes of every line of the sites."""
    zones = {word for server in ours for entry in server.inside for word in re.findall(r"zone=(\w+)", entry.value)}
    zones |= {value.split()[0] for server in ours for value, _ in server.values("limit_conn") if value}
    upstreams = {way.says for way in ways}
    passing = {way.passes for way in ways}
    for entry in sites.entries:
        server = next((block for block in sites.servers if block.is_in_it(entry)), None)
        if server is not None and server in ours:
            if entry == server.head:
                ledger.add(entry, *HEAD)
            else:
                judge_line(ledger, entry, Beside(server.inside, passing, is_center, directory))
        elif server is not None:
            ledger.add(entry, *_OTHERS)
            ledger.others.append(server.head.where)
            ledger.obstacles.append((server.head.where, "is another site, in the same file"))
        else:
            _judge_outside(ledger, entry, sites, zones, upstreams)
    ledger.forget_others()


def _judge_outside(ledger: Ledger, entry: Entry, sites: Sites, zones: set[str], upstreams: set[Entry]) -> None:
    """What is in no server: it may count for other sites as well."""
    upstream = next((block for block in sites.upstreams.values() if block.is_in_it(entry)), None)
    zone = re.search(r"zone=(\w+)", entry.value)
    if upstream is not None:
        is_ours = any(each in upstreams for each in upstream.inside)
        if is_ours and entry.name == "server" and entry not in upstreams:
            ledger.add(entry, *_ELSEWHERE)
            ledger.obstacles.append((entry.where, f"leads some of the clients to {entry.value}, which stays as it is"))
        else:
            ledger.add(entry, *(("replaced", "by an upstream of its own") if is_ours else _OTHERS))
    elif any("map " in block and "upgrade" in block for block in entry.context) or (
        entry.name == "map" and "upgrade" in entry.value
    ):
        ledger.add(entry, "replaced", "by a map whose name is the deployment's")
    elif entry.name in ("limit_req_zone", "limit_conn_zone") and zone and zone[1] in zones:
        rate = re.search(r"rate=(\d+)r/(s|m)", entry.value)
        if rate and "remote_addr" in entry.value:
            claim(
                ledger,
                entry,
                "limits.handshakes_per_second",
                str(max(1, int(rate[1]) // (60 if rate[2] == "m" else 1))),
            )
        else:
            ledger.add(entry, "replaced", "by zones of the deployment's name")
    else:
        ledger.add(entry, *_FOR_ALL)


def _target(address: str) -> str:
    """`port 8765` of `127.0.0.1:8765/`, the path of a Unix socket, or nothing where it is another host's."""
    if address.startswith("unix:"):
        return address.removeprefix("unix:").partition(":")[0]
    found = re.fullmatch(r"(?:127\.0\.0\.1|localhost|\[::1?\]|0\.0\.0\.0)(?::(\d+))?", address.partition("/")[0])
    return f"port {found[1] or '80'}" if found else ""
