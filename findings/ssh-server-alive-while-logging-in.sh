#!/usr/bin/env bash
# What `ConnectTimeout` and `ServerAliveInterval` of ssh mean for a login that takes long, as where the server asks a
# directory for the key of a user, or its disk is busy.
#
# Documentation: `ConnectTimeout` is applied to the connection, the initial handshake and the key exchange;
# `ServerAliveInterval`: after so many seconds without data ssh asks the server for an answer. Guess: the first bounds
# how long ssh may take until it is connected; the second tells a server that is gone from one that is slow, as that
# answers.
# Seen with OpenSSH 9.2p1 of Debian 12: `ConnectTimeout=3` lets a login of more than 8 s take its time. Until one is
# logged in `ServerAliveInterval` times `ServerAliveCountMax` is a plain timeout for each answer, since nothing is asked
# before: with 2 and 2 this login is given up after 4 s, with 255 and "Connection to ... timed out", though the server
# would have answered both times. Values that are short enough to notice a lost host are too short for a slow login.
# Needs Debian 12, whose packages it unpacks, and root. Run by hand: bash findings/ssh-server-alive-while-logging-in.sh.
# Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'openssh-server=1:9.2p1*' 'openssh-client=1:9.2p1*' libwrap0 libfido2-1 libcbor0.8 \
    libedit2 libbsd0 libmd0 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libkeyutils1 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

cat >drive.sh <<'SH'
# The directories that sshd wants to belong to root alone, and its user: in namespaces of its own, which end with it.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sshd
printf '#!/bin/sh\nsleep 8\ncat %s/key.pub\n' "$PWD" >/run/keys
chmod 755 /run/keys
{ grep -v ^sshd: /etc/passwd; echo 'sshd:x:65000:65534::/run/sshd:/usr/sbin/nologin'; } >passwd
mount --bind passwd /etc/passwd
ssh-keygen() { unpacked/usr/bin/ssh-keygen -q -t ed25519 -N '' -f "$1"; }
ssh-keygen key
ssh-keygen host
port=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
cat >configuration <<CONF
Port $port
ListenAddress 127.0.0.1
HostKey $PWD/host
PidFile none
AuthorizedKeysFile none
AuthorizedKeysCommand /run/keys
AuthorizedKeysCommandUser root
PermitRootLogin prohibit-password
CONF
"$PWD/unpacked/usr/sbin/sshd" -D -f configuration 2>/dev/null &
for _ in {1..100}; do (: <>"/dev/tcp/127.0.0.1/$port") && break || sleep 0.1; done

seen() { # with these options, of this command
    local what=$1 command=$2 code=0 before=$SECONDS
    shift 2
    # The first value of an option is the one that counts.
    timeout 100 unpacked/usr/bin/ssh -F none -i key -p "$port" -o IdentityAgent=none -o BatchMode=yes "$@" \
        -o ServerAliveInterval=0 -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no root@127.0.0.1 \
        "$command" 2>errors || code=$?
    echo "$what: exits with $code, after 8 s or more: $([ $((SECONDS - before)) -ge 8 ] && echo yes || echo no)" \
        "$(grep -o 'timed out' errors || true)"
}
seen "a slow login, ConnectTimeout=3" true -o ConnectTimeout=3
seen "a slow login, ServerAlive of 2 s twice" true -o ServerAliveInterval=2 -o ServerAliveCountMax=2
printf '#!/bin/sh\ncat %s/key.pub\n' "$PWD" >/run/keys
seen "a slow command, ServerAlive of 2 s twice" "sleep 8" -o ServerAliveInterval=2 -o ServerAliveCountMax=2
SH
LD_LIBRARY_PATH=$(echo "$folder"/unpacked/usr/lib/*-linux-gnu):$(echo "$folder"/unpacked/lib/*-linux-gnu) \
    unshare --mount --pid --fork --kill-child --mount-proc bash drive.sh 2>/dev/null | tee seen
cat >expected <<'EXPECTED'
a slow login, ConnectTimeout=3: exits with 0, after 8 s or more: yes 
a slow login, ServerAlive of 2 s twice: exits with 255, after 8 s or more: no timed out
a slow command, ServerAlive of 2 s twice: exits with 0, after 8 s or more: yes 
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
