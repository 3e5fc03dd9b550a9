"""Each filter's values are read back by the program that reads the file on a host: unchanged, or refused before."""

import ast
import http.client
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from dotenv import dotenv_values
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from supervisor.options import ServerOptions  # type: ignore[import-untyped]

from generator import quoting
from generator.quoting import Quoted, Unquotable
from service.workers.release import read_env
from tests.examples import EXAMPLES
from tests.programs import missing

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
NGINX = shutil.which("nginx", path=SBIN)
SYSTEMD = shutil.which("systemd", path="/usr/lib/systemd:/lib/systemd")
TMPFILES = shutil.which("systemd-tmpfiles", path=SBIN)
ENVIRONMENT_GENERATOR = Path("/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator")

ORDINARY = ["queue-websocket", "127.0.0.1:8765", "/run/queue-websocket/ws.sock", "ws.example.com"]
# What at least one of the formats gives a meaning to, and what none can carry.
LIVE = [
    *"%$'\"\\#;{},`=!~&|<>()[]*?^@:/-+ ",
    *["%h", "%%", "$$", "${A}", "$(id)", "${A:-b}", "\\\\", "\\n", "\\'", '\\"', " #", " ;", "'", "''", '""', "  "],
    *["é", "😀", "\u00a0", "\u200d"],
]
CONTROL = [
    "\0",
    "\n",
    "\r",
    "\t",
    "\x1b",
    "\x7f",
    "\x85",
    "\u2028",
    "\ufeff",
    "\udc80",
    "\ufdd0",
    "\uffff",
    "\U0010fffe",
]
HOSTILE = [
    "",
    *(f"{before}{text}{after}" for text in [*LIVE, *CONTROL] for before in ("", "a") for after in ("", "b", " ")),
]

pieces = st.sampled_from([*LIVE, *"abc"]) | st.characters(exclude_categories=["Cc", "Cs"])
values = st.lists(pieces, max_size=10).map("".join)
batches = st.lists(values, min_size=100, max_size=100).map(lambda drawn: [*ORDINARY, *HOSTILE, *drawn])

# A batch is one run of a real program, and the assertion names the value: shrinking would only take minutes.
read_back = settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


def needs(program: object, name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not program, reason=missing(name))


def accepted(quote: Callable[[str], Quoted], candidates: list[str]) -> dict[str, Quoted]:
    """The values that a filter does not refuse, each with what it writes."""
    carried = {}
    for value in candidates:
        try:
            carried[value] = quote(value)
        except Unquotable:
            assert value not in ORDINARY
    return carried


