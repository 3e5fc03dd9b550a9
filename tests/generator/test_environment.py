"""What a machine lacks is said plainly, before anything is made; and what `make` says without any Python."""

import ast
import os
import re
import sys
import venv
from pathlib import Path

import pytest

from generator.environment import _make_importable
from generator.pip import of_pip
from generator.program import starting
from tests.generator.front_door import ENVIRONMENT, MAKERS, ROOT, Outcome, process
from tests.generator.wheel_maker import lock_of, make_wheel

MAKE = ["make", "--no-print-directory"]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def make_environment(here: Path, shim: str) -> Outcome:
    """`generator/environment.py` on a Python that a few lines have changed before."""
    program = f"""
import sys
{shim}
from generator.environment import main
sys.exit(main([{str(here / "venv")!r}, "requirements.txt"]))
"""
    return process([sys.executable, "-c", program])


def test_a_python_that_is_too_old_is_told_which_to_name(tmp_path: Path) -> None:
    assert make_environment(tmp_path, "sys.version_info = (3, 8, 10, 'final', 0)") == (
        1,
        "",
        "wsbundle: Python 3.8.10 is too old; name one from 3.10 on: make PYTHON=python3.10 ...\n",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["ensurepip", "venv"])
def test_a_python_without_venv_is_told_what_to_install(module: str, tmp_path: Path) -> None:
    assert make_environment(tmp_path, f"sys.modules[{module!r}] = None") == (
        1,
        "",
        "wsbundle: this Python cannot make virtual environments; on Debian and Ubuntu: apt-get install -y "
        f"python3.{sys.version_info[1]}-venv\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_environment_should_stand_is_told_and_stays(tmp_path: Path) -> None:
    (tmp_path / "venv").write_text("a file in the way")
    assert make_environment(tmp_path, "") == (
        1,
        "",
        f"wsbundle: {tmp_path}/venv is not a directory; move it away, or name another place: make VENV=... "
        "Nothing was changed.\n",
    )
    assert [path.read_text() for path in tmp_path.iterdir()] == ["a file in the way"]


def test_where_no_program_can_run_that_is_said_before_anything_is_made(tmp_path: Path) -> None:
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    where = next((Path(words[1]) for words in mounts if "noexec" in words[3].split(",")), None)
    if where is None:
        pytest.skip("no file system of this machine is mounted noexec")
    outcome = make_environment(where, "")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"wsbundle: no program can run from {where}, whose file system is mounted noexec; ")
    assert "make VENV=" in outcome.err


# What of the caller's settings counts


SETTINGS = """
[global]
index-url = https://index.example.org/simple
extra-index-url =
    https://one.example.org/simple
    https://other.example.org/simple
cert = /etc/ssl/ours.pem
timeout = 7
user = true
target = /nowhere
require-virtualenv = true
[install]
no-binary = :all:
constraint = /nowhere.txt
trusted-host = index.example.org
"""


