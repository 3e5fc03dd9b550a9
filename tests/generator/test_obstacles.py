"""Every problem of a host has its finding, and its fix; a host without problems has none."""

import os
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from generator.config.load import load_text
from generator.config.schema import Deploy
from generator.host.facts import (
    Account,
    Carries,
    Facts,
    Listener,
    Place,
    nginx_carries,
    nginx_outsider,
    operating_system,
    places,
    primary_group,
)
from generator.host.neighbours import Surroundings
from generator.host.obstacles import (
    NEEDED,
    NEEDED_BY_SYSTEMD,
    NEEDED_FOR_A_CHANGE,
    SUPPORTED,
    packages,
    problems,
    warnings,
)

PERSON = Account(1001, "Jo", "/home/jo", "/bin/bash")
GOOD = Facts(
    is_root=True,
    system="debian",
    version="12",
    like=(),
    systemd_version=252,
    nginx_version=(1, 22, 1),
    has_systemd=True,
    missing_packages=(),
    python_version=(3, 11, 2),
    places=(Place("/opt", *NEEDED), Place("/etc", *NEEDED_FOR_A_CHANGE), Place("/run", *NEEDED_BY_SYSTEMD, "noexec")),
    makes_runtime=True,
    free_for_data=4 * 1024**3,
    engine_bytes=0,
    memory_bytes=4 * 1024**3,
    mailbox_bytes=0,
    has_route=True,
    taken=(),
    has_host=True,
    primary_group="",
    account=None,
    runs_as_account=False,
    has_group=False,
    supervisors_files=None,
    masked=(),
    foreign=(),
    linked=(),
    nginx_fault="",
    disabled=(),
    has_programs=True,
    missing_includes=(),
    has_ipv6=True,
    not_here=(),
    no_directories=(),
    around=Surroundings(),
    own_main_context={},
    nginx_carries=Carries(768, 4),
    nginx_outsider="",
    cores=2,
    has_foreign_default_site=False,
    astray=(),
    closed_ports=(),
    clock_behind_s=-1.0,
)


def deploy(given: str = "") -> Deploy:
    return load_text(f"domain: a.org\n{given}\n", "deploy.yaml").deploy


def told(**facts: object) -> list[str]:
    return [str(fault) for fault in problems(deploy(), replace(GOOD, **facts))]


def warned(given: str = "", **facts: object) -> list[str]:
    return [str(fault) for fault in warnings(deploy(given), replace(GOOD, **facts))]


def test_a_good_host_has_no_problem() -> None:
    assert told() == []
    assert warned() == []


@pytest.mark.parametrize(("system", "versions"), SUPPORTED.items())
def test_every_supported_system_will_do(system: str, versions: tuple[str, ...]) -> None:
    for version in versions:
        assert told(system=system, version=version) == []


@pytest.mark.parametrize("unit", ["old.service", "old.socket"])
def test_the_port_of_a_service_that_is_taken_over_is_not_free_yet(unit: str) -> None:
    taken = (Listener("port 8765 on 127.0.0.1", "python3 (process 7)", unit),)
    given = deploy("name: chat\nreplaces: [/etc/systemd/system/old.service]")
    (problem,) = problems(given, replace(GOOD, taken=taken))
    assert "both run for a while: write `socket: /run/chat/ws.sock`, and no port, which is free later" in str(problem)


