"""The figures of every run on this machine, kept in one file: build/_bench/results.jsonl, a line for each.

    {"format": 1, "run": {"time": "2026-11-29T08:00:00Z", "commit": "0375e59...", "is_clean": true, ...},
     "part": "servers", "plan": "3 x 2.0 s, 10000 connections", "others": 0.02,
     "figure": {"case": "fast, W=1", "values": [...], ...}}

A part is added in one write below a lock, so that two runs do not mix. What a run that was killed has begun to write is
left out by who reads, and removed by who writes next.
"""

import datetime
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Literal

import msgspec

from bench.figures import Figure, Outcome
from bench.machine import Machine, machine, versions
from bench.programs import BUILD, ROOT, MissingError, program

FILE = BUILD / "results.jsonl"
FORMAT: Literal[1] = 1


class ResultsError(Exception):
    """A line is not one of ours; the message has the place and what to do."""


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When it was, of which commit, and on which machine. `is_clean`: no file differed from the commit."""

    time: datetime.datetime
    commit: str
    is_clean: bool
    machine: Machine
    versions: dict[str, str]


class Kept(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line. `others` is the share of the CPUs that other programs took while the part was measured."""

    format: Literal[1]
    run: Run
    part: str
    plan: str
    others: float
    figure: Figure


def this_run() -> Run:
    """Of now; asked before anything is measured, as files may change meanwhile."""
    commit = _git("rev-parse", "HEAD")
    return Run(
        time=datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0),
        commit=commit or "unknown",
        is_clean=bool(commit) and not _git("status", "--porcelain"),
        machine=machine(),
        versions=versions(),
    )


def _git(*arguments: str) -> str:
    """What it says; nothing where this is no checkout."""
    try:
        done = subprocess.run([program("git", "git"), *arguments], cwd=ROOT, capture_output=True, text=True)
    except MissingError:
        return ""
    return done.stdout.strip()


def read(file: Path) -> list[Kept]:
    """All lines, in the order in which they were measured.

    Raises:
        ResultsError: a line cannot be read, or a later version of this program has written it.
    """
    if not file.exists():
        return []
    with file.open("rb") as opened:
        fcntl.flock(opened, fcntl.LOCK_SH)
        *lines, begun = opened.read().split(b"\n")
    if begun:
        sys.stderr.write(f"{file}:{len(lines) + 1}: left out: a run was killed while it wrote this line\n")
    return [_kept(line, f"{file}:{number}") for number, line in enumerate(lines, start=1)]


def _kept(line: bytes, place: str) -> Kept:
    try:
        return msgspec.json.decode(line, type=Kept)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ResultsError(f"{place}: {error}; remove the line, or move the file away to begin a new one") from error


def keep(run: Run, part: str, outcome: Outcome, others: float, file: Path) -> list[Kept]:
    """Add the figures of a part; the lines as they are kept."""
    kept = [
        Kept(format=FORMAT, run=run, part=part, plan=outcome.plan, others=round(others, 3), figure=figure)
        for figure in outcome.figures
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b", buffering=0) as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        opened.seek(0)
        whole = opened.read().rfind(b"\n") + 1
        opened.truncate(whole)
        text = b"".join(msgspec.json.encode(each) + b"\n" for each in kept)
        if os.write(opened.fileno(), text) != len(text):
            opened.truncate(whole)
            raise OSError(f"{file}: the disk is full; the figures of {part} are not kept")
    return kept
