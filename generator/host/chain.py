"""Whether clients would take a certificate with the ones behind it: openssl judges the chain as a client does.

Which authorities a client knows is known to nobody but that client. So a chain that leads to none that this host knows
is judged up to its last certificate, as by a client that trusts that one. Source: openssl-verification-options(1).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from generator.host.programs import Outcome, run
from generator.host.x509 import printed
from service.declaration import Fault

# A line feed that is missing between two is a fault of its own.
_PEM = re.compile(
    r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----.*?-----END (?:X509 |TRUSTED )?CERTIFICATE-----", re.DOTALL
)
_JOINED = re.compile(r"-----END [A-Z0-9 ]+-----[ \t]*-----BEGIN ")
# Above each error stands whose it is: nothing for a certificate without a subject.
_ERROR = re.compile(r"(?m)(?:^(.*)\n|\A)error (\d+) at (\d+) depth lookup: *(.*)$")
# Numbers of X509_V_ERR_... in openssl's x509_vfy.h: no known certificate signs the last one, and none is trusted.
_UNKNOWN = {2, 18, 19, 20, 21, 27}
_DATES = {9, 10}
_WEAK_DIGEST = 68
# openssl's level 2, which Debian asks of every TLS client: RSA from 2048 bits on, no SHA-1.
_AS_A_CLIENT = ("-purpose", "sslserver", "-auth_level", "2")
_BROWSERS_TAKE = ("rsaEncryption", "prime256v1", "secp384r1")
_RENEW = "get a new one from the authority"


class Verdict(msgspec.Struct, frozen=True):
    """`faults` are what every client refuses, `warnings` what some do."""

    faults: list[Fault]
    warnings: list[Fault]


class _Link(msgspec.Struct, frozen=True):
    file: Path
    subject: str
    names: tuple[str, str]
    """Hashes of the subject and of the issuer."""
    text: str
    """All that openssl prints of it."""

    @property
    def is_signed_by_itself(self) -> bool:
        return self.names[0] == self.names[1]


def certificates(text: str) -> list[str]:
    """Each certificate of a PEM file."""
    return _PEM.findall(text)


def joined(text: str) -> Fault | None:
    """Two certificates on one line, as `cat` leaves them where the first file does not end with a line feed."""
    if _JOINED.search(text) is None:
        return None
    return Fault(
        "has the end of one certificate and the start of the next on one line, so nginx reads neither",
        "begin a line there: (cat certificate.pem; echo; cat chain.pem) >fullchain.pem",
    )


def judged(text: str, now: float) -> Verdict:
    """The faults that clients find in a chain at a time, in seconds since the epoch; but not the first one's dates."""
    with TemporaryDirectory(prefix="wsbundle-") as directory:
        links = _links(text, Path(directory))
        if not links:
            return Verdict([], [])
        rest = Path(directory) / "rest.pem"
        rest.write_text("\n".join(certificates(text)[1:]) + "\n", encoding="latin-1")
        chain = _followed(links)
        said = _verify(links[0], rest, now)
        warnings = [*_of_the_order(links, chain), *_of_the_first(links[0])]
        trusting: tuple[str, ...] = ()
        if _UNKNOWN & {number for number, *_ in _errors(said)}:
            warnings.append(_unknown(chain))
            trusting = ("-partial_chain", "-trusted", str(chain[-1].file))
            said = _verify(links[0], rest, now, *trusting)
        faults = dict.fromkeys([*_faults(said, chain), *_of_the_signatures(chain)])  # openssl says some things twice
        if not faults:
            warnings.extend(_of_the_letter(_verify(links[0], rest, now, "-x509_strict", *trusting), chain))
        return Verdict(list(faults), warnings)


def position_of_key(text: str, key: Path) -> int | None:
    """Which certificate of a file belongs to a key, counted from 1; None where none does."""
    public = run("openssl", "pkey", "-in", str(key), "-pubout").output
    with TemporaryDirectory(prefix="wsbundle-") as directory:
        for number, link in enumerate(_links(text, Path(directory)), 1):
            if printed(link.file, "-pubkey").output == public:
                return number
    return None


def _links(text: str, directory: Path) -> list[_Link]:
    found = []
    for number, certificate in enumerate(certificates(text)):
        file = directory / f"{number}.pem"
        file.write_text(certificate + "\n", encoding="latin-1")
        asked = ("-subject_hash", "-issuer_hash", "-subject", "-nameopt", "RFC2253,-esc_msb,utf8", "-text")
        said = printed(file, *asked)
        if said.succeeded:
            subject_hash, issuer_hash, subject, text = said.output.split("\n", 3)
            found.append(_Link(file, subject.partition("=")[2], (subject_hash, issuer_hash), text))
    return found


def _followed(links: list[_Link]) -> list[_Link]:
    """The first one, then its signer, and so on, as far as the file goes."""
    chain = [links[0]]
    while not chain[-1].is_signed_by_itself:
        signer = next((link for link in links if link.names[0] == chain[-1].names[1] and link not in chain), None)
        if signer is None:
            break
        chain.append(signer)
    return chain


