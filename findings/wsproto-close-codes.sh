#!/usr/bin/env bash
# What wsproto sends when it is told to close with a code that may not stand on the wire, and what it makes of the codes
# that it receives.
#
# Guess: it raises `LocalProtocolError` for 1005, 1006 and 1015, which RFC 6455 reserves for what is not sent, and for a
# number that is no close code; and it sends nothing that it would not take itself.
# Seen with wsproto 1.3.2: 1005, 1006 and 1015 go out as 1000, so that the other end is told that all is well. Every
# other number is sent as it is, 999 and 65535 too, and so are 1014 (bad gateway, registered) and 1016; but a wsproto
# that receives one of these answers with 1002 and calls it a protocol error.
# Run by hand: bash findings/wsproto-close-codes.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install wsproto==1.3.2 h11==0.16.0
cd "$folder"

cat >drive.py <<'PYTHON'
import sys

from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import CloseConnection

# The code that is asked for: the code that is sent, and the one that the other end reports.
EXPECTED = {
    1000: (1000, 1000), 1005: (1000, 1000), 1006: (1000, 1000), 1012: (1012, 1012), 1013: (1013, 1013),
    1014: (1014, 1002), 1015: (1000, 1000), 1016: (1016, 1002), 4000: (4000, 4000), 999: (999, 1002),
    65535: (65535, 1002),
}


def passed(code):
    server, client = Connection(ConnectionType.SERVER), Connection(ConnectionType.CLIENT)
    frame = server.send(CloseConnection(code=code))
    client.receive_data(frame)
    (event,) = client.events()
    return int.from_bytes(frame[2:4], "big"), int(event.code)


same = True
for code, expected in EXPECTED.items():
    found = passed(code)
    same &= found == expected
    print(f"closed with {code:5}: sent as {found[0]:5}, received as {found[1]}")
sys.exit(0 if same else "This has changed.")
PYTHON
venv/bin/python drive.py
