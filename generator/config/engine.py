"""Where the engine is, as deploy.yaml says: read from `engine.url` and `engine.sentinels`. Pure."""

import msgspec

from generator.config.addresses import LOOPBACK, is_address
from generator.config.schema import Deploy
from generator.paths import Paths

PORT = 6379


class Place(msgspec.Struct, frozen=True):
    """A server: over TCP at `host` and `port`, or at the Unix socket `path`."""

    host: str = ""
    port: int = 0
    path: str = ""
    encrypted: bool = False

    @property
    def is_local(self) -> bool:
        """Whether nobody but this host's own programs can reach it."""
        return not self.host or self.host in (*LOOPBACK, "localhost") or self.host.startswith("127.")

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def place(url: str) -> Place:
    """What a URL says that its setting has let through."""
    scheme, _, rest = url.partition("://")
    if scheme == "unix":
        return Place(path=rest)
    return server(rest, encrypted=scheme in ("valkeys", "rediss"))


def server(text: str, encrypted: bool = False) -> Place:
    """`10.0.0.5:6379`, `[fd00::5]:6379`, or either without its port."""
    host, _, port = text.rpartition(":") if not text.endswith("]") and ":" in text else (text, "", "")
    return Place(host=host.strip("[]"), port=int(port or PORT), encrypted=encrypted)


def engine(deploy: Deploy) -> Place | None:
    """None where there is none, and the host is alone."""
    return None if deploy.engine.url is None else place(deploy.engine.url)


def servers(deploy: Deploy) -> tuple[Place, ...]:
    """What the service connects to over TCP; with Sentinels it is they that know the rest."""
    there = engine(deploy)
    if there is None or there.path:
        return ()
    sentinels = tuple(server(text, there.encrypted) for text in deploy.engine.sentinels)
    return tuple(dict.fromkeys((there, *sentinels)))


def addresses(deploy: Deploy) -> tuple[str, ...]:
    """The addresses and networks that the service must be able to reach, as systemd takes them."""
    hosts = [each.host for each in servers(deploy) if is_address(each.host)]
    return tuple(dict.fromkeys((*hosts, *(deploy.engine.allow if hosts else ()))))


def password_file(deploy: Deploy) -> str | None:
    """The password of an engine that is served here is made, so it has a place."""
    return deploy.engine.password_file or (f"/{Paths(deploy.name).engine_password}" if deploy.engine.serve else None)
