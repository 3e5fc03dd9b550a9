"""Which way imports point: each program reads from the ground up, and nothing in it goes round in a circle."""

import re
import sys
from collections.abc import Collection, Mapping
from graphlib import CycleError, TopologicalSorter

import pytest

from tests.modules import MODULES, ROOT, imports

# The rooms of each program, from the ground up: a room knows only those named before it. A room is a package, or a
# module that stands outside of any.
ROOMS = {
    "service": (
        *("origins", "explanations", "declaration", "settings", "core", "tokens", "mint"),
        *("process", "workers", "runner", "application", "engine", "mailbox", "web", "links", "app", "fast", "worker"),
        *("server", "__main__"),
        "client",
    ),
    "generator": (
        *(
            "program",
            "pip",
            "uv",
            "progress",
            "reasons",
            "filling",
            "environment",
            "quoting",
            "paths",
            "config",
            "report",
            "rendering",
            "explain",
            "mailboxes",
            "minting",
        ),
        *(
            "recognised",
            "sample",
            "readers",
            "judge",
            "commands",
            "packing",
            "deploy",
            "host",
            "doctor",
            "importing",
            "command_line",
            "__main__",
        ),
    ),
    "tools": (
        *("asyncapi", "classic_script", "derive", "golden", "lock", "sample_stats", "picture", "protocol_tables"),
        *("figures_table", "screenshots"),
        "alerts_table",
    ),
    "bench": (
        "programs",
        "figures",
        "machine",
        "results",
        "together",
        "servers",
        "deployed",
        "load",
        "compare",
        "page",
        "plots",
        "changes",
        "report",
        "fairness",
        "watched",
        "application",
        "hosts",
        "render",
        "environment",
        "mailbox",
        "behind",
        "sizing",
        "__main__",
    ),
}
# What a program knows of another.
KNOWN = {
    # What it costs to keep a message is measured inside of the service; its own program mints tokens.
    ("bench", "service"): {
        *(f"service.core.{module}" for module in ("addresses", "center", "identity", "mail", "mailbox")),
        *("service.mailbox.disk", "service.mailbox.streams", "service.mint", "service.settings"),
    },
    # What runs as it is deployed is rendered.
    ("bench", "generator"): {
        *("generator.config.load", "generator.config.schema", "generator.rendering.render"),
    },
    ("generator", "service"): {
        *("service", "service.core.figures", "service.declaration", "service.settings"),
        # What hosts say to each other is heard by whoever installs one.
        *("service.engine", "service.engine.envelope", "service.engine.identity"),
        # Mailboxes in the engine are asked for as the service does.
        *("service.mailbox", "service.mailbox.script", "service.mailbox.rights"),
        # And copied in the form that they have on a disk.
        *("service.mailbox.copies", "service.mailbox.database", "service.core.addresses"),
    },
    ("tools", "service"): {
        *("service.declaration", "service.core.close_codes", "service.core.figures", "service.core.frames"),
    },
    ("tools", "generator"): {name for name in MODULES if name.partition(".")[0] == "generator"},
}
# The service runs alone on the host, in a virtual environment with these and what they need.
OF_THE_SERVICE = {
    *(
        "cryptography",
        "gunicorn",
        "hiredis",
        "httptools",
        "jwt",
        "msgspec",
        "multidict",
        "picows",
        "prometheus_client",
        "redis",
    ),
    *("uvicorn", "uvicorn_worker", "uvloop", "websockets"),
}

# What knows and decides, and does no I/O: it is tested without a loop or a host, and every shell can use it.
PURE_OF_THE_SERVICE = {
    *("service.declaration", "service.explanations", "service.origins", "service.settings"),
    *(name for name in MODULES if name.startswith("service.core.")),
    *(f"service.engine.{module}" for module in ("envelope", "faults", "link", "links", "retries")),
}
PURE_OF_THE_GENERATOR = {
    *(
        f"generator.config.{module}"
        for module in (
            "addresses",
            "check",
            "document",
            "engine",
            "engine_rules",
            "listening",
            "rule",
            "rules",
            "schema",
        )
    ),
    *(f"generator.rendering.{module}" for module in ("agreement", "bundle")),
    *("generator.explain", "generator.quoting"),
}
REACHING_OUT = {
    "service": {
        *("asyncio", "logging", "os", "random", "secrets", "socket", "time", "uuid"),
        *("picows", "prometheus_client", "uvicorn", "websockets"),
    },
    "generator": {
        *("fcntl", "http", "os", "pathlib", "shutil", "socket", "ssl", "subprocess", "tempfile", "urllib"),
    },
}


def knows(module: str) -> frozenset[str]:
    """Which modules of the project it imports."""
    return (imports(MODULES[module]) & set(MODULES)) - {module}


def program(module: str) -> str:
    return module.partition(".")[0]


def room(module: str) -> str:
    """The room of a module, nothing for a program's own `__init__`."""
    return ".".join(module.split(".")[1:2])


