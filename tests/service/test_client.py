"""The client for the command line."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from shells import COMMANDS, ROOT, Shell, clean_environment, free_port, running, wait_until
from websockets.sync.server import serve

from service.addresses import MAX_ADDRESS_LENGTH
from service.client import BACKOFF_CAP_S, STABLE_S, Backoff, health_url, one_line

# The client goes straight to the server, whatever proxy the environment names.
PROXIES = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with running(COMMANDS["runner"]) as shell:
        yield shell


def client(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the client to its end."""
    return subprocess.run(
        [sys.executable, "service/client.py", *arguments],
        cwd=ROOT,
        env=clean_environment(**PROXIES, **variables),
        capture_output=True,
        text=True,
        timeout=30,
    )


@contextlib.contextmanager
def listening(*arguments: str, url: str) -> Iterator["subprocess.Popen[str]"]:
    """A client that listens; its stderr is in its stdout."""
    with subprocess.Popen(
        [sys.executable, "-u", "service/client.py", "listen", "--url", url, *arguments],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def test_a_uuid_and_a_message_alone_are_sent(shell: Shell) -> None:
    with shell.client() as alice:
        alice.register("alice")
        sent = client("alice", "Test message", WEBSOCKET_URL=shell.url)
        assert (sent.returncode, sent.stderr) == (0, "")
        assert json.loads(alice.receive()) == {"recipient_uuid": "alice", "message": "Test message"}


def test_send_sends_to_the_server_that_is_named(shell: Shell) -> None:
    with shell.client() as alice:
        sent = client(
            "send", "--url", shell.url, alice.temporary_uuid, 'é "quoted" {braces}', WEBSOCKET_URL="ws://nowhere"
        )
        assert sent.returncode == 0
        assert json.loads(alice.receive())["message"] == 'é "quoted" {braces}'


@pytest.mark.parametrize(
    "arguments",
    [["--url", "{}", "alice", "-"], ["--url={}", "alice", "-"], ["--url", "{}", "send", "alice", "-"]],
)
def test_the_server_may_be_named_before_all_else(shell: Shell, arguments: list[str]) -> None:
    with shell.client() as alice:
        alice.register("alice")
        assert client(*(argument.format(shell.url) for argument in arguments)).returncode == 0
        assert json.loads(alice.receive())["message"] == "-"


def test_a_uuid_that_looks_like_an_option_is_sent_to_after_two_dashes(shell: Shell) -> None:
    with shell.client() as alice:
        alice.register("-x")
        assert client("--", "-x", "hi", WEBSOCKET_URL=shell.url).returncode == 0
        assert json.loads(alice.receive())["message"] == "hi"


def test_the_server_of_the_guide_is_asked_when_none_is_named() -> None:
    assert "ws://127.0.0.1:8765/" in client("send", "--help").stdout


def test_listen_prints_so_many_messages_for_its_uuid_one_line_each(shell: Shell) -> None:
    with listening("--as", "listener", "--count", "2", url=shell.url) as listener, shell.client() as sender:

        def has_ended() -> bool:
            sender.send('{"recipient_uuid": "listener",\n"message": "hello"}')
            return listener.poll() is not None

        wait_until(has_ended)
        assert listener.returncode == 0
        assert line(listener).startswith("Welcome! Your temporary UUID is ")
        assert [line(listener), line(listener), line(listener)] == [
            r'{"recipient_uuid": "listener",\n"message": "hello"}',
            r'{"recipient_uuid": "listener",\n"message": "hello"}',
            "",
        ]


def test_health_prints_the_health(shell: Shell) -> None:
    asked = client("health", "--url", shell.url)
    assert asked.returncode == 0
    assert json.loads(asked.stdout) == {"status": "healthy", "connections": 0}


def test_health_is_asked_of_a_server_whose_url_has_a_password(shell: Shell) -> None:
    assert client("health", "--url", shell.url.replace("//", "//user:secret@")).returncode == 0


@pytest.mark.parametrize("command", [["send", "uuid", "message"], ["health"]])
@pytest.mark.parametrize("server", ["ws://user:secret@127.0.0.1:9/", "ws://user:secret@127.0.0.1:port/"])
def test_a_password_in_the_url_is_never_shown(command: list[str], server: str) -> None:
    ended = client(command[0], "--url", server, *command[1:])
    assert ended.returncode in (1, 2)
    assert "ws://127.0.0.1:" in ended.stderr or "http://127.0.0.1:" in ended.stderr
    assert "secret" not in ended.stderr


@pytest.mark.parametrize("command", ["send sink message", "health", "listen --as sink"])
def test_output_that_cannot_be_written_is_told_with_status_1(shell: Shell, command: str) -> None:
    with open("/dev/full", "w") as full, shell.client() as sender:
        arguments = [sys.executable, "service/client.py", *command.split()]
        environ = clean_environment(WEBSOCKET_URL=shell.url)
        with subprocess.Popen(
            arguments, cwd=ROOT, env=environ, stdout=full, stderr=subprocess.PIPE, text=True
        ) as ended:

            def has_ended() -> bool:
                sender.send_to("sink", "x")
                return ended.poll() is not None

            wait_until(has_ended)
            assert ended.stderr is not None
            told = ended.stderr.read().splitlines()
    assert ended.returncode == 1
    assert told[-1] == "cannot write to standard output: No space left on device"
    assert len(told) == 1 or told[0].startswith("Welcome!")


@pytest.mark.parametrize("command", [["send", "uuid", "message"], ["health"]])
def test_no_connection_is_told_in_one_line_with_status_1(command: list[str]) -> None:
    ended = client(command[0], "--url", f"ws://127.0.0.1:{free_port()}/", *command[1:])
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""


def test_a_server_that_refuses_is_told_with_status_1() -> None:
    with running(COMMANDS["runner"], WEBSOCKET_MAX_CONNECTIONS="1") as full, full.client():
        ended = client("uuid", "message", WEBSOCKET_URL=full.url)
    assert ended.returncode == 1
    assert "HTTP 503" in ended.stderr


def test_a_server_that_closes_before_the_message_is_read_is_told_with_status_1(shell: Shell) -> None:
    ended = client("send", "--url", shell.url, "uuid", "x" * 70_000)
    assert ended.returncode == 1
    assert "1009" in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["uuid"],
        ["send", "uuid", "message", "more"],
        ["listen", "--count", "0"],
        ["listen", "--count", "many"],
        ["send", "--url", "http://127.0.0.1/", "uuid", "message"],
        ["send", "--url", "ws://127.0.0.1:port/", "uuid", "message"],
        ["send", "uuid", "\udcff"],
    ],
)
def test_wrong_usage_is_told_with_status_2(arguments: list[str]) -> None:
    ended = client(*arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert "error: " in ended.stderr


def test_the_word_that_registers_is_not_sent_as_a_message(shell: Shell) -> None:
    with shell.client() as alice, shell.client() as bob:
        alice.register("alice")
        ended = client("alice", "connected", WEBSOCKET_URL=shell.url)
        bob.send_to("alice", "still there?")
        assert json.loads(alice.receive())["message"] == "still there?"
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "argument MESSAGE: 'connected' would not reach the UUID but take it" in ended.stderr
    assert "docs/protocol.md" in ended.stderr


@pytest.mark.parametrize("arguments", [["send", "{}", "hello"], ["{}", "hello"], ["listen", "--as", "{}"]])
@pytest.mark.parametrize("uuid", ["", "u" * (MAX_ADDRESS_LENGTH + 1)], ids=["empty", "too_long"])
def test_a_uuid_that_the_server_would_drop_is_refused(arguments: list[str], uuid: str) -> None:
    ended = client(*(argument.format(uuid) for argument in arguments))
    assert ended.returncode == 2
    assert f"a UUID of {len(uuid)} characters is dropped; use 1 to {MAX_ADDRESS_LENGTH}" in ended.stderr


def test_the_longest_uuid_of_the_protocol_is_sent_to(shell: Shell) -> None:
    with shell.client() as alice:
        alice.register("é" * MAX_ADDRESS_LENGTH)
        assert client("é" * MAX_ADDRESS_LENGTH, "hello", WEBSOCKET_URL=shell.url).returncode == 0
        assert json.loads(alice.receive())["message"] == "hello"


def test_a_wrong_url_in_the_environment_is_wrong_usage_too() -> None:
    ended = client("uuid", "message", WEBSOCKET_URL="localhost:8765")
    assert ended.returncode == 2
    assert "'localhost:8765' is not a WebSocket URL, such as ws://127.0.0.1:8765/" in ended.stderr


def test_it_says_how_it_is_used() -> None:
    assert "Exit codes: 0 done, 1 no connection or no answer, 2 wrong usage." in client("--help").stdout


def test_ctrl_c_ends_it_without_a_traceback(shell: Shell) -> None:
    with listening(url=shell.url) as listener:
        line(listener)
        listener.send_signal(signal.SIGINT)
        assert listener.wait(10) == 130
        assert listener.stdout is not None
        assert listener.stdout.read() == ""


def test_listen_ends_when_nobody_reads_its_output_any_more(shell: Shell) -> None:
    with shell.client() as sender:
        pipe = subprocess.Popen(
            [sys.executable, "service/client.py", "listen", "--url", shell.url, "--as", "piped"],
            cwd=ROOT,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with pipe:
            assert pipe.stdout is not None
            assert pipe.stderr is not None
            pipe.stderr.readline()
            pipe.stdout.close()

            def has_ended() -> bool:
                sender.send_to("piped", "x")
                return pipe.poll() is not None

            wait_until(has_ended)
            assert (pipe.returncode, pipe.stderr.read()) == (0, "")


def test_listen_comes_back_when_the_server_does() -> None:
    with running("service/server.py {WEBSOCKET_PORT}") as first, listening(url=first.url) as listener:
        assert line(listener).startswith("Welcome!")
        first.terminate()
        assert "1012" in line(listener)
        first.process.wait()
        environ = clean_environment(WEBSOCKET_PORT=str(first.port))
        with subprocess.Popen([sys.executable, "service/server.py"], cwd=ROOT, env=environ) as second:
            try:
                while not (text := line(listener)).startswith("Welcome!"):
                    assert "next try in" in text
            finally:
                second.kill()


def test_listen_does_not_come_back_after_it_has_broken_a_rule() -> None:
    with serve(lambda connection: connection.close(1008, "go away"), "127.0.0.1", 0) as rude:
        serving = threading.Thread(target=rude.serve_forever)
        serving.start()
        ended = client("listen", "--url", f"ws://127.0.0.1:{rude.socket.getsockname()[1]}/")
        rude.shutdown()
        serving.join()
    assert ended.returncode == 1
    assert "go away" in ended.stderr


def test_the_wait_before_the_next_try_doubles_up_to_a_cap() -> None:
    backoff = Backoff(random_share=lambda: 1.0)
    assert [backoff.after(0) for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, BACKOFF_CAP_S, BACKOFF_CAP_S]


def test_the_wait_is_a_random_share_of_it() -> None:
    shares = iter([0.0, 0.25, 1.0])
    backoff = Backoff(random_share=lambda: next(shares))
    assert [backoff.after(0) for _ in range(3)] == [0, 0.25, 2]


def test_only_a_connection_that_lasted_starts_the_waits_anew() -> None:
    backoff = Backoff(random_share=lambda: 1.0)
    waits = [backoff.after(0), backoff.after(STABLE_S - 1), backoff.after(STABLE_S), backoff.after(0)]
    assert waits == [0.5, 1, 0.5, 1]


@pytest.mark.parametrize(
    ("url", "health"),
    [
        ("ws://127.0.0.1:8765/", "http://127.0.0.1:8765/health"),
        ("wss://ws.example.com/chat?token=x#y", "https://ws.example.com/health"),
    ],
)
def test_health_is_asked_at_the_servers_root(url: str, health: str) -> None:
    assert health_url(url) == health


def test_what_would_confuse_a_terminal_is_shown_in_words() -> None:
    assert one_line("a é\n\x1b[2J\u2028\x9b") == r"a é\n\x1b[2J\u2028\x9b"
