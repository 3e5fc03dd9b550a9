"""The documents are true: their commands run and say what is shown, and what cannot run here is checked by name.

A fenced block says what it is in its first line. `console` is a transcript that is run in a copy of the project;
`console terminal` stays open until the page ends. `console host` and `sh host` need a real host: their grammar and
every name in them is checked. A language and a path is an excerpt of a rendered file, or of one of ours. `yaml` is for
deploy.yaml, `text wire` is played. `...` stands for what is left out.
"""

import contextlib
import importlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import IO, NamedTuple

import pytest

import generator.__main__
import wsbundle_client.command
from generator.command_line import COMMANDS
from generator.config.load import ConfigError, load_text
from generator.config.rules import RULES
from generator.config.schema import Deploy
from generator.rendering.agreement import AGREEMENTS
from generator.rendering.bundle import Bundle
from generator.rendering.render import render
from service.core.addresses import Address
from service.core.center import Center
from service.core.close_codes import CloseReason
from service.core.identity import Identity
from service.core.session import Session, SessionV0
from service.core.session_v1 import SessionV1
from service.declaration import SettingError, read, settings_of
from service.settings import Settings
from tests.ports import free_port
from tools.protocol_tables import close_reasons, with_tables

ROOT = Path(__file__).parent.parent
NAME = "queue-websocket"
SETTINGS = {setting.key: setting for setting in settings_of(Deploy)}
SECTIONS = {key.partition(".")[0] for key in SETTINGS if "." in key}

NOT_BUILT = (".git", ".venv*", "build", "__pycache__", ".*_cache", "*.egg-info")
DEADLINE_S = 90.0

TWO_SCREENS = 120
# Looked up, not read from top to bottom.
REFERENCES = (
    "CHANGELOG.md",
    "README.md",
    *(f"docs/{name}.md" for name in ("architecture", "performance", "protocol", "settings")),
)


class Document(NamedTuple):
    """One page; `path` is relative to the project."""

    path: str
    text: str


class Block(NamedTuple):
    """A fenced block: the line of its fence, the words on it, and what is inside."""

    line: int
    kind: str
    text: str


DOCUMENTS = [
    Document(str(file.relative_to(ROOT)), file.read_text(encoding="utf-8"))
    for file in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("findings/*.md")])
]
README = next(document for document in DOCUMENTS if document.path == "README.md")
INDEX = next(document for document in DOCUMENTS if document.path == "docs/README.md")
FINDINGS = [document for document in DOCUMENTS if document.path.startswith("findings/")]
PROTOCOL = next(document for document in DOCUMENTS if document.path == "docs/protocol.md")


# What a page consists of


def blocks(document: Document) -> list[Block]:
    found = []
    for match in re.finditer(r"^```(\S[^\n]*)?\n(.*?)^```$", document.text, re.MULTILINE | re.DOTALL):
        line = document.text.count("\n", 0, match.start()) + 1
        found.append(Block(line, match[1] or "", match[2]))
    return found


def prose(document: Document) -> str:
    return re.sub(r"^```.*?^```$", "", document.text, flags=re.MULTILINE | re.DOTALL)


def spans(document: Document, without: str | None = None) -> list[str]:
    """The code within lines, but for that of one section."""
    text = prose(document)
    if without:
        text = re.sub(rf"^## {re.escape(without)}\n.*?(?=^## |\Z)", "", text, flags=re.MULTILINE | re.DOTALL)
    return [match[2].strip().replace("\n", " ") for match in re.finditer(r"(`+)(.+?)\1(?!`)", text, re.DOTALL)]


def transcript(block: Block) -> list[tuple[str, str]]:
    """Each command and the output that is shown for it."""
    pieces = re.split(r"^\$ (.*)\n", block.text, flags=re.MULTILINE)
    return list(zip(pieces[1::2], pieces[2::2], strict=True))


def shell_code(document: Document) -> list[str]:
    """All that is to be typed: blocks of commands, and the code within lines but for what is not there yet."""
    code = [
        command for block in blocks(document) if block.kind.startswith("console") for command, _ in transcript(block)
    ]
    code += [block.text for block in blocks(document) if block.kind == "sh host"]
    return code + spans(document, without="Not yet")


