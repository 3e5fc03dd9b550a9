"""How far a client has got in its mailbox, and where it keeps that: in memory, in a file, or elsewhere."""

import json
import os
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple, Protocol

# Beyond that the service takes no position, and refuses the hello.
MAX_OFFSET = 2**53 - 1


class Position(NamedTuple):
    """Everything up to `after` was handled. Without its epoch the number means nothing."""

    epoch: str
    after: int


class Keeper(Protocol):
    """Where a position outlives the program; the application may bring its own."""

    def load(self) -> Position | None:
        """The position that was saved last; None the first time."""

    def save(self, position: Position) -> None:
        """Called after each message that the application has handled, before it is confirmed."""


class Memory:
    """Keeps the position as long as the program runs: after that, what was not confirmed comes again."""

    def __init__(self) -> None:
        self._position: Position | None = None

    def load(self) -> Position | None:
        return self._position

    def save(self, position: Position) -> None:
        self._position = position


class File:
    """Keeps the position in a file, which is replaced as a whole."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def load(self) -> Position | None:
        try:
            saved = json.loads(self._path.read_text())
            epoch, after = saved["epoch"], saved["after"]
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            # Half a file proves nothing; the service knows what was confirmed.
            return None
        is_one = type(epoch) is str and type(after) is int and 0 <= after <= MAX_OFFSET
        return Position(epoch, after) if is_one else None

    def save(self, position: Position) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        new.write_text(json.dumps(position._asdict()))
        os.replace(new, self._path)


class Mailbox:
    """What has come from the mailbox, and what of it is handled."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._position = keeper.load()
        self._received = 0
        self._open: deque[int] = deque()
        """Offsets that came and are not handled, or not all before them, in order."""
        self._done: set[int] = set()
        self._said = 0

    @property
    def epoch(self) -> str:
        return "" if self._position is None else self._position.epoch

    @property
    def reached(self) -> int:
        """Everything up to here is handled."""
        return -1 if self._position is None else self._position.after

    def wanted(self) -> dict[str, Any]:
        """What hello says."""
        return {} if self._position is None else self._position._asdict()

    def opened(self, found: dict[str, Any]) -> tuple[str, int | None]:
        """Take the answer to hello.

        Returns: what is to be told to the application, if anything is missing; and what is to be confirmed at once.
        """
        self._said = found["after"]
        if found["epoch"] != self.epoch or self._position is None or found["after"] > self._position.after:
            self._open.clear()
            self._done.clear()
            self._received = found["after"]
            self._save(Position(found["epoch"], found["after"]))
        if found["whole"]:
            return "", None
        missing = f"messages may be missing up to offset {found['lost_to']}"
        if found["last"] > found["after"]:
            return missing, None  # the confirmation of what follows is one of the loss as well
        self._received = max(self._received, found["lost_to"])
        self._save(Position(found["epoch"], found["lost_to"]))
        return missing, found["lost_to"]

    def beyond_hello(self) -> int | None:
        """What was handled while there was no connection to confirm it on."""
        if self._position is None or self._position.after <= self._said:
            return None
        return self._position.after

    def comes(self, offset: int) -> bool:
        """Something has come. Returns: whether it is new."""
        if offset <= self._received:
            return False
        self._received = offset
        self._open.append(offset)
        return True

    def handled(self, epoch: str, offset: int) -> int | None:
        """The application has handled something. Returns: up to where everything is, if that is further than before."""
        if epoch != self.epoch:
            return None
        self._done.add(offset)
        reached = None
        while self._open and self._open[0] in self._done:
            reached = self._open.popleft()
            self._done.discard(reached)
        if reached is not None:
            self._save(Position(epoch, reached))
        return reached

    def _save(self, position: Position) -> None:
        self._position = position
        self._keeper.save(position)
