"""TLS on real hosts: certbot asks Pebble, a certificate authority for tests, which asks nginx for the proof."""

import json
import os
import shutil
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.hosts.conftest import running
from tests.hosts.console import NAME, Console
from tests.hosts.driver import CACHE
from tests.run.stage import wait_until

DOMAIN, OTHER_DOMAIN = "ws.wsbundle.test", "ws2.wsbundle.test"
AUTHORITY = "https://127.0.0.1:14000/dir"
ENCRYPTED: dict[str, Any] = {"domain": DOMAIN, "tls": "letsencrypt", "letsencrypt": {"server": AUTHORITY}}
LINK, LINEAGE = f"/etc/{NAME}/tls", f"/etc/letsencrypt/live/{NAME}"
RENEW = ("certbot", "renew", "--force-renewal", "--no-random-sleep-on-renew")

_CURVE = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
# Pebble's own certificate, for certbot to trust; it forgets its accounts when it ends, so it is not started anew.
_PREPARE = f"""
mkdir /etc/pebble && cd /etc/pebble
openssl req -x509 {_CURVE} -days 30 -subj /CN=pebble -addext subjectAltName=IP:127.0.0.1 -keyout key -out certificate
cp certificate /usr/local/share/ca-certificates/pebble.crt
update-ca-certificates
"""
_PEBBLE = {
    "listenAddress": "127.0.0.1:14000",
    "managementListenAddress": "127.0.0.1:15000",
    "certificate": "/etc/pebble/certificate",
    "privateKey": "/etc/pebble/key",
    "httpPort": 80,
    "tlsPort": 443,
}
_UNIT = """
[Service]
Environment=PEBBLE_VA_NOSLEEP=1 PEBBLE_WFE_NONCEREJECT=0
ExecStart=pebble -config /etc/pebble/config
"""
_ROOT = "import ssl, urllib.request as r; c = ssl._create_unverified_context(); "
_ROOT += "print(r.urlopen('https://127.0.0.1:15000/roots/0', context=c).read().decode())"


@pytest.fixture(scope="session")
def authority_layers(warm_layers: tuple[Path, ...], suite: str) -> Iterator[tuple[Path, ...]]:
    target = CACHE / f"layer-{os.getpid()}-pebble{suite}"
    with running(*warm_layers) as console:
        install = ("apt-get", "-q", "-y", "install", "--no-install-recommends", "certbot", "pebble")
        console.run("apt-get", "-q", "update")
        console.run(*install, DEBIAN_FRONTEND="noninteractive")
        console.run("sh", "-e", "-c", _PREPARE)
        console.write("/etc/pebble/config", json.dumps({"pebble": _PEBBLE}))
        console.write("/etc/systemd/system/pebble.service", _UNIT)
        console.host.shut_down()
        console.host.upper.rename(target)
    yield (target, *warm_layers)
    shutil.rmtree(target)


@pytest.fixture
def unheard(authority_layers: tuple[Path, ...]) -> Iterator[Console]:
    """A host that has the domains, and cannot reach its certificate authority."""
    with running(*authority_layers) as console:
        console.write("/etc/hosts", f"127.0.0.1 localhost fresh {DOMAIN} {OTHER_DOMAIN}\n")
        yield console


@pytest.fixture
def host(unheard: Console) -> Console:
    """The same, and its certificate authority answers."""
    start(unheard)
    return unheard


def start(console: Console) -> None:
    console.run("systemctl", "start", "pebble")
    console.run("sh", "-c", "until ss -Hltn | grep -q :15000; do sleep 0.1; done")


def trusting(console: Console) -> ssl.SSLContext:
    """A client's, to whom only Pebble's root is an authority."""
    return ssl.create_default_context(cadata=console.run("python3", "-c", _ROOT))


def careless() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@contextmanager
def client(console: Console, context: ssl.SSLContext, domain: str = DOMAIN) -> Iterator[ClientConnection]:
    """A WebSocket from this machine, encrypted."""
    address = (console.host.address, 443)
    with connect(f"wss://{domain}/", address=address, ssl=context, open_timeout=10, proxy=None) as websocket:
        assert "Welcome" in str(websocket.recv(timeout=5))
        websocket.send(json.dumps({"recipient_uuid": domain, "message": "connected"}))
        yield websocket


def answers(websocket: ClientConnection, domain: str = DOMAIN) -> bool:
    """Whether a message to oneself comes back."""
    text = json.dumps({"recipient_uuid": domain, "message": "hello"})
    websocket.send(text)
    return websocket.recv(timeout=5) == text


