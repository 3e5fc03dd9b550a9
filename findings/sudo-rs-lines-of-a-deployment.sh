#!/usr/bin/env bash
# Whether three things that deployments ask of sudo do the same with sudo-rs, which is Ubuntu's sudo since 25.10.
#
# Guess: they do, or `visudo -c` says what does not: sudo-rs reads /etc/sudoers itself, and is meant to take its place.
# Seen with sudo-rs 0.2.15 beside sudo 1.9.17p2 of the same Debian:
# - a rule for `systemctl restart app@*`: `wildcards are not allowed in command arguments`, so that the rule is not there and
#   the command is refused. A `*` that is all of the last argument is allowed;
# - `Defaults logfile=…`, as any setting that it does not know, puts three lines on standard error of every call of every
#   user, with the exit code of the command, which scripts that take any such line for a failure do not survive;
# - `sudo -E` keeps nothing of the environment: it says so, runs the command without, and exits with its exit code.
# `visudo -c` of sudo finds nothing in all this; that of sudo-rs finds the first two, and exits with 1.
# Needs Debian forky, whose packages it unpacks, and root. Run by hand: bash findings/sudo-rs-lines-of-a-deployment.sh. Fails
# when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'sudo-rs=0.2.15*' 'sudo=1.9.17p2*' libapparmor1 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done
mkdir upper
printf '#!/bin/sh\necho "COLOUR=$COLOUR"\n' >unpacked/colour
chmod 755 unpacked/colour
chmod 4755 unpacked/usr/lib/cargo/bin/sudo

cat >drive.sh <<'SH'
# An /etc and /usr of its own, in which there are both, and two users.
mount -t tmpfs tmpfs upper
for each in etc usr; do
    mkdir upper/$each upper/work-$each
    mount -t overlay overlay -o "lowerdir=$PWD/unpacked/$each:/$each,upperdir=$PWD/upper/$each,workdir=$PWD/upper/work-$each" /$each
done
for user in ci app; do echo "$user:x:$([ $user = ci ] && echo 4001 || echo 4002):4001::/:/bin/bash" >>/etc/passwd; done
echo ci:x:4001: >>/etc/group
echo "127.0.0.1 $(hostname)" >>/etc/hosts
printf 'auth sufficient pam_permit.so\naccount sufficient pam_permit.so\nsession sufficient pam_permit.so\n' |
    tee /etc/pam.d/sudo >/etc/pam.d/sudo-i
printf 'root ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n' >/etc/sudoers
chmod 440 /etc/sudoers
mkdir -p /etc/sudoers.d
rm -f /etc/sudoers.d/*

ask() { # the command of user ci, with the rule
    printf '%s\n' "$1" >/etc/sudoers.d/ci
    chmod 440 /etc/sudoers.d/ci
    for sudo in /usr/bin/sudo /usr/lib/cargo/bin/sudo; do
        code=0
        setpriv --reuid ci --regid ci --clear-groups --reset-env sh -c "cd /; ${2//sudo/$sudo}" >out 2>err </dev/null || code=$?
        echo "  $([[ $sudo == *cargo* ]] && echo sudo-rs: || echo 'sudo:   ') exit code $code," \
            "$(wc -l <err) lines on standard error, says $(cat out)"
    done
    /usr/sbin/visudo -c >/dev/null 2>&1 && echo "  visudo of sudo: fine" || echo "  visudo of sudo: not fine"
    /usr/lib/cargo/bin/visudo -c >/dev/null 2>&1 && echo "  visudo of sudo-rs: fine" || echo "  visudo of sudo-rs: not fine"
}
here=$PWD/unpacked
echo "wildcard in an argument"
ask 'ci ALL=(root) NOPASSWD: /usr/bin/echo restart app@*' 'sudo -n /usr/bin/echo restart app@1'
echo "wildcard as the last argument"
ask 'ci ALL=(root) NOPASSWD: /usr/bin/echo restart *' 'sudo -n /usr/bin/echo restart app@1'
echo "a setting that it does not know"
ask $'Defaults logfile=/run/sudo.log\nci ALL=(root) NOPASSWD: ALL' 'sudo -n /usr/bin/echo hello'
echo 'the option -E'
ask 'ci ALL=(root) NOPASSWD:SETENV: ALL' "COLOUR=blue sudo -n -E $here/colour"
SH
unshare --mount bash drive.sh >seen
cat seen
cat >expected <<'EXPECTED'
wildcard in an argument
  sudo:    exit code 0, 0 lines on standard error, says restart app@1
  sudo-rs: exit code 1, 4 lines on standard error, says 
  visudo of sudo: fine
  visudo of sudo-rs: not fine
wildcard as the last argument
  sudo:    exit code 0, 0 lines on standard error, says restart app@1
  sudo-rs: exit code 0, 0 lines on standard error, says restart app@1
  visudo of sudo: fine
  visudo of sudo-rs: fine
a setting that it does not know
  sudo:    exit code 0, 0 lines on standard error, says hello
  sudo-rs: exit code 0, 3 lines on standard error, says hello
  visudo of sudo: fine
  visudo of sudo-rs: not fine
the option -E
  sudo:    exit code 0, 0 lines on standard error, says COLOUR=blue
  sudo-rs: exit code 0, 1 lines on standard error, says COLOUR=
  visudo of sudo: fine
  visudo of sudo-rs: fine
EXPECTED
cmp -s seen expected || { echo "This has changed." >&2; exit 1; }
