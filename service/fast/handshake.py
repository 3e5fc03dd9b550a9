"""A client asks for a WebSocket: is its request one, and is nothing wrong with it? Pure.

Source: RFC 6455 section 4.2; RFC 9112 sections 3.2 (Host), 5.2 (folded fields) and 6 (bodies).
"""

import re
from binascii import b2a_base64
from collections.abc import Mapping
from hashlib import sha1
from typing import NamedTuple

from service.core.plain_http import say

MAX_HEAD_BYTES = 16 * 1024
MAX_FIELDS = 128

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_line = re.compile(r"([!-~]+) [!-~\x80-\xff]+ (HTTP/[0-9]\.[0-9])")
# A field, or all that follows on the last one: it has no name. No part of a pattern can match what the next part can: a
# hostile head takes no more time than any other.
_fields = re.compile(rf"({_TOKEN}):([\t\x20-\x7e\x80-\xff]*)\r\n|(?s:.+)")
_token = re.compile(_TOKEN)
_key = re.compile(r"[+/0-9A-Za-z]{22}==")
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

_ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n"
)

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
        response = _ACCEPTED % b2a_base64(sha1(key.encode() + _GUID).digest(), newline=False)
        if subprotocol is not None:
            response += b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode()
        return response + b"\r\n"


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
    line, _, rest = text.partition("\r\n")
    fields: dict[str, list[str]] = {}
    found = _fields.findall(rest, 0, len(rest) - len("\r\n"))
    for name, value in found:
        name, value = name.lower(), value.strip(" \t")
        if name in fields:
            fields[name].append(value)
        else:
            fields[name] = [value]
    request = _line.fullmatch(line)
    if request is None or "" in fields:
        is_folded = "\r\n " in text or "\r\n\t" in text
        raise HandshakeError(400, "A header field is folded" if is_folded else "This is not HTTP/1.1")
    method, version = request.groups()
    if "websocket" not in _tokens(fields, "upgrade") or method != "GET" or version == "HTTP/1.0":
        return None
    if len(found) > MAX_FIELDS:
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
    options = _tokens(fields, "connection")
    if options != ["upgrade"] and ("upgrade" not in options or not _is_list(options)):
        return "Connection must contain upgrade"
    if "sec-websocket-protocol" in fields and not _is_list(_tokens(fields, "sec-websocket-protocol")):
        return "Sec-WebSocket-Protocol must be a list of names"
    if len(fields.get("origin", ())) > 1:
        return "There must be no more than one Origin"
    if len(keys) != 1 or not _key.fullmatch(keys[0]):
        return "There must be one Sec-WebSocket-Key, of 16 bytes in base64"
    return None


def _members(fields: Fields, name: str) -> list[str]:
    return [member.strip() for value in fields.get(name, ()) for member in value.split(",")]


def _tokens(fields: Fields, name: str) -> list[str]:
    return [member.strip() for member in ",".join(fields.get(name, ())).lower().split(",")]


def _is_list(members: list[str]) -> bool:
    """Whether the members of a field are tokens, and not none of them. Source: RFC 9110, section 5.6.1.2."""
    return any(members) and all(map(_token.fullmatch, filter(None, members)))
