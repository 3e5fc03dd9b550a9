"""`wsbundle logs`: what the service says."""

from argparse import Namespace

from generator.commands import loaded_for
from generator.host.programs import become
from generator.host.store import Store
from generator.report import CommandError, Report


def logs(options: Namespace, report: Report) -> int:
    """Become the program that shows it.

    Raises:
        CommandError: nothing is installed, or that program is not.
    """
    name = loaded_for(options, report).deploy.name
    store = Store(name)
    if store.current is None:
        raise CommandError(f"{name} is not installed on this host")
    become(*command(name, store.generation(store.current).manager, options.lines, options.follow))


def command(name: str, manager: str, lines: int, follow: bool) -> list[str]:
    """Source: journalctl(1); tail(1), which goes on with a file that was rotated if it follows its name."""
    if manager == "systemd":
        more = ["--follow"] if follow else []
        return ["journalctl", "--no-pager", f"--unit={name}.service", f"--lines={lines}", *more]
    more = ["--follow=name", "--retry"] if follow else []
    return ["tail", f"--lines={lines}", *more, f"/var/log/{name}/{name}.log"]
