"""Publishing through the rendered site, with the real service: what strangers cost, and that the rest gets through."""

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from service.mint import add_key, mint
from tests.run.stage import DOMAIN, NAME, Stage, as_systemd, nginx

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


@contextlib.contextmanager
def served(**settings: Any) -> Iterator[Stage]:
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory), **settings)
        with nginx(stage), as_systemd(stage):
            yield stage


def post(stage: Stage, body: bytes, *fields: str) -> int:
    """The status of a publication by a client that sends all it can, as long as nobody closes."""
    head = ["POST /publish/alice HTTP/1.1", f"Host: {DOMAIN}", f"Content-Length: {len(body)}", *fields, "", ""]
    with socket.create_connection(("127.0.0.1", stage.http_port), 15) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall("\r\n".join(head).encode() + body)
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = connection.recv(65536)
    return int(answer.split()[1]) if answer else 0


def token_for(stage: Stage) -> list[str]:
    """The field of a head by which a script may write to alice."""
    keys = str(stage.root / f"etc/{NAME}/keys.json")
    add_key(keys, "HS256")
    return [f"Authorization: Bearer {mint(keys, 'script', 60, ['alice'])}"]


def peak_mib(stage: Stage) -> float:
    """The most memory that a worker of nginx has ever had."""
    main = stage.text("nginx.pid").strip()
    workers = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    texts = (Path(f"/proc/{worker}/status").read_text() for worker in workers)
    return max(int(text.split("VmHWM:")[1].split()[0]) / 1024 for text in texts)


def test_longest_messages_of_strangers_cost_nginx_nothing_and_are_answered() -> None:
    with served(limits={"message_size": 16 * MIB}) as stage, ThreadPoolExecutor(12) as pool:
        posts = [pool.submit(post, stage, b"x" * (16 * MIB)) for _ in range(12)]
        assert {each.result() for each in posts} == {401}
        assert peak_mib(stage) < 40


def test_the_longest_message_of_who_has_a_token_arrives() -> None:
    size = 1_000_000
    limits = {"message_size": size, "queue": 2 * size, "bytes_per_second": 2 * size}
    with served(limits=limits) as stage:
        token = token_for(stage)
        with stage.connect() as alice:
            alice.text()
            alice.register("alice")
            body = b"x" * (size - 2)
            assert post(stage, body, *token) == 201
            assert json.loads(alice.text())["message"] == body.decode()
        assert post(stage, b"x" * (size + 1), *token) == 413
        assert peak_mib(stage) < 40


def test_a_message_that_trickles_in_is_told_so() -> None:
    with served(limits={"header_timeout": 1}) as stage:
        head = ["POST /publish/alice HTTP/1.1", f"Host: {DOMAIN}", "Content-Length: 99", *token_for(stage), "", ""]
        with socket.create_connection(("127.0.0.1", stage.http_port), 0.2) as connection:
            connection.sendall("\r\n".join(head).encode())
            answer = b""
            for _ in range(98):
                with contextlib.suppress(TimeoutError):
                    answer = connection.recv(65536)
                    break
                connection.sendall(b"x")
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_a_script_waits_for_a_service_that_is_away_for_some_seconds() -> None:
    """As when it restarts: with 504 the script would not know whether its message was sent."""
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory))
        with nginx(stage), as_systemd(stage) as service, ThreadPoolExecutor(1) as pool:
            token = token_for(stage)
            service.send_signal(signal.SIGSTOP)
            answer = pool.submit(post, stage, b"x", *token)
            assert not wait([answer], timeout=7).done
            service.send_signal(signal.SIGCONT)
            assert answer.result() == 202


def test_an_office_full_of_websockets_can_still_publish() -> None:
    with served(limits={"connections_per_address": 1}) as stage, stage.connect() as client:
        client.text()
        with stage.connect() as second:
            assert second.status == 429
        assert post(stage, b"x") == 401
