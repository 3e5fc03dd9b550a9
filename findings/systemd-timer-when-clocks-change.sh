#!/usr/bin/env bash
# What becomes of timers in the night when the clocks change, in a time zone that does so.
#
# Guess: what is due every minute runs every minute, and what is due at 02:30 once a day: in the autumn, when there are two,
# at one of them, and in the spring, when there is none, at 03:00, or at 03:30.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13 and 262: in the autumn a timer with `minutely`
# stands still for 61 minutes, and one with `hourly` for two hours: after 02:59 of summer time it looks for 03:00 and passes
# over the second hour from two to three. In the spring what is due at 02:30 is left out, and the weekly backup of
# `Sun 02:30` comes after two weeks. With `UTC` behind it, as in `*:* UTC`, a timer runs every minute. So says
# `systemd-analyze calendar`, which computes as the manager does: each time from the one before.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/systemd-timer-when-clocks-change.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' tzdata 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd)
export LD_LIBRARY_PATH TZDIR=$folder/unpacked/usr/share/zoneinfo TZ=Europe/Berlin

gap() { # the longest one, in minutes, after this moment
    local last='' longest=0 next
    while read -r next; do
        next=$(date -d "$next" +%s)
        [ -z "$last" ] || [ $((next - last)) -le $((longest * 60)) ] || longest=$(((next - last) / 60))
        last=$next
    done < <(unpacked/usr/bin/systemd-analyze calendar --base-time="$1" --iterations="$2" "$3" | sed -n 's/.*(in UTC): //p')
    echo $longest
}
cat >expected <<'EXPECTED'
autumn, minutely     61 minutes
autumn, *:* UTC      1 minutes
autumn, *:0/15       75 minutes
autumn, hourly       120 minutes
autumn, 02:30        1500 minutes
spring, minutely     1 minutes
spring, 02:30        2820 minutes
spring, Sun 02:30    20100 minutes
EXPECTED
for line in 'autumn|2026-10-25 00:50 UTC|20|minutely' 'autumn|2026-10-25 00:50 UTC|20|*:* UTC' \
    'autumn|2026-10-24 23:50 UTC|20|*:0/15' 'autumn|2026-10-24 22:50 UTC|6|hourly' 'autumn|2026-10-24 00:00|3|02:30' \
    'spring|2026-03-29 00:50 UTC|20|minutely' 'spring|2026-03-27 12:00|3|02:30' 'spring|2026-03-20 12:00|3|Sun 02:30'; do
    IFS='|' read -r when base number calendar <<<"$line"
    printf '%-20s %s minutes\n' "$when, $calendar" "$(gap "$base" "$number" "$calendar")"
done >seen
cat seen
cmp -s seen expected || { echo "This has changed."; exit 1; }
