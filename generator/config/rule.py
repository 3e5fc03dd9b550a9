"""How a rule between settings is declared: a function with its name, its settings and its reason."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from generator.config.document import Origin
from generator.config.schema import Deploy
from service.declaration import Fault

Origins: TypeAlias = Mapping[str, Origin]
Findings: TypeAlias = Iterator[tuple[str, Fault]]
Check: TypeAlias = Callable[[Deploy, Origins], Findings]


class Rule(msgspec.Struct, frozen=True):
    """A condition; a finding is an error, or a warning if the deployment runs all the same."""

    name: str
    keys: tuple[str, ...]
    reason: str
    check: Check
    warns: bool = False


RULES: list[Rule] = []


def rule(*keys: str, because: str, warns: bool = False) -> Callable[[Check], Check]:
    """Make a rule of a function: `drain_fits` is the rule drain-fits."""

    def entered(check: Check) -> Check:
        RULES.append(Rule(check.__name__.replace("_", "-"), keys, because, check, warns))
        return check

    return entered
