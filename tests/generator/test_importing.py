"""`wsbundle import` on files as people have them: what it writes, and that no line of them is passed over in silence.

tests/by_hand has a directory for each deployment, with `expected.yaml` beside its files.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from generator.__main__ import main
from generator.config.load import load_text
from generator.importing.account import account_of
from generator.importing.found import on_this_host
from generator.importing.services import services_in
from generator.importing.sources import Source
from generator.paths import RENDERED
from generator.readers.entry import Entry
from tests.modules import ROOT

SAMPLES = ROOT / "tests/by_hand"
NAMES = sorted(path.name for path in SAMPLES.iterdir())
EXPECTED = "expected.yaml"


def files_of(name: str) -> list[str]:
    return sorted(path.name for path in (SAMPLES / name).iterdir() if path.name != EXPECTED)


@pytest.fixture
def in_sample(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A copy of a sample is the current directory."""
    name: str = request.param
    shutil.copytree(SAMPLES / name, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    """The JSON object of an import into deploy.yaml."""
    assert main(["import", *words, "--format", "json"]) == code
    facts: dict[str, Any] = json.loads(capsys.readouterr().out)
    return facts


def of_lines(facts: dict[str, Any], part: str) -> list[str]:
    """What became of the lines that have this text in them."""
    return [f"{line['verdict']}: {line['why']}" for line in facts["lines"] if part in line["text"]]


def says_something(line: str) -> bool:
    """Whether a line is more than blanks, a comment, or the end of a block."""
    said = line.strip().rstrip(";").strip()
    return bool(said) and said[0] not in "#;" and said not in ("}", "};") and not said.startswith("} #")


@pytest.mark.parametrize("in_sample", NAMES, indirect=True)
def test_the_file_is_short_and_sound(in_sample: str) -> None:
    assert main(["import", *files_of(in_sample)]) == 0
    text = Path("deploy.yaml").read_text()
    assert text == (SAMPLES / in_sample / EXPECTED).read_text()
    load_text(text, "deploy.yaml")


@pytest.mark.parametrize("in_sample", NAMES, indirect=True)
def test_every_line_is_taken_over_or_listed(in_sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts = imported(capsys, *files_of(in_sample))
    for file in files_of(in_sample):
        spans = [(line["line"], line["last"]) for line in facts["lines"] if line["file"] == file]
        for number, text in enumerate(Path(file).read_text().split("\n"), start=1):
            assert not says_something(text) or any(a <= number <= b for a, b in spans), f"{file}:{number}: {text}"


@pytest.mark.parametrize("in_sample", NAMES, indirect=True)
def test_no_line_is_listed_twice(in_sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = imported(capsys, *files_of(in_sample))["lines"]
    said = [(line["file"], line["line"], line["text"], line["why"]) for line in lines]
    assert len(said) == len(set(said))
    assert all(line["why"] for line in lines)


@pytest.mark.parametrize("in_sample", ["guide-supervisor"], indirect=True)
def test_a_port_that_differs_is_named_with_both_places(in_sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", *files_of(in_sample)]) == 0
    said = capsys.readouterr().err
    assert "port 8765 in queue-websocket.conf:4, and port 9000 in queue-websocket:19" in said


@pytest.mark.parametrize("in_sample", ["guide-gunicorn"], indirect=True)
def test_what_the_command_line_overrides_is_a_conflict(in_sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    (conflict,) = imported(capsys, *files_of(in_sample))["conflicts"]
    assert conflict["what"] == "workers"
    assert conflict["claims"] == [["4", "queue-websocket.service:11"], ["auto", "gunicorn.conf.py:9"]]


@pytest.mark.parametrize("in_sample", ["several-sites"], indirect=True)
def test_what_would_be_lost_with_the_old_site_is_named(in_sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    places = [each["where"] for each in imported(capsys, *files_of(in_sample))["obstacles"]]
    assert places == ["all-sites:17", "all-sites:21", "all-sites:22", "all-sites:26", "all-sites:29"]


@pytest.mark.parametrize("in_sample", ["several-programs"], indirect=True)
def test_the_path_that_clients_connect_to_is_kept(in_sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts = imported(capsys, *files_of(in_sample))
    assert facts["settings"]["nginx.path"] == "/ws"
    assert [each["where"] for each in facts["obstacles"]] == ["all.conf:11", "site.conf:5"]


@pytest.mark.parametrize("in_sample", ["environment-lines"], indirect=True)
def test_secrets_are_neither_shown_nor_readable_by_others(in_sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", *files_of(in_sample)]) == 0
    said = capsys.readouterr()
    assert "sk_live_1" not in said.out + said.err
    assert "postgres://old" not in said.out + said.err
    assert "sk_live_1" in Path("deploy.yaml").read_text()
    assert Path("deploy.yaml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("form", ["text", "json"])
def test_whatever_may_be_a_secret_is_not_shown(form: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = "[Service]\nExecStart=/v/uvicorn a:b --ssl-keyfile-password hidden1\nWorkingDirectory=/srv/a\n"
    write(here, "a.service", f'{unit}Environment=A="hidden2\nEnvironment=B=hidden3\nEnvironmentFile=/srv/a.env\n')
    write(here, "b.conf", '[program:b]\ncommand=/v/celery -b redis://me:hidden4@h\nenvironment=T="hidden5"\n')
    write(here, "a.env", "KEY='-----BEGIN\nhidden6\n-----END'\n")
    write(here, "c.py", 'raw_env = ["T=hidden7"]\n')
    site = "server_name a.mycompany.org; location / { proxy_pass http://127.0.0.1:8000; proxy_set_header"
    write(here, "site", f'server {{ {site} Authorization "Basic hidden8"; }} }}\n')
    assert main(["import", "a.service", "b.conf", "a.env", "c.py", "site", "--format", form]) == 0
    said = capsys.readouterr()
    assert "a.service" in said.out
    assert "hidden" not in said.out + said.err


def test_a_variable_that_will_not_do_is_left_out_alone(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        here, "a.service", "[Service]\nWorkingDirectory=/srv/a\nEnvironmentFile=/srv/a/.env\nExecStart=/v/uvicorn a:b\n"
    )
    write(here, ".env", "GOOD=1\nKEY='-----BEGIN\nx\n-----END'\nTAB=a\tb\nALSO='good'\n")
    facts = imported(capsys, "a.service", ".env", "--domain", "a.mycompany.org")
    assert load_text(Path("deploy.yaml").read_text(), "-").deploy.env == {"GOOD": "1", "ALSO": "good"}
    assert of_lines(facts, "KEY=...") == [
        "wrong: env.KEY: holds the control character '\\n' at position 11; use text on one line"
    ]
    assert of_lines(facts, "TAB=...")[0].startswith("wrong: env.TAB: holds the control character '\\t'")


def test_requirements_beside_the_package_are_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "shop").mkdir()
    write(here / "shop", "main.py", "from fastapi import FastAPI\napp = FastAPI()\n")
    write(here / "shop", "requirements.txt", "fastapi==0.118.0\n")
    write(here, "a.service", f"[Service]\nWorkingDirectory={here}\nExecStart=/v/uvicorn shop.main:app\n")
    facts = imported(capsys, "a.service", "--domain", "a.mycompany.org")
    assert facts["settings"]["app.path"] == str(here)
    assert facts["settings"]["app.requirements"] == "shop/requirements.txt"


@pytest.mark.parametrize("in_sample", ["several-programs"], indirect=True)
def test_another_program_of_the_file_belongs_to_it(in_sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    facts = imported(capsys, *files_of(in_sample))
    assert of_lines(facts, "celery") == ["another's: belongs to worker"]
    assert of_lines(facts, "stopsignal")[0].startswith("wrong: ")


def test_on_standard_output_there_is_nothing_but_the_file(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "a.service", "[Service]\nExecStart=/v/uvicorn web.server:app --reload\n")
    assert main(["import", "a.service", "--domain", "ws.mycompany.org", "--output", "-"]) == 0
    said = capsys.readouterr()
    assert load_text(said.out, "-").deploy.domain == "ws.mycompany.org"
    assert "a.service:2" in said.err
    assert os.listdir(here) == ["a.service"]


def write(directory: Path, name: str, text: str | bytes) -> str:
    (directory / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return name


BROKEN: list[tuple[str, str | bytes, str]] = [
    ("a.service", b"[Service]\nUser=caf\xe9\n", "a.service:2: holds the byte 0xe9, which is not UTF-8; save"),
    (
        "site",
        b"server {\n  listen 80; # \xfc\n  server_name caf\xe9;\n}\n",
        "site:3: holds the byte 0xe9, which is not",
    ),
    ("values.env", b"# \xfc\nA=1\nB='caf\xe9'\n", "values.env:3: holds the byte 0xe9, which is not UTF-8; save"),
    ("a.py", b"workers = 4\n# caf\xe9\n", "a.py:2: holds the byte 0xe9, which is not UTF-8; save"),
    ("empty", "", "empty: says nothing: it is empty, or comments only; leave it out"),
    ("comments.service", "# nothing\n", "comments.service: says nothing"),
    ("binary", b"\x7fELF\0\0", "binary: is not text; name a configuration file"),
    ("prose", "Dear colleague,\n", "prose: is neither a unit, nor a supervisor program, an nginx site"),
    ("open", "server {\n  location / {\n    return 404;\n}\n", "open:1: server { is never closed; write the missing }"),
    ("closed", "server { listen 80; }\n}\n", "closed:2: has a } that closes nothing; remove it"),
    ("cut", "server {\n  listen 80\n}\n", "cut:2: listen has no ; at its end"),
    ("end", "server { listen 80; }\nserver_tokens off\n", "end:2: server_tokens has no ; at its end"),
    ("gunicorn.conf.py", "workers = 4\nbind = (\n", "gunicorn.conf.py:2: is not Python: "),
    ("deep.py", f"workers = {'-' * 20_000}1\n", "deep.py: is too deep, or has a number that is too long"),
    ("deeper.py", f"workers = {'+'.join('1' * 20_000)}\n", "deeper.py: is too deep"),
    ("long.py", f"workers = 0x{'f' * 6000}\n", "long.py: is too deep, or has a number that is too long"),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN, ids=[name for name, _, _ in BROKEN])
def test_a_file_that_is_broken_is_named(
    name: str, content: str | bytes, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, name, content)
    assert main(["import", name]) == 2
    assert said in capsys.readouterr().err
    assert not Path("deploy.yaml").exists()


def test_a_comment_may_be_in_latin_1(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "a.service", b"# gr\xfc\xdfe\n[Service]\n; \xe9\nExecStart=/v/uvicorn web.server:app --port 8765\n")
    location = b"location / { proxy_pass http://127.0.0.1:8765; }"
    write(here, "site", b"# \xe9\nserver {\n  server_name ws.mycompany.org; # \xe9\n  " + location + b"\n}\n")
    write(here, "values.env", b"# \xe9\nA=1\n")
    assert imported(capsys, "a.service", "site", "values.env")["lines"]
    assert load_text(Path("deploy.yaml").read_text(), "deploy.yaml").deploy.domain == "ws.mycompany.org"


def test_all_files_that_cannot_be_read_are_named_at_once(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "directory").mkdir()
    write(here, "empty", "")
    assert main(["import", "missing", "directory", "empty", "too\0bad"]) == 2
    said = capsys.readouterr().err
    for part in ("missing: cannot be read: No such file", "directory: cannot be read: Is a directory", "empty: says"):
        assert part in said
    assert "Nothing was written." in said


WRONG: list[tuple[str, tuple[str, ...], str]] = [
    ("[Service]\nExecStart=/usr/bin/node app.js\n", (), "a.service:2: a is not started by uvicorn, gunicorn or"),
    (
        "[Service]\nExecStart=/bin/sh -c 'exec uvicorn \"a:b'\n",
        (),
        "a.service:2: a is not started by uvicorn, gunicorn",
    ),
    ("[Service]\nExecStart=/v/uvicorn web.server:app\n", ("--domain", "A.org"), "--domain: 'A.org' has upper case"),
    ("[Service]\nExecStart=/v/uvicorn web.server:app\n", ("--domain", "..org"), "--domain: '..org' has an empty part"),
    ("[Service]\nUser=a\n", (), "a.service:1: a starts nothing; name the unit or the program that does"),
    ("[Service]\nExecStart=/v/uvicorn web.server:app\n", (), "no file says for which domain it is; name nginx's site"),
    ("[Service]\nExecStart=/v/uvicorn web.server:app\n", ("--service", "b"), "--service b: no unit or program of that"),
    (
        "[Service]\nExecStart=/v/gunicorn shop.wsgi:application\n",
        ("--domain", "ws.mycompany.org"),
        "a.service:2: shop.wsgi:application is run by gunicorn's sync workers, so it is a WSGI application",
    ),
    (
        "[Service]\nExecStart=/v/uvicorn web.server:app\n",
        ("--domain", "ws.yourdomain.com"),
        "domain: 'ws.yourdomain.com' is a placeholder; write the host name that clients will use",
    ),
]


@pytest.mark.parametrize(("unit", "words", "said"), WRONG)
def test_what_cannot_be_imported_is_said(
    unit: str, words: tuple[str, ...], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, "a.service", unit)
    assert main(["import", "a.service", *words]) == 2
    assert said in capsys.readouterr().err
    assert not Path("deploy.yaml").exists()


def test_of_several_services_one_must_be_chosen(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, module in (("a", "one:app"), ("b", "two:app")):
        write(here, f"{name}.service", f"[Service]\nWorkingDirectory=/srv\nExecStart=/v/uvicorn {module}\n")
    words = ("a.service", "b.service", "--domain", "ws.mycompany.org")
    assert main(["import", *words]) == 2
    said = capsys.readouterr().err
    assert "several services start a server: a (a.service:3), b (b.service:3); say which with --service NAME" in said
    facts = imported(capsys, *words, "--service", "b")
    assert facts["settings"]["app.callable"] == "two:app"
    assert of_lines(facts, "one:app") == ["another's: belongs to a"]


def test_a_file_that_is_there_is_not_changed(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "deploy.yaml", "domain: ws.mycompany.org\n")
    assert main(["import", write(here, "a.service", "[Service]\nExecStart=/v/uvicorn web.server:app\n")]) == 2
    assert "deploy.yaml is there already and was not changed; name another one with -o" in capsys.readouterr().err
    assert Path("deploy.yaml").read_text() == "domain: ws.mycompany.org\n"


def test_directives_without_their_words_are_judged_as_well(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = (
        "listen; server_name; limit_conn; limit_req; proxy_pass; return; location { proxy_pass http://[::1]:8000; }"
    )
    write(here, "site", f"server {{ {inside} }}\n")
    facts = imported(capsys, "site", "--domain", "ws.mycompany.org")
    assert of_lines(facts, "limit_conn") == [
        "wrong: limits.connections_per_address: has no value; use a whole number from 1 to 65535"
    ]


DIRECTORIES = [
    ("ExecStart=/v/gunicorn -k uvicorn_worker.UvicornWorker --chdir /srv/app a:b", "/srv/app"),
    ("ExecStart=/v/uvicorn --app-dir=/srv/app a:b", "/srv/app"),
    ("ExecStart=/bin/bash -lc 'cd /srv/app && exec venv/bin/uvicorn a:b'", "/srv/app"),
    ("WorkingDirectory=/srv\nExecStart=/v/uvicorn --app-dir app a:b", "/srv/app"),
    ("WorkingDirectory=/srv/app\nExecStart=/usr/bin/nice -n 10 /v/uvicorn a:b", "/srv/app"),
    ("WorkingDirectory=~\nExecStart=/v/uvicorn a:b", None),
    ("WorkingDirectory=%h/app\nExecStart=/v/uvicorn a:b", None),
    ("ExecStart=/v/uvicorn a:b", None),
]


@pytest.mark.parametrize(("lines", "directory"), DIRECTORIES)
def test_the_application_is_where_the_old_service_goes(
    lines: str, directory: str | None, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else the files of whatever directory the command is run in would be installed."""
    write(here, "a.service", f"[Service]\n{lines}\n")
    facts = imported(capsys, "a.service", "--domain", "a.mycompany.org")
    assert facts["settings"].get("app.path") == directory
    missing = [each["what"] for each in facts["obstacles"]]
    assert missing == ([] if directory else ["no line says where the application is; write app.path"])


def test_what_it_may_not_reach_any_more_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "requirements.txt", "redis==6.4.0\n")
    write(here, "a.service", f"[Service]\nWorkingDirectory={here}\nExecStart=/v/uvicorn a:b\n")
    (obstacle,) = imported(capsys, "a.service", "--domain", "a.mycompany.org")["obstacles"]
    assert obstacle["what"].startswith("redis looks as if it reached others, and it may connect to nothing")


def test_what_it_cannot_write_any_more_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "app").mkdir()
    write(here / "app", "db.sqlite3", b"SQLite format 3")
    lines = f"WorkingDirectory={here}/app\nReadWritePaths={here}/app/media /var/log\nExecStart=/v/uvicorn a:b\n"
    write(here, "a.service", f"[Service]\n{lines}")
    facts = imported(capsys, "a.service", "--domain", "a.mycompany.org")
    assert [(each["where"], each["what"].partition(" it could")[0]) for each in facts["obstacles"]] == [
        ("a.service:3", f"ReadWritePaths={here}/app/media:"),
        (
            f"{here}/app/db.sqlite3",
            "is a database beside the code, where nothing can be written; move it below /var/lib",
        ),
    ]


def test_variables_that_it_reads_by_itself_are_not_lost(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "app").mkdir()
    write(here / "app", ".env", "KEY=1\n")
    write(here, "a.service", f"[Service]\nWorkingDirectory={here}/app\nExecStart=/v/uvicorn a:b\n")
    (obstacle,) = imported(capsys, "a.service", "--domain", "a.mycompany.org")["obstacles"]
    assert obstacle["where"] == f"{here}/app/.env"
    os.remove("deploy.yaml")
    assert not imported(capsys, "a.service", "app/.env", "--domain", "a.mycompany.org")["obstacles"]


def test_of_several_paths_of_clients_none_is_lost_silently(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "a.service", "[Service]\nExecStart=/v/uvicorn web.server:app\n")
    order = ("/metrics", "/ws", "= /ws", "/old", "/health", "/publish/")
    paths = "\n".join(f"location {path} {{ proxy_pass http://127.0.0.1:8000; }}" for path in order)
    write(here, "site", f"server {{ server_name a.mycompany.org;\n{paths} }}\n")
    facts = imported(capsys, "a.service", "site")
    assert facts["settings"]["nginx.path"] == "/ws"
    assert [(each["where"], each["what"]) for each in facts["obstacles"]] == [
        ("site:5", "clients connect to /old as well; nginx.path is one path")
    ]


@pytest.mark.parametrize(("root", "is_lost"), [("location / { root /var/www; }", True), ("root /var/www;", False)])
def test_a_website_beside_the_application_is_not_lost(
    root: str, is_lost: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, "a.service", "[Service]\nWorkingDirectory=/srv/a\nExecStart=/v/uvicorn a:b\n")
    shop = "location /shop/ { proxy_pass http://127.0.0.1:8000; }"
    write(here, "site", f"server {{ server_name a.mycompany.org;\n{root}\n{shop} }}\n")
    found = [each["where"] for each in imported(capsys, "a.service", "site")["obstacles"]]
    assert found == (["site:2"] if is_lost else [])


PASSES = "location / { proxy_pass http://127.0.0.1:8765; }"


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (
            "server { server_name a.org; location / { root /var/www; } }",
            "no site passes requests on to port 8765; name",
        ),
        (
            f"server {{ server_name _; {PASSES} }}",
            "site:1: its server_name is _, which is not the name of one host; give",
        ),
        (f"server {{ listen 80; {PASSES} }}", "site:1: its server_name is missing, which is not the name of one host"),
    ],
)
def test_why_there_is_no_domain_is_said(here: Path, site: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", write(here, "a.service", CENTER), write(here, "site", site)]) == 2
    assert said in capsys.readouterr().err


def test_a_variable_leads_where_it_was_set_to(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "a.service", CENTER)
    write(here, "site", "server { server_name a.org; set $up http://[::1]:8765; location / { proxy_pass $up; } }")
    assert imported(capsys, "a.service", "site")["settings"]["domain"] == "a.org"


@pytest.mark.parametrize("other", ["127.0.0.1:8766", "10.0.0.9:8765 backup"])
def test_what_a_site_leads_to_besides_is_not_forgotten(
    here: Path, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, "a.service", CENTER)
    upstream = f"upstream u {{\nserver 127.0.0.1:8765;\nserver {other};\n}}\n"
    write(here, "site", f"{upstream}server {{ server_name a.org; location / {{ proxy_pass http://u; }} }}")
    facts = imported(capsys, "a.service", "site")
    assert facts["obstacles"] == [
        {"where": "site:3", "what": f"leads some of the clients to {other}, which stays as it is"}
    ]


def test_a_certificate_for_each_of_two_names_is_a_conflict(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "a.service", CENTER)
    servers = (
        f"server {{ listen 443 ssl; server_name {name}.org; ssl_certificate /{name}; ssl_certificate_key /k;{PASSES}}}"
        for name in "ab"
    )
    write(here, "site", "\n".join(servers))
    (conflict,) = imported(capsys, "a.service", "site")["conflicts"]
    assert conflict["claims"] == [["/a", "site:1"], ["/b", "site:2"]]


INCLUDING = """\
server {
    listen 443 ssl;
    server_name a.mycompany.org;
    include snippets/tls-a.conf;
    location /ws { include /etc/nginx/snippets/guard.conf; include proxy_params; proxy_pass http://127.0.0.1:8765; }
}
"""
SNIPPETS = {
    "tls-a.conf": "ssl_certificate /etc/ssl/a.pem;\nssl_certificate_key /etc/ssl/private/a.key;\n",
    "guard.conf": "allow 10.0.0.0/8;\ndeny all;\n",
    "proxy_params": "proxy_set_header Host $http_host;\n",
}
CENTER = "[Service]\nExecStart=/v/uvicorn web.server:app --port 8765\nWorkingDirectory=/srv/a\n"


def test_what_a_site_includes_is_part_of_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "a.service", CENTER)
    write(here, "site", INCLUDING)
    facts = imported(capsys, "a.service", "site", "-o", "unread.yaml")
    assert "tls" not in facts["settings"]
    assert [each["where"] for each in facts["obstacles"]] == ["site:4", "site:5", "site:5"]
    for name, text in SNIPPETS.items():
        write(here, name, text)
    facts = imported(capsys, "a.service", "tls-a.conf", "guard.conf", "proxy_params", "site")
    assert facts["settings"]["certificate.file"] == "/etc/ssl/a.pem"
    assert facts["settings"]["nginx.path"] == "/ws"
    assert [line["file"] for line in facts["lines"] if line["verdict"] == "replaced"][-1] == "proxy_params"
    assert [(each["where"]) for each in facts["obstacles"]] == ["guard.conf:1", "guard.conf:2"]
    assert of_lines(facts, "include") == ["taken over: its lines are listed by themselves"] * 3


def on_a_host(root: Path, files: dict[str, str]) -> dict[str, Any]:
    """The settings that are imported there, and the files that they are from."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    sources, service = on_this_host(root, None)
    account = account_of(sources, service, None, lambda name: False)
    return {key: value.value for key, value in account.values.items()} | {"obstacles": account.ledger.obstacles}


def test_on_a_host_includes_are_found_where_nginx_does(tmp_path: Path) -> None:
    unit = {"etc/systemd/system/a.service": CENTER}
    snippets = {f"etc/nginx/snippets/{name}": text for name, text in SNIPPETS.items()}
    site = {"etc/nginx/sites-enabled/a": INCLUDING.replace("/etc/nginx/", "").replace("proxy_params", "snippets/p*")}
    assert on_a_host(tmp_path, {**unit, **snippets, **site})["certificate.key"] == "/etc/ssl/private/a.key"


def test_a_file_that_two_sites_include_is_judged_once_and_one_that_includes_itself_ends(tmp_path: Path) -> None:
    other = INCLUDING.replace("a.mycompany", "other.mycompany").replace("8765", "9999")
    sites = {"etc/nginx/sites-enabled/a": INCLUDING, "etc/nginx/sites-enabled/b": other}
    loop = {"etc/nginx/snippets/tls-a.conf": "include snippets/tls-a.conf;\n" + SNIPPETS["tls-a.conf"]}
    settings = on_a_host(tmp_path, {"etc/systemd/system/a.service": CENTER, **sites, **loop})
    assert (settings["domain"], settings["certificate.file"]) == ("a.mycompany.org", "/etc/ssl/a.pem")


def test_what_a_site_includes_of_a_deployment_of_ours_would_be_lost(tmp_path: Path) -> None:
    site = INCLUDING.replace("snippets/tls-a.conf", "/etc/nginx/shop/*.conf")
    ours = {"etc/nginx/shop/shop.conf": f"{RENDERED} shop\nlocation /shop {{ return 404; }}\n"}
    files = {"etc/systemd/system/a.service": CENTER, "etc/nginx/sites-enabled/a": site, **ours}
    assert "includes /etc/nginx/shop/*.conf, and" in str(on_a_host(tmp_path, files)["obstacles"])


@pytest.mark.parametrize("place", ["opt/a/deploy", "usr/local/lib/a", "srv/a"])
def test_what_is_linked_from_where_people_keep_it_is_theirs(tmp_path: Path, place: str) -> None:
    for link, text in {"etc/systemd/system/a.service": CENTER, "etc/nginx/sites-enabled/a": INCLUDING}.items():
        file = tmp_path / place / Path(link).name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        (tmp_path / link).parent.mkdir(parents=True)
        (tmp_path / link).symlink_to(file)
    assert on_a_host(tmp_path, {})["domain"] == "a.mycompany.org"


@pytest.mark.parametrize(("app", "verdict"), [("a:b", "replaced"), ("service.app:app", "not supported")])
@pytest.mark.parametrize("said", ["listen 443 ssl http2;", "listen 443 ssl; http2 on;"])
def test_http2_goes_on_for_an_application_alone(
    said: str, app: str, verdict: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here, "a.service", f"[Service]\nWorkingDirectory=/srv/a\nExecStart=/v/uvicorn {app}\n")
    passing = "location / { proxy_pass http://127.0.0.1:8000; }"
    write(here, "site", f"server {{ {said} server_name a.mycompany.org; {passing} }}\n")
    [found] = of_lines(imported(capsys, "a.service", "site"), "http2")
    assert found.partition(":")[0] == verdict


def test_names_of_files_and_paths_are_but_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(here, "a.service", "[Service]\nWorkingDirectory=/srv/a\nExecStart=/v/uvicorn a:b\n")
    static = 'location "/#x:y/" { alias /srv/a/x/; } location / { proxy_pass http://127.0.0.1:8000; }'
    write(here, "si\nworkers: 7\n#", f"server {{ server_name a.mycompany.org; {static} }}\n")
    facts = imported(capsys, "a.service", "si\nworkers: 7\n#")
    assert load_text(Path("deploy.yaml").read_text(), "deploy.yaml").deploy.workers == 1
    assert of_lines(facts, "alias") == [
        "wrong: app.static: '/#x:y/' does not fit; use the path of a URL, such as /static/"
    ]


def test_what_replaces_cannot_name_is_said() -> None:
    for path in ("/etc/systemd/system/a@.service", "/etc/systemd/system/a\\x2db.service"):
        entry = Entry(path, 2, 2, ("Service",), "ExecStart", "/v/uvicorn web.server:app", "")
        source = Source(path, "unit", (entry,))
        (service,) = services_in([source])
        account = account_of([source], service, "a.org", lambda name: False)
        assert "replaces" not in account.values
        assert [where for where, _ in account.ledger.obstacles] == [path]


TAKEOVERS: list[tuple[tuple[str, ...], str]] = [
    (("--takeover", "a.service"), "--takeover is for what is found on this host; leave the files out"),
    (("--takeover", "-o", "-"), "--takeover installs what is written; name a file with -o"),
]


@pytest.mark.parametrize(("words", "said"), TAKEOVERS)
def test_a_takeover_is_of_this_host(
    words: tuple[str, ...], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import", *words]) == 2
    assert said in capsys.readouterr().err


def test_only_root_takes_over(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["import", "--takeover"]) == 1
    assert "you are not root" in capsys.readouterr().err


def test_a_file_where_the_host_reads_it_can_be_replaced_unless_it_has_something_of_another() -> None:
    unit = Entry("/etc/systemd/system/a.service", 2, 2, ("Service",), "ExecStart", "/v/uvicorn web.server:app", "")
    source = Source(unit.path, "unit", (unit,))
    (service,) = services_in([source])
    assert account_of([source], service, "a.org", lambda name: False).values["replaces"].value == [unit.path]
    program = Entry("/etc/supervisor/conf.d/a.conf", 2, 2, ("program:a",), "command", "/v/uvicorn web.server:app", "")
    other = program._replace(line=5, last=5, context=("program:b",), value="/v/celery worker")
    source = Source(program.path, "program", (program, other))
    service, _ = services_in([source])
    account = account_of([source], service, "a.org", lambda name: False)
    assert "replaces" not in account.values
    assert account.ledger.obstacles == [(f"{program.path}:5", "b is another program, in the same file")]


def test_a_configuration_in_python_is_not_run(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf = """\
import os
open("it-was-run", "w")
PORT = os.environ.get("PORT", "8000")
bind = [f"127.0.0.1:{PORT}"]
workers = int(os.getenv("WORKERS", "3"))
timeout = 10 ** 2
threadz = 2
def on_starting(server):
    os.abort()
"""
    write(here, "gunicorn.conf.py", conf)
    write(
        here, "site", "server { listen 80; server_name a.mycompany.org; location / { proxy_pass http://[::1]:8000; } }"
    )
    facts = imported(capsys, "gunicorn.conf.py", "site")
    assert facts["settings"]["workers"] == 3
    assert not facts["conflicts"]
    assert of_lines(facts, "timeout") == ["not supported: is computed when gunicorn starts"]
    assert of_lines(facts, "open(") == ["not supported: only plain assignments can be read without running the file"]
    assert of_lines(facts, "threadz") == ["not supported: there is no such setting"]
    assert not Path("it-was-run").exists()


def test_files_of_comments_alone_are_no_obstacle_on_a_host(tmp_path: Path) -> None:
    """Debian's own /etc/default files, and drop-ins that `systemctl edit` has left."""
    unit = tmp_path / "etc/systemd/system/a.service"
    for path in (unit.with_suffix(".service.d") / "override.conf", tmp_path / "etc/default/a", tmp_path / "srv/a/.env"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("# nothing\n")
    files = "EnvironmentFile=/etc/default/a\nEnvironmentFile=/srv/a/.env\n"
    unit.write_text(f"[Service]\nWorkingDirectory=/srv/a\n{files}ExecStart=/v/uvicorn a:b\n")
    sources, service = on_this_host(tmp_path, None)
    assert service.name == "a"
    assert len(sources) == 4
