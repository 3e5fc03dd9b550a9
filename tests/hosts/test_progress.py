"""On a terminal something moves all the time, from the first package to the last proof."""

import os
import select
import subprocess
import time

from tests.hosts.console import NAME, Console

SILENCE_S = 6.0  # two on a machine that has nothing else to do


def silences(console: Console, *command: str) -> tuple[str, float]:
    """What a command says on a terminal, and the longest time in which nothing came."""
    main, terminal = os.openpty()
    words = console.host.command(*command, directory="clone")
    child = subprocess.Popen(words, stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    said, longest, last = b"", 0.0, time.monotonic()
    try:
        while select.select([main], [], [], 60)[0]:
            try:
                piece = os.read(main, 1 << 16)
            except OSError:  # all that had the terminal have ended
                break
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            said += piece
        assert child.wait(60) == 0, said.decode()
    finally:
        child.kill()
        os.close(main)
    return said.decode(), longest


def test_an_installation_is_never_silent_on_a_terminal(fresh: Console) -> None:
    fresh.configure()
    said, longest = silences(fresh, "make", "install")
    assert f"Generation 1 of {NAME} runs" in said
    assert longest < SILENCE_S, said
    lines = [line.split("\r")[-1] for line in said.replace("\r\n", "\n").split("\n")]
    done = [line for line in lines if "done" in line]
    assert len(done) > 8
    assert not [line for line in lines if "  install nginx" in line and "done" not in line]
