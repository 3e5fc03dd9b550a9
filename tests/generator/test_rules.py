"""What must hold between settings: the nearest values that a rule lets through, and the nearest that it does not.

The messages stand in tests/faults.
"""

import re
import subprocess
import sys
from collections.abc import Mapping

import pytest

from generator.config import rules
from generator.config.check import check
from generator.config.document import Located, MappingNode, parse
from generator.config.load import ConfigError, load_text
from generator.config.rules import RULES
from generator.config.schema import Deploy
from service import tokens
from service.core import bounds
from service.declaration import settings_of
from service.mailbox import ledger
from service.settings import Settings

OFFICE = "nginx: {trusted_proxies: [10.0.0.0/8], idle_limit: 350}\n"


def findings(text: str) -> dict[str, set[str]]:
    """The keys that each rule finds fault with, in settings that are sound each for itself."""
    root, faults = parse(with_domain(text), "deploy.yaml")
    assert isinstance(root, MappingNode)
    checked = check(root, Deploy, faults)
    assert checked.faults == []
    found = {rule.name: {key for key, _ in rule.check(checked.deploy, checked.origins)} for rule in RULES}
    return {name: keys for name, keys in found.items() if keys}


def with_domain(text: str) -> str:
    if "domain:" in text:
        return text
    return f"{{domain: a.org, {text[1:]}" if text.startswith("{") else f"domain: a.org\n{text}"


def faults(text: str) -> list[Located]:
    with pytest.raises(ConfigError) as refused:
        load_text(text, "deploy.yaml")
    return refused.value.faults


def test_the_least_deploy_yaml_breaks_no_rule() -> None:
    assert findings("domain: a.org\n") == {}


HUNDRED = ", ".join(f"a{number}.org" for number in range(100))
# They look at all settings, so each of these may be sound or not: see below.
OF_ALL_THAT_IS_GIVEN = ("app-settings-have-an-app", "app-is-asked-for-nothing-else")

