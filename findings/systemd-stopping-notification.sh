#!/usr/bin/env bash
# What systemd does with a service that announces its own end with `STOPPING=1`, and takes longer than `TimeoutStopSec=` to
# finish its work, as a server that drains its connections.
#
# Documentation: `STOPPING=1`: useful to let the service manager track the service's internal state, and present it to
# the user. Guess: it is only displayed. Nobody has asked the service to stop, so it has all the time that it takes.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13: the message starts `TimeoutStopSec=`. When that
# is over, systemd sends SIGKILL, without a SIGTERM before; the result is `timeout`, and `Restart=on-failure` starts the
# service again. Until then `systemctl is-active` fails. A service that drains by itself should send `STATUS=`, and
# `STOPPING=1` only at the very end, or keep sending `EXTEND_TIMEOUT_USEC=`.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash findings/systemd-stopping-notification.sh. Fails
# when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
mkdir -m 700 run

cat >service.py <<'PYTHON'
import os, signal, socket, sys, time

log = open(sys.argv[1], "w", buffering=1)
how = os.path.basename(sys.argv[1])
signal.signal(signal.SIGTERM, lambda *_: print("got SIGTERM", file=log))


def notify(message):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        to.sendto(message.encode(), os.environ["NOTIFY_SOCKET"])


notify("READY=1")
notify("STATUS=draining" if how == "status" else "STOPPING=1")
for _ in range(10):
    time.sleep(1)
    if how == "extending":
        notify("EXTEND_TIMEOUT_USEC=3000000")
print("has finished", file=log)
PYTHON
cat >drive.sh <<'SH'
# A manager of a user, in namespaces of its own: it ends with this shell, and sees no other unit.
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$CGROUP"
echo 0 >"$CGROUP/cgroup.procs"
unpacked/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
for _ in {1..100}; do [ -S run/systemd/private ] || sleep 0.1; done

ctl() { unpacked/bin/systemctl --user "$@"; }
for how in stopping status extending; do
    unpacked/usr/bin/systemd-run --user --quiet --unit=$how --remain-after-exit --property=Type=notify \
        --property=NotifyAccess=all --property=TimeoutStopSec=3 "$(command -v python3)" "$PWD/service.py" "$PWD/$how"
done
sleep 1
for how in stopping status extending; do echo "$how: $(ctl is-active $how)"; done
sleep 14
for how in stopping status extending; do
    written=$(cat $how)
    echo "$how: $(ctl show --property=Result --value $how), ${written:-nothing written}"
done
SH
export XDG_RUNTIME_DIR=$folder/run CGROUP=/sys/fs/cgroup/${folder##*/}
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd) \
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup bash drive.sh 2>/dev/null >seen
unshare --mount sh -c 'umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    find "$CGROUP" -depth -type d -exec rmdir {} +'
cat >expected <<'EXPECTED'
stopping: deactivating
status: active
extending: deactivating
stopping: timeout, nothing written
status: success, has finished
extending: success, has finished
EXPECTED
cat seen
cmp -s seen expected || { echo "This has changed."; exit 1; }
