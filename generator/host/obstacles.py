"""All that could stop an installation, asked at once and before anything changes. Pure: facts in, findings out."""

import re
from collections.abc import Iterable, Iterator
from math import ceil
from pathlib import PurePath

from generator.config.schema import Deploy, mailbox
from generator.environment import OLDEST_PYTHON
from generator.host import neighbours
from generator.host.facts import NGINX_GROUP, Account, Carries, Facts, Listener, Place
from generator.paths import Paths
from generator.readers.nginx import DEFAULT_SITE, without_ipv6
from generator.rendering.render import (
    nginx_connections,
    open_files_under_supervisor,
    service_user,
    worker_rlimit_nofile,
    worker_shutdown_timeout,
)
from service.declaration import Fault

# In the order of their age. Those that are older lack what is needed; newer ones, and systems that are made from them,
# are judged by it.
SUPPORTED = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04", "26.04")}
OLDEST_SYSTEMD, OLDEST_NGINX = 249, (1, 18)
_OWN_USER = "write a `user:` in deploy.yaml that does not exist yet: it is made, and for this service alone"
# Where an installation writes; of those on one file system the first counts.
WRITTEN = ("/opt", "/run", "/var/lib", "/etc")
# Bytes and files of a runtime, and of a generation. systemd itself reads no units anew below 16 MiB in /run.
NEEDED, NEEDED_FOR_A_CHANGE, NEEDED_BY_SYSTEMD = (300 * 1024**2, 6000), (10 * 1024**2, 300), (16 * 1024**2, 300)
_NEEDED_FOR_LINKS = (1024**2, 100)


def packages(deploy: Deploy, engine: str = "") -> tuple[str, ...]:
    """The Debian packages that a deployment needs; `engine` says which one serves an engine here, if one does."""
    wanted = ["nginx", "openssl", "python3-venv"]
    if deploy.manager == "supervisor":
        wanted += ["supervisor", "logrotate"]
    if deploy.tls == "letsencrypt":
        wanted.append("certbot")
    if engine:
        wanted.append(f"{engine}-server")
    return tuple(sorted(wanted))


def problems(deploy: Deploy, facts: Facts) -> Iterator[Fault]:
    """What must be fixed first."""
    yield from _of_the_host(facts)
    yield from _of_what_we_need(facts)
    yield from _in_the_way(deploy, facts)
    yield from of_directories(service_user(deploy), facts.linked, facts.no_directories)
    for path in facts.not_by_hand:
        yield Fault(f"replaces: {path} was not set up by hand: it is a deployment of wsbundle", "uninstall that one")


def _of_the_host(facts: Facts) -> Iterator[Fault]:
    if not facts.is_root:
        yield Fault("you are not root", "run it with sudo")
    yield from _of_the_release(facts)
    if not facts.has_systemd:
        yield Fault("systemd does not run here", "install on a host or machine container that it has booted")
    for place in facts.places:
        yield from _of_a_place(place, facts.makes_runtime)
    if facts.missing_packages and not facts.has_route:
        names = " ".join(facts.missing_packages)
        yield Fault(f"there is no network, and {names} must still be installed", "connect it, or install them by hand")


def _of_a_place(place: Place, makes_runtime: bool) -> Iterator[Fault]:
    path, free = place.path, place.free_bytes // 1024**2
    if place.mounted == "read-only":
        yield Fault(f"{path} is mounted read-only", f"mount -o remount,rw {path}")
        return
    if path == "/opt" and place.mounted:
        yield Fault(f"/opt is mounted {place.mounted}, so the service cannot run from there", "mount it without that")
    of_its_own = {
        "/opt": NEEDED if makes_runtime else NEEDED_FOR_A_CHANGE,
        "/run": NEEDED_BY_SYSTEMD,
        "/etc": _NEEDED_FOR_LINKS,
    }
    needed_bytes, needed_files = of_its_own.get(path, NEEDED_FOR_A_CHANGE)
    if place.free_bytes < needed_bytes:
        yield Fault(f"{path} has {free} MiB free", f"make room: {needed_bytes // 1024**2} MiB are needed")
    if place.free_files < needed_files:
        what = f"the file system of {path} has {place.free_files} inodes left, as `df -i {path}` shows"
        yield Fault(what, f"remove files: {needed_files} inodes are needed")