GOOD = {
    "app-settings-have-an-app": [
        "{app: {callable: 'main:app', health: /healthz}, needs: {network: [any]}}",
        "{app: {callable: null, path: ., requirements: requirements.txt}, needs: {exec: false, write: []}}",
    ],
    "app-is-asked-for-nothing-else": [
        "{app: {callable: 'main:app'}, auth: none, mailbox: {keep: none}, origins: []}",
        "{app: {callable: 'main:app'}, limits: {connections: 2000, message_size: 1024, handshake_burst: 200}}",
        "{app: {callable: 'main:app'}, nginx: {default_server: true, health_from: [10.0.0.1]}, drain: {timeout: 20}}",
        "{auth: token, limits: {queue: 2097152}}",
    ],
    "app-is-run-by-uvicorn": [
        "{app: {callable: 'main:app'}, server: uvicorn}",
        "app: {callable: 'main:app'}",
        "server: standalone",
    ],
    "app-has-its-files-inside": [
        "app: {callable: 'main:app', requirements: deploy/uv.lock, static: {/static/: static/, /a/: ..a/b, /b/: .c}}",
        "app: {callable: 'main:app', requirements: null}",
        "app: {callable: 'main:app', path: shop, requirements: ../requirements.txt}",
    ],
    "static-files-are-below-a-path": [
        "app: {callable: 'main:app', static: {/static/: static, /a/b-c/~d/: e}, health: /static}",
        "app: {callable: 'main:app', static: {/health/: static}, health: /healthz}",
    ],
    "health-has-its-own-path": ["app: {callable: 'main:app', health: /h}", "app: {callable: 'main:app', health: null}"],
    "commands-can-be-read": [
        "app: {callable: 'main:app', before: ['echo \"a b\"', 'true'], build: [\"echo 'it'\"]}",
        "app: {callable: 'main:app', before: [], build: []}",
    ],
    "needed-network-is-of-addresses": [
        "{app: {callable: 'main:app'}, needs: {network: [any]}}",
        "{app: {callable: 'main:app'}, needs: {network: [10.0.0.5, 10.0.0.0/8, 'fd00::5', 'fd00::/64', 127.0.0.53]}}",
        "{app: {callable: 'main:app'}, needs: {network: []}}",
    ],
    "needed-directories-are-its-own": [
        "{app: {callable: 'main:app'}, needs: {write: [/srv, /srv/a b, /var/lib/other]}}",
        "{app: {callable: 'main:app'}, needs: {write: [/etcetera, /opt2/a, /homes]}}",
    ],
    "needs-have-a-confinement": [
        "{app: {callable: 'main:app'}, manager: supervisor}",
        "{app: {callable: 'main:app'}, needs: {jit: true}}",
        "{app: {callable: 'main:app'}, needs: {jit: false, network: []}, manager: supervisor}",
    ],
    "needed-devices-are-devices": ["{app: {callable: 'main:app'}, needs: {devices: [/dev/ttyUSB0, /dev/snd/a]}}"],
    "engine-is-named": ["engine: {url: 'unix:///run/e.sock', user: a}"],
    "engine-is-encrypted": [
        "engine: {url: 'valkey://127.0.0.1'}",
        "engine: {url: 'redis://[::1]:6380'}",
        "engine: {url: 'rediss://10.0.0.5'}",
        "engine: {url: 'valkey://10.0.0.5', insecure: true}",
        "engine: {url: 'unix:///run/e.sock'}",
    ],
    "engine-is-an-address": [
        "engine: {url: 'valkeys://10.0.0.5:65535'}",
        "engine: {url: 'valkeys://[fd00::5]'}",
        "engine: {url: 'valkeys://223.255.255.254'}",
        "{manager: supervisor, engine: {url: 'valkeys://engine.mycompany.org'}}",
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1'], allow: [10.0.0.0/8, 10.0.0.9]}",
    ],
    "engine-is-not-this-service": [
        "{port: 9000, engine: {url: 'valkey://127.0.0.1:9001'}}",
        "{port: 9000, engine: {url: 'valkey://127.0.0.2:9000'}}",
        "{port: 9000, engine: {url: 'valkeys://10.0.0.5:9000', serve: true}}",
        "{port: 9000, host: 0.0.0.0, expose: true, engine: {url: 'valkeys://10.0.0.5:9000'}}",
        "{port: 9000, host: 0.0.0.0, expose: true, engine: {url: 'valkey://[::1]:9000'}}",
        "{socket: /run/queue-websocket/ws.sock, engine: {url: 'valkey://127.0.0.1:8765'}}",
        "{socket: /run/queue-websocket/ws.sock, engine: {url: 'unix:///run/e.sock'}}",
    ],
    "nginx-is-not-at-the-engine": [
        "{nginx: {http_port: 6380}, engine: {url: 'valkey://127.0.0.1:6379'}}",
        "{nginx: {http_port: 6379}, engine: {url: 'valkeys://10.0.0.5:6379'}}",
        "{nginx: {http_port: 6379, listen: [10.0.0.6]}, engine: {url: 'valkey://127.0.0.1:6379'}}",
        "{nginx: {https_port: 6379}, engine: {url: 'valkey://127.0.0.1:6379'}}",
        "{nginx: {http_port: 6379}, engine: {url: 'unix:///run/e.sock'}}",
    ],
    "sentinels-differ": [
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1', '10.0.0.6:2', '10.0.0.7:1']}",
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['one:1', 'two:1']}",
    ],
    "engine-asks-for-a-password": [
        "engine: {url: 'unix:///run/e.sock'}",
        "engine: {url: 'valkeys://10.0.0.5', password_file: /etc/a}",
        "engine: {url: 'valkeys://10.0.0.5', serve: true}",
    ],
    "engine-certificate-is-whole": [
        "engine: {url: 'valkeys://10.0.0.5'}",
        "engine: {url: 'valkeys://10.0.0.5', ca: /etc/a}",
        "engine: {url: 'valkeys://10.0.0.5', cert: /etc/a, key: /etc/b, serve: true}",
    ],
    "sentinels-know-the-master": [
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1'], master: m}",
        "engine: {url: 'valkeys://10.0.0.5'}",
    ],
    "sentinels-are-enough": [
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.5:1', '10.0.0.6:1', '10.0.0.7:1']}",
        "engine: {url: 'valkeys://10.0.0.5'}",
    ],
    "every-master-is-reached": [
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1'], allow: [10.0.0.7]}",
        "{manager: supervisor, engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1']}}",
    ],
    "silence-within-the-drain": [
        "{engine: {url: 'unix:///run/e.sock', silence: 9.5}, drain: {timeout: 10}}",
        "drain: {timeout: 3, window: 0}",
    ],
    "engine-files-can-be-read": [
        "engine: {url: 'unix:///run/e.sock', password_file: /etc/a, ca: /etc/b, cert: /homes/c, key: /srv/d}"
    ],
    "served-engine-is-one": [
        "engine: {serve: true, url: 'valkeys://10.0.0.5:1024', user: a}",
        "engine: {serve: true, url: 'valkeys://10.0.0.5', user: a}",
        "engine: {serve: true, url: 'unix:///run/queue-websocket-engine/e.sock', user: a}",
        "engine: {url: 'unix:///run/e.sock', sentinels: ['10.0.0.5:1']}",
    ],
    "domain-is-a-name-or-an-address": [
        "domain: 192.168.1.3",
        "domain: ws1.mycompany.org2",
        "domain: 1.mycompany.org",
        "domain: 0xcafe.org",
    ],
    "domain-is-real": [
        "domain: yourhosting.com",
        "domain: your-hostel.org",
        "domain: mydomain.net",
        "domain: changemenot.org",
    ],
    "hosts-differ": ["hosts: [ws1]", "hosts: [ws1, admin@ws1]", "hosts: []"],
    "domains-differ": ["domain: a.org", "domain: [a.org]", "domain: [a.org, www.a.org, b.org]"],
    "domains-fit-a-certificate": [
        f"{{domain: [{HUNDRED}], tls: letsencrypt}}",
        f"domain: [{HUNDRED}, b.org]",
        f"{{domain: [{HUNDRED}, b.org], tls: letsencrypt, letsencrypt: {{server: https://ca.a.org/directory}}}}",
    ],
    "domain-is-public": [
        "{domain: [a.org, nas.local], tls: off}",
        "{domain: [a.org, b.org], tls: letsencrypt}",
        "{domain: nas.local, tls: off}",
        "{domain: my.localhost.org, tls: letsencrypt}",
        "{domain: notlocal, tls: off}",
        "{domain: 10.0.0.1, tls: off}",
        "{domain: nas.local, tls: files, certificate: {file: /a, key: /b}}",
        "{domain: myexample.com, tls: letsencrypt}",
        "{domain: nas.local, tls: letsencrypt, letsencrypt: {server: https://ca.nas.local/acme/directory}}",
        "{domain: nas.local, tls: letsencrypt, letsencrypt: {server: https://myletsencrypt.org:9000/directory}}",
    ],
    "domain-is-no-example": [
        "domain: myexample.com",
        "domain: example.com.org",
        "domain: a.org",
        "{domain: example.com, tls: letsencrypt}",
    ],
    "name-is-free": ["name: nginx-websocket", "name: system-d", "name: nginx2"],
    "what-is-replaced-has-another-name": [
        "replaces: [/etc/systemd/system/old.service, /etc/nginx/sites-enabled/old]",
        "{name: web, replaces: [/etc/nginx/conf.d/web.conf, /etc/systemd/system/queue-websocket.service]}",
    ],
    "included-directory-is-its-own": ["name: snippets", "{name: snippet, nginx: {include: true}}"],
    "replaced-files-differ": ["replaces: [/etc/systemd/system/old.service, /etc/systemd/system/old.socket]"],
    "the-system-is-not-replaced": [
        "replaces: [/etc/systemd/system/nginx-old.service, /etc/nginx/sites-enabled/default]",
    ],
    "name-is-not-a-users": ["{name: backup, user: web}", "name: backups"],
    "user-is-its-own": ["user: web", "{name: backup, user: web}", "user: roots"],
    "nothing-is-a-placeholder": [
        "{tls: files, certificate: {file: /pathto/a, key: /path/b}}",
        "name: your-hosting",
        "user: your_host",
    ],
    "host-has-a-port": [
        "{host: '::1', port: 9000}",
        "{host: '::1', socket: /run/queue-websocket/a, port: 9000}",
        "{host: 127.0.0.2, socket: null}",
        "{port: none}",
    ],
    "socket-is-in-its-directory": [
        "socket: /run/queue-websocket/ws.sock",
        "{name: a, socket: /run/a/...}",
        "socket: null",
    ],
    "bus-is-in-its-directory": [
        "bus: /run/queue-websocket/bus",
        "{name: a, bus: /run/a/workers, socket: /run/a/ws.sock}",
        "bus: null",
    ],
    "mailbox-has-an-owner": ["{auth: token, mailbox: {keep: disk}}", "mailbox: {ttl: 3600}"],
    "mailbox-is-where-clients-come": ["{auth: token, mailbox: {keep: disk}}", "engine: {url: 'unix:///run/v/v.sock'}"],
    "mailbox-holds-a-message": [
        "{auth: token, mailbox: {keep: disk, bytes: 65600}}",
        "{auth: token, limits: {message_size: 128}, mailbox: {keep: disk, bytes: 192}}",
        "{auth: token, mailbox: {keep: disk, bytes: 1073741824}}",
        "limits: {message_size: 16777216, queue: 16779264, bytes_per_second: 16777216}",
    ],
    "mailbox-is-in-its-directory": [
        "mailbox: {directory: /var/lib/queue-websocket/mailbox}",
        "{name: a, mailbox: {directory: /var/lib/a/b/c}}",
        "mailbox: {directory: null}",
    ],
    "paths-differ": [
        "{name: a, socket: /run/a/ws.sock}",
        "{tls: files, certificate: {file: /a, key: /a}}",
        "{bus: /run/queue-websocket/other, socket: /run/queue-websocket/bus}",
    ],
    "origins-tell-pages-apart": ["origins: ['https://null.org', 'tauri://localhost', 'chrome-extension://abc']"],
    "keys-can-be-read": ["keys: /etc/keys.json", "keys: /srv/home/keys.json", "keys: /homes/keys.json", "keys: null"],
    "host-is-an-address": ["host: ::1", "host: 127.0.0.2", "{host: '2001:db8::1', expose: true, tls: letsencrypt}"],
    "exposed-on-purpose": [
        "host: ::1",
        "host: 127.0.0.1",
        "host: 127.9.9.9",
        "socket: /run/queue-websocket/ws.sock",
        "{host: 0.0.0.0, expose: true, tls: letsencrypt}",
        f"{{host: '::', expose: true, {OFFICE.strip()}}}",
        "expose: false",
    ],
    "ping-timeout-within-interval": ["ping: {interval: 30}", "ping: {interval: 1.5, timeout: 1.5}"],
    "ping-before-idle-limit": [
        "{nginx: {idle_limit: 61}}",
        "{nginx: {idle_limit: 60}, ping: {interval: 59.9}}",
        "ping: {interval: 3600}",
    ],
    "ping-before-usual-idle-limit": [
        "{nginx: {trusted_proxies: [10.0.0.1]}, ping: {interval: 59.9}}",
        "{nginx: {trusted_proxies: [10.0.0.1], idle_limit: 61}}",
        "{nginx: {trusted_proxies: []}, ping: {interval: 3600}}",
    ],
    "certificate-is-named": [
        "{tls: files, certificate: {file: /a, key: /b}}",
        "{tls: letsencrypt, certificate: {file: null}}",
        "tls: off",
    ],
    "authority-is-asked": [
        "{tls: letsencrypt, letsencrypt: {email: a@b.org, server: https://ca.b.org/acme}}",
        "{tls: off, letsencrypt: {email: null, server: https://acme-v02.api.letsencrypt.org/directory}}",
    ],
    "addresses-are-networks": [
        "nginx: {health_from: [10.0.0.1, 10.0.0.1/32, 10.0.0.0/8, '::1', '::/64', '2001:DB8::/32']}",
        "nginx: {health_from: [0.0.0.0/0], trusted_proxies: []}",
    ],
    "nginx-listens-on-addresses": [
        "nginx: {listen: [203.0.113.5]}",
        "nginx: {listen: ['::', 0.0.0.0, 203.0.113.5, '2001:DB8::5', 169.254.1.1]}",
    ],
    "nginx-has-ports-of-its-own": [
        "nginx: {http_port: 8764}",
        "nginx: {http_port: 443, https_port: 443}",
        "{nginx: {http_port: 8765, listen: [203.0.113.5]}}",
        "{nginx: {http_port: 8765, listen: [0.0.0.0]}, host: '::1'}",
        "{nginx: {http_port: 8765}, socket: /run/queue-websocket/ws.sock}",
        "{tls: files, certificate: {file: /a, key: /b}, nginx: {http_port: 443, https_port: 80}}",
    ],
    "path-can-be-asked-for": ["nginx: {path: /}", "nginx: {path: /..a/b./}", "nginx: {path: /ws}"],
    "site-of-ones-own-says-it-itself": [
        "nginx: {include: true, path: /ws}",
        "{nginx: {include: true, http_port: 80}, tls: 'off'}",
        "{nginx: {listen: [127.0.0.1]}, tls: letsencrypt}",
    ],
    "lets-encrypt-comes-to-port-80": [
        "{tls: letsencrypt, nginx: {https_port: 8443}}",
        "nginx: {http_port: 8080}",
    ],
    "proxies-speak-the-proxy-protocol": [
        "nginx: {proxy_protocol: true, trusted_proxies: [10.0.0.5], idle_limit: 350}",
        "nginx: {proxy_protocol: false}",
    ],
    "proxies-are-few": [
        "nginx: {trusted_proxies: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 10.0.0.0], idle_limit: 350}",
        "nginx: {trusted_proxies: ['fc00::/7', '::/10', '2001:db8::/32'], idle_limit: 350}",
        "nginx: {trusted_proxies: [16.0.0.0/4, 16.0.0.0/8], idle_limit: 350}",
        "nginx: {health_from: ['::/0', 0.0.0.0/0]}",
    ],
    "address-share": [
        "limits: {connections: 100}",
        "limits: {connections: 1, connections_per_address: 1}",
    ],
    "connections-can-be-kept": [
        "drain: {keep: true}",
        "{drain: {keep: false}, server: gunicorn, manager: supervisor}",
        "server: standalone",
        "manager: supervisor",
    ],
    "drain-fits": ["drain: {timeout: 8}", "drain: {timeout: 3, window: 0}", "drain: {timeout: 593, window: 590}"],
    "message-within-a-second": [
        "limits: {bytes_per_second: 65536}",
        "limits: {message_size: 4194304, queue: 8388608}",
    ],
    "message-holds-a-token": ["{auth: token, limits: {message_size: 6144}}", "limits: {message_size: 6143}"],
    "queue-holds-a-message": [
        "limits: {queue: 67584}",
        "limits: {message_size: 63488, queue: 65536}",
    ],
    "burst-carries-an-office": [
        "limits: {handshake_burst: 100}",
        "limits: {handshake_burst: 1, connections_per_address: 1}",
    ],
    "env-is-the-operators": ["env: {PORT: 1, PATHS: /a, HOMES: /b, LDAP: c, WEBSOCKET_COLOUR: blue, python: 3}"],
    "values-fit-the-env-file": [
        "welcome: it's {uuid}",
        "env: {A: $5, B: 'C:\\dir', C: '\"quoted\"', D: 'a # b', E: '!%;&|<>*?~', F: ' blanks '}",
        "env: {A: ''}",
    ],
}

