"""Encryption as a client meets it, and whether the certificate will go on to serve."""

import ssl
import time
from typing import NamedTuple

from generator.config.listening import https_place
from generator.config.schema import Deploy, domains
from generator.doctor.checks import Verdict, check, failed, look, ok, unseen, warning
from generator.doctor.of_nginx import RELOAD
from generator.doctor.patient import Patient, Unseen, needs_root
from generator.doctor.wire import ask, connected
from generator.host import certificates
from generator.host.certificates import Place
from generator.host.facts import is_active
from generator.host.probe import Endpoint
from generator.host.programs import run
from generator.host.x509 import served
from generator.program import AS_ROOT
from service.declaration import Fault

_INSTALL = f"{AS_ROOT} install; {RELOAD}"


class Encryption(NamedTuple):
    """What is answered without TLS, and where it leads; the newest version of TLS; whether 1.1 will do; what browsers
    remember.
    """

    status: int
    leads_to: str
    newest: str
    takes_old: bool
    remembered: str


@look()
def encryption(patient: Patient) -> Encryption:
    endpoint = patient.endpoint
    plain = ask(connected(endpoint, encrypted=False), "/doctor", endpoint.domain)
    if not endpoint.encrypted:
        return Encryption(plain.status, plain.fields.get("location", ""), "", False, "")
    raw = connected(endpoint)
    newest = raw.version() if isinstance(raw, ssl.SSLSocket) else None
    within = ask(raw, "/doctor", endpoint.domain)
    return Encryption(
        plain.status,
        plain.fields.get("location", ""),
        newest or "no TLS",
        _takes_old(endpoint),
        within.fields.get("strict-transport-security", ""),
    )


