"""Bundles, whole and broken, and one reader at a time to read them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest

from generator.config.schema import Deploy
from generator.readers.processes import TIME_LIMIT_S, Running, side_by_side
from generator.readers.verdict import Fault, Verdict
from generator.rendering.bundle import Bundle
from generator.rendering.render import render

NAME = "queue-websocket"
Reader = Callable[[Bundle, Path], Running[list[Verdict]]]


def rendered(**settings: Any) -> Bundle:
    """The bundle of a deployment."""
    return render(msgspec.convert({"domain": "ws.example.com", **settings}, Deploy))


def text_of(bundle: Bundle, path: str) -> str:
    return next(file.text for file in bundle.files if file.path == path)


def broken(bundle: Bundle, path: str, old: str, new: str) -> Bundle:
    """The bundle with one text in one file replaced, once."""
    assert old in text_of(bundle, path)
    return changed(bundle, path, lambda text: text.replace(old, new, 1))


def changed(bundle: Bundle, path: str, change: Callable[[str], str]) -> Bundle:
    files = (
        msgspec.structs.replace(file, text=change(file.text)) if file.path == path else file for file in bundle.files
    )
    return Bundle(bundle.name, tuple(files))


def line_of(bundle: Bundle, path: str, start: str) -> int:
    """The first line that starts with `start`, blanks aside, counted from 1."""
    lines = text_of(bundle, path).split("\n")
    return next(number for number, line in enumerate(lines, start=1) if line.lstrip().startswith(start))


def verdicts(reader: Reader, bundle: Bundle, time_limit_s: float = TIME_LIMIT_S) -> list[Verdict]:
    """What one reader says."""
    with TemporaryDirectory() as directory:
        return side_by_side([reader(bundle, Path(directory).resolve())], time_limit_s)[0]


def verdict(reader: Reader, bundle: Bundle) -> Verdict:
    """What one reader says where it says one thing."""
    (only,) = verdicts(reader, bundle)
    return only


def fault(reader: Reader, bundle: Bundle) -> Fault:
    """The one fault that a reader finds."""
    found = verdict(reader, bundle)
    assert found.state == "refused", str(found)
    (only,) = found.faults
    return only


@contextmanager
def nothing_installed(monkeypatch: pytest.MonkeyPatch, directory: Path) -> Iterator[None]:
    """A PATH along which there is nothing."""
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(directory))
        yield
