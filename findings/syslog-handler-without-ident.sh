#!/usr/bin/env bash
# What the journal makes of lines that Python's `logging.handlers.SysLogHandler("/dev/log")` sends, as it is.
#
# Guess: the message of the journal is the line, whatever it begins with, and the identifier is the program's name, as the
# journal has it for what is written to standard output.
# Seen with systemd 252 of Debian 12 and Python 3.11, and so by hand with 257 of Debian 13: a first word with a colon is
# taken for the identifier, and is no longer in the message: of `shop: order 5 failed` there is `order 5 failed`, of
# `user[17]: joined` `joined`, of process 17. `journalctl --grep=shop` does not find it, `-o cat` and whatever ships messages
# do not show it, and each address or user that a line begins with is an identifier of its own. Other lines have none, so
# that `journalctl -t NAME` finds nothing. With `handler.ident = "NAME: "` it is as guessed.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash findings/syslog-handler-without-ident.sh. Fails
# when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
echo 0123456789abcdef0123456789abcdef >machine-id

cat >drive.py <<'PYTHON'
import json, logging, logging.handlers, subprocess, sys, time

LINES = "shop: order 5 failed", "user[17]: joined", "192.0.2.7: too many requests", "order 5: failed", "all is well"
EXPECTED = {
    None: [("shop", "order 5 failed"), ("user", "joined"), ("192.0.2.7", "too many requests"),
           (None, "order 5: failed"), (None, "all is well")],
    "app: ": [("app", line) for line in LINES],
}


def journal(*words):
    command = ["unpacked/bin/journalctl", "-D", "/run/log/journal", "--quiet", "-o", "json", *words]
    return [json.loads(line) for line in subprocess.run(command, capture_output=True).stdout.splitlines()]


journald = subprocess.Popen(["unpacked/lib/systemd/systemd-journald"], stderr=subprocess.DEVNULL)
same = True
try:
    time.sleep(2)
    log = logging.getLogger("log")
    for ident, expected in EXPECTED.items():
        handler = logging.handlers.SysLogHandler("/run/systemd/journal/dev-log")
        if ident is not None:
            handler.ident = ident
        log.addHandler(handler)
        before = len(journal("_TRANSPORT=syslog"))
        for line in LINES:
            log.warning(line)
        time.sleep(2)
        log.removeHandler(handler)
        handler.close()
        entries = [(entry.get("SYSLOG_IDENTIFIER"), entry["MESSAGE"]) for entry in journal("_TRANSPORT=syslog")[before:]]
        same &= entries == expected
        print(f"ident {ident!r}")
        for line, (identifier, message) in zip(LINES, entries):
            print(f"    {line:30} identifier {identifier!s:10} message {message}")
finally:
    journald.terminate()
    journald.wait(20)
sys.exit(0 if same else "This has changed.")
PYTHON
# A /run of its own, in which there is no other journal.
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd) unshare --mount sh -c 'mount -t tmpfs tmpfs /run &&
    mkdir -p /run/systemd/journal /run/log/journal && mount -t tmpfs tmpfs /var/log &&
    mount --bind machine-id /etc/machine-id && exec python3 drive.py'
