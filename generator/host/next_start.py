"""What a deployment that runs would not survive: the next start of the programs that it needs. Only looks."""

from collections.abc import Iterator

from generator.host import facts
from generator.host.obstacles import for_the_next_start, not_at_boot
from generator.readers.nginx import main_text, missing_includes
from generator.report import Report
from service.declaration import Fault


def needed(manager: str) -> tuple[str, ...]:
    """The services of packages that must be started at boot."""
    return ("nginx.service", *["supervisor.service"] * (manager == "supervisor"))


def has_programs(manager: str) -> bool:
    """Whether supervisor, where it is the manager, reads our program."""
    return manager != "supervisor" or facts.supervisor_reads_programs()


def faults(manager: str) -> Iterator[Fault]:
    """Why clients will not get through after the next boot, though they do now. Only root may test nginx."""
    main = main_text()
    missing = () if main is None else tuple(missing_includes(main))
    yield from for_the_next_start(facts.nginx_fault(), facts.masked(*needed(manager)), missing, has_programs(manager))


def told(manager: str, report: Report) -> list[str]:
    """The same in words; warns as well of what something else than systemd may start."""
    for warning in not_at_boot(facts.disabled(*needed(manager))):
        report.warning(warning)
    return [str(fault) for fault in faults(manager)]


def comes_back(manager: str, report: Report) -> bool:
    """Whether clients will get through after the next boot as well; says why not."""
    found = told(manager, report)
    for fault in found:
        report.error(fault)
    return not found
