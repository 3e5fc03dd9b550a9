"""The command as its user meets it: what it prints, where, and how it exits."""

import json
import os
import pty
import resource
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from generator.command_line import COMMANDS, parser
from generator.config.schema import Deploy
from generator.program import starting
from service.declaration import settings_of
from tests.generator.front_door import COMMAND, ENVIRONMENT, Outcome, process, shown_on, wsbundle

SOUND = "domain: ws.mycompany.org\nping: {interval: 50}\n"
FAULTY = "domain: ws.mycompany.org\nport: 80\ncolour: blue\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a sound deploy.yaml, where no terminal and no NO_COLOR of the tester's counts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    (tmp_path / "deploy.yaml").write_text(SOUND)
    return tmp_path


def facts(*arguments: str) -> dict[str, Any]:
    """The JSON object that is all that is printed, with the exit code it tells."""
    outcome = wsbundle(*arguments, "--format", "json")
    assert outcome.err == ""
    told: dict[str, Any] = json.loads(outcome.out)
    assert told["exit_code"] == outcome.code
    return told


# Asking for help, and asking wrongly.


def test_help_names_every_command_and_every_exit_code() -> None:
    outcome = wsbundle("--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert all(f"\n  {command} " in outcome.out for command in COMMANDS)
    assert "Exit codes: 0 " in outcome.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    outcome = wsbundle(command, "--help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith(f"usage: wsbundle {command} ")
    _, description, example = COMMANDS[command]
    said = " ".join(outcome.out.split())
    assert f" {description} " in said
    assert f"Example: {example.replace('wsbundle', '.venv/bin/wsbundle')}" in said


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_of_every_command_is_a_command_line_that_is_understood(command: str) -> None:
    words = shlex.split(COMMANDS[command][2].removeprefix("sudo "))
    assert words[:2] == ["wsbundle", command]
    parser().parse_args(words[1:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND; see wsbundle --help"),
        (["--verbose"], "the following arguments are required: COMMAND; see wsbundle --help"),
        (["show", "--origins"], "unrecognized arguments: --origins; did you mean --origin?"),
        (["show", "--ori"], "unrecognized arguments: --ori; did you mean --origin?"),
        (["show", "twice"], "unrecognized arguments: twice; see wsbundle show --help"),
        (["show", "--set"], "argument --set: expected one argument; see wsbundle show --help"),
        (["show", "--set=--"], "argument --set: expected one argument; see wsbundle show --help"),
        (["show", "-f--"], "argument -f/--file: expected one argument; see wsbundle show --help"),
        (["rendr"], "rendr is not a command; did you mean render?"),
        (["stats", "--format", "text"], "stats is not a command; did you mean status?"),
        (
            ["explain", "colour"],
            "colour is not a setting, section, rule or agreement; `.venv/bin/wsbundle explain` lists them",
        ),
        (["explain", "prot"], "prot is not a setting, section, rule or agreement; did you mean port?"),
        (
            ["run", "--set", "server=gunicorn"],
            "gunicorn runs from its rendered files; to try the service here: --set server=uvicorn",
        ),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(arguments: list[str], message: str, here: Path) -> None:
    assert wsbundle(*arguments) == Outcome(2, "", f"{message}\n")


def test_a_command_that_resembles_none_is_told_with_all_there_are() -> None:
    assert wsbundle("xyzzy").err == f"xyzzy is not a command; use one of {', '.join(COMMANDS)}\n"


def test_a_choice_that_is_none_is_told(here: Path) -> None:
    outcome = wsbundle("show", "--format", "xml")
    assert (outcome.code, outcome.out) == (2, "")
    assert "invalid choice: " in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "--nonsense", "--format", "json"],
        ["--format=json"],
        ["rendr", "--format=json"],
        ["explain", "colour", "--format", "json"],
    ],
)
def test_a_wrong_command_line_is_told_as_json_where_json_is_asked_for(arguments: list[str]) -> None:
    outcome = wsbundle(*arguments)
    told = json.loads(outcome.out)
    assert (outcome.code, outcome.err) == (2, "")
    assert told["exit_code"] == 2
    assert len(told["errors"]) == 1


# show.


def test_show_prints_every_setting_as_it_is_in_force(here: Path) -> None:
    outcome = wsbundle("show", "--set", "env={ZONE: eu}")
    assert (outcome.code, outcome.err) == (0, "")
    lines = dict(line.split(": ", 1) for line in outcome.out.splitlines())
    every = {setting.key for setting in settings_of(Deploy)}
    of_apps = {key for key in every if key.startswith(("app.", "needs."))}
    assert set(lines) == every - of_apps - {"env"} | {"app.callable", "env.ZONE"}
    assert {
        key: lines[key].strip() for key in ("domain", "ping.interval", "user", "nginx.health_from", "env.ZONE")
    } == {
        "domain": "ws.mycompany.org",
        "ping.interval": "50",
        "user": "null",
        "nginx.health_from": "[127.0.0.1, '::1']",
        "env.ZONE": "eu",
    }


def test_show_says_where_each_value_was_given(here: Path) -> None:
    (here / "deploy.prod.yaml").write_text("workers: auto\n")
    outcome = wsbundle("show", "--origin", "--env", "prod", "--set", "port=9000")
    lines = dict(line.split(": ", 1) for line in outcome.out.splitlines())
    assert {key: lines[key].strip() for key in ("domain", "ping.interval", "workers", "port", "host")} == {
        "domain": "ws.mycompany.org  # deploy.yaml:1:9",
        "ping.interval": "50  # deploy.yaml:2:18",
        "workers": "auto  # deploy.prod.yaml:1:10",
        "port": "9000  # --set port",
        "host": "127.0.0.1  # default",
    }


def test_show_tells_programs_the_same(here: Path) -> None:
    settings = facts("show")["settings"]
    assert settings["domain"] == {"value": "ws.mycompany.org", "origin": "deploy.yaml:1:9"}
    assert settings["port"] == {"value": 8765, "origin": "default"}
    assert settings["user"]["value"] is None
    assert settings["nginx.health_from"]["value"] == ["127.0.0.1", "::1"]


def test_warnings_go_to_stderr_and_results_to_stdout(here: Path) -> None:
    outcome = wsbundle("show", "--set", "domain=ws.example.com")
    assert outcome.err.startswith("--set domain: domain: warning: 'ws.example.com' is reserved for examples")
    assert "warning:" not in outcome.out


# check and render.


def test_check_tells_what_every_reader_says_and_writes_nothing(here: Path) -> None:
    outcome = wsbundle("check")
    assert (outcome.code, outcome.err) == (0, "")
    *verdicts, summary = outcome.out.splitlines()
    assert {line.split()[0] for line in verdicts} <= {"accepted", "not"}
    assert summary == "deploy.yaml is sound: 18 files, 10 of them for uvicorn under systemd, tls off"
    assert [file.name for file in here.iterdir()] == ["deploy.yaml"]


def test_what_env_gives_the_service_is_read_back_and_compared_with_deploy_yaml(here: Path) -> None:
    outcome = wsbundle("check", "-v", "--set", "env={ZONE: it's eu}", "--set", "workers=auto")
    assert outcome.err == ""
    assert "  accepted    environment file\n" in outcome.out


def test_render_writes_the_bundle_and_says_so_and_a_second_run_has_nothing_to_do(here: Path) -> None:
    first, second = wsbundle("render"), wsbundle("render")
    assert (first.code, first.err, second.code, second.err) == (0, "", 0, "")
    assert "  wrote    build/queue-websocket/etc/queue-websocket/.env\n" in first.out
    assert first.out.splitlines()[-1].startswith("build/queue-websocket is ready: 18 files, ")
    assert second.out.splitlines()[-1].startswith("Nothing to do: build/queue-websocket is up to date (18 files, ")
    assert "wrote" not in second.out


def test_render_removes_what_an_earlier_deploy_yaml_had(here: Path) -> None:
    wsbundle("render", "-o", "out", "--set", "name=first")
    outcome = wsbundle("render", "-o", "out", "--set", "name=second")
    assert "  removed  out/etc/systemd/system/first.service\n" in outcome.out


def test_render_tells_programs_what_it_did(here: Path) -> None:
    told = facts("render", "-o", "out")
    assert told["exit_code"] == 0
    assert told["directory"] == "out"
    assert "manifest.json" in told["written"]
    assert (told["removed"], told["unchanged"]) == ([], 0)
    assert {verdict["title"] for verdict in told["verdicts"]} >= {"nginx configuration", "gunicorn settings"}
    assert facts("render", "-o", "out")["written"] == []


def test_render_leaves_a_directory_alone_that_is_no_bundle(here: Path) -> None:
    outcome = wsbundle("render", "-o", ".")
    assert outcome.code == 2
    assert outcome.err == ". has files but no manifest.json of ours; name an empty directory with -o\n"
    assert [file.name for file in here.iterdir()] == ["deploy.yaml"]


def test_render_says_why_it_cannot_write(here: Path) -> None:
    outcome = wsbundle("render", "-o", "deploy.yaml/below")
    said = "deploy.yaml/below: Not a directory; remove what is in the way of the directory, or name another"
    assert (outcome.code, outcome.err) == (1, f"{said}\n")
    assert facts("render", "-o", "deploy.yaml/below")["errors"] == [said]
    (here / "build").symlink_to("nowhere")
    assert wsbundle("render").err == "build: File exists; remove what is in its way, or name another\n"


def test_faults_are_told_to_programs_with_all_they_consist_of(here: Path) -> None:
    (here / "deploy.yaml").write_text(FAULTY)
    assert facts("render") == {
        "format": 1,
        "exit_code": 2,
        "faults": [
            {
                "source": "deploy.yaml",
                "line": 2,
                "column": 7,
                "key": "port",
                "what": "80 is too small",
                "fix": "use a whole number from 1024 to 65535, or none",
            },
            {
                "source": "deploy.yaml",
                "line": 3,
                "column": 1,
                "key": "colour",
                "what": "is not a setting",
                "fix": "remove it; docs/settings.md lists all",
            },
        ],
    }


@pytest.mark.parametrize("command", ["render", "check", "show", "run"])
def test_every_command_refuses_a_faulty_deploy_yaml(command: str, here: Path) -> None:
    (here / "deploy.yaml").write_text(FAULTY)
    outcome = wsbundle(command)
    assert (outcome.code, outcome.out, len(outcome.err.splitlines())) == (2, "", 2)


@pytest.mark.parametrize(("server", "module"), [("uvicorn", "service"), ("standalone", "service.server")])
def test_run_becomes_the_service_with_the_settings_of_deploy_yaml(
    server: str, module: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[Any] = []

    def become(*what: Any) -> None:
        became.append(what)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) >= {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        sys.exit(0)

    monkeypatch.setattr(os, "execve", become)
    outcome = wsbundle("run", "--set", f"server={server}", "--set", "port=9000", "--set", "env={ZONE: eu}")
    assert outcome.out == (
        "Starting the service on ws://127.0.0.1:9000/; Ctrl-C ends it.\n"
        "To try it in a browser: http://127.0.0.1:9000/page/\n"
        "To watch it: http://127.0.0.1:9000/status\n"
    )
    [(program, arguments, environment)] = became
    assert environment["WEBSOCKET_ORIGINS"] == ""
    assert Path(environment["WEBSOCKET_PAGE"], "page/index.html").exists()
    assert (program, arguments) == (sys.executable, starting(module))
    assert {environment["WEBSOCKET_PORT"], environment["WEBSOCKET_PING_INTERVAL"], environment["ZONE"]} == {
        "9000",
        "50",
        "eu",
    }
    assert environment["PATH"] == os.environ["PATH"]


def test_run_lets_its_own_page_in_where_only_some_origins_may_connect(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *what: became.append(what))
    wsbundle("run", "--set", "origins=[https://app.mycompany.org]")
    [(_, _, environment)] = became
    assert environment["WEBSOCKET_ORIGINS"] == "https://app.mycompany.org http://127.0.0.1:8765"


def test_run_shows_its_page_on_loopback_only(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *what: became.append(what))
    (here / "deploy.yaml").write_text("{domain: ws.mycompany.org, host: 192.0.2.7, expose: true, tls: letsencrypt}\n")
    outcome = wsbundle("run")
    [(_, _, environment)] = became
    assert "WEBSOCKET_PAGE" not in environment
    assert "/page/" not in outcome.out


@pytest.mark.parametrize("way", ["port=none", "socket=/run/queue-websocket/ws.sock"])
def test_run_needs_a_port_since_there_is_no_nginx(way: str, here: Path) -> None:
    outcome = wsbundle("run", "--set", way)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.endswith(
        "no port is open, and there is no nginx here; to try the service here: --set port=8765\n"
    )


@pytest.mark.parametrize("words", [["check"], ["run"], ["init", "ws.mycompany.org"]])
def test_in_a_directory_that_is_gone_every_command_says_so(
    words: list[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "gone").mkdir()
    monkeypatch.chdir(here / "gone")
    (here / "gone").rmdir()
    outcome = wsbundle(*words)
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "wsbundle: the current directory is gone; go to one that exists\n"


# The process.


def test_the_process_exits_with_the_code_of_its_command(here: Path) -> None:
    assert process([*COMMAND, "show"]) == wsbundle("show")
    (here / "deploy.yaml").write_text(FAULTY)
    assert process([*COMMAND, "show"]) == wsbundle("show")


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_it_does_its_work_where_its_output_is_closed(closed: str, here: Path) -> None:
    outcome = process(["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, "render"])
    assert (outcome.code, "Traceback" in outcome.err) == (0, False)
    closed_while_rendered = Path("build").rename("other")
    assert wsbundle("render").code == 0
    for file in Path("build").rglob("*"):
        if file.is_file() and file.name != "manifest.json":
            assert (closed_while_rendered / file.relative_to("build")).read_bytes() == file.read_bytes()


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """All that a terminal shows of a command."""
    terminal, end = pty.openpty()
    with subprocess.Popen([*COMMAND, *arguments], stdout=end, stderr=end, env={**ENVIRONMENT, **environment}):
        os.close(end)
        return shown_on(terminal)


@pytest.mark.parametrize("arguments", [["explain", "port"], ["show", "--origin"], ["show", "--set", "port=80"]])
def test_colours_are_for_terminals_that_want_them(arguments: list[str], here: Path) -> None:
    plain = on_a_terminal(*arguments, TERM="xterm", NO_COLOR="1")
    coloured = on_a_terminal(*arguments, TERM="xterm")
    assert "\x1b[" in coloured
    assert "\x1b" not in plain
    assert "\x1b" not in on_a_terminal(*arguments, TERM="dumb")
    assert on_a_terminal(*arguments, TERM="xterm", NO_COLOR="") == coloured
    outcome = process([*COMMAND, *arguments], env={**ENVIRONMENT, "TERM": "xterm"})
    assert outcome.out + outcome.err == plain.replace("\r\n", "\n")


@pytest.mark.parametrize("buffered", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("arguments", [["explain"], ["show", "--format", "json"]])
def test_a_reader_that_leaves_ends_the_command_quietly(
    arguments: list[str], buffered: dict[str, str], here: Path
) -> None:
    left, pipe = os.pipe()
    os.close(left)
    outcome = process(
        [*COMMAND, *arguments],
        capture_output=False,
        stdout=pipe,
        stderr=subprocess.PIPE,
        env={**ENVIRONMENT, **buffered},
    )
    os.close(pipe)
    assert outcome == (1, "", "")


def test_output_that_cannot_be_written_is_a_failure(here: Path) -> None:
    with Path("/dev/full").open("w") as full:
        outcome = process([*COMMAND, "show"], capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert outcome == (1, "", "wsbundle: standard output: No space left on device\n")


def test_no_letter_ends_a_command_on_a_terminal_that_cannot_show_it(here: Path) -> None:
    (here / "deploy.yaml").write_text("domain: a.org\nwelcome: Grüße 🎉 {uuid}\n", encoding="utf-8")
    ascii_only = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    outcome = process([*COMMAND, "show"], env=ascii_only)
    assert (outcome.code, outcome.err) == (0, "")
    assert "Gr\\xfc\\xdfe \\U0001f389 {uuid}" in outcome.out
    told = json.loads(process([*COMMAND, "show", "--format", "json"], env=ascii_only).out)
    assert told["settings"]["welcome"]["value"] == "Grüße 🎉 {uuid}"


def test_a_file_name_that_is_no_text_is_told_like_another(here: Path) -> None:
    name = os.fsdecode(b"\xff.yaml")
    assert process([*COMMAND, "show", "-f", name]) == (
        2,
        "",
        "\\udcff.yaml: cannot be read: No such file or directory; "
        "write one with `.venv/bin/wsbundle init DOMAIN`, or name another with -f\n",
    )
    told = json.loads(process([*COMMAND, "show", "-f", name, "--format", "json"]).out)
    assert told["faults"][0]["source"] == name


def test_ctrl_c_ends_a_command_without_a_word(here: Path) -> None:
    os.mkfifo("pipe")
    with subprocess.Popen(
        [*COMMAND, "show", "-f", "pipe"], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as command:
        with Path("pipe").open("w"):  # opens once the command reads from it
            command.send_signal(signal.SIGINT)
        assert command.communicate(timeout=30) == ("", "")
    assert command.returncode == 130


def test_it_tells_its_version() -> None:
    outcome = process([*COMMAND, "--version"])
    assert outcome.out.startswith("wsbundle 0.")
    assert outcome.code == 0


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["render", "-o", ""], "-o"),
        (["bundle", "--output="], "--output"),
        (["check", "-f", ""], "-f"),
        (["init", ""], "init"),
        (["explain", ""], "explain"),
        (["render", "-o="], "-o"),
        (["check", "-v", "-f="], "-f"),
    ],
)
def test_a_word_that_a_script_has_left_empty_is_no_default(arguments: list[str], option: str) -> None:
    said = f"nothing is given for {option}; write what is meant, or leave it out\n"
    assert wsbundle(*arguments) == Outcome(2, "", said)


def test_a_word_that_is_empty_among_others_is_named_by_its_place() -> None:
    said = "the word after keys.json is empty; write what is meant, or leave it out\n"
    assert wsbundle("token", "--keys", "keys.json", "") == Outcome(2, "", said)


def test_the_directory_that_a_file_would_need_is_named(here: Path) -> None:
    outcome = wsbundle("init", "ws.mycompany.org", "-f", "none/deploy.yaml")
    assert outcome == Outcome(1, "", "none/deploy.yaml: No such file or directory; make the directory none\n")


def test_an_empty_word_is_no_command() -> None:
    outcome = wsbundle("")
    assert outcome.code == 2
    assert outcome.err.startswith("an empty word is not a command; use one of init, import, render")


# A file to begin with.


def test_init_writes_a_deploy_yaml_that_is_sound_and_explains_every_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = wsbundle("init", "ws.mycompany.org")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("deploy.yaml is ready. Next: ")
    assert wsbundle("show").code == 0
    text = Path("deploy.yaml").read_text()
    assert "\ndomain: ws.mycompany.org\n" in text
    assert "$schema" not in text  # the file that it names would not be there
    assert [
        key for key in (setting.key for setting in settings_of(Deploy)) if f"{key.rpartition('.')[2]}:" not in text
    ] == []


def test_init_leaves_a_file_alone_that_is_there(here: Path) -> None:
    outcome = wsbundle("init", "ws.other.org")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == "deploy.yaml is there already and was not changed; edit it, or name another one with -f\n"
    assert (here / "deploy.yaml").read_text() == SOUND
    outcome = wsbundle("init", "ws.other.org", "-f", "other one.yaml")
    assert outcome.code == 0
    assert outcome.out.count(" -f 'other one.yaml'`") == 3


def full_disk(*command: str) -> Outcome:
    """A command that cannot write more than a kilobyte into any file."""
    limit = (1024, resource.RLIM_INFINITY)
    return process(
        [
            sys.executable,
            "-B",
            "-m",
            "generator",
            *command,
        ],  # Python would cut its own files short, and read them again
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )


@pytest.mark.parametrize("command", [("init", "ws.mycompany.org"), ("import", "app.service", "--domain", "a.org")])
def test_a_disk_that_is_full_leaves_no_half_of_a_deploy_yaml(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try would take it for one of the operator's."""
    monkeypatch.chdir(tmp_path)
    variables = "".join(f"Environment=VARIABLE_{number}={'x' * 50}\n" for number in range(30))
    Path("app.service").write_text(f"[Service]\n{variables}ExecStart=/v/uvicorn shop.main:app\nWorkingDirectory=/srv\n")
    outcome = full_disk(*command)
    assert (outcome.code, outcome.err.count("\n")) == (1, 1)
    assert "deploy.yaml" in outcome.err
    assert "File too large" in outcome.err
    assert os.listdir() == ["app.service"]
    assert process([*COMMAND, *command]).code == 0


@pytest.mark.parametrize(
    "domain",
    [
        "two words",
        "https://ws.mycompany.org",
        "ws.mycompany.org\nport: 9000",
        "a..org",
        "#",
        "{{x}}",
        "a: b",
        "\udcff.org",
        "null",
    ],
)
def test_init_writes_nothing_for_what_is_not_a_domain(
    domain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = wsbundle("init", domain)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("DOMAIN: ")  # there is no deploy.yaml yet in which it could have a line
    assert list(tmp_path.iterdir()) == []


def test_rollback_takes_the_number_of_a_generation() -> None:
    assert wsbundle("rollback", "x").err == (
        "argument N: 'x' is not the number of a generation; wsbundle history lists them; see wsbundle rollback --help\n"
    )


def test_help_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    for command in COMMANDS:
        assert [line for line in wsbundle(command, "--help").out.splitlines() if len(line) > 72] == []
    rows = [line for line in wsbundle("--help").out.splitlines() if line.startswith("  ")]
    assert max(map(len, rows)) <= 80
