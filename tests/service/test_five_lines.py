"""The lines of browser code that the README shows, against the service."""

import shutil
import subprocess
import sys

import pytest

from tests.programs import missing
from tests.service.shells import COMMANDS, DEADLINE_S, ROOT, running

NODE = shutil.which("node")
LINES = (ROOT / "tests/service/five_lines.js").read_text()


@pytest.mark.slow
@pytest.mark.skipif(NODE is None, reason=missing("node"))
def test_the_five_lines_of_the_readme_send_a_message_and_hear_that_it_was_delivered() -> None:
    assert NODE is not None
    with running(COMMANDS["runner"]) as shell:
        listen = [sys.executable, str(ROOT / "service/client.py"), "--url", shell.url, "listen", "--as", "alice"]
        with subprocess.Popen(listen, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as alice:
            assert alice.stdout is not None
            assert alice.stdout.readline() == "Connected as alice.\n"
            code = f"await import({str(ROOT / 'clients/js/client.js')!r});\n{LINES}\nprocess.exit();\n"
            code = code.replace("ws://localhost:8765/", shell.url)
            # The flag is for Node 20 and 21, which have no WebSocket without it.
            words = [NODE, "--experimental-websocket", "--input-type=module", "-e", code]
            ended = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S)
            heard = alice.stdout.readline()
            alice.terminate()
    assert (ended.stdout, ended.returncode) == ("delivered\n", 0), ended.stderr
    assert "hello from a page" in heard
