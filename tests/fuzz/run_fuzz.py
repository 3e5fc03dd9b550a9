"""Searches for bytes that break a target: `make fuzz ARGS="[TARGET ...] [--seconds 60]"`.

atheris, coverage-guided: what reaches new code is kept in build/_fuzz/, for the next run to begin with.
"""

import argparse
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "_fuzz"  # no deployment can have this name
REQUIREMENTS = ROOT / "requirements" / "fuzz.txt"
TARGETS = sorted(path.name for path in (HERE / "corpus").iterdir())
SECONDS = 60
MAX_BYTES = 4096
# How much longer than asked for a target may take: to start, and to read its corpus.
GRACE_S = 60


class MissingError(Exception):
    """There is no atheris here; the message says why, and where there is."""


def main(arguments: list[str]) -> int:
    """Fuzz each target in a process of its own, as many at once as there are CPUs; 1 when one is broken."""
    options = _parser().parse_args(arguments)
    try:
        install_atheris()
    except MissingError as error:
        print(f"wsbundle: {error}", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        are_sound = list(pool.map(lambda target: _search(target, options.seconds), options.targets or TARGETS))
    return int(not all(are_sound))


def install_atheris(pip: Sequence[str] = (sys.executable, "-m", "pip")) -> None:
    """Into the environment that this runs in, unless it is there.

    Raises:
        MissingError
    """
    try:
        importlib.import_module("atheris")
        return
    except ImportError:
        pass
    options = ["--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary", ":all:"]
    done = subprocess.run(
        [*pip, "install", *options, "--requirement", str(REQUIREMENTS)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise MissingError(
            f"atheris cannot be installed ({last}); it has wheels for CPython 3.10 to 3.13 on Linux on x86-64 only"
        )


def _search(target: str, seconds: int) -> bool:
    kept, log = BUILD / target, BUILD / f"{target}.log"
    kept.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz.search", target),
        *(str(kept), str(HERE / "corpus" / target)),
        *(f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-artifact_prefix={BUILD}/{target}-"),
        *("-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=1"),
    ]
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                command, cwd=ROOT, stdout=output, stderr=output, timeout=seconds + GRACE_S
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
    said = log.read_text(errors="replace")
    tried = re.search(r"number_of_executed_units: (\d+)", said)
    if status == 0 and tried:
        print(f"{target:12} {int(tried[1]):>9} inputs in {seconds} s: sound", flush=True)
        return True
    end = "\n".join(said.splitlines()[-40:])
    print(f"{target:12} is broken; the input and the log are in {BUILD.relative_to(ROOT)}:\n{end}", flush=True)
    return False


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make fuzz", description="Bytes that break something.", allow_abbrev=False)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)}; or all")
    parser.add_argument("--seconds", type=int, default=SECONDS, help=f"for each target; {SECONDS} unless told")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