@contextmanager
def directory() -> Iterator[Path]:
    """A directory that programs running as another user can read and write as well."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def output(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, env=env, check=True, capture_output=True)
    return done.stdout.decode()


def variables(zero_separated: str) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in zero_separated.split("\0") if entry.startswith("V"))


# .env


def env_file(carried: dict[str, Quoted]) -> str:
    return "# Values.\n" + "".join(f"V{number}={text}\n" for number, text in enumerate(carried.values()))


def by_number(carried: dict[str, Quoted]) -> dict[str, str]:
    return {f"V{number}": value for number, value in enumerate(carried)}


def variables_in_shell(shell: str, carried: dict[str, Quoted]) -> dict[str, str]:
    with directory() as work:
        (work / ".env").write_text(env_file(carried))
        read = f"set -a && . {work}/.env && exec env -0"
        return variables(output(shell, "-c", read, env={"PATH": os.environ["PATH"]}))


@read_back
@given(candidates=batches)
def test_a_value_in_env_reaches_sh_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.env, candidates)
    assert variables_in_shell("sh", carried) == by_number(carried)


@read_back
@given(candidates=batches)
def test_a_value_in_env_reaches_bash_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.env, candidates)
    assert variables_in_shell("bash", carried) == by_number(carried)


@read_back
@given(candidates=batches)
def test_a_value_in_env_reaches_workers_that_are_reloaded_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.env, candidates)
    with directory() as work:
        (work / ".env").write_text(env_file(carried))
        assert read_env(work / ".env") == by_number(carried)


@read_back
@given(candidates=batches)
def test_a_value_in_env_reaches_python_dotenv_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.env, candidates)
    with directory() as work:
        (work / ".env").write_text(env_file(carried))
        assert dotenv_values(work / ".env") == by_number(carried)


@needs(ENVIRONMENT_GENERATOR.exists(), "systemd")
@read_back
@given(candidates=batches)
def test_a_value_in_env_reaches_systemd_unchanged_or_is_refused(candidates: list[str]) -> None:
    # environment.d(5) is read by the parser of EnvironmentFile=, but then also expands `$`, which that one does not.
    # It drops empty values as well.
    carried = {value: text for value, text in accepted(quoting.env, candidates).items() if value and "$" not in value}
    with directory() as work:
        (work / "environment.d").mkdir()
        (work / "environment.d" / "values.conf").write_text(env_file(carried))
        printed = output(ENVIRONMENT_GENERATOR, env={"XDG_CONFIG_HOME": str(work), "HOME": str(work)})
        # It prints assignments that are quoted for a shell.
        got = output("sh", "-c", f"set -a\n{printed}\nexec env -0", env={"PATH": os.environ["PATH"]})
    assert variables(got) == by_number(carried)


@pytest.mark.parametrize(
    "value", ["", "two words", "it's", 'say "hi"', "a#b", "a # b", "50%", "$HOME", "a\\b", "{uuid}"]
)
def test_env_carries_what_operators_write(value: str) -> None:
    assert quoting.env(value)


@pytest.mark.parametrize(
    "value", ['it\'s "both"', "it's $5", "a\\\\b", "ends in \\", "${HOME}", "two\nlines", "\ud800"]
)
def test_env_refuses_what_its_readers_do_not_read_alike(value: str) -> None:
    with pytest.raises(Unquotable):
        quoting.env(value)


@pytest.mark.parametrize("name", ["A B", "1A", "A=1", "", "A\n"])
def test_a_variable_has_a_plain_name(name: str) -> None:
    with pytest.raises(Unquotable):
        quoting.env_name(name)


# systemd


def parsed_by_systemd(units: dict[str, str]) -> dict[str, str]:
    """What systemd understood of each unit, by name, as its manager prints it."""
    with directory() as work:
        runtime = work / "runtime"
        runtime.mkdir(mode=0o777)
        runtime.chmod(0o777)
        for name, text in units.items():
            (work / name).write_text(text)
        (work / "all.target").write_text("[Unit]\nWants=" + " ".join(units) + "\n")
        # A manager in test mode refuses to run as root.
        as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.geteuid() == 0 else []
        env = {"PATH": SBIN, "SYSTEMD_UNIT_PATH": f"{work}:", "XDG_RUNTIME_DIR": str(runtime), "HOME": str(work)}
        printed = output(*as_nobody, str(SYSTEMD), "--test", "--user", "--unit=all.target", env=env)
    found = re.split(r"^\t?(?:->|→) Unit (\S+):\n", printed, flags=re.MULTILINE)  # → since systemd 262
    return {name: text for name, text in zip(found[1::2], found[2::2], strict=True) if name in units}


@needs(SYSTEMD, "systemd")
@read_back
@given(candidates=batches)
def test_the_value_of_a_directive_reaches_systemd_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.systemd, candidates)
    units = {
        f"v{number}.service": f"[Unit]\nDescription={text}\n[Service]\nExecStart=/bin/true\n"
        for number, text in enumerate(carried.values())
    }
    parsed = parsed_by_systemd(units)
    got = [re.search(r"^\s*Description: (.*)$", parsed[unit], re.MULTILINE) for unit in units]
    assert [match and match[1] for match in got] == list(carried)


@needs(SYSTEMD, "systemd")
@read_back
@given(candidates=batches)
def test_an_argument_of_exec_start_reaches_systemd_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.systemd_exec, candidates)
    arguments = " ".join(carried.values())
    parsed = parsed_by_systemd({"v.service": f"[Service]\nExecStart=/bin/echo {arguments}\n"})
    line = re.search(r"^\s*Command Line: /bin/echo (.*)$", parsed["v.service"], re.MULTILINE)
    assert line
    printed = re.findall(r'"((?:\\.|[^"\\])*)"|([^ ]+)', line[1])
    got = [bare or re.sub(r"\\(.)", r"\1", quoted) for quoted, bare in printed]
    # systemd makes one `$` of two only when it starts the program.
    assert [argument.replace("$$", "$") for argument in got] == list(carried)


@needs(TMPFILES, "systemd-tmpfiles")
@read_back
@given(candidates=batches)
def test_a_word_reaches_systemd_tmpfiles_unchanged_or_is_refused(candidates: list[str]) -> None:
    names = [value for value in accepted(quoting.systemd_word, candidates) if "/" not in value]
    with directory() as work:
        lines = [f"f {quoting.systemd_word(f'/{number}-{name}')} 0644 - -\n" for number, name in enumerate(names)]
        (work / "words.conf").write_text("".join(lines))
        (work / "root").mkdir()
        output(str(TMPFILES), "--create", f"--root={work}/root", work / "words.conf")
        assert {path.name for path in (work / "root").iterdir()} == {f"{n}-{name}" for n, name in enumerate(names)}


# supervisor


def programs_of(text: str) -> list[dict[str, object]]:
    """The programs of a file, as the real supervisord understands them."""
    with directory() as work:
        (work / "supervisord.conf").write_text(f"[supervisord]\n{text}")
        options = ServerOptions()
        options.realize(["-c", f"{work}/supervisord.conf"])
    groups = sorted(options.process_group_configs, key=lambda group: int(group.name[1:]))
    return [vars(process) for group in groups for process in group.process_configs]


@read_back
@given(candidates=batches)
def test_the_value_of_an_option_reaches_supervisor_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.supervisor, [value for value in candidates if "~" not in value])
    text = "".join(f"[program:p{n}]\ncommand=true\ndirectory={v}\n" for n, v in enumerate(carried.values()))
    assert [program["directory"] for program in programs_of(text)] == list(carried)


@read_back
@given(candidates=batches)
def test_a_variable_reaches_supervisor_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.supervisor_environment, candidates)
    text = "".join(
        f"[program:p{n}]\ncommand=true\nenvironment=A=\"a\",V={v},Z='z'\n" for n, v in enumerate(carried.values())
    )
    assert [program["environment"] for program in programs_of(text)] == [
        {"A": "a", "V": value, "Z": "z"} for value in carried
    ]


@read_back
@given(candidates=batches)
def test_a_part_of_a_command_reaches_the_shell_below_supervisor_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.supervisor_command, candidates)
    words = " ".join(f"/x/{text}" for text in carried.values())
    [program] = programs_of(f"[program:p0]\ncommand=/bin/sh -c \"set -a && printf '%%s ' {words}\"\n")
    # As supervisor's own Subprocess.get_execv_args splits it.
    assert output(*shlex.split(str(program["command"]))).split(" ")[:-1] == [f"/x/{value}" for value in carried]


# nginx


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket: no port is taken, so tests can run side by side."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def served_by_nginx(quoted: list[Quoted]) -> list[str]:
    """What a running nginx answers for each parameter of `return 200`."""
    with directory() as work:
        locations = "".join(f"location = /{number} {{ return 200 {text}; }}\n" for number, text in enumerate(quoted))
        (work / "nginx.conf").write_text(
            "daemon off; master_process off; error_log stderr crit; "
            f"pid {work}/pid; events {{}} http {{ access_log off; "
            + "".join(
                f"{kind}_temp_path {work}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + f"server {{ listen unix:{work}/socket; keepalive_requests 100000;\n{locations}}} }}\n"
        )
        process = subprocess.Popen([str(NGINX), "-e", "stderr", "-c", work / "nginx.conf"], stderr=subprocess.PIPE)
        try:
            while not (work / "pid").exists():
                assert process.poll() is None, (process.communicate()[1] or b"").decode()
                time.sleep(0.005)
            connection = UnixConnection(work / "socket")
            answers = []
            for number in range(len(quoted)):
                connection.request("GET", f"/{number}")
                answers.append(connection.getresponse().read().decode())
            connection.close()
        finally:
            process.kill()
            process.communicate()
    return answers


@needs(NGINX, "nginx")
@read_back
@given(candidates=batches)
def test_a_parameter_reaches_nginx_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.nginx, candidates)
    assert served_by_nginx(list(carried.values())) == list(carried)


@needs(NGINX, "nginx")
def test_the_longest_parameter_still_fits_into_nginx_and_a_longer_one_is_refused() -> None:
    longest = "é" * 1999 + " "
    assert served_by_nginx([quoting.nginx(longest[1:])]) == [longest[1:]]
    with pytest.raises(Unquotable):
        quoting.nginx(longest)


@pytest.mark.parametrize("value", ["$host", "a$", "two\nlines"])
def test_nginx_has_no_way_to_write_a_dollar_or_a_control_character(value: str) -> None:
    with pytest.raises(Unquotable):
        quoting.nginx(value)


# Python, shells, comments


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | values, st.lists, max_leaves=1
    )
)
def test_a_literal_reaches_python_unchanged(value: str | int | float | bool | None) -> None:
    if value in (float("inf"), float("-inf"), [float("inf")], [float("-inf")]):
        return
    assert ast.literal_eval(quoting.python(value)) == value
    assert "\n" not in quoting.python(value)


@pytest.mark.parametrize("value", [Path("/etc"), {"a": 1}, [Path("/etc")], b"bytes"])
def test_only_plain_values_are_written_as_python(value: object) -> None:
    with pytest.raises(Unquotable):
        quoting.python(value)  # type: ignore[arg-type]


@read_back
@given(candidates=batches)
def test_a_word_reaches_a_shell_script_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.shell, candidates)
    with directory() as work:
        (work / "script").write_text(f"printf '%s\\0' {' '.join(carried.values())}\n")
        assert output("sh", work / "script").split("\0")[:-1] == list(carried)


@read_back
@given(candidates=batches)
def test_a_text_reaches_yaml_unchanged_or_is_refused(candidates: list[str]) -> None:
    carried = accepted(quoting.yaml, candidates)
    document = "".join(f"- {text}\n" for text in carried.values())
    assert yaml.safe_load(document) == list(carried)


@read_back
@given(candidates=batches)
def test_a_comment_ends_with_its_line(candidates: list[str]) -> None:
    for text in accepted(quoting.comment, candidates).values():
        assert len(f"# {text}".splitlines()) == 1


@read_back
@given(candidates=batches)
def test_a_part_of_a_path_for_logrotate_is_plain_or_refused(candidates: list[str]) -> None:
    for text in accepted(quoting.logrotate, candidates):
        assert not set(text) & set("*?[]{}'\"\\ #\n")


# All of them


# What has been quoted already is no value.
@pytest.mark.parametrize("name", sorted({*quoting.FILTERS} - {"nginx_block", "python"}))
def test_no_line_based_format_carries_a_control_character(name: str) -> None:
    for control in CONTROL:
        with pytest.raises(Unquotable):
            quoting.FILTERS[name](f"a{control}b")


def test_a_refusal_says_what_is_wrong_and_how_to_mend_it() -> None:
    with pytest.raises(Unquotable) as refused:
        quoting.nginx("a$b")
    assert refused.value.what == "'a$b' has a $, which starts a variable in nginx"
    assert str(refused.value) == "'a$b' has a $, which starts a variable in nginx; leave it out"


@pytest.mark.parametrize(("value", "text"), [(60.0, "60"), (0.5, "0.5"), (8765, "8765"), (True, "true")])
def test_numbers_are_written_as_people_write_them(value: float, text: str) -> None:
    assert quoting.nginx(value) == text


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in globals() if name.endswith("unchanged_or_is_refused")])
def test_many_more_values_reach_their_reader(name: str) -> None:
    inner = globals()[name].hypothesis.inner_test
    settings(read_back, max_examples=10 * EXAMPLES)(given(candidates=batches)(inner))()
