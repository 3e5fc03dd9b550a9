#!/bin/sh
# After a power cut in the middle of a switch of $1: its units may be of one generation and /opt/$1/current of the other.
# Makes them those of the generation that is current, so that all of it is one again. The next `wsbundle` run undoes the
# switch. Where nothing differs, nothing is done.
set -eu

name=$1
cd "/opt/$name/current" || exit 0 # nothing was installed before
changed=
# The listener of nginx is not of every generation. Where it is not, nothing starts one that is left.
listener="etc/systemd/system/$name.nginx.socket"
if [ -e "/etc/systemd/system/$name.socket" ] && [ -e "$listener" ] && ! [ -e "/$listener" ]; then
    touch "/$listener"
fi
for file in "etc/systemd/system/$name.service" "etc/systemd/system/$name.socket" "$listener" "etc/tmpfiles.d/$name.conf" \
    "etc/systemd/system/valkey-server@$name.service.d/$name.conf" \
    "etc/systemd/system/redis-server@$name.service.d/$name.conf"; do
    # One that is not there belongs to the other manager.
    if [ -e "/$file" ] && [ -e "$file" ] && ! cmp -s "$file" "/$file"; then
        new="/$(dirname "$file")/.$(basename "$file").new"
        rm -f "$new"
        cp -p "$file" "$new"
        sync "$new"
        mv "$new" "/$file"
        changed=yes
    fi
done
[ "$changed" ] || exit 0

systemctl daemon-reload
for engine in valkey redis; do
    if systemctl is-enabled --quiet "$engine-server@$name.service"; then
        systemctl reset-failed "$engine-server@$name.service" || true
        systemctl restart "$engine-server@$name.service"
    fi
done
if [ -e "/etc/tmpfiles.d/$name.conf" ]; then
    systemd-tmpfiles --create "/etc/tmpfiles.d/$name.conf"
fi
if systemctl is-enabled --quiet "$name.socket"; then
    # Together, as an installation does: a socket whose service runs cannot be changed.
    systemctl reset-failed "$name.socket" "$name.nginx.socket" "$name.service" || true
    systemctl restart "$name.socket" "$name.service"
fi
