"""What `wsbundle logs` becomes; what it shows is seen on hosts."""

import subprocess
from pathlib import Path

import pytest

from generator.host.logs import command
from generator.host.programs import become
from generator.report import CommandError
from tests.generator.front_door import wsbundle


def test_the_last_lines_of_a_file_are_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\ntwo\nthree\n")
    *words, _ = command("chat", "supervisor", 2, follow=False)
    assert subprocess.run([*words, log], capture_output=True, text=True, timeout=10).stdout == "two\nthree\n"


def test_a_file_is_followed_beyond_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    *words, _ = command("chat", "supervisor", 2, follow=True)
    with subprocess.Popen([*words, log], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline() == "before\n"
        log.rename(tmp_path / "log.1")
        log.write_text("after\n")
        assert tail.stdout.readline() == "after\n"
        tail.kill()


def test_where_nothing_is_installed_there_is_nothing_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.yaml").write_text("name: nobody-has-this\ndomain: a.org\n")
    outcome = wsbundle("logs", "-f", "--lines", "3")
    assert (outcome.code, outcome.out) == (1, "")
    assert "nobody-has-this is not installed on this host" in outcome.err


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(CommandError, match="no-such-program is not installed"):
        become("no-such-program", "--follow")
