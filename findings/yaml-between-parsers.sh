#!/usr/bin/env bash
# Whether text that PyYAML has written is the same text for ruamel.yaml, and the other way round.
#
# Guess: yes. Both put quotes around a string that might be taken for something else.
# Seen with the versions below: each does so only for what it would itself misread, PyYAML by YAML 1.1, ruamel.yaml by 1.2.
# PyYAML writes the commit `5e12345` and the number `08` bare, and ruamel.yaml, as every parser of 1.2, reads infinity and
# 8; `0o17` becomes 15. ruamel.yaml writes `22:22` and `yes` bare, and PyYAML reads 1342 and true.
# Run by hand: bash findings/yaml-between-parsers.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install pyyaml==6.0.4 ruamel.yaml==0.19.1
cd "$folder"

cat >drive.py <<'PYTHON'
import io, sys

import yaml
from ruamel.yaml import YAML

WORDS = "5e12345", "7e10", "08", "0o17", "22:22", "12:30:45", "yes", "Off", "010", "1_000", "2026-01-01", "true", "~"
EXPECTED = {
    "5e12345": (float("inf"), "5e12345"),
    "7e10": (70000000000.0, "7e10"),
    "08": (8, "08"),
    "0o17": (15, "0o17"),
    "22:22": ("22:22", 1342),
    "12:30:45": ("12:30:45", 45045),
    "yes": ("yes", True),
    "Off": ("Off", False),
}


def of_ruamel(word):
    out = io.StringIO()
    YAML().dump({"key": word}, out)
    return out.getvalue()


same = True
for word in WORDS:
    ours, theirs = yaml.safe_dump({"key": word}), of_ruamel(word)
    found = YAML(typ="safe").load(ours)["key"], yaml.safe_load(theirs)["key"]
    same &= found == EXPECTED.get(word, (word, word)) and yaml.safe_load(ours)["key"] == word
    print(f"{word!r:12}  PyYAML: {ours.strip():18} ruamel.yaml reads {found[0]!r:14}"
          f"  ruamel.yaml: {theirs.strip():18} PyYAML reads {found[1]!r}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
