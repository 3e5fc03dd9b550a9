"""`wsbundle deploy` without a host: what is asked and answered, in which order, and how it is told."""

import fcntl
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from generator.command_line import parse
from generator.config.load import load, load_text
from generator.config.schema import Deploy
from generator.deploy.answers import Answer, faults, last_deployment, twins, worst
from generator.deploy.answers import parse as parse_answer
from generator.deploy.command import check_destination, in_groups
from generator.deploy.elsewhere import given
from generator.deploy.fleet import Fleet, Row, facts, table
from generator.deploy.kits import kit
from generator.deploy.remote import Lines, Remote, RemoteError
from generator.deploy.sharing import Keys, check_names, joins
from generator.deploy.ssh import LOST, Outcome, Ssh, as_root, fault, words
from generator.deploy.work import Work
from generator.packing.archive import Member, archive
from generator.packing.wheelhouse import Target
from generator.rendering.render import render
from generator.report import CommandError, Report, UsageError
from tests.generator.front_door import ROOT, wsbundle
from tests.programs import missing, needs

LINES = (
    "wsbundle-host 1\npython=3.11\nmachine=x86_64\nlibc=glibc 2.36\nsystem=debian 12\ninit=systemd\n"
    "identity=0123456789abcdef\naddresses=10.0.0.2 fd00::2 \nkeys=fedcba9876543210\n"
    "generation=3\narchive=chat-0123456789ab\nchanged=0123456789ab 1795911236\njob=\n"
    "wsbundle-end\n"
)
ANSWER = Answer(
    python="3.11",
    machine="x86_64",
    libc="glibc 2.36",
    system="debian 12",
    init="systemd",
    identity="0123456789abcdef",
    addresses="10.0.0.2 fd00::2 ",
    keys="fedcba9876543210",
    generation="3",
    archive="chat-0123456789ab",
    changed="0123456789ab 1795911236",
    job="",
)

HOST = ROOT / "generator/deploy/host.sh"
Heard = Callable[[bytes], None]


def answer(**other: str) -> Answer:
    return Answer(**{name: other.get(name, getattr(ANSWER, name)) for name in ANSWER.__struct_fields__})


# What a host answers


@pytest.mark.parametrize("around", ["", "Welcome to ws1!\n", "python=2.7\n"])
def test_an_answer_is_understood_whatever_the_login_shell_prints_around_it(around: str) -> None:
    assert parse_answer(around + LINES + around) == ANSWER


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("wsbundle-end\n", ""),
        ("wsbundle-host 1", "wsbundle-host 2"),
        ("job=\n", "job=\njob=\n"),
        ("job=\n", ""),
        ("python=3.11\nmachine=x86_64", "machine=x86_64\npython=3.11"),
        ("python=3.11", "python=3.11\x1b[2J"),
        ("archive=chat-0123456789ab", "archive=../../etc"),
        ("generation=3", "generation=three"),
        ("wsbundle-end\n", "wsbundle-end\n" + LINES),
    ],
)
def test_an_answer_that_is_not_exactly_one_is_none(old: str, new: str) -> None:
    assert old in LINES
    assert parse_answer(LINES.replace(old, new)) is None


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"init": "runit"}, "is run by runit, not by systemd"),
        ({"machine": "riscv64"}, "is a riscv64, for which there are no wheels; take one of x86_64, aarch64"),
        ({"libc": ""}, "has no glibc"),
        ({"python": "3.9"}, "has Python 3.9, which is too old"),
        ({"python": "", "system": "arch "}, "has no python3, and which one it will have is unknown"),
    ],
)
def test_a_host_that_cannot_run_it_is_named_with_the_reason(other: dict[str, str], said: str) -> None:
    (found,) = faults(answer(**other))
    assert said in str(found)


def test_a_host_without_python_gets_wheels_for_that_of_its_system() -> None:
    assert list(faults(answer(python="", system="debian 13"))) == []
    assert answer(python="", system="debian 13").target == Target("3.13", "x86_64")


def test_a_machine_with_two_names_is_noticed() -> None:
    ((host, found),) = twins([("ws1", ANSWER), ("ws2", answer(identity="f" * 16)), ("10.0.0.1", ANSWER)])
    assert (host, str(found)) == ("10.0.0.1", "is the same machine as ws1; name it once")


def test_what_is_taken_back_is_the_newest_deployment_of_all_hosts() -> None:
    older, newer = answer(changed="aaaaaaaaaaaa 1000"), answer(changed="bbbbbbbbbbbb 2000")
    assert last_deployment([older, newer, older, answer(changed="")]) == "bbbbbbbbbbbb"
    assert last_deployment([answer(changed="")]) == ""


