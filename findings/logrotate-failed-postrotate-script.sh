#!/usr/bin/env bash
# What is left of a log whose `postrotate` script has failed once, as `systemctl reload` does while the service is
# stopped.
#
# Documentation: `compress`: old versions are compressed; `rotate 5`: five of them are kept. Guess: a failed script costs
# an error message. The log is kept, and compressed now or with the next rotation.
# Seen with logrotate 3.21.0 of Debian 12, and so by hand with 3.22.0 of Debian 13: the log is lost. After the failure
# logrotate skips the compression, so that the log stays as `log.1`. The next rotation looks only for `log.1.gz`, and
# renames the current log over `log.1`, with exit code 0. With `delaycompress`, or without `compress`, nothing is lost. A
# script whose failure does not matter should end in `|| true`.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/logrotate-failed-postrotate-script.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'logrotate=3.21.0*' libpopt0 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
export LD_LIBRARY_PATH
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*-linux-gnu)

left() { # with these options, after four days on the second of which the script fails
    local day file codes=""
    rm -rf logs state fail
    mkdir -m 755 logs
    printf '%s\n' "$folder/logs/log {" "rotate 5" "$@" postrotate "test ! -e $folder/fail" endscript "}" >conf
    chmod 644 conf
    for day in one two three four; do
        rm -f fail
        [ $day != two ] || touch fail
        echo "$day" >logs/log
        unpacked/usr/sbin/logrotate --force --state state conf 2>/dev/null && codes+=" 0" || codes+=" $?"
    done
    printf 'exit codes%s; left' "$codes"
    for file in logs/*; do printf ' %s: %s,' "${file#logs/}" "$(zcat -f "$file")"; done
}
for options in compress "compress delaycompress" nocompress; do
    # shellcheck disable=SC2086
    echo "$options: $(left $options)"
done | tee seen
cat >expected <<'EXPECTED'
compress: exit codes 0 1 0 0; left log.1.gz: four, log.2.gz: three, log.4.gz: one,
compress delaycompress: exit codes 0 1 0 0; left log.1: four, log.2.gz: three, log.3.gz: two, log.4.gz: one,
nocompress: exit codes 0 1 0 0; left log.1: four, log.2: three, log.3: two, log.4: one,
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