BAD = {
    "app-settings-have-an-app": [
        "app: {health: /healthz}",
        "app: {requirements: null}",
        "needs: {exec: true}",
        "{app: {callable: null, static: {/static/: static}}}",
    ],
    "app-is-asked-for-nothing-else": [
        "{app: {callable: 'main:app'}, auth: token}",
        "{app: {callable: 'main:app'}, bus: /run/queue-websocket/workers}",
        "{app: {callable: 'main:app'}, limits: {queue: 2097152}}",
        "{app: {callable: 'main:app'}, limits: {queue: 100000}}",
        "{app: {callable: 'main:app'}, nginx: {metrics_from: [10.0.0.1]}}",
        "{app: {callable: 'main:app'}, engine: {url: 'unix:///run/e.sock'}}",
    ],
    "app-is-run-by-uvicorn": [
        "{app: {callable: 'main:app'}, server: gunicorn}",
        "{app: {callable: 'main:app'}, server: standalone}",
    ],
    "app-has-its-files-inside": [
        "app: {callable: 'main:app', requirements: a/../requirements.txt}",
        "app: {callable: 'main:app', requirements: ../..}",
        "app: {callable: 'main:app', requirements: ./requirements.txt}",
        "app: {callable: 'main:app', static: {/static/: ..}}",
        "app: {callable: 'main:app', static: {/static/: .}}",
        "app: {callable: 'main:app', static: {/static/: ./}}",
        "app: {callable: 'main:app', static: {/static/: a/../../b}}",
        "app: {callable: 'main:app', static: {/static/: a//b}}",
    ],
    "static-files-are-below-a-path": [
        "app: {callable: 'main:app', static: {/static: static}}",
        "app: {callable: 'main:app', static: {/: static}}",
        "app: {callable: 'main:app', static: {//: static}}",
        "app: {callable: 'main:app', static: {/a/../b/: static}}",
        "app: {callable: 'main:app', static: {/static/: static}, health: /static/health}",
    ],
    "health-has-its-own-path": ["app: {callable: 'main:app', health: /}"],
    "commands-can-be-read": [
        "app: {callable: 'main:app', before: ['true', 'echo \"a']}",
        "app: {callable: 'main:app', build: [\"echo 'a\"]}",
    ],
    "needed-network-is-of-addresses": [
        "{app: {callable: 'main:app'}, needs: {network: [any, 10.0.0.5]}}",
        "{app: {callable: 'main:app'}, needs: {network: [any, any]}}",
        "{app: {callable: 'main:app'}, needs: {network: [10.0.0.5/8]}}",
        "{app: {callable: 'main:app'}, needs: {network: ['10.0.0.5:5432']}}",
        "{app: {callable: 'main:app'}, needs: {network: [db.mycompany.org]}}",
        "{app: {callable: 'main:app'}, needs: {network: [localhost]}}",
    ],
    "needed-directories-are-its-own": [
        *(f"{{app: {{callable: 'main:app'}}, needs: {{write: [{path}]}}}}" for path in ("/etc", "/opt/a", "/run/a")),
        "{app: {callable: 'main:app'}, needs: {write: [/srv/../etc]}}",
        "{app: {callable: 'main:app'}, needs: {write: [//etc]}}",
        "{app: {callable: 'main:app'}, needs: {write: [/srv/]}}",
        "{app: {callable: 'main:app'}, needs: {write: [/home]}}",
        "{app: {callable: 'main:app'}, needs: {write: [/tmp/a]}}",
    ],
    "needs-have-a-confinement": [
        "{app: {callable: 'main:app'}, needs: {jit: true}, manager: supervisor}",
        "{app: {callable: 'main:app'}, needs: {network: [any]}, manager: supervisor}",
    ],
    "needed-devices-are-devices": [
        "{app: {callable: 'main:app'}, needs: {devices: [/srv/a]}}",
        "{app: {callable: 'main:app'}, needs: {devices: [/dev/../etc/shadow]}}",
        "{app: {callable: 'main:app'}, needs: {devices: [/device]}}",
    ],
    "engine-is-named": ["engine: {user: a}", "engine: {serve: true}", "engine: {silence: 5}"],
    "engine-is-encrypted": [
        "engine: {url: 'valkey://10.0.0.5'}",
        "engine: {url: 'redis://engine'}",
        "engine: {url: 'valkeys://10.0.0.5', insecure: true}",
        "engine: {url: 'unix:///run/e.sock', insecure: true}",
    ],
    "engine-is-an-address": [
        "engine: {url: 'valkeys://224.0.0.1'}",
        "engine: {url: 'valkeys://255.255.255.255'}",
        "engine: {url: 'valkeys://[0:0::0]'}",
        "engine: {url: 'valkeys://[ff02::1]'}",
        "engine: {url: 'valkeys://[fe80::1]'}",
        "engine: {url: 'valkeys://[::ffff:a00:5]'}",
        "{manager: supervisor, engine: {url: 'valkeys://[::]'}}",
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1'], allow: [0.0.0.0]}",
        "engine: {url: 'valkeys://engine'}",
        "engine: {url: 'valkeys://10.0.0.5:0'}",
        "engine: {url: 'valkeys://10.0.0.5:65536'}",
        "engine: {url: 'valkeys://[::]'}",
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['one:1']}",
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1'], allow: [10.0.0.1/8]}",
        "engine: {url: 'valkeys://10.0.0.5', allow: [10.0.0.1]}",
    ],
    "engine-is-not-this-service": [
        "{port: 9000, engine: {url: 'valkey://127.0.0.1:9000'}}",
        "{port: 9000, engine: {url: 'valkey://localhost:9000'}}",
        "{port: 9000, host: '::1', engine: {url: 'valkey://[0::1]:9000'}}",
        "{port: 9000, host: '::', engine: {url: 'valkey://127.0.0.2:9000'}}",
        "{port: 9000, host: 0.0.0.0, engine: {url: 'valkeys://10.0.0.5:9000', serve: true}}",
        "{port: 9000, host: 10.0.0.5, engine: {url: 'valkeys://10.0.0.5:9000'}}",
        "{port: 26379, host: 10.0.0.6, engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:26379']}}",
        "{socket: /run/queue-websocket/ws.sock, engine: {url: 'unix:///run/queue-websocket/ws.sock'}}",
    ],
    "nginx-is-not-at-the-engine": [
        "{nginx: {http_port: 6379}, engine: {url: 'valkey://127.0.0.1:6379'}}",
        "{nginx: {http_port: 6379}, engine: {url: 'valkeys://10.0.0.5:6379', serve: true}}",
        "{nginx: {http_port: 6379, listen: [10.0.0.5]}, engine: {url: 'valkeys://10.0.0.5'}}",
        "{nginx: {http_port: 26379}, engine: {url: 'valkeys://10.0.0.5', sentinels: ['127.0.0.1:26379']}}",
        "{tls: files, nginx: {https_port: 6379}, engine: {url: 'valkey://[::1]:6379'}}",
    ],
    "sentinels-differ": [
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1', '10.0.0.7:1', '10.0.0.6:1']}",
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['[fd00::5]:1', '[fd00:0::5]:1']}",
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['one:1', 'one:1']}",
    ],
    "engine-asks-for-a-password": ["engine: {url: 'valkeys://10.0.0.5'}", "engine: {url: 'valkey://127.0.0.1'}"],
    "engine-certificate-is-whole": [
        "engine: {url: 'valkeys://10.0.0.5', cert: /etc/a}",
        "engine: {url: 'valkeys://10.0.0.5', key: /etc/a}",
        "engine: {url: 'valkeys://10.0.0.5', serve: true}",
        "engine: {url: 'valkey://127.0.0.1', ca: /etc/a}",
        "engine: {url: 'unix:///run/e.sock', cert: /etc/a, key: /etc/b}",
    ],
    "sentinels-know-the-master": [
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1']}",
        "engine: {url: 'valkeys://10.0.0.5', master: m}",
        "engine: {url: 'unix:///run/e.sock', sentinels: ['10.0.0.6:1'], master: m}",
    ],
    "sentinels-are-enough": [
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.5:1', '10.0.0.5:2', '10.0.0.5:3']}",
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.5:1', '10.0.0.6:1']}",
        "engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.5:1']}",
    ],
    "every-master-is-reached": ["engine: {url: 'valkeys://10.0.0.5', sentinels: ['10.0.0.6:1']}"],
    "silence-within-the-drain": [
        "{engine: {url: 'unix:///run/e.sock', silence: 10}, drain: {timeout: 10}}",
        "{engine: {url: 'unix:///run/e.sock'}, drain: {timeout: 4, window: 0}}",
    ],
    "engine-files-can-be-read": [
        "engine: {url: 'unix:///tmp/e.sock'}",
        "engine: {url: 'valkeys://10.0.0.5', password_file: /root/a}",
        "engine: {url: 'valkeys://10.0.0.5', ca: /home/a/b}",
    ],
    "served-engine-is-one": [
        "engine: {serve: true, url: 'valkeys://10.0.0.5'}",
        "engine: {serve: true, url: 'valkeys://10.0.0.5:1023', user: a}",
        "engine: {serve: true, url: 'unix:///run/queue-websocket/e.sock', user: a}",
        "engine: {serve: true, url: 'unix:///run/queue-websocket-engine/a/e.sock', user: a}",
        "engine: {serve: true, url: 'valkeys://10.0.0.5', user: a, sentinels: ['10.0.0.6:1']}",
    ],
    "domain-is-a-name-or-an-address": [
        "domain: 192.168.1",
        "domain: 192.168.1.300",
        "domain: '10'",
        "domain: [a.org, ws.mycompany.0x1f]",
    ],
    "domain-is-real": [
        "domain: [a.org, yourdomain.com]",
        "domain: yourdomain.com",
        "domain: a.your-domain",
        "domain: changeme",
        "domain: x.your-host.org",
    ],
    "hosts-differ": ["hosts: [ws1, ws1]", "hosts: [ws1, ws2, ws1]"],
    "domains-differ": ["domain: [a.org, a.org]", "domain: [a.org, b.org, a.org]"],
    "domains-fit-a-certificate": [f"{{domain: [{HUNDRED}, b.org], tls: letsencrypt}}"],
    "domain-is-public": [
        "{domain: [a.org, nas.local], tls: letsencrypt}",
        "{domain: local, tls: letsencrypt}",
        "{domain: a.invalid, tls: letsencrypt}",
        "{domain: a.test, tls: letsencrypt}",
        "{domain: a.b.internal, tls: letsencrypt}",
        "{domain: 10.0.0.1, tls: letsencrypt}",
        "{domain: example.net, tls: letsencrypt}",
        "{domain: a.test, tls: letsencrypt, letsencrypt: {server: "
        "https://acme-staging-v02.api.letsencrypt.org/directory}}",
    ],
    "domain-is-no-example": [
        "domain: example.com",
        "domain: a.b.example.org",
        "domain: example",
        "domain: a.invalid",
        "{domain: example.com, tls: letsencrypt, letsencrypt: {server: https://ca.b.org/acme}}",
    ],
    "name-is-free": ["name: nginx", "name: www-data", "name: systemd-a", "name: redis"],
    "what-is-replaced-has-another-name": [
        "replaces: [/etc/systemd/system/queue-websocket.service]",
        "{name: web, replaces: [/etc/nginx/sites-enabled/web]}",
        "{name: web, replaces: [/etc/supervisor/conf.d/web.conf]}",
        "{name: web, replaces: [/etc/systemd/system/web.socket]}",
    ],
    "included-directory-is-its-own": [
        "{name: snippets, nginx: {include: true}}",
        "{name: sites-enabled, nginx: {include: true}}",
    ],
    "replaced-files-differ": ["replaces: [/etc/systemd/system/old.service, /etc/systemd/system/old.service]"],
    "the-system-is-not-replaced": [
        "replaces: [/etc/systemd/system/ssh.service]",
        "replaces: [/etc/systemd/system/nginx.service]",
    ],
    "name-is-not-a-users": ["name: mail", "name: backup"],
    "user-is-its-own": ["user: www-data", "user: daemon", "user: _apt", "user: systemd-network"],
    "nothing-is-a-placeholder": [
        "name: yourdomain",
        "user: your-host",
        "{tls: files, certificate: {file: /path/to/a, key: /b}}",
        "{tls: files, certificate: {file: /a, key: /etc/YOUR_NAME.pem}}",
        "socket: /run/queue-websocket/changeme",
    ],
    "host-has-a-port": ["{socket: /run/queue-websocket/a, host: '::1'}", "{port: none, host: 127.0.0.1}"],
    "socket-is-in-its-directory": [
        "socket: /run/queue-websocket/a/b",
        "socket: /run/queue-websocket/",
        "socket: /run/queue-websocket/.",
        "socket: /run/queue-websockets/a",
        "socket: /run//queue-websocket/a",
    ],
    "bus-is-in-its-directory": [
        "bus: /run/queue-websocket",
        "bus: /run/queue-websocket/",
        "bus: /run/queue-websocket/..",
        "bus: /run/queue-websocket/a/b",
        "bus: /run/other/bus",
        "bus: /var/lib/queue-websocket/bus",
    ],
    "mailbox-has-an-owner": ["mailbox: {keep: disk}", "{auth: none, mailbox: {keep: disk}}"],
    "mailbox-is-where-clients-come": ["{auth: token, mailbox: {keep: disk}, engine: {url: 'unix:///run/v/v.sock'}}"],
    "mailbox-holds-a-message": [
        "{auth: token, mailbox: {keep: disk, bytes: 65599}}",
        "{auth: token, limits: {message_size: 128}, mailbox: {keep: disk, bytes: 191}}",
        "{auth: token, mailbox: {keep: disk, bytes: 1073741824, total: 1073741823}}",
    ],
    "mailbox-is-in-its-directory": [
        "mailbox: {directory: /var/lib/queue-websocket}",
        "mailbox: {directory: /var/lib/queue-websocket/}",
        "mailbox: {directory: /var/lib/queue-websocket/../x}",
        "mailbox: {directory: /var/lib/queue-websockets/mailbox}",
        "mailbox: {directory: /srv/mailbox}",
    ],
    "paths-differ": [
        "socket: /run/queue-websocket/bus",
        "{bus: /run/queue-websocket/a, socket: /run/queue-websocket/a}",
        "{name: a, keys: /etc/a/gunicorn.conf.py}",
        "{tls: files, certificate: {file: /a, key: /b}, keys: //b}",
        "{tls: files, certificate: {file: /etc/queue-websocket/keys.json, key: /b}}",
        "keys: /etc/queue-websocket",
        "keys: /etc/queue-websocket/.env/keys.json",
        "keys: /run/queue-websocket/bus/keys.json",
        "{tls: files, certificate: {file: /a, key: /b}, keys: /a/b}",
    ],
    "origins-tell-pages-apart": ["origins: ['null']", "origins: [null]", "origins: ['file://']"],
    "keys-can-be-read": [
        "keys: /home/me/keys.json",
        "keys: /root/keys.json",
        "keys: /run/user/0/keys.json",
        "keys: /tmp/keys.json",
        "keys: /var/tmp/keys.json",
    ],
    "host-is-an-address": ["host: 1.2.3", "host: 1.2.3.4.5", "host: '::1::'", "host: '1'", "host: 127.0.0.01"],
    "exposed-on-purpose": [
        "host: 0.0.0.0",
        "host: '::'",
        "host: 10.0.0.1",
        "expose: true",
        "{host: '::1', expose: true}",
        "{socket: /run/queue-websocket/a, expose: true}",
        "{host: 0.0.0.0, expose: true}",
    ],
    "ping-timeout-within-interval": ["ping: {interval: 29.9}", "ping: {interval: 5, timeout: 6}"],
    "ping-before-idle-limit": [
        "nginx: {idle_limit: 60}",
        "{nginx: {idle_limit: 10}, ping: {interval: 10, timeout: 1}}",
    ],
    "ping-before-usual-idle-limit": ["nginx: {trusted_proxies: [10.0.0.1]}"],
    "certificate-is-named": [
        "tls: files",
        "{tls: files, certificate: {file: /a}}",
        "{tls: files, certificate: {key: /a}}",
        "{tls: off, certificate: {key: /a}}",
        "{tls: letsencrypt, certificate: {file: /a}}",
    ],
    "authority-is-asked": [
        "letsencrypt: {email: a@b.org}",
        "{tls: files, certificate: {file: /a, key: /b}, letsencrypt: {server: https://ca.b.org/acme}}",
    ],
    "addresses-are-networks": [
        "nginx: {health_from: [10.0.0.1/8]}",
        "nginx: {metrics_from: [10.0.0.1/8]}",
        "nginx: {health_from: [10.0.0.0/33]}",
        "nginx: {health_from: [10.0.0.0/08]}",
        "nginx: {health_from: [10.0.0]}",
        "nginx: {health_from: ['10.0.0.1/']}",
        "nginx: {health_from: ['2001:db8::1/32']}",
        "nginx: {health_from: ['::ffff:10.0.0.0/104']}",
        "nginx: {health_from: ['::FFFF:10.0.0.1']}",
        "nginx: {trusted_proxies: [0.0.0.0/0.0.0.0], idle_limit: 350}",
    ],
    "nginx-listens-on-addresses": [
        "nginx: {listen: []}",
        "nginx: {listen: [203.0.113]}",
        "nginx: {listen: [203.0.113.5, 203.0.113.5]}",
        "nginx: {listen: ['2001:db8::5', '2001:DB8:0::5']}",
        "nginx: {listen: ['::ffff:203.0.113.5']}",
        "nginx: {listen: ['fe80::5']}",
        "nginx: {listen: ['ff02::1']}",
        "nginx: {listen: [239.0.0.1]}",
        "nginx: {listen: [255.255.255.255]}",
    ],
    "nginx-has-ports-of-its-own": [
        "nginx: {http_port: 8765}",
        "nginx: {https_port: 8443}",
        "{nginx: {http_port: 8765, listen: ['::']}, host: '::1'}",
        "{tls: files, certificate: {file: /a, key: /b}, nginx: {http_port: 443}}",
        "{tls: files, certificate: {file: /a, key: /b}, nginx: {https_port: 8765}}",
    ],
    "path-can-be-asked-for": ["nginx: {path: /a/../b}", "nginx: {path: /.}", "nginx: {path: /../}"],
    "site-of-ones-own-says-it-itself": [
        "nginx: {include: true, listen: [127.0.0.1]}",
        "nginx: {include: true, trusted_proxies: [10.0.0.1]}",
        "{nginx: {include: true}, tls: letsencrypt}",
        "{nginx: {include: true}, letsencrypt: {email: a@a.org}}",
    ],
    "lets-encrypt-comes-to-port-80": ["{tls: letsencrypt, nginx: {http_port: 8080}}"],
    "proxies-speak-the-proxy-protocol": ["nginx: {proxy_protocol: true}"],
    "proxies-are-few": [
        "nginx: {trusted_proxies: ['::/0'], idle_limit: 350}",
        "nginx: {trusted_proxies: ['2000::/4', '3000::/4'], idle_limit: 350}",
        "nginx: {trusted_proxies: [0.0.0.0/0], idle_limit: 350}",
        "nginx: {trusted_proxies: [0.0.0.0/1, 128.0.0.0/1], idle_limit: 350}",
        "nginx: {trusted_proxies: [16.0.0.0/4, 10.0.0.0/8], idle_limit: 350}",
    ],
    "address-share": ["limits: {connections: 99}", "limits: {connections: 1, connections_per_address: 2}"],
    "connections-can-be-kept": [
        "{drain: {keep: true}, server: gunicorn}",
        "{drain: {keep: true}, server: standalone}",
        "{drain: {keep: true}, manager: supervisor}",
    ],
    "drain-fits": ["drain: {timeout: 7}", "drain: {window: 8}", "drain: {timeout: 2, window: 0}"],
    "message-within-a-second": ["limits: {bytes_per_second: 65535}", "limits: {message_size: 4194305}"],
    "message-holds-a-token": ["{auth: token, limits: {message_size: 6143}}"],
    "queue-holds-a-message": ["limits: {queue: 67583}", "limits: {message_size: 1046529}"],
    "burst-carries-an-office": ["limits: {handshake_burst: 99}", "limits: {connections_per_address: 101}"],
    "env-is-the-operators": [
        "env: {WORKERS: 2}",
        "env: {PATH: /a}",
        "env: {PYTHONPATH: /a}",
        "env: {LD_PRELOAD: /a}",
        "env: {LISTEN_FDS: 1}",
        "env: {UVICORN_WORKERS: 4}",
        "env: {GUNICORN_CMD_ARGS: -w4}",
        "env: {NOTIFY_SOCKET: /a}",
        "env: {WATCHDOG_USEC: 1}",
    ],
    "values-fit-the-env-file": [
        "welcome: ${uuid}",
        'env: {A: "it\'s 5 $"}',
        "env: {A: 'a\\'}",
        "env: {A: 'a\\\\b'}",
    ],
}


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in GOOD.items() for text in texts])
def test_a_rule_lets_its_good_neighbours_through(rule: str, text: str) -> None:
    assert rule not in findings(text)


