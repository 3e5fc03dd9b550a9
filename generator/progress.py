"""Show that a long step lives: on a terminal one line, with the seconds so far, that is written over each second.

In a log nothing can be written over, so there a step is one line when it has ended: `ended`. The standard library only,
and readable by Pythons back to 3.6, as `generator/environment.py`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_TICK_S = 1.0


def ended(name: str, seconds: float, word: str) -> str:
    """The line of a step that is over; `word` is padded to six letters, and may be coloured."""
    return f"  {word} {seconds:6.1f} s  {name}\n"


class Progress:
    """The line of one step on a terminal; nothing on anything else.

    It is drawn by a thread of its own, straight into the descriptor: a process that is forked meanwhile inherits no
    lock of it, and no half-written buffer.
    """

    def __init__(self, descriptor: int, name: str, detail: "Callable[[], str] | None" = None) -> None:
        import threading  # only who has a step to show pays for it

        self._descriptor, self._name, self._detail = descriptor, name, detail
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._drawn = 0  # letters that stand there now
        self._began = time.monotonic()
        self._thread = None if not os.isatty(descriptor) else threading.Thread(target=self._go_on, daemon=True)

    def start(self, at_once: bool = True) -> None:
        """Draw it, and again each second; or for the first time after a second."""
        if self._thread is not None:
            if at_once:
                self._draw()
            self._thread.start()

    @contextmanager
    def aside(self) -> "Iterator[None]":
        """Nothing is drawn meanwhile: what is printed has a line of its own."""
        with self._lock:
            self._clear()
            yield

    def stop(self) -> None:
        """Take it away."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._clear()

    def _go_on(self) -> None:
        while not self._over.wait(_TICK_S):
            self._draw()

    def _draw(self) -> None:
        with self._lock:
            detail = self._detail() if self._detail else ""
            text = f"{'':9}{time.monotonic() - self._began:6.1f} s  {self._name}{detail and f': {detail}'}"
            text = text[: (os.get_terminal_size(self._descriptor).columns or 80) - 1]
            self._write("\r" + text.ljust(self._drawn))
            self._drawn = len(text)

    def _clear(self) -> None:
        if self._drawn:
            self._write(f"\r{'':{self._drawn}}\r")
            self._drawn = 0

    def _write(self, text: str) -> None:
        with suppress(OSError):  # the terminal is gone; what matters is said elsewhere
            os.write(self._descriptor, text.encode(errors="replace"))
