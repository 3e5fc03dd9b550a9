#!/usr/bin/env bash
# Whether `cloud-init schema` finds a misspelt word at the top of user data, such as `runcmds` for `runcmd`.
#
# Documentation: it validates user data, and names what the schema does not allow. Guess: an unknown word is refused at the
# top as it is within `write_files`, where it says "Additional properties are not allowed".
# Seen with 22.4.2 of Debian 12: "Valid cloud-config", and exit code 0. At its first boot the machine then runs none of these
# commands, and `cloud-init status` says `done`. (25.1.4 of Debian 13 refuses it.) Validate with a new one.
# Needs Debian 12, whose package it unpacks. Run by hand: bash findings/cloud-init-misspelt-module.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq 'cloud-init=22.4.2*' 2>/dev/null
dpkg-deb -x cloud-init_*.deb unpacked
python3 -m venv venv
venv/bin/pip -qq --disable-pip-version-check install jsonschema==4.10.3 configobj==5.0.9 jsonpatch==1.33 oauthlib==3.3.1 \
    requests==2.32.5 pyserial==3.5 pyyaml==6.0.3 jinja2==3.1.6
cp -r unpacked/usr/lib/python3/dist-packages/cloudinit venv/lib/python3*/site-packages/

same=yes
judged() { # what is misspelt, the user data, the exit code that was seen
    local code=0
    printf '#cloud-config\n%s\n' "$2" >user-data
    venv/bin/python -W ignore -m cloudinit.cmd.main schema -c user-data >said 2>&1 || code=$?
    echo "$1: exits with $code: $(tail -n 1 said | cut -c 1-90)"
    [ "$code" = "$3" ] || same=no
}
judged "nothing" 'runcmd: [echo hello]' 0
judged "a word at the top" 'runcmds: [echo hello]' 0
judged "a word within write_files" 'write_files: [{path: /etc/hello, contents: hello}]' 1
if [ "$same" = no ]; then
    echo "This has changed." >&2
    exit 1
fi