def _of_the_release(facts: Facts) -> Iterator[Fault]:
    if not (_was_tried(facts) or _may_do(facts)):
        yield Fault(f"this is {_release(facts)}", f"use one of {_known()}")
    if facts.python_version and facts.python_version < OLDEST_PYTHON:
        yield Fault(f"Python is {_dotted(facts.python_version)}", f"use a system with Python {_dotted(OLDEST_PYTHON)}")
    if facts.has_systemd and facts.systemd_version < OLDEST_SYSTEMD:
        yield Fault(f"systemd is {facts.systemd_version}", f"use a system with systemd {OLDEST_SYSTEMD} or newer")
    if facts.nginx_version and facts.nginx_version < OLDEST_NGINX:
        yield Fault(f"nginx is {_dotted(facts.nginx_version)}", f"install nginx {_dotted(OLDEST_NGINX)} or newer")


def _was_tried(facts: Facts) -> bool:
    return facts.version in SUPPORTED.get(facts.system, ())


def _may_do(facts: Facts) -> bool:
    """Whether a release is newer than those that were tried, or a relative of them."""
    if facts.system not in SUPPORTED:
        return any(system in SUPPORTED for system in facts.like)
    number = facts.version.replace(".", "")
    return not facts.version or (number.isdecimal() and _numbers(facts.version) > _numbers(SUPPORTED[facts.system][0]))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _release(facts: Facts) -> str:
    return f"{facts.system or 'an unknown system'} {facts.version}".strip()


def _known() -> str:
    return "; ".join(f"{system} {', '.join(versions)}" for system, versions in SUPPORTED.items())


def _of_what_we_need(facts: Facts) -> Iterator[Fault]:
    """Faults of the programs of the distribution that serve with us."""
    yield from for_the_next_start(
        facts.nginx_fault, facts.masked, facts.missing_includes, facts.has_programs, facts.nginx_outsider
    )


def broken_nginx(fault: str) -> Fault:
    """A fault of nginx's that is not ours."""
    return Fault(f"nginx is broken already: {fault}", "fix that file first")


def for_the_next_start(
    nginx_fault: str,
    masked: tuple[str, ...],
    missing_includes: tuple[str, ...],
    has_programs: bool,
    nginx_outsider: str,
) -> Iterator[Fault]:
    """What need not be noticed as long as these programs run, and keeps clients away after their next start."""
    if nginx_fault:
        yield broken_nginx(nginx_fault)
    for unit in masked:
        yield Fault(f"{unit} is masked, so that systemd does not start it", f"systemctl unmask {unit}")
    for line in missing_includes:
        where = "at its top" if "modules" in line else "in its http block"
        fix = f"write `{line}` into /etc/nginx/nginx.conf, {where}, in place of any other for that directory"
        yield Fault("nginx.conf does not include the files of wsbundle", fix)
    if not has_programs:
        fix = "write `files = /etc/supervisor/conf.d/*.conf` below [include] in /etc/supervisor/supervisord.conf"
        yield Fault("supervisor does not read the files of wsbundle", f"{fix}; then `systemctl restart supervisor`")
    if nginx_outsider:
        what = f"nginx runs as {nginx_outsider}, and only the group {NGINX_GROUP} may connect to the service"
        yield Fault(what, f"`usermod -aG {NGINX_GROUP} {nginx_outsider} && systemctl reload nginx`")


def _in_the_way(deploy: Deploy, facts: Facts) -> Iterator[Fault]:
    yield from (taken(deploy, listener) for listener in facts.taken)
    if not facts.has_host:
        yield Fault(f"{deploy.host} is not an address of this host", "`ip address` shows those there are")
    yield from not_here(deploy, facts.not_here, facts.has_ipv6)
    yield from neighbours.faults(deploy, facts.around)
    yield from neighbours.immovable(deploy, facts.around)
    if deploy.nginx.default_server and facts.has_foreign_default_site:
        fix = "move it away, or set nginx.default_server to false"
        yield Fault(f"/{DEFAULT_SITE} is not Debian's any more, and nginx takes one default site only", fix)
    yield from _too_little_for_mailboxes(deploy, facts)
    yield from _of_the_user(service_user(deploy), facts)
    yield from _too_few_files(deploy, facts)
    for path in facts.foreign:
        yield Fault(f"{path} is there, and is not ours", "choose another name in deploy.yaml, or move it away")


def not_here(deploy: Deploy, hosts: Iterable[str], has_ipv6: bool) -> Iterator[Fault]:
    """Addresses of our site that this host does not have."""
    for host in hosts:
        if ":" in host and not has_ipv6:
            what = f"this host has no IPv6, so nginx could not listen on {host}"
            yield Fault(what, without_ipv6(deploy.nginx.listen))
        else:
            yield Fault(f"{host} in nginx.listen is not an address of this host", "`ip address` shows those there are")


