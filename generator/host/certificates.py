"""Certificates on a host: whether the operator's will do, and how Let's Encrypt's come into use.

With `tls: letsencrypt` nginx serves what /etc/<name>/tls leads to: first a placeholder of our own making, without which
no nginx of this host would start, then certbot's lineage. Debian's certbot.timer renews it; the rendered hook puts each
new certificate into use. certbot never edits a file of ours.
"""

import os
import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from generator.config.schema import Deploy, domains
from generator.host.chain import joined, judged, position_of_key
from generator.host.directories import make_directory
from generator.host.facts import naming
from generator.host.lineage import broken, parts, places, settings
from generator.host.programs import Outcome, has, must, run
from generator.host.reload import Reload
from generator.host.x509 import DAY_S, der, is_for, read
from generator.paths import Paths
from generator.rendering.write import put_link, temporary_of
from generator.report import CommandError, Report
from service.declaration import Fault

FILE, KEY = "fullchain.pem", "privkey.pem"
SHORT_DAYS = 14
# Debian's certbot renews when a third of its life is left, 30 of 90 days: later than this, its timer does not work.
LATE = 1 / 6
# Nobody trusts it, so nothing is gained by making another.
_PLACEHOLDERS_DAYS = "3650"
_CERTBOT_S = 300.0
_CONVERTED = "openssl x509 -in FILE -out fullchain.pem converts one"
_REQUEST = "that is a request: send it to the authority, and name what comes back"
_NO_CERTIFICATE = {
    "PKCS7": "openssl pkcs7 -print_certs -in FILE -out fullchain.pem takes them out",
    "CERTIFICATE REQUEST": _REQUEST,
    "NEW CERTIFICATE REQUEST": _REQUEST,
}
# What Apple's systems take, whoever signs. Source: support.apple.com/103769
_APPLE_DAYS = 825


