#!/usr/bin/env bash
# The exit code of `systemd-run --wait` for a command that did not come to its end, or did not run at all.
#
# Documentation: with `--wait` it exits with the code of the service. Guess: so 0 means that the command has succeeded;
# if a signal ended it, 128 and the number, as in a shell; if a condition kept it from running, not 0.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13: 0 if the command was ended by SIGTERM, SIGINT,
# SIGHUP or SIGPIPE, which systemd takes for a clean end; 0 if `systemctl stop` ended it in the middle; 0 if its
# `ConditionPathExists=` was not met and it never ran; and 255 for SIGKILL and SIGSEGV. With `--scope` the codes are those
# of a shell. A command whose success matters must leave a mark of its own.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash findings/systemd-run-wait-exit-code.sh. Fails
# when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
mkdir -m 700 run
for name in TERM INT HUP PIPE KILL SEGV; do
    printf '#!/bin/sh\nkill -%s $$\nsleep 10\n' $name >"$name"
    chmod 755 "$name"
done

cat >drive.sh <<'SH'
# A manager of a user, in namespaces of its own: it ends with this shell, and sees no other unit.
umount --recursive --lazy /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "$CGROUP"
echo 0 >"$CGROUP/cgroup.procs"
unpacked/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
for _ in {1..100}; do [ -S run/systemd/private ] || sleep 0.1; done

run() { unpacked/usr/bin/systemd-run --user --quiet "$@" 2>/dev/null && echo 0 || echo $?; }
echo "exit 7: $(run --wait sh -c 'exit 7')"
for name in TERM INT HUP PIPE KILL SEGV; do
    echo "ended by SIG$name: $(run --wait "$PWD/$name"), with --scope $(run --scope "$PWD/$name")"
done
(sleep 2; unpacked/bin/systemctl --user stop stopped.service) &
echo "ended by systemctl stop: $(run --wait --unit=stopped sleep 10)"
echo "kept back by a condition: $(run --wait --property=ConditionPathExists=/nowhere sh -c 'exit 7')"
SH
export XDG_RUNTIME_DIR=$folder/run CGROUP=/sys/fs/cgroup/${folder##*/}
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*/systemd) PATH=/usr/bin:/bin:/usr/sbin:/sbin \
    unshare --mount --pid --fork --kill-child --mount-proc --cgroup bash drive.sh 2>/dev/null >seen
unshare --mount sh -c 'umount --recursive --lazy /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup &&
    find "$CGROUP" -depth -type d -exec rmdir {} +'
cat >expected <<'EXPECTED'
exit 7: 7
ended by SIGTERM: 0, with --scope 143
ended by SIGINT: 0, with --scope 130
ended by SIGHUP: 0, with --scope 129
ended by SIGPIPE: 0, with --scope 141
ended by SIGKILL: 255, with --scope 137
ended by SIGSEGV: 255, with --scope 139
ended by systemctl stop: 0
kept back by a condition: 0
EXPECTED
unpacked/usr/bin/systemd-run --version 2>/dev/null | head -n 1 || true
cat seen
cmp -s seen expected || { echo "This has changed."; exit 1; }
