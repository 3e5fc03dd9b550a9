"""Tokens and the keys that sign them, on the host that has the keys; `wsbundle token` and the installer run it.

    python -m service.mint token FILE SUBJECT SECONDS [MAY_SEND_TO...]    prints a token that is good for so long
    python -m service.mint new-key FILE ALGORITHM [GROUP]                 puts a key in front; GROUP may read a new file
    python -m service.mint drop-key FILE KID

The newest key signs; the others count until they are dropped. The file is replaced as a whole: a service that reads it
has the old keys or the new ones. Who changes it waits for others that do. Exit codes: 1 when it cannot be done, 2 when
it was asked for the wrong way.
"""

import errno
import fcntl
import grp
import os
import re
import secrets
import sys
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec

from service.core.addresses import MAX_ADDRESS_LENGTH, Address
from service.core.identity import GROUP, TokenError
from service.declaration import did_you_mean
from service.tokens import MAX_TOKEN_LENGTH, Claims, Ed25519, Jwk, Keys, KeysError, KeySet, Secret, read_keys

_FIXES = {
    errno.EACCES: "; use sudo",
    errno.EPERM: "; use sudo",
    errno.ENOENT: "; make its directory",
    errno.ENOSPC: "; make room there",
}
_ONLY_ITS_GROUP_READS = 0o640
_NOBODY_ELSE_READS = 0o600


class MintError(Exception):
    """The request cannot be carried out."""


def main(arguments: Sequence[str]) -> str:
    """Do what the command line says, and return the text to print.

    Raises:
        MintError, KeysError, OSError
    """
    match arguments:
        case ["-h" | "--help", *_]:
            return str(__doc__)
        case ["token", path, subject, lifetime_s, *may_send_to] if re.fullmatch("[0-9]{1,12}", lifetime_s):
            return mint(path, subject, int(lifetime_s), may_send_to)
        case ["new-key", path, "HS256" | "EdDSA" as algorithm, *group] if len(group) < 2:
            return add_key(path, algorithm, *group)
        case ["drop-key", path, kid]:
            return drop_key(path, kid)
    print(__doc__, file=sys.stderr)
    sys.exit(2)


def _check(address: str) -> None:
    if not 1 <= len(address) <= MAX_ADDRESS_LENGTH:
        most = f"an address, and a group, has 1 to {MAX_ADDRESS_LENGTH} characters"
        raise MintError(f"{most}; {address!r} has {len(address)}")
    if address.encode(errors="replace") != address.encode(errors="surrogateescape"):
        raise MintError(f"{address!a} is not UTF-8; an address and a group are")


def mint(path: str, subject: str, lifetime_s: int, may_send_to: Sequence[str]) -> str:
    """A token, signed with the newest key and tried with the file."""
    from jwt import PyJWS

    for address in (subject, *(target.removeprefix(GROUP) for target in may_send_to)):
        _check(address)
    key = read_keys(path)[0]
    signer = key.signer()
    if signer is None:
        raise MintError(f"{path}: the newest key is public (it has no d); mint where its private half is")
    claims = Claims(sub=Address(subject), exp=int(time.time()) + lifetime_s, snd=frozenset(may_send_to))
    headers = {} if key.kid is None else {"kid": key.kid}
    token = PyJWS().encode(msgspec.json.encode(claims), signer, key.algorithm, {"typ": "JWT", **headers})
    if len(token) > MAX_TOKEN_LENGTH:
        raise MintError(f"the token would have {len(token)} characters; {MAX_TOKEN_LENGTH} are allowed, so use groups")
    try:
        Keys(path)(token)
    except TokenError as error:
        raise MintError(f"{path}: a token signed with its newest key is refused: {error}") from None
    return token


def add_key(path: str, algorithm: str, group: str | None = None) -> str:
    """Put a key in front of the file, which is made when it is missing."""
    kid = f"{time.strftime('%Y-%m-%d', time.gmtime())}-{secrets.token_hex(3)}"
    key = _new_secret(kid) if algorithm == "HS256" else _new_ed25519(kid)
    with _in_turn(path):
        keys = read_keys(path) if os.path.lexists(path) else []
        _replace(path, KeySet([key, *keys]), group)
    others = f"; still good: {_names(keys)}" if keys else ""
    return f"{path}: new tokens are signed with {kid}{others}"


def drop_key(path: str, kid: str) -> str:
    """Remove a key from the file: tokens signed with it are no longer accepted."""
    with _in_turn(path):
        keys = read_keys(path)
        kept = [key for key in keys if key.kid != kid]
        if len(kept) == len(keys):
            near = did_you_mean(kid, [key.kid for key in keys if key.kid])
            raise MintError(f"{path}: there is no key {kid}; it has {_names(keys)}{near}")
        if not kept:
            raise MintError(f"{path}: {kid} is the only key, and the service needs one; add a new one first")
        _replace(path, KeySet(kept))
    return f"{path}: what {kid} has signed is no longer accepted; still good: {_names(kept)}"


def _new_secret(kid: str) -> Secret:
    return Secret(kid=kid, alg=Secret.algorithm, k=_text_of(secrets.token_bytes(32)))


def _new_ed25519(kid: str) -> Ed25519:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public, own = private.public_key().public_bytes_raw(), private.private_bytes_raw()
    return Ed25519(kid=kid, alg=Ed25519.algorithm, crv="Ed25519", x=_text_of(public), d=_text_of(own))


def _text_of(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _names(keys: Sequence[Jwk]) -> str:
    return ", ".join(key.kid or "one without kid" for key in keys)


@contextmanager
def _in_turn(path: str) -> Iterator[None]:
    """Keep others from changing the file meanwhile: they would write it without our key, which somebody signs with."""
    try:
        directory = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        yield  # there is no file that could be changed
        return
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _replace(path: str, keys: KeySet, group: str | None = None) -> None:
    """Write the file as a whole; it keeps mode and owner. A new one is for its owner, and for `group`, alone."""
    target = os.path.realpath(path)
    directory = os.path.dirname(target)
    descriptor, temporary = tempfile.mkstemp(dir=directory, prefix=".keys-")  # mode 0600
    try:
        with open(descriptor, "wb") as file:
            try:
                before = os.stat(target)
            except FileNotFoundError:
                if group is not None:
                    os.fchown(descriptor, -1, _id_of(group))
                os.fchmod(descriptor, _NOBODY_ELSE_READS if group is None else _ONLY_ITS_GROUP_READS)
            else:
                os.fchown(descriptor, before.st_uid, before.st_gid)
                os.fchmod(descriptor, before.st_mode & 0o7777)
            file.write(msgspec.json.format(msgspec.json.encode(keys)) + b"\n")
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync(directory)


def _id_of(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise MintError(f"there is no group {group}; `wsbundle install` makes it") from None


def _sync(directory: str) -> None:
    """Make the new name outlive a power cut. Source: fsync(2), "NOTES"."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except (MintError, KeysError) as fault:
        sys.exit(str(fault))
    except OSError as fault:
        sys.exit(f"{sys.argv[2]}: {fault.strerror}{_FIXES.get(fault.errno or 0, '')}")