@pytest.mark.parametrize(("rule", "text"), [(rule, text) for rule, texts in BAD.items() for text in texts])
def test_a_rule_stops_its_bad_neighbours(rule: str, text: str) -> None:
    assert rule in findings(text)


@pytest.mark.parametrize("cases", [GOOD, BAD])
def test_every_rule_has_neighbours_on_both_sides(cases: Mapping[str, list[str]]) -> None:
    assert set(cases) == {rule.name for rule in RULES}


def test_no_two_rules_share_a_name_and_each_names_settings_that_exist() -> None:
    known = {setting.key for setting in settings_of(Deploy)}
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(known.issuperset(rule.keys) for rule in RULES)


def test_a_finding_is_about_a_key_that_its_rule_names() -> None:
    """Or a rule would be asked, and speak, about a value that is not sound."""
    for rule in RULES:
        found = set().union(*(findings(text)[rule.name] for text in BAD[rule.name]))
        assert rule.name in OF_ALL_THAT_IS_GIVEN or {_setting(key) for key in found} <= set(rule.keys)


def _setting(key: str) -> str:
    """That of an entry of a mapping or a list."""
    return re.sub(r"^(env|app\.static)\..*|\[\d+\]$", r"\1", key)


def test_a_rule_about_all_that_is_given_does_not_speak_about_a_value_that_is_not_sound() -> None:
    [fault] = faults("domain: a.org\napp: {body_size: 20m}\n")
    assert fault.fault.what == "'20m' has a unit"
    [fault] = faults("domain: a.org\napp: {callable: 'main:app'}\nmailbox: {keep: everything}\n")
    assert fault.fault.what == "'everything' is unknown"


