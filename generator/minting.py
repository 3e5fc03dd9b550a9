"""Tokens and keys, by way of `service.mint`: keys are read and written where they are, by what uses them."""

import re
import subprocess
from pathlib import Path

from generator.program import starting
from generator.rendering.write import hand_over, make_directory
from generator.report import CommandError, UsageError

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def with_keys(verb: str, path: str, *words: str) -> str:
    """The output of `service.mint`; no secret is ever among its arguments.

    Raises:
        CommandError: it cannot be done.
    """
    done = subprocess.run(starting("service.mint", verb, path, *words), capture_output=True, text=True, check=False)
    if done.returncode:
        raise CommandError(done.stderr.strip())
    return done.stdout.strip()


def seconds(text: str) -> int:
    """The length of a time such as `30d`.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch("([1-9][0-9]{0,5})([smhd])", text)
    if found is None:
        raise UsageError(f"--expires {text!r} is not a length of time; write one such as 90s, 45m, 12h or 30d")
    return int(found[1]) * _SECONDS[found[2]]


def keys_for_trying(name: str, are_needed: bool) -> str:
    """The keys of a service that is tried here, as root or not; when they are needed, they are made for their owner.

    Beside the bundle, not in it: that is copied to hosts.
    """
    path = Path(f"build/{name}.keys.json")
    if are_needed and not path.exists():
        make_directory(path.parent)
        with_keys("new-key", str(path), "HS256")
        hand_over(path)
    return str(path)