def _verify(leaf: _Link, rest: Path, now: float, *trusting: str) -> Outcome:
    others = ("-untrusted", str(rest)) if rest.stat().st_size > 1 else ()
    return run("openssl", "verify", *_AS_A_CLIENT, "-attime", str(int(now)), *trusting, *others, str(leaf.file))


def _errors(said: Outcome) -> list[tuple[int, int, str, str]]:
    """Number, depth (0 is the first certificate), whose, and in openssl's words."""
    found = [(int(number), int(depth), whose, words) for whose, number, depth, words in _ERROR.findall(said.output)]
    return found if found or said.succeeded else [(0, 0, "", said.output)]


def _faults(said: Outcome, chain: list[_Link]) -> Iterator[Fault]:
    for number, depth, whose, words in _errors(said):
        if depth < len(chain):
            whose = chain[depth].subject
        if number in _UNKNOWN or (number in _DATES and depth == 0):
            continue
        if number in _DATES:
            when = "has ended" if number == 10 else "is not valid yet"
            fix = "put the authority's present chain behind your certificate"
            yield Fault(f"is signed through {whose}, which {when}: clients refuse it", fix)
        elif number == 26 and depth == 0:
            fix = "get one for servers: its extendedKeyUsage must have serverAuth, or be absent"
            yield Fault("is not for servers: clients refuse it", fix)
        elif number in (24, 26, 79):
            fix = "put the authority's own chain behind your certificate"
            yield Fault(f"is signed through {whose}, which may sign no certificates of servers: clients refuse it", fix)
        elif number in (66, 67):
            yield Fault(
                f"{whose} has a key that is too short: clients refuse it", f"{_RENEW}, for EC P-256 or RSA 2048"
            )
        elif number == _WEAK_DIGEST:
            continue  # openssl says it only of those below the last one
        else:
            yield Fault(f"would be refused by clients: {words}" + (f" ({whose})" if whose else ""), _RENEW)


def _of_the_letter(said: Outcome, chain: list[_Link]) -> Iterator[Fault]:
    """What is against the letter of RFC 5280, by which clients judge that are written in Python from 3.13 on."""
    found = [(depth, words) for _, depth, _, words in _errors(said)]
    last = len(chain) - 1
    if not chain[last].is_signed_by_itself and "X509v3 Authority Key Identifier" not in chain[last].text:
        found.append((last, "Missing Authority Key Identifier"))  # openssl does not say it of what it is to trust
    for depth, words in dict.fromkeys(found):
        whose = f" ({chain[depth].subject})" if depth <= last else ""
        yield Fault(f"Python 3.13 and later refuse it: {words}{whose}", "have the authority make it by RFC 5280")


def _unknown(chain: list[_Link]) -> Fault:
    if chain[0].is_signed_by_itself:
        fix = "use tls: letsencrypt, or a certificate of an authority; or give it to every client"
        return Fault("is signed by itself, so that clients refuse it unless they know it", fix)
    fix = "append the intermediate certificates; with an authority of your own, clients must know its root"
    return Fault("leads to no authority that this host knows", fix)


def _of_the_order(links: list[_Link], chain: list[_Link]) -> Iterator[Fault]:
    if chain != links[: len(chain)]:
        names = ", then ".join(link.subject for link in chain)
        what = "has its certificates in another order than they sign each other, which some clients refuse"
        yield Fault(what, f"put them in this order: {names}")
    others = ", ".join(link.subject for link in links if link not in chain)
    if others:
        yield Fault(
            f"holds certificates that are not part of its chain: {others}",
            "remove them: they are sent to every client for nothing",
        )


def _of_the_signatures(chain: list[_Link]) -> Iterator[Fault]:
    """The signature of a root does not matter: clients that trust it have it already."""
    for link in chain:
        if not link.is_signed_by_itself and re.search(r"Signature Algorithm: .*(?i:sha1|md5)", link.text):
            yield Fault(f"{link.subject} is signed with SHA-1 or older: clients refuse it", _RENEW)


def _of_the_first(leaf: _Link) -> Iterator[Fault]:
    """What browsers and other clients refuse that openssl takes."""
    found = dict(re.findall(r"(Public Key Algorithm|ASN1 OID): (\S+)", leaf.text))
    kind = found.get("ASN1 OID", found.get("Public Key Algorithm", ""))
    if kind not in _BROWSERS_TAKE:
        fix = "for browsers get one for EC P-256, P-384 or RSA"
        yield Fault(f"has a key of the kind {kind}, which no common browser takes", fix)
    if "X509v3 Key Usage" in leaf.text and "Digital Signature" not in leaf.text:
        yield Fault("has a keyUsage without digitalSignature, which no common browser takes", _RENEW)
    if "CA:TRUE" in leaf.text and not leaf.is_signed_by_itself:
        yield Fault("is one of an authority (CA:TRUE), which Firefox does not take from a server", _RENEW)
    if "status_request" in leaf.text:
        fix = "get one without OCSP Must-Staple"
        yield Fault("must come with an answer of OCSP, which nginx does not send here: some clients refuse it", fix)