class Place:
    """Where the certificate of one deployment is."""

    def __init__(self, name: str, root: Path = Path("/")) -> None:
        self.name = name
        paths = Paths(name)
        self.link = root / paths.tls
        self.placeholder = root / paths.placeholder
        self.lineage = root / "etc/letsencrypt/live" / name
        self.renewal = root / "etc/letsencrypt/renewal" / f"{name}.conf"
        self.hook = root / paths.certbot_hook
        self.webroot = root / "var/lib" / f"{name}-acme"
        self.backups = root / "var/backups"
        self.retry = f"{name}.certificate.service"
        """What the hook leaves behind where nginx could not be reloaded. Names of deployments have no dots."""

    @property
    def has_lineage(self) -> bool:
        return _is_whole(self.lineage)

    @property
    def is_whole(self) -> bool:
        """Whether nginx would find a certificate, whatever it is worth to clients."""
        return _is_whole(self.link)

    @property
    def why_not_renewed(self) -> str:
        """Why certbot will not renew the lineage, in words. Only root can tell."""
        return broken(self.lineage, self.renewal)

    @property
    def serves_lineage(self) -> bool:
        return self.link.is_symlink() and os.path.realpath(self.link) == os.path.realpath(self.lineage)

    def prepare(self, domains: tuple[str, ...]) -> Outcome:
        """Let the link lead to some certificate, so that nginx starts; the best there is."""
        if self.is_whole:
            return Outcome(0, "")
        make_directory(self.link.parent)
        if self.has_lineage:
            put_link(self.link, str(self.lineage))
            return Outcome(0, "")
        made = self._make_placeholder(domains)
        if made.succeeded:
            put_link(self.link, str(self.placeholder))
        return made

    def remove(self) -> None:
        """Take away all of it but certbot's own, and what others have put beside it."""
        for link in (self.link, self.link.with_name("tls.new"), temporary_of(self.link)):
            if link.is_symlink() and str(link.readlink()) in (str(self.lineage), str(self.placeholder)):
                link.unlink()
        for directory in (self.placeholder, *self.link.parent.glob("placeholder.*")):
            for file in (directory / FILE, directory / KEY):
                file.unlink(missing_ok=True)
        for directory in (self.placeholder, self.placeholder.with_suffix(".new"), self.webroot, self.link.parent):
            with suppress(OSError):  # others have files in it, or it is not there
                directory.rmdir()

    def make_way(self) -> Path:
        """Move a lineage that certbot will not renew away; nginx goes on with a copy of what it has. Where to."""
        backup = self.backups / f"{self.name}-certbot-{time.time():.0f}"
        if self.serves_lineage and self.has_lineage:
            new = self._begin_placeholder()
            for name in (FILE, KEY):
                shutil.copyfile(self.lineage / name, new / name)
            self._end_placeholder(new)
            put_link(self.link, str(self.placeholder))
        backup.mkdir(mode=0o700, parents=True)
        for path in parts(self.lineage, self.renewal):
            _move(path, _kept(path, backup))
        return backup

    def take_back(self, backup: Path) -> bool:
        """Undo `make_way` if certbot has put nothing there; whether it did not.

        Other programs of the host may have the lineage by its name, and nginx's certificate is no placeholder.
        """
        if parts(self.lineage, self.renewal):
            return False
        for path in places(self.lineage, self.renewal):
            if os.path.lexists(kept := _kept(path, backup)):
                _move(kept, path)
        backup.rmdir()
        return True

    def _begin_placeholder(self) -> Path:
        # Whole or not at all: a pair with half a key would stop every site of the host.
        new = self.placeholder.with_suffix(".new")
        for directory in (new, self.placeholder):
            shutil.rmtree(directory, ignore_errors=True)
        new.mkdir(mode=0o700)
        return new

    def _end_placeholder(self, new: Path) -> None:
        (new / KEY).chmod(0o600)
        run("sync", str(new / FILE), str(new / KEY), str(new))
        new.rename(self.placeholder)

    def _make_placeholder(self, domains: tuple[str, ...]) -> Outcome:
        new = self._begin_placeholder()
        pair = ("-out", str(new / FILE), "-keyout", str(new / KEY))
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", _PLACEHOLDERS_DAYS)
        names = ",".join(f"DNS:{domain}" for domain in domains)
        says = ("-subj", "/CN=placeholder of wsbundle", "-addext", f"subjectAltName={names}")
        made = run("openssl", "req", "-x509", *kind, *says, *pair)
        if made.succeeded:
            self._end_placeholder(new)
        return made


def faults(deploy: Deploy, now: float) -> Iterator[tuple[str, Fault]]:
    """Why nginx or every client would refuse what `tls: files` names, each with its key."""
    if deploy.tls != "files":
        return
    if not has("openssl"):
        yield "certificate.file", Fault("cannot be checked without openssl", "apt-get install openssl")
        return
    file, key = Path(deploy.certificate.file or ""), Path(deploy.certificate.key or "")
    of_file, of_key = list(_faults_of_file(file)), list(_of_key(key))
    yield from (("certificate.file", fault) for fault in of_file)
    yield from (("certificate.key", fault) for fault in of_key)
    if not of_file + of_key:
        yield from (found := list(_mismatch(file, key)))
        if found and (position_of_key(file.read_text(encoding="latin-1"), key) or 0) > 1:
            return  # the first certificate is not the one to judge
    if not of_file:
        yield from (("certificate.file", fault) for fault in _refused(file, domains(deploy), now))


def warnings(deploy: Deploy, now: float) -> Iterator[tuple[str, Fault]]:
    """Warnings: it works today, and should be known."""
    if deploy.tls != "files":
        return
    file, key = Path(deploy.certificate.file or ""), Path(deploy.certificate.key or "")
    if os.path.isfile(key) and key.stat().st_mode & 0o007:
        yield "certificate.key", Fault(f"{key} is open to every user of this host", f"chmod 600 {key}")
    certificate = read(file)
    if certificate is None:
        return
    if 0 <= certificate.ends - now < SHORT_DAYS * DAY_S:
        yield "certificate.file", Fault(f"ends in {certificate.days_left(now)} days", "renew it")
    if (days := certificate.days_left(certificate.begins)) > _APPLE_DAYS:
        what = f"is for {days} days, and Apple's systems take no more than {_APPLE_DAYS}"
        yield "certificate.file", Fault(what, "have the authority make it for a shorter time")
    for fault in judged(file.read_text(encoding="latin-1"), now).warnings:
        yield "certificate.file", fault


