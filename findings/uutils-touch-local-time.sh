#!/usr/bin/env bash
# Which time `touch -d` gives a file with the coreutils in Rust, which are Ubuntu's since 25.10, where the machine's time is
# not UTC.
#
# POSIX, touch: a date without Z is in the timezone of TZ. Guess: as with GNU's, and as with `date -d` of the same coreutils.
# Seen with rust-coreutils 0.12.0 beside GNU coreutils of the same Debian, in Europe/Paris, in summer: "2026-07-01 10:00:00",
# and the same with a fraction, is taken for UTC, so that the file is two hours younger; with a T in place of the blank, or
# without seconds, it is local time. With an offset it is the other way round: "10:00 +0200" is taken for 10:00 UTC,
# "10:00:00 +0200" for what it says. Write it with a T and an offset: `date -Is`.
# Needs Debian forky's package, which it unpacks. Run by hand: bash findings/uutils-touch-local-time.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'rust-coreutils=0.12.0*' 2>/dev/null
dpkg-deb -x rust-coreutils_*.deb unpacked
rust=$PWD/unpacked/usr/lib/cargo/bin/coreutils
[[ $(touch --version) == *GNU* ]] || { echo "This needs GNU coreutils to compare with." >&2; exit 1; }

while read -r text; do
    for program in touch "$rust/touch"; do
        TZ=Europe/Paris "$program" -d "$text" file
        TZ=UTC stat -c %y file | cut -c 12-16
    done | paste -sd ' ' | sed "s/^/$text: /"
done >seen <<'DATES'
2026-07-01 10:00
2026-07-01 10:00:00
2026-07-01 10:00:00.5
2026-07-01T10:00:00
2026-07-01 10:00 +0200
2026-07-01 10:00:00 +0200
2026-07-01T10:00:00+02:00
DATES
echo "date, and what it is in UTC for GNU and for uutils:"
cat seen
cat >expected <<'EXPECTED'
2026-07-01 10:00: 08:00 08:00
2026-07-01 10:00:00: 08:00 10:00
2026-07-01 10:00:00.5: 08:00 10:00
2026-07-01T10:00:00: 08:00 08:00
2026-07-01 10:00 +0200: 08:00 10:00
2026-07-01 10:00:00 +0200: 08:00 08:00
2026-07-01T10:00:00+02:00: 08:00 08:00
EXPECTED
if ! cmp -s seen expected; then
    echo "This has changed." >&2
    exit 1
fi
