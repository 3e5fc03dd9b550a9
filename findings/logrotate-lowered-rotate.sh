#!/usr/bin/env bash
# Which rotated logs are left when `rotate 10` becomes `rotate 3`, as on a host whose disk is filling, or when
# `compress` or `dateext` is added.
#
# Documentation: `rotate`: log files are rotated so many times before being removed. Guess: with the next rotation three
# old logs are left, as with `dateext`.
# Seen with logrotate 3.21.0 of Debian 12, and so by hand with 3.22.0 of Debian 13: `log.4` goes, and all from `log.5`
# on stay for ever, as no rotation looks at them again, nor does `maxage`. With `compress` those that were not
# compressed, and with `dateext` those with a number, are forgotten likewise. Only with `dateext` are the old ones
# counted, and removed. Remove the others by hand.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/logrotate-lowered-rotate.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'logrotate=3.21.0*' libpopt0 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
export LD_LIBRARY_PATH
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*-linux-gnu)

left() { # of these old logs, after four rotations with these options
    local old=$1 number
    shift
    rm -rf logs state
    mkdir -m 755 logs
    for number in $old; do
        echo old >"logs/log$number"
        touch --date='1 year ago' "logs/log$number"
    done
    printf '%s\n' "$folder/logs/log {" "$@" "}" >conf
    chmod 644 conf
    for number in 1 2 3 4; do
        echo new >logs/log
        case "$*" in *dateext*) sleep 1.1 ;; esac # A name for each second.
        unpacked/usr/sbin/logrotate --force --state state conf
    done
    echo "$*:" $(for number in $old; do [ "$(zcat -f "logs/log$number" 2>/dev/null)" != old ] || echo "log$number"; done)
}
numbered=$(echo .{1..10})
{
    left "$numbered" "rotate 3"
    left "$numbered" "rotate 3" "maxage 30"
    left "$numbered" "rotate 3" compress
    left "$numbered" "rotate 3" dateext "dateformat -%Y%m%d-%s"
    left "$(echo -202501{10..19}-1736500000)" "rotate 3" dateext "dateformat -%Y%m%d-%s"
} | tee seen
cat >expected <<'EXPECTED'
rotate 3: log.5 log.6 log.7 log.8 log.9 log.10
rotate 3 maxage 30: log.5 log.6 log.7 log.8 log.9 log.10
rotate 3 compress: log.2 log.3 log.4 log.5 log.6 log.7 log.8 log.9 log.10
rotate 3 dateext dateformat -%Y%m%d-%s: log.1 log.2 log.3 log.4 log.5 log.6 log.7 log.8 log.9 log.10
rotate 3 dateext dateformat -%Y%m%d-%s:
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
