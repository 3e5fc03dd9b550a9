"""Verdicts of tools on the bundle."""

from typing import Literal

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One thing a tool refuses: the bundle's path, the line there if the tool names one, and its message."""

    path: str
    line: int | None
    message: str

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.message}"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What one tool says about the files that it reads.

    A tool that cannot answer gives "not checked", and `why`: silence is not consent. `exposure` is what
    `systemd-analyze security` counts, from 0 (best) to 10.
    """

    tool: str
    title: str
    state: Literal["accepted", "refused", "not checked"]
    why: str = ""
    faults: tuple[Fault, ...] = ()
    exposure: float | None = None

    def __str__(self) -> str:
        state = f"{self.state}: {self.why}" if self.why else self.state
        return "\n  ".join([f"{self.title}: {state}", *map(str, self.faults)])


class Subject(msgspec.Struct, frozen=True):
    """A tool and the part of the bundle that it reads; it makes the verdicts on that."""

    tool: str
    title: str

    def judged(self, faults: list[Fault], exposure: float | None = None) -> Verdict:
        return Verdict(
            tool=self.tool,
            title=self.title,
            state="refused" if faults else "accepted",
            faults=tuple(faults),
            exposure=exposure,
        )

    def not_checked(self, why: str) -> Verdict:
        return Verdict(tool=self.tool, title=self.title, state="not checked", why=why)

    def not_installed(self) -> Verdict:
        return self.not_checked(f"{self.tool} is not installed")
