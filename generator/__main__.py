"""The command `wsbundle`: see `wsbundle --help`.

Exit codes: 0 done or nothing to do, 1 failed, 2 deploy.yaml or the command line is wrong.
"""

import gc
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from itertools import pairwise

from generator.command_line import parse
from generator.config.load import ConfigError
from generator.report import CommandError, Report, UsageError, refused

DONE, FAILED, WRONG = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Asked for before the rest is parsed, so that a wrong command line is reported as JSON too.
    report = Report(json="--format=json" in arguments or ("--format", "json") in pairwise(arguments))
    try:
        options = parse(arguments)
        report.verbose = getattr(options, "verbose", False)
        code: int = options.run(options, report)
    except ConfigError as error:
        report.faults(error.faults)
        code = WRONG
    except UsageError as error:
        report.error(str(error))
        code = WRONG
    except CommandError as error:
        report.error(str(error))
        code = FAILED
    except BrokenPipeError:
        raise
    except OSError as error:
        report.error(refused(error))
        code = FAILED
    except KeyboardInterrupt:
        return 130
    return report.finish(code)


def _open_what_was_closed() -> None:
    """Have somewhere to write, when started with `>&-` or by a program that has closed its output.

    Else the next file that is opened would be where the programs that are run here write to.
    """
    while (end := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(end, True)
    os.close(end)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def run() -> None:
    """The entry point of the installed command."""
    gc.disable()  # where who has imported this has not done so already
    _open_what_was_closed()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr has it: no message may fail for its letters
    try:
        code = main()
        sys.stdout.flush()
    except OSError as error:
        # Nothing more can be printed. Where the reader of our output left, as `| head` does, end quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"wsbundle: standard output: {error.strerror}", file=sys.stderr)
        code = FAILED
    sys.exit(code)


if __name__ == "__main__":
    run()
