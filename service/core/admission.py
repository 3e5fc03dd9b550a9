"""Decides who may connect, and as whom: every shell asks here about each handshake before it answers.

Pure. Source of the form of a token in `Sec-WebSocket-Protocol`: no browser can set another header field, so Kubernetes
takes `base64url.bearer.authorization.k8s.io.TOKEN` there; ours is `bearer.TOKEN`, and is never sent back.
"""

from ipaddress import IPv6Address, IPv6Network
from typing import NamedTuple

from service.core.center import Center, Client
from service.core.frames import SUBPROTOCOL
from service.core.identity import Identity, TokenError, bearer_tokens
from service.core.plain_http import (
    DRAINING,
    FOREIGN_ORIGIN,
    FULL,
    TOO_MANY_FROM_ADDRESS,
    UNAUTHORIZED,
    Answer,
)
from service.core.session import Session, SessionV0
from service.core.session_v1 import SessionV1
from service.core.tally import count_up

SESSIONS: dict[str, type[Session]] = {kind.protocol: kind for kind in (SessionV0, SessionV1)}

_BEARER = "bearer."


class Handshake(NamedTuple):
    """The handshake of a client, before it is one.

    `client_address` is the true one, behind nginx what nginx says; None for a program of this host that comes without
    nginx, which no limit per address concerns. `origins` and `authorizations` are the values of these header fields,
    `subprotocols` the names that are offered, in order.
    """

    client_address: str | None = None
    origins: tuple[str, ...] = ()
    authorizations: tuple[str, ...] = ()
    subprotocols: tuple[str, ...] = ()


def client_address(peer: str | None, forwarded: bool) -> str | None:
    """The address that limits concern, or None for none.

    `peer` is what the shell takes for the client, from `X-Forwarded-For` where it believes it; `forwarded` says whether
    that field was there. Without it a peer on loopback is a program of this host, and one without an address as well.
    """
    address = _network(peer) if peer and ":" in peer else peer
    if not address or (not forwarded and (address.startswith("127.") or peer == "::1")):
        return None
    return address


def _network(address: str) -> str:
    """The /64 of an IPv6 address, because a client that has one of these addresses has all. Others stay as they are."""
    try:
        parsed = IPv6Address(address)
    except ValueError:
        return address
    return str(parsed.ipv4_mapped or IPv6Network((parsed, 64), strict=False))


class Admission(NamedTuple):
    """A client that may connect. `subprotocol` is the one to select, None for none."""

    subprotocol: str | None
    identity: Identity | None
    client_address: str | None
    origins: tuple[str, ...] = ()

    def open(self, center: Center, client: Client) -> Session:
        """The session of the client, which `start` must be called of."""
        kind = SessionV0 if self.subprotocol is None else SessionV1
        session = kind(center, client, self.identity, self.client_address)
        center.events.connected(session.addresses[0], kind.protocol, self.client_address, self.origins)
        return session


def admit(center: Center, handshake: Handshake) -> Admission | Answer:
    """Let a client in, or say why not."""
    decision = _decide(center, handshake)
    if isinstance(decision, Answer):
        note_refusal(center, decision, handshake.client_address, handshake.origins)
    return decision


def note_refusal(center: Center, refusal: Answer, client_address: str | None, origins: tuple[str, ...] = ()) -> None:
    """Count one more refused handshake, and log it."""
    count_up(center.hub.tally.refused, refusal.status)
    center.events.refused(refusal.status, client_address, origins)


def _decide(center: Center, handshake: Handshake) -> Admission | Answer:
    settings, address = center.settings, handshake.client_address
    if center.draining:
        return DRAINING
    if center.connections >= settings.limits.connections:
        return FULL
    if address is not None and center.connections_of.get(address, 0) >= settings.limits.connections_per_address:
        return TOO_MANY_FROM_ADDRESS
    if settings.origins and handshake.origins and not _is_allowed(handshake.origins, settings.origins):
        return FOREIGN_ORIGIN
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in handshake.subprotocols else None
    if settings.auth == "none":
        return Admission(subprotocol, None, address, handshake.origins)
    tokens = _tokens(handshake)
    try:
        identity = center.verify(tokens[0]) if tokens else None
    except TokenError:
        return UNAUTHORIZED
    # A client of nc.v1 may still show its token in its hello.
    if identity is None and subprotocol is None:
        return UNAUTHORIZED
    return Admission(subprotocol, identity, address, handshake.origins)


def _is_allowed(origins: tuple[str, ...], allowed: tuple[str, ...]) -> bool:
    # RFC 6454: scheme and host are the same in every case of letters, and compared whole. A browser never names the
    # usual port, but the operator may.
    return len(origins) == 1 and _without_usual_port(origins[0].lower()) in map(_without_usual_port, allowed)


def _without_usual_port(origin: str) -> str:
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")


def _tokens(handshake: Handshake) -> list[str]:
    offered = [name.removeprefix(_BEARER) for name in handshake.subprotocols if name.startswith(_BEARER)]
    return bearer_tokens(handshake.authorizations) + offered
