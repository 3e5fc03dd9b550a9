#!/usr/bin/env bash
# What `watchfiles` tells of a single file that is watched, such as a certificate, when it is replaced by `mv`, as careful
# programs write files, or is a link that is turned to another file, as certbot does.
#
# Guess: each replacement is a change of that path.
# Seen with the version below: the first replacement is told, as `deleted` and `modified`, and after it nothing, neither
# another replacement nor a write to the new file: what is watched is the file that was there, not the path. That a link
# was turned is not told at all, nor what is written to the file that it leads to from then on. The same holds for a
# directory behind a link such as `current`. Whoever watches the directory that holds the file is told of each change.
# Run by hand: bash findings/watchfiles-replaced-file.sh. Fails when one of them behaves otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install watchfiles==1.3.0
cd "$folder"

cat >drive.py <<'PYTHON'
import os, pathlib, sys, threading, time

import watchfiles

TOP = pathlib.Path.cwd() / "watched"


def fresh():
    """A directory with a file, and one with a link to one of two files."""
    top = TOP / str(time.monotonic())
    (top / "archive").mkdir(parents=True)
    (top / "live").mkdir()
    for name in ("1", "2"):
        (top / "archive" / name).write_text("old")
    (top / "live/plain").write_text("old")
    (top / "live/link").symlink_to(top / "archive/1")
    return top


def replace(top):
    (top / "live/new").write_text(str(time.monotonic()))
    os.replace(top / "live/new", top / "live/plain")


def write(top):
    (top / "live/plain").write_text(str(time.monotonic()))


def turn(top):
    (top / "live/new").symlink_to(top / "archive/2")
    os.replace(top / "live/new", top / "live/link")


def write_behind_link(top):
    (top / "archive/2").write_text(str(time.monotonic()))


def told(watched, *steps):
    """For each step, whether a change was told."""
    top, stop, changes = fresh(), threading.Event(), []

    def watch():
        for found in watchfiles.watch(top / watched, stop_event=stop, debounce=200, step=50, rust_timeout=500):
            changes.extend(found)

    thread = threading.Thread(target=watch)
    thread.start()
    time.sleep(1)
    found = {}
    for number, step in enumerate(steps, 1):
        changes.clear()
        step(top)
        time.sleep(1.5)
        found[f"{number}. {step.__name__}"] = bool(changes)
    stop.set()
    thread.join(10)
    return found


same = True
for watched, steps, expected in (
    ("live/plain", (write, replace, replace, write), [True, True, False, False]),
    ("live/link", (turn, write_behind_link), [False, False]),
    ("live", (write, replace, replace, write, turn), [True, True, True, True, True]),
):
    found = told(watched, *steps)
    same &= list(found.values()) == expected
    print(f"{watched:10} {found}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
