"""`wsbundle top`: what the service does, in a terminal, once a second."""

import gc
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from generator.commands import loaded_for_center
from generator.config.schema import Deploy, main_domain
from generator.host.asking import NoAnswer, ask, listener_of
from generator.host.rates import SORTS, Rates, Stats, rates
from generator.host.store import Store
from generator.program import AS_ROOT
from generator.rendering.render import local_address
from generator.report import CommandError, Report

if TYPE_CHECKING:
    from rich.console import RenderableType

PERIOD_S = 1.0
_FORMAT = 1
"""Of `/stats`."""


def top(options: Namespace, report: Report) -> int:
    """Show it until `q` is pressed; on anything but a terminal, once."""
    deploy = loaded_for_center(options, report).deploy
    listener = listener_of(Store(deploy.name), local_address(deploy))
    stats = _asked(deploy, listener)
    if report.json or options.once or not (sys.stdout.isatty() and sys.stdin.isatty()):
        time.sleep(PERIOD_S)  # a rate takes two looks
        later = _asked(deploy, listener)
        _show_once(deploy, later, rates(later, stats), options.sort, report)
    else:
        gc.enable()  # other commands live for a moment
        _watch(deploy, listener, stats, options.sort)
    return 0


def _asked(deploy: Deploy, listener: str) -> Stats:
    try:
        return _stats(listener)
    except NoAnswer as error:
        fix = f"see `{AS_ROOT} status`, or start it in a checkout with `make run`"
        if "Permission denied" in str(error):
            fix = f"only root and nginx may ask there: `{AS_ROOT} top`"
        raise CommandError(f"{deploy.name} does not answer at {error}; {fix}") from None


def _stats(listener: str) -> Stats:
    """Raises: NoAnswer"""
    try:
        stats: Stats = json.loads(ask(listener, "/stats"))
        form = stats["format"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise NoAnswer(f"{listener}: another program answers there") from None
    if form != _FORMAT:
        raise CommandError(f"the service answers in format {form}; use the wsbundle that it was installed with")
    return stats


def _show_once(deploy: Deploy, stats: Stats, between: Rates | None, sort: str, report: Report) -> None:
    import msgspec

    report.fact(stats=stats, rates=msgspec.to_builtins(between))
    if report.json:
        return
    from rich.console import Console

    from generator.host.screen import screen

    # As wide as it needs where nobody looks, so that no row is broken.
    width = None if sys.stdout.isatty() else 120
    sys.stdout.flush()
    Console(width=width, highlight=False).print(screen(main_domain(deploy), stats, between, sort))


def _watch(deploy: Deploy, listener: str, stats: Stats, sort: str) -> None:
    from rich.console import Console, Group
    from rich.live import Live

    from generator.host.screen import keys, screen

    between: Rates | None = None
    trouble = ""

    def drawn() -> "RenderableType":
        return Group(screen(main_domain(deploy), stats, between, sort, trouble), "", keys(sort))

    with _pressed_keys(), Live(drawn(), console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        due = time.monotonic() + PERIOD_S
        while (key := _key(due - time.monotonic())) != "q":
            if key == "s":
                sorts = list(SORTS)
                sort = sorts[(sorts.index(sort) + 1) % len(sorts)]
            if time.monotonic() >= due:
                due = time.monotonic() + PERIOD_S
                try:
                    now = _stats(listener)
                    stats, between, trouble = now, rates(now, stats), ""
                except NoAnswer:
                    # It may be restarting, which is just what somebody wants to see.
                    trouble = trouble or f"not answering since {time.strftime('%H:%M:%S')}"
            live.update(drawn(), refresh=True)


@contextmanager
def _pressed_keys() -> Iterator[None]:
    """Keys arrive as they are pressed, and are not shown."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _key(within_s: float) -> str:
    """The key that is pressed within this time; nothing when none is. The end of the terminal counts as `q`."""
    import select

    if not select.select([sys.stdin], [], [], max(0.0, within_s))[0]:
        return ""
    return os.read(sys.stdin.fileno(), 1).decode(errors="replace") or "q"
