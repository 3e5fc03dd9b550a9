"""The help of the programs of the service."""

import sys


def take_no_arguments(program: str, about: str) -> None:
    """Print what a program does and end with 0 when it is asked for `--help`, and with 2 for any other argument."""
    if len(sys.argv) > 1:
        import argparse  # takes time and memory, so only when it is needed

        argparse.ArgumentParser(prog=program, description=about, allow_abbrev=False).parse_args()
