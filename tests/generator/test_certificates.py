"""Which certificates are refused and why, and how a host gets from a placeholder to certbot's."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from generator.config.schema import Certificate, Deploy, LetsEncrypt
from generator.host import programs
from generator.host.certificates import (
    FILE,
    KEY,
    Place,
    delete,
    described,
    due,
    faults,
    forget,
    obtain,
    refusals,
    warnings,
)
from generator.host.x509 import DAY_S, der, read
from generator.rendering.write import put_link
from generator.report import CommandError, Report
from tests.generator.certificate_maker import Authority, Pair, openssl, pair

NOW = time.time()
HOUR_S = 3600.0  # later, when what the tests make is valid already
NAME = "chat"


def with_files(file: Path, key: Path, domain: str | tuple[str, ...] = "ws.a.org") -> Deploy:
    return Deploy(name=NAME, domain=domain, tls="files", certificate=Certificate(file=str(file), key=str(key)))


def told(file: Path, key: Path, domain: str | tuple[str, ...] = "ws.a.org", now: float = NOW) -> list[str]:
    return [f"{setting}: {fault}" for setting, fault in faults(with_files(file, key, domain), now + HOUR_S)]


def warned(file: Path, key: Path, now: float = NOW) -> list[str]:
    return [f"{setting}: {fault}" for setting, fault in warnings(with_files(file, key), now + HOUR_S)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair(tmp_path_factory.mktemp("good"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "root")


# tls: files


def test_a_pair_that_fits_is_taken(good: Pair) -> None:
    assert told(*good) == []


def test_a_wildcard_certificate_is_taken(tmp_path: Path) -> None:
    assert told(*pair(tmp_path, "DNS:*.a.org")) == []


def test_an_rsa_pair_is_taken(tmp_path: Path) -> None:
    assert told(*pair(tmp_path, key=("-newkey", "rsa:2048"))) == []


def test_files_that_are_missing_are_both_told(tmp_path: Path) -> None:
    assert told(tmp_path / "a", tmp_path / "b") == [
        f"certificate.file: {tmp_path}/a is not there; put it there, or name the file that is",
        f"certificate.key: {tmp_path}/b is not there; put it there, or name the file that is",
    ]


def test_a_directory_cannot_be_read(tmp_path: Path, good: Pair) -> None:
    fix = "make it a file that root can read"
    assert told(tmp_path, good.key) == [f"certificate.file: {tmp_path} cannot be read: Is a directory; {fix}"]
    assert told(good.file, tmp_path) == [f"certificate.key: {tmp_path} cannot be read: Is a directory; {fix}"]


def test_a_certificate_in_der_is_no_pem(tmp_path: Path, good: Pair) -> None:
    file = tmp_path / "der"
    openssl("x509", "-in", good.file, "-outform", "DER", "-out", file)
    fix = "openssl x509 -in FILE -out fullchain.pem converts one"
    assert told(file, good.key) == [f"certificate.file: {file} starts with no certificate in PEM; {fix}"]


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        ("PKCS7", "openssl pkcs7 -print_certs -in FILE -out fullchain.pem takes them out"),
        ("CERTIFICATE REQUEST", "that is a request: send it to the authority, and name what comes back"),
    ],
)
def test_what_is_no_certificate_yet_is_told_how_to_become_one(tmp_path: Path, good: Pair, kind: str, fix: str) -> None:
    file = tmp_path / "other"
    file.write_text(good.file.read_text().replace("CERTIFICATE", kind))
    assert told(file, good.key) == [f"certificate.file: {file} starts with no certificate in PEM; {fix}"]


@pytest.mark.parametrize("kind", ["X509 CERTIFICATE", "TRUSTED CERTIFICATE"])
def test_a_certificate_by_another_name_is_taken(tmp_path: Path, good: Pair, kind: str) -> None:
    file, place = tmp_path / "other", Place(NAME, tmp_path)
    file.write_text(good.file.read_text().replace("CERTIFICATE", kind))
    assert told(file, good.key) == []
    assert described(with_files(file, good.key), place, NOW, der(good.file)) == described(
        with_files(*good), place, NOW, der(good.file)
    )


def test_a_key_in_der_is_no_pem(tmp_path: Path, good: Pair) -> None:
    key = tmp_path / "der"
    openssl("pkey", "-in", good.key, "-outform", "DER", "-out", key)
    fix = "openssl pkey -in FILE -out privkey.pem converts one"
    assert told(good.file, key) == [f"certificate.key: {key} holds no private key in PEM; {fix}"]


def test_file_and_key_exchanged_are_both_told(good: Pair) -> None:
    assert [line.split(";")[0] for line in told(good.key, good.file)] == [
        f"certificate.file: {good.key} starts with no certificate in PEM",
        f"certificate.key: {good.file} holds no private key in PEM",
    ]


@pytest.mark.parametrize("form", [("pkey",), ("ec", "-param_enc", "named_curve")])
def test_a_key_with_a_pass_phrase_is_refused(tmp_path: Path, good: Pair, form: tuple[str, ...]) -> None:
    key = tmp_path / "locked"
    openssl(*form, "-in", good.key, "-aes256", "-passout", "pass:secret", "-out", key)
    fix = "openssl pkey -in FILE -out privkey.pem takes it away"
    what = "has a pass phrase, and there is nobody to type it when nginx starts"
    assert told(good.file, key) == [f"certificate.key: {key} {what}; {fix}"]


@pytest.mark.parametrize("kind", ["ec", "rsa:2048"])
def test_the_key_of_another_certificate_is_refused(tmp_path: Path, good: Pair, kind: str) -> None:
    options = ("-pkeyopt", "ec_paramgen_curve:prime256v1") if kind == "ec" else ()
    other = pair(tmp_path, key=("-newkey", kind, *options))
    fix = "name the key that the certificate was made for; in the file, its own certificate comes first"
    expected = f"certificate.key: {other.key} does not belong to {good.file}; {fix}"
    assert told(good.file, other.key) == [expected]


def test_a_key_that_is_damaged_is_refused(tmp_path: Path, good: Pair) -> None:
    key = tmp_path / "damaged"
    key.write_text(good.key.read_text().replace("M", "N"))
    expected = f"certificate.key: {key} cannot be read by OpenSSL; name the key of the certificate"
    assert told(good.file, key) == [expected]


def test_a_key_that_is_too_short_for_tls_is_refused(tmp_path: Path) -> None:
    [line] = told(*pair(tmp_path, key=("-newkey", "rsa:1024")))
    assert "CN=Test has a key that is too short: clients refuse it; get a new one" in line


def test_an_expired_certificate_is_refused(good: Pair) -> None:
    assert told(*good, now=NOW + 92.5 * DAY_S) == ["certificate.file: ended 3 days ago; renew it"]


def test_a_certificate_that_is_not_valid_yet_is_refused(good: Pair) -> None:
    certificate = read(good.file)
    assert certificate is not None
    begins = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(certificate.begins))
    fix = "wait, or set this host's clock"
    assert told(*good, now=NOW - DAY_S) == [f"certificate.file: is valid from {begins} on only; {fix}"]


def test_a_certificate_for_another_domain_is_refused(good: Pair) -> None:
    fix = "get one for ws.b.org, or write the domain that it is for"
    assert told(*good, domain="ws.b.org") == [f"certificate.file: is for ws.a.org, not for ws.b.org; {fix}"]


def test_a_certificate_must_be_for_every_name(tmp_path: Path) -> None:
    two = ("ws.a.org", "www.a.org")
    assert told(*pair(tmp_path / "both", "DNS:www.a.org,DNS:ws.a.org"), domain=two) == []
    assert told(*pair(tmp_path / "one"), domain=two) == [
        "certificate.file: is for ws.a.org, not for www.a.org; "
        "get one for ws.a.org and www.a.org, or write the domain that it is for"
    ]


def test_a_certificate_with_a_common_name_only_is_refused(tmp_path: Path) -> None:
    [line] = told(*pair(tmp_path, "", subject="/CN=ws.a.org"))
    assert line.startswith("certificate.file: is for no name at all (clients read subjectAltName, not the common name)")


def test_all_faults_are_told_at_once(good: Pair, tmp_path: Path) -> None:
    other = pair(tmp_path, "DNS:ws.b.org")
    lines = told(good.file, other.key, domain="ws.c.org", now=NOW + 100 * DAY_S)
    assert [line.split(":")[0] for line in lines] == ["certificate.key", "certificate.file", "certificate.file"]


def test_without_openssl_nothing_is_called_sound(good: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PATH", "/nowhere")
    fix = "apt-get install openssl"
    assert told(*good) == [f"certificate.file: cannot be checked without openssl; {fix}"]


@pytest.mark.parametrize("tls", ["off", "letsencrypt"])
def test_other_choices_have_no_files_to_check(tls: str) -> None:
    deploy = Deploy(domain="ws.a.org", tls=tls)  # type: ignore[arg-type]
    assert [*faults(deploy, NOW), *warnings(deploy, NOW)] == []


def test_the_last_fourteen_days_are_warned_about(good: Pair) -> None:
    assert "certificate.file: ends in 13 days; renew it" in warned(*good, now=NOW + 76.5 * DAY_S)
    assert "ends in" not in "".join(warned(*good, now=NOW + 75.5 * DAY_S))
    assert "ends in" not in "".join(warned(*good, now=NOW + 90.5 * DAY_S))


@pytest.mark.parametrize(("mode", "is_open"), [(0o600, False), (0o640, False), (0o644, True), (0o602, True)])
def test_a_key_that_is_open_to_everybody_is_warned_about(tmp_path: Path, mode: int, is_open: bool) -> None:
    made = pair(tmp_path)
    made.key.chmod(mode)
    warning = f"certificate.key: {made.key} is open to every user of this host; chmod 600 {made.key}"
    assert (warning in warned(*made)) == is_open


def test_a_certificate_of_an_unknown_authority_is_warned_about(good: Pair, authority: Authority) -> None:
    fix = "use tls: letsencrypt, or a certificate of an authority; or give it to every client"
    what = "is signed by itself, so that clients refuse it unless they know it"
    assert warned(*good) == [f"certificate.file: {what}; {fix}"]
    fix = "append the intermediate certificates; with an authority of your own, clients must know its root"
    assert warned(*authority.leaf()) == [f"certificate.file: leads to no authority that this host knows; {fix}"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_look_is_told_and_meets_no_traceback(tmp_path: Path) -> None:
    made = pair(tmp_path / "closed")
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        found = told(*made), warned(*made)
    finally:
        os.seteuid(0)
    fix = "make it a file that root can read"
    assert found == (
        [
            f"certificate.file: {made.file} cannot be read: Permission denied; {fix}",
            f"certificate.key: {made.key} cannot be read: Permission denied; {fix}",
        ],
        [],
    )


def test_files_that_are_missing_are_not_warned_about(tmp_path: Path) -> None:
    assert warned(tmp_path / "a", tmp_path / "b") == []


# The chain


def test_a_whole_chain_is_taken(authority: Authority) -> None:
    inner = authority.below("inner")
    file, key = inner.leaf()
    assert told(inner.chained(file), key) == []
    assert told(inner.chained(file, authority.file), key) == []


def test_an_intermediate_that_has_ended_is_refused_by_name(authority: Authority) -> None:
    inner = authority.below("inner", days=1)
    file, key = inner.leaf()
    [line] = told(inner.chained(file), key, now=NOW + 3 * DAY_S)
    fix = "put the authority's present chain behind your certificate"
    assert line == (f"certificate.file: is signed through CN=inner, which has ended: clients refuse it; {fix}")
    assert told(file, key, now=NOW + 3 * DAY_S) == []


def test_a_certificate_for_clients_only_is_refused(authority: Authority) -> None:
    [line] = told(*authority.leaf("extendedKeyUsage=clientAuth"))
    assert line.startswith("certificate.file: is not for servers: clients refuse it; get one for servers")
    assert told(*authority.leaf("extendedKeyUsage=clientAuth,serverAuth")) == []


def test_a_chain_through_what_is_no_authority_is_refused(authority: Authority) -> None:
    nobody = authority.below("nobody", "basicConstraints=CA:FALSE")
    file, key = nobody.leaf()
    [line] = told(nobody.chained(file), key)
    assert "is signed through CN=nobody, which may sign no certificates of servers" in line


def test_a_chain_that_was_joined_without_a_line_feed_is_told_how_to_join_it(authority: Authority) -> None:
    file, key = authority.leaf()
    both = file.with_name("joined.pem")
    both.write_text(file.read_text().rstrip() + authority.file.read_text())
    [line] = told(both, key)
    assert line.startswith("certificate.file: has the end of one certificate and the start of the next on one line")
    assert line.endswith("begin a line there: (cat certificate.pem; echo; cat chain.pem) >fullchain.pem")


@pytest.mark.parametrize("lost", [40, 200])
def test_a_chain_that_was_not_copied_to_its_end_is_damaged(authority: Authority, lost: int) -> None:
    file, key = authority.leaf()
    cut = file.with_name("cut.pem")
    cut.write_text(authority.chained(file).read_text()[:-lost])
    [line] = told(cut, key)
    assert line.startswith(f"certificate.file: {cut} is damaged, and nginx would refuse it: ")
    assert line.endswith("; copy it once more from where it comes from")


def test_a_certificate_that_is_not_the_first_is_told_its_place(authority: Authority) -> None:
    inner = authority.below("inner")
    file, key = inner.leaf()
    wrong = authority.chained(inner.file, file)
    [line] = told(wrong, key)
    assert line.startswith(f"certificate.key: {key} belongs to certificate 3 of {wrong}, and nginx serves the first")


def test_another_order_and_what_is_not_of_the_chain_are_warned_about(authority: Authority) -> None:
    inner = authority.below("inner")
    file, key = inner.leaf()
    assert warned(authority.chained(file, inner.file), key)[0].endswith(
        "put them in this order: CN=leaf, then CN=inner, then CN=root"
    )
    other = authority.below("other")
    assert (
        "holds certificates that are not part of its chain: CN=other" in warned(inner.chained(file, other.file), key)[0]
    )
    assert told(authority.chained(file, inner.file), key) == []


@pytest.mark.parametrize(
    ("key", "kind"),
    [(("-newkey", "ed25519"), "ED25519"), (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp521r1"), "secp521r1")],
)
def test_a_key_that_no_browser_takes_is_warned_about(authority: Authority, key: tuple[str, ...], kind: str) -> None:
    made = authority.leaf(key=key)
    assert told(*made) == []
    assert f"has a key of the kind {kind}, which no common browser takes" in warned(*made)[0]


@pytest.mark.parametrize(
    ("extension", "warning"),
    [
        ("keyUsage=keyEncipherment", "has a keyUsage without digitalSignature, which no common browser takes"),
        ("basicConstraints=CA:TRUE", "is one of an authority (CA:TRUE), which Firefox does not take from a server"),
        ("tlsfeature=status_request", "must come with an answer of OCSP, which nginx does not send here"),
        ("authorityKeyIdentifier=none", "Python 3.13 and later refuse it: Missing Authority Key Identifier (CN=leaf)"),
    ],
)
def test_what_only_some_clients_refuse_is_warned_about(authority: Authority, extension: str, warning: str) -> None:
    made = authority.leaf(extension)
    assert told(*made) == []
    assert any(line.startswith(f"certificate.file: {warning}") for line in warned(*made)), warned(*made)


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        ("basicConstraints=CA:TRUE\nkeyUsage=keyCertSign", "Basic Constraints of CA cert not marked critical"),
        ("basicConstraints=critical,CA:TRUE", "CA cert does not include key usage extension"),
        ("basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\nauthorityKeyIdentifier=none", "Missing Authority"),
    ],
)
def test_an_authority_against_the_letter_of_the_rfc_is_warned_about(
    authority: Authority, extension: str, words: str
) -> None:
    inner = authority.below("inner", extension)
    file, key = inner.leaf()
    [line] = [line for line in warned(inner.chained(file), key) if "no authority" not in line]
    assert line.startswith(f"certificate.file: Python 3.13 and later refuse it: {words}")
    assert "(CN=inner); have the authority make it by RFC 5280" in line


def test_nothing_but_the_unknown_authority_is_said_of_a_usual_certificate(authority: Authority) -> None:
    [line] = warned(*authority.below("inner").leaf("keyUsage=critical,digitalSignature"))
    assert "leads to no authority that this host knows" in line


def test_what_is_said_of_a_certificate_without_a_subject_is_understood(authority: Authority) -> None:
    """Such as one of Let's Encrypt's profile `tlsserver`."""
    made = authority.leaf(subject="/")
    assert told(*made) == []
    [line] = warned(*made)
    assert "leads to no authority that this host knows" in line
    [line] = told(*made, now=NOW + 91 * DAY_S)
    assert "ended" in line


@pytest.mark.parametrize(("days", "is_told"), [(825, False), (826, True)])
def test_a_certificate_for_longer_than_apple_takes_is_warned_about(tmp_path: Path, days: int, is_told: bool) -> None:
    told_of = f"certificate.file: is for {days} days, and Apple's systems take no more than 825"
    assert is_told == any(line.startswith(told_of) for line in warned(*pair(tmp_path, days=days)))


def test_a_signature_with_sha_1_is_refused(authority: Authority) -> None:
    [line] = told(*authority.leaf(digest="sha1"))
    assert "CN=leaf is signed with SHA-1 or older: clients refuse it" in line


# The placeholder


def test_a_placeholder_lets_nginx_start(tmp_path: Path) -> None:
    place = Place(NAME, tmp_path)
    assert place.prepare(("ws.a.org",)).succeeded
    assert place.link.readlink() == place.placeholder
    assert told(place.link / FILE, place.link / KEY) == []


def test_the_placeholders_key_is_nobody_elses(tmp_path: Path) -> None:
    place = Place(NAME, tmp_path)
    place.prepare(("ws.a.org",))
    assert stat.S_IMODE((place.placeholder / KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE(place.placeholder.stat().st_mode) == 0o700


def test_a_placeholder_is_for_every_name(tmp_path: Path) -> None:
    place = Place(NAME, tmp_path)
    assert place.prepare(("ws.a.org", "www.a.org")).succeeded
    certificate = read(place.link / FILE)
    assert certificate is not None
    assert certificate.names == ("ws.a.org", "www.a.org")


def test_a_placeholder_stays(tmp_path: Path) -> None:
    place = Place(NAME, tmp_path)
    place.prepare(("ws.a.org",))
    first = (place.link / FILE).read_bytes()
    place.prepare(("ws.a.org",))
    assert (place.link / FILE).read_bytes() == first


def test_a_lineage_that_is_there_already_needs_no_placeholder(tmp_path: Path) -> None:
    place = Place(NAME, tmp_path)
    pair(place.lineage)
    place.prepare(("ws.a.org",))
    assert place.serves_lineage
    assert not place.placeholder.exists()


@pytest.mark.parametrize("left", ["placeholder.new", "placeholder"])
def test_what_a_run_that_was_killed_has_left_is_made_anew(tmp_path: Path, left: str) -> None:
    place = Place(NAME, tmp_path)
    half = tmp_path / "etc" / NAME / left
    half.mkdir(parents=True)
    (half / FILE).write_text("half a certifi")
    assert place.prepare(("ws.a.org",)).succeeded
    assert told(place.link / FILE, place.link / KEY) == []
    assert sorted(path.name for path in place.link.parent.iterdir()) == ["placeholder", "tls"]


def test_a_link_that_leads_nowhere_is_fixed(tmp_path: Path) -> None:
    place = Place(NAME, tmp_path)
    place.link.parent.mkdir(parents=True)
    place.link.symlink_to(place.lineage)
    place.prepare(("ws.a.org",))
    assert place.link.readlink() == place.placeholder


def test_removing_leaves_what_is_not_ours(tmp_path: Path) -> None:
    place = Place(NAME, tmp_path)
    place.prepare(("ws.a.org",))
    place.webroot.mkdir(parents=True)
    pair(place.lineage)
    place.remove()
    assert not place.link.parent.exists()
    assert not place.webroot.exists()
    assert place.has_lineage
    place.remove()


# tls: letsencrypt


class Certbot:
    """A stand-in for certbot on a host below `place`'s root: it does what the real one was seen to do."""

    def __init__(self, root: Path) -> None:
        self.place = Place(NAME, root)
        self.calls = root / "calls"
        self.calls.touch()
        self.issued = root / "issued"
        self.program = root / "bin" / "certbot"
        self.program.parent.mkdir()
        self.place.hook.parent.mkdir(parents=True)
        self.place.renewal.parent.mkdir(parents=True)
        self.place.lineage.parent.mkdir(parents=True)
        hook = f'echo "hook $RENEWED_LINEAGE" >>{self.calls}; ln -sfn "$RENEWED_LINEAGE" {self.place.link}'
        self._write(self.place.hook, hook)
        self.will_issue("DNS:ws.a.org")
        self.place.prepare(("ws.a.org",))

    def will_issue(self, names: str) -> None:
        pair(self.issued, names)
        live, archive = self.place.lineage, self.place.lineage.parent.parent / "archive" / NAME
        kinds = ("cert", "chain", "fullchain", "privkey")
        renewal = "".join(f"{kind} = {live}/{kind}.pem\\n" for kind in kinds)
        renewal += f"[renewalparams]\\nwebroot_path = {self.place.webroot},\\nserver = '\"$server\"'\\n"
        self._write(
            self.program,
            f'echo "certbot $*" >>{self.calls}\n'
            'while [ $# -gt 0 ]; do [ "$1" = --server ] && server=$2; shift; done\n'
            f"[ -e {self.place.renewal} ] || [ ! -e {archive} ] || {{ echo archive directory exists; exit 1; }}\n"
            f"mkdir -p {live} {archive}; cp {self.issued}/* {archive}; cd {archive}\n"
            f"cp {FILE} cert.pem; cp {FILE} chain.pem\n"
            f"ln -sf {archive}/*.pem {live}\n"
            f"printf '{renewal}' >{self.place.renewal}",
        )

    def nginx_reads(self, path: str, text: str) -> None:
        """What `nginx -T` says, after a file that names nothing."""
        files = f"# configuration file /etc/nginx/nginx.conf:\nevents {{}}\n# configuration file {path}:\n{text}\n"
        self._write(self.program.with_name("nginx"), f"cat <<'END'\n{files}END")

    def will_fail(self) -> None:
        self._write(self.program, "echo 'DNS problem: NXDOMAIN'; exit 1")

    def _write(self, path: Path, script: str) -> None:
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @property
    def told(self) -> list[str]:
        """What was run since it was last asked."""
        lines = self.calls.read_text().splitlines()
        self.calls.write_text("")
        return lines


