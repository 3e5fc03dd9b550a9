#!/usr/bin/env bash
# What logrotate does with `*.log` of a directory when one of the files is in an earlier section too.
#
# Guess: it complains of the one file, keeps it in the earlier section, and rotates the others.
# Seen with logrotate 3.21.0 of Debian 12: it complains of the one file, and does not rotate the others either. The whole
# pattern is dropped, and nothing says so; if the sections are in two files of /etc/logrotate.d, the order of their names
# decides which of them loses. Where the files are listed instead of matched, the others are rotated, although logrotate
# then says that it skips the file. With the pattern first all are rotated.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/logrotate-pattern-with-a-duplicate.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'logrotate=3.21.0*' libpopt0 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

section() { printf '%s {\n  size 1k\n  rotate 2\n}\n' "$1"; }
rotated() {
    local code=0 name
    rm -f -- *.log *.log.1 state
    for name in a b c; do head -c 2000 /dev/zero >"$name.log"; done
    LD_LIBRARY_PATH=$(echo unpacked/usr/lib/*-linux-gnu) unpacked/usr/sbin/logrotate --state state "$1" >said 2>&1 || code=$?
    echo "$(printf '%s ' *.log.1)exit code $code"
}

mkdir logrotate.d
section "$folder/a.log" >logrotate.d/one
section "$folder/*.log" >logrotate.d/two
echo "include $folder/logrotate.d" >included
{ section "$folder/a.log"; section "$folder/*.log"; } >pattern_last
{ section "$folder/*.log"; section "$folder/a.log"; } >pattern_first
{ section "$folder/a.log"; section "$folder/b.log $folder/a.log $folder/c.log"; } >listed
for what in included pattern_last pattern_first listed; do
    echo "$what: $(rotated $what)"
done | tee seen
cat >expected <<'EXPECTED'
included: a.log.1 exit code 1
pattern_last: a.log.1 exit code 1
pattern_first: a.log.1 b.log.1 c.log.1 exit code 1
listed: a.log.1 b.log.1 c.log.1 exit code 1
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