def commands(code: str) -> Iterator[list[str]]:
    """The words of each simple command."""
    lexer = shlex.shlex(code, posix=True, punctuation_chars="();|&\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    words: list[str] = []
    with contextlib.suppress(ValueError):  # prose that holds a lone quote
        for word in [*lexer, "\n"]:
            if word[0] not in "();|&\n":
                words.append(word)
            elif words:
                yield words[1:] if words[0] == "sudo" and words[1:] else words
                words = []


def sections(document: Document) -> set[str]:
    """The anchors of a page, as GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def rows(document: Document, heading: str) -> list[list[str]]:
    """The cells of the rows of the first table below a heading."""
    (section,) = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", document.text, re.MULTILINE | re.DOTALL)
    table = re.findall(r"^\| (.*) \|$", section, re.MULTILINE)
    return [re.split(r" \| ", line) for line in table[1:]]


@cache
def bundle(changes: str = "") -> Bundle:
    return render(load_text((ROOT / "deploy.yaml").read_text() + changes, "deploy.yaml").deploy)


@cache
def rendered_words() -> str:
    """Every path and every text of the bundles of five deployments that together use every file."""
    socket_of_supervisor = (ROOT / "deploy.yaml").read_text()
    for old, new in (("host:", "#"), ("port:", "#"), ("#socket:", "socket:"), (": systemd", ": supervisor")):
        socket_of_supervisor = re.sub(rf"^(\w*){re.escape(old)}", rf"\1{new}", socket_of_supervisor, flags=re.MULTILINE)
    encrypted = "domain: ws.wsbundle.net\ntls: letsencrypt\n"
    served = (ROOT / "tests/golden/engine-serve/deploy.yaml").read_text()
    included = (ROOT / "tests/golden/include/deploy.yaml").read_text()
    texts = (socket_of_supervisor, encrypted, served, included)
    bundles = [bundle(), *(render(load_text(text, "").deploy) for text in texts)]
    return "\n".join(f"/{file.path}\n{file.text}" for each in bundles for file in each.files)


# The checks: each yields what is wrong with a page


def unknown_blocks(document: Document) -> Iterator[str]:
    known = r"console( terminal| host)?|sh host|yaml|json|haproxy|text( wire)?|\w+ \S+/\S+"
    for block in blocks(document):
        if not re.fullmatch(known, block.kind) or (block.kind.startswith("console") and not transcript(block)):
            yield f"{block.line}: ```{block.kind}"


def too_many_lines(document: Document) -> Iterator[str]:
    if document.path not in REFERENCES and (lines := document.text.count("\n")) > TWO_SCREENS:
        yield f"{lines} lines are more than two screens: make two pages of it"


def broken_links(document: Document) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)]+)\)", prose(document)):
        path, _, anchor = target.partition("#")
        if re.match(r"https?:", target):
            continue
        file = ((ROOT / document.path).parent / path).resolve() if path else ROOT / document.path
        if not file.exists():
            yield f"{target}: there is no such file"
        elif anchor and anchor not in sections(Document("", file.read_text()) if path else document):
            yield f"{target}: there is no such section"


def stale_excerpts(document: Document) -> Iterator[str]:
    files = {file.path: file.text for file in bundle().files}
    for block in blocks(document):
        _, _, path = block.kind.partition(" ")
        if "/" in path:
            text = files.get(path) or ((ROOT / path).read_text() if (ROOT / path).is_file() else "")
            if not re.search(rf"(^|\n){pattern(block.text)}", text):
                yield f"{block.line}: {path} does not say this"


def unsound_yaml(document: Document) -> Iterator[str]:
    for block in blocks(document):
        if block.kind == "yaml":
            domain = "" if "domain:" in block.text else "\ndomain: ws.wsbundle.net\n"
            try:
                load_text(block.text + domain, f"{document.path}, block in line {block.line}")
            except ConfigError as error:
                yield str(error)


def misplayed_wires(document: Document) -> Iterator[str]:
    for block in blocks(document):
        if block.kind == "text wire" and (said := play(block.text)) != block.text:
            yield f"{block.line}: it goes like this:\n{said}"


def ungrammatical_shell(document: Document) -> Iterator[str]:
    for block in blocks(document):
        code = [block.text] if block.kind == "sh host" else []
        code += [command for command, _ in transcript(block)] if block.kind.startswith("console") else []
        for text in code:
            outcome = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True)
            if outcome.returncode:
                yield f"{block.line}: {outcome.stderr}"


def unknown_targets(document: Document) -> Iterator[str]:
    targets = make_targets()
    for code in shell_code(document):
        for words in commands(code):
            asked = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            if words[0] == "make" and asked and asked[0] not in targets:
                yield f"make {asked[0]}"


def unknown_commands(document: Document) -> Iterator[str]:
    for code in shell_code(document):
        for words in commands(code):
            program = next((word for word in words if re.search(r"(^|/)(wsbundle|client\.py)$", word)), None)
            arguments = words[words.index(program) + 1 :] if program else []
            if program and arguments and arguments[0] != "=":
                yield from unknown_arguments(program, arguments)


def unknown_arguments(program: str, arguments: list[str]) -> Iterator[str]:
    main: Callable[[list[str]], int] = (
        generator.__main__.main if program.endswith("wsbundle") else wsbundle_client.command.main
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main([arguments[0], "--help"])
        except SystemExit as ended:  # argparse, when it has printed
            code = int(ended.code or 0)
    if code:
        yield f"{program} {arguments[0]}"
    for argument in arguments[1:]:
        if argument.startswith("--") and argument not in printed.getvalue():
            yield f"{program} {arguments[0]} {argument}"


def unknown_units(document: Document) -> Iterator[str]:
    of_the_host = {"certbot.timer", "nginx.service", "supervisor.service"}
    for code in shell_code(document):
        for words in commands(code):
            for word in words:
                if words[0] in ("systemctl", "journalctl") and re.search(r"\.(service|socket|timer)$", word):
                    unit = named(word)
                    if unit not in of_the_host and f"/etc/systemd/system/{unit}\n" not in rendered_words():
                        yield word


def unknown_host_paths(document: Document) -> Iterator[str]:
    of_the_host = (
        "/etc/nginx/nginx.conf",
        "/etc/nginx/sites-enabled/default",
        "/etc/nginx/sites-enabled/zz-queue",
        "/etc/security/limits.conf",
        "/etc/pip.conf",
        "/etc/environment",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/machine-id",
        "/etc/sysctl.d/60-engine.conf",
        "/etc/ssl/certs/ca-certificates.crt",
        "/var/log/cloud-init-output.log",
    )
    by_hand = (
        f"/opt/{NAME}/new",
        f"/opt/{NAME}/releases",
        f"/opt/{NAME}/edited",
        f"/etc/{NAME}/placeholder",
        "/var/lib/wsbundle.d",
        "/var/backups",
        f"/var/lib/{NAME}/mailbox/mail.db",
        "/usr/bin/python3",
        "/usr/local/bin",
        f"/usr/local/src/{NAME}",
        f"/usr/local/lib/wsbundle/{NAME}",
    )
    for code in shell_code(document):
        for path in re.findall(r"(?<![\w$.:/-])/(?:etc|opt|run|usr|var)/[\w$.{}/-]*\w", code):
            meant = named(path)
            if meant not in (*of_the_host, *by_hand) and not re.search(
                rf"{re.escape(meant)}(?![\w.-])", rendered_words()
            ):
                below = any(meant.startswith(f"{known}/") for known in by_hand)
                if not below:
                    yield path


def unknown_settings(document: Document) -> Iterator[str]:
    not_ours = {"nginx.conf", "nginx.service"}
    for span in spans(document, without="Break it"):
        key, colon, value = span.partition(": ")
        if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", key) or key in not_ours:
            continue
        if colon:
            yield from unfit_value(key, value)
        elif key.partition(".")[0] in SECTIONS and "." in key and key not in SETTINGS:
            yield key


def unfit_value(key: str, value: str) -> Iterator[str]:
    if key not in SETTINGS:
        yield f"{key}: there is no such setting"
    elif value[0] not in "{[\"'":
        try:
            read(value, SETTINGS[key])
        except SettingError as error:
            yield f"{key}: {error}"


def unknown_paths(document: Document) -> Iterator[str]:
    for span in spans(document):
        path, _, _ = span.partition(" ")
        if (
            re.match(r"(bench|clients|docs|findings|generator|requirements|service|templates|tests|tools)/", path)
            and not (ROOT / path).exists()
        ):
            yield path


CHECKS: list[Callable[[Document], Iterator[str]]] = [
    unknown_blocks,
    too_many_lines,
    broken_links,
    stale_excerpts,
    unsound_yaml,
    misplayed_wires,
    ungrammatical_shell,
    unknown_targets,
    unknown_commands,
    unknown_units,
    unknown_host_paths,
    unknown_settings,
    unknown_paths,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_no_page_has(check: Callable[[Document], Iterator[str]]) -> None:
    assert {document.path: found for document in DOCUMENTS if (found := list(check(document)))} == {}


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (unknown_blocks, "```\nmake render\n```\n"),
        (unknown_blocks, "```sh\nmake render\n```\n"),
        (unknown_blocks, "```console\nmake render\n```\n"),
        (too_many_lines, "a line\n" * (TWO_SCREENS + 1)),
        (broken_links, "[a page](no-such-page.md)"),
        (broken_links, "[a section](#no-such-section)\n\n## A section\n"),
        (broken_links, "[a section](../README.md#no-such-section)"),
        (stale_excerpts, f"```ini etc/systemd/system/{NAME}.socket\nListenStream=127.0.0.1:8766\n```\n"),
        (stale_excerpts, f"```ini etc/systemd/system/{NAME}.socket\n876\n```\n"),
        (stale_excerpts, "```python service/settings.py\nno_such_setting: int\n```\n"),
        (stale_excerpts, "```python service/no_such_module.py\nimport os\n```\n"),
        (unsound_yaml, "```yaml\nport: 80\n```\n"),
        (misplayed_wires, "```text wire\nalice <- Welcome! Your temporary UUID is a\nalice -> x\nalice <- x\n```\n"),
        (ungrammatical_shell, "```sh host\nif true; then\n```\n"),
        (ungrammatical_shell, "```console host\n$ (true\n```\n"),
        (unknown_targets, "`make no-such-target`"),
        (unknown_targets, "```sh host\ncd x && make ARGS=y no-such-target\n```\n"),
        (unknown_commands, "`wsbundle no-such-command`"),
        (unknown_commands, "```sh host\n.venv/bin/wsbundle render --no-such-option\n```\n"),
        (unknown_commands, "`.venv/bin/python service/client.py listen --no-such-option`"),
        (unknown_units, "`sudo systemctl restart $name.path`".replace(".path", "-other.service")),
        (unknown_units, "```sh host\nsudo systemctl enable nosuch.timer\n```\n"),
        (unknown_host_paths, "```sh host\nsudo rm /etc/$name/no-such-file\n```\n"),
        (unknown_host_paths, f"`/var/log/{NAME}.log`"),
        (unknown_settings, "`ping.intervall`"),
        (unknown_settings, "`prot: 8765`"),
        (unknown_settings, "`server: hypercorn`"),
        (unknown_paths, "`service/no_such_module.py`"),
    ],
)
def test_the_check_fails_on(check: Callable[[Document], Iterator[str]], text: str) -> None:
    assert list(check(Document("docs/example.md", text)))


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))


def named(word: str) -> str:
    """A name or path with the shell's variables filled in, as the pages set them."""
    release = f"/opt/{NAME}/releases/20261123-153517"
    filled = {"${name}": NAME, "$name": NAME, "NAME": NAME, "$release": release}
    for written, meant in filled.items():
        word = word.replace(written, meant)
    return word.rstrip("/")


def pattern(expected: str) -> str:
    """A regular expression for a text in which `...` stands for a part of a line, or for lines."""
    parts = (
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        for line in expected.splitlines()
    )
    return "".join(parts)


class Speaker:
    """A client of a wire transcript; what it hears is told, and every ping is answered at once."""

    written = queued = 0

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def send(self, text: bytes) -> None:
        self._tell(text.decode())

    def when_left(self, then: Callable[[bool], None]) -> None:
        then(True)

    def close(self, reason: CloseReason) -> None:
        self._tell(f"closed {reason.code} {reason.reason}")

    def abort(self) -> None:
        raise AssertionError("every ping was answered")

    def probe(self, answered: Callable[[bool], None]) -> None:
        answered(True)


def play(wire: str) -> str:
    """The lines in which sessions answer to what the clients of a wire transcript send, in its own format."""
    said: list[str] = []
    sessions: dict[str, Session] = {}
    temporary: list[str] = []
    center = Center(
        Settings(),
        lambda token: Identity(subject=Address(token), may_send_to=frozenset("*"), expires=2e9),
        clock=lambda: 0.0,
        now=lambda: 1_764_000_000.0,
        soon=lambda act: None,
        draw_address=temporary.pop,
        draw_secret=lambda: "a-secret",
    )
    width = max(len(line.split(" ", 1)[0]) for line in wire.splitlines())

    def tell(name: str, arrow: str, text: str) -> None:
        said.append(f"{name:{width}} {arrow} {text}\n")

    for line in wire.splitlines():
        name, arrow, text = re.split(r" +(->|<-) ", line, maxsplit=1)
        if name not in sessions:
            is_v1 = text.startswith("{")
            temporary.append(json.loads(text)["uuid"] if is_v1 else text.rpartition(" ")[2])
            kind = SessionV1 if is_v1 else SessionV0
            sessions[name] = kind(center, Speaker(partial(tell, name, "<-")), None, None)
            sessions[name].start()
        elif arrow == "->":
            tell(name, "->", text)
            sessions[name].receive(text.encode())
    return "".join(said)


# What only one page says


def broken(line: str) -> str:
    """What is said of deploy.yaml with one line in place of its own, or added to it."""
    key, _, _ = line.partition(":")
    text = (ROOT / "deploy.yaml").read_text()
    text = re.sub(rf"^{key}:.*$", line, text, flags=re.MULTILINE) if f"\n{key}:" in text else f"{text}\n{line}\n"
    with pytest.raises(ConfigError) as caught:
        load_text(text, "deploy.yaml")
    return str(caught.value)


@pytest.mark.parametrize(("line", "message"), [(row[0], row[1]) for row in rows(README, "Break it")])
def test_a_broken_line_is_told_as_the_readme_shows(line: str, message: str) -> None:
    assert message.strip("` ") in broken(line.strip("`"))


def test_every_close_code_of_the_service_is_in_the_table_and_no_other() -> None:
    assert [(int(row[0]), row[1]) for row in rows(PROTOCOL, "Close codes")] == close_reasons()


def test_the_frames_and_errors_of_the_page_are_those_of_the_service() -> None:
    assert PROTOCOL.text == with_tables(PROTOCOL.text), "run make docs"


@pytest.mark.parametrize(("value", "declared"), [(row[1], row[3]) for row in rows(PROTOCOL, "Limits")])
def test_a_limit_in_the_table_is_the_one_that_is_declared(value: str, declared: str) -> None:
    kind, _, name = declared.replace("`", "").rpartition(" ")
    if kind == "setting":
        assert SETTINGS[name].default == int(value)
    else:
        module, _, constant = name.rpartition(".")
        assert getattr(importlib.import_module(module), constant) == int(value)


def test_the_line_of_the_access_log_has_the_keys_of_the_rendered_format() -> None:
    site = next(file.text for file in bundle().files if file.path == f"etc/nginx/sites-available/{NAME}")
    (log_format,) = re.findall(r"log_format .*?;", site, re.DOTALL)
    (line,) = [block.text for document in DOCUMENTS for block in blocks(document) if block.kind == "json"]
    assert list(json.loads(line)) == re.findall(r'"(\w+)":', log_format)


def test_every_setting_rule_agreement_target_and_command_is_in_the_documents() -> None:
    code = "\n".join(f"`{span}`" for document in DOCUMENTS for span in spans(document))
    code += "\n".join(block.text for document in DOCUMENTS for block in blocks(document))
    wanted = [f"`{key}`" for key in SETTINGS]
    wanted += [f"`{rule.name}`" for rule in RULES]
    wanted += [f"`{agreement.name}`" for agreement in AGREEMENTS]
    wanted += [f"make {target}" for target in make_targets() - {"help"}]
    wanted += [f"wsbundle {verb}" if verb not in make_targets() else f"make {verb}" for verb in COMMANDS]
    assert [name for name in wanted if name not in code] == []


def test_every_finding_is_in_one_of_their_tables_and_no_other() -> None:
    listed = [re.findall(r"^\| `(\S+\.sh)` \|", document.text, re.MULTILINE) for document in FINDINGS]
    assert listed == [sorted(names) for names in listed]
    assert sorted(chain(*listed)) == sorted(file.name for file in (ROOT / "findings").glob("*.sh"))


def test_the_index_leads_to_every_page_and_the_readme_to_the_index() -> None:
    linked = {os.path.normpath(f"docs/{target}") for target in re.findall(r"\]\(([^)#]+)", INDEX.text)}
    assert {document.path for document in DOCUMENTS} - {"README.md", INDEX.path} <= linked
    assert f"]({INDEX.path})" in README.text


# The transcripts, run


class Terminal(NamedTuple):
    """A command that goes on, what it has said so far, and what is shown of it."""

    command: str
    process: subprocess.Popen[bytes]
    said: Callable[[], str]
    expected: str

    def wait_for_first_line(self) -> None:
        first, *_ = self.expected.splitlines(keepends=True)
        self._wait_for(pattern(first) + r"(.*\n)*")

    def wait_for_all(self) -> None:
        self._wait_for(pattern(self.expected))

    def _wait_for(self, output: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        goes_on = True
        while not re.fullmatch(output, said := self.said()):
            assert goes_on, f"$ {self.command}\n{said}and ended"
            assert time.monotonic() < deadline, f"$ {self.command}\n{said}is not\n{self.expected}"
            goes_on = self.process.poll() is None
            time.sleep(0.02)


class Project:
    """A copy of the project in which commands run; nothing is installed, and no port of this machine is assumed."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "project"
        self._terminals: list[Terminal] = []
        shutil.copytree(ROOT, self.root, symlinks=True, ignore=shutil.ignore_patterns(*NOT_BUILT))
        self._port = free_port()
        sample = self.root / "deploy.yaml"
        sample.write_text(self._here(sample.read_text()))
        self._preset_environment()

    def _preset_environment(self) -> None:
        """`.venv` as `make` would set it up, from the Python that runs this test."""
        programs = self.root / ".venv/bin"
        programs.mkdir(parents=True)
        for program, starts in (("python", ""), ("wsbundle", " -m generator")):
            (programs / program).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{starts} "$@"\n')
            (programs / program).chmod(0o755)
        version, root = ".".join(map(str, sys.version_info[:2])), self.root.resolve()
        (self.root / ".venv/ready").write_text(f"Python {version}\n{root}/.venv\n{root}\n")

    def run(self, command: str, expected: str) -> None:
        outcome = subprocess.run(
            ["sh", "-c", self._here(command)],
            cwd=self.root,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
        )
        said = self._there(outcome.stdout)
        said = as_if_installed(said, expected)
        assert re.fullmatch(pattern(expected), said), f"$ {command}\n{said}is not\n{expected}"
        assert outcome.returncode == 0

    def open(self, command: str, expected: str) -> None:
        output = self.root.parent / f"terminal-{len(self._terminals)}"
        with output.open("wb") as stream:
            process = self._start(self._here(command), stream)
        terminal = Terminal(command, process, lambda: self._there(output.read_text()), expected)
        self._terminals.append(terminal)
        terminal.wait_for_first_line()
        if command == "make run":
            self._wait_for_server(terminal)

    def _start(self, command: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["sh", "-c", command],
            cwd=self.root,
            env=self._environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _wait_for_server(self, terminal: Terminal) -> None:
        deadline = time.monotonic() + DEADLINE_S
        with contextlib.closing(socket.socket()) as probe:
            while probe.connect_ex(("127.0.0.1", self._port)):
                assert time.monotonic() < deadline
                assert terminal.process.poll() is None, terminal.said()
                time.sleep(0.02)

    def expect_all(self) -> None:
        """What the terminals show has come by now, and nothing else."""
        for terminal in self._terminals:
            terminal.wait_for_all()

    def close(self) -> None:
        for terminal in reversed(self._terminals):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(terminal.process.pid, signal.SIGTERM)
            terminal.process.wait(DEADLINE_S)

    def _here(self, text: str) -> str:
        return re.sub(r"\b8765\b", str(self._port), text)

    def _there(self, text: str) -> str:
        return re.sub(rf"\b{self._port}\b", "8765", text)

    def _environment(self) -> dict[str, str]:
        # make would hand on the arguments of the make that runs this test.
        ours = {
            name: value for name, value in os.environ.items() if not re.match(r"ARGS$|M(AKE|FLAGS)|WEBSOCKET_", name)
        }
        here = {"PYTHON": sys.executable, "WEBSOCKET_URL": f"ws://127.0.0.1:{self._port}/"}
        return {**ours, **here, "LC_ALL": "C.UTF-8", "NO_COLOR": "1"}


def as_if_installed(said: str, expected: str) -> str:
    """What would be said if no tool were missing on this machine."""

    counted = r"^  accepted    \d+ of \d+ checks.*$"
    said = re.sub(r"^  not checked .*: \S+ is not installed\n", "", said, flags=re.MULTILINE)
    shown = re.search(counted, expected, re.MULTILINE)
    return re.sub(counted, shown[0], said, flags=re.MULTILINE) if shown else said


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    project.close()


RUN = [document for document in DOCUMENTS if re.search(r"^```console( terminal)?$", document.text, re.MULTILINE)]


@pytest.mark.slow
@pytest.mark.parametrize("document", RUN, ids=lambda document: document.path)
def test_the_transcripts_of_the_page_are_what_happens(document: Document, project: Project) -> None:
    for block in blocks(document):
        for command, expected in transcript(block) if block.kind in ("console", "console terminal") else []:
            if block.kind == "console":
                project.run(command, expected)
            else:
                project.open(command, expected)
    project.expect_all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("make -s check | tail -n 1", "deploy.yaml is sound: 3 files, ...\n"),
        ("echo one; echo two", "one\n"),
        ("echo one", "one\ntwo\n"),
        ("echo one; false", "one\n"),
    ],
)
def test_a_transcript_that_is_not_what_happens_fails(command: str, expected: str, project: Project) -> None:
    with pytest.raises(AssertionError):
        project.run(command, expected)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "expected"), [("echo two", "one\n"), ("printf 'one\\ntwo\\n'", "one\n")])
def test_a_terminal_that_shows_something_else_fails(command: str, expected: str, project: Project) -> None:
    with pytest.raises(AssertionError):
        watch(project, command, expected)


def watch(project: Project, command: str, expected: str) -> None:
    project.open(command, expected)
    project.expect_all()


def test_dots_stand_for_a_part_of_a_line_or_for_lines() -> None:
    assert re.fullmatch(pattern("a ... b\n...\nc\n"), "a 1 b\n2\n3\nc\n")
    assert not re.fullmatch(pattern("a ... b\nc\n"), "a 1 b\n2\nc\n")
    assert not re.fullmatch(pattern("a.b\n"), "a-b\n")
