#!/bin/sh
# Before `make install` can run on a fresh host: Python, and the module that makes virtual environments.
set -eu

if [ "$(id -u)" -ne 0 ]; then
    echo "wsbundle: you are not root; run it with sudo" >&2
    exit 1
fi
if python3 -c 'import ensurepip, venv' 2>/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "wsbundle: python3 with venv is missing, and this is no Debian or Ubuntu: install it by hand" >&2
    exit 1
fi

echo "Installing python3 and python3-venv" >&2
# No question is asked, be it by a package or, on Ubuntu, by needrestart; another run of apt is waited for.
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
if ! { apt-get -qq -o Dpkg::Lock::Timeout=300 update &&
    apt-get -qq -y -o Dpkg::Lock::Timeout=300 --no-install-recommends install python3 python3-venv >/dev/null; }; then
    echo "wsbundle: python3 and python3-venv are needed first; connect this host, or install them by hand" >&2
    exit 1
fi
