#!/usr/bin/env bash
# What `systemctl start` does for a service that has crashed and waits for its `RestartSec=`, as when somebody has repaired
# what it lacked and does not want to wait.
#
# systemctl(1): start "activates" a unit; try-restart "does nothing if units are not running". Guess: `start` starts it at
# once, and `try-restart` does nothing.
# Seen with systemd 252 of Debian 12: `start` starts nothing; it waits until `RestartSec=` is over, and returns when systemd
# has started the service by itself. `restart` starts it at once, and so does `try-restart`.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash findings/systemd-start-while-it-waits.sh. Fails when
# that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
mkdir -m 700 run

cat >drive.sh <<'SH'
# A manager of a user, in namespaces of its own: it ends with this shell, and sees no other unit.
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$CGROUP"
echo 0 >"$CGROUP/cgroup.procs"
mount -t tmpfs tmpfs /run # Where it looks whether the host was booted with systemd.
mkdir -p /run/systemd/system
unpacked/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
for _ in {1..100}; do [ -S run/systemd/private ] || sleep 0.1; done
for verb in start restart try-restart; do
    unpacked/usr/bin/systemd-run --user --quiet --unit="$verb" --property=Restart=always --property=RestartSec=15 \
        --property=StartLimitIntervalSec=0 sh -c 'exit 1'
    sleep 2
    before=$SECONDS code=0
    unpacked/bin/systemctl --user "$verb" "$verb.service" || code=$?
    echo "$verb: exit code $code, $([ $((SECONDS - before)) -ge 8 ] && echo "after the delay" || echo "at once")" >>seen
done
SH
export XDG_RUNTIME_DIR=$folder/run CGROUP=/sys/fs/cgroup/${folder##*/}
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd) \
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup bash drive.sh 2>/dev/null
unshare --mount sh -c 'umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    find "$CGROUP" -depth -type d -exec rmdir {} +'
cat seen
cat >expected <<'EXPECTED'
start: exit code 0, after the delay
restart: exit code 0, at once
try-restart: exit code 0, at once
EXPECTED
cmp -s seen expected || { echo "This has changed." >&2; exit 1; }