@pytest.mark.parametrize(
    ("codes", "code"), [([], 0), ([0, 0], 0), ([0, 3], 3), ([3, 1, 0], 1), ([4, 3], 4), ([4, 1], 1), ([130, 0], 1)]
)
def test_the_exit_code_is_the_worst_of_all(codes: list[int], code: int) -> None:
    assert worst(codes) == code


# An engine that one of them serves


@pytest.mark.parametrize(
    ("engine", "does"),
    [
        ("{serve: true, user: queue-websocket, url: 'valkey://10.0.0.1:6380', insecure: true}", True),
        ("{serve: true, user: queue-websocket, url: 'valkey://10.0.0.2:6380', insecure: true}", False),
        ("{serve: true, user: queue-websocket, url: 'valkey://[fd00:0::2]:6380', insecure: true}", False),
        ("{serve: true, user: queue-websocket, url: 'valkey://127.0.0.1:6380'}", False),
        ("{serve: true, user: queue-websocket, url: 'unix:///run/queue-websocket-engine/engine.sock'}", False),
        ("{user: queue-websocket, url: 'valkey://10.0.0.1:6380', insecure: true, password_file: /etc/password}", False),
        ("{}", False),
    ],
)
def test_a_host_without_the_address_of_the_engine_that_is_served_joins_it(engine: str, does: bool) -> None:
    text = f"domain: ws.mycompany.org\nengine: {engine}\n"
    assert joins(load_text(text, "deploy.yaml").deploy, ANSWER) is does


def test_hosts_of_one_engine_are_not_given_one_name() -> None:
    def deploy(url: str) -> Deploy:
        engine = f"{{host: ws1, user: queue-websocket, serve: true, url: {url}}}"
        return load_text(f"domain: ws.mycompany.org\nengine: {engine}\n", "deploy.yaml").deploy

    with pytest.raises(
        UsageError, match=r"engine\.host: no two hosts may have the same, and all of these would be 'ws1'"
    ):
        check_names(deploy("'valkey://10.0.0.1:6380', insecure: true"), ["ws1", "ws2"])
    check_names(deploy("'valkey://10.0.0.1:6380', insecure: true"), ["ws1"])
    check_names(deploy("'valkey://127.0.0.1:6380'"), ["ws1", "ws2"])  # an engine each


def test_the_host_that_serves_the_engine_is_the_first_and_the_last_to_go_back() -> None:
    assert list(in_groups(["ws1", "ws2", "ws3"], "ws2", False)) == [["ws2"], ["ws1", "ws3"]]
    assert list(in_groups(["ws1", "ws2", "ws3"], "ws2", True)) == [["ws3", "ws1"], ["ws2"]]
    assert list(in_groups(["ws1", "ws2"], None, True)) == [["ws2", "ws1"]]


# Keys for tokens


class _Host(Remote):
    """A host that is a few files."""

    def __init__(self, destination: str, keys: bytes = b"") -> None:
        self.files, self.said = {"/etc/chat/keys.json": keys} if keys else {}, list[str]()
        super().__init__(_ThisMachine(), destination, "chat", self.said.append, threading.Event())

    def get(self, path: str) -> bytes:
        return self.files[path]

    def put(self, path: str, content: bytes, mode: str) -> bool:
        assert mode == "600"
        self.files[path] = content
        return True


def keys_after(text: str, *hosts: _Host) -> list[bytes]:
    """Those of each host, after all have got theirs."""
    there = {host.destination: host for host in hosts}
    answers = {name: answer(keys=sha256(b"".join(host.files.values())).hexdigest()) for name, host in there.items()}
    answers = {name: each if there[name].files else answer(keys="") for name, each in answers.items()}
    deploy = load_text(f"domain: ws.mycompany.org\nname: chat\n{text}", "deploy.yaml").deploy
    shared = Keys(deploy, there, answers)
    for host in hosts:
        shared.bring(host)
    return [b"".join(host.files.values()) for host in hosts]


def test_hosts_that_have_no_keys_for_tokens_get_the_same() -> None:
    first, second = keys_after("", _Host("ws1"), _Host("ws2"))
    assert first == second
    assert json.loads(first)["keys"][0]["alg"] == "HS256"


