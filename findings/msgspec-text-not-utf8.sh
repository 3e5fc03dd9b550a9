#!/usr/bin/env bash
# What msgspec raises for text that is not UTF-8, from a peer that sends what it likes.
#
# Guess: msgspec.DecodeError, as for all other bytes that are no message: its manual calls MsgspecError the base of all
# its errors. Seen with msgspec 0.22.0, for JSON and MessagePack alike: a plain UnicodeDecodeError, which is no
# MsgspecError. Whoever catches only that lets a peer end a connection, or a task, with one byte.
# Run by hand: bash findings/msgspec-text-not-utf8.sh. Fails when it is otherwise.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install msgspec==0.22.0

"$folder/venv/bin/python" - <<'PYTHON'
import sys

import msgspec

same = True
for name, decode, data in (
    ("JSON, cut short", msgspec.json.decode, b'"a'),
    ("JSON, not UTF-8", msgspec.json.decode, b'"\xff"'),
    ("MessagePack, cut short", msgspec.msgpack.decode, b"\xa2a"),
    ("MessagePack, not UTF-8", msgspec.msgpack.decode, b"\xa1\xff"),
):
    try:
        decode(data)
    except Exception as error:
        print(f"{name:23} {type(error).__name__}")
        same &= isinstance(error, msgspec.MsgspecError) == ("cut short" in name)
sys.exit(0 if same else "This has changed.")
PYTHON
