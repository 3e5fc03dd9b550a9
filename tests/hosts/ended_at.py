"""Runs on a host: `wsbundle`, which ends by a signal right before a step: python ended_at.py STEP SIGNAL WORD...

STEP is a number, or a part of the step's name. SIGKILL ends its whole process group, `all` its guardian as well, as a
power cut does; SIGSTOP lets the host wait for one.

A step is whatever changes the host: a file or link put in place or removed, a directory made or removed, a program
started that does more than look. Python tells them itself (audit events), so the product has no hook for this.
Prints the step. Exit code 0 when the run was over before it: then there are no more.
"""

import os
import signal
import sys
from pathlib import Path

_FILES = {"os.rename", "os.remove", "os.symlink", "os.mkdir", "os.rmdir", "shutil.rmtree"}
_OURS = ("/etc/", "/opt/", "/run/", "/var/")
_LOOKS = ("is-active", "is-system-running", "list-sockets", "status", "pid", "-t", "--version", "--show", "-c")
_ACTS = ("systemctl", "supervisorctl", "systemd-sysusers", "systemd-tmpfiles", "setpriv", "apt-get", "dpkg", "userdel")


def step_of(event: str, arguments: tuple[object, ...]) -> str | None:
    if event in _FILES:
        path = str(arguments[1] if event == "os.rename" else arguments[0])
        return f"{event} {path}" if path.startswith(_OURS) else None
    if event == "subprocess.Popen":
        words = [str(word) for word in arguments[1]]  # type: ignore[attr-defined]
        if words[0] in _ACTS and not any(word in _LOOKS for word in words):
            return " ".join(words)
    return None


def end_at(last: str, by: str) -> None:
    steps, installer, was_told = 0, os.getpid(), False

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal steps, was_told
        if os.getpid() == installer and not was_told and (step := step_of(event, arguments)):
            steps += 1
            if str(steps) == last or (not last.isdecimal() and last in step):
                was_told = True  # what it does in order to end may have that name too
                os.write(1, f"\nended at {step}\n".encode())
                end(by)

    sys.addaudithook(watch)


def end(by: str) -> None:
    if by == "all":
        for child in Path("/proc/thread-self/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
    if by in ("all", "SIGKILL"):
        os.killpg(0, signal.SIGKILL)
    os.kill(os.getpid(), signal.Signals[by])


if __name__ == "__main__":
    from generator.__main__ import run

    os.setpgid(0, 0)
    end_at(sys.argv[1], sys.argv[2])
    sys.argv[1:] = sys.argv[3:]
    run()
