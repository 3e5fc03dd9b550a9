"""What ufw has written down is understood; nothing is asked of a firewall of this machine."""

from pathlib import Path

import pytest

from generator.host.firewall import closed

SSH = "### tuple ### limit tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n"


def host(root: Path, *rules: str, enabled: str = "yes", policy: str = "DROP") -> Path:
    for path, text in {
        "etc/ufw/ufw.conf": f"# für uns\nENABLED={enabled}\nLOGLEVEL=low\n",
        "etc/default/ufw": f'IPV6=yes\nDEFAULT_INPUT_POLICY="{policy}"\n',
        "etc/ufw/user.rules": "*filter\n### RULES ###\n\n" + SSH + "".join(f"{rule}\n" for rule in rules),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="latin-1")
    return root


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ("### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 in", (443,)),
        ("### tuple ### allow any 80 0.0.0.0/0 any 0.0.0.0/0 in comment=6f6e65", (443,)),
        ("### tuple ### allow tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 Nginx%20Full - in", ()),
        ("### tuple ### allow_log tcp 1:1000 0.0.0.0/0 any 0.0.0.0/0 in", ()),
        ("### tuple ### allow any any 0.0.0.0/0 any 10.0.0.0/8 in_eth0", ()),
        ("### tuple ### deny tcp 80 0.0.0.0/0 any 0.0.0.0/0 in", (80, 443)),
        ("### tuple ### allow udp 80 0.0.0.0/0 any 0.0.0.0/0 in", (80, 443)),
        ("### tuple ### allow tcp 80 0.0.0.0/0 any 0.0.0.0/0 out", (80, 443)),
        ("### tuple ### allow tcp 8080 0.0.0.0/0 any 0.0.0.0/0 in", (80, 443)),
    ],
)
def test_a_port_is_open_where_a_rule_lets_clients_in(rule: str, left: tuple[int, ...], tmp_path: Path) -> None:
    assert closed((80, 443), host(tmp_path, rule)) == left


def test_a_firewall_that_is_off_that_lets_all_in_or_that_is_missing_closes_nothing(tmp_path: Path) -> None:
    assert closed((80,), tmp_path) == ()
    assert closed((80,), host(tmp_path, enabled="no")) == ()
    assert closed((80,), host(tmp_path, policy="ACCEPT")) == ()
    assert closed((80,), host(tmp_path)) == (80,)
