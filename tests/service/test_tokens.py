"""Which tokens prove something, and which keys do. Tokens are made by hand here: an attacker has no library of ours."""

import base64
import contextlib
import hmac
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from service.core.addresses import Address
from service.core.identity import Identity, TokenError
from service.tokens import LEEWAY_S, MAX_TOKEN_LENGTH, Keys, KeysError, read_keys

NOW = 1_700_000_000.0
SECRET, OTHER_SECRET = b"a secret of thirty-two bytes.....", b"another one of thirty-two bytes.."
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key()
CLAIMS = {"sub": "alice", "exp": NOW + 60, "snd": ["bob", "group:office"]}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hmac(secret: bytes, digest: str = "sha256") -> Callable[[bytes], bytes]:
    return lambda text: hmac.digest(secret, text, digest)


_by_secret = by_hmac(SECRET)


def token(claims: Any = CLAIMS, sign: Callable[[bytes], bytes] = _by_secret, **header: Any) -> str:
    text = ".".join(b64(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT", **header}, claims))
    return f"{text}.{b64(sign(text.encode()))}"


def but(**claims: Any) -> dict[str, Any]:
    """The usual claims, some of them other; None: without."""
    return {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}


def secret_key(secret: bytes = SECRET, **members: Any) -> dict[str, Any]:
    return {"kty": "oct", "k": b64(secret), **members}


def public_key(**members: Any) -> dict[str, Any]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(PUBLIC.public_bytes_raw()), **members}


class Clock:
    """Seconds since whenever."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class KeysFile:
    """A file of keys, and whoever reads it, a second later each time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock(0.0)
        self.now = Clock(NOW)
        self.keys = Keys(str(path), clock=self.clock, now=self.now)

    def has(self, *keys: Any) -> "KeysFile":
        return self.says(json.dumps({"keys": keys}))

    def says(self, text: str) -> "KeysFile":
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.replace(self.path)
        self.clock.now += 1
        return self

    def refuses(self, shown: str) -> str:
        """Why."""
        with pytest.raises(TokenError) as caught:
            self.keys(shown)
        assert shown not in str(caught.value)
        return str(caught.value)


@pytest.fixture
def file(tmp_path: Path) -> KeysFile:
    return KeysFile(tmp_path / "keys.json").has(secret_key())


def test_a_token_says_whose_it_is_where_its_bearer_may_send_to_and_until_when(file: KeysFile) -> None:
    assert file.keys(token()) == Identity(
        subject=Address("alice"), may_send_to=frozenset({"bob", "group:office"}), expires=NOW + 60
    )


def test_the_public_half_of_a_key_is_enough(file: KeysFile) -> None:
    file.has(public_key())
    assert file.keys(token(sign=PRIVATE.sign, alg="EdDSA")).subject == "alice"


def test_without_snd_its_bearer_may_send_to_nobody(file: KeysFile) -> None:
    identity = file.keys(token(but(snd=None)))
    assert not identity.may_send("bob")
    assert not identity.may_send("*")


def test_an_asterisk_lets_its_bearer_send_to_everybody_and_every_group(file: KeysFile) -> None:
    identity = file.keys(token(but(snd=["*"])))
    assert identity.may_send("bob")
    assert identity.may_send("group:office")


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", None, "HS384", "RS256", "ES256", "hs256", 5, ["HS256"]]
)
@pytest.mark.parametrize("signature", [b"x", hmac.digest(SECRET, b"", "sha256")])
def test_no_other_algorithm_counts(file: KeysFile, algorithm: Any, signature: bytes) -> None:
    file.has(secret_key(), public_key())
    assert file.refuses(token(alg=algorithm))
    assert file.refuses(token(alg=algorithm, sign=lambda text: signature))


def test_a_token_without_signature_is_none(file: KeysFile) -> None:
    unsigned = token(alg="none").rpartition(".")[0]
    assert file.refuses(f"{unsigned}.") == file.refuses(unsigned) == "this is not a token"


