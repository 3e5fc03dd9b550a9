#!/usr/bin/env bash
# When a timer with `OnCalendar=02:00,14:00` runs.
#
# Lists are allowed: the manual has `Mon,Fri` and `*-1,4-1`. Guess: at two and at fourteen o'clock; or else it is refused as
# not valid.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13 and 262: at 02:00 and at 02:14. A comma separates
# the values of one field, and these are hours, then minutes: 2 o'clock, at the minutes 0 and 14. Nobody warns: `systemd-analyze
# verify` finds nothing, and the normalized form is the same text. `09:00..17:00` runs at each of the minutes 0 to 17 of
# nine o'clock. Twice a day is `02,14:00`, or two lines of `OnCalendar=`.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/systemd-calendar-two-times.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd)
export LD_LIBRARY_PATH TZ=UTC

times() { # of one day
    unpacked/usr/bin/systemd-analyze calendar --base-time='2026-06-01 00:00:01' --iterations=30 "$1" |
        sed -n 's/.*2026-06-01 \([0-9:]*\) UTC$/\1/p' | tr '\n' ' '
}
both=$(times '02:00,14:00')
range=$(times '09:00..17:00')
hours=$(times '02,14:00')
unit=$folder/backup.timer
printf '[Timer]\nOnCalendar=02:00,14:00\n' >"$unit"
printf '[Service]\nExecStart=/bin/true\n' >"$folder/backup.service"
warned=$(unpacked/usr/bin/systemd-analyze verify --man=no "$unit" 2>&1 | grep -c OnCalendar || true)
echo "OnCalendar=02:00,14:00   $both"
echo "OnCalendar=09:00..17:00  $range"
echo "OnCalendar=02,14:00      $hours"
echo "warnings of systemd-analyze verify: $warned"
[ "$both" = "02:00:00 02:14:00 " ] && [ "$hours" = "02:00:00 14:00:00 " ] && [ "$warned" = 0 ] &&
    [ "$(wc -w <<<"$range")" = 18 ] && [[ $range == "09:00:00 "*"09:17:00 " ]] || { echo "This has changed."; exit 1; }
