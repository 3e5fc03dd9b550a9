"""Autobahn|Testsuite's fuzzing client against the shells: `make test-autobahn ARGS="[fast] [standalone] [--write]"`.

`--write` puts the table into docs/protocol.md.
"""

import argparse
import contextlib
import datetime
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tests.autobahn.autobahn_echo import SHELLS
from tests.autobahn.autobahn_suite import ALLOWED, BUILD, CASES, ROOT, MissingError, Outcome, faults, python27, run
from tests.ports import free_port

PAGE = ROOT / "docs" / "protocol.md"
START_TIMEOUT_S = 15.0
TITLES = {"fast": "fast shell", "standalone": "`server: standalone`"}


def main(arguments: list[str]) -> int:
    """Run the cases and print what became of them; 1 when one has failed that is not allowed to."""
    options = _parser().parse_args(arguments)
    found: dict[str, Sequence[Outcome]] = {}
    try:
        python27()
        for shell in options.shells or SHELLS:
            with echoing(shell) as port:
                found[shell] = run(shell, port, options.cases)
    except MissingError as error:
        print(f"wsbundle: {error}", file=sys.stderr)
        return 1
    print(table(found))
    wrong = [fault for shell, outcomes in found.items() for fault in faults(shell, outcomes)]
    print("\n".join(wrong), end="\n" if wrong else "", file=sys.stderr)
    if options.write and not wrong:
        PAGE.write_text(with_table(PAGE.read_text(), f"{_dated()}\n\n{table(found)}"))
    return int(bool(wrong))


@contextlib.contextmanager
def echoing(shell: str) -> Iterator[int]:
    """The port of a shell that sends everything back."""
    port = free_port()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WEBSOCKET_", "LISTEN_", "NOTIFY_"))}
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / f"{shell}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.autobahn.autobahn_echo", shell],
            cwd=ROOT,
            env={**environment, "WEBSOCKET_PORT": str(port)},
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(process, port)
        yield port
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _wait_for(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    with contextlib.closing(socket.socket()) as probe:
        while probe.connect_ex(("127.0.0.1", port)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not start: see {BUILD}")
            time.sleep(0.02)


def table(found: Mapping[str, Sequence[Outcome]]) -> str:
    """How many cases ended in which way, for each shell."""
    rows = ["| shell | cases | OK | non-strict | informational | failed |", "|---|---:|---:|---:|---:|---:|"]
    for shell, outcomes in found.items():
        ways = Counter(outcome.behavior for outcome in outcomes if outcome.has_passed)
        failed = sum(not outcome.has_passed for outcome in outcomes)
        numbers = (len(outcomes), ways["OK"], ways["NON-STRICT"], ways["INFORMATIONAL"], failed)
        rows.append(f"| {TITLES[shell]} | {' | '.join(map(str, numbers))} |")
    rows += [
        f"\nCase {case} with {TITLES[shell]}: {why}" for shell in found for case, why in ALLOWED.get(shell, {}).items()
    ]
    return "\n".join(rows)


def _dated() -> str:
    today = datetime.datetime.now(datetime.timezone.utc).date()
    return f"Autobahn|Testsuite 25.10.1, groups 1 to 7 and 10, run on {today.isoformat()}:"


def with_table(page: str, text: str) -> str:
    """The page with this text between its two marks.

    Raises:
        ValueError: it has no marks.
    """
    begin, end = "<!-- autobahn: begin -->", "<!-- autobahn: end -->"
    new, count = re.subn(f"{begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page needs {begin} and {end} once")
    return new


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make test-autobahn", description="RFC 6455, by another's book.")
    parser.add_argument("shells", nargs="*", metavar="SHELL", help=f"some of {', '.join(SHELLS)}; or all")
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="CASE", help="these cases, such as 7.1.5 or 6.*")
    parser.add_argument("--write", action="store_true", help="put the table into docs/protocol.md")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
