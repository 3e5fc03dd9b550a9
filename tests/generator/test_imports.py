"""What a fault in deploy.yaml need not wait for."""

import sys
from pathlib import Path

import pytest

from tests.generator.front_door import process


@pytest.mark.parametrize("command", ["render", "check", "show", "run"])
def test_a_fault_in_deploy_yaml_is_told_before_anything_is_imported_that_only_rendering_needs(
    command: str, tmp_path: Path
) -> None:
    (tmp_path / "deploy.yaml").write_text("domain: ws.mycompany.org\nport: 80\nlimits: {connections: 5}\n")
    program = f"""
import sys
from generator.__main__ import main
code = main(["{command}"])
late = {{"jinja2", "generator.rendering.render", "generator.readers", "generator.judge", "pathlib", "tempfile"}}
print(code, sorted(late & set(sys.modules)))
"""
    outcome = process([sys.executable, "-S", "-c", program], cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)})
    assert len(outcome.err.splitlines()) == 2
    assert outcome.out == "2 []\n"
