#!/usr/bin/env bash
# After which delay systemd restarts a service with `RestartSteps=` that has crashed a few times, then has run well for long,
# and crashes once more.
#
# The delay grows from `RestartSec=` to `RestartMaxDelaySec=` in so many steps. Guess: after a good run it starts anew with
# `RestartSec=`, as every backoff does.
# Seen with systemd 257 of Debian 13: it waits `RestartMaxDelaySec=` for ever after, here 8 s instead of 1, and so by hand
# after a run of ten minutes: the delay depends on the number of all automatic restarts, NRestarts, which nothing but a
# start or a stop by hand sets back. A service that has crashed five times in a year comes back after the longest delay.
# Needs Debian 13, whose packages it unpacks, and root. Run by hand: bash findings/systemd-restart-steps.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=257*' 'libsystemd-shared=257*' 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
mkdir -m 700 run

cat >crash.sh <<'SH'
date +%s.%N >>"$1/starts"
[ "$(wc -l <"$1/starts")" != 4 ] || sleep 15
exit 1
SH
cat >drive.sh <<'SH'
# A manager of a user, in namespaces of its own: it ends with this shell, and sees no other unit.
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$CGROUP"
echo 0 >"$CGROUP/cgroup.procs"
mount -t tmpfs tmpfs /run # Where it looks whether the host was booted with systemd.
mkdir -p /run/systemd/system
unpacked/usr/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
for _ in {1..100}; do [ -S run/systemd/private ] || sleep 0.1; done
unpacked/usr/bin/systemd-run --user --quiet --unit=crashing --property=Restart=always --property=RestartSec=1 \
    --property=RestartSteps=3 --property=RestartMaxDelaySec=8 --property=StartLimitIntervalSec=0 \
    bash "$PWD/crash.sh" "$PWD"
for _ in {1..600}; do [ "$(wc -l <starts)" -ge 6 ] || sleep 0.1; done
SH
export XDG_RUNTIME_DIR=$folder/run CGROUP=/sys/fs/cgroup/${folder##*/}
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd) \
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup bash drive.sh 2>/dev/null
unshare --mount sh -c 'umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    find "$CGROUP" -depth -type d -exec rmdir {} +'
mapfile -t between < <(awk 'NR > 1 {printf "%.0f\n", $1 - before} {before = $1}' starts)
echo "seconds from one start to the next: ${between[*]}; the fourth run took 15 s, the others none"
[ $((between[3] - 15)) -ge 7 ] && [ "${between[0]}" -le 2 ] || { echo "This has changed."; exit 1; }
