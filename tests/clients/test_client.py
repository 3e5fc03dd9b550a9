"""The client: what every client does, what only the library does, and the command."""

import asyncio
import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect
from websockets.sync.server import serve
from websockets.typing import Subprotocol

import wsbundle_client.client
import wsbundle_client.wire
from service.core.addresses import MAX_ADDRESS_LENGTH
from service.core.frames import MAX_ASKED_FOR, SUBPROTOCOL, Failures
from tests.clients.client_behaviours import BEHAVIOURS, OF_THE_HANDSHAKE, SECOND, Server
from tests.in_process import program
from tests.modules import imports
from tests.ports import free_port
from tests.service.shells import COMMANDS, ROOT, Shell, clean_environment, running, wait_until
from tests.service.test_stops import SENDS
from tests.service.test_tokens import secret_key, token
from wsbundle_client import command
from wsbundle_client.client import Client
from wsbundle_client.command import health_url, one_line
from wsbundle_client.driver import DEADLINE_S, Driver, PythonDriver
from wsbundle_client.errors import GoneError, RequestError
from wsbundle_client.losses import Backoff, Lost
from wsbundle_client.messages import Event, Message

# The client goes straight to the server, whatever proxy the environment names.
PROXIES = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with running(COMMANDS["runner"]) as shell:
        yield shell


async def play(behaviour: Callable[[Server, Driver], Any]) -> None:
    driver = PythonDriver(SECOND)
    async with Server().running() as server:
        try:
            await asyncio.wait_for(behaviour(server, driver), 2 * DEADLINE_S)
        finally:
            await driver.close()


@pytest.mark.parametrize("name", [*BEHAVIOURS, *OF_THE_HANDSHAKE])
def test_the_client_behaves_so_that(name: str) -> None:
    asyncio.run(play({**BEHAVIOURS, **OF_THE_HANDSHAKE}[name]))


