#!/usr/bin/env bash
# Which packages `pip download --python-version 3.10` fetches, under a newer Python, for a host with Python 3.10 that has no
# network.
#
# Documentation: the Python interpreter version to use for wheel and "Requires-Python" compatibility checks; and that with
# these options dependencies are resolved too, of wheels only. Guess: all that an installation there needs.
# Seen with pip 26.3: `exceptiongroup` is missing, which anyio, and so Starlette, needs below 3.11: pip looks for the wheels
# of the other Python, but asks its own which dependencies apply. With `--platform win_amd64`, `colorama` of click is
# missing likewise. It exits with 0, and the installation on the other host fails. `uv pip compile --python-version` and
# `--python-platform` ask for the other one.
# Needs Python 3.11 or later on Linux. Run by hand: bash findings/pip-download-for-another-python.sh. Fails when that
# changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install pip==26.3 uv==0.13.9
cd "$folder"

of_pip() { # the names of what is fetched
    mkdir wheels
    venv/bin/pip download -qq --disable-pip-version-check --only-binary=:all: --dest wheels "$@" 2>/dev/null
    (cd wheels && for wheel in *.whl; do echo "${wheel%%-*}"; done) | sort | tr '\n' ' '
    rm -r wheels
}
of_uv() {
    local package=$1
    shift
    venv/bin/uv pip compile -q --no-header --no-annotate "$@" - <<<"$package" | sed 's/==.*//; s/-/_/' | sort | tr '\n' ' '
}
{
    echo "pip, anyio for 3.10:     $(of_pip --python-version 3.10 anyio==4.9.0)"
    echo "uv,  anyio for 3.10:     $(of_uv anyio==4.9.0 --python-version 3.10)"
    echo "pip, click for Windows:  $(of_pip --platform win_amd64 click==8.1.8)"
    echo "uv,  click for Windows:  $(of_uv click==8.1.8 --python-platform windows)"
} >seen
cat seen
sed 's/ *$//' seen >trimmed
cat >expected <<'EXPECTED'
pip, anyio for 3.10:     anyio idna sniffio typing_extensions
uv,  anyio for 3.10:     anyio exceptiongroup idna sniffio typing_extensions
pip, click for Windows:  click
uv,  click for Windows:  click colorama
EXPECTED
cmp -s trimmed expected || { echo "This has changed."; exit 1; }
