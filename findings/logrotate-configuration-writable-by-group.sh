#!/usr/bin/env bash
# What logrotate does with a configuration that its group may write, as a file has that was unpacked or copied under the
# umask 002 that Ubuntu gives its users.
#
# logrotate runs as root and its file has commands, so it is right to refuse it. Guess: it does, and exits with 1, as for every
# other fault for which it leaves out a log, so that its timer's unit fails and somebody looks.
# Seen with logrotate 3.21.0 of Debian 12: it says so and exits with 0. The unit succeeds every day, and the logs of this
# file grow until the disk is full. A misspelt directive is ignored with exit code 0 in the same way; a bad value exits
# with 1.
# Needs Debian 12, whose package it unpacks, and root. Run by hand: bash findings/logrotate-configuration-writable-by-group.sh.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'logrotate=3.21.0*' 2>/dev/null
dpkg-deb -x logrotate_*.deb unpacked

# What `rotate` and the mode of the file that says it come to.
try() {
    echo a line >a.log
    rm -f a.log.1 state
    printf '%s/a.log {\n    daily\n    %s\n}\n' "$folder" "$2" >conf
    chmod "$1" conf
    local code=0
    unpacked/usr/sbin/logrotate --force --state state conf >said 2>&1 || code=$?
    echo "mode $1, $2: exit code $code, $([ -e a.log.1 ] && echo rotated || echo not rotated), says: $(grep error: said |
        head -n 1 | sed 's/.*error: //')"
}
{
    try 644 'rotate 3'
    try 664 'rotate 3'
    try 644 'rotate three'
} >seen
cat seen
cat >expected <<'EXPECTED'
mode 644, rotate 3: exit code 0, rotated, says: 
mode 664, rotate 3: exit code 0, not rotated, says: Ignoring conf because it is writable by group or others.
mode 644, rotate three: exit code 1, not rotated, says: conf:3 bad rotation count 'three'
EXPECTED
cmp -s seen expected || { echo "This has changed." >&2; exit 1; }