def client(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    return program("service.client", *arguments, environ=clean_environment(**PROXIES, **variables))


@contextlib.contextmanager
def listening(*arguments: str, url: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    """A client that listens; its stderr is in its stdout."""
    with subprocess.Popen(
        [sys.executable, "-u", "service/client.py", "listen", "--url", url, *arguments],
        cwd=ROOT,
        env=clean_environment(**environment),
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
        assert line(listener) == "Connected as listener."
        shown = {"sender_uuid": sender.temporary_uuid, "message": "hello", "recipient_uuid": "listener"}
        assert [line(listener), line(listener), line(listener)] == [json.dumps(shown), json.dumps(shown), ""]


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


@pytest.mark.parametrize("command", ["send there message", "presence there", "health", "listen --as sink"])
def test_output_that_cannot_be_written_is_told_with_status_1(shell: Shell, command: str) -> None:
    with open("/dev/full", "w") as full, shell.client() as sender, shell.client() as there:
        there.register("there")
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
    assert told[:-1] in ([], ["Connected as sink."])


@pytest.mark.parametrize("command", [["send", "uuid", "message"], ["health"]])
def test_no_connection_is_told_in_one_line_with_status_1(command: list[str]) -> None:
    ended = client(command[0], "--url", f"ws://127.0.0.1:{free_port()}/", *command[1:])
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""


def test_what_somebody_says_is_printed_to_the_letter_on_every_output(shell: Shell) -> None:
    texts = [
        '"\U0001f600 \u00e9 \u009b \u2028"',
        "1e400",
        "[1.10, -0,\n1E+2]",
        "9" * 5000,
        r'"hi \ud83d"',
        '{"a": 1, "a": 2}',
    ]
    for encoding, expected in (
        ("ascii", r"\ud83d\ude00 \u00e9"),
        ("latin-1", "\\ud83d\\ude00 \u00e9"),
        ("utf-8", "\U0001f600 \u00e9"),
    ):
        environ = clean_environment(WEBSOCKET_URL=shell.url, PYTHONIOENCODING=encoding)
        command = [sys.executable, "service/client.py", "listen", "--as", encoding, "--count", str(len(texts))]
        with (
            subprocess.Popen(
                command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            ) as listener,
            shell.client() as sender,
        ):
            assert listener.stderr is not None
            assert listener.stderr.readline()
            for text in texts:
                sender.send(f'{{"recipient_uuid": "{encoding}", "message": {text}}}')
            output, told = listener.communicate(timeout=DEADLINE_S)
        assert (listener.returncode, told) == (0, b"")
        lines = output.decode("utf-8" if encoding == "utf-8" else "latin-1").splitlines()
        spelled = [each.partition('"message": ')[2].rpartition(', "recipient_uuid"')[0] for each in lines]
        assert spelled[0] == rf'"{expected} \u009b \u2028"'
        assert json.loads(lines[0])["message"] == "\U0001f600 \u00e9 \u009b \u2028"
        assert spelled[1:] == [text.replace("\n", " ") for text in texts[1:]]


def test_nobody_ends_a_listener_with_a_message_that_is_too_deep_for_it(shell: Shell) -> None:
    with listening("--as", "deep", "--count", "1", url=shell.url) as listener, shell.client() as sender:
        assert line(listener) == "Connected as deep."
        for depth in range(880, 1000, 5):
            sender.send('{"recipient_uuid": "deep", "message": %s}' % ("[" * depth + "]" * depth))
        sender.send_to("deep", "flat")
        told = [line(listener)]
        while told[-1].startswith(shell.url):
            assert told[-1] == f"{shell.url}: a message is nested too deep"
            told.append(line(listener))
        assert told[-1].startswith('{"sender_uuid": ')


@contextlib.contextmanager
def odd_server(answer: bytes) -> Iterator[int]:
    """The port of a server that says this to everybody."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as connection:
                        connection.recv(4096)
                        connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.slow
@pytest.mark.parametrize("command", [["send", "uuid", "message"], ["presence", "uuid"], ["health"]])
def test_what_is_wrong_with_the_server_is_told_with_where_and_the_fix(command: list[str]) -> None:
    port = free_port()

    def told(url: str) -> str:
        ended = client(command[0], "--url", url, *command[1:])
        assert ended.returncode == 1
        where, _, why = ended.stderr.strip().partition("/: " if command[0] != "health" else "/health: ")
        assert where.partition("://")[2] == url.partition("://")[2].rstrip("/")
        return why

    assert told(f"ws://127.0.0.1:{port}/") == (
        f"nothing listens on 127.0.0.1 port {port}; is it running? `wsbundle run` starts it here"
    )
    assert told("ws://no-such-host.invalid/") == (
        "the host no-such-host.invalid is not known; look at its name, and at the network"
    )
    for status, words in (
        (401, "token"),
        (403, "may not connect"),
        (404, "the path"),
        (429, "too many"),
        (502, "wsbundle status"),
    ):
        answer = f"HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        with odd_server(answer.encode()) as odd:
            assert re.search(rf"HTTP {status}: .*{words}", told(f"ws://127.0.0.1:{odd}/"))
    with odd_server(b"\x15\x03\x01\x00\x02\x02\x46\r\n") as odd:
        assert told(f"ws://127.0.0.1:{odd}/") == f"127.0.0.1 does not speak HTTP on port {odd}; with TLS use wss://"
    with odd_server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as odd:
        assert told(f"wss://127.0.0.1:{odd}/").startswith(f"127.0.0.1 does not speak TLS on port {odd}; use ws://")


@pytest.mark.parametrize("head", ["", "HTTP/1.1 200 OK\r\n\r\n"])
def test_the_health_of_a_server_that_goes_on_and_on_is_waited_for_no_longer(
    head: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "TIMEOUT_S", 0.5)
    has_ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with server.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(head.encode())
                while not has_ended.wait(0.05):
                    connection.sendall(b"H")

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        try:
            assert command.main(["health", "--url", f"ws://127.0.0.1:{port}/"]) == 1
        finally:
            has_ended.set()
            thread.join()
    assert f"127.0.0.1 has not answered on port {port} in time" in capsys.readouterr().err


def test_of_what_a_server_says_of_its_health_no_more_is_read_than_there_can_be() -> None:
    with odd_server(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 3_000_000) as port:
        assert client("health", "--url", f"ws://127.0.0.1:{port}/").stdout == "x" * 65_536 + "\n"


def test_a_server_that_refuses_is_told_with_status_1() -> None:
    with running(COMMANDS["runner"], WEBSOCKET_MAX_CONNECTIONS="1") as full, full.client():
        ended = client("uuid", "message", WEBSOCKET_URL=full.url)
    assert ended.returncode == 1
    assert "HTTP 503" in ended.stderr


def test_a_message_that_the_server_would_not_take_is_told_with_status_1(shell: Shell) -> None:
    ended = client("send", "--url", shell.url, "uuid", "x" * 70_000)
    assert ended.returncode == 1
    assert "bytes; the service takes 65536" in ended.stderr


def test_that_nobody_is_there_is_told_with_status_1(shell: Shell) -> None:
    ended = client("send", "--url", shell.url, "nobody", "hello")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "nobody has this address" in ended.stderr


def test_send_waits_until_the_message_is_delivered(shell: Shell) -> None:
    with listening("--as", "confirming", "--count", "1", url=shell.url) as listener:
        assert line(listener) == "Connected as confirming."
        sent = client("send", "--wait", "delivered", "confirming", "hello", WEBSOCKET_URL=shell.url)
        assert (sent.returncode, sent.stdout, sent.stderr) == (0, "Delivered.\n", "")
        assert json.loads(line(listener))["message"] == "hello"
        assert listener.wait(DEADLINE_S) == 0


def test_a_message_that_nobody_can_confirm_is_not_delivered(shell: Shell) -> None:
    with shell.client() as of_v0:
        of_v0.register("of v0")
        sent = client("send", "--wait", "delivered", "of v0", "hello", WEBSOCKET_URL=shell.url)
        assert (sent.returncode, sent.stdout) == (1, "")
        assert sent.stderr.endswith(": lost\n")


@pytest.mark.parametrize(
    ("answer", "kept"), [({"stored": True}, "; it waits in the mailbox of the recipient"), ({}, "")]
)
def test_a_message_that_waits_to_be_fetched_is_not_to_be_sent_again(
    answer: dict[str, bool], kept: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wsbundle_client.command.TIMEOUT_S", 1.0)

    async def sent(server: Server) -> None:
        sending = asyncio.create_task(command.send(server.url, None, "bob", "hello", "delivered"))
        peer = await server.accept()
        await peer.greet()
        frame = await peer.frame()
        await peer.say("ok", id=frame["id"], online=1, receipts=1, **answer)
        assert await sending == 1
        assert capsys.readouterr().err == f"{server.url}: not delivered within 1 s{kept}\n"

    with_a_server(sent)


@pytest.mark.parametrize(
    ("answer", "told"),
    [({"stored": True}, "the connection was lost; it waits in the mailbox of the recipient"), ({}, "lost")],
)
def test_a_message_in_a_mailbox_is_not_lost_with_the_connection_of_its_sender(
    answer: dict[str, bool], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def sent(server: Server) -> None:
        sending = asyncio.create_task(command.send(server.url, None, "bob", "hello", "delivered"))
        peer = await server.accept()
        await peer.greet()
        frame = await peer.frame()
        await peer.say("ok", id=frame["id"], online=1, receipts=1, **answer)
        await peer.close(1012)
        assert await sending == 1
        assert capsys.readouterr().err == f"{server.url}: {told}\n"

    with_a_server(sent)


def test_a_message_that_became_too_old_in_a_mailbox_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    async def sent(server: Server) -> None:
        sending = asyncio.create_task(command.send(server.url, None, "bob", "hello", "delivered"))
        peer = await server.accept()
        await peer.greet()
        frame = await peer.frame()
        await peer.say("ok", id=frame["id"], online=0, receipts=1, stored=True)
        await peer.say("lost", id=frame["id"], recipient_uuid="bob")
        assert await sending == 1
        assert capsys.readouterr().err == f"{server.url}: lost\n"

    with_a_server(sent)


def test_listen_hears_its_groups(shell: Shell) -> None:
    async def send_to_group() -> int:
        async with Client(shell.url) as sender:
            return (await sender.send_to_group("ops", "hello")).online

    with listening("--group", "ops", "--group", "dev", "--count", "1", url=shell.url) as listener:
        assert line(listener).startswith("Connected as ")
        wait_until(lambda: asyncio.run(send_to_group()))
        heard = json.loads(line(listener))
        assert (heard["group"], heard["message"]) == ("ops", "hello")


def test_presence_tells_who_is_there(shell: Shell) -> None:
    with shell.client() as alice:
        alice.register("alice")
        asked = client("presence", "alice", "bob", WEBSOCKET_URL=shell.url)
        assert (asked.returncode, asked.stdout, asked.stderr) == (0, "alice online\nbob offline\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["uuid"],
        ["send", "uuid", "message", "more"],
        ["listen", "--count", "0"],
        ["listen", "--count", "many"],
        ["listen", "--as=--"],
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
    assert "Exit codes: 0 done, 1 no connection, no answer or nobody there, 2 wrong usage." in client("--help").stdout


@pytest.mark.parametrize("command", ["send", "listen", "presence", "health"])
def test_the_help_of_each_command_explains_it_and_has_an_example(command: str) -> None:
    said = client(command, "--help").stdout
    example = said.partition("\nExample: python client.py ")[2].split()
    assert example[0] == command
    if command != "health":  # it would ask a server of that name
        ended = client(*example, "--url", "ws://127.0.0.1:1/", "--no-such-option")
        assert "unrecognized arguments: --no-such-option\n" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["listn"], "did you mean listen?"),
        (["listn", "--as", "alice"], "did you mean listen?"),
        (["--url", "ws://127.0.0.1:1/", "presense"], "did you mean presence?"),
        (["snd", "alice", "hello"], "did you mean send?"),
        (["presense", "bob"], "error: presense is not a command; to write to an address of this name: send presense "),
        (["presense", "bob"], "MESSAGE; did you mean presence?"),
        (["--url", "ws://127.0.0.1:1/", "lsiten", "hello"], "did you mean listen?"),
        (["helth", "hello", "--wait", "delivered"], "did you mean health?"),
        (["zzz"], "the commands are send, listen, presence, health"),
    ],
)
def test_a_misspelt_command_is_named(arguments: list[str], hint: str) -> None:
    ended = client(*arguments)
    assert ended.returncode == 2
    assert hint in ended.stderr


@pytest.mark.parametrize("address", ["lisa", "ben", "sender", "health-check", "send presense"])
def test_an_address_that_is_only_like_a_command_is_written_to(address: str) -> None:
    ended = client(*address.split(), "hello", WEBSOCKET_URL=f"ws://127.0.0.1:{free_port()}/")
    assert "is it running?" in ended.stderr


def test_a_token_file_that_cannot_be_read_is_named_with_the_reason(shell: Shell, tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")
    missing = tmp_path / "missing"
    reasons = {missing: "No such file or directory", tmp_path: "Is a directory", binary: "is not text in UTF-8"}
    for path, reason in reasons.items():
        ended = client("uuid", "message", "--token-file", str(path), WEBSOCKET_URL=shell.url)
        assert ended.returncode == 1
        assert ended.stderr == f"{shell.url}: no token: {path}: {reason}\n"


@pytest.mark.parametrize("imported", ["asyncio", "websockets", "wsbundle_client.wire"])
def test_ctrl_c_ends_it_before_it_has_begun(imported: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SENDS)
    here = {"AT": imported, "SENT": str(tmp_path / "sent"), "SIGNAL": str(int(signal.SIGINT))}
    ended = subprocess.run(
        [sys.executable, "service/client.py", "listen"],
        cwd=ROOT,
        env=clean_environment(PYTHONPATH=str(tmp_path), **here),
        capture_output=True,
        start_new_session=True,
        timeout=DEADLINE_S,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


def test_ctrl_c_ends_it_without_a_traceback(shell: Shell) -> None:
    with listening(url=shell.url) as listener:
        line(listener)
        listener.send_signal(signal.SIGINT)
        assert listener.wait(DEADLINE_S) == 130
        assert listener.stdout is not None
        assert listener.stdout.read() == ""


_IN_THE_MIDDLE = """
import linecache, signal, sys

def line(frame, event, _):
    if event == "line" and "_entered.set_result" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
        sys.settrace(None)
        signal.raise_signal(signal.SIGINT)
    return line

sys.settrace(lambda frame, *_: line if frame.f_code.co_name == "_open" else None)
"""


def test_ctrl_c_ends_it_right_before_it_knows_that_it_is_connected(shell: Shell, tmp_path: Path) -> None:
    """Python's handler cancels at once what the main task waits for."""
    (tmp_path / "sitecustomize.py").write_text(_IN_THE_MIDDLE)
    with listening(url=shell.url, PYTHONPATH=str(tmp_path)) as listener:
        assert listener.wait(DEADLINE_S) == 130
        assert listener.stdout is not None
        assert "Error" not in listener.stdout.read()


@pytest.mark.parametrize("last", ["Client._read", "Client._stay_connected"])
def test_a_client_that_is_cancelled_is_not_reported_as_disconnected(shell: Shell, last: str) -> None:
    """As on Ctrl-C, which cancels all tasks, in any order."""
    events: list[str] = []

    async def cancel_all() -> None:
        async with Client(shell.url, on_event=lambda event: events.append(event.kind)):
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in sorted(others, key=lambda task: last in repr(task.get_coro())):
                task.cancel()
                await asyncio.sleep(0)

    asyncio.run(cancel_all())
    assert events == ["connected"]


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


@pytest.mark.slow
@pytest.mark.parametrize("command", ["service/server.py", "-m service"])
def test_listen_comes_back_when_the_server_does(command: str) -> None:
    with running(command) as first, listening(url=first.url) as listener:
        assert line(listener).startswith("Connected as ")
        first.terminate()
        assert "1012" in line(listener)
        first.process.wait()
        environ = clean_environment(WEBSOCKET_PORT=str(first.port))
        with subprocess.Popen([sys.executable, *command.split()], cwd=ROOT, env=environ) as second:
            try:
                while not (text := line(listener)).startswith("Connected as "):
                    assert "next try in" in text
            finally:
                second.kill()


def test_listen_ends_when_another_has_its_address(shell: Shell) -> None:
    with listening("--as", "replaced", url=shell.url) as listener:
        assert line(listener) == "Connected as replaced."
        with connect(shell.url, proxy=None, subprotocols=[Subprotocol(SUBPROTOCOL)]) as other:
            other.send('{"type": "hello", "id": 1, "uuid": "replaced"}')
            assert [json.loads(other.recv(10))["type"] for _ in range(2)] == ["welcome", "error"]
        assert client("listen", "--as", "replaced", WEBSOCKET_URL=shell.url).returncode == 1


def test_a_server_of_another_protocol_is_told_with_status_1() -> None:
    with serve(lambda connection: connection.close(), "127.0.0.1", 0) as other:
        serving = threading.Thread(target=other.serve_forever)
        serving.start()
        ended = client("listen", "--url", f"ws://127.0.0.1:{other.socket.getsockname()[1]}/")
        other.shutdown()
        serving.join()
    assert ended.returncode == 1
    assert "the server does not speak nc.v1" in ended.stderr


def test_a_connection_that_is_lost_is_waited_for_a_random_time() -> None:
    shares = iter([0.0, 0.25, 1.0])
    backoff = Backoff(random_share=lambda: next(shares))
    assert [backoff.after(0) for _ in range(3)] == [0, 0.25, 2]


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


# The library, with the service


async def taken(client: Client, count: int) -> list[Message]:
    """So many messages, confirmed."""
    messages = [await client.__anext__() for _ in range(count)]
    await client.confirm()
    return messages


def with_a_server(act: Callable[[Server], Any]) -> None:
    async def serve_it() -> None:
        async with Server().running() as server:
            await asyncio.wait_for(act(server), DEADLINE_S)

    asyncio.run(serve_it())


async def until(kind: str, events: "asyncio.Queue[Event]") -> Event:
    """The next event of this kind."""
    while (event := await events.get()).kind != kind:
        pass
    return event


def test_clients_exchange_messages_receipts_and_presence(shell: Shell) -> None:
    async def meet() -> None:
        events: asyncio.Queue[Event] = asyncio.Queue()
        async with Client(shell.url, "py-a", on_event=events.put_nowait) as alice, Client(shell.url, "py-b") as bob:
            assert await alice.presence(["py-b", "py-c"], watch=True) == {"py-b"}
            sent = await alice.send("py-b", {"any": ["JSON"]}, ack="delivered")
            assert await taken(bob, 1) == [Message("py-a", {"any": ["JSON"]}, "py-b", None, '{"any":["JSON"]}')]
            assert await sent.outcome() == "delivered"
            await bob.join("team")
            assert (await alice.send_to_group("team", 1)).online == 1
            assert await taken(bob, 1) == [Message("py-a", 1, None, "team", "1")]
            with pytest.raises(RequestError) as refused:
                await alice.send("py-c", "hello")
            assert refused.value.temporary
            unconfirmed = await alice.send("py-b", "hello", ack="delivered")
            await bob.close()
            assert await unconfirmed.outcome() == "lost"
            assert await until("presence", events) == Event("presence", "py-b", online=False)
        assert [message.message async for message in bob] == ["hello"]  # which had come, but was not confirmed

    asyncio.run(asyncio.wait_for(meet(), DEADLINE_S))


def test_a_client_takes_its_address_over_from_its_own_connection(shell: Shell) -> None:
    async def lose_the_network() -> None:
        events: asyncio.Queue[Event] = asyncio.Queue()
        async with Client(shell.url, "mobile", on_event=events.put_nowait) as mobile:
            await until("connected", events)
            link, mobile._link = mobile._link, None
            assert link is not None
            # The service does not hear of it, and holds the address for the old connection.
            link.lost.set_result(Lost("the network is gone", told_s=0.0))
            await until("connected", events)
            await mobile.send("mobile", "still me")
            assert (await taken(mobile, 1))[0].message == "still me"

    asyncio.run(asyncio.wait_for(lose_the_network(), DEADLINE_S))


def test_what_was_asked_for_fails_when_the_client_is_closed(shell: Shell) -> None:
    async def leave() -> None:
        async with Client(shell.url) as client:
            pass
        with pytest.raises(GoneError):
            await client.send("anybody", "hello")
        with pytest.raises(GoneError, match="the client is closed"):
            await client.__aenter__()

    asyncio.run(asyncio.wait_for(leave(), DEADLINE_S))


def test_a_function_of_the_application_that_fails_is_not_hidden(shell: Shell) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("of the application")

    async def enter() -> None:
        async with Client(shell.url, on_event=fail):
            pass

    with pytest.raises(GoneError, match="RuntimeError: of the application"):
        asyncio.run(asyncio.wait_for(enter(), DEADLINE_S))


def test_a_client_that_gives_up_because_of_a_function_of_the_application_tells_it(shell: Shell) -> None:
    events: list[Event] = []

    def fail_once(event: Event) -> None:
        events.append(event)
        if event.kind == "connected":
            raise RuntimeError("of the application")

    async def enter() -> None:
        async with Client(shell.url, on_event=fail_once):
            pass

    with pytest.raises(GoneError):
        asyncio.run(asyncio.wait_for(enter(), DEADLINE_S))
    assert events[1:] == [Event("gone", reason="RuntimeError: of the application")]


@pytest.mark.parametrize("ping_ms", ["NaN", "1" + "0" * 400, "[" * 100_000])
def test_an_answer_to_hello_that_cannot_be_understood_is_a_lost_connection(ping_ms: str) -> None:
    async def misunderstand(server: Server) -> None:
        events: asyncio.Queue[Event] = asyncio.Queue()
        client = Client(server.url, on_event=events.put_nowait, second=SECOND)
        entered = asyncio.create_task(client.__aenter__())
        peer = await server.accept()
        await peer.hello()
        rest = '"uuid": "a", "resume": "r", "limits": {"message_size": 1}'
        await peer._connection.send(f'{{"type": "ok", "id": 0, {rest}, "ping_ms": {ping_ms}}}')
        assert (await until("disconnected", events)).reason.startswith("not a hello of nc.v1: ")
        await (await server.accept()).greet()
        await (await entered).close()

    with_a_server(misunderstand)


def test_messages_that_the_application_does_not_take_are_dropped_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wsbundle_client.client, "MAX_INBOX", 1)

    async def overflow(server: Server) -> None:
        events: asyncio.Queue[Event] = asyncio.Queue()
        entering = Client(server.url, on_event=events.put_nowait)
        entered = asyncio.create_task(entering.__aenter__())
        peer = await server.accept()
        await peer.greet()
        client = await entered
        for number in range(2):
            await peer.say("msg", sender_uuid="bob", message=number)
        assert await until("dropped", events) == Event("dropped", "bob")
        assert (await taken(client, 1))[0].message == 0
        await client.close()

    with_a_server(overflow)


def test_what_is_given_up_is_not_sent() -> None:
    async def give_up(server: Server) -> None:
        client = Client(server.url)
        entered = asyncio.create_task(client.__aenter__())
        peer = await server.accept()
        calls = [asyncio.create_task(client.send("bob", "x" * number)) for number in (1, 2000, 2)]
        await asyncio.sleep(0)
        calls[0].cancel()
        calls[1].cancel()
        await peer.greet()
        assert (await peer.frame())["message"] == "xx"
        await entered
        await client.close()
        with pytest.raises(GoneError):
            await calls[2]

    with_a_server(give_up)


def test_the_receipt_of_what_nobody_waits_for_any_more_is_forgotten() -> None:
    async def give_up(server: Server) -> None:
        client = Client(server.url)
        entered = asyncio.create_task(client.__aenter__())
        peer = await server.accept()
        await peer.greet()
        await entered
        call = asyncio.create_task(client.send("bob", "hello", ack="delivered"))
        await peer.frame()
        call.cancel()
        await asyncio.wait([call])
        assert client._link is not None
        assert not client._link.receipts
        await client.close()

    with_a_server(give_up)


def test_a_client_may_be_closed_before_it_is_entered() -> None:
    async def close() -> None:
        client = Client("ws://127.0.0.1:9/")
        await client.close()
        with pytest.raises(GoneError):
            await client.send("bob", "hello")

    asyncio.run(close())


def test_receipts_that_are_complete_are_forgotten(shell: Shell) -> None:
    async def send_many() -> None:
        async with Client(shell.url, "forgetful") as client:
            sent = [await client.send("forgetful", number, ack="delivered") for number in range(3)]
            await taken(client, 3)
            assert [await one.outcome() for one in sent] == ["delivered"] * 3
            assert client._link is not None
            assert not client._link.receipts

    asyncio.run(asyncio.wait_for(send_many(), DEADLINE_S))


def test_a_token_that_cannot_be_fetched_is_tried_again(shell: Shell) -> None:
    events: list[Event] = []
    tokens = iter([OSError("no such file")])

    def fetch() -> str:
        for error in tokens:
            raise error
        return "unused without authentication"

    async def enter() -> None:
        with contextlib.suppress(GoneError):
            async with Client(shell.url, token=fetch, on_event=events.append, second=0.01):
                pass

    asyncio.run(asyncio.wait_for(enter(), DEADLINE_S))
    assert (events[0].kind, events[0].reason) == ("disconnected", "no token: no such file")


@pytest.mark.slow
def test_a_token_is_renewed_before_it_expires_and_a_connection_without_is_not_let_in(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [secret_key()]}))
    keys.chmod(0o600)
    token_file = tmp_path / "token"
    shown: list[str] = []

    def fetch() -> str:
        shown.append(token({"sub": "alice", "exp": time.time() + 3, "snd": ["*"]}))
        return shown[-1]

    async def stay(url: str) -> None:
        events: asyncio.Queue[Event] = asyncio.Queue()
        async with Client(url, "alice", token=fetch, on_event=events.put_nowait) as alice:
            assert alice.uuid == "alice"
            await asyncio.sleep(4)
            assert (await alice.send("alice", "still here")).online == 1
            assert [event.kind for event in (await events.get(),)] == ["connected"]
            # A script with a token for the same address sends, and does not take it away; it takes its time to start.
            token_file.write_text(token({"sub": "alice", "exp": time.time() + DEADLINE_S, "snd": ["*"]}) + "\n")
            script = partial(client, "send", "--token-file", str(token_file), "alice", "from a script")
            sent = await asyncio.to_thread(script, WEBSOCKET_URL=url)
            assert (sent.returncode, sent.stderr) == (0, "")
            assert [(await anext(alice)).message for _ in range(2)] == ["still here", "from a script"]
            assert events.empty()
        with pytest.raises(GoneError, match="4001 unauthorized"):
            async with Client(url, on_event=events.put_nowait):
                pass

    with running(COMMANDS["runner"], WEBSOCKET_AUTH="token", WEBSOCKET_KEYS=str(keys)) as shell:
        asyncio.run(asyncio.wait_for(stay(shell.url), DEADLINE_S))
        assert client("presence", "bob", WEBSOCKET_URL=shell.url, WEBSOCKET_TOKEN=fetch()).returncode == 0
        refused = client("send", "alice", "hello", WEBSOCKET_URL=shell.url)
        assert refused.returncode == 1
        assert "closed with 4001 unauthorized: a valid token is needed; give one with --token-file or" in refused.stderr
    assert len(shown) >= 3


def test_the_numbers_are_those_of_the_service() -> None:
    ours = wsbundle_client.wire
    assert (
        Failures.LIMIT.code,
        Failures.TOKEN_EXPIRED.code,
        Failures.IN_USE.code,
        Failures.QUEUE_FULL.code,
    ) == (ours.LIMIT, ours.TOKEN_EXPIRED, ours.IN_USE, ours.QUEUE_FULL)
    assert (ours.MAX_UUID_LENGTH, ours.MAX_ASKED_FOR, ours.SUBPROTOCOL) == (
        MAX_ADDRESS_LENGTH,
        MAX_ASKED_FOR,
        SUBPROTOCOL,
    )


def test_it_needs_nothing_but_websockets() -> None:
    modules = (ROOT / "clients/python/wsbundle_client").rglob("*.py")
    packages = {name.partition(".")[0] for module in modules for name in imports(module)}
    assert packages - sys.stdlib_module_names == {"websockets", "wsbundle_client"}


def test_it_is_started_from_anywhere_as_the_guide_does(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "service/client.py"), "--help"]
    started = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (started.returncode, started.stderr) == (0, "")
    assert started.stdout.startswith("usage: python client.py ")
