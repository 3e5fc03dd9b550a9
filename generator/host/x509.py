"""Certificates as openssl reads them, from a file or from nginx."""

import os
import ssl
from pathlib import Path

import msgspec

from generator.host.probe import Endpoint
from generator.host.programs import Outcome, run

DAY_S = 86_400


class Certificate(msgspec.Struct, frozen=True):
    """The content of a certificate: DNS names and addresses; begin and end in seconds since the epoch."""

    names: tuple[str, ...]
    issuer: str
    begins: float
    ends: float

    def covers(self, domain: str) -> bool:
        """Whether a client that asked for `domain` takes it."""
        return any(is_for(name, domain) for name in self.names)

    def days_left(self, now: float) -> int:
        return int((self.ends - now) // DAY_S)

    def __str__(self) -> str:
        return f"{', '.join(self.names) or 'no name'} by {self.issuer or 'nobody'}"


def is_for(name: str, domain: str) -> bool:
    """Whether a name in a certificate stands for a domain. Source: RFC 9525, sections 6.3 and 6.4.

    Clients take no `*.lan`: behind the wildcard there must be two labels.
    """
    parent = domain.partition(".")[2]
    return name.lower() in (domain, *["*." + parent] * ("." in parent))


def printed(path: Path, *asked: str) -> Outcome:
    """What openssl says of the first certificate of a PEM file, which needs no authority for that."""
    return _openssl(path, "-noout", *asked)


def _openssl(path: Path, *asked: str) -> Outcome:
    # It reads all authorities that the host knows, whatever it is asked, and takes six times as long for it.
    return run("openssl", "x509", "-in", str(path), "-inform", "PEM", *asked, SSL_CERT_FILE=os.devnull)


def read(path: Path) -> Certificate | None:
    """The first certificate of a PEM file; None where there is none."""
    said = ("-issuer", "-startdate", "-enddate", "-ext", "subjectAltName", "-nameopt", "RFC2253,-esc_msb,utf8")
    outcome = printed(path, *said)
    if not outcome.succeeded:
        return None
    lines = [line.strip() for line in outcome.output.splitlines()]
    values = dict(line.split("=", 1) for line in lines if line.startswith(("issuer=", "notBefore=", "notAfter=")))
    entries = [entry for line in lines if line.startswith(("DNS:", "IP Address:")) for entry in line.split(", ")]
    return Certificate(
        names=tuple(entry.split(":", 1)[1] for entry in entries if entry.startswith(("DNS:", "IP Address:"))),
        issuer=values["issuer"],
        begins=ssl.cert_time_to_seconds(values["notBefore"]),
        ends=ssl.cert_time_to_seconds(values["notAfter"]),
    )


def served(endpoint: Endpoint) -> bytes | None:
    """The certificate that nginx shows a client of the domain; None where nobody answers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            endpoint.connect(endpoint.ways[0][0], encrypted=True, within_s=5) as raw,
            context.wrap_socket(raw, server_hostname=endpoint.domain) as encrypted,
        ):
            return encrypted.getpeercert(binary_form=True)
    except OSError:
        return None


def der(path: Path) -> bytes:
    """The first certificate of a PEM file, as it is sent."""
    return ssl.PEM_cert_to_DER_cert(_openssl(path, "-outform", "PEM").output)