def circle(graph: Mapping[str, Collection[str]]) -> list[str]:
    """A way from a node back to itself; nothing where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def climbing(module: str, known: Collection[str]) -> set[str]:
    """Which of those that a module imports are in a room that does not stand below its own."""
    own, rooms = room(module), ROOMS[program(module)]
    below = {"", own, *rooms[: rooms.index(own)]}
    return {other for other in known if program(other) == program(module) and room(other) not in below}


def strangers(module: str, known: Collection[str]) -> set[str]:
    """Which of those that a module imports are of another program, and not named in KNOWN."""
    own = program(module)
    return {each for each in known if program(each) != own and each not in KNOWN.get((own, program(each)), ())}


def packages(module: str) -> set[str]:
    return {program(name) for name in imports(MODULES[module])} - sys.stdlib_module_names


def test_a_circle_and_a_climbing_import_would_be_seen() -> None:
    assert circle({"hub": {"bus"}, "bus": {"frames", "hub"}, "frames": set()}) != []
    assert circle({"hub": {"bus", "frames"}, "bus": {"frames"}, "frames": set()}) == []
    assert "generator.packing.archive" in knows("generator.packing.pack")
    assert "generator.explain" in knows("generator.commands")  # from generator import explain
    known = {"generator", "generator.config.rules", "generator.host.apply", "service.worker"}
    assert climbing("generator.rendering.render", known) == {"generator.host.apply"}


def test_a_module_of_another_program_that_is_not_for_others_would_be_seen() -> None:
    known = {"service.settings", "service.worker", "generator.report", "tools.derive"}
    assert strangers("generator.commands", known) == {"service.worker", "tools.derive"}
    assert strangers("service.core.hub", known) == {"generator.report", "tools.derive"}


@pytest.mark.parametrize("name", ROOMS)
def test_every_room_has_its_place(name: str) -> None:
    assert {room(module) for module in MODULES if program(module) == name} - {"", "peers"} == set(ROOMS[name])


def test_no_module_leads_back_to_itself() -> None:
    assert circle({name: knows(name) for name in MODULES}) == []


# Each of these is one test, not one for each module: there are hundreds, and the one that is wrong is named.
def test_no_import_climbs() -> None:
    modules = [name for name in MODULES if room(name) not in ("", "peers")]
    assert {module: found for module in modules if (found := climbing(module, knows(module)))} == {}


def test_a_program_knows_of_another_what_it_may() -> None:
    assert {module: found for module in MODULES if (found := strangers(module, knows(module)))} == {}


def test_the_service_needs_only_the_standard_library_and_a_few_packages() -> None:
    # The command that the guide starts stands beside the service, and nothing on a host runs it.
    needed = {name: packages(name) - {"service"} for name in MODULES if program(name) == "service"}
    assert needed.pop("service.client") == {"wsbundle_client"}
    assert {module: found for module, names in needed.items() if (found := names - OF_THE_SERVICE)} == {}


def test_what_decides_reaches_for_nothing() -> None:
    reached = {
        module: {program(name) for name in imports(MODULES[module])} & REACHING_OUT[program(module)]
        for module in PURE_OF_THE_SERVICE | PURE_OF_THE_GENERATOR
    }
    assert {module: found for module, found in reached.items() if found} == {}


def test_what_decides_depends_on_nothing_that_does() -> None:
    allowed = {"service", *PURE_OF_THE_SERVICE}
    assert {module: found for module in PURE_OF_THE_SERVICE if (found := knows(module) - allowed)} == {}


def test_only_the_application_speaks_asgi() -> None:
    speakers = {
        name for name, path in MODULES.items() if program(name) == "service" and '"websocket.' in path.read_text()
    }
    assert speakers == {"service.app"}


def test_only_what_renders_knows_jinja_and_only_what_parses_or_writes_it_knows_yaml() -> None:
    assert {name for name in MODULES if "jinja2" in packages(name)} == {"generator.rendering.render", "bench.plots"}
    assert {name for name in MODULES if "yaml" in packages(name)} == {
        "generator.config.document",
        "generator.packing.pack",
        "tools.asyncapi",
    }


def test_only_the_command_itself_knows_what_concerns_a_host() -> None:
    knowing = {name for name in MODULES if any(each.startswith("generator.host") for each in knows(name))}
    assert {name for name in knowing if room(name) not in ("host", "doctor")} == {
        *("generator.command_line", "generator.importing.command", "tools.picture")
    }


def test_programs_of_a_host_are_run_in_one_place() -> None:
    starting = re.compile(r"^import subprocess|\bos\.(posix_spawn|exec|system|popen)|\bPopen\(", re.MULTILINE)
    of_the_host = {name: path for name, path in MODULES.items() if name.startswith("generator.host.")}
    assert {name for name, path in of_the_host.items() if starting.search(path.read_text())} == {
        "generator.host.programs"
    }


def test_what_sets_up_the_environment_needs_nothing_that_is_to_be_installed() -> None:
    modules, names = {"generator.environment"}, set()
    while modules:
        module = modules.pop()
        modules |= knows(module) - {"generator"}
        names |= packages(module)
    assert names == {"generator"}


@pytest.mark.slow
def test_a_module_of_the_tests_is_imported_by_its_full_name() -> None:
    of_the_tests = sorted((ROOT / "tests").rglob("*.py"))
    ours = {path.stem for path in of_the_tests} - {"__init__"}
    assert {f"{path}: {name}" for path in of_the_tests for name in imports(path) if program(name) in ours} == set()
