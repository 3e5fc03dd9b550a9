#!/usr/bin/env bash
# What `nginx -t` leaves behind on a host where nginx does not run.
#
# Guess: nothing; it is a test.
# Seen with nginx 1.22.1 of Debian 12: an empty pid file, besides the log files and the directories for bodies. A script
# that takes the file for a sign that nginx runs is wrong from then on, and `nginx -s reload` fails with `invalid PID number ""`,
# which looks like a broken nginx, where it says without the test that there is no such file.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/nginx-test-leaves-a-pid-file.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'nginx=1.22.1*' 2>/dev/null
dpkg-deb -x nginx_*.deb unpacked
mkdir run
cat >conf <<CONF
pid $folder/run/pid; error_log $folder/run/error;
events {}
http {
    access_log off; client_body_temp_path $folder/run/b; proxy_temp_path $folder/run/p;
    fastcgi_temp_path $folder/run/f; uwsgi_temp_path $folder/run/u; scgi_temp_path $folder/run/s;
}
CONF
nginx() { unpacked/usr/sbin/nginx -p "$folder" -c "$folder/conf" -e "$folder/run/error" "$@" 2>&1; }

before=$(nginx -s reload || true)
nginx -t >said
left=$(find run -name pid -printf '%f, %s bytes')
after=$(nginx -s reload || true)
echo "nginx -s reload before the test: $before"
echo "nginx -t says: $(tail -n 1 said)"
echo "nginx -t left: $left"
echo "nginx -s reload after the test: $after"
[[ "$before" == *"No such file"* && "$left" = "pid, 0 bytes" && "$after" == *'invalid PID number ""'* ]] || {
    echo "This has changed."
    exit 1
}
