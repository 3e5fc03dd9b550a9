#!/usr/bin/env bash
# How long a start and a stop may take with `TimeoutStartSec=3` and `TimeoutStopSec=3`, if the unit has several
# `ExecStartPre=`, `ExecStart=` or `ExecStop=`.
#
# Documentation: the time to wait for start-up; if the service does not signal that it is complete within it, it is
# failed and shut down. Guess: 3 s for all of it, as for a `systemctl start` of which one knows that it returns by then.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13: each command has 3 s of its own. A start
# with four commands of 2 s takes 8 s and succeeds. A stop with two `ExecStop=` of 2 s, a process that ignores SIGTERM
# and an `ExecStopPost=` of 2 s takes 9 s. Whoever waits for such a unit, as a deployment or the shutdown of a host,
# must add up.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash
# findings/systemd-timeout-of-several-commands.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
mkdir -m 700 run
mkdir -p home/.config/systemd/user home/.local/share/systemd/user

cat >drive.sh <<'SH'
# A manager of a user, in namespaces of its own: it ends with this shell, and sees no other unit.
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$CGROUP"
echo 0 >"$CGROUP/cgroup.procs"
mount -t tmpfs tmpfs /run # Where it looks whether the host was booted with systemd.
mkdir -p /run/systemd/system
cd home/.config/systemd/user
cat >start.service <<UNIT
[Service]
Type=oneshot
TimeoutStartSec=3
ExecStartPre=sleep 2
ExecStartPre=sleep 2
ExecStart=sleep 2
ExecStart=sleep 2
UNIT
cat >long.service <<UNIT
[Service]
Type=oneshot
TimeoutStartSec=3
ExecStart=sleep 8
UNIT
cat >stop.service <<UNIT
[Service]
TimeoutStopSec=3
ExecStart=bash -c 'trap "" TERM; while true; do sleep 0.1; done'
ExecStop=sleep 2
ExecStop=sleep 2
ExecStopPost=sleep 2
UNIT
cd "$folder"
unpacked/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
for _ in {1..100}; do [ -S run/systemd/private ] || sleep 0.1; done
systemctl() { unpacked/bin/systemctl --user "$@"; }
took() { # these words
    local before=$SECONDS code=0
    systemctl "$@" || code=$?
    echo "$*: exits with $code, after $least s or more: $([ $((SECONDS - before)) -ge "$least" ] && echo yes || echo no)"
}
least=7 took start start
least=7 took start long
systemctl start stop
sleep 1
least=8 took stop stop
SH
export folder HOME=$folder/home XDG_RUNTIME_DIR=$folder/run CGROUP=/sys/fs/cgroup/${folder##*/}
unset XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_DIRS XDG_DATA_HOME
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd) \
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup bash drive.sh 2>/dev/null >seen
unshare --mount sh -c 'umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    find "$CGROUP" -depth -type d -exec rmdir {} +'
cat seen
cat >expected <<'EXPECTED'
start start: exits with 0, after 7 s or more: yes
start long: exits with 1, after 7 s or more: no
stop stop: exits with 0, after 8 s or more: yes
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
