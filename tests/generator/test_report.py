"""What the operator hears, and hears once."""

import fcntl
import os
import re
import struct
import subprocess
import sys
import termios

import pytest

from generator.report import Report, folded, wrapped
from service.declaration import Fault
from tests.generator.front_door import ENVIRONMENT, shown_on


def test_a_warning_that_comes_again_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    for what in ("one", "other", "one"):
        report.warning(Fault(what, "fix it"))
    assert capsys.readouterr().err == "warning: one; fix it\nwarning: other; fix it\n"
    assert report.facts["warnings"] == [{"what": what, "fix": "fix it"} for what in ("one", "other")]


def test_an_obstacle_that_two_looks_find_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    for what in ("one", "other", "one"):
        report.error(what)
    assert capsys.readouterr().err == "one\nother\n"
    assert report.facts["errors"] == ["one", "other"]


def on_a_terminal(program: str, columns: int = 80) -> str:
    """What some lines of Python print by way of a report, on a terminal of this width."""
    main, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    code = f"from generator.report import Report\nreport = Report()\n{program}"
    environment = {**ENVIRONMENT, "NO_COLOR": "1"}
    done = subprocess.run([sys.executable, "-c", code], stdout=terminal, stderr=terminal, env=environment, check=False)
    os.close(terminal)
    said = shown_on(main)
    assert done.returncode == 0, said
    return said.replace("\r\n", "\n")


def at_once(said: str) -> str:
    """The same as if it had taken no time."""
    return re.sub(r"\d+\.\d s", lambda found: "0.0 s".rjust(len(found[0])), said)


STEP = "with report.step('install nginx'):\n    {}"


WHILE = "            0.0 s  "


def test_on_a_terminal_a_step_is_named_while_it_lasts_and_then_written_over() -> None:
    done = "  done      0.0 s  install nginx\n"
    assert at_once(on_a_terminal(STEP.format("pass"))) == f"\r{WHILE}install nginx\r{'':32}\r{done}"


def test_its_seconds_and_how_far_it_is_are_counted_while_it_lasts() -> None:
    program = """
import time
far = 0
with report.step("download", lambda: f"{far} of 2"):
    while far < 2:
        time.sleep(0.55)
        far += 1
"""
    lines = [line for line in re.split(r"[\r\n]+", on_a_terminal(program)) if line.strip()]
    assert lines[0] == f"{WHILE}download: 0 of 2"
    assert re.fullmatch(r" {12}[1-9]\.\d s  download: [12] of 2", lines[1])
    assert re.fullmatch(r"  done   +\d+\.\d s  download", lines[-1])


def test_what_ends_soon_and_is_worth_no_line_shows_nothing() -> None:
    assert on_a_terminal("with report.busy('look'):\n    pass") == ""


def test_what_is_said_during_a_step_has_a_line_of_its_own() -> None:
    said = at_once(on_a_terminal(STEP.format("report.line('waiting')")))
    assert said.startswith(f"\r{WHILE}install nginx\r{'':32}\rwaiting\n")
    assert said.splitlines()[-1] == "  done      0.0 s  install nginx"


def test_a_step_that_is_wider_than_the_terminal_is_cut_while_it_lasts() -> None:
    assert at_once(on_a_terminal(STEP.format("pass"), columns=27)).startswith(f"\r{WHILE}install\r")


def test_where_no_terminal_is_a_step_is_one_line_when_it_has_ended(capfd: pytest.CaptureFixture[str]) -> None:
    with Report().step("download", lambda: pytest.fail("nobody looks")):
        assert capfd.readouterr() == ("", "")
    assert re.fullmatch(r"  done   +\d+\.\d s  download\n", capfd.readouterr().out)


def test_steps_stand_below_each_other_however_long_their_names_are(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    for name in ("short", "long " * 40):
        with report.step(name):
            pass
    assert [
        line.index(name) for line, name in zip(capsys.readouterr().out.splitlines(), ("short", "long"), strict=True)
    ] == [19, 19]


def test_a_long_text_is_broken_between_words_on_a_terminal_alone(capsys: pytest.CaptureFixture[str]) -> None:
    text = "whoever is not gone by then"
    shown = on_a_terminal(
        f"from generator.report import folded\nprint('  reason: ' + folded({text!r}, 10))", columns=30
    )
    assert shown == "  reason: whoever is not gone\n          by then\n"
    assert folded(text, 10) == text


def test_no_command_and_no_path_is_broken() -> None:
    words = "run systemctl daemon-reload, and look at /etc/systemd/system/queue-websocket.service".split()
    assert [word for line in wrapped(" ".join(words), 24, "# ") for word in line.split()[1:]] == words