def refusals(deploy: Deploy, place: Place, now: float, shown: bytes | None) -> list[Fault]:
    """Why clients refuse what nginx serves, or will once it reads its files again. Nothing that only root could see.

    `shown` is what nginx shows now.
    """
    path = _served_file(deploy, place)
    if deploy.tls == "files":
        found = [fault for _, fault in faults(deploy, now)]
    elif isinstance(text := _text_of(path), Fault):
        found = [Fault(text.what, "the next installation gets one")]
    elif not place.serves_lineage:
        found = [Fault("it is a placeholder", "the next installation asks for the real one")]
    else:
        found = list(_refused(path, domains(deploy), now))
    if not found and shown is not None and shown != der(path):
        with NamedTemporaryFile("w", prefix="wsbundle-") as file:
            file.write(ssl.DER_cert_to_PEM_cert(shown))
            file.flush()
            fix = "systemctl reload nginx"
            refused = _refused(Path(file.name), domains(deploy), now)
            found = [Fault(f"nginx still serves another, which {fault.what}", fix) for fault in refused]
    return [fault for fault in found if os.geteuid() == 0 or "Permission denied" not in fault.what]


def _served_file(deploy: Deploy, place: Place) -> Path:
    return place.link / FILE if deploy.tls == "letsencrypt" else Path(deploy.certificate.file or "")


def _refused(file: Path, domains: tuple[str, ...], now: float) -> Iterator[Fault]:
    """The faults that clients find in a certificate that can be read."""
    certificate = read(file)
    if certificate is None:
        return
    if now > certificate.ends:
        yield Fault(f"ended {-certificate.days_left(now)} days ago", "renew it")
    if now < certificate.begins:
        begins = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(certificate.begins))
        yield Fault(f"is valid from {begins} on only", "wait, or set this host's clock")
    if uncovered := ", ".join(domain for domain in domains if not certificate.covers(domain)):
        names = ", ".join(certificate.names) or "no name at all"
        if not certificate.names:
            names += " (clients read subjectAltName, not the common name)"
        fix = f"get one for {' and '.join(domains)}, or write the domain that it is for"
        yield Fault(f"is for {names}, not for {uncovered}", fix)
    yield from judged(file.read_text(encoding="latin-1"), now).faults


def due(deploy: Deploy, place: Place, now: float) -> str | None:
    """Why a certificate is to be asked for; None where the one in use will do."""
    if deploy.tls != "letsencrypt":
        return None
    certificate = read(place.lineage / FILE) if place.has_lineage else None
    if certificate is None:
        return "there is none yet"
    if fault := place.why_not_renewed:
        return f"certbot will not renew the present one: {fault}"
    wanted = domains(deploy)
    # Once a name that is no longer wanted leads elsewhere, certbot renews none of them.
    is_wanted = (any(is_for(name, domain) for domain in wanted) for name in certificate.names)
    if not all((*map(certificate.covers, wanted), *is_wanted)):
        return f"the present one is for {', '.join(certificate.names)}"
    if authority(place) != deploy.letsencrypt.server:
        return "the present one is from another authority"
    if certificate.ends - now < (certificate.ends - certificate.begins) * LATE:
        return f"the present one has {certificate.days_left(now)} days left"
    return None if place.serves_lineage else "the present one is not in use"