def test_a_host_that_comes_later_gets_the_keys_of_those_that_are_there() -> None:
    new, old = _Host("ws1"), _Host("ws2", b"keys")
    assert keys_after("", new, old) == [b"keys", b"keys"]
    assert (new.said, old.said) == (["has got /etc/chat/keys.json from ws2"], [])


@pytest.mark.parametrize(("auth", "says"), [("token", True), ("none", False)])
def test_keys_that_differ_stay_and_are_named_where_they_matter(auth: str, says: bool) -> None:
    one, other = _Host("ws1", b"one"), _Host("ws2", b"other")
    assert keys_after(f"auth: {auth}\n", one, other) == [b"one", b"other"]
    assert [line.startswith("its keys are not those of ws1: each refuses") for line in other.said[:1]] == [True] * says


@pytest.mark.parametrize("text", ["auth: token\nkeys: /etc/keys.json\n", "app: {callable: 'main:app'}\n"])
def test_no_host_gets_keys_that_it_would_not_use(text: str) -> None:
    assert keys_after(text, _Host("ws1"), _Host("ws2")) == [b"", b""]
    assert keys_after("", _Host("ws1")) == [b""]  # it makes its own


# ssh


def test_a_destination_is_never_an_option() -> None:
    assert words("ws1", "true", "-T")[-4:] == ["-T", "--", "ws1", "true"]


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "tcsh"])
def test_every_login_shell_passes_the_words_on(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(missing(shell))
    if os.geteuid():
        pytest.skip("only root needs no sudo")
    given_words = ["a b", "$HOME", "*", "it's", 'a "quote"', ""]
    script = "import sys; print(sys.argv[1:])"
    command = as_root(sys.executable, "-c", script, *given_words)
    assert subprocess.run([shell, "-c", command], capture_output=True, text=True).stdout == f"{given_words}\n"


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (
            Outcome(LOST, "", "root@ws1: Permission denied (publickey).\r\n"),
            "root@ws1: Permission denied (publickey).; let `ssh ws1 true` work without a password",
        ),
        (Outcome(LOST, "", "ssh: connect to host ws1 port 22: Connection refused\n"), "start sshd there"),
        (Outcome(LOST, "", "kex_exchange_identification: Connection closed by remote host\n"), "wait a minute"),
        (Outcome(LOST, "", ""), "ssh failed without a word; try it by hand: ssh ws1"),
        (Outcome(127, "", "sh: 1: exec: sudo: not found\n"), "there is no sudo; log in as root"),
        (Outcome(1, "", "sudo: a password is required\n"), "sudo -n refuses: sudo: a password is required; let this"),
        (Outcome(1, "", "sudo: sorry, you must have a tty to run sudo\n"), "write `Defaults !requiretty` into"),
        (Outcome(1, "", "I'm sorry ann. I'm afraid I can't do that\n"), "sudo -n refuses: I'm sorry ann."),
        (Outcome(0, "This account is currently not available.\n", ""), "did not answer as a host does"),
        (Outcome(1, "", "a\x1b[2Jb\n"), r"(exit code 1): a\x1b[2Jb; see"),
        (Outcome(0, "a\x1b[2Jb\n", ""), r"(exit code 0): a\x1b[2Jb; see"),
    ],
)
def test_why_a_host_does_not_answer_is_told_with_the_fix(outcome: Outcome, said: str) -> None:
    assert said in str(fault("ws1", outcome))


class _ThisMachine(Ssh):
    """Runs here what it is to run there, below a login shell that talks."""

    def __init__(self) -> None:
        pass

    def run(self, destination: str, command: str, given: bytes | None = None, heard: Heard | None = None) -> Outcome:
        done = subprocess.run(["sh", "-c", f"echo Welcome; {command}"], input=given, capture_output=True)
        return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs no sudo")
