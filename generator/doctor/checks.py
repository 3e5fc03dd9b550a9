"""The table of checks: what is looked at, what is expected, and the verdict on what was seen, each in one place.

A look does the work and gives an observation; a verdict on it is pure. Several checks may judge one look.
"""

from collections.abc import Callable
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec

from generator.config.schema import Deploy
from generator.doctor.patient import Patient

T = TypeVar("T")
State: TypeAlias = Literal["ok", "warning", "failed", "skipped"]
# What takes longer is left out of a quick run, and does not hold up the rest of any other.
QUICK_S = 5.0


class Verdict(msgspec.Struct, frozen=True):
    """What was seen, whether it will do, and the fix where it will not."""

    state: State
    seen: str
    fix: str = ""


def ok(seen: object) -> Verdict:
    return Verdict("ok", str(seen))


def warning(seen: object, fix: str) -> Verdict:
    return Verdict("warning", str(seen), fix)


def failed(seen: object, fix: str) -> Verdict:
    return Verdict("failed", str(seen), fix)


def skipped(why: object) -> Verdict:
    return Verdict("skipped", str(why))


class Look(Generic[T]):
    """One look at the host. `takes` is how long it may take, in seconds; `stress`: it could disconnect clients."""

    def __init__(self, see: Callable[[Patient], T], takes: Callable[[Deploy], float], stress: bool) -> None:
        self.see, self.takes, self.stress = see, takes, stress


def look(
    takes: Callable[[Deploy], float] = lambda _: 0.0, stress: bool = False
) -> Callable[[Callable[[Patient], T]], Look[T]]:
    """Make a look of a function, which raises `Unseen` where there is nothing to look at."""
    return lambda see: Look(see, takes, stress)


class Check(msgspec.Struct, frozen=True):
    """A check of one setting, by its key; or of what belongs to `keys`, by a name of its own.

    `meaning` says in a sentence what must hold, `expects` what that is for one deployment.
    """

    name: str
    keys: tuple[str, ...]
    meaning: str
    look: Look[Any]
    expects: Callable[[Deploy], str]
    judge: Callable[[Deploy, Any], Verdict]


CHECKS: dict[str, Check] = {}
UNSEEN: dict[str, str] = {}
"""The settings that cannot be seen from outside, and why."""


def check(
    name: str, *keys: str, see: Look[T], expects: str | Callable[[Deploy], str]
) -> Callable[[Callable[[Deploy, T], Verdict]], Callable[[Deploy, T], Verdict]]:
    """Make a check of a verdict; its docstring says what must hold."""

    def entered(judge: Callable[[Deploy, T], Verdict]) -> Callable[[Deploy, T], Verdict]:
        assert name not in CHECKS, name
        expected = expects if callable(expects) else lambda _: str(expects)
        CHECKS[name] = Check(name, keys or (name,), str(judge.__doc__), see, expected, judge)
        return judge

    return entered


def unseen(key: str, because: str) -> None:
    """Enter a setting that nothing shows from outside."""
    UNSEEN[key] = because
