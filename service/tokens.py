"""JSON Web Tokens (RFC 7519), checked with the keys of a JSON Web Key Set (RFC 7517).

Two algorithms, each with one kind of key: HS256 (`oct`, a secret) and EdDSA (`OKP` on Ed25519, of which the public half
is enough). The key says which one it is for; a token that says another is refused, so that no public key is ever taken
for a secret and "none" is nothing special. A token has `sub`, the address of its bearer, and `exp`; it may have `nbf`,
and `snd`, a list of where its bearer may send to: addresses, `group:NAME`, or `*`. Without `snd` that is nowhere. A
token with an audience, `aud`, is meant for somebody else: a deployment has keys of its own, and needs no name besides.
"""

import logging
import os
import re
import stat
import time
from base64 import urlsafe_b64decode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from service.core.addresses import CheckedAddress
from service.core.identity import Identity, TokenError
from service.declaration import Fault

# Under what nginx and every shell take in one header field, and room for dozens of addresses.
MAX_TOKEN_LENGTH = 4096
# A clock that issues tokens may be ahead of ours. `exp` needs no leeway: a client let in late would be closed at once.
LEEWAY_S = 5.0
_LOOK_AGAIN_S = 1.0
# RFC 7518, section 3.2: not shorter than the hash.
_SECRET_BYTES = 32
_BETTER_KEYS = "fix it, or move it away: `wsbundle token --new-key` then makes another"

_BASE64URL = re.compile("[A-Za-z0-9_-]+")
_TOKEN = re.compile(rf"{_BASE64URL.pattern}(\.{_BASE64URL.pattern}){{2}}")

logger = logging.getLogger("service")


class KeysError(Exception):
    """A file of keys that cannot be used; the message holds nothing of a key."""

    def __init__(self, path: str, fault: Fault) -> None:
        self.path = path
        self.fault = fault
        super().__init__(f"{path} {fault}")


class Claims(msgspec.Struct, omit_defaults=True):
    """The claims of a token; times are in seconds since the epoch."""

    sub: CheckedAddress
    exp: float
    nbf: float = 0.0
    snd: frozenset[str] = frozenset()
    aud: Any = None


class Jwk(msgspec.Struct, omit_defaults=True, tag_field="kty"):
    """A key as its file has it. Members that are not listed here are ignored, as RFC 7517 asks for."""

    kid: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    alg: str | None = None
    use: str | None = None

    algorithm: ClassVar[str]

    def verifier(self) -> Any:
        """The key with which PyJWT verifies."""
        raise NotImplementedError

    def signer(self) -> Any:
        """The key with which PyJWT signs, or None if there is only the public half."""
        raise NotImplementedError


class Secret(Jwk, tag="oct", kw_only=True):
    """A key for HS256. Source: RFC 7518, section 6.4."""

    k: str

    algorithm = "HS256"

    def verifier(self) -> bytes:
        secret = _bytes_of(self.k, "k")
        if len(secret) < _SECRET_BYTES:
            raise ValueError(f"k has {len(secret)} bytes; {_SECRET_BYTES} are the least")
        return secret

    def signer(self) -> bytes:
        return self.verifier()


