"""The account of old files as a whole: which service they run, the settings for it, and what became of every line."""

import re
from collections.abc import Callable, Iterator
from itertools import chain, count
from pathlib import Path, PurePosixPath

import msgspec

from generator.config.rules import ENVELOPE_SIZE
from generator.config.schema import ByHand
from generator.explain import SETTINGS
from generator.importing.deploy_yaml import Value, free_name
from generator.importing.gunicorn_file import judge_file, worker_class_in
from generator.importing.ledger import Claim, Ledger
from generator.importing.options import name_of
from generator.importing.services import Service, judge_service, services_in
from generator.importing.sites import Block, Sites, judge_sites
from generator.importing.sources import Source
from generator.importing.variables import Variable, in_file, is_a, judge_variables
from generator.recognised import recognise

_DIRECT = (
    *("limits.connections", "limits.connections_per_address", "limits.handshakes_per_second"),
    *("limits.handshake_burst", "limits.message_size", "ping.interval", "ping.timeout", "log.level"),
    *("app.body_size", "nginx.http_port", "nginx.https_port", "nginx.proxy_protocol", "workers"),
    "nginx.path",
)
_STAYS = "`replaces` cannot name it, as no unit that is a template; so it is yours to stop it, and to put it away"


class NotImportable(Exception):
    """The files do not say enough, or too much; `faults` has a line for each reason."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


class Account(msgspec.Struct):
    """What was made of the files: settings by key, and the ledger."""

    values: dict[str, Value]
    ledger: Ledger
    service: Service | None
    files: list[str]
    """The files that are the old service's, as far as `replaces` can take them away."""


def chosen(services: list[Service], wanted: str | None) -> Service | None:
    """The one service that is to be imported; None where the files have none, as a site alone.

    Raises:
        NotImportable: there are several, or none of that name.
    """
    able = [service for service in services if service.start is not None]
    if wanted is not None:
        named = [service for service in able if service.name == wanted]
        if not named:
            known = ", ".join(service.name for service in able) or "there is none"
            raise NotImportable(f"--service {wanted}: no unit or program of that name starts a server; known: {known}")
        able = named
    centers = [service for service in able if service.is_center]
    found = centers if len(centers) == 1 else able
    if len(found) > 1:
        names = ", ".join(f"{each.name} ({each.command.where})" for each in found if each.command is not None)
        raise NotImportable(f"several services start a server: {names}; say which with --service NAME")
    if not found and services:
        raise NotImportable(*map(_why_not, services))
    return found[0] if found else None


def _why_not(service: Service) -> str:
    if service.command is None:
        where = service.entries[0].where if service.entries else service.name
        return f"{where}: {service.name} starts nothing; name the unit or the program that does"
    what = f"{service.name} is not started by uvicorn, gunicorn or the notification center's own server.py"
    return f"{service.command.where}: {what}: {service.command.value}"


def account_of(
    sources: list[Source], service: Service | None, domain: str | None, is_taken: Callable[[str], bool]
) -> Account:
    """Judge every line, and draw the settings from what was claimed.

    Raises:
        NotImportable: with all that is missing.
    """
    ledger = Ledger()
    is_center = _is_center(service, sources)
    for other in (each for each in services_in(sources) if service is None or each.entries != service.entries):
        for entry in other.entries:
            ledger.add(entry, "another's", f"belongs to {other.name}")
        for path in dict.fromkeys(entry.path for entry in other.entries):
            if service is not None and any(entry.path == path for entry in service.entries):
                ledger.others.append(other.entries[0].where)
                ledger.obstacles.append((other.entries[0].where, f"{other.name} is another program, in the same file"))
    _judge_others_of_supervisor(ledger, sources)
    if service is not None:
        judge_service(ledger, service)
    variables = _judge_environment(ledger, sources, service, is_center)
    for source in (each for each in sources if each.kind == "gunicorn"):
        judge_file(ledger, source, variables)
    _listen_by_default(ledger, service)
    sites = Sites(entry for source in sources if source.kind == "site" for entry in source.entries)
    ours, ways = sites.of(ledger)
    judge_sites(ledger, sites, ours, ways, is_center, service.directory if service else "")
    ledger.close(entry for source in sources for entry in source.entries)
    _of_the_worker(service, sources, is_center)
    names = [service.name] if service else []
    names += [PurePosixPath(source.path).stem for source in sources if source.kind in ("unit", "program", "site")]
    name = free_name(_candidates(service, is_center), lambda name: name in names or is_taken(name))
    if domain is not None:
        ledger.claims["domain"] = [Claim(domain, "--domain")]
    if "domain" not in ledger.claims:
        raise NotImportable(_why_no_domain(ledger, sites, ours))
    values = dict(_values(ledger, service, is_center, name))
    files = _of_the_old(service, ours)
    ledger.obstacles += [(path, _STAYS) for path in files if path.startswith("/etc/") and not is_a(path, ByHand)]
    if replaces := [path for path in files if _can_go(path, ledger)]:
        why = f"Installing leads the clients over, stops it, and keeps its files in /var/backups/{name}.by-hand."
        values["replaces"] = Value(replaces, why)
    return Account(values, ledger, service, files)


