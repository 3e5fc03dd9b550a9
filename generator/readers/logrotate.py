"""logrotate's own parser, which says 0 to an unknown directive but names it."""

import re
from pathlib import Path

from generator.readers.processes import Program, Running, find_program
from generator.readers.systemd import users_of
from generator.readers.tree import files_in, located, put
from generator.readers.verdict import Subject, Verdict
from generator.rendering.bundle import Bundle

ROTATION = Subject("logrotate", "log rotation")

# logrotate 3.21 calls an unknown directive an error, 3.22 warns and goes on.
_ERROR = (
    r"^(?:error|warning(?=.* unknown option)): (?P<path>/[^\s:]+):(?P<line>\d+) (?P<message>.*?)(?: -- ignoring line)?$"
)


def rotation(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """`logrotate -d`, which changes nothing."""
    files = files_in(bundle, "etc/logrotate.d")
    if not files:
        return []
    if not (logrotate := find_program("logrotate")):
        return [ROTATION.not_installed()]
    # logrotate looks for users on this host, where the deployment's need not be.
    ours = "|".join(map(re.escape, sorted(users_of(bundle) | {"www-data", "adm"})))
    user = re.compile(rf"(?<=\s)(?:{ours})(?=\s)")
    paths = [str(put(root, file.path, user.sub("root", file.text))) for file in files]
    for path in paths:
        Path(path).chmod(0o644)
    outcome = yield Program([logrotate, "-d", "-s", str(root / "state"), *paths])
    if outcome.failure:
        return [ROTATION.not_checked(f"logrotate {outcome.failure}")]
    faults = located(outcome.output, root, _ERROR)
    # By then it has read everything; it is not the file's fault that an ordinary user may not do more.
    read = "\nHandling " in outcome.output
    if outcome.status and not faults and not read:
        return [ROTATION.not_checked(f"logrotate failed: {outcome.output.strip()}")]
    return [ROTATION.judged(faults)]