@pytest.fixture
def certbot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certbot:
    monkeypatch.setattr(programs, "PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return Certbot(tmp_path)


def with_letsencrypt(domain: str | tuple[str, ...] = "ws.a.org", **settings: str) -> Deploy:
    return Deploy(name=NAME, domain=domain, tls="letsencrypt", letsencrypt=LetsEncrypt(**settings))


def test_the_first_certificate_is_asked_for_and_put_into_use(certbot: Certbot) -> None:
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    server = LetsEncrypt().server
    assert certbot.told == [
        f"certbot certonly --non-interactive --agree-tos --no-directory-hooks --server {server} "
        "--register-unsafely-without-email "
        f"--cert-name {NAME} -d ws.a.org --authenticator webroot -w {certbot.place.webroot}",
        f"hook {certbot.place.lineage}",
    ]
    assert certbot.place.serves_lineage


def test_a_certificate_that_will_do_is_not_asked_for_again(certbot: Certbot) -> None:
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert certbot.told
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert certbot.told == []


def test_the_authority_is_told_whom_to_write_to(certbot: Certbot) -> None:
    obtain(with_letsencrypt(email="ops@a.org"), certbot.place, Report(json=True))
    assert " --email ops@a.org " in certbot.told[0]


def test_a_failure_tells_certbots_words_and_how_to_go_on(certbot: Certbot) -> None:
    certbot.will_fail()
    with pytest.raises(CommandError) as failed:
        obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert str(failed.value) == (
        "DNS problem: NXDOMAIN\n"
        f"No new certificate for ws.a.org (there is none yet). {NAME} runs, with a placeholder, which clients refuse.\n"
        "Fix that, then install again: it asks again. Let's Encrypt takes five failures an hour."
    )
    assert not certbot.place.serves_lineage


def test_another_domain_wants_another_certificate(certbot: Certbot) -> None:
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert due(with_letsencrypt("ws.b.org"), certbot.place, NOW) == "the present one is for ws.a.org"
    certbot.will_fail()
    with pytest.raises(CommandError, match="runs, with the one it had"):
        obtain(with_letsencrypt("ws.b.org"), certbot.place, Report(json=True))
    certbot.will_issue("DNS:ws.b.org")
    obtain(with_letsencrypt("ws.b.org"), certbot.place, Report(json=True))
    assert due(with_letsencrypt("ws.b.org"), certbot.place, NOW) is None


def test_a_certificate_is_asked_for_when_a_name_comes_or_goes(certbot: Certbot) -> None:
    one, two = with_letsencrypt(), with_letsencrypt(("ws.a.org", "www.a.org"))
    obtain(one, certbot.place, Report(json=True))
    assert (certbot.told != [], due(two, certbot.place, NOW)) == (True, "the present one is for ws.a.org")
    certbot.will_issue("DNS:ws.a.org,DNS:www.a.org")
    obtain(two, certbot.place, Report(json=True))
    assert f"--cert-name {NAME} -d ws.a.org -d www.a.org --authenticator webroot" in certbot.told[0]
    assert due(two, certbot.place, NOW) is None
    # certbot would go on to ask for proof of both, and renew nothing once one no longer leads here.
    assert due(one, certbot.place, NOW) == "the present one is for ws.a.org, www.a.org"
    certbot.will_issue("DNS:*.a.org")
    obtain(one, certbot.place, Report(json=True))
    assert due(one, certbot.place, NOW) is due(two, certbot.place, NOW) is None


def test_another_authority_is_asked_though_the_certificate_is_not_due(certbot: Certbot) -> None:
    staging = with_letsencrypt(server="https://acme-staging-v02.api.letsencrypt.org/directory")
    obtain(staging, certbot.place, Report(json=True))
    assert "--force-renewal" not in certbot.told[0]
    assert due(with_letsencrypt(), certbot.place, NOW) == "the present one is from another authority"
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert certbot.told[0].endswith(" --force-renewal")


def test_a_certificate_that_nobody_renewed_is_asked_for(certbot: Certbot) -> None:
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert due(with_letsencrypt(), certbot.place, NOW + 74.9 * DAY_S) is None
    assert due(with_letsencrypt(), certbot.place, NOW + 75.5 * DAY_S) == "the present one has 14 days left"


def test_a_certificate_that_no_hook_put_into_use_is_put_into_use(certbot: Certbot) -> None:
    certbot.place.hook.write_text("#!/bin/sh\necho 'nginx -t failed'\nexit 1\n")
    with pytest.raises(CommandError, match=r"nginx -t failed\n.*a placeholder"):
        obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert due(with_letsencrypt(), certbot.place, NOW) == "the present one is not in use"


def test_nginx_is_not_led_to_a_certificate_that_certbot_has_put_elsewhere(certbot: Certbot) -> None:
    certbot.program.write_text("#!/bin/sh\n")
    with pytest.raises(CommandError, match=r"has put it elsewhere than .*/live/chat; does its cli.ini say so"):
        obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert certbot.place.is_whole


@pytest.mark.parametrize("tls", ["off", "files"])
def test_nothing_is_asked_for_without_letsencrypt(certbot: Certbot, tls: str) -> None:
    obtain(Deploy(name=NAME, domain="ws.a.org", tls=tls), certbot.place, Report())  # type: ignore[arg-type]
    assert certbot.told == []


def test_who_leaves_letsencrypt_is_told_what_certbot_still_has(
    certbot: Certbot, capsys: pytest.CaptureFixture[str]
) -> None:
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    obtain(Deploy(name=NAME, domain="ws.a.org"), certbot.place, Report())
    assert f"to remove it: certbot delete --cert-name {NAME}" in capsys.readouterr().out


def test_purging_removes_the_lineage(certbot: Certbot) -> None:
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert certbot.told
    assert delete(certbot.place) == []
    assert certbot.told == [f"certbot delete --non-interactive --cert-name {NAME}"]


def test_a_lineage_that_another_site_has_as_well_is_kept(certbot: Certbot) -> None:
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert certbot.told
    certbot.nginx_reads("/etc/nginx/a", f"server {{\n    ssl_certificate {certbot.place.lineage}/fullchain.pem;\n}}")
    assert delete(certbot.place) == [f"the certificate {NAME} of certbot stays, because /etc/nginx/a has it as well"]
    assert certbot.told == []
    certbot.nginx_reads("/etc/nginx/a", f"server {{\n    # ssl_certificate {certbot.place.lineage}/fullchain.pem;\n}}")
    assert delete(certbot.place) == []


def test_a_lineage_that_certbot_does_not_remove_is_told(certbot: Certbot) -> None:
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    certbot.will_fail()
    assert delete(certbot.place) == [f"certbot delete --cert-name {NAME} failed; do it by hand: DNS problem: NXDOMAIN"]


def test_a_lineage_of_the_same_name_that_is_not_ours_is_let_alone(
    certbot: Certbot, capsys: pytest.CaptureFixture[str]
) -> None:
    certbot.place.renewal.write_text("[renewalparams]\nauthenticator = nginx\n")
    assert delete(certbot.place) == []
    forget(certbot.place, Report())
    assert (certbot.told, capsys.readouterr().out) == ([], "")


# wsbundle status


def shown(deploy: Deploy, place: Place, now: float = NOW + HOUR_S) -> str:
    return str(described(deploy, place, now, None)["text"])


def refused(deploy: Deploy, place: Place, now: float = NOW + HOUR_S) -> list[str]:
    return [str(fault) for fault in refusals(deploy, place, now, None)]


def test_status_tells_a_placeholder_from_a_certificate(certbot: Certbot) -> None:
    deploy = with_letsencrypt()
    assert shown(deploy, certbot.place) == "a PLACEHOLDER for ws.a.org"
    assert refused(deploy, certbot.place) == ["it is a placeholder; the next installation asks for the real one"]
    obtain(deploy, certbot.place, Report(json=True))
    assert shown(deploy, certbot.place) == "ws.a.org by CN=Test, 89 days left"
    assert refused(deploy, certbot.place) == []
    facts = described(deploy, certbot.place, NOW + HOUR_S, None)
    assert (facts["kind"], facts["days_left"]) == ("lineage", 89)


def test_status_tells_a_certificate_that_will_not_do(certbot: Certbot) -> None:
    obtain(with_letsencrypt(), certbot.place, Report(json=True))
    assert "is for ws.a.org, not for ws.b.org" in refused(with_letsencrypt("ws.b.org"), certbot.place)[0]
    assert refused(with_letsencrypt(), certbot.place, NOW + 92.5 * DAY_S) == ["ended 3 days ago; renew it"]
    (certbot.place.lineage / FILE).unlink()
    assert "is not there; the next installation gets one" in refused(with_letsencrypt(), certbot.place)[0]


def test_status_tells_of_a_file(good: Pair, tmp_path: Path) -> None:
    assert shown(with_files(*good), Place(NAME, tmp_path)) == "ws.a.org by CN=Test, 89 days left"
    gone = with_files(tmp_path / "a", good.key)
    assert shown(gone, Place(NAME)) == f"NONE can be read in {tmp_path}/a"
    assert f"{tmp_path}/a is not there" in refused(gone, Place(NAME))[0]


def test_a_certificate_that_ended_and_is_still_served_is_refused_whatever_the_file_is(
    good: Pair, tmp_path: Path
) -> None:
    old = pair(tmp_path, days=1)
    deploy, later = with_files(*good), NOW + 3 * DAY_S
    assert refusals(deploy, Place(NAME), later, der(good.file)) == []
    [fault] = refusals(deploy, Place(NAME), later, der(old.file))
    assert str(fault) == "nginx still serves another, which ended 2 days ago; systemctl reload nginx"


def test_status_tells_that_nginx_shows_another_than_the_file(good: Pair, tmp_path: Path) -> None:
    deploy, place = with_files(*good), Place(NAME)
    same, other = der(good.file), der(pair(tmp_path).file)
    assert "ANOTHER" not in str(described(deploy, place, NOW, same)["text"])
    assert str(described(deploy, place, NOW, other)["text"]).endswith("; nginx serves ANOTHER: systemctl reload nginx")


def _copies(certbot: Certbot) -> None:
    for file in certbot.place.lineage.iterdir():
        text = file.read_text()
        file.unlink()
        file.write_text(text)


def _no_account(certbot: Certbot) -> None:
    renewal = certbot.place.renewal
    renewal.write_text(renewal.read_text() + "account = 5ff34d\n")


def _no_name(certbot: Certbot) -> None:
    renewal = certbot.place.renewal
    renewal.write_text(renewal.read_text() + "account = /\n")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda certbot: certbot.place.renewal.unlink(), "renewal/chat.conf is gone"),
        (lambda certbot: certbot.place.renewal.write_text(""), "renewal/chat.conf is damaged"),
        (_copies, "live/chat/cert.pem is not a link, as after a copy that followed links"),
        (lambda certbot: (certbot.place.lineage / "chain.pem").unlink(), "live/chat/chain.pem is gone"),
        (_no_account, "its account with the authority, 5ff34d, is gone"),
        (_no_name, "its account with the authority, /, is gone"),
    ],
)
def test_a_lineage_that_certbot_will_not_renew_makes_way_for_one_that_it_will(
    certbot: Certbot, damage: Callable[[Certbot], object], why: str
) -> None:
    place = certbot.place
    obtain(with_letsencrypt(), place, Report(json=True))
    assert place.why_not_renewed == ""
    first = (place.link / FILE).read_text()
    damage(certbot)
    assert place.why_not_renewed.endswith(why)
    asks = due(with_letsencrypt(), place, NOW)
    assert asks is not None
    assert asks.endswith(why)
    certbot.will_fail()
    with pytest.raises(CommandError, match=r"certbot will not renew the present one.*\n?.*runs, with the one it had"):
        obtain(with_letsencrypt(), place, Report(json=True))
    # All is as before, for nginx and for other programs of the host that have it.
    assert (place.link / FILE).read_text() == (place.lineage / FILE).read_text() == first
    assert place.why_not_renewed.endswith(why)
    assert refusals(with_letsencrypt(), place, NOW + HOUR_S, None) == []
    assert list(place.backups.iterdir()) == []
    certbot.will_issue("DNS:ws.a.org")
    obtain(with_letsencrypt(), place, Report(json=True))
    assert [path.name for path in place.backups.glob("*/live-*")] == [f"live-{NAME}"]
    assert place.why_not_renewed == ""
    assert place.serves_lineage
    assert due(with_letsencrypt(), place, NOW) is None


