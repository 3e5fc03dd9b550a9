"""A laptop with a checkout, and the hosts that it reaches over ssh in a network of their own."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.hosts import driver
from tests.hosts.conftest import running
from tests.hosts.console import NAME, Console
from tests.hosts.driver import CACHE, Network

HOSTS = ("ws1", "ws2", "ws3")
HOME = f"/usr/local/lib/wsbundle/{NAME}"
_PACKAGES = ("openssh-server", "openssh-client")


def with_sshd(prepared: tuple[Path, ...], suite: str) -> tuple[Path, ...]:
    """A prepared host that ssh gets into; cached as long as what it stands on."""
    key = hashlib.sha256(f"{prepared[0].name} {_PACKAGES}".encode()).hexdigest()[:8]
    target = CACHE / f"reachable-{suite}-{key}"
    with driver.taking_turns(suite):
        if not target.exists():
            with running(*prepared) as console:
                console.run("apt-get", "-q", "update")
                # A sudo of another package is enough; that of Debian cannot stand beside it.
                words = f"apt-get -q -y install {' '.join(_PACKAGES)} $(command -v sudo >/dev/null || echo sudo)"
                console.run("sh", "-c", words, DEBIAN_FRONTEND="noninteractive")
                console.host.shut_down()
                console.host.upper.rename(target)
    return (target, *prepared)


class Desk:
    """The laptop, and its hosts by name."""

    def __init__(self, console: Console, hosts: Sequence[Console], network: Network) -> None:
        self.console, self.network = console, network
        self.hosts = dict(zip(HOSTS, hosts, strict=False))
        console.clone()
        console.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519")
        self.key = console.run("cat", "/root/.ssh/id_ed25519.pub")
        lines = [f"Host {name}\n  HostName {network.addresses[n]}\n" for n, name in enumerate(self.hosts, 1)]
        console.write("/root/.ssh/config", "StrictHostKeyChecking accept-new\n" + "".join(lines))
        for name, host in self.hosts.items():
            host.write("/etc/machine-id", hashlib.md5(name.encode()).hexdigest() + "\n")  # they are clones
            host.run("systemctl", "restart", "systemd-journald")  # writes and is read by that name
            self.let_in(host, "root", "/root")

    @property
    def consoles(self) -> list[Console]:
        return list(self.hosts.values())

    def let_in(self, host: Console, user: str, home: str) -> None:
        """Accept this desk's key there."""
        host.run("install", "-d", "-m", "700", "-o", user, f"{home}/.ssh")
        host.write(f"{home}/.ssh/authorized_keys", self.key)
        host.run("chown", user, f"{home}/.ssh/authorized_keys")

    def configure(self, **settings: Any) -> None:
        self.console.configure(**settings)

    def deploy(self, *words: str, code: int = 0) -> str:
        return self.console.wsbundle("deploy", *words, code=code)


@contextmanager
def a_desk(layers: tuple[Path, ...], hosts: int) -> Iterator[Desk]:
    with ExitStack() as stack:
        consoles = [stack.enter_context(running(*layers)) for _ in range(hosts + 1)]
        network = Network([console.host for console in consoles])
        stack.callback(network.destroy)
        yield Desk(consoles[0], consoles[1:], network)
