"""The bundle's files under a temporary root, laid out as on the host, so that a tool's paths lead back to them."""

import re
from collections.abc import Iterable
from pathlib import Path

from generator.readers.verdict import Fault
from generator.rendering.bundle import Bundle, File


def files_in(bundle: Bundle, directory: str, suffix: str = "") -> list[File]:
    """The files, not the links, anywhere under `directory` of the host."""
    return [
        file
        for file in bundle.files
        if file.link is None and file.path.startswith(f"{directory}/") and file.path.endswith(suffix)
    ]


def put(root: Path, path: str, text: str) -> Path:
    """Write one file to its path on the host, below `root`."""
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # it may be a link to a file outside
    target.write_text(text)
    return target


def put_all(root: Path, files: Iterable[File]) -> list[str]:
    """Write files as they are; where they are now."""
    return [str(put(root, file.path, file.text)) for file in files]


def located(output: str, root: Path, pattern: str) -> list[Fault]:
    """The faults in the output of a tool, one on each line; `pattern` names `path`, `line` and `message`.

    Each is reported once: a tool that reads a file twice complains twice.
    """
    if not output:
        return []  # as nearly always: the pattern need not even be compiled
    faults = []
    for match in re.finditer(pattern, output, re.MULTILINE):
        path = match["path"].removeprefix(f"{root}/")
        message = match["message"].replace(f"{root}/", "/").strip()
        faults.append(Fault(path, int(match["line"]) if match["line"] else None, message))
    return list(dict.fromkeys(faults))
