#!/usr/bin/env bash
# Whether `gunicorn --check-config` finds a misspelt setting in its configuration file, here `gracefull_timeout`.
#
# Guess: it does; it is a check of the configuration, and the same misspelling on the command line is refused.
# Seen with gunicorn 27.0.1: it says nothing and exits with 0, and the setting keeps its default of 30 seconds. Every
# name in the file that is not a setting is ignored, as a variable of the file. On the command line the exit code is 2.
# Run by hand: bash findings/gunicorn-unknown-setting.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install gunicorn==27.0.1
cd "$folder"

cat >app.py <<'PYTHON'
def app(environ, start_response):
    start_response("204 No Content", [])
    return []
PYTHON
echo 'gracefull_timeout = 90' >gunicorn.conf.py

in_file=0
venv/bin/gunicorn --check-config app:app >said 2>&1 || in_file=$?
named=$(grep -c gracefull said || true)
kept=$(venv/bin/gunicorn --print-config app:app | sed -n 's/^graceful_timeout *= *//p')
on_command_line=0
venv/bin/gunicorn --check-config --gracefull-timeout 90 app:app >/dev/null 2>&1 || on_command_line=$?

echo "in the file:          exit code $in_file, named in $named lines, graceful_timeout is $kept"
echo "on the command line:  exit code $on_command_line"
if [ "$in_file $named $kept $on_command_line" != "0 0 30 2" ]; then
    echo "This has changed." >&2
    exit 1
fi
