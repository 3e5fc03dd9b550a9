"""What a host is asked, and what it must have answered before it counts."""

import os
import resource
import socket
import subprocess
import sys
import threading
from hashlib import md5
from pathlib import Path

import msgspec
import pytest

from generator.config.schema import Deploy
from generator.host import facts, neighbours, programs


@pytest.fixture
def says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with what supervisor says of a program: one line for each time that it is asked, the last one for ever."""
    program = tmp_path / "supervisorctl"
    program.write_text(f"#!/bin/sh\nhead -n 1 {tmp_path}/says\nsed -i '1{{$!d}}' {tmp_path}/says\n")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}:{programs.PATH}")
    return tmp_path / "says"


@pytest.mark.parametrize(
    ("states", "does_run"),
    [
        ("chat RUNNING pid 7\n", True),
        ("chat STARTING\nchat STARTING\nchat RUNNING pid 7\n", True),
        ("chat STARTING\nchat BACKOFF Exited too quickly\n", False),
        ("chat: ERROR (no such process)\n", False),
    ],
)
def test_supervisor_is_heard_out_until_it_has_made_up_its_mind(says: Path, states: str, does_run: bool) -> None:
    says.write_text(states)
    assert facts.runs("chat", "supervisor") == does_run


def test_a_program_that_starts_for_ever_does_not_run(says: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_START_PATIENCE_S", 0.3)
    says.write_text("chat STARTING\n")
    assert not facts.runs("chat", "supervisor")


def test_an_edited_configuration_file_is_its_packages_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, query = tmp_path / "default", tmp_path / "dpkg-query"
    file.write_text("as packaged")
    digest = md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    query.write_text(f"#!/bin/sh\necho; echo ' {file} {digest}'; echo ' /other 0 obsolete'\n")
    query.chmod(0o755)
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}:{programs.PATH}")
    assert facts.is_as_packaged(file, "nginx-common")
    file.write_text("edited")
    assert not facts.is_as_packaged(file, "nginx-common")
    assert not facts.is_as_packaged(tmp_path / "none", "nginx-common")


@pytest.mark.parametrize(
    ("pid", "unit", "configuration", "files"),
    [
        ("{own}", "524288", "", resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        ("0", "1024", "; für uns\n[supervisord]\nminfds=4096 ; more\n", 4096),
        ("0", "8192", "[supervisord]\nminfds=4096\n", 8192),
        ("0", "1024", ";minfds=4096\n", 1024),
        ("0", "infinity", "", None),
    ],
)
def test_supervisors_limit_of_files_is_that_of_its_process_or_what_it_starts_with(
    pid: str, unit: str, configuration: str, files: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd says what it would say on a host with supervisor."""
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}:{programs.PATH}")
    (tmp_path / "supervisorctl").touch(0o755)
    systemctl = tmp_path / "systemctl"
    said = pid.format(own=os.getpid())
    systemctl.write_text(f'#!/bin/sh\ncase "$*" in *MainPID) echo {said};; *) echo {unit};; esac\n')
    systemctl.chmod(0o755)
    (tmp_path / "supervisord.conf").write_text(configuration, encoding="latin-1")
    assert facts.supervisors_files(tmp_path / "supervisord.conf") == files


def test_where_nginx_is_still_to_be_installed_its_default_site_is_expected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "HOST", tmp_path)
    proxied = msgspec.convert(
        {"domain": "a.org", "nginx": {"proxy_protocol": True, "trusted_proxies": ["10.0.0.5"]}}, Deploy
    )
    (fault, _) = neighbours.faults(proxied, facts.surroundings("a.org"))
    assert str(fault).startswith("/etc/nginx/sites-enabled/default:22 has port 80 without the PROXY protocol")
    (tmp_path / "nginx.conf").write_text("http {}")
    assert list(neighbours.faults(proxied, facts.surroundings("a.org"))) == []


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_who_holds_a_port_is_seen_without_any_program(
    family: socket.AddressFamily, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if host == "::1" and not facts.has_ipv6():
        pytest.skip("this machine has no IPv6")
    monkeypatch.setattr(programs, "PATH", "/nowhere")
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        port = listener.getsockname()[1]
        listener.listen()
        name = Path("/proc/self/comm").read_text().strip()
        assert facts.holder_of(host, port) == f"{name} (process {os.getpid()})"
        with socket.create_connection((host, port)) as client:  # its own port is held, and nobody listens there
            assert facts.holder_of(host, client.getsockname()[1]) in (None, "")
    assert facts.holder_of(host, port) is None


def test_a_port_is_held_by_whoever_listens_at_that_address_or_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}:/usr/bin:/bin")
    ours = f"{Path('/proc/self/comm').read_text().strip()} (process {os.getpid()})"
    with socket.create_server(("127.0.0.3", 0)) as listener:
        port = listener.getsockname()[1]
        program = f"import socket; s = socket.create_server(('127.0.0.2', {port})); print(flush=True); input()"
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            other.stdout.readline()
            held = {host: facts.holder_of(host, port) for host in ("127.0.0.2", "127.0.0.3", "127.0.0.4")}
            fake(tmp_path, "systemctl", f"echo '127.0.0.2:{port} other.socket other.service'")
            unit = facts.holder_of("127.0.0.2", port), facts.holder_of("127.0.0.3", port)
            fake(tmp_path, "systemctl", f"echo '[::]:{port} other.socket other.service'")
            assert facts.holder_of("127.0.0.3", port) == "other.socket"
            other.communicate(b"\n", timeout=10)
    assert str(held["127.0.0.2"]).endswith(f"(process {other.pid})")
    assert (held["127.0.0.3"], held["127.0.0.4"]) == (ours, None)
    assert unit == ("other.socket", ours)


