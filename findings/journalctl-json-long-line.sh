#!/usr/bin/env bash
# What `journalctl -o json` prints for a line of 5,000 characters, such as a traceback or a line of JSON, and for one with
# a colour.
#
# Guess: the text, escaped where JSON needs it.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13: `"MESSAGE":null` for each line of 4,088 bytes
# or more, although `-o cat` shows it in full; with `--all` it is there. A line with an escape sequence is an array of
# numbers. A program that reads the journal in this way loses the longest lines, which are those about faults.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/journalctl-json-long-line.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' 'systemd-journal-remote=252*' libmicrohttpd12 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
export LD_LIBRARY_PATH
LD_LIBRARY_PATH=$(find unpacked/usr/lib \( -name 'libsystemd-shared*' -o -name 'libmicrohttpd.so.12' \) -printf "$PWD/%h:")

line() {
    printf '__REALTIME_TIMESTAMP=1700000000000000\n__MONOTONIC_TIMESTAMP=%s\n' "$1"
    printf '_BOOT_ID=0123456789abcdef0123456789abcdef\nMESSAGE=%s\n\n' "$2"
}
letters() { head -c "$1" /dev/zero | tr '\0' x; }
# A field is its name, an equals sign and the text: these are 4,095, 4,096 and 5,008 bytes.
{ line 1 "$(letters 4087)"; line 2 "$(letters 4088)"; line 3 "$(letters 5000)"; line 4 $'\e[31mred\e[0m'; } >lines
unpacked/lib/systemd/systemd-journal-remote -o "$folder/a.journal" lines 2>/dev/null >&2

# What the JSON has for each line: the kind of value, and its length.
kinds() { python3 -c 'import json, sys
for line in sys.stdin:
    text = json.loads(line)["MESSAGE"]
    print(type(text).__name__, len(text or ""), end="; ")'; }
show() { unpacked/bin/journalctl -q --file a.journal "$@"; }
json=$(show -o json | kinds)
all=$(show -o json --all | kinds)
cat=$(show -o cat | wc -L)
echo "-o json:       $json"
echo "-o json --all: $all"
echo "-o cat:        the longest line has $cat characters"
if [ "$json$all$cat" != "str 4087; NoneType 0; NoneType 0; list 12; str 4087; str 4088; str 5000; list 12; 5000" ]; then
    echo "This has changed." >&2
    exit 1
fi