@pytest.mark.parametrize(
    ("facts", "finding"),
    [
        ({"is_root": False}, "you are not root; run it with sudo"),
        ({"version": "8"}, "this is debian 8; use one of debian 12, 13; ubuntu"),
        ({"system": "", "version": ""}, "this is an unknown system"),
        ({"system": "fedora", "version": "12"}, "this is fedora 12"),
        ({"has_systemd": False}, "systemd does not run here"),
        ({"python_version": (3, 9, 2)}, "Python is 3.9.2"),
        (
            {"places": (Place("/opt", NEEDED[0] - 1, NEEDED[1]),)},
            "/opt has 299 MiB free; make room: 300 MiB are needed",
        ),
        ({"places": (Place("/run", NEEDED_BY_SYSTEMD[0] - 1, 9999),)}, "/run has 15 MiB free; make room: 16 MiB are"),
        (
            {"places": (Place("/var/lib", NEEDED[0], 299),)},
            "the file system of /var/lib has 299 inodes left, as `df -i /var/lib` shows; remove files: 300 inodes are",
        ),
        ({"missing_packages": ("nginx",), "has_route": False}, "there is no network, and nginx must still be"),
        ({"nginx_fault": "unknown directive in /x:1"}, "nginx is broken already: unknown directive in /x:1"),
        (
            {"has_programs": False},
            "supervisor does not read the files of wsbundle; write `files = /etc/supervisor/conf.d",
        ),
        (
            {"taken": (Listener("port 80 on 0.0.0.0", "apache2 (process 7)", "apache2.service", True),)},
            "port 80 on 0.0.0.0 is taken by apache2 (process 7); clients come to nginx there: "
            "`systemctl disable --now apache2.service`, and let nginx serve what it serves, "
            "or move one of the two to another port, nginx with nginx.http_port or nginx.https_port",
        ),
        (
            {"taken": (Listener("port 80 on 0.0.0.0", "nginx (process 7)", "", True),)},
            "port 80 on 0.0.0.0 is taken by nginx (process 7); nginx.service has not started that, and cannot reload "
            "it: stop it, then `systemctl start nginx`",
        ),
        ({"taken": (Listener("port 80 on 0.0.0.0", "nginx (process 7)", "web.service", True),)}, "disable --now web"),
        ({"taken": (Listener("port 80 on 0.0.0.0", "", "", True),)}, "clients come to nginx there: stop that, and"),
        (
            {"taken": (Listener("port 8765 on 127.0.0.1", "python3 (process 7)"),)},
            "port 8765 on 127.0.0.1 is taken by python3 (process 7); stop that, or choose another port",
        ),
        (
            {"places": (Place("/opt", *NEEDED, "noexec"),)},
            "/opt is mounted noexec, so the service cannot run from there",
        ),
        ({"places": (Place("/etc", 0, 0, "read-only"),)}, "/etc is mounted read-only; mount -o remount,rw /etc"),
        ({"system": "ubuntu", "version": "20.04"}, "this is ubuntu 20.04; use one of"),
        ({"system": "debian", "version": "unheard-of"}, "this is debian unheard-of; use one of"),
        ({"systemd_version": 247}, "systemd is 247; use a system with systemd 249 or newer"),
        ({"nginx_version": (1, 14, 2)}, "nginx is 1.14.2; install nginx 1.18 or newer"),
        (
            {"places": (Place("/opt", 9 * 2**20, 9999),), "makes_runtime": False},
            "9 MiB free; make room: 10 MiB are needed",
        ),
        ({"has_host": False}, "127.0.0.1 is not an address of this host"),
        (
            {"no_directories": ("/srv/uploads",)},
            "needs.write: there is no directory /srv/uploads; mkdir -p '/srv/uploads', and once the user",
        ),
        ({"not_here": ("203.0.113.5",)}, "203.0.113.5 in nginx.listen is not an address of this host; `ip address`"),
        (
            {"not_here": ("::",), "has_ipv6": False},
            "this host has no IPv6, so nginx could not listen on ::; write `listen: [0.0.0.0]` below `nginx:`",
        ),
        (
            {"nginx_outsider": "nginx"},
            "nginx runs as nginx, and only the group www-data may connect to the service; "
            "`usermod -aG www-data nginx && systemctl reload nginx`",
        ),
        (
            {"missing_includes": ("include /etc/nginx/sites-enabled/*;",)},
            "write `include /etc/nginx/sites-enabled/*;` into /etc/nginx/nginx.conf, in its http block",
        ),
        (
            {"missing_includes": ("include /etc/nginx/modules-enabled/*.conf;",)},
            "write `include /etc/nginx/modules-enabled/*.conf;` into /etc/nginx/nginx.conf, at its top",
        ),
        (
            {"primary_group": "users"},
            "the user queue-websocket has the group users, so the service could not read its .env; groupadd",
        ),
        (
            {"supervisors_files": 1024},
            "supervisor lets a program open 1024 files, and queue-websocket needs 1512; write `minfds=1512` below",
        ),
        (
            {"masked": ("nginx.service",)},
            "nginx.service is masked, so that systemd does not start it; systemctl unmask nginx",
        ),
        ({"foreign": ("/etc/x",)}, "/etc/x is there, and is not ours"),
        ({"linked": ("/var/lib/x",)}, "/var/lib/x is a link; put the directory itself there"),
        ({"account": PERSON}, "the user queue-websocket is a person (uid 1001, /bin/bash), and the service would own"),
        ({"account": Account(0, "", "/root", "/bin/sh")}, "the user queue-websocket is root"),
        ({"has_group": True}, "there is a group queue-websocket, and no user of that name"),
    ],
)
def test_each_problem_is_told_with_its_fix(facts: dict[str, object], finding: str) -> None:
    (problem,) = told(**facts)
    assert finding in problem


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ({"version": "14"}, "debian 14"),
        ({"version": ""}, "debian"),
        ({"system": "ubuntu", "version": "28.04"}, "ubuntu 28.04"),
        ({"system": "ubuntu", "version": "25.10"}, "ubuntu 25.10"),
        ({"system": "linuxmint", "version": "22", "like": ("ubuntu", "debian")}, "linuxmint 22"),
        ({"system": "raspbian", "version": "12", "like": ("debian",)}, "raspbian 12"),
    ],
)
def test_a_newer_release_or_a_relative_is_warned_about_and_judged_by_what_is_needed(
    release: dict[str, Any], name: str
) -> None:
    assert told(**release) == []
    (warning,) = warned(**release)
    assert warning.startswith(f"{name} was not tried, and is judged by its versions of Python, systemd and nginx alone")
    assert told(**release, systemd_version=240, python_version=(3, 9, 0)) == [
        "Python is 3.9.0; use a system with Python 3.10",
        "systemd is 240; use a system with systemd 249 or newer",
    ]


