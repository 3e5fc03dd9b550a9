#!/bin/sh
# Install what this archive carries on this host, as root. Nothing is downloaded when the Debian packages are there:
# python3-venv, nginx, and supervisor or certbot where deploy.yaml asks for them. It can be run again and again; options
# go to `wsbundle install`. `sh install plan` shows what it would change. Afterwards: .venv/bin/wsbundle status, history,
# rollback, uninstall.
set -eu

PATH=/usr/sbin:/usr/bin:/sbin:/bin # the system's own python3 is the one that will run the service
cd "$(dirname "$0")"
if ! sha256sum --check --quiet --strict SHA256SUMS; then
    echo "wsbundle: this archive is damaged, or was edited after it was unpacked; unpack it again. Nothing was changed." >&2
    echo "  A setting can be changed without editing: sh install --set KEY=VALUE" >&2
    exit 1
fi
# Whatever lies beside the code could become part of it: the service is all of service/, and Python looks here first.
added=$(find . \( -path ./.venv -o -path ./build -o -name __pycache__ \) -prune -o \( -type f -o -type l \) \
    \( -name '*.py' -o -path './service/*' -o -path './generator/*' -o -path './templates/*' -o -path './wheels/*' \) -print |
    sed 's|^\./||' | grep -vxF "$(cut -c 67- SHA256SUMS)" || true)
if [ -n "$added" ]; then
    echo "wsbundle: files were added to this archive after it was unpacked; remove them. Nothing was changed." >&2
    echo "$added" | sed 's/^/  /' >&2
    exit 1
fi
verb=install
if [ "${1-}" = plan ]; then
    verb=plan
    shift
else
    sh generator/prepare.sh
fi
python3 -IB generator/environment.py .venv requirements/generator.txt requirements/service.txt
exec .venv/bin/wsbundle "$verb" "$@"
