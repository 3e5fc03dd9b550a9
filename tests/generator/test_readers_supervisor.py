"""supervisor's parser judges the program."""

import inspect
import re
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from generator.readers import supervisor
from tests.generator.readings import NAME, broken, changed, fault, line_of, rendered, verdict
from tests.programs import missing

PROGRAM = f"etc/supervisor/conf.d/{NAME}.conf"

pytestmark = pytest.mark.skipif(
    find_spec("supervisor") is None and not (supervisor.DISTRIBUTION / "supervisor").is_dir(),
    reason=missing("supervisord"),
)


@pytest.fixture(params=["distribution", "ours"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """supervisor as the distribution has it, and as pip installs it."""
    if request.param == "ours":
        monkeypatch.setattr(supervisor, "DISTRIBUTION", tmp_path)
    there = find_spec("supervisor") if request.param == "ours" else (supervisor.DISTRIBUTION / "supervisor").is_dir()
    if not there:
        pytest.skip(f"no supervisor of this kind: {request.param}")


@pytest.mark.parametrize("server", ["uvicorn", "gunicorn", "standalone"])
def test_every_kind_of_program_is_accepted(either: None, server: str) -> None:
    assert verdict(supervisor.program, rendered(server=server, manager="supervisor")).state == "accepted"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("stopwaitsecs=", "stopwaitsec=", "stopwaitsec is not an option of a program; supervisor would ignore it"),
        ("autostart=true", "group=www-data", "group is not an option of a program; supervisor would ignore it"),
        ("autostart=true", "autostart=maybe", "not a valid boolean value: 'maybe'"),
        ("stopsignal=TERM", "stopsignal=TREM", "value 'TREM' is not a valid signal name"),
        ("startsecs=3", "startsecs=3s", "invalid literal for int()"),
        (f"user={NAME}", "user=nobody-of-ours", "nobody-of-ours"),
        ("directory=/opt", "directory=%(nowhere)s/opt", "nowhere"),
        ("directory=/opt", "directory=%opt", "%opt"),
        ("environment=HOME=", "environment=HOME,", "Unexpected end of key/value pairs"),
        ("environment=HOME=", 'environment=A="50%",HOME=', "50%"),
        ("umask=007", "umask=abc", "abc"),
        ("process_name=", "stopsignal=TERM\nstopsignal=", "stopsignal is given twice"),
        ("killasgroup=true", "killasgroup=false\nkillasgroup=true", "killasgroup is given twice"),
    ],
)
def test_a_fault_is_told_at_its_line(either: None, old: str, new: str, message: str) -> None:
    bundle = broken(rendered(manager="supervisor"), PROGRAM, f"\n{old}", f"\n{new}")
    found = verdict(supervisor.program, bundle).faults
    assert any(message in each.message for each in found), [str(each) for each in found]
    said = next(each for each in found if message in each.message)
    assert said.path == PROGRAM
    first = line_of(bundle, PROGRAM, new.split("\n")[0])
    assert said.line == first if "twice" not in message else said.line > first  # type: ignore[operator]


def test_a_command_that_supervisor_could_not_split_is_told() -> None:
    bundle = broken(rendered(), PROGRAM, '-m service"', "-m service")
    found = fault(supervisor.program, bundle)
    assert (found.path, found.line) == (PROGRAM, line_of(bundle, PROGRAM, "command="))


def test_a_program_without_a_command_is_told() -> None:
    found = fault(supervisor.program, broken(rendered(), PROGRAM, "\ncommand=", "\n; "))
    assert f"program section program:{NAME} does not specify a command" in found.message


def test_a_section_that_would_change_the_daemon_is_refused() -> None:
    bundle = changed(rendered(), PROGRAM, lambda text: text + "[supervisord]\nminfds=4096\n")
    found = fault(supervisor.program, bundle)
    assert found.line == line_of(bundle, PROGRAM, "[supervisord]")
    assert "changes all of supervisor" in found.message


def test_a_line_that_is_no_option_is_told() -> None:
    found = fault(supervisor.program, broken(rendered(), PROGRAM, "\numask=007", "\numask"))
    assert "umask" in found.message


def test_the_user_of_the_bundle_need_not_exist_here() -> None:
    assert verdict(supervisor.program, rendered(user="nobody-yet")).state == "accepted"


@pytest.mark.slow
def test_the_options_that_are_known_are_those_of_the_program_section_in_supervisors_code() -> None:
    sys.path.append(str(supervisor.DISTRIBUTION))
    try:
        library: Any = import_module("supervisor.options")
    finally:
        sys.path.remove(str(supervisor.DISTRIBUTION))
    source = inspect.getsource(library.ServerOptions._processes_from_section)
    known = set(re.findall(r"get\(section,\s*'(\w+)'", source))
    known |= {
        f"{stream}{suffix}" for suffix in re.findall(r"= '%s(_\w+)' % k", source) for stream in ("stdout", "stderr")
    }
    assert len(known) > 30
    for option in known:
        assert_known(option)


def assert_known(option: str) -> None:
    text = f"{option}=\n"
    bundle = changed(rendered(), PROGRAM, lambda whole: re.sub(rf"(?m)^{option}=.*\n", "", whole) + text)
    said = verdict(supervisor.program, bundle)
    assert not any("is not an option" in each.message for each in said.faults), str(said)


def test_without_supervisor_the_program_is_not_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(supervisor, "DISTRIBUTION", tmp_path)
    monkeypatch.setitem(sys.modules, "supervisor", None)
    said = verdict(supervisor.program, rendered())
    assert (said.state, said.why) == ("not checked", "supervisor is not installed")


def test_a_supervisor_that_cannot_be_used_is_no_judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "supervisor").mkdir()
    (tmp_path / "supervisor" / "__init__.py").touch()
    (tmp_path / "supervisor" / "options.py").write_text("raise RuntimeError('broken')\n")
    monkeypatch.setattr(supervisor, "DISTRIBUTION", tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "supervisor"]:
        monkeypatch.delitem(sys.modules, name)
    said = verdict(supervisor.program, rendered())
    assert (said.state, said.why) == ("not checked", "supervisor failed: RuntimeError: broken")