def served(console: Console, domain: str = DOMAIN) -> str:
    """The certificate that a client of this domain gets."""
    command = f"openssl s_client -connect 127.0.0.1:443 -servername {domain} </dev/null 2>/dev/null"
    return console.run("sh", "-c", f"{command} | openssl x509")


def link(console: Console) -> str:
    return console.run("readlink", LINK).strip()


def test_the_first_certificate_is_obtained_and_the_second_installation_does_nothing(host: Console) -> None:
    assert "Nothing to do" not in host.install(**ENCRYPTED)
    assert link(host) == LINEAGE
    with client(host, trusting(host)) as websocket:
        assert answers(websocket)
    assert f"{DOMAIN} by CN=Pebble Intermediate CA" in host.status()
    pids, issued = host.main_pids(), served(host)
    assert "ask for a certificate" not in host.wsbundle("install")
    assert (host.main_pids(), served(host)) == (pids, issued)
    host.host.reboot()
    assert served(host) == issued


def test_the_doctor_sees_that_nothing_renews_it_or_another_authority_would(host: Console) -> None:
    looks = ("doctor", "--only", "certbot-timer", "--only", "letsencrypt.server")
    host.install(**ENCRYPTED)
    host.wsbundle(*looks)
    host.run("systemctl", "disable", "--now", "certbot.timer")
    host.run(
        "sed",
        "-i",
        "s|^server = .*|server = https://ca.example.org/directory|",
        f"/etc/letsencrypt/renewal/{NAME}.conf",
    )
    said = host.wsbundle(*looks, code=1)
    assert "nothing renews the certificate" in said
    assert "https://ca.example.org/directory" in said


def test_what_is_renewed_while_another_site_is_broken_is_served_once_that_is_mended(host: Console) -> None:
    host.install(**ENCRYPTED)
    before = served(host)
    host.write("/etc/nginx/conf.d/broken.conf", "nonsense;\n")
    host.run(*RENEW)
    assert served(host) == before
    assert "nginx serves ANOTHER" in host.wsbundle("doctor", "--only", "certificate", code=3)
    host.run("rm", "/etc/nginx/conf.d/broken.conf")
    host.run("systemctl", "restart", f"{NAME}.certificate.service")  # as it does each quarter of an hour
    host.run("sh", "-c", f"while systemctl is-active --quiet {NAME}.certificate.service; do sleep 0.1; done")
    # systemd only asks nginx to read it anew.
    wait_until(lambda: served(host) != before, "nginx serves the new one")
    host.wsbundle("doctor", "--only", "certificate")
    assert host.run("systemctl", "--failed", "--no-legend") == ""
    host.write("/etc/nginx/conf.d/broken.conf", "nonsense;\n")
    host.run(*RENEW)
    host.run("rm", "/etc/nginx/conf.d/broken.conf")
    host.wsbundle("uninstall", "--purge")
    assert host.run("systemctl", "list-units", "--all", "--no-legend", f"{NAME}.certificate.service") == ""


@pytest.mark.parametrize("damage", [f": >/etc/letsencrypt/renewal/{NAME}.conf", "rm -r /etc/letsencrypt/archive"])
def test_a_lineage_that_certbot_cannot_read_is_replaced_under_its_own_name(host: Console, damage: str) -> None:
    host.install(**ENCRYPTED)
    host.run("sh", "-c", damage)
    host.status(code=1)
    assert "asks for a certificate" in host.wsbundle("plan", code=3)
    host.install(**ENCRYPTED)
    assert sorted(host.run("ls", "/etc/letsencrypt/live").split()) == ["README", NAME]
    assert "Nothing to do" in host.wsbundle("install")
    host.run(*RENEW)
    host.status()


def test_one_certificate_is_for_every_name_and_another_one_when_a_name_goes(host: Console) -> None:
    names = [DOMAIN, OTHER_DOMAIN]
    host.install(**ENCRYPTED | {"domain": names})
    context = trusting(host)
    for name in names:
        with client(host, context, name) as websocket:
            assert answers(websocket, name)
    assert "Nothing to do" in host.wsbundle("install")
    host.wsbundle("doctor", "--only", "domain")
    host.install(**ENCRYPTED)
    assert f"certificate:  {DOMAIN} by CN=Pebble" in host.status()
    host.wsbundle("rollback")
    with client(host, context, OTHER_DOMAIN) as websocket:
        assert answers(websocket, OTHER_DOMAIN)


def test_a_live_websocket_outlives_a_renewal_and_the_next_client_gets_the_new_certificate(host: Console) -> None:
    host.install(**ENCRYPTED)
    before, context = served(host), trusting(host)
    with client(host, context) as websocket:
        host.run(*RENEW)
        host.run("sh", "-c", "until pgrep -f 'nginx: worker process is shutting dow[n]'; do sleep 0.1; done")
        assert answers(websocket)
    assert served(host) != before
    with client(host, context) as websocket:
        assert answers(websocket)
    assert "ANOTHER" not in host.status()


