"""Run by test_ways.py in a network namespace of its own, where ports and addresses are free: what the proof finds."""

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from generator.host.facts import addresses, addresses_of, has_address, is_elsewhere, resolves_here
from generator.host.neighbours import Surroundings, ways_in
from generator.host.probe import Endpoint, Unhealthy, probe, silence
from tests.run.stage import DOMAIN, NAME, Stage, as_systemd, nginx

NETWORK = """\
link set lo up
address add 203.0.113.5/32 dev lo
address add 203.0.113.6/32 dev lo
address add 2001:db8::5/128 dev lo nodad"""
ADDRESSES = ("0.0.0.0", "127.0.0.2", "203.0.113.6", "203.0.113.7")
TAKES_TWO = "server { listen 127.0.0.1:80; listen 203.0.113.5:80; return 418; }\n"


def outcome(named: tuple[str, ...]) -> str:
    endpoint = Endpoint(DOMAIN, False, ways=ways_in(("0.0.0.0", "::"), Surroundings((), addresses(), named)))
    try:
        probe(endpoint, patience_s=0.1)
    except Unhealthy as error:
        assert silence(endpoint, 5) is not None
        return str(error)
    assert silence(endpoint, 5) is None
    return "a message came back"


def allow_nonlocal() -> bool:
    """As who runs keepalived does. The setting is the namespace's own."""
    return Path("/proc/sys/net/ipv4/ip_nonlocal_bind").write_text("1") > 0


if __name__ == "__main__":
    for words in NETWORK.splitlines():
        subprocess.run(["ip", *words.split()], check=True)
    with TemporaryDirectory(prefix="ws-") as directory:
        stage = Stage(Path(directory))
        site = stage.root / f"etc/nginx/sites-available/{NAME}"
        site.write_text(site.read_text().replace(f"listen 127.0.0.1:{stage.http_port};", "listen 80; listen [::]:80;"))
        stage.http_port = 80
        (stage.root / "etc/nginx/sites-enabled/000").write_text(TAKES_TWO)
        with nginx(stage), as_systemd(stage):
            found = {
                "addresses": addresses(),
                "of a number": sorted(addresses_of("203.0.113.6")),
                "resolves": [resolves_here("203.0.113.6"), resolves_here("203.0.113.7")],
                "has": [has_address("203.0.113.6"), has_address("203.0.113.7")],
                "elsewhere": [is_elsewhere(host) for host in ADDRESSES],
                "elsewhere with nonlocal": [allow_nonlocal() and is_elsewhere(host) for host in ADDRESSES],
                "any": outcome(()),
                "free ones": outcome(("203.0.113.6", "2001:db8::5")),
                "taken one": outcome(("203.0.113.6", "203.0.113.5")),
            }
    print(json.dumps(found))
