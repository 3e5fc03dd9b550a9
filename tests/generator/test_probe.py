"""Whether messages get through is found out as a client finds out, and in bounded time."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from generator.host.probe import Endpoint, silence
from tests.generator.front_door import ENVIRONMENT

PATIENCE_S = 0.5


def here(port: int) -> Endpoint:
    """A service that is asked without nginx in front."""
    return Endpoint("localhost", encrypted=False, ports=(port, port))


@contextmanager
def service() -> Iterator[tuple[subprocess.Popen[bytes], Endpoint]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.getsockname()[1]
    environment = {**ENVIRONMENT, "WEBSOCKET_PORT": str(number), "WEBSOCKET_HOST": "127.0.0.1"}
    with subprocess.Popen([sys.executable, "-m", "service"], env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            there = here(number)
            deadline = time.monotonic() + 30
            while silence(there, 5) is not None and time.monotonic() < deadline:
                time.sleep(0.05)
            yield process, there
        finally:
            process.kill()


def test_a_service_that_answers_and_one_that_was_stopped_by_a_signal() -> None:
    with service() as (process, there):
        assert silence(there, 5) is None
        os.kill(process.pid, signal.SIGSTOP)
        began = time.monotonic()
        assert silence(there, PATIENCE_S) == f"no answer within {PATIENCE_S:g} s"
        assert time.monotonic() - began < 10


def test_nobody_who_listens_is_told_in_the_systems_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = here(listener.getsockname()[1])
    assert "Connection refused" in str(silence(there, PATIENCE_S))


@pytest.mark.parametrize("answer", [b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"])
def test_an_answer_that_is_no_websocket_is_a_reason(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = here(listener.getsockname()[1])
        thread = threading.Thread(target=_answer_once, args=(listener, answer), daemon=True)
        thread.start()
        assert silence(there, 5) not in (None, "no answer within 5 s")
        thread.join()


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(answer)
