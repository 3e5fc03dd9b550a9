#!/usr/bin/env bash
# What becomes of a service with `Restart=always` that has `Requires=` and `After=` another one, whose first start fails
# and whose second, by its own `Restart=`, succeeds, as a database does at boot that comes too early for its disk.
#
# Documentation: `Restart=always`: the service is restarted regardless of how it ended. Guess: it fails with the other
# one, and its own `Restart=` tries again until both run.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13: the other one runs a second later, and this
# one never: its job is dropped, and as it was never started there is nothing to restart. It is `inactive`, not
# `failed`, so that `systemctl --failed` and the state of the host show nothing. With `Wants=` it is started all the
# same. Use that, and let the program wait for what it needs.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash
# findings/systemd-requires-a-service-that-failed-once.sh. Fails when that changes.
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
cat >database.service <<UNIT
[Service]
Type=exec
ExecStartPre=sh -c 'test -e $folder/tried || { touch $folder/tried; exit 1; }'
ExecStart=sleep 1000
Restart=always
RestartSec=1
UNIT
cat >requiring.service <<UNIT
[Unit]
Requires=database.service
After=database.service
[Service]
ExecStart=sleep 1000
Restart=always
RestartSec=1
UNIT
cat >wanting.service <<UNIT
[Unit]
Wants=database.service
After=database.service
[Service]
ExecStart=sleep 1000
Restart=always
RestartSec=1
UNIT
cd "$folder"
unpacked/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
for _ in {1..100}; do [ -S run/systemd/private ] || sleep 0.1; done
systemctl() { unpacked/bin/systemctl --user "$@"; }
systemctl start requiring wanting || true
for _ in {1..100}; do [ "$(systemctl is-active database)" = active ] || sleep 0.1; done
sleep 5
for unit in database requiring wanting; do
    echo "$unit: $(systemctl is-active $unit), failed: $(systemctl is-failed $unit >/dev/null && echo yes || echo no)"
done
SH
export folder HOME=$folder/home XDG_RUNTIME_DIR=$folder/run CGROUP=/sys/fs/cgroup/${folder##*/}
unset XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_DIRS XDG_DATA_HOME
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd) \
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup bash drive.sh 2>/dev/null >seen
unshare --mount sh -c 'umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    find "$CGROUP" -depth -type d -exec rmdir {} +'
cat seen
cat >expected <<'EXPECTED'
database: active, failed: no
requiring: inactive, failed: no
wanting: active, failed: no
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
