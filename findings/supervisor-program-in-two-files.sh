#!/usr/bin/env bash
# Which program supervisord runs when two files of `[include]` have a section of the same name, as when a copy of one
# was left beside it, and when one section has an option twice.
#
# Guess: it refuses to start, as it does for a program without a command; or the last file counts, with a warning.
# Seen with the version below: neither. The two sections are made into one, without a word: the program has the command
# of the last file, in the order of their names, and from the other one each option that the last one does not have,
# here the signal that stops it. `environment` is one option, and is not merged. Of an option that is there twice the
# last counts. Keep copies under a name that the pattern does not match.
# Run by hand: bash findings/supervisor-program-in-two-files.sh. Fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || { kill "$pid"; wait "$pid" || true; }; rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -qq --disable-pip-version-check install supervisor==4.3.0 setuptools==75.8.0
cd "$folder"

cat >configuration <<CONF
[supervisord]
nodaemon=true
logfile=$folder/log
pidfile=$folder/pid
childlogdir=$folder
[unix_http_server]
file=$folder/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://$folder/socket
[include]
files=$folder/*.conf
CONF
cat >web-old.conf <<'CONF'
[program:web]
command=sleep 1001
environment=OLD="1"
stopsignal=INT
CONF
cat >web.conf <<'CONF'
[program:web]
command=sleep 1002
command=sleep 1003
environment=NEW="1"
CONF
ctl() { venv/bin/supervisorctl -c configuration "$@"; }

timeout 120 venv/bin/supervisord -c configuration >/dev/null 2>&1 &
pid=$!
for _ in {1..100}; do ctl status 2>/dev/null | grep -q RUNNING && break || sleep 0.2; done
web=$(ctl pid web)
{
    echo "command: $(tr '\0' ' ' <"/proc/$web/cmdline")"
    echo "environment: $(tr '\0' '\n' <"/proc/$web/environ" | grep -E '^(OLD|NEW)=' | tr '\n' ' ')"
    echo "warnings and errors about it: $(grep -E ' (WARN|CRIT|ERRO) ' log | grep -c web || true)"
    ctl stop web >/dev/null
    grep -o 'stopped: web.*' log
} | tee seen
cat >expected <<'EXPECTED'
command: sleep 1003 
environment: NEW=1 
warnings and errors about it: 0
stopped: web (terminated by SIGINT)
EXPECTED
cmp -s seen expected || { echo "This has changed."; exit 1; }
