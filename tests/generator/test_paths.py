"""Where the files of a deployment stand is said once."""

import ast
from collections.abc import Iterator
from pathlib import Path

from generator.config.schema import Deploy, Engine, Nginx
from generator.paths import Paths
from generator.rendering.render import render
from tests.modules import MODULES

TABLE = set(vars(Paths("NAME")).values())
NOT_RENDERED = {
    "app",
    "keys",
    "bus",
    "listener",
    "mailbox",
    "recovery",
    "tls",
    "placeholder",
    "engine_password",
    "engine_run",
}
# Rendered where an engine is served.
SERVED = Engine(serve=True, url="valkey://127.0.0.1", user="chat")


def said(path: Path) -> Iterator[str]:
    """The paths of the table that a module writes itself, in a text without blanks, or with what stands in braces."""
    for node in ast.walk(ast.parse(path.read_text())):
        text = ""
        if isinstance(node, ast.JoinedStr):
            parts = (str(part.value) if isinstance(part, ast.Constant) else "NAME" for part in node.values)
            text = "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not set(node.value) & set(" \n"):
            text = node.value
        yield from (each for each in TABLE if each in text)


def test_the_table_has_every_file_of_a_bundle() -> None:
    paths = Paths("chat")
    rendered = {path for kind, path in vars(paths).items() if kind not in NOT_RENDERED}
    deploy = Deploy(domain="a.org", name="chat", engine=SERVED, nginx=Nginx(include=True))
    assert {file.path for file in render(deploy).files} == rendered


def test_a_path_that_is_said_again_would_be_seen(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text("a = f'/etc/{store.name}/.env'\nb = 'etc/nginx/modules-enabled/90-wsbundle.conf'\n")
    assert sorted(said(module)) == ["etc/NAME/.env", "etc/nginx/modules-enabled/90-wsbundle.conf"]


def test_no_other_module_says_where_a_file_stands() -> None:
    modules = [name for name in MODULES if name.startswith("generator.") and "paths" not in name]
    assert {module: found for module in modules if (found := list(said(MODULES[module])))} == {}
