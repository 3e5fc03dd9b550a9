"""What a machine lacks is said plainly, before anything is made; and what `make` says without any Python."""

import ast
import re
import sys
from pathlib import Path

import pytest
from front_door import ENVIRONMENT, ROOT, Outcome, process

MAKE = ["make", "--no-print-directory"]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


def make_environment(here: Path, shim: str) -> Outcome:
    """`python -m generator.environment` on a Python that a few lines have changed before."""
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
        "python3-venv\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_told_by_name(tmp_path: Path) -> None:
    (tmp_path / "venv").write_text("a file in the way")
    outcome = make_environment(tmp_path, "")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1].startswith(f"wsbundle: {tmp_path}/venv")
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("path", ["generator/__init__.py", "generator/environment.py"])
def test_pythons_that_are_too_old_can_read_what_tells_them_so(path: str) -> None:
    """Back to 3.6, of Ubuntu 18.04: `list[str]` is evaluated there, and fails, where it is no text."""
    tree = ast.parse((ROOT / path).read_text(), feature_version=(3, 6))
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
