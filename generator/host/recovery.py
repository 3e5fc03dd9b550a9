"""Makes a boot in the middle of a switch copy the files that cannot be links from the generation that is current.

A switch is one rename of `current` for all that is a link. Units and their like are files of their own, so that a power
cut may leave them of one generation and `current` of the other: a socket on a port that nginx does not ask, say. While
a switch is pending, a unit stands by that copies them from `current` after the boot. It belongs to no generation, since
it serves an undoing as well, and a switch from or to what an older release has installed.
"""

from pathlib import Path

from generator.host.directories import make_directory
from generator.paths import Paths
from generator.rendering.write import discard, put_copy, put_link, put_text, temporary_of

_SCRIPT = Path(__file__).with_name("recover.sh")
_UNIT = """\
# Finishes what a power cut interrupted: here only while wsbundle switches NAME from one generation to another.

[Unit]
Description=Finish the interrupted installation of NAME
RequiresMountsFor=/opt/NAME
ConditionPathExists=/opt/NAME/pending.json

[Service]
Type=oneshot
ExecStart=/bin/sh /opt/NAME/recover NAME

[Install]
WantedBy=multi-user.target
"""


def unit_text(name: str) -> str:
    return _UNIT.replace("NAME", name)


def paths(name: str, root: Path) -> tuple[Path, Path, Path]:
    """Script, unit, and the link that starts it at boot. No deployment's own unit is called so: names have no dots."""
    unit = root / Paths(name).recovery
    return root / "opt" / name / "recover", unit, unit.parent / "multi-user.target.wants" / unit.name


def put(name: str, root: Path) -> tuple[Path, Path, Path]:
    """Let the next boot do it. What was put, for the caller to sync."""
    script, unit, wants = paths(name, root)
    for path in (script, wants):
        make_directory(path.parent)
    put_copy(_SCRIPT, script)
    put_text(unit, unit_text(name))
    put_link(wants, f"/{Paths(name).recovery}")
    return script, unit, wants


def remove(name: str, root: Path) -> None:
    for path in reversed(paths(name, root)):
        discard(path)
        discard(temporary_of(path))