def test_the_lines_of_the_journal_stay_apart_and_come_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "journalctl"
    program.write_text("#!/bin/sh\ncase $* in *--reverse*) printf 'third\\nsecond\\nfirst\\n' ;; esac\n")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}:{programs.PATH}")
    assert facts.log_of(("chat.service",), 0).splitlines() == ["first", "second", "third"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_only_root_may_look_at_stands_in_nobodys_way(tmp_path: Path) -> None:
    directory = tmp_path / "mailbox"
    directory.mkdir(0o700)
    (directory / "mail.db").write_text("kept")
    assert facts.bytes_in(directory) == 4
    os.seteuid(65534)
    try:
        assert facts.bytes_in(directory) == 0
    finally:
        os.seteuid(0)


def test_a_name_is_looked_up_once_however_long_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nobody_answers(name: str, _: None) -> None:
        asked.append(name)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nobody_answers)
    assert facts.surroundings("nobody.example").named == ()
    assert not facts.resolves_here("nobody.example")
    assert asked == ["nobody.example"]


def test_all_names_are_looked_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2, timeout=10)

    def nobody_answers(*_: object) -> None:
        both.wait()
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", nobody_answers)
    assert facts.surroundings("one.example", "two.example").named == ()


def test_a_name_in_the_hosts_own_file_as_debian_writes_it_leads_here(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [entry])
    assert facts.resolves_here("named-by-the-installer.example")


def fake(directory: Path, program: str, text: str) -> None:
    (directory / program).write_text(f"#!/bin/sh\n{text}\n")
    (directory / program).chmod(0o755)


def test_what_nginx_says_of_its_configuration_is_cut_to_what_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}:/usr/bin:/bin")
    said = '2026/11/30 07:22:35 [emerg] 384#384: unknown directive "foo" in /etc/nginx/nginx.conf:84'
    fake(tmp_path, "nginx", f"echo '{said}'; echo 'nginx: configuration file test failed'; exit 1")
    assert facts.nginx_fault() == 'unknown directive "foo" in /etc/nginx/nginx.conf:84'
    (tmp_path / "link").symlink_to("/opt/second/current/etc/nginx/a.conf")
    said = f'[emerg] 7#7: open() "{tmp_path}/link" failed (2: No such file or directory) in /etc/nginx/nginx.conf:5'
    fake(tmp_path, "nginx", f"echo '{said}'; exit 1")
    assert facts.nginx_fault().endswith("nginx.conf:5, a link to /opt/second/current/etc/nginx/a.conf")
    fake(tmp_path, "nginx", "echo killed; exit 1")
    assert facts.nginx_fault() == "killed"
    fake(tmp_path, "nginx", "exit 0")
    assert facts.nginx_fault() == ""


def test_a_unit_that_does_not_start_at_boot_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}:/usr/bin:/bin")
    fake(tmp_path, "systemctl", "case $2 in nginx.service) echo disabled; exit 1;; *) echo enabled;; esac")
    assert facts.disabled("nginx.service", "supervisor.service") == ("nginx.service",)


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("[include]\nfiles = {here}/conf.d/*.conf ; ours\n", True),
        ("[include]\nfiles = other/*.ini conf.d/*.conf\n", True),
        ("[include]\nfiles = %(here)s/conf.d/*\n", True),
        ("[include]\nfiles = {here}/programs/*.conf\n", False),
        (";[include]\n;files = {here}/conf.d/*.conf\n[supervisord]\n", False),
        (None, True),
    ],
)
def test_supervisor_reads_programs_where_its_configuration_says_so(
    text: str | None, reads: bool, tmp_path: Path
) -> None:
    file = tmp_path / "supervisord.conf"
    if text is not None:
        file.write_text(text.format(here=tmp_path))
    assert facts.supervisor_reads_programs(file) == reads


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask for another user")
def test_what_a_user_cannot_read_is_told_where_the_own_directory_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert facts.closed_to("nobody", "/etc/hostname", "/etc/shadow", "/nowhere") == ["/etc/shadow", "/nowhere"]
    assert facts.closed_to("no-such-user", "/etc/hostname") == ["/etc/hostname"]