@pytest.mark.parametrize(
    "taken_for_a_secret",
    [
        PUBLIC.public_bytes_raw(),
        b64(PUBLIC.public_bytes_raw()).encode(),
        json.dumps(public_key()).encode(),
        PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    ],
)
def test_a_public_key_is_no_secret(file: KeysFile, taken_for_a_secret: bytes) -> None:
    file.has(public_key(kid="1"))
    for header in ({}, {"kid": "1"}, {"jwk": secret_key(taken_for_a_secret)}, {"alg": "EdDSA"}):
        assert file.refuses(token(sign=by_hmac(taken_for_a_secret), **header))


def test_a_signature_of_the_other_algorithm_does_not_count(file: KeysFile) -> None:
    file.has(secret_key(), public_key())
    assert file.keys(token())
    assert file.keys(token(sign=PRIVATE.sign, alg="EdDSA"))
    assert file.refuses(token(sign=PRIVATE.sign))
    assert file.refuses(token(alg="EdDSA"))


@pytest.mark.parametrize("member", ["jwk", "jku", "x5u", "x5c"])
def test_a_key_that_the_token_brings_along_counts_for_nothing(file: KeysFile, member: str) -> None:
    assert file.refuses(token(sign=by_hmac(OTHER_SECRET), **{member: secret_key(OTHER_SECRET)}))


def test_what_the_token_calls_critical_must_be_known(file: KeysFile) -> None:
    assert file.refuses(token(crit=["strange"], strange=1))
    assert file.refuses(token(crit=["b64"], b64=False))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_with_one_bit_changed_proves_nothing(file: KeysFile, part: int) -> None:
    good = token()
    begin = sum(len(each) + 1 for each in good.split(".")[:part])
    for at in range(begin, begin + len(good.split(".")[part])):
        for bit in range(7):
            assert file.refuses(good[:at] + chr(ord(good[at]) ^ 1 << bit) + good[at + 1 :])


@pytest.mark.parametrize("behind", ["=", "==", "\n", " ", ".", ".x", "é", "\udc80", "\0"])
def test_what_is_around_a_token_makes_it_another(file: KeysFile, behind: str) -> None:
    assert file.refuses(token() + behind) == "this is not a token"
    assert file.refuses(behind + token()) == "this is not a token"


def test_a_token_expires_to_the_second(file: KeysFile) -> None:
    file.now.now = NOW + 59.9
    assert file.keys(token())
    file.now.now = NOW + 60
    with pytest.raises(TokenError, match="the token has expired") as caught:
        file.keys(token())
    assert caught.value.expired


def test_a_token_may_come_into_force_later_and_the_clock_of_its_issuer_may_be_ahead_a_little(file: KeysFile) -> None:
    assert file.keys(token(but(nbf=NOW + LEEWAY_S)))
    assert file.refuses(token(but(nbf=NOW + LEEWAY_S + 1))) == "the token is not valid yet"


@pytest.mark.parametrize(
    "claims",
    [
        but(sub=None),
        but(sub=""),
        but(sub="a" * 129),
        but(sub=5),
        but(sub=["alice"]),
        but(exp=None),
        but(exp=str(NOW + 60)),
        but(exp=True),
        but(exp=float("nan")),
        but(exp=float("inf")),
        but(nbf="now"),
        but(snd="*"),
        but(snd=[5]),
        but(snd={"*": True}),
        [],
        "alice",
        None,
    ],
)
def test_claims_that_are_not_as_they_should_be_prove_nothing(file: KeysFile, claims: Any) -> None:
    assert file.refuses(token(claims)) == "the claims of the token are not as they should be"


def test_an_address_has_at_most_128_characters(file: KeysFile) -> None:
    assert file.keys(token(but(sub="ü" * 128))).subject == "ü" * 128


@pytest.mark.parametrize("audience", ["queue-websocket", ["queue-websocket"], ""])
def test_a_token_for_an_audience_is_meant_for_somebody_else(file: KeysFile, audience: Any) -> None:
    assert file.refuses(token(but(aud=audience))) == "the token is meant for another audience"