def test_a_file_comes_from_one_host_to_another_as_it_is(tmp_path: Path) -> None:
    remote = Remote(_ThisMachine(), "here", "chat", print, threading.Event())
    there, here = tmp_path / "there", tmp_path / "new/here"
    there.write_bytes(b"secret\n\n\xff")
    assert remote.put(str(here), remote.get(str(there)), "640")
    assert (here.read_bytes(), here.stat().st_mode & 0o777) == (b"secret\n\n\xff", 0o640)
    assert not remote.put(str(here), remote.get(str(there)), "600")
    with pytest.raises(RemoteError, match="No such file"):
        remote.get(str(tmp_path / "nowhere"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs no sudo")
def test_a_file_that_does_not_arrive_whole_leaves_the_one_that_is_there(tmp_path: Path) -> None:
    class Lost(_ThisMachine):
        def run(
            self, destination: str, command: str, given: bytes | None = None, heard: Heard | None = None
        ) -> Outcome:
            return super().run(destination, command, b"")

    password = tmp_path / "engine.password"
    password.write_text("secret\n")
    remote = Remote(Lost(), "here", "chat", print, threading.Event())
    with pytest.raises(RemoteError, match=f"^{password} did not arrive whole$"):
        remote.put(str(password), b"another\n", "600")
    assert [(path, path.read_text()) for path in tmp_path.iterdir()] == [(password, "secret\n")]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace of its own")
@pytest.mark.parametrize(
    ("changed", "said"),
    [("0123456789ab 3 chat-0123456789ab\n", "0123456789ab"), ("", ""), ("\0" * 30, ""), (" - -\n", "")],
)
def test_a_host_is_understood_whatever_a_power_failure_or_another_program_has_left(changed: str, said: str) -> None:
    """/opt/chat/current belongs to a program that is deployed as Capistrano does it."""
    there = """set -eu
        mount -t tmpfs tmpfs /usr/local/lib; mount -t tmpfs tmpfs /opt
        mkdir -p /usr/local/lib/wsbundle/chat /opt/chat; ln -s releases/v2 /opt/chat/current
        printf %b "$1" >/usr/local/lib/wsbundle/chat/changed
        exec sh "$2" ask chat"""
    words = [shutil.which("unshare") or "", "--mount", "sh", "-c", there, "sh", changed.replace("\0", "\\0"), str(HOST)]
    found = parse_answer(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout)
    assert found is not None
    assert (found.changed.partition(" ")[0], found.generation) == (said, "")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace of its own")
def test_a_job_is_followed_over_lost_connections_whatever_the_login_shell_prints() -> None:
    class Losing(_ThisMachine):
        def run(
            self,
            destination: str,
            command: str,
            given: bytes | None = None,
            heard: Heard | None = None,
        ) -> Outcome:
            job = "/usr/local/lib/wsbundle/chat/jobs/1"
            there = f"mount -t tmpfs tmpfs /usr/local/lib; mkdir -p {job}; echo 3 >{job}/result"
            there += f"; seq 5 >{job}/output; {command}"
            assert heard is not None
            done = super().run(destination, shlex.join(["unshare", "--mount", "sh", "-c", there]), given)
            is_lost = not said
            for start in range(0, len(done.output) - 4 * is_lost, 3):
                heard(done.output[start : start + 3].encode())
            return Outcome(LOST if is_lost else done.code, "", "")

        def connect(self, destination: str) -> Outcome:
            return Outcome(0, "", "")

    said: list[str] = []
    assert Remote(Losing(), "here", "chat", said.append, threading.Event()).follow("1") == 3
    assert said == ["1", "2", "3", "the connection is lost; connecting again", "4", "5"]


class _New(_Host):
    """A host on which the last deployment was the first; host.sh says so."""

    def look(self) -> Answer:
        return answer()

    def do(self, directory: str, work: str, *options: str) -> int:
        there = """set -eu
            mount -t tmpfs tmpfs /usr/local/lib
            mkdir -p /usr/local/lib/wsbundle/chat; echo 0123456789ab none none >/usr/local/lib/wsbundle/chat/changed
            exec sh "$@"
            """
        words = [shutil.which("unshare") or "", "--mount", "sh", "-c", there, "sh", str(HOST), work, "chat", *options]
        return subprocess.run(words, check=False).returncode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace of its own")
def test_a_host_that_was_new_holds_up_no_other_that_is_taken_back() -> None:
    deploy = load_text("domain: ws.mycompany.org\nname: chat\n", "deploy.yaml").deploy
    there = {host: _New(host) for host in ("ws1", "ws2")}
    work = Work(Namespace(back=True), deploy, there, dict.fromkeys(there, ANSWER))
    fleet = Fleet(list(there), Report(json=True))
    for row in fleet.rows.values():
        row.before = ANSWER.generation
    fleet.each(["ws2", "ws1"], work.take_back, 1, False)
    new = "stays, it was new; to remove it: .venv/bin/wsbundle uninstall --host"
    assert [row.result for row in fleet.rows.values()] == [f"{new} ws1", f"{new} ws2"]
    assert fleet.end() == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace of its own")
def test_an_archive_for_which_there_is_no_room_leaves_nothing_of_it(tmp_path: Path) -> None:
    packed = archive("chat", [Member(path="wheels/x", content=bytes(3 << 20))])
    (tmp_path / "archive").write_bytes(packed.content)
    there = """set -eu
        mount -t tmpfs -o size=2m tmpfs /usr/local/lib
        mkdir -p /usr/local/lib/wsbundle/chat; cp "$2" /usr/local/lib/wsbundle/chat/incoming.1
        sh "$1" unpack chat "$3" incoming.1 "$4" || ls -A /usr/local/lib/wsbundle/chat"""
    unshare = [shutil.which("unshare") or "", "--mount", "sh", "-c", there, "sh", str(HOST), str(tmp_path / "archive")]
    done = subprocess.run([*unshare, packed.directory, packed.digest], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("wsbundle: nothing was changed, the archive cannot be unpacked; make room in /usr/")


def test_output_is_told_line_by_line_and_steers_no_terminal() -> None:
    said: list[str] = []
    lines = Lines(said.append)
    for piece in ("Grüße\n".encode()[:3], "Grüße\n".encode()[3:], b"a\x1b[2J", b"b\nrest"):
        lines.take(piece)
    lines.end()
    assert said == ["Grüße", r"a\x1b[2Jb", "rest"]
    assert lines.received == len("Grüße\na\x1b[2Jb\nrest".encode())


# What they are sent


@pytest.mark.slow
def test_two_at_once_take_turns_with_the_wheels_and_a_download_that_fails_takes_none_away(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"CONFIG_FILE": "/dev/null", "NO_INDEX": "1", "FIND_LINKS": str(here)}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    loaded = load("deploy.yaml")
    rendered = render(loaded.deploy)
    wheels, others = here / "build/wheels", here / "build/wheels/3.11-x86_64-0123456789ab"
    others.mkdir(parents=True)
    with ThreadPoolExecutor(1) as pool:
        turn = os.open(wheels, os.O_RDONLY)
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            made = pool.submit(kit, loaded, rendered, Target("3.11", "x86_64"), False, Report(json=True))
            waiting = rf"-> FLOCK .* {os.getpid()} .*:{wheels.stat().st_ino} "
            while not re.search(waiting, Path("/proc/locks").read_text()):
                assert not made.done()
        finally:
            os.close(turn)
        with pytest.raises(CommandError, match="Not all wheels were found"):
            made.result()
    assert list(wheels.iterdir()) == [others]


# The order of hosts


def played(
    hosts: list[str], act: Callable[[Row], None], at_once: int = 1, keeps_going: bool = False
) -> tuple[int, list[Row]]:
    fleet = Fleet(hosts, Report(json=True))
    fleet.each(hosts, act, at_once, keeps_going)
    return fleet.end(), list(fleet.rows.values())


def fails_at(*hosts: str) -> Callable[[Row], None]:
    def act(row: Row) -> None:
        if row.host in hosts:
            raise CommandError("it does not work")
        row.result = "installed"

    return act


def test_the_first_host_that_fails_is_the_last_that_is_tried() -> None:
    code, rows = played(["ws1", "ws2", "ws3"], fails_at("ws2"))
    assert (code, [row.result for row in rows]) == (1, ["installed", "it does not work", "not tried"])


def test_keep_going_goes_on() -> None:
    code, rows = played(["ws1", "ws2", "ws3"], fails_at("ws2"), keeps_going=True)
    assert (code, [row.result for row in rows]) == (1, ["installed", "it does not work", "installed"])


def test_several_at_once_are_under_way_together() -> None:
    together = threading.Barrier(2, timeout=30)

    def act(row: Row) -> None:
        together.wait()
        row.result = "installed"

    assert played(["ws1", "ws2"], act, at_once=2)[0] == 0


def test_those_that_have_begun_come_to_their_end_when_another_fails() -> None:
    failed = threading.Event()

    def act(row: Row) -> None:
        if row.host == "ws1":
            failed.set()
            raise CommandError("it does not work")
        assert failed.wait(30)
        row.result = "installed"

    _, rows = played(["ws1", "ws2", "ws3"], act, at_once=2)
    assert [row.result for row in rows] == ["it does not work", "installed", "not tried"]


def test_the_table_has_a_line_for_each_host() -> None:
    rows = [
        Row(host="ws1", before="", now="1", seconds=31.2, result="installed"),
        Row(host="admin@ws22", before="12", now="?", result="unknown"),
    ]
    assert list(table(rows)) == [
        "host        before  now  seconds  result",
        "ws1         -       1    31.2     installed",
        "admin@ws22  12      ?    0.0      unknown",
    ]
    assert [(told["before"], told["now"]) for told in map(facts, rows)] == [(None, 1), (12, None)]


# The command line


@pytest.mark.parametrize("host", ["ws1", "admin@10.0.0.2", "ssh://ws1:2222", "fe80::1%eth0", "ann@corp@ws1", "[::1]"])
def test_what_ssh_connects_to_is_taken(host: str) -> None:
    check_destination(host)


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "ws1;true", "$(true)", "", "a@-oX", "ws1\n", "ws1,ws2"])
def test_what_is_no_destination_is_refused(host: str) -> None:
    with pytest.raises(UsageError):
        check_destination(host)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.yaml").write_text("domain: ws.mycompany.org\n")
    return tmp_path


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("deploy", "no host is named; name some, as wsbundle deploy ws1.example.com, or list them under `hosts`"),
        ("deploy ws1 ws2 ws1", "ws1 is named twice; name it once"),
        ("deploy ws1,ws2", "'ws1,ws2' is not what ssh connects to; write it as ws1.example.com or admin@10.0.0.2"),
        ("deploy ws1 --parallel 0", "argument --parallel: '0' is not a number of hosts; use 1 or more"),
        ("deploy ws1 --plan --back", "argument --back: not allowed with argument --plan"),
        ("deploy ws1 --full", "--full is for --plan, and without that the hosts would be changed; add --plan, or"),
        ("status --host=-oX", "'-oX' is not what ssh connects to"),
    ],
)
def test_a_wrong_command_line_is_told(here: Path, line: str, message: str) -> None:
    outcome = wsbundle(*line.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_a_fault_in_deploy_yaml_is_told_before_any_host_is_asked(here: Path) -> None:
    (here / "deploy.yaml").write_text("domain: ws.mycompany.org\nport: 80\n")
    assert "deploy.yaml:2:7: port: 80 is too small" in wsbundle("deploy", "ws1.invalid").err


def test_without_ssh_its_package_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    outcome = wsbundle("status", "--host", "ws1")
    assert (outcome.code, outcome.err) == (
        1,
        "ssh is not installed here; on Debian and Ubuntu: apt-get install -y openssh-client\n",
    )


@needs("ssh")
def test_a_host_that_does_not_answer_is_told(here: Path) -> None:
    outcome = wsbundle("deploy", "127.0.0.1:1", "nobody@host.invalid", "--plan")
    assert outcome.code == 1
    assert "nobody@host.invalid: ssh: Could not resolve hostname host.invalid" in outcome.err
    assert "Nothing was changed on any host." in outcome.err


@pytest.mark.parametrize(
    ("line", "passed"),
    [
        ("status --host ws1", ""),
        ("status --env prod --set port=9000 -f other.yaml --host ws1 --format json", "--format=json"),
        ("rollback 3 --host ws1", "-- 3"),
        ("doctor --host ws1 --only port --only tls --quick", "--only=port --only=tls --quick"),
        ("kick --host ws1 -- -x", "-- -x"),
        ("top --host ws1 --once --sort cpu", "--once --sort=cpu"),
    ],
)
def test_options_for_a_host_are_passed_on_as_they_were_typed(line: str, passed: str) -> None:
    assert shlex.join(given(parse(line.split()))) == passed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a mount namespace of its own")
def test_a_job_reaches_the_archive_through_the_proxies_of_the_login(tmp_path: Path) -> None:
    started = tmp_path / "systemd-run"
    seen = 'printf "%s\\n" "$@"; cd /usr/local/lib/wsbundle/chat/jobs/job-1; cat proxies; stat -c %a proxies'
    started.write_text(f"#!/bin/sh\n{seen}\n")
    started.chmod(0o755)
    there = """set -eu
        mount -t tmpfs tmpfs /usr/local/lib; mount --bind "$1" "$(command -v systemd-run)"
        exec sh "$2" start chat chat-1 job-1 install"""
    words = [shutil.which("unshare") or "", "--mount", "sh", "-c", there, "sh", str(started), str(HOST)]
    proxies = {"http_proxy": "http://proxy:3128", "NO_PROXY": "a, b"}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env={"PATH": os.defpath, **proxies})
    *given, mode = done.stdout.splitlines()
    known = len(proxies)
    assert (set(given[-known:]), mode) == ({f"{name}={text}" for name, text in proxies.items()}, "600")
    assert "--property=EnvironmentFile=-/usr/local/lib/wsbundle/chat/jobs/job-1/proxies" in given
    assert given[-known - 5 : -known] == ["job", "chat", "chat-1", "job-1", "install"]
