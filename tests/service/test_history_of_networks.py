"""What became of every message between two hosts while Sentinels chose one engine after another, over TLS, and the
network between hosts and engine was cut and stuttered.

As in `tests.service.test_history_of_hosts`, whose promises are checked.
"""

import asyncio
import contextlib
import itertools
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.generator.certificate_maker import Pair, pair
from tests.ports import free_port
from tests.service.networks import ENGINE, Networks, needs_networks
from tests.service.processes import Processes, several
from tests.service.servers import PROGRAMS, Server
from tests.service.shells import wait_until
from tests.service.test_history import SEED, Actor, Faults, History, play
from tests.service.test_history_of_hosts import (
    AWAY_S,
    CLIENTS,
    SILENCE_S,
    ActorOfHosts,
    HistoryOfHosts,
    Hosts,
)

pytestmark = [pytest.mark.slow, needs_networks]

# By then the Sentinels have agreed on another master.
FAILOVER_S = 6.0
_STUTTER_S = 0.15


class HistoryOfNetworks(HistoryOfHosts):
    """It takes longer until another engine is found."""

    @property
    def patience_s(self) -> float:
        return super().patience_s + FAILOVER_S


class ActorInside(ActorOfHosts):
    """A client in the network of its host."""

    def __init__(self, networks: Networks, host: str, port: int, *rest: Any) -> None:
        super().__init__(*rest)
        self._networks, self._host, self._port = networks, host, port

    def _way(self) -> dict[str, Any]:
        with self._networks.inside(self._host):
            way = socket.create_connection(("127.0.0.1", self._port))
        way.setblocking(False)
        return {"sock": way}


class Engines:
    """A master, its replica, and three Sentinels that watch them. They and their clients speak TLS with each other."""

    def __init__(self, name: str, home: Path, certificate: Pair, stack: contextlib.ExitStack) -> None:
        self._certificate = certificate
        self.ports: dict[Server, int] = {}
        self.servers: list[Server] = []
        for _ in range(2):
            server = Server(name, home, "--protected-mode", "no")
            self.servers.append(server)
            self.start(server, *(("--replicaof", f"{ENGINE} {self.ports[self.servers[0]]}") if self.ports else ()))
            stack.callback(server.kill)
        wait_until(lambda: "state=online" in self.servers[0].ask("INFO", "replication"))
        self.sentinels = []
        for number in range(3):
            file = home / f"sentinel-{number}.conf"
            file.write_text(
                f"sentinel monitor chat {ENGINE} {self.ports[self.servers[0]]} 2\n"
                "sentinel down-after-milliseconds chat 1000\nsentinel failover-timeout chat 5000\n"
            )
            sentinel = Server(name, home, str(file), "--sentinel", "--protected-mode", "no")
            self.start(sentinel)
            stack.callback(sentinel.kill)
            self.sentinels.append(sentinel)
        wait_until(lambda: all(self._knows_all(sentinel) for sentinel in self.sentinels))

    def start(self, server: Server, *more: str) -> None:
        """Start one, at the same port as before."""
        port = self.ports.setdefault(server, free_port())
        file, key = map(str, self._certificate)
        tls = ("--tls-cert-file", file, "--tls-key-file", key, "--tls-ca-cert-file", file, "--tls-auth-clients", "no")
        server.start("--bind", ENGINE, "127.0.0.1", "--tls-port", str(port), *tls, "--tls-replication", "yes", *more)

    def _knows_all(self, sentinel: Server) -> bool:
        said = sentinel.ask("SENTINEL", "MASTER", "chat")
        return "num-other-sentinels\r\n$1\r\n2" in said and "num-slaves\r\n$1\r\n1" in said

    def master(self) -> Server | None:
        """Whom the Sentinels name."""
        said = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "chat")
        return next((server for server in self.servers if f"\r\n{self.ports[server]}\r\n" in said), None)

    def settings(self) -> dict[str, str]:
        """What the service is told of them."""
        return {
            "WEBSOCKET_ENGINE_URL": f"valkeys://{ENGINE}",
            "WEBSOCKET_ENGINE_SENTINELS": " ".join(f"{ENGINE}:{self.ports[each]}" for each in self.sentinels),
            "WEBSOCKET_ENGINE_MASTER": "chat",
            "WEBSOCKET_ENGINE_CA": str(self._certificate.file),
            "WEBSOCKET_ENGINE_SILENCE": str(SILENCE_S),
        }