def test_the_renewal_of_another_certificate_reloads_nothing(host: Console) -> None:
    host.install(**ENCRYPTED)
    webroot = f"/var/lib/{NAME}-acme"
    other = ("certonly", "-n", "--webroot", "-w", webroot, "--cert-name", "other", "-d", DOMAIN, "--server", AUTHORITY)
    host.run("certbot", *other)
    pids = host.main_pids()
    host.run(*RENEW, "--cert-name", "other")
    assert (host.main_pids(), link(host)) == (pids, LINEAGE)


def test_an_authority_that_does_not_answer_leaves_a_service_that_runs_on_a_placeholder(unheard: Console) -> None:
    said = unheard.install(code=1, **ENCRYPTED)
    assert f"No new certificate for {DOMAIN} (there is none yet)" in said
    assert "Fix that, then install again" in said
    assert unheard.current() == "1"
    assert "CLIENTS REFUSE IT: it is a placeholder" in unheard.status(code=1)
    with client(unheard, careless()) as websocket:
        assert answers(websocket)
    assert unheard.run("stat", "-Lc", "%a %U", f"{LINK}/privkey.pem").strip() == "600 root"
    start(unheard)
    unheard.wsbundle("install")
    with client(unheard, trusting(unheard)) as websocket:
        assert answers(websocket)


def test_another_domain_gets_another_certificate(host: Console) -> None:
    host.install(**ENCRYPTED)
    host.install(**{**ENCRYPTED, "domain": OTHER_DOMAIN})
    with client(host, trusting(host), OTHER_DOMAIN) as websocket:
        assert answers(websocket, OTHER_DOMAIN)


def test_going_back_to_another_domain_gets_its_certificate_again(host: Console) -> None:
    host.install(**ENCRYPTED)
    host.install(**{**ENCRYPTED, "domain": OTHER_DOMAIN})
    host.wsbundle("rollback")
    with client(host, trusting(host)) as websocket:
        assert answers(websocket)


def test_a_certificate_that_certbot_does_not_delete_is_told_and_the_rest_goes(host: Console) -> None:
    host.install(**ENCRYPTED)
    host.write("/usr/local/sbin/certbot", "#!/bin/sh\necho it is locked; exit 1\n")
    host.run("chmod", "755", "/usr/local/sbin/certbot")
    said = host.wsbundle("uninstall", "--purge", code=1)
    assert f"certbot delete --cert-name {NAME} failed; do it by hand: it is locked" in said
    assert host.current() == ""
    assert NAME not in host.run("getent", "passwd")


