"""An engine that a host serves: of the distribution's own package, and part of the generation like all else."""

import json
from typing import Any

from tests.hosts.console import NAME, Console
from tests.hosts.test_off_the_host import rest

PASSWORD, DATA = f"/etc/{NAME}/engine.password", f"/var/lib/{NAME}-engine"
CERTIFICATE, KEY = "/etc/ssl/engine.crt", "/etc/ssl/engine.key"
SERVED: dict[str, Any] = {"serve": True, "url": "valkey://127.0.0.1:6390", "user": NAME}
SERVED_OVER_TLS = {"serve": True, "url": "valkeys://127.0.0.1:6391", "user": NAME}
SERVED_OVER_TLS |= {"ca": CERTIFICATE, "cert": CERTIFICATE, "key": KEY}


def engine_of(console: Console) -> str:
    """The unit that serves it, by what the distribution has."""
    has_valkey = console.run("sh", "-c", "test -x /usr/bin/valkey-server && echo yes || true").strip()
    return f"{'valkey' if has_valkey else 'redis'}-server@{NAME}.service"


def certify(console: Console, address: str) -> None:
    """A certificate for an address, signed by itself."""
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=engine"
    names = ("-addext", f"subjectAltName=IP:{address}", "-keyout", KEY, "-out", CERTIFICATE)
    console.run("openssl", *words.split(), *names)


def asks(console: Console, *words: str, password: str = "") -> str:
    """What the engine says to somebody with a password, or without one."""
    tool = engine_of(console).partition("-")[0] + "-cli"
    given = ("--user", NAME, "-a", password, "--no-auth-warning") if password else ()
    return console.run(tool, "-p", "6390", *given, *words, check=False)


def test_it_is_installed_and_uninstalled_and_leaves_nothing_but_data(empty: Console) -> None:
    before = rest(empty)
    assert "starts the engine" in plan(empty, engine=SERVED)
    empty.install(engine=SERVED)
    unit = engine_of(empty)
    assert empty.is_active(unit)
    assert not empty.is_active(f"{unit.partition('@')[0]}.service")
    assert empty.run("stat", "-c", "%U:%G %a", PASSWORD).strip() == f"root:{NAME} 640"
    password = empty.run("cat", PASSWORD).strip()
    assert "NOAUTH" in asks(empty, "ping")
    assert "WRONGPASS" in asks(empty, "ping", password="guessed")
    assert asks(empty, "ping", password=password).strip() == "PONG"
    assert "NOPERM" in asks(empty, "config", "get", "dir", password=password)
    assert "NOPERM" in asks(empty, "publish", "others", "hello", password=password)
    assert "noeviction" in asks(empty, "info", "memory", password=password)
    assert "Nothing to do" in empty.install(engine=SERVED)
    assert empty.routes()
    assert "1: " in empty.status()
    empty.wsbundle("uninstall")
    assert not empty.is_active(unit)
    assert empty.run("sh", "-c", f"ls {DATA}").strip()
    assert empty.run("systemctl", "--failed", "--no-legend") == ""
    empty.wsbundle("uninstall", "--purge")
    kept = ("/etc/valkey", "/etc/redis", "/var/lib/valkey", "/var/lib/redis", "/usr/lib/systemd")
    assert {line for line in rest(empty, *kept) - before if NAME in line} == set()


def test_an_engine_that_others_use_is_not_taken_from_them(empty: Console) -> None:
    first = {**SERVED, "host": "first"}
    empty.install(engine=first)
    joins = {"url": SERVED["url"], "user": NAME, "name": NAME, "host": "second", "password_file": PASSWORD}
    empty.install(name="second", domain="second.example.com", port=9100, user=NAME, engine=joins)
    empty.configure(engine=first)
    said = empty.wsbundle("uninstall", "--purge", code=1)
    assert f"second reads {PASSWORD} as well" in said
    assert "second would be alone without the engine" in said
    assert "second would be alone without the engine" in empty.wsbundle("uninstall", code=1)
    assert "2: first (this one), second" in empty.status()
    assert "each host that uses it is alone after that" in plan(empty)
    empty.configure(engine=first)
    empty.wsbundle("uninstall", "--set", "name=second")
    empty.wsbundle("uninstall")


def plan(console: Console, **settings: Any) -> str:
    console.configure(**settings)
    return console.wsbundle("plan", code=3)


def test_what_the_engine_does_not_start_with_is_undone(empty: Console) -> None:
    empty.install(engine=SERVED)
    password = empty.run("cat", PASSWORD)
    certify(empty, "127.0.0.1")
    empty.run("sh", "-c", f"openssl ecparam -genkey -name prime256v1 -out {KEY}")  # of another certificate
    said = empty.install(engine=SERVED_OVER_TLS, code=1)
    assert "generation 1 runs again" in said
    assert empty.current() == "1"
    assert empty.is_active(engine_of(empty))
    assert asks(empty, "ping", password=password.strip()).strip() == "PONG"
    assert empty.routes()
    certify(empty, "127.0.0.1")
    said = empty.install(engine=SERVED_OVER_TLS)
    assert "restart" in said
    assert empty.run("cat", PASSWORD) == password
    assert empty.status()
    said = empty.wsbundle("rollback")
    assert asks(empty, "ping", password=password.strip()).strip() == "PONG"


