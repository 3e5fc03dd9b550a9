#!/bin/sh
# Inside a root file system of Debian: make it what Ubuntu 26.04 is, as far as an installation can tell.
set -eu

# coreutils in Rust under their usual names for every program and PATH, the GNU ones beside them as gnuNAME: so does
# Ubuntu's coreutils-from-uutils.
rust=/usr/lib/cargo/bin/coreutils
for path in "$rust"/*; do
    name=${path##*/}
    for directory in /usr/bin /usr/sbin; do
        if [ -e "$directory/$name" ]; then
            dpkg-divert --quiet --local --rename --divert "$directory/gnu$name" --add "$directory/$name" 2>/dev/null
            "$rust/ln" -s "$path" "$directory/$name"
        fi
    done
done

ln -s sudo-rs /usr/bin/sudo
printf '%s\n' '@include common-auth' '@include common-account' '@include common-session-noninteractive' >/etc/pam.d/sudo
cat >/etc/sudoers <<'SUDOERS'
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
root ALL=(ALL:ALL) ALL
%sudo ALL=(ALL:ALL) ALL
ubuntu ALL=(ALL) NOPASSWD:ALL
@includedir /etc/sudoers.d
SUDOERS
chmod 440 /etc/sudoers
mkdir -p /etc/sudoers.d
useradd --create-home --key HOME_MODE=0750 --shell /bin/bash --groups adm,sudo ubuntu

cat >/usr/lib/os-release <<'RELEASE'
PRETTY_NAME="Ubuntu 26.04 LTS"
NAME="Ubuntu"
VERSION_ID="26.04"
VERSION="26.04 LTS (Resolute Raccoon)"
VERSION_CODENAME=resolute
ID=ubuntu
ID_LIKE=debian
HOME_URL="https://www.ubuntu.com/"
UBUNTU_CODENAME=resolute
RELEASE