def obtain(deploy: Deploy, place: Place, report: Report) -> None:
    """Get the certificate that is due, and put it into use.

    Raises:
        CommandError: the deployment runs all the same, with the certificate that it had.
    """
    if deploy.tls != "letsencrypt":
        forget(place, report)
    why = due(deploy, place, time.time())
    if why is None:
        return
    asked = deploy.letsencrypt
    who = ("--email", asked.email) if asked.email else ("--register-unsafely-without-email",)
    names = (word for domain in domains(deploy) for word in ("-d", domain))
    # Not --webroot: certbot refuses that where its cli.ini names another way for all other certificates.
    what = ("--cert-name", place.name, *names, "--authenticator", "webroot", "-w", str(place.webroot))
    # certbot takes a certificate of another authority for one that is not due.
    force = () if authority(place) in (None, asked.server) else ("--force-renewal",)
    # Hooks run for renewals only; should a later certbot run them here too, ours must still run once, and be heard.
    quiet = ("--non-interactive", "--agree-tos", "--no-directory-hooks")
    try:
        with _free(place, report), report.step("ask for a certificate"):
            must(place.prepare(domains(deploy)), "making a placeholder certificate")
            must(
                run("certbot", "certonly", *quiet, "--server", asked.server, *who, *what, *force, timeout_s=_CERTBOT_S)
            )
            if not place.has_lineage:  # nginx would start with no site if the hook led it there
                raise CommandError(f"certbot has put it elsewhere than {place.lineage}; does its cli.ini say so?")
            reloading = Reload()
            must(run(str(place.hook), RENEWED_LINEAGE=str(place.lineage)))
            if fault := reloading.fault():
                raise CommandError(fault)
    except CommandError as error:
        present = "the one it had" if place.serves_lineage else "a placeholder, which clients refuse"
        raise CommandError(
            f"{error}\nNo new certificate for {', '.join(domains(deploy))} ({why}). "
            f"{place.name} runs, with {present}.\n"
            "Fix that, then install again: it asks again. Let's Encrypt takes five failures an hour."
        ) from None


@contextmanager
def _free(place: Place, report: Report) -> Iterator[None]:
    """Let certbot begin anew with the name of a lineage that it will not renew, which is back if nothing comes of it.

    Raises:
        CommandError: another site has it as well.
    """
    if not (parts(place.lineage, place.renewal) and place.why_not_renewed):
        yield
        return
    if used := naming(f"{place.lineage}/"):
        fix = "repair it, or let that site have one of its own"
        raise CommandError(f"{', '.join(used)} has the certificate {place.name} of certbot as well: {fix}")
    was_served, backup = place.serves_lineage, place.make_way()
    try:
        yield
    finally:
        if not place.take_back(backup):
            report.line(f"  what certbot would not renew is kept in {backup}")
        elif was_served and place.has_lineage:  # so that nginx starts with it, which it may not with any other
            put_link(place.link, str(place.lineage))


def not_renewed(deploy: Deploy, place: Place) -> str:
    """Why the lineage that is served will end, in words; nothing where certbot renews it. Only root can tell."""
    is_served = deploy.tls == "letsencrypt" and place.serves_lineage and place.is_whole
    return place.why_not_renewed if is_served else ""


def forget(place: Place, report: Report) -> None:
    """Report a lineage of ours that the deployment no longer uses; not one of the same name that is not ours."""
    if _is_renewed_by(place):
        report.line(
            f"certbot still has a certificate called {place.name}, which it can no longer renew; "
            f"to remove it: certbot delete --cert-name {place.name}"
        )


def delete(place: Place) -> list[str]:
    """Remove a lineage of ours, never another's of the same name. What failed: the rest need not stay for it."""
    if not _is_renewed_by(place):
        return []
    # Without it nginx would not start again, with any site.
    if used := naming(f"{place.lineage}/"):
        return [f"the certificate {place.name} of certbot stays, because {', '.join(used)} has it as well"]
    deleted = run("certbot", "delete", "--non-interactive", "--cert-name", place.name)
    again = f"certbot delete --cert-name {place.name}"
    return [] if deleted.succeeded else [f"{again} failed; do it by hand: {deleted.output}"]