def _listen_by_default(ledger: Ledger, service: Service | None) -> None:
    """Where a server listens that is not told."""
    if service is None or service.start is None or service.command is None or service.start.missing:
        return
    if not {"port", "at", "inherited"} & ledger.claims.keys():
        port = "8765" if service.start.server == "standalone" else "8000"
        ledger.claims["port"] = [Claim(port, service.command.where)]


def _is_center(service: Service | None, sources: list[Source]) -> bool:
    """Whether it is the notification center; so is what no file calls otherwise."""
    if service is not None and service.start is not None and service.start.target:
        return service.is_center
    named = [e.value for source in sources if source.kind == "gunicorn" for e in source.entries if e.name == "wsgi_app"]
    return not named or bool(re.search(r"\b(web\.server|service\.\w+):app\b", named[-1]))


def _judge_others_of_supervisor(ledger: Ledger, sources: list[Source]) -> None:
    """Sections of supervisor's own in a file of programs."""
    for entry in (each for source in sources if source.kind == "program" for each in source.entries):
        head = entry.context[0] if entry.context else ""
        if not head.startswith(("program:", "fcgi-program:")):
            why = "in an included file it changes all of supervisor, not one program"
            ledger.add(entry, "wrong" if head == "supervisord" else "another's", why)


def _judge_environment(
    ledger: Ledger, sources: list[Source], service: Service | None, is_center: bool
) -> dict[str, str]:
    """Judge the variables, those of files among them; the values that count."""
    in_files = [entry for source in sources if source.kind == "environment" for entry in source.entries]
    variables: list[Variable] = list(service.variables) if service else []
    for entry, path in service.env_files if service else []:
        read = any(PurePosixPath(source.path).name == PurePosixPath(path).name for source in sources)
        if read:
            ledger.add(entry, "taken over", "its lines are listed by themselves")
        else:
            ledger.add(entry, "not supported", f"{path} was not read; name it as well")
    variables += in_file(in_files)
    judge_variables(ledger, variables, service.start if service else None, is_center)
    return {variable.name: variable.value for variable in variables}


def _of_the_worker(service: Service | None, sources: list[Source], is_center: bool) -> None:
    """Raises: NotImportable, where gunicorn runs what is no ASGI application."""
    if service is None or service.start is None or service.start.server != "gunicorn" or is_center:
        return
    options = {name_of("gunicorn", name): value for name, value in service.start.options}
    of_file = [worker_class_in(source) for source in sources if source.kind == "gunicorn"]
    worker = options.get("worker_class", next(filter(None, of_file), "sync"))
    if "uvicorn" not in worker.lower() and worker != "asgi" and service.command is not None:
        what = f"{service.start.target} is run by gunicorn's {worker} workers, so it is a WSGI application"
        raise NotImportable(f"{service.command.where}: {what}; wsbundle serves ASGI applications")


def _candidates(service: Service | None, is_center: bool) -> Iterator[str]:
    if is_center or service is None:
        base = "notification-center"
        return chain(["queue-websocket", base], (f"{base}-{number}" for number in count(2)))
    base = service.name[:20]
    directory = PurePosixPath(service.directory).name
    return chain([service.name, directory], (f"{base}-app{number or ''}" for number in count()))


def _why_no_domain(ledger: Ledger, sites: Sites, ours: list[Block]) -> str:
    if ours:
        names = " ".join(sorted(name for server in ours for name in server.names())) or "missing"
        return (
            f"{ours[0].head.where}: its server_name is {names}, which is not the name of one host; give --domain NAME"
        )
    if sites.servers:
        at = ledger.claims.get("port", []) + ledger.claims.get("at", [])
        there = f"{'port ' if ledger.claims.get('port') else ''}{at[0].value}" if at else "the service"
        return f"no site passes requests on to {there}; name the site that does, or give --domain NAME"
    return "no file says for which domain it is; name nginx's site as well, or give --domain NAME"


