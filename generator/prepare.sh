#!/bin/sh
# Before `make install` can run on a fresh host: Python, and the module that makes virtual environments.
set -eu
PATH=$PATH:/usr/sbin:/sbin # dpkg does nothing without them, and `su` leaves them out
umask 022 # what packages make while they are installed is for everybody to read, whatever the caller's umask

if [ "$(id -u)" -ne 0 ]; then
    echo "wsbundle: you are not root; run it with sudo" >&2
    exit 1
fi
if python3 -I -c 'import ensurepip, venv' 2>/dev/null; then # whatever the caller's PYTHONHOME
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "wsbundle: python3 with venv is missing, and this is no Debian or Ubuntu: install it by hand" >&2
    exit 1
fi

# Run apt-get, again and again for 15 minutes while another program holds a lock of apt or dpkg, and say so;
# `generator/host/packages.py` does the same for the other packages. No question is asked, be it by a package or, on
# Ubuntu, by needrestart.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8
patiently() {
    waited=0
    until said=$(apt-get -qq -o DPkg::Lock::Timeout=0 "$@" 2>&1); do
        reason=$(printf '%s\n' "$said" | grep -E 'Could not get lock|locked by another process' | head -n 1)
        if [ -z "$reason" ] || [ "$waited" -ge 900 ]; then
            say "$said"
            return 1
        fi
        [ "$waited" -gt 0 ] || say "Waiting for another apt or dpkg, for 15 minutes at most: ${reason#E: }"
        sleep 1
        waited=$((waited + 1))
    done
}

# On a terminal, count the seconds in one line as long as this script runs; `generator/progress.py` does the same later.
began=$(date +%s)
seconds() { echo $(($(date +%s) - began)); }
say() {
    [ ! -t 2 ] || printf '\r%60s\r' '' >&2
    printf '%s\n' "$1" >&2
}
counting() {
    while sleep 1 && kill -0 "$$" 2>/dev/null; do
        printf '\r         %6.1f s  install python3 and python3-venv' "$(seconds)" >&2
    done
}

say "Installing python3 and python3-venv"
if [ -t 2 ]; then
    counting &
    trap 'kill $!' EXIT
fi
patiently update || say "apt-get update failed, so its lists may be old" # as a rule for one source alone
if ! patiently -y --no-install-recommends install python3 python3-venv; then
    say "wsbundle: python3 and python3-venv are needed first; connect this host, or install them by hand"
    exit 1
fi
say "$(printf '  done   %6.1f s  install python3 and python3-venv' "$(seconds)")"