def taken(deploy: Deploy, listener: Listener) -> Fault:
    """An address that another program has, and we need."""
    by = f" by {listener.holder}" if listener.holder else ""
    return Fault(f"{listener.address} is taken{by}", _way_out(deploy, listener))


def _way_out(deploy: Deploy, listener: Listener) -> str:
    if not listener.is_for_nginx:
        if PurePath(listener.unit).stem in {PurePath(path).stem for path in deploy.replaces}:
            own = Paths(deploy.name).listener
            return f"both run for a while: write `socket: /{own}`, and no port, which is free later"
        return "stop that, or choose another port"
    if listener.holder.startswith("nginx ") and not listener.unit:
        return "nginx.service has not started that, and cannot reload it: stop it, then `systemctl start nginx`"
    stop = f"`systemctl disable --now {listener.unit}`" if listener.unit else "stop that"
    move = "or move one of the two to another port, nginx with nginx.http_port or nginx.https_port"
    return f"clients come to nginx there: {stop}, and let nginx serve what it serves, {move}"


def _too_few_files(deploy: Deploy, facts: Facts) -> Iterator[Fault]:
    needed = open_files_under_supervisor(deploy)
    if facts.supervisors_files is not None and facts.supervisors_files < needed:
        what = f"supervisor lets a program open {facts.supervisors_files} files, and {deploy.name} needs {needed}"
        fix = f"write `minfds={needed}` below [supervisord] in /etc/supervisor/supervisord.conf"
        yield Fault(what, f"{fix}, then `systemctl restart supervisor`; or lower limits.connections")


def of_directories(user: str, linked: tuple[str, ...], missing: tuple[str, ...]) -> Iterator[Fault]:
    """Why systemd would not start a unit: StateDirectory= is a link, say, or there is nothing for ReadWritePaths=."""
    for path in linked:
        fix = f"put the directory itself there; to keep it elsewhere, mount that: `mount --bind ELSEWHERE {path}`"
        yield Fault(f"{path} is a link", fix)
    for path in missing:
        fix = f"mkdir -p '{path}', and once the user {user} is there: chown {user} '{path}'"
        yield Fault(f"needs.write: there is no directory {path}", fix)


def _too_little_for_mailboxes(deploy: Deploy, facts: Facts) -> Iterator[Fault]:
    # Beside the messages there are addresses, indexes, and what is about to be written: twice as much at most.
    keep, needed = deploy.mailbox.keep, 2 * deploy.mailbox.total
    room = facts.free_for_data + (facts.engine_bytes if keep == "engine" else facts.mailbox_bytes)
    if keep == "engine" and deploy.engine.serve and facts.memory_bytes < needed:
        what = f"this host has {facts.memory_bytes // 1024**2} MiB of memory, and full mailboxes in the engine need "
        yield Fault(f"{what}{needed // 1024**2}", f"use at most {facts.memory_bytes // 2} for mailbox.total")
    if (keep == "disk" or (keep == "engine" and deploy.engine.serve)) and room < needed:
        what = f"/var/lib has {facts.free_for_data // 1024**2} MiB free, and full mailboxes need {needed // 1024**2}"
        yield Fault(what, f"make room, or use at most {room // 2} for mailbox.total")


def _of_the_user(user: str, facts: Facts) -> Iterator[Fault]:
    yield from of_the_group(user, facts.primary_group)
    if facts.has_group:
        what = f"there is a group {user}, and no user of that name: one that is made would become its member"
        yield Fault(what, "write another `user:` in deploy.yaml, or remove the group if nobody needs it")
    # An installation of an earlier release may run as it: that must be able to change a setting.
    if facts.account is not None and not facts.runs_as_account and (whose := _whose(facts.account)):
        yield Fault(f"the user {user} {whose}, and the service would own whatever it owns", _OWN_USER)


def of_the_group(user: str, group: str) -> Iterator[Fault]:
    """Its files are for the group of its name, and that is the one that its unit names."""
    if group not in ("", user):
        what = f"the user {user} has the group {group}, so the service could not read its .env"
        yield Fault(what, f"groupadd {user}; usermod --gid {user} {user}; or choose another user")


def _whose(account: Account) -> str:
    """Why a service must not run as a user."""
    if account.uid == 0:
        return "is root"
    return f"is a person (uid {account.uid}, {account.shell})" if account.is_a_person else ""


def not_at_boot(disabled: tuple[str, ...]) -> Iterator[Fault]:
    """Something else may start them, such as a cluster manager."""
    for unit in disabled:
        renews = unit.startswith("certbot")
        so_that = "nothing renews the certificate" if renews else "no client gets through after a boot"
        yield Fault(f"{unit} is disabled, so that {so_that}", f"systemctl enable{' --now' * renews} {unit}")