def test_plain_http_leads_to_https_and_old_tls_is_refused(host: Console) -> None:
    host.install(**ENCRYPTED)
    request = f"GET /a?b=c HTTP/1.1\\r\\nHost: {DOMAIN}\\r\\nConnection: close\\r\\n\\r\\n"
    answer = host.run("bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/80; printf '{request}' >&3; cat <&3")
    assert answer.startswith("HTTP/1.1 308 ")
    assert f"\r\nLocation: https://{DOMAIN}/a?b=c\r\n" in answer.replace("\n", "\r\n").replace("\r\r", "\r")
    offer = ("openssl", "s_client", "-connect", "127.0.0.1:443", "-cipher", "ALL:@SECLEVEL=0", "-servername", DOMAIN)
    for version, taken in (("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)):
        assert ("Cipher is (NONE)" not in host.run(*offer, f"-{version}", check=False)) == taken, version


@pytest.mark.parametrize("purge", [False, True])
def test_uninstalling_leaves_certbots_files_and_purging_leaves_none(host: Console, purge: bool) -> None:
    before = host.listing()
    host.install(**ENCRYPTED)
    said = host.wsbundle("uninstall", *(["--purge"] if purge else []))
    assert ("certbot delete" in said) == (not purge)
    left = {line.split()[0] for line in host.listing() - before}
    record = f"/var/lib/wsbundle.d/{NAME}.json"
    data = {f"/etc/{NAME}", f"/etc/{NAME}/keys.json", f"/var/lib/{NAME}", record}
    ours = {path for path in left if NAME in path} - (set() if purge else data)
    assert all(path.startswith("/etc/letsencrypt/") for path in ours)
    assert bool(ours) == (not purge)


# tls: files


def make_pair(console: Console, directory: str, domain: str, days: int = 90) -> dict[str, Any]:
    """A certificate of an authority that the host trusts; the settings that name it."""
    console.run(
        "sh",
        "-e",
        "-c",
        f"""
        mkdir -p {directory} && cd {directory}
        openssl req -x509 {_CURVE} -subj /CN=root -days 90 -addext keyUsage=keyCertSign -keyout ca.key -out ca.pem
        openssl req {_CURVE} -subj /CN=leaf -keyout key.pem -out request
        printf 'subjectAltName=DNS:{domain}' >names
        openssl x509 -req -in request -CA ca.pem -CAkey ca.key -CAcreateserial -days {days} -extfile names -out file.pem
        cp ca.pem /usr/local/share/ca-certificates/$(basename {directory}).crt
        update-ca-certificates
        chmod 600 key.pem
        """,
    )
    certificate = {"file": f"{directory}/file.pem", "key": f"{directory}/key.pem"}
    return {"domain": DOMAIN, "tls": "files", "certificate": certificate}


def test_a_certificate_in_files_is_served(unheard: Console) -> None:
    said = unheard.install(**make_pair(unheard, "/etc/ssl/good", DOMAIN))
    assert "certificate." not in said
    with client(unheard, ssl.create_default_context(cadata=unheard.run("cat", "/etc/ssl/good/ca.pem"))) as websocket:
        assert answers(websocket)
    assert f"{DOMAIN} by CN=root, 89 days left" in unheard.status()
    make_pair(unheard, "/etc/ssl/good", DOMAIN)
    assert "nginx serves ANOTHER: systemctl reload nginx" in unheard.status()


def test_a_certificate_that_clients_refuse_later_is_told_by_status_plan_and_install(unheard: Console) -> None:
    settings = make_pair(unheard, "/etc/ssl/good", DOMAIN)
    unheard.install(**settings)
    make_pair(unheard, "/etc/ssl/good", OTHER_DOMAIN)
    what = f"is for {OTHER_DOMAIN}, not for {DOMAIN}"
    assert f"CLIENTS REFUSE IT: {what}" in unheard.status(code=1)
    for word in ("plan", "install"):
        said = unheard.wsbundle(word, code=1)
        assert what in said
        assert "Nothing to do" not in said
    unheard.run("systemctl", "mask", "nginx")
    ending = "clients refuse its certificate; it will not run after its next start. Nothing was changed."
    assert f"{NAME} runs, and {ending}" in unheard.wsbundle("install", code=1)
    unheard.run("systemctl", "unmask", "nginx")
    make_pair(unheard, "/etc/ssl/good", DOMAIN)
    unheard.run("systemctl", "reload", "nginx")
    assert "Nothing to do" in unheard.wsbundle("install")
    unheard.run("rm", "/etc/ssl/good/file.pem")
    assert "CLIENTS REFUSE IT: /etc/ssl/good/file.pem is not there" in unheard.status(code=1)


def test_a_rollback_to_a_certificate_that_clients_refuse_by_now_changes_nothing(unheard: Console) -> None:
    unheard.install(**make_pair(unheard, "/etc/ssl/former", DOMAIN))
    unheard.install(**make_pair(unheard, "/etc/ssl/good", DOMAIN))
    make_pair(unheard, "/etc/ssl/former", OTHER_DOMAIN)
    said = unheard.wsbundle("rollback", code=1)
    assert f"certificate.file of generation 1: is for {OTHER_DOMAIN}, not for {DOMAIN}" in said
    assert unheard.current() == "2"
    make_pair(unheard, "/etc/ssl/former", DOMAIN)
    unheard.wsbundle("rollback")
    make_pair(unheard, "/etc/ssl/former", OTHER_DOMAIN)
    # It is that of the site which is judged, not that of deploy.yaml.
    assert f"CLIENTS REFUSE IT: is for {OTHER_DOMAIN}, not for {DOMAIN}" in unheard.status(code=1)


def test_certificate_files_that_will_not_do_are_refused_before_anything_changes(unheard: Console) -> None:
    wrong = make_pair(unheard, "/etc/ssl/wrong", OTHER_DOMAIN, days=5)
    wrong["certificate"]["key"] = "/etc/ssl/wrong/ca.key"
    unheard.run("chmod", "644", "/etc/ssl/wrong/ca.key")
    before = unheard.listing()
    said = unheard.install(code=1, **wrong)
    for fault in (
        "certificate.key: /etc/ssl/wrong/ca.key does not belong to /etc/ssl/wrong/file.pem",
        f"certificate.file: is for {OTHER_DOMAIN}, not for {DOMAIN}",
        "certificate.file: warning: ends in 4 days",
        "certificate.key: warning: /etc/ssl/wrong/ca.key is open to every user",
        "Nothing was changed.",
    ):
        assert fault in said
    assert unheard.listing() == before
