"""docs/asyncapi.yaml: it is what the code declares, it takes real frames, and AsyncAPI's parser reads it."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from service.core.frames import REPLIES, REQUESTS
from tests.clients.npm_tools import NODE, node_modules, run
from tools.asyncapi import PAGE, document, text

_ID_TOO_LONG = "x" * 65


def test_the_page_is_what_the_code_declares() -> None:
    assert PAGE.read_text() == text(), "run make docs"


def test_every_frame_is_in_an_operation() -> None:
    operations = document()["operations"].values()
    used = {message["$ref"].rpartition("/")[2] for each in operations for message in each["messages"]}
    used |= {ref["$ref"].rpartition("/")[2] for each in operations for ref in each.get("reply", {}).get("messages", ())}
    assert used == set(document()["components"]["messages"])
    assert len(used) == len(REQUESTS) + len(REPLIES)


def takes(schema: str, frame: dict[str, Any]) -> bool:
    """Whether a frame is one of these."""
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document()["components"]}
    return bool(jsonschema.Draft7Validator(whole).is_valid(frame))


@pytest.mark.parametrize(
    ("schema", "frame"),
    [
        ("Hello", {"type": "hello", "id": 1, "uuid": "alice", "of a later version": True}),
        ("Send", {"recipient_uuid": "bob", "message": {"any": ["JSON"]}}),
        ("Send", {"type": "send", "id": "7", "group": "ops", "message": None, "ack": "delivered"}),
        ("Send", {"group": "ops", "recipient_uuid": None, "message": 1}),
        ("Ack", {"type": "ack", "offset": 7}),
        ("Presence", {"type": "presence", "id": 1, "uuids": ["bob"], "watch": True}),
        ("Ok", {"type": "ok", "id": 1, "online": ["bob"]}),
        ("Error", {"type": "error", "id": None, "code": 114, "reason": "nobody", "temporary": True}),
    ],
)
def test_a_frame_of_the_protocol_is_taken(schema: str, frame: dict[str, Any]) -> None:
    assert takes(schema, frame)


@pytest.mark.parametrize(
    ("schema", "frame"),
    [
        ("Hello", {"type": "hello", "uuid": "alice"}),
        ("Hello", {"type": "send", "id": 1}),
        ("Hello", {"type": "hello", "id": _ID_TOO_LONG}),
        ("Send", {"type": "send", "id": 1, "group": "ops"}),
        ("Send", {"message": "to nobody"}),
        ("Send", {"message": 1, "recipient_uuid": "bob", "group": "ops"}),
        ("Ack", {"type": "ack"}),
        ("Ack", {"type": "ack", "key": 1, "offset": 1}),
        ("Presence", {"type": "presence", "id": 1, "uuids": ["bob"] * 101}),
        ("Ok", {"type": "error", "id": 1}),
        ("Changed", {"type": "presence", "uuid": "bob", "state": "away"}),
    ],
)
def test_a_frame_that_is_none_is_not_taken(schema: str, frame: dict[str, Any]) -> None:
    assert not takes(schema, frame)


_PARSE = """
const {Parser} = require(process.argv[1]);
const text = require("fs").readFileSync(process.argv[2], "utf8");
new Parser().parse(text).then(({document, diagnostics}) => console.log(JSON.stringify({
  channels: document?.channels().all().length ?? 0,
  operations: document?.operations().all().map((operation) => operation.id()) ?? [],
  faults: diagnostics.filter(({severity}) => severity < 2).map(({path, message}) => [path.join("."), message]),
})));
"""


def parsed(page: Path) -> dict[str, Any]:
    """What AsyncAPI's own parser says of a document: errors and warnings are faults."""
    parser = node_modules() / "@asyncapi/parser"
    said: dict[str, Any] = json.loads(run(str(NODE), "-e", _PARSE, "--", parser, page, cwd=page.parent))
    return said


@pytest.mark.slow
def test_the_parser_of_asyncapi_reads_it() -> None:
    said = parsed(PAGE)
    assert said["faults"] == []
    assert (said["channels"], said["operations"]) == (1, list(document()["operations"]))


@pytest.mark.slow
def test_the_parser_of_asyncapi_refuses_what_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(text().replace("schemas/Hello'", "schemas/Goodbye'"))
    assert parsed(tmp_path / "wrong.yaml")["faults"]
