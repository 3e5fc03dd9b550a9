"""The help of the programs of the service."""

import sys


def take_no_arguments(program: str, about: str) -> None:
    """Print what a program does and end with 0 when it is asked for `--help`, and with 2 for any other argument."""
    take_option(program, about)


def take_option(program: str, about: str, *option_and_help: str) -> bool:
    """The same for a program that takes one option, which is one without a value.

    Returns: whether it is there.
    """
    if len(sys.argv) == 1:
        return False
    import argparse  # takes time and memory, so only when it is needed

    parser = argparse.ArgumentParser(prog=program, description=about, allow_abbrev=False)
    if option_and_help:
        option, its_help = option_and_help
        parser.add_argument(option, action="store_true", dest="is_there", help=its_help)
    return bool(getattr(parser.parse_args(), "is_there", False))
