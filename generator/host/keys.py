"""The deployment's own keys: made once, with the first generation that wants them; then they are the operator's.

Several hosts that are one center have the same keys, which `wsbundle deploy` or the operator brings there.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress

from generator.config.schema import Deploy, keys_file
from generator.host.directories import make_directory
from generator.host.facts import account_of, closed_to
from generator.host.programs import must, run
from generator.host.store import Store
from generator.paths import Paths
from generator.program import AS_ROOT, starting
from generator.rendering.render import service_user
from generator.report import Report
from service.declaration import Fault


class KeysPlace:
    """Where they are: beside the rendered files, and not part of any generation."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._paths = Paths(store.name)
        self.file = store.root / self._paths.keys

    def are_missing(self, number: int) -> bool:
        """Whether a generation wants them, and there are none. Keys elsewhere are the operator's."""
        return self._store.generation(number).keys == f"/{self._paths.keys}" and not self.file.exists()

    def make(self, number: int, report: Report) -> None:
        """Make them for the service of a generation to read; nobody else but root may.

        Raises:
            StepFailed
        """
        env = self._store.manifest(number)[self._paths.env]
        with report.step("make keys for tokens"):
            make_directory(self.file.parent)
            words = ("new-key", str(self.file), "HS256", env["group"])
            must(run(*starting("service.mint", *words)), "making keys")

    def hand_over(self, number: int) -> None:
        """Let the service of a generation read them; those that came from another host may be root's alone."""
        if self._store.generation(number).keys == f"/{self._paths.keys}":
            shutil.chown(self.file, "root", self._store.manifest(number)[self._paths.env]["group"])
            self.file.chmod(0o640)

    def remove(self) -> None:
        """Take them away, for a first generation that did not work."""
        for path in (self.file, *self.file.parent.glob(".keys-*")):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty, or was never made
            self.file.parent.rmdir()


def lacks_keys(store: Store) -> bool:
    """Whether the current generation wants keys, and somebody has removed them."""
    return store.current is not None and KeysPlace(store).are_missing(store.current)


def faults(deploy: Deploy) -> Iterator[Fault]:
    """Why the service would not start with the keys that deploy.yaml names."""
    elsewhere = keys_file(deploy) != f"/{Paths(deploy.name).keys}"
    if deploy.auth != "token" or not elsewhere:
        return
    user = service_user(deploy)
    if not os.path.isfile(str(deploy.keys)):
        fix = f"make it with `{AS_ROOT} token --keys {deploy.keys} --new-key`, or leave keys out"
        yield Fault(f"there is no {deploy.keys}", fix)
    elif os.geteuid() == 0 and account_of(user) is not None and closed_to(user, str(deploy.keys)):
        yield Fault(
            f"the user {user} cannot read {deploy.keys}", f"`chgrp {user} {deploy.keys}; chmod g+r {deploy.keys}`"
        )
