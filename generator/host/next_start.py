"""What a deployment that runs would not survive: the next start of itself, or of the programs that it needs."""

import os
from collections.abc import Iterator

from generator.config.schema import Certificate, Deploy, Nginx
from generator.host import facts, neighbours
from generator.host.by_hand import ByHand
from generator.host.certificates import Place
from generator.host.made_once import damage
from generator.host.mailbox_files import is_linked, strange
from generator.host.neighbours import names_lost
from generator.host.obstacles import for_the_next_start, not_at_boot, of_directories, of_the_group
from generator.host.store import Generation, Store
from generator.paths import Paths
from generator.program import AS_ROOT
from generator.readers.nginx import main_text, missing_includes
from generator.readers.nginx_sites import Directive, statements
from generator.report import Report
from service.declaration import Fault


def needed(manager: str) -> tuple[str, ...]:
    """The services of packages that must be started at boot."""
    return ("nginx.service", *["supervisor.service"] * (manager == "supervisor"))


def at_boot(manager: str, tls: str) -> tuple[str, ...]:
    """The same, and what renews the certificate: something else may do that, or start them."""
    return (*needed(manager), *["certbot.timer"] * (tls == "letsencrypt"))


def has_programs(manager: str) -> bool:
    """Whether supervisor, where it is the manager, reads our program."""
    return manager != "supervisor" or facts.supervisor_reads_programs()


def lost(store: Store) -> list[str]:
    """What keeps the current generation from starting again as it is, beside its files. Installing puts it right."""
    number = store.current
    if number is None:
        return []
    generation, user = store.generation(number), store.user(number)
    if facts.account_of(user) is None:
        return [f"the service's user {user} does not exist any more"]
    package = f"{generation.engine}-server"
    is_gone = generation.engine and facts.missing_packages((package,))
    gone = [f"the engine's package {package} is not installed any more"] if is_gone else []
    gone += [f"{path} is there again" for path in ByHand(store).standing(generation.replaces)]
    if others := [path for path in strange(store, number) if not is_linked(path)]:
        more = f" (and {len(others) - 1} more)" if others[1:] else ""
        gone.append(
            f"{others[0]}{more} does not belong to the user {user}, and without that the service does not start"
        )
    return [*gone, *_certificate_lost(store, generation), *damage(store, number), *_closed(store, number)]


def _certificate_lost(store: Store, generation: Generation) -> list[str]:
    """What nginx, with every site of the host, would not start without; certbot, or a backup, may have taken it."""
    is_lost = generation.tls == "letsencrypt" and os.geteuid() == 0 and not Place(store.name, store.root).is_whole
    return [f"/{Paths(store.name).tls} leads to no certificate"] * is_lost


def _closed(store: Store, number: int) -> list[str]:
    user, found = store.user(number), []
    for path in facts.closed_to(user, *read_by_the_service(store, number, ours=True)):
        if os.path.exists(path):
            found.append(f"the user {user} cannot read {path}, and without that the service does not start")
        elif path == f"/{Paths(store.name).keys}":
            found.append(
                f"{path} is gone: restore it, from a backup or another host; with new keys no old token is valid"
            )
        elif path == f"/{Paths(store.name).engine_password}":
            found.append(f"{path} is gone, and without that the service does not start")
    return found  # of all other files that are gone it is said that they were edited


def read_by_the_service(store: Store, number: int, ours: bool) -> list[str]:
    """The files that it reads as its own user when it starts: those that we have put there, or the operator's.

    The operator may have put some beside ours.
    """
    generation, paths = store.generation(number), Paths(store.name)
    joined = generation.joined
    read = {generation.keys if generation.auth == "token" else None}
    read |= {joined.password_file, joined.ca, joined.cert, joined.key} if joined.url is not None else set()
    # systemd reads .env itself, as root.
    read |= {f"/{paths.env}"} if generation.manager == "supervisor" else set()
    read |= {f"/{paths.gunicorn}"} if generation.server == "gunicorn" else set()
    own = {f"/{path}" for path in (paths.keys, paths.engine_password, paths.env, paths.gunicorn)}
    return sorted(path for path in read if path is not None and (path in own) == ours)


