#!/usr/bin/env bash
# Whether `systemd-analyze verify` fails for a unit with a misspelt key, as a check before an installation would want.
#
# Guess: it prints the key and exits with 1.
# Seen with systemd 252 of Debian 12: it prints "Unknown key" and exits with 0, so a script or a CI job that checks
# the exit code accepts the unit. It exits with 1 only with --recursive-errors=yes, an option that is there since
# systemd 250 and named for something else.
# Needs Debian 12, whose packages it unpacks. Run by hand: bash findings/systemd-verify-unknown-key.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'systemd=252*' 'libsystemd-shared=252*' 2>/dev/null
for package in *.deb; do dpkg-deb -x "$package" unpacked; done

mkdir units
cat >units/misspelt.service <<'UNIT'
[Unit]
DefaultDependencies=no

[Service]
ExecStart=/bin/true
Restrat=always
UNIT

verify() {
    local code=0
    SYSTEMD_UNIT_PATH=$folder/units LD_LIBRARY_PATH=$(echo unpacked/usr/lib/*/systemd) \
        unpacked/usr/bin/systemd-analyze "$@" verify misspelt.service >said 2>&1 || code=$?
    if grep -q "Unknown key.*'Restrat'" said; then
        echo "named, exit code $code"
    else
        echo "not named, exit code $code"
    fi
}

alone=$(verify)
strict=$(verify --recursive-errors=yes)
unpacked/usr/bin/systemd-analyze --version | head -n 1
echo "verify:                         $alone"
echo "verify --recursive-errors=yes:  $strict"
if [ "$alone, $strict" != "named, exit code 0, named, exit code 1" ]; then
    echo "This has changed." >&2
    exit 1
fi