class FaultsOfNetworks(Faults):
    """What happens to the network, and who is the master."""

    def __init__(
        self, hosts: Hosts, history: History, actors: list[Actor], networks: Networks, engines: Engines
    ) -> None:
        super().__init__(hosts, history, actors)  # type: ignore[arg-type]
        self._networks, self._engines = networks, engines
        self._is_whole = asyncio.Event()
        self._is_whole.set()

    def weighted(self) -> dict[Any, int]:
        # Only what a client lived long enough to hear of can be judged: few clients lose their connection.
        return {
            self._nothing: 12,
            self._cut_off: 4,
            self._stutter: 3,
            self._fail_over: 2,
            self._lose_the_master: 3,
            self._drop: 3,
            self._kill: 1,
            self._hold: 1,
            self._disconnect: 1,
        }

    def _later(self, seconds: float, act: Any, *about: Any) -> float:
        asyncio.get_running_loop().call_later(seconds, act, *about)
        return seconds

    def _nothing(self) -> object:
        """The hosts have time to become one again."""
        return ""

    def _cut_off(self) -> object:
        """Of one host, nothing reaches the engine, and the other way round."""
        if not self._is_whole.is_set():
            return ""
        self._is_whole.clear()
        host = self._dice.choice(("a", "b"))
        self._networks.cut(host)
        return host, self._later(self._dice.uniform(0.1, AWAY_S), self._join, host)

    def _join(self, host: str) -> None:
        self._networks.join(host)
        self._is_whole.set()

    def _stutter(self) -> object:
        """A slow link: packets are lost again and again, so that each takes long, and none is lost for good."""
        if not self._is_whole.is_set():
            return ""
        self._is_whole.clear()
        host = self._dice.choice(("a", "b"))
        times = self._dice.randrange(3, 12)
        for number in range(times):
            self._later(2 * number * _STUTTER_S, self._networks.cut, host)
            self._later((2 * number + 1) * _STUTTER_S, self._networks.join, host)
        return host, self._later(2 * times * _STUTTER_S, self._join, host)

    def _fail_over(self) -> object:
        """The Sentinels are asked for another master."""
        with self._networks.inside():
            return self._engines.sentinels[0].ask("SENTINEL", "FAILOVER", "chat").strip()

    def _drop(self) -> object:
        """All connections end, and can be made anew at once."""
        if not self._is_whole.is_set():
            return ""
        with self._networks.inside():
            return [each.ask("CLIENT", "KILL", "TYPE", "pubsub").strip() for each in self._engines.servers]

    def _lose_the_master(self) -> object:
        """It is killed, or stands still, until after there is another one."""
        if not self._is_whole.is_set():
            return ""
        with self._networks.inside():
            master = self._engines.master()
        if master is None:
            return ""
        self._is_whole.clear()
        fault = self._dice.choice((signal.SIGKILL, signal.SIGSTOP))
        if fault == signal.SIGKILL:
            master.kill()
        else:
            master.send(fault)
        return fault.name, self._later(self._dice.uniform(0.5, FAILOVER_S), self._return, master, fault)

    def _return(self, master: Server, fault: signal.Signals) -> None:
        if fault == signal.SIGKILL:
            with self._networks.inside():
                self._engines.start(master)
        else:
            master.send(signal.SIGCONT)
        self._is_whole.set()

    async def happen(self, until: float) -> None:
        """At the end all is there again."""
        await super().happen(until)
        await self._is_whole.wait()


async def live(hosts: Hosts, networks: Networks, engines: Engines) -> tuple[HistoryOfNetworks, FaultsOfNetworks]:
    """All of it."""
    history = HistoryOfNetworks()
    names = [f"client {number}" for number in range(CLIENTS)]
    actors: list[Actor] = []
    for number, name in enumerate(names):
        processes = hosts.hosts[number % 2]
        where = (networks, "ab"[number % 2], processes.shell.port)
        actors.append(ActorInside(*where, name, "nc.v1", processes, history, names))
    faults = FaultsOfNetworks(hosts, history, actors, networks, engines)
    await play(history, actors, faults)
    return history, faults


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_message_over_a_bad_network_becomes_what_was_promised(name: str, tmp_path: Path) -> None:
    print(f"WEBSOCKET_HISTORY_SEED={SEED}")
    with contextlib.ExitStack() as all_of_it:
        networks = all_of_it.enter_context(contextlib.closing(Networks("a", "b")))
        with networks.inside():
            engines = Engines(name, tmp_path, pair(tmp_path / "tls", f"IP:{ENGINE}"), all_of_it)
        processes: list[Processes] = []
        for host in ("a", "b"):
            with networks.inside(host):
                started = several("runner", 2, tmp_path / host, WEBSOCKET_ENGINE_HOST=host, **engines.settings())
                processes.append(all_of_it.enter_context(started))
        hosts = Hosts(processes)
        history, faults = asyncio.run(live(hosts, networks, engines))
        across = sum(
            sent.has_left and (int(sent.life.owner[7:]) + int(sent.to[7:])) % 2 for sent in history.sent.values()
        )
        print(f"{len(history.sent)} sent, {across} told to have left for the other host")
        print(dict(faults.happened), f"{history.late_s:.2f} s late")
        broken = list(itertools.islice(history.violations(), 50))
        assert not broken, "\n".join((*faults.told, *broken))
        for each in hosts.hosts:
            log = each.shell.log()
            assert "Traceback" not in log, log[log.find("Traceback") - 500 :][:3000]
    assert across > 0