def test_every_variable_of_the_service_is_refused_in_env() -> None:
    for setting in settings_of(Settings):
        [fault] = faults(f"domain: a.org\nenv: {{{setting.extra['env']}: x}}\n")
        assert str(fault.fault) == f"is rendered from a setting; set `{setting.key}` instead"


def test_a_rule_is_not_asked_when_a_key_of_it_is_not_sound() -> None:
    [fault] = faults("domain: a.org\nping: {interval: 5s}\n")
    assert (fault.key, fault.fault.what) == ("ping.interval", "'5s' has a unit")


def test_a_rule_is_asked_beside_faults_in_other_keys() -> None:
    found = faults("domain: a.org\nping: {interval: 20}\nport: 80\ncolour: blue\n")
    assert [fault.key for fault in found] == ["ping.timeout", "port", "colour"]


def test_a_rule_is_asked_of_the_sound_items_of_a_list() -> None:
    found = faults("domain: a.org\nnginx: {trusted_proxies: [everybody, 10.1.1.1/8], idle_limit: 350}\n")
    assert [str(fault.fault) for fault in found] == [
        "'10.1.1.1/8' is not an IP address or network; write 10.0.0.0/8",
        "'everybody' does not fit; use an IP address or network, such as 10.0.0.0/8",
    ]