@pytest.mark.parametrize(
    "shown",
    [
        "a" * 1_000_000,
        ".".join(["a" * 300_000] * 3),
        token(but(padding="a" * 1_000_000)),
        "." * 100,
        f"{b64(b'[' * 2000)}.a.a",
        f"{b64(b'{}')}.{b64(b'{}')}.{b64(bytes(32))}",
    ],
)
def test_what_is_too_long_or_no_token_is_refused_at_once(file: KeysFile, shown: str) -> None:
    assert file.refuses(shown) in ("this is not a token", "no key of ours has signed this token")


def test_the_bound_on_the_length_is_exact(file: KeysFile) -> None:
    def padded(length: int) -> str:
        return max((token(but(pad="a" * n)) for n in range(2000, 3200)), key=lambda t: (len(t) <= length, len(t)))

    longest = padded(MAX_TOKEN_LENGTH)
    assert MAX_TOKEN_LENGTH - 3 <= len(longest) <= MAX_TOKEN_LENGTH
    assert file.keys(longest)
    assert file.refuses(padded(MAX_TOKEN_LENGTH + 4)) == "this is not a token"


def test_the_kid_selects_the_key(file: KeysFile) -> None:
    file.has(secret_key(OTHER_SECRET, kid="new"), secret_key(kid="old"))
    assert file.keys(token(kid="old"))
    assert file.refuses(token(kid="new")) == "no key of ours has signed this token"
    assert file.refuses(token(kid="stranger")) == "no key of ours has signed this token"
    assert file.refuses(token(kid=5)) == "this is not a token"


def test_without_a_kid_every_key_is_tried(file: KeysFile) -> None:
    file.has(public_key(kid="newest"), secret_key(OTHER_SECRET, kid="new"), secret_key(kid="old"))
    assert file.keys(token())


def test_a_rotation_lets_old_tokens_in_until_their_key_is_dropped(file: KeysFile) -> None:
    old, new = token(kid="old"), token(kid="new", sign=by_hmac(OTHER_SECRET))
    file.has(secret_key(kid="old"))
    assert file.keys(old)
    file.has(secret_key(OTHER_SECRET, kid="new"), secret_key(kid="old"))
    assert file.keys(old)
    assert file.keys(new)
    file.has(secret_key(OTHER_SECRET, kid="new"))
    assert file.refuses(old)
    assert file.keys(new)


def test_the_file_is_looked_at_once_a_second_at_most(file: KeysFile) -> None:
    file.keys(token())
    file.has(secret_key(OTHER_SECRET))
    file.clock.now -= 0.1
    assert file.keys(token())
    file.clock.now += 0.1
    assert file.refuses(token())


