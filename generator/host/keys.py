"""The deployment's own keys: made once, with the first generation that wants them; then they are the operator's."""

import sys
from contextlib import suppress

from generator.host.apply import must
from generator.host.facts import run
from generator.host.store import Store
from generator.report import Report


class KeysPlace:
    """Where they stand: beside what is rendered, and no part of any generation."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.file = store.root / "etc" / store.name / "keys.json"

    def make(self, number: int, report: Report) -> None:
        """Make them where there are none, for the service of a generation to read; nobody else but root may.

        Raises:
            StepFailed
        """
        if self.file.exists():
            return
        env = self._store.manifest(number)[f"etc/{self._store.name}/.env"]
        with report.step("make keys for tokens"):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            words = ("new-key", str(self.file), "HS256", env["group"])
            must(run(sys.executable, "-I", "-m", "service.mint", *words), "making keys")

    def remove(self) -> None:
        """Take them away, for a first generation that did not work."""
        for path in (self.file, *self.file.parent.glob(".keys-*")):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # other files stand beside it, or nothing ever did
            self.file.parent.rmdir()
