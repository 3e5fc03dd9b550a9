"""The templates themselves: flat, in their places, and unable to print what was not quoted."""

import re
import sys
from pathlib import Path

import jinja2
import msgspec
import pytest
from jinja2 import nodes

from generator.config.schema import Deploy
from generator.paths import Paths
from generator.quoting import FILTERS
from generator.rendering.render import TEMPLATES, CompiledTemplates, UnquotedValue, environment, names_of, render

ALL = sorted(str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*") if path.is_file())
# Expressions that stand for themselves: a name, an item of a loop or one of its fields.
PLAIN = (nodes.Name, nodes.Getattr)

# Which filters a file may use. A value in the wrong language is the fault that no reader reports.
LANGUAGES = {
    "etc/NAME/.env": {"comment", "env_name", "env"},
    "etc/NAME/engine.conf": {"comment", "redis"},
    "etc/NAME/engine.users": {"redis"},
    "etc/NAME/gunicorn.conf.py": {"comment", "python"},
    "etc/letsencrypt/renewal-hooks/deploy/NAME": {"comment", "shell"},
    "etc/logrotate.d/NAME": {"comment", "logrotate"},
    "etc/nginx/modules-enabled/90-wsbundle.conf": {"comment", "nginx"},
    "etc/nginx/NAME/locations.conf": {"comment", "nginx"},
    "etc/nginx/sites-available/NAME": {"comment", "nginx", "nginx_block"},
    "etc/supervisor/conf.d/NAME.conf": {"comment", "supervisor", "supervisor_command", "supervisor_environment"},
    "etc/systemd/system/NAME.nginx.socket": {"comment", "systemd"},
    "etc/systemd/system/NAME.service": {"comment", "systemd", "systemd_exec", "systemd_word"},
    "etc/systemd/system/NAME.socket": {"comment", "systemd"},
    "etc/systemd/system/nginx.service.d/NAME.conf": {"comment", "systemd_word"},
    "etc/systemd/system/supervisor.service.d/NAME.conf": {"comment", "systemd_word"},
    "etc/systemd/system/valkey-server@NAME.service.d/NAME.conf": {"comment", "systemd", "systemd_exec", "systemd_word"},
    "etc/sysusers.d/NAME.conf": {"comment", "systemd", "systemd_word"},
    "etc/tmpfiles.d/NAME.conf": {"comment", "systemd_word"},
    "monitoring/prometheus-rules.yaml": {"comment", "yaml"},
    "monitoring/prometheus-scrape.yaml": {"comment", "yaml"},
}

every_template = pytest.mark.parametrize("template", ALL)


def parsed(template: str) -> nodes.Template:
    return environment(jinja2.BaseLoader()).parse((TEMPLATES / template).read_text())


def printed_by(source: str, **names: object) -> str:
    return environment(jinja2.DictLoader({"file": source})).get_template("file").render(names)


def test_every_template_is_rendered_and_every_rendered_file_but_the_dashboard_has_one() -> None:
    engine = {"serve": True, "url": "valkey://127.0.0.1", "user": "chat"}
    settings = {"domain": "ws.example.com", "engine": engine, "nginx": {"include": True}}
    bundle = render(msgspec.convert(settings, Deploy))
    without = Paths(bundle.name).dashboard
    rendered = {file.template for file in bundle.files if file.link is None and file.path != without}
    assert sorted(rendered) == ALL


def test_a_template_lies_where_its_file_will() -> None:
    bundle = render(msgspec.convert({"domain": "ws.example.com", "name": "chat"}, Deploy))
    assert [file.path for file in bundle.files if file.link is None and "chat" in file.path] == [
        file.template.replace("NAME", "chat") for file in bundle.files if "NAME" in file.template
    ]


@every_template
def test_a_template_has_no_nested_condition_and_no_macro(template: str) -> None:
    tree = parsed(template)
    for condition in tree.find_all(nodes.If):
        assert not list(nodes.Template(condition.body).find_all(nodes.If)), f"line {condition.lineno}"
    assert not list(tree.find_all((nodes.Macro, nodes.Include, nodes.Extends, nodes.Import, nodes.Assign)))


@every_template
def test_a_template_prints_names_through_one_filter_and_computes_nothing(template: str) -> None:
    for output in parsed(template).find_all(nodes.Output):
        for node in output.nodes:
            if not isinstance(node, nodes.TemplateData):
                assert isinstance(node, nodes.Filter), f"line {node.lineno}"
                assert isinstance(node.node, PLAIN), f"line {node.lineno}"
                assert not node.args


@every_template
def test_a_template_speaks_only_its_own_language(template: str) -> None:
    assert {node.name for node in parsed(template).find_all(nodes.Filter)} <= LANGUAGES[template]


@every_template
def test_a_comment_is_the_only_place_for_text_that_is_not_quoted(template: str) -> None:
    for number, line in enumerate((TEMPLATES / template).read_text().splitlines(), 1):
        filters = set(re.findall(r"\| (\w+) }}", line))
        assert "comment" not in filters or (filters == {"comment"} and line[0] in "#;"), f"line {number}"


def test_every_filter_is_used() -> None:
    assert set().union(*LANGUAGES.values()) == set(FILTERS)


def test_every_name_is_used_by_a_template() -> None:
    used = {node.name for template in ALL for node in parsed(template).find_all(nodes.Name)}
    assert set(names_of(Deploy(domain="a.org"))) <= used


# A list of users has no comments: neither Valkey nor Redis starts with one in it.
@pytest.mark.parametrize("template", [template for template in ALL if template != "etc/NAME/engine.users"])
def test_a_template_says_where_to_edit_it(template: str) -> None:
    assert "wsbundle from deploy.yaml; edit that and install again" in (TEMPLATES / template).read_text()


@every_template
def test_a_template_has_no_line_too_long_to_read(template: str) -> None:
    for number, line in enumerate((TEMPLATES / template).read_text().splitlines(), 1):
        comment = line.lstrip().startswith(("#", ";"))
        assert not comment or len(re.sub(r"\{\{.*?\}\}", "x" * 10, line)) <= 120, f"line {number}"


def test_a_value_without_a_filter_is_an_error() -> None:
    with pytest.raises(UnquotedValue, match="'public' passed through no filter"):
        printed_by("listen {{ address }};", address="public")


def test_a_value_that_was_changed_after_its_filter_is_an_error() -> None:
    with pytest.raises(UnquotedValue):
        printed_by("listen {{ (address | nginx) + suffix }};", address="10.0.0.1", suffix="; include /etc/passwd")


def test_a_number_without_a_filter_is_an_error() -> None:
    with pytest.raises(UnquotedValue):
        printed_by("{{ port }}", port=8765)


@pytest.mark.parametrize("name", sorted(FILTERS))
def test_a_misspelt_name_is_an_error_behind_every_filter(name: str) -> None:
    with pytest.raises(jinja2.UndefinedError, match="prot"):
        printed_by("{{ prot | " + name + " }}", port=8765)


def test_a_misspelt_name_is_an_error_without_a_filter_and_in_a_condition() -> None:
    with pytest.raises(jinja2.UndefinedError, match="prot"):
        printed_by("{{ prot }}")
    with pytest.raises(jinja2.UndefinedError, match="prot"):
        printed_by("{% if prot %}x{% endif %}")


def test_a_misspelt_filter_and_one_of_jinjas_own_are_errors() -> None:
    for source in ("{{ port | ngnix }}", "{{ port | upper }}", "{{ port | safe }}"):
        with pytest.raises(jinja2.TemplateAssertionError, match="No filter named"):
            printed_by(source, port=8765)


def test_a_compiled_template_is_used_until_its_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    cache = CompiledTemplates(tmp_path)
    for text in ("one\n", "two\n", "two\n"):
        assert environment(jinja2.DictLoader({"file": text}), cache).get_template("file").render() == text
    assert len(list(tmp_path.iterdir())) == 1


def test_where_python_keeps_no_compiled_modules_no_compiled_template_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    jinja = environment(jinja2.DictLoader({"file": "one\n"}), CompiledTemplates(tmp_path))
    assert jinja.get_template("file").render() == "one\n"
    assert list(tmp_path.iterdir()) == []


def test_templates_are_rendered_where_nothing_compiled_can_be_kept(tmp_path: Path) -> None:
    cache = CompiledTemplates(tmp_path / "missing" / "directory")
    jinja = environment(jinja2.DictLoader({"file": "one\n"}), cache)
    assert jinja.get_template("file").render() == "one\n"
