#!/usr/bin/env bash
# Whether `--dist loadgroup` of pytest-xdist keeps the tests of one `xdist_group` in one process.
#
# Guess: it does; that is all it is for.
# Seen with the versions below: it does with pytest 9.0.2. With pytest 9.2.0 the marks are ignored without a word and the
# tests of a group are spread over all processes, for pytest no longer reads the attribute into which pytest-xdist writes
# the group. What is shared in a group, such as a session fixture that takes minutes, is made once for each process.
# Run by hand: bash findings/xdist-groups-under-pytest-9.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cd "$folder"

cat >test_group.py <<'PYTHON'
import os
import time

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(9))
def test_of_one_group(number):
    time.sleep(0.1)
    with open("processes", "a") as processes:
        processes.write(f"{os.getpid()}\n")
PYTHON

processes_under() {
    venv/bin/pip -qq --disable-pip-version-check install "pytest==$1" pytest-xdist==3.8.0
    rm -f processes
    venv/bin/python -m pytest -q -p no:cacheprovider -n 3 --dist loadgroup test_group.py >/dev/null
    sort -u processes | wc -l
}
older=$(processes_under 9.0.2)
newer=$(processes_under 9.2.0)
echo "one group ran in $older process(es) under pytest 9.0.2, in $newer under pytest 9.2.0"
[ "$older" = 1 ] && [ "$newer" = 3 ] || { echo "This has changed."; exit 1; }
