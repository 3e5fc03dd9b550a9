"""Prometheus' own parsers, of the rules and of the job that it would scrape with."""

import re
from pathlib import Path

from generator.readers.processes import Outcome, Program, Running, find_program
from generator.readers.tree import files_in, put
from generator.readers.verdict import Fault, Subject, Verdict
from generator.rendering.bundle import Bundle

MONITORING = Subject("promtool", "alerts and scraping")
_DIRECTORY = "monitoring"
# What it says of a file; 3 is for lint. Others are a fault of its own: a program in Go that panics exits with 2.
_JUDGED = (0, 1, 3)
# So begins what it says of its arguments, such as an option that an old one does not know: it has read no file.
_USAGE = "promtool: error: "
# `rules.yaml: 4:9: group "a", rule 1, "A": could not parse expression`, or `line 5: field alrt not found`.
_FAULT = r"(?m)(?:\.yaml: |^ *line )(?P<line>\d+)(?::\d+)?: (?P<message>.*)$"


def monitoring(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """`promtool check rules` and `promtool check config`; a lint error alone would exit with 0."""
    files = files_in(bundle, _DIRECTORY, ".yaml")
    if not files:
        return []
    if not (promtool := find_program("promtool")):
        return [MONITORING.not_installed()]
    faults: list[Fault] = []
    for file in files:
        check = ("rules", "--lint-fatal") if "rule_files" in file.text else ("config", "--syntax-only")
        outcome: Outcome = yield Program([promtool, "check", *check, str(put(root, file.path, file.text))])
        if outcome.failure:
            return [MONITORING.not_checked(f"promtool {outcome.failure}")]
        if outcome.status not in _JUDGED or outcome.output.startswith(_USAGE):
            said = outcome.output.strip().partition("\n")[0]
            return [MONITORING.not_checked(f"promtool failed with status {outcome.status}: {said}")]
        if outcome.status:
            found = [Fault(file.path, int(each[1]), each[2]) for each in re.finditer(_FAULT, outcome.output)]
            said = " ".join(outcome.output.split()).replace(f"{root}/", "")
            faults += found or [Fault(file.path, None, said)]
    return [MONITORING.judged(faults)]