def test_a_change_that_makes_no_new_runtime_needs_little_room() -> None:
    assert told(places=(Place("/opt", *NEEDED_FOR_A_CHANGE),), makes_runtime=False) == []


def test_of_one_file_system_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    (place,) = places(str(tmp_path), str(tmp_path / "two"))
    assert (place.path, place.mounted, place.free_files > 0) == (str(tmp_path), "", True)
    assert [place.path for place in places("/proc", str(tmp_path))] == ["/proc", str(tmp_path)]


def test_a_firewall_that_keeps_clients_out_is_a_warning_with_its_command() -> None:
    assert warned(closed_ports=(80, 443)) == ["ufw lets no client reach port 80 and 443; `ufw allow 80,443/tcp`"]


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ('ID=debian\nVERSION_ID="12"\n', ("debian", "12", ())),
        ("PRETTY_NAME='Debian GNU/Linux forky/sid'\nID=debian\n", ("debian", "", ())),
        ('ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n', ("linuxmint", "22", ("ubuntu", "debian"))),
        ("# für uns\nID=debian\nVERSION_ID=13\n", ("debian", "13", ())),
    ],
)
def test_a_release_is_read_from_its_own_file(text: str, system: object, tmp_path: Path) -> None:
    (tmp_path / "os-release").write_text(text, encoding="latin-1")
    assert operating_system(tmp_path / "os-release") == system


def test_all_problems_are_told_at_once() -> None:
    assert len(told(is_root=False, version="8", places=(Place("/opt", 0, 9999),), foreign=("/etc/x", "/etc/y"))) == 5


def test_a_network_is_not_needed_when_all_packages_are_there() -> None:
    assert told(has_route=False) == []


def test_a_missing_python_is_installed_and_so_no_problem() -> None:
    assert told(python_version=()) == []


def test_a_domain_that_leads_elsewhere_is_a_warning() -> None:
    found = warned(astray=("a.org", "www.a.org"))
    assert ["a.org does not lead to this host" in found[0], "www.a.org does not lead" in found[1]] == [True, True]


def test_where_nothing_can_be_asked_the_domain_is_no_news() -> None:
    assert warned(astray=("a.org",), has_route=False) == []


def test_an_address_that_another_host_may_have_is_a_warning() -> None:
    (warning,) = warned(elsewhere=("203.0.113.5",))
    assert "203.0.113.5 in nginx.listen is not an address of this host now, so the test message goes to" in warning


def test_a_clock_that_is_behind_is_a_warning() -> None:
    assert "at least 2 hours behind" in warned(clock_behind_s=7200.0)[0]