class Ed25519(Jwk, tag="OKP", kw_only=True):
    """A key for EdDSA. Source: RFC 8037, section 2."""

    crv: str
    x: str
    d: str | None = None

    algorithm = "EdDSA"

    def verifier(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        if self.crv != "Ed25519":
            raise ValueError("crv is not Ed25519")
        return Ed25519PublicKey.from_public_bytes(_bytes_of(self.x, "x", 32))

    def signer(self) -> Any:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return None if self.d is None else Ed25519PrivateKey.from_private_bytes(_bytes_of(self.d, "d", 32))


class KeySet(msgspec.Struct):
    """The file."""

    keys: list[Secret | Ed25519]


def read_keys(path: str) -> list[Secret | Ed25519]:
    """The keys of a file, all of which can be used; the newest one is first.

    Raises:
        KeysError
    """
    try:
        # Opening a pipe waits until somebody writes to it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise KeysError(path, Fault("is not a regular file", _BETTER_KEYS))
            keys = msgspec.json.decode(file.read(), type=KeySet).keys
    except FileNotFoundError:
        fix = "`wsbundle install` makes a deployment's, `wsbundle token --keys FILE --new-key` any other"
        raise KeysError(path, Fault("is missing", fix)) from None
    except PermissionError:
        fix = "use sudo; and the group of the service must be allowed to read it"
        raise KeysError(path, Fault("may not be read", fix)) from None
    except OSError as error:
        raise KeysError(path, Fault(f"cannot be read: {error.strerror}", "name a file")) from None
    except (ValueError, RecursionError) as error:
        # msgspec names the place and what it expects there, and no value but that of `kty`.
        raise KeysError(path, Fault(f"holds no keys for us: {error}", _BETTER_KEYS)) from None
    if not keys:
        raise KeysError(path, Fault("holds no keys", _BETTER_KEYS))
    kids = [key.kid for key in keys if key.kid is not None]
    for number, key in enumerate(keys, start=1):
        if fault := _fault(key) or ("another key has this kid" if kids.count(str(key.kid)) > 1 else ""):
            raise KeysError(path, Fault(f"has a fault in key {number}: {fault}", _BETTER_KEYS))
    return keys


def _fault(key: Jwk) -> str:
    if key.alg not in (None, key.algorithm):
        return f"alg is not {key.algorithm}, which is what such a key is for"
    if key.use not in (None, "sig"):
        return "use is not sig"
    from jwt import PyJWS, PyJWTError

    try:
        # PyJWT takes no public key for a secret, whatever the file says.
        PyJWS().get_algorithm_by_name(key.algorithm).prepare_key(key.verifier())
        key.signer()
    except (ValueError, PyJWTError) as error:
        return str(error)
    return ""


def _bytes_of(text: str, member: str, length: int | None = None) -> bytes:
    try:
        found = urlsafe_b64decode(text + "=" * (-len(text) % 4)) if _BASE64URL.fullmatch(text) else None
    except ValueError:  # its length is that of no bytes
        found = None
    if found is None:
        raise ValueError(f"{member} is not base64url")
    if length is not None and len(found) != length:
        raise ValueError(f"{member} has {len(found)} bytes instead of {length}")
    return found


@dataclass(frozen=True)
class _Verifier:
    kid: str | None
    algorithm: str
    key: Any


class Keys:
    """A file of keys, which `service.core.identity.Verify` can be: from a token to its bearer.

    The file is read when the first token comes, or by `load`, and again when it has changed.
    `clock` is monotonic, `now` counts from the epoch, both in seconds.
    """

    def __init__(
        self, path: str, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._clock = clock
        self._now = now
        self._verifiers: Sequence[_Verifier] = ()
        self._signatures: Any = None
        self._read: tuple[int, ...] | None = ()
        """What the file was like that the keys are from."""
        self._told = ""
        self._look_again_at = float("-inf")

    def load(self) -> None:
        """Read the file now.

        Raises:
            KeysError
        """
        # Looked at before it is read: a change in between is read again.
        seen = _stamp(self._path)
        self._look_again_at = self._clock() + _LOOK_AGAIN_S
        keys = read_keys(self._path)
        # Only where tokens are used: it takes 80 ms and 10 MB.
        from jwt import PyJWS

        self._signatures = PyJWS(algorithms=[Secret.algorithm, Ed25519.algorithm])
        self._verifiers = [_Verifier(key.kid, key.algorithm, key.verifier()) for key in keys]
        # Only now: what is wrong with a file may be put right without a change of it, such as who may read it.
        self._read, self._told = seen, ""

    def __call__(self, token: str) -> Identity:
        if len(token) > MAX_TOKEN_LENGTH or not _TOKEN.fullmatch(token):
            raise TokenError("this is not a token")
        self._follow()
        return self._identity(self._payload(token))

    def _follow(self) -> None:
        if self._clock() < self._look_again_at:
            return
        self._look_again_at = self._clock() + _LOOK_AGAIN_S
        if _stamp(self._path) == self._read:
            self._told = ""
            return
        try:
            self.load()
        except KeysError as error:
            if str(error) != self._told:
                self._told = str(error)
                meanwhile = "the keys from before stay in force" if self._verifiers else "no token is accepted"
                logger.error("%s; until then %s", error, meanwhile)

    def _payload(self, token: str) -> bytes:
        if not self._verifiers:
            raise TokenError("no keys are configured")
        from jwt import InvalidTokenError

        try:
            header = self._signatures.get_unverified_header(token)
        except InvalidTokenError:
            raise TokenError("this is not a token") from None
        kid = header.get("kid")
        for verifier in self._verifiers:
            if kid is None or kid == verifier.kid:
                try:
                    payload: bytes = self._signatures.decode(token, verifier.key, algorithms=[verifier.algorithm])
                except InvalidTokenError:
                    continue
                return payload
        raise TokenError("no key of ours has signed this token")

    def _identity(self, payload: bytes) -> Identity:
        try:
            claims = msgspec.json.decode(payload, type=Claims)
        except (ValueError, RecursionError):
            raise TokenError("the claims of the token are not as they should be") from None
        now = self._now()
        if claims.exp <= now:
            raise TokenError("the token has expired", expired=True)
        if claims.nbf > now + LEEWAY_S:
            raise TokenError("the token is not valid yet")
        if claims.aud is not None:
            raise TokenError("the token is meant for another audience")
        return Identity(subject=claims.sub, may_send_to=claims.snd, expires=claims.exp)


def _stamp(path: str) -> tuple[int, ...] | None:
    """Differs when the file has changed; None when it cannot be seen."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
