"""docs/asyncapi.yaml: nc.v1 as a document of AsyncAPI 3.0, derived from the declarations of frames, errors and codes.

    python -m tools.asyncapi

writes it; `make docs` does so as well. Source: https://www.asyncapi.com/docs/reference/specification/v3.0.0.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

import service.core.close_codes
from generator import __version__
from service.core.close_codes import CloseReason
from service.core.frames import REPLIES, REQUESTS, SUBPROTOCOL, Failure, Failures

PAGE = Path(__file__).parent.parent / "docs/asyncapi.yaml"

_SCHEMAS = "#/components/schemas/{name}"
# Which frames answer a request, besides `ok` and `error`; those that have no answer are missing.
_ANSWERS = {
    "hello": ("ok", "error"),
    "send": ("ok", "error", "delivered", "lost"),
    "join": ("ok", "error"),
    "leave": ("ok", "error"),
    "presence": ("ok", "error"),
    "refresh": ("ok", "error"),
    "ping": ("pong",),
}
# Of these a request has exactly one.
_EITHER = {"send": ("recipient_uuid", "group"), "ack": ("key", "offset")}
_HEAD = """\
# Derived by `make docs` from service/core/frames.py. docs/protocol.md says in words what no schema can.
"""

Document = dict[str, Any]
Frames = Mapping[str, type[msgspec.Struct]]


def document() -> Document:
    """The document as plain data."""
    replies = {str(kind.__struct_config__.tag): kind for kind in REPLIES}
    schemas = _schemas(replies)
    named: dict[str, Frames] = {"from-client": REQUESTS, "from-service": replies}
    messages = {f"{side}.{name}": _message(side, name, kind) for side in named for name, kind in named[side].items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"Notification center, {SUBPROTOCOL}",
            "version": __version__,
            "description": "One JSON object in each text frame. Keys that are not known are ignored, on both sides. "
            "Clients choose this protocol by the WebSocket subprotocol of the same name.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "here": {"host": "127.0.0.1:8765", "protocol": "ws", "description": "As `make run` starts it."},
            "deployed": {
                "host": "{domain}",
                "protocol": "wss",
                "description": "Behind nginx, with `tls`.",
                "variables": {"domain": {"default": "ws.example.com", "description": "`domain` of deploy.yaml."}},
            },
        },
        "channels": {
            "center": {
                "address": "/",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET", "headers": _headers(), "bindingVersion": "0.1.0"}},
            }
        },
        "operations": _operations(replies),
        "components": {"messages": messages, "schemas": schemas},
        "x-errors": [
            {"code": each.code, "reason": each.reason, "temporary": each.temporary}
            for each in sorted(_all(Failures, Failure), key=lambda failure: failure.code)
        ],
        "x-close-codes": [
            {"code": each.code, "reason": each.reason} for each in sorted(_all(service.core.close_codes, CloseReason))
        ],
    }


def text() -> str:
    """The document as it stands in docs/."""
    return _HEAD + yaml.safe_dump(document(), sort_keys=False, allow_unicode=True, width=120)


def _all(of: object, kind: type) -> list[Any]:
    return [each for each in vars(of).values() if isinstance(each, kind)]


def _headers() -> Document:
    offered = {"type": "string", "const": SUBPROTOCOL}
    return {"type": "object", "properties": {"Sec-WebSocket-Protocol": offered}}


def _schemas(replies: Frames) -> Document:
    """The schema of each frame by the name of its class; a request gets its type, which msgspec reads apart."""
    _, schemas = msgspec.json.schema_components([*REQUESTS.values(), *replies.values()], ref_template=_SCHEMAS)
    for schema in schemas.values():
        if "description" in schema:  # a docstring, which Python 3.13 and later has without its indentation
            schema["description"] = " ".join(schema["description"].split())
    for name, kind in REQUESTS.items():
        schema = schemas[kind.__name__]
        schema["properties"] = {"type": {"const": name}, **schema["properties"]}
        if name != "send":  # what says no type is one of these
            schema["required"] = ["type", *schema.get("required", [])]
        if name in _EITHER:
            schema["oneOf"] = [_has(key) for key in _EITHER[name]]
    for name, kind in replies.items():
        schemas[kind.__name__]["properties"]["type"] = {"const": name}
    return schemas


def _has(key: str) -> Document:
    return {"required": [key], "properties": {key: {"not": {"type": "null"}}}}


def _message(side: str, name: str, kind: type[msgspec.Struct]) -> Document:
    return {
        "name": name,
        "title": f"{name}, {side.replace('-', ' the ')}",
        "summary": " ".join((kind.__doc__ or "").split()),
        "payload": {"$ref": _SCHEMAS.format(name=kind.__name__)},
    }


def _operations(replies: Frames) -> Document:
    """From where the service stands: it receives requests, and sends what answers none."""
    operations: Document = {}
    for name in REQUESTS:
        operations[name] = {"action": "receive", **_on_channel("from-client", name)}
        if answers := _ANSWERS.get(name):
            operations[name]["reply"] = _on_channel("from-service", *answers)
    answering = {name for answers in _ANSWERS.values() for name in answers}
    for name in replies:
        if name not in answering:
            operations[f"tell-{name}"] = {"action": "send", **_on_channel("from-service", name)}
    return operations


def _on_channel(side: str, *names: str) -> Document:
    messages = [{"$ref": f"#/channels/center/messages/{side}.{name}"} for name in names]
    return {"channel": {"$ref": "#/channels/center"}, "messages": messages}


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE.relative_to(Path.cwd())}\n")