def test_of_pips_settings_those_count_that_say_where_packages_come_from(tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(SETTINGS)
    given = {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "PIP_USER": "1", "PIP_PREFIX": "/x", "PIP_TIMEOUT": "9"}
    variables = of_pip({**ENVIRONMENT, **given, "https_proxy": "http://proxy:3128", "HOME": "/x"})
    assert {name: variables[name] for name in variables if name.startswith("PIP_")} == {
        "PIP_INDEX_URL": "https://index.example.org/simple",
        "PIP_EXTRA_INDEX_URL": "\nhttps://one.example.org/simple\nhttps://other.example.org/simple",
        "PIP_CERT": "/etc/ssl/ours.pem",
        "PIP_TIMEOUT": "9",
        "PIP_TRUSTED_HOST": "index.example.org",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    assert variables["https_proxy"] == "http://proxy:3128"


@pytest.mark.slow
@pytest.mark.parametrize("adverse", ["configuration", "variables"])
def test_an_environment_is_made_whatever_else_is_said_to_pip_and_to_python(adverse: str, tmp_path: Path) -> None:
    """Each of these fails the installation, or sends it elsewhere, where it is listened to."""
    wheel = make_wheel(tmp_path, needs="")
    (tmp_path / "lock.txt").write_text(lock_of(wheel))
    (tmp_path / "pip.conf").write_text("[global]\nuser = true\n[install]\nconstraint = /nowhere.txt\n")
    (tmp_path / "venv.py").write_text("raise SystemExit('the wrong venv')")
    (tmp_path / "full").mkdir()
    reached = {**ENVIRONMENT, "HOME": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    said = {
        "configuration": {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")},
        "variables": {
            "PIP_USER": "1",
            "PIP_TARGET": str(tmp_path / "elsewhere"),
            "PIP_NO_BINARY": ":all:",
            "PYTHONPATH": str(tmp_path),
            "PYTHONHOME": "/nowhere",
            "PYTHONSTARTUP": "/nowhere.py",
            "PYTHONSAFEPATH": "1",
            "PYTHONUSERBASE": "/nowhere",
            "TMPDIR": "/nowhere",
        },
    }
    script = str(ROOT / "generator/environment.py")
    command = [sys.executable, "-IB", script, str(tmp_path / "made"), str(tmp_path / "lock.txt")]
    outcome = process(command, cwd=ROOT, env={**reached, **said[adverse]}, timeout=300)
    assert outcome.code == 0, outcome.err
    assert list((tmp_path / "made").glob("lib/*/site-packages/tiny.py"))
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "made/tmp").exists()


def test_setting_up_is_ended_with_ctrl_c_in_no_words(tmp_path: Path) -> None:
    shim = (
        "from generator import environment\ndef stop(*_): raise KeyboardInterrupt\nenvironment.make_environment = stop"
    )
    assert make_environment(tmp_path, shim) == Outcome(130, "", "")


@pytest.mark.parametrize(("before", "code", "out"), [("", -2, ""), ("trap '' INT; ", 0, "goes on\n")])
def test_what_is_started_is_ended_with_ctrl_c_in_no_words(before: str, code: int, out: str, tmp_path: Path) -> None:
    (tmp_path / "begins.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nprint('goes on')\n")
    words = [str(tmp_path) if word == str(ROOT) else word for word in starting("begins")]
    assert process(["sh", "-c", f'{before}exec "$@"', "sh", *words]) == Outcome(code, out, "")


def test_the_command_is_ended_with_ctrl_c_before_it_has_begun(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    _make_importable(tmp_path / "venv")
    (packages / "msgspec.py").write_text("raise KeyboardInterrupt")
    assert process([tmp_path / "venv/bin/wsbundle", "--version"]) == Outcome(130, "", "")


def test_the_command_does_not_listen_to_variables_of_python(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    _make_importable(tmp_path / "venv")
    (tmp_path / "yaml.py").write_text("raise SystemExit('the wrong yaml')")
    adverse = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "/nowhere.py"}
    done = process([tmp_path / "venv/bin/wsbundle", "--version"], cwd=tmp_path, env={**ENVIRONMENT, **adverse})
    assert (done.code, done.err) == (0, "")


def test_the_command_is_started_from_any_path(tmp_path: Path) -> None:
    here = tmp_path / """a "b" $HOME `id` it's 100% c\\d"""
    venv.create(here / "venv", symlinks=True)
    (packages,) = (here / "venv").glob("lib/python*/site-packages")
    (packages / "ours.pth").write_text("\n".join(path for path in sys.path if "site-packages" in path))
    _make_importable(here / "venv")
    done = process([here / "venv/bin/wsbundle", "--version"], cwd=tmp_path)
    assert (done.code, done.err) == (0, "")


def test_git_changes_the_line_ends_of_no_file() -> None:
    listed = process(["git", "ls-files", "--eol"], cwd=ROOT).out.splitlines()
    assert [line for line in listed if "attr/text=auto eol=lf" not in line and "attr/-text" not in line] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_renders_in_a_checkout_belongs_to_its_owner(tmp_path: Path) -> None:
    (tmp_path / "deploy.yaml").write_text("domain: ws.mycompany.org\n")
    os.chown(tmp_path, 12345, 54321)
    done = process([sys.executable, "-m", "generator", "render"], cwd=tmp_path)
    assert done.code == 0, done.err
    made = [tmp_path / "build", *(tmp_path / "build").rglob("*")]
    assert len(made) > 12
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in made} == {(12345, 54321)}


@pytest.mark.parametrize("name", MAKERS)
def test_pythons_that_are_too_old_can_read_what_tells_them_so(name: str) -> None:
    """Back to 3.6, of Ubuntu 18.04: `list[str]` is evaluated there, and fails, where it is no text."""
    tree = ast.parse((ROOT / f"generator/{name}.py").read_text(), feature_version=(3, 6))
    annotations = [
        annotation
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for annotation in [function.returns, *(argument.annotation for argument in function.args.args)]
    ]
    assert {type(annotation) for annotation in annotations} <= {ast.Name, ast.Constant, type(None)}
    assert not any(isinstance(node, ast.AnnAssign) for node in ast.walk(tree))


def test_make_alone_lists_every_target_with_what_it_does() -> None:
    outcome = process(MAKE, cwd=ROOT)
    assert (outcome.code, outcome.err) == (0, "")
    assert [line.split()[0] for line in outcome.out.splitlines()] == TARGETS
    assert {"help", "render", "check", "run", "install", "test", "lint", "docs"} <= set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_made(target: str, tmp_path: Path) -> None:
    outcome = process([*MAKE, "--dry-run", target, f"VENV={tmp_path}/venv"], cwd=ROOT)
    assert (outcome.code, outcome.err) == (0, "")


def test_every_target_is_declared_to_be_no_file() -> None:
    declared = re.findall(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(TARGETS) <= set(" ".join(declared).split())


def test_arguments_reach_the_command(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    outcome = process([*MAKE, "-n", "render", f"VENV={tmp_path}/venv", "ARGS=--env prod --set port=9000"], cwd=ROOT)
    assert outcome.out.splitlines()[-1] == f"{tmp_path}/venv/bin/wsbundle render --env prod --set port=9000"


@pytest.mark.parametrize("target", ["render", "check", "run", "test", "lint"])
def test_a_machine_without_python_is_told_what_to_install(target: str, tmp_path: Path) -> None:
    outcome = process([*MAKE, target, "PYTHON=python3-of-nowhere", f"VENV={tmp_path}/venv"], cwd=ROOT)
    assert (outcome.code, outcome.out) == (2, "")
    told, makes_own = outcome.err.splitlines()
    assert told == (
        "wsbundle: python3-of-nowhere is missing; on Debian and Ubuntu: apt-get install -y python3 python3-venv"
    )
    assert makes_own.startswith("make: *** ")
    assert list(tmp_path.iterdir()) == []


def test_a_path_without_any_python_is_told_the_same(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for program in ("sh", "make"):
        (tmp_path / "bin" / program).symlink_to(f"/usr/bin/{program}")
    environment = {**ENVIRONMENT, "PATH": str(tmp_path / "bin")}
    outcome = process([*MAKE, "render", f"VENV={tmp_path}/venv"], cwd=ROOT, env=environment)
    assert outcome.code == 2
    assert outcome.err.startswith("wsbundle: python3 is missing; on Debian and Ubuntu: apt-get install -y python3 ")


@pytest.mark.skipif(os.geteuid() != 0, reason="it asks for root first")
def test_what_the_caller_tells_python_is_no_reason_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python3").chmod(0o755)
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "apt-get").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONHOME": "/nonexistent", "PYTHONPLATLIBDIR": "elsewhere"}
    assert process(["sh", str(ROOT / "generator/prepare.sh")], env=environ) == (0, "", "")


@pytest.mark.skipif(os.geteuid() != 0, reason="it asks for root first")
def test_python_is_installed_though_a_source_of_apt_fails_and_su_has_left_out_the_programs_of_root(
    tmp_path: Path,
) -> None:
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "apt-get").write_text(f"""#!/bin/sh
case "$*" in *update) echo "E: a source has no Release file"; exit 100 ;; esac
echo "$PATH" >{tmp_path}/path
""")
    for program in ("python3", "apt-get"):
        (tmp_path / program).chmod(0o755)
    done = process(["sh", str(ROOT / "generator/prepare.sh")], env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (done.code, "E: a source has no Release file" in done.err) == (0, True)
    assert {"/usr/sbin", "/sbin"} <= set((tmp_path / "path").read_text().strip().split(":"))
