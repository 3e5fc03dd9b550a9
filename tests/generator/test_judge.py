"""What a reader finds is told with the line of deploy.yaml it comes from, and nothing is written."""

import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from generator.config.load import load_text
from generator.judge import judge
from generator.rendering.render import render
from generator.report import CommandError, Report
from tests.generator.front_door import wsbundle

DEPLOY = """domain: ws.mycompany.org
tls: files
certificate:
  file: /etc/ssl/chain.pem
  key: /etc/ssl/key.pem
env:
  ZONE: eu
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a deploy.yaml, on a host with no other programs than those in its `bin`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "deploy.yaml").write_text(DEPLOY)
    return tmp_path


def put_nginx(here: Path, words: str, complaint: str) -> None:
    """A program that complains, as nginx would, about the first line of the site with these words.

    It stands in for an nginx that is newer, older or built otherwise than the one the tests find here.
    """
    program = here / "bin" / "nginx"
    program.write_text(f"""#!/bin/sh
while [ "$1" != -c ]; do shift; done
site=${{2%/nginx.conf}}/sites-enabled/queue-websocket
line=$(/bin/grep -n -m1 '{words}' "$site" | /usr/bin/cut -d: -f1)
echo "nginx: [emerg] {complaint} in $site:$line" >&2
exit 1
""")
    program.chmod(0o755)


def line_of(words: str) -> int:
    files = {file.path: file.text for file in render(load_text(DEPLOY, "deploy.yaml").deploy).files}
    lines = files["etc/nginx/sites-available/queue-websocket"].splitlines()
    return next(number for number, line in enumerate(lines, 1) if words in line)


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        ("ssl_certificate ", "deploy.yaml:2:6: tls, deploy.yaml:4:9: certificate.file"),
        ("ssl_certificate_key ", "deploy.yaml:2:6: tls, deploy.yaml:5:8: certificate.key"),
        ("server_name ws", "deploy.yaml:1:9: domain"),
    ],
)
def test_what_a_reader_refuses_is_told_with_the_lines_of_deploy_yaml_behind_it(
    words: str, cause: str, here: Path
) -> None:
    put_nginx(here, words, "I cannot have this")
    outcome = wsbundle("render")
    where = f"etc/nginx/sites-available/queue-websocket:{line_of(words)}"
    assert outcome.code == 1
    assert outcome.err.splitlines() == [
        f"{where}: I cannot have this; from {cause}",
        "Refused by nginx configuration; nothing was written.",
    ]
    assert "  refused     nginx configuration\n" in outcome.out
    assert not (here / "build").exists()


def test_what_no_setting_is_behind_is_told_with_the_rendered_line_alone(here: Path) -> None:
    put_nginx(here, "proxy_buffering off", "I cannot have this")
    outcome = wsbundle("check")
    assert outcome.err.splitlines()[0].endswith(f":{line_of('proxy_buffering off')}: I cannot have this")


def test_what_a_default_is_behind_is_told_with_the_rendered_line_alone(here: Path) -> None:
    put_nginx(here, "proxy_read_timeout 105s", "I cannot have this")
    outcome = wsbundle("check")
    assert outcome.err.splitlines()[0].endswith(f":{line_of('proxy_read_timeout 105s')}: I cannot have this")


def test_what_a_reader_refuses_is_told_to_programs_too(here: Path) -> None:
    put_nginx(here, "server_name ws", "I cannot have this")
    told = json.loads(wsbundle("check", "--format", "json").out)
    assert told["exit_code"] == 1
    assert told["errors"][-1] == "Refused by nginx configuration; nothing was written."
    [verdict] = [verdict for verdict in told["verdicts"] if verdict["state"] == "refused"]
    assert verdict["faults"] == [
        {
            "path": "etc/nginx/sites-available/queue-websocket",
            "line": line_of("server_name ws"),
            "message": "I cannot have this",
        }
    ]


def test_a_reader_that_is_not_there_is_told_and_never_passes_for_consent(here: Path) -> None:
    outcome = wsbundle("check")
    assert (outcome.code, outcome.err) == (0, "")
    assert "  not checked nginx configuration: nginx is not installed\n" in outcome.out
    assert re.search(r"^  accepted    \d of \d+ checks", outcome.out, re.MULTILINE)
    assert "  accepted    nginx" not in wsbundle("check", "-v").out


def test_what_is_accepted_is_one_line_unless_each_is_asked_for(here: Path) -> None:
    in_one, each = wsbundle("check").out, wsbundle("check", "-v").out
    number = each.count("  accepted    ")
    assert number > 1
    assert in_one.count("  accepted    ") == 1
    assert f"  accepted    {number} of " in in_one
    assert [line for line in each.splitlines() if "accepted" not in line] == [
        line for line in in_one.splitlines() if "accepted" not in line
    ]


def test_files_that_disagree_are_told_with_the_agreement_before_any_reader_is_asked() -> None:
    loaded = load_text(DEPLOY, "deploy.yaml")
    bundle = render(loaded.deploy)
    files = tuple(replace(file, text=file.text.replace("KillSignal=SIGTERM", "KillSignal=9")) for file in bundle.files)
    report = Report(json=True)
    with pytest.raises(CommandError, match="do not agree; nothing was written"):
        judge(loaded, replace(bundle, files=files), report)
    assert report.facts == {
        "errors": ["etc/systemd/system/queue-websocket.service: stops by 9, not by TERM (stops-by-term)"]
    }
