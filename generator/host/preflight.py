"""A look at a host before anything changes on it: what stands in the way is told, all of it at once."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from generator.config.document import Located
from generator.config.listening import nginx_ports
from generator.config.load import Loaded
from generator.config.project import Project
from generator.config.schema import Deploy, domains, mailbox
from generator.host import belongings, certificates, default_site, engine, facts, hosts, keys, letters
from generator.host.engine import flavour_of
from generator.host.facts import Facts, Listener
from generator.host.firewall import closed
from generator.host.neighbours import Surroundings, without
from generator.host.next_start import at_boot, has_programs, needed
from generator.host.obstacles import WRITTEN, packages, problems, warnings
from generator.host.provide import ROOT, has_runtime
from generator.host.store import Store, is_rendered
from generator.paths import SHARED, engine_unit
from generator.readers.nginx import HOST, main_text, missing_includes
from generator.readers.nginx_sites import ONCE, own_main_context
from generator.rendering.bundle import Bundle
from generator.rendering.render import engine_settings, service_user
from generator.report import CommandError, Report
from service.declaration import Fault


def preflight(loaded: Loaded, store: Store, bundle: Bundle, report: Report) -> None:
    """Report every obstacle.

    Raises:
        CommandError: there is one.
    """
    if not is_clear(loaded, store, bundle, report):
        raise CommandError("Nothing was changed.")


def is_clear(loaded: Loaded, store: Store, bundle: Bundle, report: Report, joins: bool = False) -> bool:
    """Whether nothing prevents an installation; reports all that does.

    A host that `joins` an engine gets what it lacks for that before its installation.
    """
    if ruins := store.ruins():  # all else that is wrong follows from it
        report.error(f"{ruins}, then install again")
        return False
    with report.busy("look at this host"):
        return _is_clear(loaded, store, bundle, report, joins)


def _is_clear(loaded: Loaded, store: Store, bundle: Bundle, report: Report, joins: bool) -> bool:
    deploy = loaded.deploy
    there = gather(deploy, store, bundle, loaded.project)
    will_do = certificate_will_do(loaded, report)
    unfit = [Located(loaded.origins["keys"], "keys", fault) for fault in keys.faults(deploy)]
    if not (joins and engine.lacks(deploy)):
        of_engine = _of_the_engine(deploy, store, report)
        unfit += [Located(loaded.origins["engine.url"], "engine", fault) for fault in of_engine]
    report.faults(unfit)
    for warning in warnings(deploy, there):
        report.warning(warning)
    found = list(problems(deploy, there))
    for problem in found:
        report.error(str(problem))
    return not found and not unfit and will_do


def _of_the_engine(deploy: Deploy, store: Store, report: Report) -> list[Fault]:
    """What is wrong with it; one that is served here and that this installation starts again is asked later."""
    unfit = list(engine.faults(deploy, store))
    if unfit or deploy.engine.url is None:
        return unfit
    if deploy.engine.serve and not (engine.serves(store, deploy.engine.url) and engine.answers(store)):
        return unfit
    ours = engine_settings(deploy)
    joined = store.current is not None and store.generation(store.current).joined.url is not None
    for warning in hosts.warnings(ours):
        report.warning(warning)
    unfit += hosts.faults(ours, joined)
    if deploy.mailbox.keep == "engine" and not deploy.engine.serve and not unfit:  # one that is served is made fit
        unfit += letters.faults(ours, deploy.mailbox)
    return unfit


def certificate_will_do(loaded: Loaded, report: Report) -> bool:
    """Whether clients take the certificate that deploy.yaml names, if it does; says why not."""
    deploy, now = loaded.deploy, time.time()
    report.warnings(Located(loaded.origins[key], key, fault) for key, fault in certificates.warnings(deploy, now))
    unfit = [Located(loaded.origins[key], key, fault) for key, fault in certificates.faults(deploy, now)]
    report.faults(unfit)
    return not unfit


def gather(deploy: Deploy, store: Store, bundle: Bundle, project: Project | None = None) -> Facts:
    """The facts of this host that matter for a deployment."""
    system, version, like = facts.operating_system()
    ours = store.links(store.current) | store.files(store.current)
    paths = [file.path for file in bundle.files if file.installed and file.path != SHARED]
    foreign = [f"/{path}" for path in paths if path not in ours and os.path.lexists(store.root / path)]
    # A unit of ours would hide one of the same name that a package has brought.
    foreign += [path for unit in store.units if os.path.lexists(path := f"/usr/lib/systemd/system/{unit}")]
    user = service_user(deploy)
    mine = belongings.recorded(store, user)
    foreign += belongings.foreign(store, deploy, mine)
    account = facts.account_of(user)
    main = main_text()
    around = after_a_switch(store, deploy, facts.surroundings(*domains(deploy)), facts.bound_by_nginx())
    missing, has_route = facts.missing_packages(packages(deploy, flavour_of(bundle))), facts.has_route()
    return Facts(
        is_root=os.geteuid() == 0,
        system=system,
        version=version,
        like=like,
        systemd_version=facts.systemd_version(),
        nginx_version=facts.nginx_version(),
        has_systemd=Path("/run/systemd/system").is_dir(),
        missing_packages=missing,
        python_version=facts.python_version(),
        places=facts.places(*WRITTEN),
        makes_runtime=bool(missing) or not has_runtime(store, project),
        free_for_data=facts.places(_place_of_data(deploy))[0].free_bytes,
        mailbox_bytes=facts.bytes_in(store.root / str(mailbox(deploy).directory).lstrip("/")),
        engine_bytes=facts.bytes_in(store.root / f"var/lib/{deploy.name}-engine"),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        has_route=has_route,
        taken=tuple(_taken(deploy, store)),
        has_host=deploy.port == "none" or facts.has_address(deploy.host),
        masked=facts.masked(*needed(deploy.manager), *filter(None, [engine_unit(flavour_of(bundle), deploy.name)])),
        disabled=facts.disabled(*at_boot(deploy.manager, deploy.tls)),
        has_programs=has_programs(deploy.manager),
        foreign=tuple(foreign),
        linked=tuple(path for path in linked(deploy) if path not in foreign),
        supervisors_files=facts.supervisors_files() if deploy.manager == "supervisor" else None,
        nginx_fault=foreign_fault(deploy.name),
        has_ipv6=facts.has_ipv6(),
        not_here=tuple(host for host in listening(deploy) if not facts.has_address(host)),
        elsewhere=tuple(filter(facts.is_elsewhere, listening(deploy))),
        no_directories=facts.without_directory(deploy.needs.write),
        around=without(around, deploy.replaces),
        not_by_hand=tuple(path for path in deploy.replaces if is_rendered(Path(path))),
        own_main_context=own_main_context(HOST / "nginx.conf"),
        missing_includes=() if main is None else tuple(missing_includes(main, deploy.name)),
        nginx_carries=None if main is None else facts.nginx_carries(main),
        nginx_outsider="" if main is None else facts.nginx_outsider(main),
        cores=os.cpu_count() or 1,
        primary_group=facts.primary_group(user),
        account=None if user in mine.users else account,
        runs_as_account=store.current is not None and store.user(store.current) == user,
        has_group=account is None and user not in mine.users and facts.group_of(user) is not None,
        has_foreign_default_site=default_site.stands(store.root) and not default_site.is_debians(store.root),
        astray=tuple(domain for domain in domains(deploy) if has_route and not facts.resolves_here(domain)),
        closed_ports=() if deploy.nginx.include else closed(nginx_ports(deploy)),
        clock_behind_s=(ROOT / "pyproject.toml").stat().st_mtime - time.time(),
    )


def after_a_switch(
    store: Store, deploy: Deploy, around: Surroundings, bound: tuple[tuple[str, int], ...]
) -> Surroundings:
    """What is around our site then: nginx's default site comes back where it need not make way any more."""
    returns = default_site.returns(store, deploy.nginx.default_server)
    others = (*around.others, *[facts.default_site_of_the_package()] * returns)
    return msgspec.structs.replace(around, others=others, bound=bound)