def as_written(name: str, generation: Generation) -> Deploy:
    """What deploy.yaml said of our site when it was installed, as far as other sites can get in its way."""
    http_port, https_port = generation.ports
    site = Nginx(
        listen=generation.listen,
        http_port=http_port,
        https_port=https_port,
        proxy_protocol=generation.proxy_protocol,
        include=bool(generation.included),
        default_server=generation.default_server,
    )
    return Deploy(name=name, domain=generation.domains, tls="off" if generation.tls == "off" else "files", nginx=site)


def certificate_of(store: Store, number: int) -> Certificate:
    """The files of a certificate that the site of a generation names, whatever deploy.yaml says by now."""
    site = store.pristine(number, Paths(store.name).site)
    text = site.read_text(encoding="utf-8") if site.exists() else ""
    there = (item.words for item in statements(text, "") if isinstance(item, Directive))
    named = {words[0]: words[1] for words in there if len(words) == 2}
    return Certificate(file=named.get("ssl_certificate"), key=named.get("ssl_certificate_key"))


def out_of_reach(store: Store, number: int) -> Iterator[Fault]:
    """What of the operator's own the service of a generation would not start without."""
    user = store.user(number)
    yield from of_directories(user, (), facts.without_directory(store.generation(number).writes))
    theirs = read_by_the_service(store, number, ours=False) if facts.account_of(user) is not None else ()
    for path in facts.closed_to(user, *theirs):
        if os.path.exists(path):
            yield Fault(f"the user {user} cannot read {path}", f"`chgrp {user} {path}; chmod g+r {path}`")
        else:
            yield Fault(f"{path} is gone, and without that the service does not start", "restore it")
    for file in filter(is_linked, strange(store, number)):
        what = f"{file} is, or is behind, a link to what does not belong to the user {user}"
        what += ", and the service does not start with that"
        yield Fault(what, f"see what it is, and put the file itself there, or `chown {user}: {file}`")


def faults(store: Store) -> Iterator[Fault]:
    """Why clients will not be served as they are now after the next start of something. Only root can tell."""
    number, main = store.current, main_text()
    assert number is not None
    generation, user = store.generation(number), store.user(number)
    missing = () if main is None else tuple(missing_includes(main, store.name))
    masked = facts.masked(*needed(generation.manager), *filter(None, [store.engine_unit(number)]))
    outsider = "" if main is None else facts.nginx_outsider(main)
    reads_ours = has_programs(generation.manager)
    nginx_fault = facts.nginx_fault()
    if _certificate_lost(store, generation) and f"/{Paths(store.name).tls}/" in nginx_fault:
        nginx_fault = ""  # which is said below, with its fix
    yield from for_the_next_start(nginx_fault, masked, missing, reads_ours, outsider)
    yield from of_the_group(user, facts.primary_group(user))
    of_systemd = [f"/var/lib/{store.name}"] * (generation.manager == "systemd")
    of_systemd += [f"/var/lib/{store.name}-engine"] * bool(generation.engine)
    linked = facts.linked(store.name, generation.manager, *of_systemd)
    yield from of_directories(user, linked, ())
    around = facts.surroundings(*generation.domains)
    yield from names_lost(store.name, generation.domains, around.others)
    yield from neighbours.faults(as_written(store.name, generation), around)
    for what in lost(store):
        yield Fault(what, f"`{AS_ROOT} install`")
    yield from out_of_reach(store, number)


def told(store: Store, report: Report) -> list[str]:
    """The same in words; warns as well of what something else than systemd may start."""
    number = store.current
    assert number is not None
    generation = store.generation(number)
    for warning in not_at_boot(facts.disabled(*at_boot(generation.manager, generation.tls))):
        report.warning(warning)
    return [str(fault) for fault in faults(store)]


def comes_back(store: Store, report: Report) -> bool:
    """Whether clients will be served as they are now after the next start as well; says why not."""
    found = told(store, report)
    for fault in found:
        report.error(fault)
    return not found
