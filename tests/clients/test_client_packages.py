"""The packages of the clients, built, installed where nothing else is, and used with the service."""

import json
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

import generator
import wsbundle_client
from tests.clients.npm_tools import NODE, NPM, node_flags, node_modules, require_npm, run
from tests.made_once import made_once
from tests.service.shells import COMMANDS, ROOT, Shell, running
from tools.classic_script import MODULE, SCRIPT, classic

JS = ROOT / "clients/js"
PACKAGE = json.loads((JS / "package.json").read_text())


@pytest.fixture(scope="module")
def shell() -> Iterator[Shell]:
    with running(COMMANDS["runner"]) as shell:
        yield shell


def test_all_packages_have_one_version() -> None:
    assert wsbundle_client.__version__ == PACKAGE["version"] == generator.__version__


@pytest.mark.parametrize("directory", ["js", "python"])
def test_every_package_has_the_license(directory: str) -> None:
    assert (ROOT / "clients" / directory / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


# For Python


# Into an environment that has no pip: to install that would take most of the time.
PIP = [sys.executable, "-I", "-m", "pip", "--disable-pip-version-check"]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the package, from its wheel, and what that asks for."""
    return made_once("environment-of-the-client", tmp_path_factory, _install_the_package) / "venv/bin/python"


def _install_the_package(directory: Path) -> None:
    venv.create(directory / "venv")
    sources = directory / "sources"  # a build leaves files beside them
    shutil.copytree(ROOT / "clients/python", sources, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    if subprocess.run([*PIP, "download", "-q", "--no-deps", "-d", str(directory), "setuptools"]).returncode:
        pytest.skip("pip cannot fetch what a build needs")
    run(*PIP, "wheel", "-q", "--no-deps", "-w", directory, sources, cwd=directory)
    (wheel,) = directory.glob("wsbundle_client-*-py3-none-any.whl")
    run(*PIP, "--python", directory / "venv/bin/python", "install", "-q", wheel, cwd=directory)


@pytest.mark.slow
def test_the_python_package_needs_nothing_but_websockets(python: Path, tmp_path: Path) -> None:
    installed = json.loads(run(*PIP, "--python", python, "list", "--format", "json", cwd=tmp_path))
    assert {package["name"] for package in installed} == {"websockets", "wsbundle-client"}


@pytest.mark.slow
def test_the_python_package_is_a_command(python: Path, shell: Shell, tmp_path: Path) -> None:
    with shell.client() as alice:
        alice.register("alice")
        command = python.parent / "wsbundle-client"
        assert run(command, "--url", shell.url, "alice", "hello", cwd=tmp_path) == "Accepted.\n"
        assert json.loads(alice.receive())["message"] == "hello"
        assert "Example: wsbundle-client send alice hello" in run(command, "send", "--help", cwd=tmp_path)
    asked = run(python, "-m", "wsbundle_client", "presence", "--url", shell.url, "nobody", cwd=tmp_path)
    assert asked == "nobody offline\n"


@pytest.mark.slow
def test_the_python_package_is_a_library_with_types(python: Path, tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(
        "from wsbundle_client import Client, Message\n\n\n"
        "async def first(url: str) -> Message:\n"
        '    async with Client(url, uuid="alice") as client:\n'
        "        async for message in client:\n"
        "            return message\n"
        "    raise AssertionError\n\n\n"
        "reveal_type(first)\n"
    )
    checked = run(
        sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "--cache-dir", tmp_path / "cache",
        "use.py", cwd=tmp_path,
    )  # fmt: skip
    assert "wsbundle_client.messages.Message" in checked


@pytest.mark.slow
def test_the_python_package_plays_the_conformance_table(python: Path, shell: Shell, tmp_path: Path) -> None:
    said = run(python, "-m", "wsbundle_client.conformance", shell.url, cwd=tmp_path)
    assert re.search(r"^(\d+) of \1 behaviours hold$", said, re.MULTILINE)


# For npm


def test_the_script_is_derived_from_the_module() -> None:
    assert SCRIPT.read_text() == classic(MODULE.read_text()), "run make docs"


def test_the_types_have_the_classes_the_methods_and_the_events_of_the_module() -> None:
    module, types = MODULE.read_text(), (JS / "index.d.ts").read_text()
    assert names(r"export class (\w+)", types) == names(r"export class (\w+)", module)
    method = r"  (?:async )?([a-z]\w+)[(<]"
    typed, there = (names(method, text.partition("export class NotificationClient")[2]) for text in (types, module))
    assert typed == there | {"addEventListener", "removeEventListener"}
    assert names(r"  (\w+): CustomEvent<", types) == set(re.findall(r'#emit\("(\w+)"', module))


def names(pattern: str, text: str) -> set[str]:
    return set(re.findall("^" + pattern, text, re.MULTILINE))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as npm would publish it."""
    require_npm()
    directory = tmp_path_factory.mktemp("package")
    run(str(NPM), "pack", JS, "--pack-destination", directory, cwd=directory)
    (packed,) = directory.glob("*.tgz")
    return packed


@pytest.fixture(scope="module")
def project(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of Node that has the package, and nothing else."""
    directory = tmp_path_factory.mktemp("project")
    (directory / "package.json").write_text('{"private": true, "type": "module"}')
    run(str(NPM), "install", "--offline", "--no-audit", "--no-fund", package, cwd=directory)
    assert [path.name for path in (directory / "node_modules").iterdir() if path.is_dir()] == ["wsbundle-client"]
    return directory


@pytest.mark.slow
def test_the_npm_package_holds_the_module_its_types_and_the_script(project: Path) -> None:
    installed = {path.name for path in (project / "node_modules/wsbundle-client").iterdir()}
    assert installed == {"LICENSE", "README.md", "client.js", "index.d.ts", "index.js", "package.json"}


_USE = """
import {NotificationClient, RequestError} from "wsbundle-client";
const [alice, bob] = ["alice", "bob"].map((uuid) => new NotificationClient(process.argv[2], {uuid}));
await Promise.all([alice.open(), bob.open()]);
bob.addEventListener("message", ({detail}) => console.log(detail.sender_uuid, detail.message));
console.log(await (await alice.send("bob", "hello", {ack: "delivered"})).outcome);
await alice.send("nobody", "hello").catch((error) => console.log(error instanceof RequestError, error.code));
console.log(typeof globalThis.NotificationClient);
alice.close();
bob.close();
"""


@pytest.mark.slow
def test_the_npm_package_works_in_node_with_the_service(project: Path, shell: Shell) -> None:
    (project / "use.js").write_text(_USE)
    said = run(str(NODE), *node_flags(), "use.js", shell.url, cwd=project)
    assert said.splitlines() == ["alice hello", "delivered", "true 114", "undefined"]


@pytest.mark.slow
def test_the_npm_package_pleases_publint_and_attw(package: Path, tmp_path: Path) -> None:
    programs = node_modules() / ".bin"
    assert "All good!" in run(programs / "publint", package, "--strict", cwd=tmp_path)
    # It is a module only: Node 22 and newer also load it by `require`.
    run(programs / "attw", package, "--profile", "esm-only", cwd=tmp_path)


_TYPED = """
import { GoneError, NotificationClient, RequestError, type Message, type Outcome } from "wsbundle-client";

const client = new NotificationClient("ws://127.0.0.1:8765/", { uuid: "alice", token: async () => "token" });
client.addEventListener("message", ({ detail }) => {
  const message: Message = detail;
  // @ts-expect-error: what it holds is not known before the application has looked
  message.message.length;
});
client.addEventListener("disconnected", ({ detail: { reason, waitS } }) => reason.repeat(waitS));
// @ts-expect-error: there is no such event
client.addEventListener("mesage", ({ detail }) => detail);
const sent = await client.send("bob", { any: ["JSON", 1, null] }, { ack: "delivered" });
const outcome: Outcome = await sent.outcome;
// @ts-expect-error: a function is not JSON
await client.send("bob", () => outcome);
// @ts-expect-error: there is no such acknowledgement
await client.sendToGroup("office", "hello", { ack: "read" });
const online: string[] = await client.presence(["bob"], { watch: true });
try {
  await client.join(online[0] ?? "office");
} catch (error) {
  if (error instanceof RequestError) error.code.toFixed();
  if (error instanceof GoneError) error.message.length;
}
"""


_ENVIRONMENTS = {
    "in node": ["--module", "nodenext", "--lib", "es2022", "--types", "node"],
    "in a browser": ["--module", "esnext", "--moduleResolution", "bundler", "--lib", "es2022,dom", "--types", ""],
}


@pytest.mark.slow
@pytest.mark.parametrize("environment", _ENVIRONMENTS)
def test_typescript_knows_what_the_npm_package_can_do(environment: str, project: Path) -> None:
    (project / "use.ts").write_text(_TYPED)
    options = ["--strict", "--noEmit", "--target", "es2022", "--typeRoots", str(node_modules() / "@types")]
    run(node_modules() / ".bin/tsc", *options, *_ENVIRONMENTS[environment], "use.ts", cwd=project)
