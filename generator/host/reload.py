"""Whether nginx has followed a reload, which systemd does not say: `systemctl reload` only asks for it."""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from generator.config.addresses import EVERY
from generator.host.facts import bound_by_nginx, main_process
from generator.readers.nginx import HOST
from generator.readers.nginx_sites import error_log, servers

_PATIENCE_S = 60.0


class Reload:
    """A reload of nginx that is about to be asked for."""

    def __init__(
        self,
        main: Path = HOST / "nginx.conf",
        workers: Callable[[], set[int]] | None = None,
        bound: Callable[[], tuple[tuple[str, int], ...]] = bound_by_nginx,
    ) -> None:
        self._workers, self._bound = workers or nginx_workers, bound
        self._before = self._workers()
        self._main, self._log = main, error_log(main)
        self._from = self._size()

    def fault(self) -> str:
        """Wait until the old workers accept no more connections; why they still do, or nothing.

        Until then they serve new clients with the old certificate, or send them to a service that has moved. If nginx
        cannot bind an address, they stay for ever.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while self._before & self._workers():
            said = self._said()
            # It tries five times to bind an address, and then says that it could not.
            if any(not line.startswith("bind() ") for line in said) or time.monotonic() > deadline:
                why = "; ".join(said) or "its log does not say why"
                return f"nginx goes on with its previous configuration: {why}{self._way_out(said)}"
            time.sleep(0.05)
        return ""

    def _way_out(self, said: list[str]) -> str:
        """Of a port that nginx itself has, and is to have otherwise; who else may have one is told beforehand.

        Every address of a port and one alone exclude each other, and it binds what is new before it leaves the old.
        """
        failed = (re.match(r"bind\(\) to \[?([^]\s]+?)\]?:(\d+) failed \(98:", line) for line in said)
        asked = [(found[1], int(found[2])) for found in failed if found]
        bound = self._bound() if asked else ()
        listens = [each for server in servers(self._main) for each in server.listens] if asked else []
        # Of IPv4 as well, also after a start.
        of_both = {each.port for each in listens if "ipv6only=off" in each.options}
        own = [
            at
            for host, at in asked
            for held, port in bound
            if at == port and {host, held} & {*EVERY} and ((":" in host) == (":" in held) or at not in of_both)
        ]
        return f"; only `systemctl restart nginx`, which ends all its connections, changes port {own[0]}" if own else ""

    def _said(self) -> list[str]:
        """The lines that nginx has written since, each once and without its time."""
        if self._log is None or not self._size():
            return []
        with self._log.open("rb") as file:
            file.seek(self._from if self._from <= self._size() else 0)  # it may have been rotated
            new = file.read().decode(errors="replace")
        return list(dict.fromkeys(re.findall(r"\[emerg\] \d+#\d+: (.*)", new)))

    def _size(self) -> int:
        return self._log.stat().st_size if self._log is not None and self._log.is_file() else 0


def nginx_workers() -> set[int]:
    """The workers of the host's nginx that accept connections; one that shuts down says so in its title.

    Not by ps, which small systems lack. Source: proc_pid_cmdline(5), proc_pid_stat(5), ngx_setproctitle in nginx.
    """
    main, found = main_process("nginx.service"), set()
    for process in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):  # it has ended
            title = Path("/proc", process, "cmdline").read_bytes().rstrip(b"\0 ")
            if title.endswith(b"nginx: worker process") and _parent(process) == main:
                found.add(int(process))
    return found


def _parent(process: str) -> int:
    """Behind the name of the program, which may have any letters in it."""
    return int(Path("/proc", process, "stat").read_bytes().rpartition(b")")[2].split()[1])
