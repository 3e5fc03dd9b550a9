"""A client asks for a WebSocket: is its request one, and is nothing wrong with it? Pure.

Source: RFC 6455 section 4.2; RFC 9112 sections 3.2 (Host), 5.2 (folded fields) and 6 (bodies).
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from service.core.plain_http import say

MAX_HEAD_BYTES = 16 * 1024
MAX_FIELDS = 128

# No part of a pattern can match what the next part can: a hostile head takes no more time than any other.
_FIELD = r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)\r\n"
_fields = re.compile(_FIELD)
_head = re.compile(r"([!-~]+) [!-~\x80-\xff]+ (HTTP/[0-9]\.[0-9])\r\n((?:" + _FIELD + r")*)\r\n")
_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_key = re.compile(r"[+/0-9A-Za-z]{22}==")
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

Fields = Mapping[str, list[str]]


class Upgrade(NamedTuple):
    """A sound request for a WebSocket: the values of its header fields by their names in lower case."""

    fields: Fields

    def values(self, name: str) -> tuple[str, ...]:
        """The value of each field of this name."""
        return tuple(self.fields.get(name, ()))

    def members(self, name: str) -> tuple[str, ...]:
        """The same for a field that is a list, and may go on in a further field."""
        return tuple(_members(self.fields, name))

    def accept(self, subprotocol: str | None) -> bytes:
        """The response that makes the connection a WebSocket."""
        (key,) = self.fields["sec-websocket-key"]
        digest = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
        selected = "" if subprotocol is None else f"Sec-WebSocket-Protocol: {subprotocol}\r\n"
        return (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {digest}\r\n{selected}\r\n"
        ).encode()


class HandshakeError(Exception):
    """A request for a WebSocket that has a fault; `answer` is sent to the client."""

    def __init__(self, status: int, fault: str, *headers: tuple[str, str]) -> None:
        self.answer = say(status, fault, *headers)
        super().__init__(fault)


def read_handshake(head: bytes) -> Upgrade | None:
    """What the head of a request, with the empty line that ends it, asks for; None when it is not for a WebSocket.

    An offer that cannot be taken is ignored, so that the request is answered as if it had none: of another protocol,
    with a method other than GET, or in HTTP/1.0. Source: RFC 9110, section 7.8.

    Raises:
        HandshakeError
    """
    if b"websocket" not in head.lower():
        return None
    text = head.decode("latin-1")
    parts = _head.fullmatch(text)
    if parts is None:
        is_folded = "\r\n " in text or "\r\n\t" in text
        raise HandshakeError(400, "A header field is folded" if is_folded else "This is not HTTP/1.1")
    method, version, block = parts[1], parts[2], parts[3]
    fields: dict[str, list[str]] = {}
    for name, value in _fields.findall(block):
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))
    if "websocket" not in _tokens(fields, "upgrade") or method != "GET" or version == "HTTP/1.0":
        return None
    if sum(map(len, fields.values())) > MAX_FIELDS:
        raise HandshakeError(431, "There are too many header fields")
    if (fault := _fault(version, fields)) is not None:
        raise HandshakeError(400, fault)
    if fields.get("sec-websocket-version") != ["13"]:
        raise HandshakeError(426, "Sec-WebSocket-Version must be 13", ("sec-websocket-version", "13"))
    return Upgrade(fields)


def _fault(version: str, fields: Fields) -> str | None:
    keys = fields.get("sec-websocket-key", ())
    if version != "HTTP/1.1":
        return "A WebSocket handshake is HTTP/1.1"
    if len(fields.get("host", ())) != 1:
        return "There must be one Host"
    # We would read as frames what a proxy takes for a body.
    if "transfer-encoding" in fields or fields.get("content-length", ["0"]) != ["0"]:
        return "A WebSocket handshake has no body"
    if len(fields["upgrade"]) != 1:
        return "There must be one Upgrade"
    if "upgrade" not in _tokens(fields, "connection") or not _is_list(fields, "connection"):
        return "Connection must contain upgrade"
    if "sec-websocket-protocol" in fields and not _is_list(fields, "sec-websocket-protocol"):
        return "Sec-WebSocket-Protocol must be a list of names"
    if len(fields.get("origin", ())) > 1:
        return "There must be no more than one Origin"
    if len(keys) != 1 or not _key.fullmatch(keys[0]):
        return "There must be one Sec-WebSocket-Key, of 16 bytes in base64"
    return None


def _members(fields: Fields, name: str) -> list[str]:
    return [member.strip() for value in fields.get(name, ()) for member in value.split(",")]


def _is_list(fields: Fields, name: str) -> bool:
    """Whether a field is a list of tokens, and not of none. Source: RFC 9110, section 5.6.1.2."""
    members = list(filter(None, _members(fields, name)))
    return bool(members) and all(map(_token.fullmatch, members))


def _tokens(fields: Fields, name: str) -> list[str]:
    return [member.lower() for member in _members(fields, name)]
