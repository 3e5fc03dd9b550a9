"""The engine that a host serves: which of the distribution's packages it is, and what it needs that no bundle may hold.

A bundle is the same on every machine and has the settings for either package; a host installs those of its own. The
password is made once, like the keys for tokens, and belongs to no generation. What the engine reads of it is a hash, in
a file that only root can open, beside the rendered files of each generation.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec.structs import replace

from generator.config.engine import engine, password_file
from generator.config.schema import Deploy
from generator.host.directories import make_directory
from generator.host.facts import closed_to, has_address, holder_of, is_active, operating_system
from generator.host.hosts import RefusedError, password_in
from generator.host.programs import StepFailed
from generator.host.store import ACL, Store
from generator.paths import Paths
from generator.readers.engine import with_password
from generator.rendering.bundle import Bundle
from generator.rendering.write import put_text
from service.declaration import Fault

Flavour: TypeAlias = Literal["", "valkey", "redis"]

# These came before Valkey, or have it only beside what they support. Newer ones, and those made from them, have it.
_WITH_REDIS = (("debian", "12"), ("ubuntu", "22.04"), ("ubuntu", "24.04"))
_TOO_OLD = {("ubuntu", "22.04"): "Redis 6.0"}


def flavour(deploy: Deploy, store: Store) -> Flavour:
    """Which package serves the engine here; nothing where none is served.

    What it was stays: the other one might not read its data.
    """
    if not deploy.engine.serve:
        return ""
    before = "" if store.current is None else store.generation(store.current).engine
    if before in ("valkey", "redis"):
        return "redis" if before == "redis" else "valkey"
    system, version, _ = operating_system()
    return "redis" if (system, version) in _WITH_REDIS else "valkey"


def fitted(bundle: Bundle, flavour: Flavour) -> Bundle:
    """The bundle with the settings for that package among what is installed."""
    paths = Paths(bundle.name)
    chosen = {"valkey": paths.beside_valkey, "redis": paths.beside_redis}.get(flavour)
    files = (replace(file, installed=True) if file.path == chosen else file for file in bundle.files)
    return replace(bundle, files=tuple(files))


def flavour_of(bundle: Bundle) -> Flavour:
    """What a bundle was fitted for."""
    paths, installed = Paths(bundle.name), {file.path for file in bundle.files if file.installed}
    return "valkey" if paths.beside_valkey in installed else "redis" if paths.beside_redis in installed else ""


def lacks(deploy: Deploy) -> list[str]:
    """What this host has not got yet of the host that serves the engine."""
    return [path for path in (password_file(deploy), deploy.engine.ca) if path is not None and not os.path.exists(path)]


def faults(deploy: Deploy, store: Store) -> Iterator[Fault]:
    """Why this host cannot have what deploy.yaml says of an engine, whether the engine is there or not."""
    ours, path = deploy.engine, password_file(deploy)
    makes = ours.serve and path == f"/{Paths(deploy.name).engine_password}"
    if path is not None and not makes and not os.path.exists(path):
        yield Fault(f"there is no {path}", "copy it from the host that serves the engine, or write the password there")
    elif path is not None and os.access(path, os.R_OK):
        try:
            password_in(Path(path))
        except RefusedError as error:
            yield error.fault
    for name in ("ca", "cert", "key"):
        if (file := getattr(ours, name)) is not None and not os.path.exists(file):
            yield Fault(f"there is no {file}", f"put it there, or change engine.{name}")
    there = engine(deploy)
    if not ours.serve or there is None:
        return
    if old := _TOO_OLD.get(operating_system()[:2]):
        yield Fault(
            f"this release has {old}, and an engine is Redis 7 or Valkey", "serve it on a host with a newer one"
        )
    if there.host and not has_address(there.host):
        yield Fault(f"{there.host} in engine.url is not an address of this host", "`ip address` shows those there are")
    elif there.host and not serves(store, ours.url) and (holder := holder_of(there.host, there.port)) is not None:
        by = f" by {holder}" if holder else ""
        yield Fault(f"{there} is taken{by}, so no engine could be served there", "use another port in engine.url")


def serves(store: Store, url: str | None) -> bool:
    """Whether an engine is served here already, where a URL says."""
    if store.current is None:
        return False
    generation = store.generation(store.current)
    return bool(generation.engine) and generation.joined.url == url


def answers(store: Store) -> bool:
    """Whether the engine that is served here runs, and knows the password that it will be shown."""
    return is_active(store.engine_unit(store.current)) and not Password(store).has_changed()


class Password:
    """Where the password stands that the service shows to the engine."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._paths = Paths(store.name)
        self.file = store.root / self._paths.engine_password

    def is_missing(self, number: int) -> bool:
        """Whether a generation serves an engine, and its password is to be made."""
        generation = self._store.generation(number)
        return bool(generation.engine) and self._is_ours(generation.joined.password_file) and not self.file.exists()

    def make(self) -> None:
        make_directory(self.file.parent)
        put_text(self.file, secrets.token_urlsafe(32) + "\n", 0o600)

    def remove(self) -> None:
        """Take it away, for a first generation that did not work."""
        self.file.unlink(missing_ok=True)
        with suppress(OSError):  # other files stand beside it
            self.file.parent.rmdir()

    def hand_over(self, number: int) -> None:
        """Let the service of a generation read it, and the engine know its hash.

        Raises:
            StepFailed: the service cannot read it, or nobody can.
        """
        generation, user = self._store.generation(number), self._store.user(number)
        ours = generation.joined
        if ours.url is None:
            return
        if self._is_ours(ours.password_file):
            shutil.chown(self.file, "root", user)
            self.file.chmod(0o640)
        for path in closed_to(user, *filter(None, (ours.password_file, ours.ca, ours.cert, ours.key))):
            raise StepFailed(f"the user {user} cannot read {path}: `chgrp {user} {path}; chmod g+r {path}`")
        if generation.engine:
            try:
                put_text(self._acl(number), self._users(number), 0o600)
            except RefusedError as error:
                raise StepFailed(str(error)) from None

    def has_changed(self) -> bool:
        """Whether the engine that is served knows another one."""
        number = self._store.current
        if number is None or not self._store.generation(number).engine:
            return False
        try:
            return self._acl(number).read_text(encoding="utf-8") != self._users(number)
        except (OSError, RefusedError):
            return True

    def _is_ours(self, path: str | None) -> bool:
        return path == f"/{self._paths.engine_password}"

    def _acl(self, number: int) -> Path:
        return self._store.directory(number) / ACL

    def _users(self, number: int) -> str:
        rules = self._store.directory(number) / self._paths.engine_users
        path = str(self._store.generation(number).joined.password_file)
        password = password_in(Path(self._store.root, path.lstrip("/")))
        return with_password(rules.read_text(encoding="utf-8"), password)
