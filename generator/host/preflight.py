"""All that could stop an installation, asked at once and before anything changes. Pure: facts in, findings out."""

from collections.abc import Iterator
from math import ceil

from generator.host.facts import Account, Carries, Facts
from generator.readers.nginx import DEFAULT_SITE
from generator.render import nginx_connections, service_user
from generator.schema import Deploy
from service.declaration import Fault

# Debian and Ubuntu releases with Python 3.10 or newer and systemd 249 or newer.
SUPPORTED = {"debian": ("12", "13"), "ubuntu": ("22.04", "24.04", "26.04")}
OLDEST_PYTHON = (3, 10)
_OWN_USER = "write a `user:` in deploy.yaml that does not exist yet: it is made, and for this service alone"
NEEDED_BYTES = 300 * 1024 * 1024


def packages(deploy: Deploy) -> tuple[str, ...]:
    """The Debian packages that a deployment needs."""
    wanted = ["nginx", "openssl", "python3-venv"]
    if deploy.manager == "supervisor":
        wanted += ["supervisor", "logrotate"]
    if deploy.tls == "letsencrypt":
        wanted.append("certbot")
    return tuple(sorted(wanted))


def problems(deploy: Deploy, facts: Facts) -> Iterator[Fault]:
    """What must be mended first."""
    yield from _of_the_host(facts)
    yield from _in_the_way(deploy, facts)


def _of_the_host(facts: Facts) -> Iterator[Fault]:
    if not facts.is_root:
        yield Fault("you are not root", "run it with sudo")
    if facts.version not in SUPPORTED.get(facts.system, ()):
        known = "; ".join(f"{system} {', '.join(versions)}" for system, versions in SUPPORTED.items())
        yield Fault(f"this is {facts.system or 'an unknown system'} {facts.version}", f"use one of {known}")
    if not facts.has_systemd:
        yield Fault("systemd does not run here", "install on a host or machine container that it has booted")
    if facts.python_version and facts.python_version < OLDEST_PYTHON:
        yield Fault(f"Python is {'.'.join(map(str, facts.python_version))}", "use a system with Python 3.10 or newer")
    if facts.free_bytes < NEEDED_BYTES:
        free = facts.free_bytes // 1024**2
        yield Fault(f"/opt has {free} MiB free", f"make room: {NEEDED_BYTES // 1024**2} MiB are needed")
    if facts.missing_packages and not facts.has_route:
        names = " ".join(facts.missing_packages)
        yield Fault(f"there is no network, and {names} must still be installed", "connect it, or install them by hand")


def _in_the_way(deploy: Deploy, facts: Facts) -> Iterator[Fault]:
    if facts.nginx_fault:
        yield Fault(f"nginx is broken already: {facts.nginx_fault}", "mend that file first")
    for line in facts.missing_includes:
        where = "at its top" if "modules" in line else "in its http block"
        yield Fault("nginx.conf does not include what we write", f"write `{line}` into /etc/nginx/nginx.conf, {where}")
    for listener in facts.taken:
        by = f" by {listener.holder}" if listener.holder else ""
        yield Fault(f"{listener.address} is taken{by}", "stop that, or choose another port")
    if not facts.has_host:
        yield Fault(f"{deploy.host} is no address of this host", "`ip address` shows those there are")
    if deploy.nginx.default_server and facts.has_foreign_default_site:
        mend = "move it away, or set nginx.default_server to false"
        yield Fault(f"/{DEFAULT_SITE} is not Debian's any more, and nginx takes one default site only", mend)
    yield from _of_the_user(service_user(deploy), facts)
    for path in facts.foreign:
        yield Fault(f"{path} is there, and is not ours", "choose another name in deploy.yaml, or move it away")
    for path in facts.linked:
        # systemd does not start a unit whose StateDirectory= is one.
        mend = f"put the directory itself there; to keep it elsewhere, mount that: `mount --bind ELSEWHERE {path}`"
        yield Fault(f"{path} is a link", mend)


def _of_the_user(user: str, facts: Facts) -> Iterator[Fault]:
    if facts.primary_group not in ("", user):
        what = f"the user {user} has the group {facts.primary_group}, so the service could not read its .env"
        yield Fault(what, f"groupadd {user}; usermod --gid {user} {user}; or choose another user")
    if facts.has_group:
        what = f"there is a group {user}, and no user of that name: one that is made would become its member"
        yield Fault(what, "write another `user:` in deploy.yaml, or remove the group if nobody needs it")
    # An installation of an earlier release may run as it: that must be able to change a setting.
    if facts.account is not None and not facts.runs_as_account and (whose := _whose(facts.account)):
        yield Fault(f"the user {user} {whose}, and the service would own whatever it owns", _OWN_USER)


def _whose(account: Account) -> str:
    """Why a service must not run as a user."""
    if account.uid == 0:
        return "is root"
    return f"is a person (uid {account.uid}, {account.shell})" if account.is_a_person else ""


def warnings(deploy: Deploy, facts: Facts) -> Iterator[Fault]:
    """What need not stop an installation and should be known."""
    if facts.has_route and not facts.resolves:
        mend = f"point the DNS record of {deploy.domain} here; until then clients do not find it"
        yield Fault(f"{deploy.domain} does not lead to this host", mend)
    if facts.account is not None and (facts.runs_as_account or not _whose(facts.account)):
        user = service_user(deploy)
        whose = _whose(facts.account) or "was there before and is not ours"
        what = f"the user {user} {whose}: whatever else runs as {user} can read this service's keys, and stop it"
        yield Fault(what, _OWN_USER)
    if facts.nginx_carries is not None:
        yield from _too_few_connections(deploy, facts.nginx_carries)
    if deploy.workers != "auto" and deploy.workers > 2 * facts.cores:
        mend = "use workers: auto, or a smaller number: more of them only take turns"
        yield Fault(f"workers: {deploy.workers} is more than twice the {facts.cores} cores of this host", mend)
    if facts.clock_behind_s > 0:
        mend = "set it (timedatectl set-ntp true): certificates are checked against it"
        yield Fault(f"the clock is at least {facts.clock_behind_s / 3600:.0f} hours behind", mend)


def _too_few_connections(deploy: Deploy, nginx: Carries) -> Iterator[Fault]:
    needed, there = nginx_connections(deploy), nginx.worker_connections * nginx.worker_processes
    if there < needed:
        mend = (
            f"set worker_connections to at least {ceil(needed / nginx.worker_processes)} in /etc/nginx/nginx.conf; "
            "then `nginx -t && systemctl reload nginx`"
        )
        what = f"nginx takes {there} connections (worker_connections {nginx.worker_connections}, worker processes "
        what += f"{nginx.worker_processes}), and {deploy.limits.connections} clients need {needed}"
        yield Fault(what, mend)
