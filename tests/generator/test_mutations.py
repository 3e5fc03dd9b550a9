"""Could a line of a template be lost, changed or misspelt without a test failing?

Two answers. Golden bundles notice every change of every line, and every condition that is turned round: that is what a
reviewer sees. And a misspelt name is refused by the program that reads the file, so that it cannot be recorded as a
new golden by mistake; what no reader can notice is listed with the reason.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2
import pytest

from generator.config.load import load
from generator.config.schema import Deploy
from generator.readers import engine, gunicorn, logrotate, nginx, prometheus, shell, supervisor, systemd
from generator.readers.processes import Running, side_by_side
from generator.readers.verdict import Verdict
from generator.rendering.bundle import Bundle
from generator.rendering.render import TEMPLATES, environment, names_of, path_of, render
from tests.generator.readings import changed
from tests.programs import needs

GOLDEN = Path(__file__).parents[1] / "golden"
ALL = sorted(str(path.relative_to(TEMPLATES)) for path in TEMPLATES.rglob("*") if path.is_file())
BATCH = 8

pytestmark = pytest.mark.slow

every_template = pytest.mark.parametrize("template", ALL)

# What misspelt lines no reader refuses: the template, the line, and why.
UNNOTICED = [
    ("etc/nginx/sites-available/NAME", r"(default|~\*websocket) ", "in a map every word is a value to compare with"),
    (
        "monitoring/prometheus-rules.yaml",
        r"(severity|summary|description|look): ",
        "labels and annotations are called what one calls them",
    ),
    ("etc/letsencrypt/renewal-hooks/deploy/NAME", r".*", "sh looks commands up when it runs them: see test_hook.py"),
]
# The program that must be installed for a file to be read; gunicorn and supervisor may be among our own libraries.
READERS = {
    "etc/NAME/.env": "sh",
    "etc/NAME/engine.conf": "redis-server",
    "etc/NAME/engine.users": "valkey-server",
    "etc/NAME/gunicorn.conf.py": None,
    "etc/letsencrypt/renewal-hooks/deploy/NAME": "sh",
    "etc/logrotate.d/NAME": "logrotate",
    "etc/nginx/NAME/locations.conf": "nginx",
    "etc/nginx/modules-enabled/90-wsbundle.conf": "nginx",
    "etc/nginx/sites-available/NAME": "nginx",
    "etc/supervisor/conf.d/NAME.conf": None,
    "etc/systemd/system/NAME.nginx.socket": "systemd-analyze",
    "etc/systemd/system/NAME.service": "systemd-analyze",
    "etc/systemd/system/NAME.socket": "systemd-analyze",
    "etc/systemd/system/nginx.service.d/NAME.conf": "systemd-analyze",
    "etc/systemd/system/supervisor.service.d/NAME.conf": "systemd-analyze",
    "etc/systemd/system/valkey-server@NAME.service.d/NAME.conf": "systemd-analyze",
    "etc/sysusers.d/NAME.conf": "systemd-sysusers",
    "etc/tmpfiles.d/NAME.conf": "systemd-tmpfiles",
    "monitoring/prometheus-rules.yaml": "promtool",
    "monitoring/prometheus-scrape.yaml": "promtool",
}


@cache
def deployments() -> dict[str, Deploy]:
    return {path.parent.name: load(str(path)).deploy for path in sorted(GOLDEN.glob("*/deploy.yaml"))}


@cache
def having(template: str) -> list[str]:
    """The golden deployments that have this file: some have no engine of their own."""
    names = deployments().items()
    return [name for name, deploy in names if (GOLDEN / name / "expected" / path_of(template, deploy)).exists()]


def recorded(deployment: str, template: str) -> str:
    return (GOLDEN / deployment / "expected" / path_of(template, deployments()[deployment])).read_text()


@cache
def names(deployment: str) -> dict[str, Any]:
    return names_of(deployments()[deployment])


def compiled(lines: list[str]) -> jinja2.Template:
    return environment(jinja2.DictLoader({"file": "\n".join(lines)})).get_template("file")


def rendered(template: jinja2.Template, deployment: str, change: int | None = None) -> str | None:
    """What a template is rendered to with one of its changes; None where rendering itself fails."""
    try:
        return template.render(names(deployment), change=change)
    except (jinja2.TemplateError, TypeError, ValueError):
        return None


def is_control(line: str) -> bool:
    return line.lstrip().startswith("{%")


def lines_of(template: str) -> list[str]:
    return (TEMPLATES / template).read_text().split("\n")


@cache
def where_rendered(template: str) -> dict[int, str]:
    """For each line of a template, by number from 0, a golden deployment that has it."""
    marked = compiled(
        [
            line if is_control(line) or not line else f"{line}\x01{number}\x01"
            for number, line in enumerate(lines_of(template))
        ]
    )
    found: dict[int, str] = {}
    for deployment in having(template):
        for number in re.findall("\x01(\\d+)\x01", rendered(marked, deployment) or ""):
            found.setdefault(int(number), deployment)
    return found


def mutations(line: str) -> Iterator[str | None]:
    """The line gone, its first number or its value changed, its name misspelt."""
    yield None
    outside_of_values = re.search(r"^(?:[^{\d]|\{(?!\{))*(\d+)", line)
    if outside_of_values:
        digits = outside_of_values
        yield line[: digits.start(1)] + str(int(digits[1]) + 1) + line[digits.end(1) :]
    else:
        yield re.sub(r"([;\"'\s{]*)$", r"z\1", line, count=1)
    yield re.sub(r"^(\s*)", r"\1z", line)


def with_every_change(lines: list[str]) -> tuple[jinja2.Template, list[tuple[int, str | None]]]:
    """A template whose `change` says which of these is made, by its place in the list: compiled once for all."""
    source: list[str] = []
    changes: list[tuple[int, str | None]] = []
    for number, line in enumerate(lines):
        if is_control(line) or not line:
            source.append(line)
            continue
        for word, mutated in zip(("if", "elif", "elif"), mutations(line), strict=True):
            source += [f"{{% {word} change == {len(changes)} %}}", *([] if mutated is None else [mutated])]
            changes.append((number, mutated))
        source += ["{% else %}", line, "{% endif %}"]
    return compiled(source), changes


@every_template
def test_golden_bundles_notice_every_change_of_every_line(template: str) -> None:
    changeable, changes = with_every_change(lines_of(template))
    for deployment in having(template):
        assert rendered(changeable, deployment) == recorded(deployment, template)
    for change, (number, mutated) in enumerate(changes):
        assert number in where_rendered(template), f"no golden bundle has line {number + 1}"
        deployment = where_rendered(template)[number]
        text = rendered(changeable, deployment, change)
        assert text != recorded(deployment, template), f"{number + 1}: {mutated}"


@every_template
def test_golden_bundles_notice_every_condition_that_is_turned_round(template: str) -> None:
    conditions: list[str] = []

    def turnable(found: re.Match[str]) -> str:
        conditions.append(found[0])
        return f"{{% {found[1]} (not ({found[2]}) if change == {len(conditions) - 1} else ({found[2]})) %}}"

    source = re.sub(r"\{% (if|elif) (.*?) %\}", turnable, "\n".join(lines_of(template)))
    turning = compiled([source])
    for deployment in having(template):
        assert rendered(turning, deployment) == recorded(deployment, template)
    for change, condition in enumerate(conditions):
        texts = ((rendered(turning, name, change), recorded(name, template)) for name in having(template))
        assert any(text != expected for text, expected in texts), condition


def name_at(template: str, line: str) -> int | None:
    """Where the name in a line starts that its reader knows; None in a line without one."""
    text = line.lstrip()
    at = len(line) - len(text)
    if not text or text[0] in "#;}'\"/" or text.startswith("'"):
        return None
    return at + 1 if text[0] == "[" else at


def misspelt(bundle: Bundle, path: str, number: int, at: int) -> Bundle:
    def change(text: str) -> str:
        lines = text.split("\n")
        line = lines[number]
        lines[number] = f"{line[: at + 1]}z{line[at + 1 :]}"
        return "\n".join(lines)

    return changed(bundle, path, change)


def reading(template: str, deploy: Deploy, bundle: Bundle, root: Path) -> Running[list[Verdict]]:
    """The readers of one kind of file."""
    root.mkdir()
    if template == "etc/NAME/.env":
        wanted = {variable.variable: variable.value for variable in names_of(deploy)["settings"]}
        return shell.environment(bundle, root, {**wanted, **deploy.env})
    readers = {
        "etc/NAME/engine.conf": engine.configuration,
        "etc/NAME/engine.users": engine.configuration,
        "etc/NAME/gunicorn.conf.py": gunicorn.settings,
        "etc/letsencrypt/renewal-hooks/deploy/NAME": shell.scripts,
        "etc/logrotate.d/NAME": logrotate.rotation,
        "etc/supervisor/conf.d/NAME.conf": supervisor.program,
        "etc/sysusers.d/NAME.conf": systemd.user,
        "etc/tmpfiles.d/NAME.conf": systemd.directories,
        "monitoring/prometheus-rules.yaml": prometheus.monitoring,
        "monitoring/prometheus-scrape.yaml": prometheus.monitoring,
    }
    if template.startswith("etc/nginx"):
        return nginx.configuration(bundle, root)
    return readers.get(template, systemd.units)(bundle, root)


def candidates(template: str) -> dict[str, tuple[Deploy, Bundle, str, int, int]]:
    """Every line that some golden bundle has in this file, and how to misspell it there."""
    found: dict[str, tuple[Deploy, Bundle, str, int, int]] = {}
    for deploy in (deployments()[name] for name in having(template)):
        bundle = render(deploy)
        path = path_of(template, deploy)
        text = next(file.text for file in bundle.files if file.path == path)
        for number, line in enumerate(text.split("\n")):
            if (at := name_at(template, line)) is not None:
                found.setdefault(line, (deploy, bundle, path, number, at))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    "template",
    [pytest.param(template, marks=needs(program) if program else []) for template, program in READERS.items()],
)
def test_a_misspelt_name_is_refused_by_the_program_that_reads_it(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx, "HOST", Path("/nowhere"))
    lines = candidates(template)
    assert lines
    unnoticed = []
    with TemporaryDirectory() as directory:
        items = list(lines.items())
        for start in range(0, len(items), BATCH):
            batch = items[start : start + BATCH]
            tasks = [
                reading(template, deploy, misspelt(bundle, path, number, at), Path(directory) / str(start + offset))
                for offset, (_, (deploy, bundle, path, number, at)) in enumerate(batch)
            ]
            for (line, _), said in zip(batch, side_by_side(tasks), strict=True):
                if said[0].why.endswith("is not installed"):
                    pytest.skip(said[0].why)
                if said[0].state != "refused":
                    unnoticed.append(line.strip())
    reasons = [pattern for unread, pattern, _ in UNNOTICED if unread == template]
    assert [line for line in unnoticed if not any(re.match(pattern, line) for pattern in reasons)] == []
    assert all(any(re.match(pattern, line) for line in unnoticed) for pattern in reasons), (
        "a reason that is no longer one"
    )


def test_every_template_has_a_reader() -> None:
    assert sorted(READERS) == ALL