def _takes_old(endpoint: Endpoint) -> bool:
    """Whether a client gets TLS 1.1; Python warns of it, and openssl needs to be told that it is meant."""
    if endpoint.proxy_protocol:
        return False  # openssl cannot begin with the PROXY protocol
    to = ("-connect", f"{_bracketed(endpoint.ways[0][0])}:{endpoint.ports[1]}", "-servername", endpoint.domain)
    said = run("openssl", "s_client", *to, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", "-brief", stdin="")
    return "Protocol version: TLSv1.1" in said.output


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


@check(
    "tls",
    see=encryption,
    expects=lambda deploy: (
        "no encryption"
        if deploy.tls == "off"
        else f"TLS 1.2 or newer, port {deploy.nginx.http_port} leads to https://{https_place(deploy)}"
    ),
)
def tls(deploy: Deploy, seen: Encryption) -> Verdict:
    """Clients get TLS of today, http leads to https, and browsers remember it; or none of it, where it is off."""
    said = f"port {deploy.nginx.http_port} answers {seen.status}" + (f", to {seen.leads_to}" if seen.leads_to else "")
    if deploy.tls == "off":
        return failed(said, _INSTALL) if seen.leads_to else ok(said)
    said = f"{seen.newest}, {said}"
    if seen.newest not in ("TLSv1.2", "TLSv1.3") or (seen.status, seen.leads_to) != (
        308,
        f"https://{https_place(deploy)}/doctor",
    ):
        return failed(said, _INSTALL)
    if seen.takes_old:
        fix = "the default site of that port allows it: set ssl_protocols there, or nginx.default_server"
        return warning(f"{said}; TLS 1.1 is accepted as well", fix)
    return ok(said) if seen.remembered else failed(f"{said}; no Strict-Transport-Security", _INSTALL)


class Shown(NamedTuple):
    """The certificate in words, whether nginx shows another, why clients refuse it and certbot will not renew it, what
    of it should be known, its days, and who issued it.
    """

    text: str
    another_shown: bool
    refused: tuple[str, ...]
    not_renewed: str
    known: tuple[str, ...]
    days_left: int
    authority: str | None


@look()
def the_certificate(patient: Patient) -> Shown:
    deploy = patient.deploy
    if deploy.tls == "off":
        raise Unseen("tls is off")
    needs_root()
    place, now, shown = Place(deploy.name), time.time(), served(patient.endpoint)
    described = certificates.described(deploy, place, now, shown)
    return Shown(
        text=str(described["text"]),
        another_shown=bool(described.get("another_shown")),
        refused=tuple(map(str, certificates.refusals(deploy, place, now, shown))),
        not_renewed=certificates.not_renewed(deploy, place),
        known=tuple(f"{key}: {fault}" for key, fault in certificates.warnings(deploy, now)),
        days_left=int(str(described.get("days_left", 0))),
        authority=certificates.authority(place) if deploy.tls == "letsencrypt" else None,
    )


@check(
    "certificate",
    *("domain", "tls", "certificate.file", "certificate.key", "letsencrypt.server"),
    see=the_certificate,
    expects=lambda deploy: (
        f"one that clients take for {' and '.join(domains(deploy))}, for {certificates.SHORT_DAYS} days and more"
    ),
)
def certificate(_: Deploy, seen: Shown) -> Verdict:
    """Clients take the certificate that nginx shows, now and in two weeks: dates, names, chain; certbot renews it."""
    if seen.refused:
        return failed(f"{seen.text}; clients refuse it: {'; '.join(seen.refused)}", "docs/tls.md")
    if seen.not_renewed:
        return failed(f"{seen.text}; certbot will not renew it: {seen.not_renewed}", f"{AS_ROOT} install")
    if seen.another_shown:
        return warning(seen.text, "sudo nginx -t, and then systemctl reload nginx")
    if seen.days_left < certificates.SHORT_DAYS:
        return warning(seen.text, "renew it now: it should have been renewed by itself, see `certbot-timer`")
    return ok(seen.text)


def _of(key: str, kind: str) -> None:
    """Enter a check of a file that `tls: files` names."""

    def judge(deploy: Deploy, seen: dict[str, list[tuple[str, Fault]]]) -> Verdict:
        refused, known = seen["refused"], seen["known"]
        for found, verdict in ((refused, failed), (known, warning)):
            for of, fault in found:
                if of == key:
                    return verdict(fault.what, fault.fix)
        return ok(getattr(deploy.certificate, kind))

    judge.__doc__ = f"The {kind} is there, belongs to the other one, and is closed to others."
    check(key, see=the_files, expects=lambda deploy: getattr(deploy.certificate, kind) or "none")(judge)


@look()
def the_files(patient: Patient) -> dict[str, list[tuple[str, Fault]]]:
    deploy, now = patient.deploy, time.time()
    if deploy.tls != "files":
        raise Unseen(f"tls is {deploy.tls}")
    needs_root()
    return {
        "refused": list(certificates.faults(deploy, now)),
        "known": list(certificates.warnings(deploy, now)),
    }


_of("certificate.file", "file")
_of("certificate.key", "key")


@look()
def the_authority(patient: Patient) -> str | None:
    if patient.deploy.tls != "letsencrypt":
        raise Unseen(f"tls is {patient.deploy.tls}")
    needs_root()
    return certificates.authority(Place(patient.deploy.name))


@check("letsencrypt.server", see=the_authority, expects=lambda deploy: deploy.letsencrypt.server)
def server(deploy: Deploy, seen: str | None) -> Verdict:
    """certbot renews the certificate with this authority."""
    if seen == deploy.letsencrypt.server:
        return ok(seen)
    return failed(seen or "certbot has no certificate for it", f"{AS_ROOT} install asks for one")


unseen("letsencrypt.email", "only the authority knows the address of the account: certbot show_account asks it")


@look()
def the_timer(patient: Patient) -> bool:
    if patient.deploy.tls != "letsencrypt":
        raise Unseen(f"tls is {patient.deploy.tls}")
    return is_active("certbot.timer") and run("systemctl", "is-enabled", "--quiet", "certbot.timer").succeeded


@check("certbot-timer", "tls", "letsencrypt.server", see=the_timer, expects="certbot.timer is enabled and active")
def timer(_: Deploy, is_on: bool) -> Verdict:
    """certbot looks twice a day whether the certificate is to be renewed."""
    fix = "sudo systemctl enable --now certbot.timer"
    return ok("enabled and active") if is_on else failed("it is not: nothing renews the certificate", fix)
