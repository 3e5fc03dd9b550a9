"""What has become of the publications with an `Idempotency-Key` of the last minutes, for a script that tries again."""

from collections import OrderedDict
from dataclasses import dataclass

from service.core.addresses import Address
from service.core.plain_http import Answer

# A script that has heard nothing tries again within minutes, or not at all.
REMEMBERED_S = 300
MAX_REMEMBERED = 10_000


@dataclass(slots=True)
class Outcome:
    """What has become of a publication, as far as is known. `expires` is in seconds of the center's clock."""

    fingerprint: bytes
    expires: float
    answer: Answer


class Remembered:
    """Outcomes by sender and key: all of the last `REMEMBERED_S`, or `MAX_REMEMBERED` of them.

    If there are more, the sender with the most keys loses its oldest: nobody can push out the keys of another.
    """

    def __init__(self) -> None:
        self._outcomes: OrderedDict[tuple[Address, str], Outcome] = OrderedDict()
        self._keys: dict[Address, OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._outcomes)

    def get(self, sender: Address, key: str, now: float) -> Outcome | None:
        while self._outcomes and next(iter(self._outcomes.values())).expires <= now:
            self.forget(*next(iter(self._outcomes)))
        return self._outcomes.get((sender, key))

    def put(self, sender: Address, key: str, outcome: Outcome) -> None:
        """Remember one that is not there; they come in the order in which they expire."""
        self._outcomes[sender, key] = outcome
        self._keys.setdefault(sender, OrderedDict())[key] = None
        if len(self._outcomes) > MAX_REMEMBERED:
            most = max(self._keys, key=lambda holder: len(self._keys[holder]))
            self.forget(most, next(iter(self._keys[most])))

    def forget(self, sender: Address, key: str) -> None:
        if self._outcomes.pop((sender, key), None) is not None:
            keys = self._keys[sender]
            del keys[key]
            if not keys:
                del self._keys[sender]
