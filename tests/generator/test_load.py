"""From deploy.yaml, its overlay and `--set` to one deployment, or every fault at once."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from generator.config.load import MOST_BYTES, ConfigError, Loaded, load, load_text
from generator.config.schema import Deploy


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def faults(env: str | None = None, assignments: Iterable[str] = (), path: str = "deploy.yaml") -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(path, env, assignments)
    return str(refused.value).splitlines()


def given(base: str, overlay: str | None = None, *assignments: str) -> Loaded:
    Path("deploy.yaml").write_text(base)
    if overlay is None:
        return load("deploy.yaml", None, assignments)
    Path("deploy.prod.yaml").write_text(overlay)
    return load("deploy.yaml", "prod", assignments)


# The file.


def test_a_file_that_is_not_there_is_told_with_the_name_it_was_given(here: Path) -> None:
    assert faults() == [
        "deploy.yaml: cannot be read: No such file or directory; "
        "write one with `.venv/bin/wsbundle init DOMAIN`, or name another with -f",
    ]
    assert faults(path="no/such.yaml")[0].startswith("no/such.yaml: cannot be read: No such file")


def test_a_directory_is_no_file(here: Path) -> None:
    assert faults(path=".") == [".: cannot be read: Is a directory; make it a readable file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(here: Path) -> None:
    Path("deploy.yaml").touch(0o000)
    assert faults() == ["deploy.yaml: cannot be read: Permission denied; make it a readable file"]


def test_a_file_whose_reading_fails_is_told(here: Path) -> None:
    assert faults(path="/proc/self/mem") == [
        "/proc/self/mem: cannot be read: Input/output error; make it a readable file"
    ]


@pytest.mark.parametrize("path", ["", "a\0b", "deploy.yaml/x", "x" * 300])
def test_a_path_that_can_be_no_file_is_a_fault_like_another(path: str, here: Path) -> None:
    Path("deploy.yaml").write_text("domain: a.org\n")
    assert len(faults(path=path)) == 1


def test_a_file_that_can_be_no_deploy_yaml_for_its_length_is_not_parsed(here: Path) -> None:
    comment = "#" * (MOST_BYTES - len("domain: a.org\n"))
    assert given("domain: a.org\n" + comment).deploy == Deploy(domain="a.org")
    Path("deploy.yaml").write_text("domain: a.org\n#" + comment)
    assert faults() == [f"deploy.yaml: is longer than {MOST_BYTES} bytes; name a deploy.yaml with -f"]


def test_a_file_without_end_is_not_read_to_its_end(here: Path) -> None:
    assert faults(path="/dev/zero") == [f"/dev/zero: is longer than {MOST_BYTES} bytes; name a deploy.yaml with -f"]


def test_a_pipe_is_a_file(here: Path) -> None:
    os.mkfifo("deploy.yaml")
    writer = threading.Thread(target=lambda: Path("deploy.yaml").write_text("domain: a.org\n"))
    writer.start()
    assert load("deploy.yaml").deploy == Deploy(domain="a.org")
    writer.join()


@pytest.mark.parametrize("text", ["", "\n\n", "# words\n", "---\n", "--- ~\n", "null\n"])
def test_an_empty_file_is_told_what_to_write(text: str, here: Path) -> None:
    Path("deploy.yaml").write_text(text)
    assert faults() == ["deploy.yaml:1:1: is empty; write at least `domain:` with your host name"]


def test_a_byte_order_mark_is_no_letter(here: Path) -> None:
    Path("deploy.yaml").write_bytes(b"\xef\xbb\xbfdomain: a.org\nport: 80\n")
    assert faults()[0].startswith("deploy.yaml:2:7: port: 80 is too small")
    Path("deploy.yaml").write_bytes(b"\xef\xbb\xbfdomain: a\n")
    assert str(load("deploy.yaml").origins["domain"]) == "deploy.yaml:1:9"


def test_a_byte_that_is_not_utf_8_is_told_by_line_and_letter(here: Path) -> None:
    Path("deploy.yaml").write_bytes("domain: a.org\nwelcome: Grüße, ".encode() + b"caf\xe9\n")
    assert faults() == ["deploy.yaml:2:20: holds the byte 0xe9, which is not UTF-8; save the file as UTF-8"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_another_encoding_is_told(encoding: str, here: Path) -> None:
    Path("deploy.yaml").write_text("domain: a.org\n", encoding=encoding)
    assert faults() == ["deploy.yaml:1:1: holds the byte 0xff, which is not UTF-8; save the file as UTF-8"]


def test_faults_are_told_in_the_order_of_the_text(here: Path) -> None:
    Path("deploy.yaml").write_text("workers: 65\nport: 80\ndomain: A\nhost: x\ncolour: blue\n")
    assert [fault.split(":")[1] for fault in faults()] == ["1", "2", "3", "4", "5"]


def test_a_text_needs_no_file() -> None:
    assert load_text("domain: a.org\n", "sample").deploy == Deploy(domain="a.org")


# The overlay.


def test_an_overlay_wins_key_by_key_and_leaves_the_rest_of_a_section(here: Path) -> None:
    deploy = given(
        "domain: a.org\nping: {interval: 50, timeout: 20}\nlimits: {connections: 500}\n",
        "ping: {interval: 40}\n",
    ).deploy
    assert (deploy.ping.interval, deploy.ping.timeout, deploy.limits.connections) == (40, 20, 500)


def test_an_overlay_adds_to_the_environment_and_replaces_lists(here: Path) -> None:
    deploy = given(
        "domain: a.org\nenv: {A: 1, B: 2}\nnginx: {health_from: [10.0.0.1, 10.0.0.2]}\n",
        "env: {B: 3, C: 4}\nnginx: {health_from: [10.0.0.3]}\n",
    ).deploy
    assert deploy.env == {"A": "1", "B": "3", "C": "4"}
    assert deploy.nginx.health_from == ("10.0.0.3",)


@pytest.mark.parametrize("nothing", ["", "# all as it is\n", "ping:\n", "ping: ~\nenv:\n", "ping:\n  # interval: 5\n"])
def test_an_overlay_that_says_nothing_changes_nothing(nothing: str, here: Path) -> None:
    base = "domain: a.org\nping: {interval: 50}\nenv: {A: 1}\n"
    assert given(base, nothing).deploy == given(base).deploy


def test_an_overlay_gives_an_optional_setting_back_with_null(here: Path) -> None:
    assert given("domain: a.org\nuser: web\n", "user: null\n").deploy.user is None


def test_an_overlay_may_hold_what_the_file_lacks(here: Path) -> None:
    assert given("port: 9000\n", "domain: a.org\n").deploy == Deploy(domain="a.org", port=9000)


def test_an_overlay_that_is_not_there_is_told_by_its_name(here: Path) -> None:
    Path("deploy.yaml").write_text("domain: a.org\n")
    assert faults("staging") == [
        "deploy.staging.yaml: cannot be read: No such file or directory; create it, or leave --env out"
    ]


@pytest.mark.parametrize("env", ["", "..", "../prod", "a/b", "a\0b", "x" * 300])
def test_a_name_that_can_be_no_overlay_is_a_fault_like_another(env: str, here: Path) -> None:
    Path("deploy.yaml").write_text("domain: a.org\n")
    assert "leave --env out" in faults(env)[0] or "readable file" in faults(env)[0]


def test_an_overlay_stands_beside_its_file_and_has_its_ending(here: Path) -> None:
    Path("sites").mkdir()
    Path("sites/a.yml").write_text("domain: a.org\n")
    Path("sites/a.prod.yml").write_text("port: 9000\n")
    assert load("sites/a.yml", "prod").deploy.port == 9000


def test_faults_of_both_files_are_told_each_with_its_own(here: Path) -> None:
    Path("deploy.yaml").write_text("domain: a.org\nport: 80\nworkers: 65\n")
    Path("deploy.prod.yaml").write_text("colour: blue\nworkers: 66\n")
    assert [fault.partition(": ")[0] for fault in faults("prod")] == [
        "deploy.prod.yaml:1:1",
        "deploy.prod.yaml:2:10",
        "deploy.yaml:2:7",
    ]


def test_a_value_that_the_overlay_replaces_is_not_judged(here: Path) -> None:
    assert given("domain: a.org\nport: 80\n", "port: 9000\n").deploy.port == 9000


def test_an_unreadable_overlay_leaves_the_rules_unasked(here: Path) -> None:
    """What it would have said is unknown, so every rule could speak of what is not so."""
    Path("deploy.yaml").write_text("domain: a.org\nhost: 0.0.0.0\nping: {interval: 20}\n")
    Path("deploy.prod.yaml").write_text("expose: [\n")
    assert [fault.partition(":")[0] for fault in faults("prod")] == ["deploy.prod.yaml"]


def test_a_socket_in_the_overlay_replaces_the_address_in_the_file(here: Path) -> None:
    deploy = given("domain: a.org\nhost: 127.0.0.1\n", "socket: /run/queue-websocket/ws.sock\n").deploy
    assert (deploy.socket, deploy.port) == ("/run/queue-websocket/ws.sock", "none")


def test_who_names_a_socket_and_no_port_gets_none(here: Path) -> None:
    base = "domain: a.org\nsocket: /run/queue-websocket/a.sock\n"
    assert given(base).deploy.port == "none"
    assert given(base, "port: 9000\n").deploy.port == 9000
    assert given(base, "socket: null\n").deploy.port == 8765
    assert given("domain: a.org\n").deploy.port == 8765


def test_an_overlay_closes_the_port_of_a_file_whatever_its_address(here: Path) -> None:
    assert given("domain: a.org\nhost: '::1'\nport: 9000\n", "port: none\n").deploy.port == "none"
    with pytest.raises(ConfigError, match=r"deploy\.prod\.yaml:1:8: host: .*`port` is none; write a port beside it"):
        given("domain: a.org\nport: 9000\n", "{host: '::1', port: none}\n")


# The command line.


def test_assignments_win_over_both_files_and_later_ones_over_earlier(here: Path) -> None:
    loaded = given("domain: a.org\nport: 9000\n", "port: 9001\n", "port=9002", "port=9003")
    assert loaded.deploy.port == 9003
    assert str(loaded.origins["port"]) == "--set port"


def test_an_assignment_leaves_the_rest_of_its_section(here: Path) -> None:
    loaded = given("domain: a.org\nping: {interval: 50, timeout: 20}\n", None, "ping.interval=40", "env.A=1=2")
    assert (loaded.deploy.ping.interval, loaded.deploy.ping.timeout, loaded.deploy.env) == (40, 20, {"A": "1=2"})
    assert {key: str(origin) for key, origin in loaded.origins.items()} == {
        "domain": "deploy.yaml:1:9",
        "ping.interval": "--set ping.interval",
        "ping.timeout": "deploy.yaml:2:31",
        "env": "--set env.A",
        "env.A": "--set env.A",
    }


def test_an_assignment_takes_what_a_line_of_the_file_would(here: Path) -> None:
    deploy = given(
        "domain: a.org\nuser: web\n",
        None,
        "nginx={trusted_proxies: [10.0.0.1], idle_limit: 350}",
        "nginx.health_from=['::1']",
        "user=null",
        "welcome='Hello, {uuid}'",
    ).deploy
    assert (deploy.nginx.trusted_proxies, deploy.nginx.health_from) == (("10.0.0.1",), ("::1",))
    assert (deploy.user, deploy.welcome) == (None, "Hello, {uuid}")


@pytest.mark.parametrize(
    ("assignment", "fault"),
    [
        ("port", "--set port: is not key=value; write it as --set ping.interval=20"),
        ("=5", "--set =5: is not key=value; write it as --set ping.interval=20"),
        ("", "--set : is not key=value; write it as --set ping.interval=20"),
        ("ping..interval=5", "--set ping..interval=5: is not key=value; write it as --set ping.interval=20"),
        ("port=", "--set port: port: has no value; write one behind the ="),
        ("port=# 5", "--set port: port: has no value; write one behind the ="),
        ("port=80", "--set port: port: 80 is too small; use a whole number from 1024 to 65535, or none"),
        ("port=@", "--set port: port: found character that cannot start any token at '@'; put the value in quotes"),
        ("prot=9000", "--set prot: prot: is not a setting; did you mean port?"),
        ("ping=20", "--set ping: ping: holds settings, not a value; write settings below it, such as `interval:`"),
        ("port.x=20", "--set port.x: port: is a mapping; use a whole number from 1024 to 65535, or none"),
        ("expose=true", "--set expose: expose: has no effect: only nginx reaches the listener; remove it"),
        ("welcome=\x1b[31m", "--set welcome: welcome: holds the character '\\x1b'; remove it"),
    ],
)
def test_a_fault_in_an_assignment_is_told_with_the_assignment(assignment: str, fault: str, here: Path) -> None:
    Path("deploy.yaml").write_text("domain: a.org\n")
    assert faults(assignments=[assignment]) == [fault]


def test_faults_of_all_sources_are_told_at_once(here: Path) -> None:
    Path("deploy.yaml").write_text("domain: a.org\nport: 80\n")
    Path("deploy.prod.yaml").write_text("workers: 0\n")
    assert [fault.partition(": ")[0] for fault in faults("prod", ["name=X", "expose=no"])] == [
        "--set expose",
        "--set name",
        "deploy.prod.yaml:1:10",
        "deploy.yaml:2:7",
    ]


@pytest.mark.parametrize("value", ["Hello # world", "two\nlines"])
def test_what_yaml_would_drop_from_an_assignment_is_refused(value: str, here: Path) -> None:
    (here / "deploy.yaml").write_text("domain: ws.acme.org\n")
    what = "holds # or a line break outside of quotes; put it in quotes"
    assert faults(assignments=[f"welcome={value}"]) == [f"--set welcome: welcome: {what}"]


def test_a_hash_in_quotes_is_part_of_an_assignment(here: Path) -> None:
    assert given("domain: ws.acme.org\n", None, 'welcome="Hello # world"').deploy.welcome == "Hello # world"
