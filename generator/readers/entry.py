"""One thing that a configuration file says, with its place: what the readers of other people's files yield."""

from typing import NamedTuple


class Entry(NamedTuple):
    """An option, a directive or the head of a section. `line` and `last` are the lines that it takes, from 1.

    `context` are the sections or blocks that it is in, from outside. The head of a section has no `name`.
    """

    path: str
    line: int
    last: int
    context: tuple[str, ...]
    name: str
    value: str
    text: str
    """The entry as it is written, on one line."""

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"

    @property
    def within(self) -> tuple[str, ...]:
        """The context of what is in the block that it opens; no other block has the same, in whatever file."""
        return (*self.context, f"{self.text.removesuffix(' {')}#{self.where.replace('#', '')}")


def on_one_line(text: str) -> str:
    """What is written over several lines, with single blanks."""
    return " ".join(text.split())