@pytest.mark.parametrize(
    ("given", "package"),
    [("manager: supervisor", "supervisor"), ("manager: supervisor", "logrotate"), ("tls: letsencrypt", "certbot")],
)
def test_packages_follow_from_the_choices(given: str, package: str) -> None:
    assert package in packages(deploy(given))
    assert package not in packages(deploy())


def test_only_a_default_server_of_ours_minds_another_default_site() -> None:
    facts = replace(GOOD, has_foreign_default_site=True)
    assert list(problems(deploy(), facts)) == []
    (problem,) = problems(deploy("nginx: {default_server: true}"), facts)
    assert str(problem) == (
        "/etc/nginx/sites-enabled/default is not Debian's any more, and nginx takes one default site only; "
        "move it away, or set nginx.default_server to false"
    )


def test_a_user_with_a_group_of_its_own_name_is_no_problem() -> None:
    assert told(primary_group="queue-websocket") == []


@pytest.mark.parametrize(
    "account",
    [
        Account(999, "", "/nonexistent", "/usr/sbin/nologin"),
        Account(999, "", "/srv", "/bin/sh"),
        Account(1001, "", "/srv", "/usr/sbin/nologin"),
        Account(65_534, "nobody", "/nonexistent", "/bin/sh"),
    ],
)
def test_a_user_that_is_not_ours_is_a_warning(account: Account) -> None:
    assert told(account=account) == []
    (warning,) = warned(account=account)
    assert "the user queue-websocket was there before and is not ours" in warning


def test_a_deployment_that_runs_as_a_person_already_is_warned_and_can_be_changed() -> None:
    facts: dict[str, object] = {"account": PERSON, "runs_as_account": True}
    assert told(**facts) == []
    (warning,) = warned("", **facts)
    assert "the user queue-websocket is a person (uid 1001, /bin/bash)" in warning


def test_an_nginx_that_takes_too_few_connections_is_a_warning() -> None:
    assert warned(nginx_carries=Carries(625, 4)) == []
    assert warned(nginx_carries=Carries(768, 3)) == [
        "nginx takes 2304 connections (worker_connections 768, worker processes 3), and 1000 clients need 2500; "
        "set worker_connections to at least 834 in /etc/nginx/nginx.conf; then `nginx -t && systemctl reload nginx`"
    ]
    assert warned(nginx_carries=None) == []


def test_more_workers_than_the_cores_can_run_are_told_before_installing() -> None:
    assert warned("workers: 4") == warned("workers: auto", cores=1) == []
    assert warned("workers: 5") == [
        "workers: 5 is more than twice the 2 cores of this host; use workers: auto, or a smaller number: "
        "more of them only take turns"
    ]


KEEPING = "auth: token\nmailbox: {keep: disk, total: 1073741824}"


def test_full_mailboxes_find_room_on_the_disk() -> None:
    enough = replace(GOOD, free_for_data=2 * 1024**3)
    assert list(problems(deploy(KEEPING), enough)) == []
    assert list(problems(deploy(KEEPING), replace(GOOD, free_for_data=1024**3, mailbox_bytes=1024**3))) == []
    assert list(problems(deploy(), replace(GOOD, free_for_data=0))) == []
    assert [str(fault) for fault in problems(deploy(KEEPING), replace(GOOD, free_for_data=2 * 1024**3 - 2))] == [
        "/var/lib has 2047 MiB free, and full mailboxes need 2048; make room, or use at most 1073741823 for "
        "mailbox.total"
    ]


def test_full_mailboxes_find_room_in_an_engine_that_is_served() -> None:
    engine = "engine: {serve: true, url: 'unix:///run/queue-websocket-engine/engine.sock', user: queue-websocket}"
    text = f"{KEEPING.replace('disk', 'engine')}\n{engine}"
    enough = replace(GOOD, free_for_data=1024**3, engine_bytes=1024**3, memory_bytes=2 * 1024**3)
    assert list(problems(deploy(text), enough)) == []
    assert [str(fault) for fault in problems(deploy(text), replace(enough, engine_bytes=0, memory_bytes=1024**3))] == [
        "this host has 1024 MiB of memory, and full mailboxes in the engine need 2048; use at most 536870912 for "
        "mailbox.total",
        "/var/lib has 1024 MiB free, and full mailboxes need 2048; make room, or use at most 536870912 for "
        "mailbox.total",
    ]


