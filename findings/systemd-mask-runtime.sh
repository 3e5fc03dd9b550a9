#!/usr/bin/env bash
# What `systemctl mask --runtime` does with a unit whose file is in /etc/systemd/system, as with all that an
# administrator has written or installed by hand, as before a backup during which the service must not run.
#
# Documentation: `mask` makes it impossible to start a unit; `--runtime`: only until the next boot. Guess: so no one can
# start it until then. `mask` without `--runtime` fails for such a unit, since the file is in its place, and says so.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13: it exits with 0, says that it has created a
# link to /dev/null, and nothing is masked: the file in /etc comes before the link in /run. The service is started by
# whoever asks, and so by a timer or a socket. It does mask a unit of a package, whose file is in /usr/lib. `systemctl
# is-enabled` says the truth. A drop-in in /run with `ConditionPathExists=/nowhere` keeps such a unit from being
# started.
# The script asks a manager of a user, where ~/.config/systemd/user and ~/.local/share/systemd/user stand for /etc and
# /usr/lib.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash findings/systemd-mask-runtime.sh. Fails when
# that changes.
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
cat >written.service <<UNIT
[Service]
ExecStart=sleep 1000
UNIT
cat >../../../.local/share/systemd/user/packaged.service <<UNIT
[Service]
ExecStart=sleep 1000
UNIT
cd "$folder"
unpacked/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
for _ in {1..100}; do [ -S run/systemd/private ] || sleep 0.1; done
systemctl() { unpacked/bin/systemctl --user "$@"; }
for unit in written packaged; do
    systemctl mask --runtime $unit >/dev/null && code=0 || code=$?
    systemctl start $unit || true
    echo "$unit: mask --runtime exits with $code; is-enabled: $(systemctl is-enabled $unit);" \
        "after a start: $(systemctl is-active $unit)"
done
systemctl mask written && echo "written: mask exits with 0" || echo "written: mask exits with $?"
SH
export folder HOME=$folder/home XDG_RUNTIME_DIR=$folder/run CGROUP=/sys/fs/cgroup/${folder##*/}
unset XDG_CONFIG_HOME XDG_CONFIG_DIRS XDG_DATA_DIRS XDG_DATA_HOME
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd) \
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup bash drive.sh 2>/dev/null >seen
unshare --mount sh -c 'umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    find "$CGROUP" -depth -type d -exec rmdir {} +'
cat seen
cat >expected <<'EXPECTED'
written: mask --runtime exits with 0; is-enabled: static; after a start: active
packaged: mask --runtime exits with 0; is-enabled: masked-runtime; after a start: inactive
written: mask exits with 1
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