def test_a_lineage_that_nginx_has_not_had_stays_away_from_it(certbot: Certbot) -> None:
    place = certbot.place
    obtain(with_letsencrypt(), place, Report(json=True))
    place.renewal.unlink()
    (place.lineage / FILE).resolve().write_text("")  # restored from the backup of a full disk: nginx would not start
    put_link(place.link, str(place.placeholder))
    assert place.is_whole
    certbot.will_fail()
    with pytest.raises(CommandError, match="runs, with a placeholder"):
        obtain(with_letsencrypt(), place, Report(json=True))
    assert place.link.readlink() == place.placeholder
    assert place.has_lineage


@pytest.mark.skipif(os.geteuid() != 0 or not os.path.isdir("/dev/shm"), reason="only root can give files away")
def test_a_lineage_that_was_on_another_disk_for_a_while_has_its_owners_and_groups(certbot: Certbot) -> None:
    place = certbot.place
    obtain(with_letsencrypt(), place, Report(json=True))
    key = (place.lineage / KEY).resolve()
    os.chown(key, -1, 65534)
    place.renewal.unlink()
    with TemporaryDirectory(dir="/dev/shm") as directory:
        assert os.stat(directory).st_dev != key.stat().st_dev
        place.backups = Path(directory)
        certbot.will_fail()
        with pytest.raises(CommandError, match="runs, with the one it had"):
            obtain(with_letsencrypt(), place, Report(json=True))
    assert key.stat().st_gid == 65534