def test_what_does_not_start_at_boot_is_named_and_may_be_somebody_elses_to_start() -> None:
    assert told(disabled=("nginx.service",)) == []
    assert warned(disabled=("nginx.service",)) == [
        "nginx.service is disabled, so that no client gets through after a boot; systemctl enable nginx.service"
    ]
    assert warned(disabled=("certbot.timer",)) == [
        "certbot.timer is disabled, so that nothing renews the certificate; systemctl enable --now certbot.timer"
    ]


def test_mailboxes_that_are_turned_off_with_messages_in_them_are_named() -> None:
    kept = replace(GOOD, mailbox_bytes=4096)
    assert list(warnings(deploy(KEEPING), kept)) == []
    assert [str(fault) for fault in warnings(deploy(), kept)] == [
        "what mailboxes kept stays in /var/lib/queue-websocket/mailbox, and is not delivered; write mailbox.keep: disk "
        "to deliver it; if nobody needs it, remove /var/lib/queue-websocket/mailbox"
    ]
    joined = deploy("auth: token\nmailbox: {keep: engine}\nengine: {url: 'unix:///run/engine.sock'}\n")
    (fault,) = warnings(joined, kept)
    assert "install without `engine`, with keep: disk, to deliver it" in str(fault)  # with engine.url it is refused


@pytest.mark.parametrize(
    ("text", "carries"),
    [
        ("worker_processes 3;\nevents {\n\tworker_connections 768;\n}\n", Carries(768, 3)),
        ("worker_processes 3; events { worker_connections 10; }", Carries(10, 3)),
        ("# worker_processes 3;\nevents {}\n", Carries(512, 1)),
        ("worker_processes auto;\n", Carries(512, os.cpu_count() or 1)),
        ("worker_processes 2x;\nevents { worker_connections 1k; }\n", Carries(512, 1)),  # which nginx refuses
    ],
)
def test_what_nginx_takes_is_read_from_its_own_file(text: str, carries: Carries) -> None:
    assert nginx_carries(text) == carries


@pytest.mark.parametrize(
    ("text", "outsider"),
    [
        ("worker_processes 3;\nuser nobody;\n", "nobody"),
        ("user nobody nogroup; # user www-data;\n", "nobody"),
        ("user  nobody\twww-data ;", ""),
        ("user www-data;", ""),
        ("user root;", ""),
        ("# user nobody;\nevents {}\n", ""),
        ("user no-such-user;", ""),  # which nginx refuses
    ],
)
def test_who_nginx_runs_as_may_not_be_one_who_may_connect(text: str, outsider: str) -> None:
    assert nginx_outsider(text) == outsider


def test_a_user_has_a_primary_group() -> None:
    assert primary_group("root") == "root"
    assert primary_group("no-such-user") == ""


RLIMIT, SHUTDOWN = "worker_rlimit_nofile", "worker_shutdown_timeout"


def test_what_the_operator_has_set_for_all_of_nginx_is_his_and_must_be_enough() -> None:
    enough = {RLIMIT: ("/etc/nginx/nginx.conf:3", "5000"), SHUTDOWN: ("/etc/nginx/nginx.conf:4", "5m")}
    assert warned(own_main_context=enough) == []
    assert warned(own_main_context={**enough, RLIMIT: ("/etc/nginx/nginx.conf:3", "1000")}) == [
        "/etc/nginx/nginx.conf:3 sets worker_rlimit_nofile 1000, and this deployment needs 5000; raise it there"
    ]
    assert warned(own_main_context={**enough, SHUTDOWN: ("/etc/nginx/nginx.conf:4", "1m 30s")}) == [
        "/etc/nginx/nginx.conf:4 sets worker_shutdown_timeout 1m 30s, and this deployment needs 300s; raise it there"
    ]
    assert warned(own_main_context={RLIMIT: enough[RLIMIT]}) == [
        "nginx.conf sets part of what WebSockets need (/etc/nginx/nginx.conf:3), and no worker_shutdown_timeout; "
        "write `worker_shutdown_timeout 300s;` beside it"
    ]