def test_a_first_one_that_does_not_start_leaves_nothing_that_runs(empty: Console) -> None:
    certify(empty, "127.0.0.1")
    empty.run("sh", "-c", f"openssl ecparam -genkey -name prime256v1 -out {KEY}")
    said = empty.install(engine=SERVED_OVER_TLS, code=1)
    assert "nothing is installed, as before" in said
    assert not empty.is_active(engine_of(empty))
    assert empty.run("find", "/etc", "-name", f"*{NAME}*") == ""
    assert empty.run("systemctl", "--failed", "--no-legend") == ""


def test_a_configuration_that_it_would_not_read_changes_nothing(empty: Console) -> None:
    empty.install(engine=SERVED)
    empty.run("sed", "-i", "s/^appendfsync .*/appendfsync often/", "templates/etc/NAME/engine.conf")
    said = empty.install(engine=SERVED, code=1)
    assert "Refused by engine configuration" in said
    assert f"etc/{NAME}/engine.conf:" in said
    assert empty.current() == "1"


def test_another_password_is_told_to_engine_and_service(empty: Console) -> None:
    empty.install(engine=SERVED)
    beside: dict[str, Any] = {"ping": {"interval": 30}}
    for password, others in ("another", {}), ("third", beside):
        empty.run("sh", "-c", f"echo '{password}' >{PASSWORD}")
        empty.configure(engine=SERVED, **others)
        said = empty.wsbundle("plan", code=3)
        assert f"starts and reloads everything again: the engine knows another password than {PASSWORD}" in said
        empty.install(engine=SERVED, **others)
        assert asks(empty, "ping", password=password).strip() == "PONG"
        assert empty.status()


def test_one_that_was_stopped_masked_or_removed_is_told_and_runs_again(empty: Console) -> None:
    empty.install(engine=SERVED)
    unit = engine_of(empty)
    empty.run("systemctl", "disable", "--now", unit)
    assert f"{unit} is disabled, and does not start at boot" in empty.status(code=1)
    empty.wsbundle("install", "--overwrite")
    assert empty.is_active(unit)
    for command in ("mask", "stop"):
        empty.run("systemctl", command, unit)
        for words in (("status",), ("plan",), ("install",)):
            assert f"systemctl unmask {unit}" in empty.wsbundle(*words, code=1)
        assert empty.is_active(unit) == (command == "mask")
        assert "cut short" not in empty.status(code=1)
    empty.run("systemctl", "unmask", unit)
    empty.wsbundle("install")
    assert empty.is_active(unit)
    package = f"{unit.partition('@')[0]}"
    empty.run("apt-get", "-q", "-y", "remove", package)
    assert f"the engine's package {package} is not installed any more" in empty.status(code=1)
    assert f"+ {package}" in empty.wsbundle("plan", code=3)
    empty.wsbundle("install")
    empty.status()
    empty.run("chmod", "600", PASSWORD)
    assert f"cannot read {PASSWORD}" in empty.status(code=1)
    empty.wsbundle("install")
    empty.status()
    empty.host.reboot()
    assert empty.comes_to_route()
    assert empty.is_active(unit)
    empty.status()


def test_the_password_is_no_part_of_what_everybody_reads(empty: Console) -> None:
    empty.install(engine=SERVED)
    password = empty.run("cat", PASSWORD).strip()
    found = empty.run("grep", "-rlF", password, f"/opt/{NAME}/generations", "/etc", check=False).split()
    assert found == [PASSWORD]
    assert empty.run("stat", "-c", "%U %a", f"/opt/{NAME}/current/engine.acl").strip() == "root 600"
    facts = json.loads(empty.wsbundle("status", "--format", "json"))
    assert facts["alone"] is False


def test_it_keeps_mailboxes_when_it_is_told_to(empty: Console) -> None:
    empty.install(engine=SERVED)
    keeping: dict[str, Any] = {"engine": SERVED, "auth": "token", "mailbox": {"keep": "engine", "total": 64 * 1024**2}}
    assert "restart" in empty.install(**keeping)
    password = empty.run("cat", PASSWORD).strip()
    assert asks(empty, "config", "get", "appendfsync", password=password).split() == ["appendfsync", "always"]
    assert f"maxmemory:{256 * 1024**2}" in asks(empty, "info", "memory", password=password)
    assert "NOPERM" in asks(empty, "get", "others", password=password)
    assert "0 mailboxes: 0 messages of 0 bytes" in empty.wsbundle("mailbox")
    assert "All mailboxes are in x" in empty.wsbundle("mailbox", "--export", "x")
    assert "mailbox-kept" in empty.wsbundle("doctor", "--only", "mailbox-kept")
