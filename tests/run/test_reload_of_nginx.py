"""Whether a real nginx has followed a reload, and why not."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from generator.host import programs, reload
from generator.host.reload import Reload, nginx_workers
from tests.ports import answers, free_port
from tests.run.stage import needed, wait_until

pytestmark = pytest.mark.slow


class Nginx:
    def __init__(self, root: Path, port: int, main: int) -> None:
        self.conf, self.port, self.main = root / "nginx.conf", port, main

    def workers(self) -> set[int]:
        children = Path(f"/proc/{self.main}/task/{self.main}/children").read_text().split()
        titles = {int(pid): Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0 ") for pid in children}
        return {pid for pid, title in titles.items() if title.endswith("nginx: worker process")}

    def reload(self, *listens: str) -> str:
        configure(self.conf, *listens)
        reloading = Reload(self.conf, self.workers, lambda: (("::", self.port),))
        os.kill(self.main, signal.SIGHUP)
        return reloading.fault()


def configure(conf: Path, *listens: str) -> None:
    paths = "".join(f"{kind}_temp_path {conf.parent}/{kind}; " for kind in ("client_body", "proxy"))
    conf.write_text(
        f"daemon off; pid {conf.parent}/pid; error_log {conf.parent}/error.log; events {{}}\n"
        f"http {{ access_log off; {paths}"
        f"server {{ {''.join(f'listen {each}; ' for each in listens)} return 204; }} }}\n"
    )


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    port = free_port()
    configure(tmp_path / "nginx.conf", f"[::]:{port} ipv6only=off")
    with subprocess.Popen([needed("nginx"), "-c", str(tmp_path / "nginx.conf")]) as process:
        try:
            nginx = Nginx(tmp_path, port, process.pid)
            # It listens before it has workers.
            wait_until(lambda: answers(port) and nginx.workers(), "nginx listens")
            yield nginx
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()


def test_a_reload_that_nginx_follows_has_no_fault(nginx: Nginx) -> None:
    before = nginx.workers()
    assert nginx.reload(f"[::]:{nginx.port} ipv6only=off") == ""
    assert not before & nginx.workers()


def test_one_that_it_does_not_follow_is_told_with_the_words_of_its_log_and_the_next_one_is_none(nginx: Nginx) -> None:
    before, began = nginx.workers(), time.monotonic()
    assert nginx.reload(f"[::]:{nginx.port} ipv6only=off", f"{nginx.port}") == (
        f"nginx goes on with its previous configuration: bind() to 0.0.0.0:{nginx.port} failed "
        "(98: Address already in use); still could not bind()"  # nor would it start like that
    )
    assert nginx.workers() == before
    assert time.monotonic() - began < 30  # not for want of patience
    assert nginx.reload(f"[::]:{nginx.port} ipv6only=off") == ""


@pytest.mark.parametrize("hosts", [["[::1]:"], ["", "[::]:"], ["127.0.0.1:"]])
def test_what_it_could_do_at_a_start_only_is_told(nginx: Nginx, hosts: list[str]) -> None:
    way_out = f"; only `systemctl restart nginx`, which ends all its connections, changes port {nginx.port}"
    assert nginx.reload(*(f"{host}{nginx.port}" for host in hosts)).endswith(f"still could not bind(){way_out}")


def test_its_workers_are_seen_where_there_is_no_ps(nginx: Nginx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PATH", "/nowhere")
    monkeypatch.setattr(reload, "main_process", lambda unit: nginx.main)
    assert nginx_workers() == nginx.workers()
