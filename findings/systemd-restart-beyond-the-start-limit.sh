#!/usr/bin/env bash
# What becomes of a service that runs well, when it is restarted by hand once more often than `StartLimitBurst=` allows,
# as by a deployment that is repeated, or by a hook of each of six certificates.
#
# Documentation: units that are started more than so many times in that interval are not permitted to start any more.
# Guess: the restart is refused, with an error, and the service runs on.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13: the restart stops it first, is refused then,
# and the service is down until somebody says `systemctl reset-failed`; its `Restart=always` does not help. A `reload`
# is not counted. By default five starts within ten seconds are allowed. Say `systemctl reset-failed` before a restart
# that one means.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash
# findings/systemd-restart-beyond-the-start-limit.sh. Fails when that changes.
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
cat >service.service <<UNIT
[Unit]
StartLimitIntervalSec=100
StartLimitBurst=3
[Service]
ExecStart=sleep 1000
ExecReload=true
Restart=always
UNIT
cd "$folder"
unpacked/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
for _ in {1..100}; do [ -S run/systemd/private ] || sleep 0.1; done
systemctl() { unpacked/bin/systemctl --user "$@"; }
systemctl start service
for _ in 1 2 3 4; do systemctl reload service; done
for what in restart restart restart start; do
    systemctl $what service && code=0 || code=$?
    echo "$what exits with $code: $(systemctl is-active service), $(systemctl show --property=Result --value service)"
done
systemctl reset-failed service
systemctl start service
echo "start after reset-failed: $(systemctl is-active service)"
SH
export folder HOME=$folder/home XDG_RUNTIME_DIR=$folder/run CGROUP=/sys/fs/cgroup/${folder##*/}
unset XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_DIRS XDG_DATA_HOME
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd) \
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup bash drive.sh 2>/dev/null >seen
unshare --mount sh -c 'umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    find "$CGROUP" -depth -type d -exec rmdir {} +'
cat seen
cat >expected <<'EXPECTED'
restart exits with 0: active, success
restart exits with 0: active, success
restart exits with 1: failed, start-limit-hit
start exits with 1: failed, start-limit-hit
start after reset-failed: active
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
