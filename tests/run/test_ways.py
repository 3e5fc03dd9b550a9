"""The proof of an installation goes by the addresses of clients, with real nginx and a real service behind it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.run.stage import DOMAIN, REPOSITORY, SBIN, needed

pytestmark = pytest.mark.slow


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")
def test_a_site_with_an_address_of_clients_for_itself_is_no_proof_and_one_with_loopback_no_obstacle() -> None:
    command = [needed("unshare"), "--net", sys.executable, "-m", "tests.run.ways_of_clients"]
    environment = {"PATH": f"{Path(sys.executable).parent}:{SBIN}", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {
        "addresses": ["203.0.113.5", "203.0.113.6", "2001:db8::5"],
        "of a number": ["203.0.113.6"],
        "resolves": [True, False],
        "has": [True, False],
        "elsewhere": [False, False, False, False],
        "elsewhere with nonlocal": [False, False, False, True],
        "any": "a message came back",
        "free ones": "a message came back",
        "taken one": f"ws://{DOMAIN}/ at 203.0.113.6, 203.0.113.5: InvalidStatus: "
        "server rejected WebSocket connection: HTTP 418",
    }
