#!/usr/bin/env bash
# What becomes of the socket of a service that is started by its connections, when the service has crashed too often,
# its fault is mended, and it is started again.
#
# Guess: the service is `failed`, and its socket stays open, as it is systemd's and no program's. After `systemctl
# reset-failed` and `systemctl start` of the service, both work.
# Seen with systemd 252 of Debian 12, and so by hand with 257 of Debian 13: when the service reaches its start limit,
# systemd closes the socket too (`service-start-limit-hit`), and clients are refused. The start of the service succeeds
# and leaves the socket as it is: the program is started without a descriptor, and is `active`, with nobody able to
# reach it. With `Requires=` the socket in the service, which a socket by itself does not imply, its start opens it
# again.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash findings/systemd-socket-after-a-crash-loop.sh.
# Fails when that changes.
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
cat >../../../../program.sh <<UNIT
cd $folder
test -e mended || exit 1
echo \${LISTEN_FDS:-none} >\$1-given
exec sleep 1000
UNIT
cat >plain.socket <<UNIT
[Socket]
ListenStream=$folder/plain
UNIT
cat >plain.service <<UNIT
[Service]
ExecStart=sh $folder/program.sh plain
Restart=always
UNIT
cat >requiring.socket <<UNIT
[Socket]
ListenStream=$folder/requiring
UNIT
cat >requiring.service <<UNIT
[Unit]
Requires=requiring.socket
[Service]
ExecStart=sh $folder/program.sh requiring
Restart=always
UNIT
cd "$folder"
unpacked/lib/systemd/systemd --user --unit=basic.target >/dev/null 2>&1 &
for _ in {1..100}; do [ -S run/systemd/private ] || sleep 0.1; done
systemctl() { unpacked/bin/systemctl --user "$@"; }
for name in plain requiring; do
    systemctl start $name.socket
    python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])' $name
    for _ in {1..100}; do [ "$(systemctl is-active $name.service)" = failed ] || sleep 0.1; done
    sleep 1
    echo "$name, after the crashes: the service is $(systemctl is-active $name.service), the socket" \
        "$(systemctl is-active $name.socket), $(systemctl show --property=Result --value $name.socket)"
done
touch mended
for name in plain requiring; do
    systemctl reset-failed $name.service
    systemctl start $name.service && code=0 || code=$?
    for _ in {1..100}; do [ -e $name-given ] || sleep 0.1; done
    echo "$name, mended: start exits with $code, the service is $(systemctl is-active $name.service), the socket" \
        "$(systemctl is-active $name.socket), descriptors that the program was given: $(cat $name-given)"
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
plain, after the crashes: the service is failed, the socket failed, service-start-limit-hit
requiring, after the crashes: the service is failed, the socket failed, service-start-limit-hit
plain, mended: start exits with 0, the service is active, the socket failed, descriptors that the program was given: none
requiring, mended: start exits with 0, the service is active, the socket active, descriptors that the program was given: 1
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