def _place_of_data(deploy: Deploy) -> str:
    """Where what mailboxes keep will be: the directory may be a file system of its own."""
    directory = f"/var/lib/{deploy.name}{'-engine' * (deploy.mailbox.keep == 'engine')}"
    return directory if os.path.isdir(directory) else "/var/lib"


def linked(deploy: Deploy) -> Iterator[str]:
    """The directories that may not be links, and are some."""
    yield from facts.linked(deploy.name, deploy.manager, *belongings.needed(deploy))
    # Our link there leads to its neighbour, as seen from where the directory itself is.
    enabled, available = HOST / "sites-enabled", HOST / "sites-available"
    if not deploy.nginx.include and os.path.realpath(f"{enabled}/../{available.name}") != os.path.realpath(available):
        yield str(enabled)


def listening(deploy: Deploy) -> tuple[str, ...]:
    """The addresses on which our site listens; those of a site of the operator's own are there already."""
    return () if deploy.nginx.include else deploy.nginx.listen


def foreign_fault(name: str) -> str:
    """Why nginx would refuse its configuration, if a switch does not end that; else nothing.

    Our own site is about to be replaced, and our shared file makes way for what the operator sets.
    """
    fault = facts.nginx_fault()
    is_ours = re.search(rf"/{name}(?![\w.-])|\"({'|'.join(ONCE)})\" directive is duplicate", fault)
    return "" if is_ours else fault


def _taken(deploy: Deploy, store: Store) -> Iterator[Listener]:
    yield from kept_from_nginx(deploy)
    ours = "" if store.current is None else store.generation(store.current).listener
    if deploy.port != "none" and ours.rpartition(":")[2] != str(deploy.port):
        holder = facts.holder_of(deploy.host, deploy.port)
        if holder is not None:
            yield Listener(f"port {deploy.port} on {deploy.host}", holder, facts.unit_of(holder))


def kept_from_nginx(deploy: Deploy) -> Iterator[Listener]:
    """Those of the addresses and ports of our site that another program has."""
    listen, ports = listening(deploy), nginx_ports(deploy)
    # Who has IPv6's every address has IPv4's too, as a rule; so it is asked for where nobody else is.
    hosts = [host for host in listen if host != "::"] or list(listen)
    for host, port in ((host, port) for host in hosts for port in ports):
        holder = facts.holder_of(host, port)
        if holder is not None and not facts.is_our_nginx(holder):
            yield Listener(f"port {port} on {host}", holder, facts.unit_of(holder), is_for_nginx=True)