def test_what_a_mend_says_mends() -> None:
    load_text("domain: a.org\nnginx: {idle_limit: 60}\nping: {interval: 24, timeout: 24}\n", "deploy.yaml")
    load_text(
        "domain: a.org\nnginx: {trusted_proxies: [10.0.0.0/8]}\nping: {interval: 25, timeout: 25}\n", "deploy.yaml"
    )
    load_text("domain: a.org\ndrain: {window: 3, timeout: 6}\n", "deploy.yaml")
    load_text("domain: a.org\nlimits: {message_size: 4194304, queue: 4196352}\n", "deploy.yaml")
    load_text("domain: a.org\nhost: '::'\nexpose: true\ntls: letsencrypt\n", "deploy.yaml")


def test_the_grace_of_the_last_client_is_the_services_own() -> None:
    assert rules.CLOSE_GRACE_S == bounds.CLOSE_GRACE_S


def test_what_a_mailbox_counts_beside_a_message_is_the_services_own() -> None:
    assert rules.MAILBOX_OVERHEAD == ledger.OVERHEAD


def test_the_longest_token_is_the_services_own() -> None:
    assert rules.LONGEST_TOKEN == tokens.MAX_TOKEN_LENGTH


def test_a_warning_stops_nothing() -> None:
    loaded = load_text("domain: example.com\nlimits: {handshake_burst: 5}\n", "deploy.yaml")
    assert [warning.key for warning in loaded.warnings] == ["domain", "limits.handshake_burst"]


@pytest.mark.parametrize("first", [module.__name__ for module in rules.ELSEWHERE])
def test_rules_are_in_the_same_order_whichever_module_was_imported_first(first: str) -> None:
    script = f"import {first}; from generator.config.rules import RULES; print(*(each.name for each in RULES))"
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert listed.split() == [each.name for each in RULES]
