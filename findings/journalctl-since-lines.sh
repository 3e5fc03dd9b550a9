#!/usr/bin/env bash
# Which lines `journalctl -n 3` shows of those since, or until, a time.
#
# Documentation: `--lines` shows the most recent events and limits their number. Guess: the last three since that time,
# and the last three until that time.
# Seen with systemd 252 of Debian 12: with `--since` the first three, with `--until` none at all, and in both cases exit
# code 0. Who asks for "the last lines since the start" of a service that has written more gets its beginning, and sees
# no fault. With `--reverse` both show the last three; so does 257 of Debian 13 without it.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/journalctl-since-lines.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' 'systemd-journal-remote=252*' libmicrohttpd12 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
export LD_LIBRARY_PATH TZ=UTC
LD_LIBRARY_PATH=$(find "$folder/unpacked/usr/lib" \( -name 'libsystemd-shared*' -o -name 'libmicrohttpd.so.12' \) -printf '%h:')

# A line a minute, from 22:00 to 22:19.
for minute in {00..19}; do
    printf '__REALTIME_TIMESTAMP=%s000000\n__MONOTONIC_TIMESTAMP=%s000000\n' \
        "$(date -d "2023-11-14 22:$minute" +%s)" "$((60 * 10#$minute + 1))"
    printf '_BOOT_ID=0123456789abcdef0123456789abcdef\nPRIORITY=6\nMESSAGE=22:%s\n\n' "$minute"
done >lines
unpacked/lib/systemd/systemd-journal-remote -o "$folder/a.journal" lines 2>/dev/null >&2

show() { unpacked/bin/journalctl -q --file a.journal -o cat -n 3 "$@" 2>&1 | tr '\n' ' '; }
plain=$(show)
since=$(show --since '2023-11-14 22:10')
since_reversed=$(show --since '2023-11-14 22:10' --reverse)
until=$(show --until '2023-11-14 22:10')
until_reversed=$(show --until '2023-11-14 22:10' --reverse)
echo "-n 3                          $plain"
echo "-n 3 --since 22:10            $since"
echo "-n 3 --since 22:10 --reverse  $since_reversed"
echo "-n 3 --until 22:10            $until"
echo "-n 3 --until 22:10 --reverse  $until_reversed"
[ "$plain, $since, $since_reversed" = "22:17 22:18 22:19 , 22:10 22:11 22:12 , 22:19 22:18 22:17 " ] &&
    [ "$until, $until_reversed" = ", 22:10 22:09 22:08 " ] || { echo "This has changed."; exit 1; }
