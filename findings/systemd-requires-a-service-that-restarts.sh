#!/usr/bin/env bash
# What becomes of a running service that has `Requires=` and `After=` another one, when that one crashes and systemd
# starts it again by its `Restart=always`.
#
# Documentation of `Requires=`: if the other unit is explicitly stopped or restarted, this one will be stopped or
# restarted.
# Guess: so a crash is not passed on; the service that has lost its database for a second runs on, and connects again.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13: it is restarted too, and all its clients are
# disconnected. An automatic restart is a job `restart`, and is passed on like one that somebody has asked for;
# `NRestarts` of the service stays 0. With `BindsTo=` it is stopped, and its own `Restart=always` does not bring it
# back. With `Wants=` it runs on. So it does with `RestartMode=direct` of the other one, which 257 knows.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash
# findings/systemd-requires-a-service-that-restarts.sh. Fails when that changes.
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
ExecStart=sleep 1000
Restart=always
RestartSec=1
UNIT
cat >requires.service <<UNIT
[Unit]
Requires=database.service
After=database.service
[Service]
ExecStart=sleep 1000
Restart=always
RestartSec=1
UNIT
cat >bindsto.service <<UNIT
[Unit]
BindsTo=database.service
After=database.service
[Service]
ExecStart=sleep 1000
Restart=always
RestartSec=1
UNIT
cat >wants.service <<UNIT
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
main() { systemctl show --property=MainPID --value "$1"; }
systemctl start requires bindsto wants
declare -A before
for unit in requires bindsto wants; do before[$unit]=$(main $unit); done
crashed=$(main database)
kill -KILL "$crashed"
for _ in {1..100}; do
    [ "$(main database)" != "$crashed" ] && [ "$(systemctl is-active database)" = active ] && break || sleep 0.1
done
sleep 5
for unit in requires bindsto wants; do
    [ "$(main $unit)" = "${before[$unit]}" ] && what="the same process" || what="not the same process"
    echo "$unit: $(systemctl is-active $unit), $what, NRestarts $(systemctl show --property=NRestarts --value $unit)"
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
requires: active, not the same process, NRestarts 0
bindsto: inactive, not the same process, NRestarts 0
wants: active, the same process, NRestarts 0
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