def _of_the_ways_in(facts: Facts) -> Iterator[Fault]:
    """What may keep clients from finding this host."""
    for host in facts.elsewhere:
        what = f"{host} in nginx.listen is not an address of this host now, so the test message goes to whoever has it"
        yield Fault(what, "leave nginx.listen out: nginx listens at every address then, also at one that comes later")
    if facts.closed_ports:
        ports = ",".join(map(str, facts.closed_ports))
        yield Fault(f"ufw lets no client reach port {ports.replace(',', ' and ')}", f"`ufw allow {ports}/tcp`")
    for domain in facts.astray if facts.has_route else ():
        fix = f"point the DNS record of {domain} here; until then clients do not find it"
        yield Fault(f"{domain} does not lead to this host", fix)


def warnings(deploy: Deploy, facts: Facts) -> Iterator[Fault]:
    """What need not stop an installation and should be known."""
    yield from not_at_boot(facts.disabled)
    if not _was_tried(facts) and _may_do(facts):
        what = f"{_release(facts)} was not tried, and is judged by its versions of Python, systemd and nginx alone"
        yield Fault(what, f"tried were {_known()}")
    yield from _of_the_ways_in(facts)
    if facts.account is not None and (facts.runs_as_account or not _whose(facts.account)):
        user = service_user(deploy)
        whose = _whose(facts.account) or "was there before and is not ours"
        what = f"the user {user} {whose}: whatever else runs as {user} can read this service's keys, and stop it"
        yield Fault(what, _OWN_USER)
    if facts.nginx_carries is not None:
        yield from _too_few_connections(deploy, facts.nginx_carries)
    if deploy.mailbox.keep != "disk" and facts.mailbox_bytes:
        directory = mailbox(deploy).directory
        # Hosts that are joined keep nothing on their disks.
        way = "write mailbox.keep: disk" if deploy.engine.url is None else "install without `engine`, with keep: disk,"
        fix = f"{way} to deliver it; if nobody needs it, remove {directory}"
        yield Fault(f"what mailboxes kept stays in {directory}, and is not delivered", fix)
    if facts.own_main_context:
        yield from _main_context(deploy, facts.own_main_context)
    yield from neighbours.warnings(deploy, facts.around)
    if deploy.workers != "auto" and deploy.workers > 2 * facts.cores:
        fix = "use workers: auto, or a smaller number: more of them only take turns"
        yield Fault(f"workers: {deploy.workers} is more than twice the {facts.cores} cores of this host", fix)
    if facts.clock_behind_s > 0:
        fix = "set it (timedatectl set-ntp true): certificates are checked against it"
        yield Fault(f"the clock is at least {facts.clock_behind_s / 3600:.0f} hours behind", fix)


def _main_context(deploy: Deploy, own: dict[str, tuple[str, str]]) -> Iterator[Fault]:
    """What the operator has set in place of our shared file is his, and must be enough."""
    needed = {
        "worker_rlimit_nofile": str(worker_rlimit_nofile(deploy)),
        "worker_shutdown_timeout": f"{worker_shutdown_timeout(deploy)}s",
    }
    for directive, enough in needed.items():
        where, value = own.get(directive, ("", ""))
        if not where:
            beside = next(iter(own.values()))[0]
            what = f"nginx.conf sets part of what WebSockets need ({beside}), and no {directive}"
            yield Fault(what, f"write `{directive} {enough};` beside it")
        elif _amount(value) < _amount(enough):
            yield Fault(f"{where} sets {directive} {value}, and this deployment needs {enough}", "raise it there")


def _amount(value: str) -> float:
    """A number, or a time in seconds. Source: nginx's "Configuration file measurement units"."""
    units = {"ms": 0.001, "s": 1, "": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 2_592_000, "y": 31_536_000}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdwMy]|)", value))


def _too_few_connections(deploy: Deploy, nginx: Carries) -> Iterator[Fault]:
    needed, there = nginx_connections(deploy), nginx.worker_connections * nginx.worker_processes
    if there < needed:
        fix = (
            f"set worker_connections to at least {ceil(needed / nginx.worker_processes)} in /etc/nginx/nginx.conf; "
            "then `nginx -t && systemctl reload nginx`"
        )
        what = f"nginx takes {there} connections (worker_connections {nginx.worker_connections}, worker processes "
        what += f"{nginx.worker_processes}), and {deploy.limits.connections} clients need {needed}"
        yield Fault(what, fix)
