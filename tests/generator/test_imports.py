"""Which way the generator's dependencies point, and what a fault in deploy.yaml need not wait for."""

import ast
import sys
from pathlib import Path

import pytest
from front_door import ROOT, process

GENERATOR = ROOT / "generator"
MODULES = sorted(path.stem for path in GENERATOR.glob("*.py"))

# From a text to a verdict on it, and from a deployment to its files: all of it can be asked without a host.
PURE = ("agreement", "bundle", "check", "document", "explain", "quoting", "rules", "schema")
# What reaches out of a process, by files, programs or the network.
REACHING_OUT = {"fcntl", "http", "os", "pathlib", "shutil", "socket", "ssl", "subprocess", "tempfile", "urllib"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in it, by its full name; of a package also what is taken from it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "no relative imports"
            whole = node.module in ("service", "generator")
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if whole else {node.module}
    return found


@pytest.mark.parametrize("path", sorted(GENERATOR.rglob("*.py")), ids=lambda path: str(path.relative_to(GENERATOR)))
def test_of_the_service_the_generator_knows_the_settings_alone(path: Path) -> None:
    of_the_service = {module for module in imports(path) if module.startswith("service")}
    assert of_the_service <= {"service.declaration", "service.settings"}


@pytest.mark.parametrize("module", PURE)
def test_what_is_pure_reaches_for_nothing(module: str) -> None:
    assert {name.partition(".")[0] for name in imports(GENERATOR / f"{module}.py")}.isdisjoint(REACHING_OUT)


def test_only_what_renders_knows_jinja_and_only_what_parses_knows_yaml() -> None:
    of_jinja = {module for module in MODULES if "jinja2" in imports(GENERATOR / f"{module}.py")}
    assert of_jinja == {"render"}
    assert "yaml" in imports(GENERATOR / "document.py")
    assert not any("yaml" in imports(GENERATOR / f"{module}.py") for module in ("check", "load", "rules", "commands"))


def test_only_the_command_itself_knows_what_concerns_a_host() -> None:
    outside = [path for path in GENERATOR.rglob("*.py") if path.parent.name != "host"]
    knowing = {path.stem for path in outside if any(name.startswith("generator.host") for name in imports(path))}
    assert knowing == {"command_line"}


def test_what_sets_up_the_environment_needs_nothing_that_is_to_be_installed() -> None:
    needed = {name.partition(".")[0] for name in imports(GENERATOR / "environment.py")}
    assert needed <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("command", ["render", "check", "show", "run"])
def test_a_fault_in_deploy_yaml_is_told_before_anything_is_imported_that_only_rendering_needs(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "deploy.yaml").write_text("domain: ws.mycompany.org\nport: 80\nlimits: {connections: 5}\n")
    program = f"""
import sys
from generator.__main__ import main
code = main(["{command}"])
late = {{"jinja2", "generator.render", "generator.readers", "generator.judge", "pathlib", "tempfile"}}
print(code, sorted(late & set(sys.modules)))
"""
    outcome = process([sys.executable, "-S", "-c", program], cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)})
    assert len(outcome.err.splitlines()) == 2
    assert outcome.out == "2 []\n"
