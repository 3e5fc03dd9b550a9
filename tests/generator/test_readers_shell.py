"""sh judges the .env file and the scripts."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from generator.readers import shell
from generator.readers.processes import Running
from generator.readers.verdict import Verdict
from generator.rendering.bundle import Bundle
from tests.generator.readings import NAME, Reader, broken, changed, fault, line_of, nothing_installed, rendered, verdict

ENV = f"etc/{NAME}/.env"
HOOK = f"etc/letsencrypt/renewal-hooks/deploy/{NAME}"
HOSTILE = {"A": 'two words $HOME `id` "q" #x ; & | %d \\n é', "B": "it's", "C": "", "PATH": "/nowhere"}


def environment(bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    return shell.environment(bundle, root, None)


def comparing(wanted: Mapping[str, str]) -> Reader:
    return lambda bundle, root: shell.environment(bundle, root, wanted)


def wanted_by(bundle: Bundle) -> dict[str, str]:
    text = next(file.text for file in bundle.files if file.path == ENV)
    pairs = (line.partition("=") for line in text.split("\n") if line and not line.startswith("#"))
    return {name: value[1:-1] for name, _, value in pairs}


def test_hostile_values_are_read_back_unchanged() -> None:
    bundle = rendered(env=HOSTILE)
    wanted = wanted_by(bundle)
    assert {name: wanted[name] for name in HOSTILE} == HOSTILE
    assert verdict(comparing(wanted), bundle).state == "accepted"


@pytest.mark.parametrize(
    "line",
    ["A=bare", "A='a'b'", 'A="$HOME"', 'A="`id`"', "export A='a'", "A = 'a'", "; comment", "A='unclosed", "1A='a'"],
)
def test_a_line_that_readers_take_differently_is_told_and_never_run(line: str, tmp_path: Path) -> None:
    trap = f"B=$(touch {tmp_path}/trap)"
    bundle = changed(rendered(), ENV, lambda text: f"{text}{line}\n{trap}\n")
    found = verdict(environment, bundle).faults
    assert [each.line for each in found] == [line_of(bundle, ENV, line), line_of(bundle, ENV, trap)]
    assert list(tmp_path.iterdir()) == []


def test_a_variable_given_twice_is_told() -> None:
    bundle = changed(rendered(), ENV, lambda text: text + "A='1'\nA='2'\n")
    assert fault(environment, bundle).message == "A is given twice"


def test_a_variable_that_sh_does_not_let_be_set_is_told() -> None:
    bundle = changed(rendered(), ENV, lambda text: text + "PATH='/a'\nOPTIND='x'\n")
    assert (
        "OPTIND" in str(verdict(environment, bundle).faults) or "Illegal number" in fault(environment, bundle).message
    )


def test_another_value_than_asked_for_is_told() -> None:
    bundle = rendered()
    wanted = wanted_by(bundle)
    found = fault(comparing({**wanted, "WEBSOCKET_PORT": "1"}), bundle)
    assert (found.line, found.message) == (
        line_of(bundle, ENV, "WEBSOCKET_PORT"),
        "WEBSOCKET_PORT is '8765' where '1' is asked for",
    )


def test_a_missing_and_an_additional_variable_are_told() -> None:
    bundle = rendered(env={"EXTRA": "1"})
    wanted = {**wanted_by(bundle), "LOST": "1"}
    del wanted["EXTRA"]
    found = verdict(comparing(wanted), bundle).faults
    assert [each.message for each in found] == ["LOST is missing", "EXTRA is not asked for"]


def test_the_scripts_are_accepted() -> None:
    assert verdict(shell.scripts, rendered(tls="letsencrypt")).state == "accepted"


def test_a_script_that_is_no_shell_is_told_at_its_line() -> None:
    bundle = broken(rendered(), HOOK, "; then", ";")
    found = fault(shell.scripts, bundle)
    assert found.path == HOOK
    assert found.line == line_of(bundle, HOOK, "fi")


@pytest.mark.parametrize("reader", [environment, shell.scripts])
def test_without_sh_nothing_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reader: Reader) -> None:
    with nothing_installed(monkeypatch, tmp_path):
        said = verdict(reader, rendered())
    assert (said.state, said.why) == ("not checked", "sh is not installed")
