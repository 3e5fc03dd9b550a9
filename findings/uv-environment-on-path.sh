#!/usr/bin/env bash
# Which environment `uv pip sync` changes when no environment is activated and there is no `.venv`.
#
# Documentation: uv looks for an activated environment (`VIRTUAL_ENV`), then for `.venv` in this directory and its
# parents. Guess: otherwise it changes nothing, and says that an environment is needed.
# Seen with uv 0.13.9: it takes the environment whose `python3` is the first on PATH, as where a script or a unit puts a
# program's own environment there, and removes from it all that the list does not name. With no environment on PATH it
# fails as guessed. So say which: `uv pip sync --python PATH`.
# Run by hand: bash findings/uv-environment-on-path.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset VIRTUAL_ENV CONDA_PREFIX
python3 -m venv tool
tool/bin/pip -qq --disable-pip-version-check install uv==0.13.9
python3 -m venv service
service/bin/pip -qq --disable-pip-version-check install h11==0.16.0 six==1.17.0
echo h11==0.16.0 >list.txt

packages() { service/bin/pip list --format=freeze | grep -cE '^(h11|six)=='; }
sync() { PATH=$1:/usr/bin:/bin tool/bin/uv pip sync -q list.txt 2>/dev/null && echo 0 || echo $?; }
before=$(packages)
without=$(sync /nowhere)
between=$(packages)
with=$(sync "$folder/service/bin")
after=$(packages)
tool/bin/uv --version
echo "service/bin not on PATH: exit code $without, packages in it: $before before, $between after"
echo "service/bin on PATH:     exit code $with, packages in it: $between before, $after after"
if [ "$before $without $between $with $after" != "2 2 2 0 1" ]; then
    echo "This has changed." >&2
    exit 1
fi