@pytest.mark.parametrize("broken", ["garbage", "", "{}", '{"keys": []}', json.dumps({"keys": [secret_key(b"short")]})])
def test_a_broken_file_leaves_the_keys_from_before_in_force_and_is_logged_once(
    file: KeysFile, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    file.keys(token())
    file.says(broken)
    for _ in range(3):
        assert file.keys(token())
        file.clock.now += 1
    (record,) = caplog.records
    assert str(file.path) in record.message
    assert record.message.endswith("until then the keys from before stay in force")
    file.has(secret_key(OTHER_SECRET))
    assert file.refuses(token())


def test_a_pipe_in_the_place_of_the_keys_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    os.mkfifo(path)
    with pytest.raises(KeysError, match="is not a regular file"):
        Keys(str(path)).load()


def test_a_missing_file_leaves_the_keys_from_before_in_force(file: KeysFile, caplog: pytest.LogCaptureFixture) -> None:
    file.keys(token())
    file.path.unlink()
    for _ in range(3):
        file.clock.now += 1
        assert file.keys(token())
    assert len(caplog.records) == 1


def test_where_no_keys_ever_were_no_token_counts_until_there_are_some(
    file: KeysFile, caplog: pytest.LogCaptureFixture
) -> None:
    file.path.unlink()
    for _ in range(3):
        file.clock.now += 1
        assert file.refuses(token()) == "no keys are configured"
    assert len(caplog.records) == 1
    assert file.has(secret_key()).keys(token())


FAULTS = {
    "no JSON": ("garbage", "JSON is malformed"),
    "not an object": ("[]", "Expected `object`"),
    "deep": ("[" * 100_000, "holds no keys for us"),
    "RSA": ('{"keys": [{"kty": "RSA"}]}', "Invalid value 'RSA'"),
    "no kty": ('{"keys": [{"k": "x"}]}', "missing required field `kty`"),
    "empty kid": (json.dumps({"keys": [secret_key(kid="")]}), "`$.keys[0].kid`"),
    "a short secret": (json.dumps({"keys": [secret_key(), secret_key(bytes(31))]}), "key 2: k has 31 bytes"),
    "no base64url": ('{"keys": [{"kty": "oct", "k": "+/+/"}]}', "key 1: k is not base64url"),
    "another curve": (json.dumps({"keys": [public_key(crv="Ed448")]}), "crv is not Ed25519"),
    "a short public key": (json.dumps({"keys": [public_key(x="AAAA")]}), "x has 3 bytes instead of 32"),
    "a short private key": (json.dumps({"keys": [public_key(d="AAAA")]}), "d has 3 bytes instead of 32"),
    "another algorithm": (json.dumps({"keys": [secret_key(alg="HS512")]}), "alg is not HS256"),
    "confused algorithms": (json.dumps({"keys": [public_key(alg="HS256")]}), "alg is not EdDSA"),
    "for encryption": (json.dumps({"keys": [secret_key(use="enc")]}), "use is not sig"),
    "duplicate kids": (json.dumps({"keys": [secret_key(kid="1"), public_key(kid="1")]}), "another key has this kid"),
    "a public key as secret": (
        json.dumps({"keys": [secret_key(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))]}),
        "should not be used as an HMAC secret",
    ),
}


@pytest.mark.parametrize(("text", "told"), FAULTS.values(), ids=FAULTS)
def test_a_file_that_holds_anything_else_is_refused_and_no_key_is_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(KeysError, match="wsbundle token --new-key") as caught:
        read_keys(str(path))
    assert told in str(caught.value)
    assert b64(SECRET) not in str(caught.value)


def test_members_of_a_key_that_mean_nothing_to_us_are_ignored(file: KeysFile) -> None:
    assert file.has(secret_key(alg="HS256", use="sig", key_ops=["verify"], x5t="?")).keys(token())


def test_keys_that_are_no_file_or_not_ours_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="/none is missing; `wsbundle install` makes"):
        read_keys(str(tmp_path / "none"))
    with pytest.raises(KeysError, match="cannot be read: Is a directory"):
        read_keys(str(tmp_path))


def test_keys_that_may_not_be_read_ask_for_sudo(file: KeysFile) -> None:
    file.path.chmod(0)
    ours, nobody = os.geteuid(), 65534
    if ours == 0:
        os.seteuid(nobody)
    try:
        with pytest.raises(KeysError, match="may not be read; use sudo"):
            read_keys(str(file.path))
    finally:
        os.seteuid(ours)


@contextlib.contextmanager
def no_file_can_be_opened() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_keys_are_in_force_as_soon_as_they_can_be_read_though_their_file_has_not_changed_since(
    file: KeysFile, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = token(kid="old"), token(sign=by_hmac(OTHER_SECRET), kid="new")
    file.has(secret_key(kid="old")).keys(old)
    file.has(secret_key(OTHER_SECRET, kid="new"))
    with no_file_can_be_opened():
        for _ in range(3):
            assert file.keys(old)
            file.clock.now += 1
    assert file.keys(new)
    assert len(caplog.records) == 1


def test_who_shows_no_token_pays_for_no_cryptography() -> None:
    program = """
import sys
from service.process.entry import center_of
from service.settings import Settings
center_of(Settings(keys="/etc/queue-websocket/keys.json"))
print(sorted({"jwt", "cryptography", "cffi"} & set(sys.modules)))
"""
    root = Path(__file__).resolve().parents[2]
    said = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True, timeout=20
    )
    assert said.stdout == "[]\n"
