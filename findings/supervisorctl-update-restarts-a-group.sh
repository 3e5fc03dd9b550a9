#!/usr/bin/env bash
# Which processes `supervisorctl update` restarts when `numprocs` of a program is raised, or one program of a group gets
# another environment.
#
# Documentation: update: reload config and add/remove as necessary, and will restart affected programs. Guess: the third
# process is added and the two others run on; of the group, the changed program is restarted.
# Seen with the version below: the two are stopped too, all at once, and then all three are started; and all programs of
# the group are restarted. Any difference in any of its programs replaces the group, and all `numprocs` are one group. To
# add processes to a server that may lose none, give them a section of their own.
# Run by hand: bash findings/supervisorctl-update-restarts-a-group.sh. Fails when that changes.
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
[program:worker]
command=sleep 1000
process_name=%(process_num)s
numprocs=2
[group:site]
programs=web,mail
[program:mail]
command=sleep 1000
[program:web]
command=sleep 1000
CONF
ctl() { venv/bin/supervisorctl -c configuration "$@"; }
pids() { for name in worker:0 worker:1 site:web site:mail; do echo "$name $(ctl pid $name)"; done; }
running() {
    for _ in {1..100}; do
        [ "$(ctl status 2>/dev/null | grep -c RUNNING)" != "$1" ] || return 0
        sleep 0.5
    done
}
kept() { # after a change of the configuration
    local before
    before=$(pids)
    ctl update >/dev/null
    running 5
    for name in worker:0 worker:1 site:web site:mail; do
        [ "$(grep "^$name " <<<"$before")" = "$name $(ctl pid $name)" ] && echo -n "$name " || true
    done
}

timeout 120 venv/bin/supervisord -c configuration >/dev/null 2>&1 &
pid=$!
running 4
sed -i 's/numprocs=2/numprocs=3/' configuration
third=$(kept)
echo 'environment=COLOUR="blue"' >>configuration
web=$(kept)
echo "# a comment" >>configuration
comment=$(kept)
echo "not restarted when a third worker is added:      ${third:-none of them}"
echo "not restarted when web gets an environment:      ${web:-none of them}"
echo "not restarted when only a comment is added:      ${comment:-none of them}"
[ "$third" = "site:web site:mail " ] && [ "$web" = "worker:0 worker:1 " ] &&
    [ "$comment" = "worker:0 worker:1 site:web site:mail " ] || { echo "This has changed."; exit 1; }