def _values(ledger: Ledger, service: Service | None, is_center: bool, name: str) -> Iterator[tuple[str, Value]]:
    """The settings, in no order."""
    domains = list(dict.fromkeys(claim.value for claim in ledger.claims.get("domain", ())))
    yield "domain", Value(domains[0] if len(domains) == 1 else domains, _from(ledger, "domain"))
    old = f"The old one is called {service.name}, and this one is installed beside it." if service else ""
    yield "name", Value(name, old)
    at = ledger.claims.get("port", []) + ledger.claims.get("at", [])
    listened = f"; the old one listened on {'port ' if ledger.claims.get('port') else ''}{at[0].value}" if at else ""
    yield "socket", Value(f"/run/{name}/{'ws' if is_center else 'app'}.sock", f"Only nginx reaches it{listened}.")
    for key in _DIRECT:
        if key in ledger.claims and key in SETTINGS:
            if key != "nginx.http_port":
                ledger.compare(key, ledger.claims[key])
            yield key, Value(ledger.value(key), _from(ledger, key))
    size = ledger.value("limits.message_size", 0)
    if is_center and size + ENVELOPE_SIZE > SETTINGS["limits.queue"].default:
        yield "limits.queue", Value(size + ENVELOPE_SIZE, "It must have room for one message.")
    yield from _of_tls(ledger)
    if service is not None:
        why = "systemd would also confine it: leave this out to change over." if service.manager != "systemd" else ""
        yield "manager", Value(service.manager, why)
        if is_center and service.start is not None:
            yield "server", Value(service.start.server, _from(ledger, "server"))
        elif service.start is not None:
            yield from _of_the_app(ledger, service)
    yield from _of_lists(ledger)


def _of_tls(ledger: Ledger) -> Iterator[tuple[str, Value]]:
    file, key = ledger.value("certificate.file"), ledger.value("certificate.key")
    if file and key:
        ledger.compare("certificate.file", ledger.claims["certificate.file"])
        is_certbots = file.startswith("/etc/letsencrypt/")
        why = "certbot goes on renewing it; with `letsencrypt` wsbundle asks for one of its own." if is_certbots else ""
        yield "tls", Value("files", why)
        yield "certificate.file", Value(file, _from(ledger, "certificate.file"))
        yield "certificate.key", Value(key)


def _of_lists(ledger: Ledger) -> Iterator[tuple[str, Value]]:
    for key in ("nginx.trusted_proxies", "nginx.listen", "needs.write"):
        if key in ledger.claims:
            values = list(dict.fromkeys(claim.value for claim in ledger.claims[key]))
            yield key, Value(values, _from(ledger, key))
    for prefix in ("env", "app.static"):
        named = {
            key.removeprefix(f"{prefix}."): claims[-1].value
            for key, claims in ledger.claims.items()
            if key.startswith(f"{prefix}.")
        }
        if named:
            yield (
                prefix,
                Value(named, "With secrets: keep this file readable by root alone." if prefix == "env" else ""),
            )


def _of_the_app(ledger: Ledger, service: Service) -> Iterator[tuple[str, Value]]:
    """An application of the operator's own."""
    assert service.start is not None
    target = service.start.target
    yield "app.callable", Value(target if ":" in target else f"{target}:application", _from(ledger, "server"))
    if not service.directory and service.command is not None:
        ledger.obstacles.append((service.command.where, "no line says where the application is; write app.path"))
    if service.directory:
        yield "app.path", Value(service.directory, "All files in it are installed, but for what .gitignore names.")
    directory = Path(service.directory or ".")
    try:
        found = recognise(directory) if directory.is_dir() else None
        beside = sorted(directory.glob("*")) if service.directory else []
    except OSError:  # it is another's, or on another host
        found, beside = None, []
    ledger.obstacles += _of_files(beside, ledger)
    if found and found.reaches:
        why = f"{found.reaches} looks as if it reached others, and it may connect to nothing that needs.network omits"
        ledger.obstacles.append((service.directory, why))
    lines = [(*line.partition(": ")[::2], reason) for line, reason in found.lines] if found else []
    folder = next((value for key, value, _ in lines if key == "path"), "")
    for key, value, reason in lines:
        if key == "requirements" and folder and value != "null":
            value = f"{folder}/{value}"
        if key in ("requirements", "health"):
            yield f"app.{key}", Value(None if value == "null" else value, reason)


def _of_files(beside: list[Path], ledger: Ledger) -> Iterator[tuple[str, str]]:
    """What an application may need of the files in its directory, and would not have."""
    for path in beside:
        if path.suffix in (".db", ".sqlite", ".sqlite3"):
            yield str(path), "is a database beside the code, where nothing can be written; move it below /var/lib"
        elif path.name == ".env" and not any(PurePosixPath(item.file).name == ".env" for item in ledger.items):
            yield (
                str(path),
                "no line names it, and it is not installed; write what the application reads of it into env",
            )


def _from(ledger: Ledger, key: str) -> str:
    return f"from {ledger.where(key)}" if ledger.where(key) else ""


def _of_the_old(service: Service | None, ours: list[Block]) -> list[str]:
    """The files of the old service: the unit with its socket, or that of the program, and the sites."""
    mine = dict.fromkeys(entry.path for entry in (service.entries if service else ()))
    return [*(path for path in mine if ".service.d/" not in path), *dict.fromkeys(block.head.path for block in ours)]


def _can_go(path: str, ledger: Ledger) -> bool:
    """Whether a file is where the host reads it, and has nothing of another."""
    return is_a(path, ByHand) and path not in {where.rpartition(":")[0] for where in ledger.others}
