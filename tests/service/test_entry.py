"""How a fault in the settings is told, whichever way the service is started."""

import subprocess
import sys

import pytest

from service.process.entry import settings_or_exit
from service.settings import Settings
from tests.service.shells import COMMANDS, ROOT, clean_environment


def test_good_settings_are_returned() -> None:
    assert settings_or_exit({"WEBSOCKET_PORT": "9000"}) == Settings(port=9000)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_all_faults_are_told_at_once_one_line_each(command: str) -> None:
    faults = {"WEBSOCKET_HOST": "localhost", "LOG_LEVEL": "loud", "WORKERS": "0"}
    ended = subprocess.run(
        [
            sys.executable,
            *command.format(WEBSOCKET_PORT=8765, WEBSOCKET_PING_INTERVAL=1, WEBSOCKET_PING_TIMEOUT=1).split(),
        ],
        cwd=ROOT,
        env=clean_environment(**faults),
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = [line for line in ended.stderr.splitlines() if line.startswith(tuple(faults))]
    assert told == [
        "WEBSOCKET_HOST: 'localhost' does not fit; use an IPv4 or IPv6 address, such as 127.0.0.1",
        "WORKERS: 0 is too small; use a whole number from 1 to 64, or auto",
        "LOG_LEVEL: 'loud' is unknown; use one of critical, debug, error, info, warning",
    ]
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2
