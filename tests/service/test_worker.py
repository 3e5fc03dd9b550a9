"""gunicorn's worker: what only gunicorn does to it. All else is in test_conformance.py."""

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest

from service.worker import Worker
from tests.service.shells import COMMANDS, DEADLINE_S, Shell, running, wait_until


def one_worker(shell: Shell) -> int:
    (worker,) = Path(f"/proc/{shell.process.pid}/task/{shell.process.pid}/children").read_text().split()
    return int(worker)


def test_its_settings_are_those_of_the_runner() -> None:
    assert Worker.CONFIG_KWARGS["ws"] == "none"
    assert "forwarded_allow_ips" not in Worker.CONFIG_KWARGS


def test_it_says_what_it_has_to_say_in_gunicorns_log() -> None:
    with running(COMMANDS["gunicorn"].replace("-m gunicorn", "-m gunicorn --log-level info")) as shell:
        with shell.client() as mallory:
            for number in range(9):
                mallory.send_to(str(number), "connected")
            mallory.close_code()
        wait_until(lambda: "4008" in shell.log())


def test_a_reload_closes_clients_with_1012_and_serves_on() -> None:
    with running(COMMANDS["gunicorn"]) as shell:
        with shell.client() as client:
            shell.process.send_signal(signal.SIGHUP)
            assert client.close_code() == 1012
        with shell.client() as client:
            client.hears_nothing_but_itself()


@pytest.mark.slow
def test_a_worker_may_take_longer_to_send_its_clients_away_than_gunicorn_waits_for_signs_of_life() -> None:
    impatient = COMMANDS["gunicorn"].replace("-m gunicorn", "-m gunicorn --timeout 2")
    unhurried = {"WEBSOCKET_DRAIN_RATE": "1", "WEBSOCKET_DRAIN_WINDOW": "6"}
    with running(impatient, **unhurried) as shell, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(shell.client()) for _ in range(5)]
        os.kill(one_worker(shell), signal.SIGTERM)
        assert [client.close_code() for client in clients] == [1012] * len(clients)


@pytest.mark.slow
def test_a_worker_whose_master_was_killed_ends_as_well() -> None:
    impatient = COMMANDS["gunicorn"].replace("-m gunicorn", "-m gunicorn --timeout 2")
    with running(impatient) as shell, shell.client() as client:
        shell.process.kill()
        assert client.close_code() == 1012


def test_a_quick_stop_is_quick() -> None:
    with running(COMMANDS["gunicorn"]) as shell, shell.client() as client:
        shell.process.send_signal(signal.SIGQUIT)
        assert client.close_code() == 1012
        assert shell.process.wait(DEADLINE_S) == 0


def test_a_worker_that_has_just_been_started_hears_that_it_shall_stop(tmp_path: Path) -> None:
    conf = tmp_path / "conf.py"
    conf.write_text("import time\ndef post_fork(server, worker):\n    time.sleep(1)\n")
    slow = COMMANDS["gunicorn"].replace("-m gunicorn", f"-m gunicorn -c {conf} --graceful-timeout 600 --log-level info")
    with running(slow) as shell:
        wait_until(lambda: "startup complete" in shell.log())
        os.kill(one_worker(shell), signal.SIGKILL)
        wait_until(lambda: len(re.findall("Booting worker", shell.log())) == 2)
        shell.terminate()
        assert shell.process.wait(DEADLINE_S) == 0