def described(deploy: Deploy, place: Place, now: float, shown: bytes | None) -> dict[str, object]:
    """The certificate in use, as facts and in words, below `text`; `shown` is what nginx shows now."""
    path = _served_file(deploy, place)
    certificate = read(path)
    if certificate is None:
        return {"text": f"NONE can be read in {path}"}
    is_placeholder = deploy.tls == "letsencrypt" and not place.serves_lineage
    kind = "placeholder" if is_placeholder else "lineage" if deploy.tls == "letsencrypt" else "file"
    days = certificate.days_left(now)
    text = f"a PLACEHOLDER for {', '.join(certificate.names)}" if is_placeholder else str(certificate)
    if days >= 0 and not is_placeholder:
        text += f", {days} days left"
    another_shown = shown is not None and shown != der(path)
    if another_shown:
        text += "; nginx serves ANOTHER: systemctl reload nginx"
    facts = {"kind": kind, "names": certificate.names, "issuer": certificate.issuer, "days_left": days}
    return {**facts, "another_shown": another_shown, "text": text}


def _kept(path: Path, backup: Path) -> Path:
    """Where a part of a lineage is while another takes its place."""
    return backup / f"{path.parent.name}-{path.name}"


def _move(path: Path, to: Path) -> None:
    """By mv(1): Python's would let root own what comes to another disk, and other programs read it by their groups."""
    must(run("mv", "-T", str(path), str(to)))


def _is_whole(directory: Path) -> bool:
    return all(os.path.isfile(directory / name) for name in (FILE, KEY))  # Path.is_file() raises where one may not look


def _text_of(path: Path) -> str | Fault:
    try:
        return path.read_text(encoding="latin-1")
    except FileNotFoundError:
        return Fault(f"{path} is not there", "put it there, or name the file that is")
    except OSError as error:
        return Fault(f"{path} cannot be read: {error.strerror}", "make it a file that root can read")


def _faults_of_file(path: Path) -> Iterator[Fault]:
    text = _text_of(path)
    if isinstance(text, Fault):
        yield text
    elif fault := joined(text):
        yield fault
    elif read(path) is None:
        fix = next((way for kind, way in _NO_CERTIFICATE.items() if f"-----BEGIN {kind}-----" in text), _CONVERTED)
        yield Fault(f"{path} starts with no certificate in PEM", fix)


def _of_key(path: Path) -> Iterator[Fault]:
    text = _text_of(path)
    if isinstance(text, Fault):
        yield text
    elif "PRIVATE KEY-----" not in text:
        yield Fault(f"{path} holds no private key in PEM", "openssl pkey -in FILE -out privkey.pem converts one")
    elif "ENCRYPTED" in text:
        fix = "openssl pkey -in FILE -out privkey.pem takes it away"
        yield Fault(f"{path} has a pass phrase, and there is nobody to type it when nginx starts", fix)


def _mismatch(file: Path, key: Path) -> Iterator[tuple[str, Fault]]:
    """What OpenSSL, and so nginx, says about the two together, with the key of deploy.yaml."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file, key)
    except ssl.SSLError as error:
        # The second is what a key of another kind than the certificate's gets: RSA instead of EC.
        if error.reason in ("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
            number = position_of_key(file.read_text(encoding="latin-1"), key)
            what = f"{key} does not belong to {file}"
            fix = "name the key that the certificate was made for; in the file, its own certificate comes first"
            if number is not None:
                what = f"{key} belongs to certificate {number} of {file}, and nginx serves the first"
                fix = "put that first, and behind it the one that signed it"
            yield "certificate.key", Fault(what, fix)
        elif not run("openssl", "pkey", "-in", str(key), "-noout").succeeded:
            yield "certificate.key", Fault(f"{key} cannot be read by OpenSSL", "name the key of the certificate")
        elif error.reason not in ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK"):  # which are told in words
            fix = "copy it once more from where it comes from"
            yield "certificate.file", Fault(f"{file} is damaged, and nginx would refuse it: {error}", fix)


def authority(place: Place) -> str | None:
    """The ACME directory that the lineage comes from."""
    return settings(place.renewal).get("server")


def _is_renewed_by(place: Place) -> bool:
    return settings(place.renewal).get("webroot_path", "").rstrip(",") == str(place.webroot)
